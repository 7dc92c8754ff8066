/** The contract of hosts, held by both methods of Hyper-V against the stand-in. */

import { describeHost, type HostFixture } from '../../conformance/host.js';
import { BUILD, describeWithPowerShell, Lane } from './lane.js';
import { makesHeadway } from './standin/machines.js';

/** Names that are code, quoting, or another script to somebody. */
const FIRST = "it's $(throw 'x'); \"Прод\" `& <x>";
const SECOND = 'second';
const WEAK = 'linux guest';

async function makeFixture(build: number): Promise<HostFixture> {
  const lane = await Lane.open(build, [
    { name: FIRST, disks: 2, folder: "a & b's [1] – архив $HOME" },
    { name: SECOND },
    { name: WEAK, guest: 'linux' },
  ]);
  const { hypervisor } = lane;
  return {
    host: async () => lane.host(),
    vms: [FIRST, SECOND, WEAK],
    weakVm: WEAK,
    ...(build >= BUILD.server2016 && { tracking: 'auto' as const }),
    isWriting: (vm) => makesHeadway(hypervisor.machine(vm)),
    chainDepth: async (vm) => hypervisor.depth(vm),
    userCheckpoint: async (vm) => {
      const checkpoint = await hypervisor.userCheckpoint(vm);
      return () => hypervisor.endCheckpoint(vm, checkpoint);
    },
    breakCaptures: async (vm) => {
      hypervisor.faults.checkpointFails = vm;
      hypervisor.faults.guestVssFails = vm;
      hypervisor.faults.vssSpoiledBy.set(vm, '0x800423F4');
      return async () => {
        hypervisor.faults.checkpointFails = undefined;
        hypervisor.faults.guestVssFails = undefined;
        hypervisor.faults.vssSpoiledBy.clear();
      };
    },
    mergeDeadlineMs: 60_000,
    dispose: () => lane.close(),
  };
}

describeWithPowerShell('Hyper-V', () => {
  describeHost('Windows Server 2016', () => makeFixture(BUILD.server2016));
  describeHost('Windows Server 2012 R2', () => makeFixture(BUILD.server2012R2));
});
