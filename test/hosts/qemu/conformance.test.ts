/**
 * Goal: the QEMU host is a host. Method: the suite of all hosts against two machines of QEMU's storage daemon that are written to all the
 * time; it has no guest and so no freeze, which the tests with a live guest (test/live) add.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'vitest';
import { QemuHost } from '../../../src/hosts/qemu/qemu-host.js';
import { describeHost, type HostFixture } from '../../conformance/host.js';
import { StorageDaemon, waitFor, whyNoDaemon } from './storage-daemon.js';

if (whyNoDaemon === undefined) {
  describeHost('qemu (storage daemon)', makeFixture);
} else {
  describe('qemu (storage daemon), as a host', () => {
    test('holds the contract of all hosts', ({ skip }) => skip(whyNoDaemon));
  });
}

async function makeFixture(): Promise<HostFixture> {
  const root = await mkdtemp(path.join(tmpdir(), 'firn-qemu-'));
  const machines = {
    one: await StorageDaemon.create(path.join(root, 'one'), ['system', 'data']),
    two: await StorageDaemon.create(path.join(root, 'two')),
  };
  for (const machine of Object.values(machines)) await machine.startWriting();
  const machine = (name: string) => machines[name as keyof typeof machines];
  return {
    host: async () => new QemuHost(root),
    vms: Object.keys(machines),
    weakVm: 'two',
    tracking: 'auto',
    isWriting: (name) => machine(name).isWriting(),
    chainDepth: (name) => machine(name).chainDepth(),
    breakCaptures: (name) => occupy(machine(name)),
    async dispose() {
      for (const each of Object.values(machines)) await each.stop();
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** A mirror of somebody else's holds the disk. */
async function occupy(machine: StorageDaemon): Promise<() => Promise<void>> {
  await machine.qmp(async (qmp) => {
    await qmp.execute('blockdev-add', {
      driver: 'null-co',
      'node-name': 'elsewhere',
      size: 64 * 1024 * 1024,
    });
    await qmp.execute('blockdev-mirror', {
      'job-id': 'theirs',
      device: 'n0',
      target: 'elsewhere',
      sync: 'none',
    });
  });
  return async () => {
    await machine.qmp((qmp) => qmp.execute('block-job-cancel', { device: 'theirs', force: true }));
    await waitFor(() =>
      machine.qmp(async (qmp) => {
        const jobs = (await qmp.execute('query-jobs')) as unknown[];
        if (jobs.length > 0) return false;
        await qmp.execute('blockdev-del', { 'node-name': 'elsewhere' });
        return true;
      }),
    );
  };
}
