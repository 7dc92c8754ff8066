/**
 * The lab as a host: machines in a folder, without a hypervisor (lab.ts makes and runs them). It is captured, read and released like any
 * other host, and things can be made to go wrong in it by name (faults.ts).
 */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import process from 'node:process';
import { firnError } from '../../errors.js';
import {
  type Capture,
  type CaptureOutcome,
  type CaptureRequest,
  type Check,
  type Host,
  type HostInfo,
  type Leftover,
  markOf,
  type Release,
  type ReleaseOutcome,
  refOf,
  runOfMark,
  type StepName,
  type Steps,
  type Vm,
  type VmRef,
  type Volume,
} from '../host.js';
import type { HostTracking } from '../tracking.js';
import { countEntry, findFault } from './faults.js';
import { METHOD, mergeMark, releaseVm, VmCapture } from './lab-capture.js';
import { checkLab } from './lab-check.js';
import { keptReferences } from './lab-tracking.js';
import { programPath } from './start-vm.js';
import { configurationName, markedFiles, readLabFile, vmFolders } from './vm-file.js';
import {
  asFirnError,
  diskStatus,
  type FoundVm,
  findVms,
  occupiedBytes,
  reachableNow,
  statusOrSilent,
} from './vm-status.js';

const FULL_VOLUME_FREE_BYTES = 64 * 1024;

export class LabHost implements Host {
  readonly kind = 'lab';
  readonly spec: string;
  readonly #folder: string;

  /** `folder` is what follows "lab:". Whether it is there shows at the first call: ERR_HOST_UNREACHABLE. */
  constructor(folder: string) {
    this.#folder = resolve(folder);
    this.spec = `lab:${this.#folder}`;
  }

  async info(): Promise<HostInfo> {
    vmFolders(this.#folder); // says so if it is not there
    return { kind: 'lab', name: basename(this.#folder), version: 'lab', method: METHOD };
  }

  async listVms(): Promise<Vm[]> {
    const { found } = findVms(this.#folder);
    return Promise.all(found.map((item) => this.#describe(item)));
  }

  async volumes(): Promise<Volume[]> {
    const { volumeBytes } = readLabFile(this.#folder);
    const folders = vmFolders(this.#folder);
    const full = folders.some((folder) => findFault(folder, 'volume-full') !== undefined);
    const volume = { name: this.#folder, ...(await this.#space(volumeBytes, folders)) };
    if (full) volume.freeBytes = Math.min(volume.freeBytes, FULL_VOLUME_FREE_BYTES);
    return [volume];
  }

  check(): Promise<Check[]> {
    return checkLab(this.#folder);
  }

  batches(vms: readonly Vm[]): Vm[][] {
    return vms.map((vm) => [vm]);
  }

  capture(batch: readonly CaptureRequest[], mark: string, steps: Steps): Promise<CaptureOutcome[]> {
    return Promise.all(
      batch.map(async (request): Promise<CaptureOutcome> => {
        const vm = refOf(request.vm);
        try {
          return { vm, capture: await this.#capture(request, mark, steps) };
        } catch (error) {
          return { vm, error: asFirnError(error) };
        }
      }),
    );
  }

  release(
    vms: readonly Release[],
    mark: string,
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<ReleaseOutcome[]> {
    return Promise.all(
      vms.map(async (given): Promise<ReleaseOutcome> => {
        const vm = refOf(given);
        const what = { vm, mark, advance: given.advance };
        try {
          const found = this.#find(vm.id);
          if (found !== undefined) await releaseVm(found, what, mergeDeadlineMs, steps);
          return { vm };
        } catch (error) {
          return { vm, error: asFirnError(error) };
        }
      }),
    );
  }

  async leftovers(): Promise<Leftover[]> {
    const { found } = findVms(this.#folder);
    return (await Promise.all(found.map(leftoversOf))).flat();
  }

  get tracking(): HostTracking {
    return {
      references: async () =>
        findVms(this.#folder).found.flatMap(({ folder, vm }) => keptReferences(folder, vm)),
      drop: async (vm, name, deadlineMs) => {
        const found = this.#find(vm.id);
        const isThere = found?.vm.checkpoints.some(
          (checkpoint) => checkpoint.kind === 'reference' && checkpoint.name === name,
        );
        if (found === undefined || !isThere) {
          throw firnError('ERR_NOT_FOUND', `${vm.name} has no reference "${name}"`);
        }
        await mergeMark(found.folder, name, deadlineMs, AbortSignal.timeout(deadlineMs));
      },
    };
  }

  /** Plays the death of the host or of this process, if that is switched on and it is time. */
  observe(entry: { vm: VmRef; step: StepName; state: 'begun' | 'done' | 'failed' }): void {
    const found = this.#find(entry.vm.id);
    if (found === undefined) return;
    const hostDies = countEntry(found.folder, 'host-dies');
    const firnDies = countEntry(found.folder, 'firn-dies');
    if (hostDies) spawnSync(process.execPath, [programPath('kill-main.js'), this.#folder]);
    if (hostDies || firnDies) process.kill(process.pid, 'SIGKILL');
  }

  async close(): Promise<void> {}

  async #describe(found: FoundVm): Promise<Vm> {
    const { folder, vm } = found;
    const status = await statusOrSilent(folder);
    const { reachable, reason } =
      status === 'silent'
        ? { reachable: 'crash' as const, reason: "the machine's process does not answer" }
        : reachableNow(vm, status !== undefined);
    return {
      id: vm.id,
      name: vm.name,
      state: status === 'silent' ? 'critical' : (status?.state ?? 'off'),
      reachable,
      ...(reason === undefined ? {} : { reachableReason: reason }),
      disks: vm.disks.map((disk) => {
        const { name, layers, sizeBytes, fileBytes } = diskStatus(folder, disk);
        const path = layers[0] ?? '';
        return { name, path, layers: layers.length, sizeBytes, fileBytes, volume: this.#folder };
      }),
    };
  }

  async #space(volumeBytes: number | undefined, folders: readonly string[]) {
    if (volumeBytes === undefined) {
      const { blocks, bsize, bavail } = await statfs(this.#folder);
      return { sizeBytes: blocks * bsize, freeBytes: bavail * bsize };
    }
    const files = folders.flatMap((folder) =>
      readdirSync(folder).map((name) => occupiedBytes(join(folder, name))),
    );
    const used = files.reduce((sum, bytes) => sum + bytes, 0);
    return { sizeBytes: volumeBytes, freeBytes: Math.max(0, volumeBytes - used) };
  }

  async #capture(request: CaptureRequest, mark: string, steps: Steps): Promise<Capture> {
    const found = this.#find(request.vm.id);
    if (found === undefined) {
      throw firnError('ERR_VM_NOT_FOUND', `${request.vm.name} is not in ${this.#folder} any more`);
    }
    return new VmCapture(found, request, mark, steps).run();
  }

  // Throws what is wrong with a machine that cannot be read, as it may be this one.
  #find(id: string): FoundVm | undefined {
    const { found, problems } = findVms(this.#folder);
    const item = found.find(({ vm }) => vm.id === id);
    const [problem] = problems;
    if (item === undefined && problem !== undefined) throw problem.error;
    return item;
  }
}

async function leftoversOf({ folder, vm }: FoundVm): Promise<Leftover[]> {
  const ref = { id: vm.id, name: vm.name };
  const left: Leftover[] = [];
  const status = await statusOrSilent(folder);
  const frozen = status === 'silent' ? undefined : status?.frozen;
  if (frozen?.mark !== undefined) {
    const detail = 'the guest stands frozen';
    left.push({ kind: 'frozen-guest', name: vm.name, vm: ref, ...markIn(frozen.mark), detail });
  }
  const known = new Set<string>();
  for (const { name, kind, created, layers } of vm.checkpoints) {
    for (const layer of Object.values(layers)) known.add(layer);
    known.add(configurationName(name));
    if (kind !== 'recovery') continue;
    left.push({ kind: 'checkpoint', name, vm: ref, ...markIn(name), detail: `made ${created}` });
  }
  for (const { name, mark } of markedFiles(folder)) {
    if (known.has(name)) continue;
    const detail = 'a file that no chain uses';
    left.push({ kind: 'layer', name: join(folder, name), vm: ref, mark, detail });
  }
  return left;
}

function markIn(text: string): { mark?: string } {
  const run = runOfMark(text);
  return run === undefined ? {} : { mark: markOf(run) };
}
