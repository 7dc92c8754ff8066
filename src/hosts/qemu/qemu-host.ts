/**
 * QEMU as a host: machines whose monitors (QMP) and guest agents are reached through Unix sockets in a folder for each machine.
 *
 * A checkpoint is a qcow2 layer that one transaction puts on all disks of a machine (capture.ts); the merge is block-commit (merge.ts,
 * offline.ts). The mark stands in the layers' file names and in a record in the machine's folder (record.ts). A guest that is frozen is
 * guarded by a process of its own (freeze-guard.ts). Nothing is kept between calls, connections included: a monitor serves one client
 * at a time, and other programs need theirs. What changed since a point is told by dirty bitmaps (bitmaps.ts).
 */

import { hostname } from 'node:os';
import path from 'node:path';
import { firnError } from '../../errors.js';
import type {
  Capture,
  CaptureOutcome,
  CaptureRequest,
  Check,
  Host,
  HostInfo,
  Leftover,
  Release,
  ReleaseOutcome,
  Steps,
  Vm,
  VmDisk,
  VmRef,
  Volume,
} from '../host.js';
import { type HostTracking, type KeptReference, ownerOfReference } from '../tracking.js';
import { keptReferences, readBitmaps, removeBitmaps } from './bitmaps.js';
import { captureMachine, METHOD } from './capture.js';
import { checkMachine, checkTools, qemuImageVersion } from './check.js';
import { type GraphDisk, readGraph } from './graph.js';
import { findLeftovers } from './leftovers.js';
import { findMachines, isLive, type Machine, selectMachine } from './machines.js';
import { hostFailure, withQmp } from './qmp.js';
import { probeReach } from './reach.js';
import { type Released, releaseMachine } from './release.js';
import { readVolume, volumeOf } from './volumes.js';

export class QemuHost implements Host {
  readonly kind = 'qemu';
  readonly spec: string;
  readonly #root: string;

  /** `root` holds one folder for each machine, or is one. Whether it is there shows at the first call. */
  constructor(root: string) {
    this.#root = path.resolve(root);
    this.spec = `qemu:${this.#root}`;
  }

  async info(): Promise<HostInfo> {
    const machines = await findMachines(this.#root);
    const running = machines.find((machine) => machine.version !== undefined)?.version;
    const version =
      running === undefined ? ((await qemuImageVersion()) ?? 'QEMU') : `QEMU ${running}`;
    return { kind: this.kind, name: hostname(), version, method: METHOD };
  }

  async listVms(): Promise<Vm[]> {
    return Promise.all((await findMachines(this.#root)).map(describeMachine));
  }

  async volumes(): Promise<Volume[]> {
    const vms = await this.listVms();
    const names = new Set(vms.flatMap((vm) => vm.disks.map((disk) => disk.volume)));
    return Promise.all([...names].map(readVolume));
  }

  async check(): Promise<Check[]> {
    const machines = await findMachines(this.#root);
    const checks = await Promise.all(machines.map(checkMachine));
    return [...(await checkTools()), ...checks.flat()];
  }

  batches(vms: readonly Vm[]): Vm[][] {
    return vms.map((vm) => [vm]);
  }

  async capture(
    batch: readonly CaptureRequest[],
    mark: string,
    steps: Steps,
  ): Promise<CaptureOutcome[]> {
    const machines = await findMachines(this.#root);
    return Promise.all(
      batch.map(async (request): Promise<CaptureOutcome> => {
        try {
          const capture = await this.#capture(machines, request, mark, steps);
          return { vm: request.vm, capture };
        } catch (failure) {
          return { vm: request.vm, error: hostFailure(failure) };
        }
      }),
    );
  }

  async release(
    vms: readonly Release[],
    mark: string,
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<ReleaseOutcome[]> {
    const machines = await findMachines(this.#root);
    return Promise.all(
      vms.map(async ({ advance, ...vm }): Promise<ReleaseOutcome> => {
        try {
          const released = { mark, advance };
          await this.#release(machines, vm, released, mergeDeadlineMs, steps);
          return { vm };
        } catch (failure) {
          return { vm, error: hostFailure(failure) };
        }
      }),
    );
  }

  async leftovers(): Promise<Leftover[]> {
    const machines = await findMachines(this.#root);
    return (await Promise.all(machines.map(findLeftovers))).flat();
  }

  get tracking(): HostTracking {
    return {
      references: async () => {
        const machines = (await findMachines(this.#root)).filter(isLive);
        return (await Promise.all(machines.map(referencesAt))).flat();
      },
      drop: async (vm, name) => {
        const machine = selectMachine(await findMachines(this.#root), vm);
        if (machine?.problem !== undefined) throw machine.problem;
        await dropReference(machine, vm, name);
      },
    };
  }

  async close(): Promise<void> {}

  async #capture(
    machines: readonly Machine[],
    request: CaptureRequest,
    mark: string,
    steps: Steps,
  ): Promise<Capture> {
    const machine = selectMachine(machines, request.vm);
    if (machine === undefined) {
      throw firnError('ERR_VM_NOT_FOUND', `${request.vm.name} is not below ${this.#root}`);
    }
    if (machine.problem !== undefined) throw machine.problem;
    return captureMachine(machine, request, mark, steps);
  }

  async #release(
    machines: readonly Machine[],
    vm: VmRef,
    released: Released,
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<void> {
    const machine = selectMachine(machines, vm);
    if (machine !== undefined) return releaseMachine(machine, released, mergeDeadlineMs, steps);
    // It may be the one that does not say who it is.
    const silent = machines.find((each) => each.problem !== undefined);
    if (silent?.problem !== undefined) throw silent.problem;
  }
}

async function referencesAt({ folder, ref }: Machine): Promise<KeptReference[]> {
  return keptReferences(await withQmp(folder, readBitmaps), ref);
}

/** ERR_NOT_FOUND if the machine does not have it: it may be off, too. ERR_VM_BUSY while a run reads it. */
async function dropReference(machine: Machine | undefined, vm: VmRef, name: string): Promise<void> {
  const isOurs = ownerOfReference(name) !== undefined;
  const found =
    machine !== undefined && isLive(machine) && isOurs
      ? (await withQmp(machine.folder, readBitmaps)).filter((bitmap) => bitmap.name === name)
      : [];
  if (machine === undefined || found.length === 0) {
    throw firnError('ERR_NOT_FOUND', `${vm.name} has no reference "${name}"`);
  }
  if (found.some(({ busy }) => busy)) {
    throw firnError('ERR_VM_BUSY', `${vm.name}: the reference "${name}" is being read`);
  }
  await withQmp(machine.folder, (qmp) => removeBitmaps(qmp, found));
}

async function describeMachine(machine: Machine): Promise<Vm> {
  const { ref, state } = machine;
  if (!isLive(machine)) {
    const reason = machine.problem?.message ?? 'QEMU does not run';
    return { ...ref, state, reachable: 'crash', reachableReason: reason, disks: [] };
  }
  try {
    return await withQmp(machine.folder, async (qmp) => {
      const { reachable, reason } = await probeReach(qmp, machine);
      const disks = await Promise.all((await readGraph(qmp)).map(describeDisk));
      return { ...ref, state, reachable, reachableReason: reason, disks };
    });
  } catch (failure) {
    const reason = hostFailure(failure).message;
    return { ...ref, state: 'critical', reachable: 'crash', reachableReason: reason, disks: [] };
  }
}

async function describeDisk(disk: GraphDisk): Promise<VmDisk> {
  const active = disk.layers[0]?.file ?? '';
  return {
    name: disk.name,
    path: active,
    layers: disk.layers.length,
    sizeBytes: disk.sizeBytes,
    fileBytes: disk.layers.reduce((sum, layer) => sum + layer.fileBytes, 0),
    volume: await volumeOf(active),
    ...(disk.unsupported !== undefined && { unsupported: disk.unsupported }),
  };
}
