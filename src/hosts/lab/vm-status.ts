/** A lab's machines as they stand: read from their folders, and from their processes where they run. Changes nothing. */

import { type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { platform } from 'node:process';
import type { Consistency } from '../../consistency.js';
import { type FirnError, firnError, fromFileSystem, isFirnError } from '../../errors.js';
import { type ProcessStatus, processStatus } from './control.js';
import { readFaults } from './faults.js';
import type { GuestVss, LabDiskStatus, LabFault, LabStatus, LabVmStatus } from './types.js';
import { layerPaths, readVmFile, type VmFile, vmFolders } from './vm-file.js';

/** A machine's folder and record. */
export interface FoundVm {
  folder: string;
  vm: VmFile;
}

/** All machines of a lab, by name; those that cannot be read apart. ERR_HOST_UNREACHABLE. */
export function findVms(lab: string): { found: FoundVm[]; problems: LabStatus['problems'] } {
  const found: FoundVm[] = [];
  const problems: LabStatus['problems'] = [];
  for (const folder of vmFolders(lab)) {
    try {
      found.push({ folder, vm: readVmFile(folder) });
    } catch (error) {
      problems.push({ folder, error: asFirnError(error) });
    }
  }
  found.sort((a, b) => (a.vm.name < b.vm.name ? -1 : 1));
  return { found, problems };
}

/** The machine of this name or id. ERR_VM_NOT_FOUND, ERR_VM_AMBIGUOUS. */
export function findVm(lab: string, nameOrId: string): FoundVm {
  const { found } = findVms(lab);
  const byId = found.find(({ vm }) => vm.id === nameOrId);
  if (byId !== undefined) return byId;
  const [first, second] = found.filter(({ vm }) => vm.name === nameOrId);
  if (first === undefined) {
    throw firnError('ERR_VM_NOT_FOUND', `There is no machine "${nameOrId}" in ${lab}`);
  }
  if (second !== undefined) {
    throw firnError('ERR_VM_AMBIGUOUS', `There are several machines "${nameOrId}" in ${lab}`);
  }
  return first;
}

/** Those of these names or ids, or all. */
export function selectVms(lab: string, names: readonly string[] | undefined): FoundVm[] {
  return names === undefined ? findVms(lab).found : names.map((name) => findVm(lab, name));
}

/** The most that a freeze can promise of a guest with such an agent. */
export function reachableWith(vss: GuestVss): Consistency {
  return vss === 'none' ? 'crash' : vss;
}

/** The most that a capture can promise now, and why it is not `application`. */
export function reachableNow(
  vm: VmFile,
  running: boolean,
): { reachable: Consistency; reason?: string } {
  if (!running && vm.running) {
    return { reachable: 'crash', reason: 'the machine died and was not shut down' };
  }
  if (!running || vm.guest.vss === 'application') return { reachable: 'application' };
  const reason =
    vm.guest.vss === 'none'
      ? 'the guest has no backup agent'
      : "the guest's agent freezes file systems only";
  return { reachable: reachableWith(vm.guest.vss), reason };
}

/** The process's status; undefined if the machine is off. ERR_HOST_FAILED if the process does not answer. */
export async function statusOf(folder: string): Promise<ProcessStatus | undefined> {
  try {
    return await processStatus(folder);
  } catch (error) {
    if (isFirnError(error)) throw error;
    throw firnError('ERR_HOST_FAILED', `${folder}: the machine's process does not answer`, {
      path: folder,
      cause: error,
      retryable: true,
    });
  }
}

/** The same where one machine must not hide the others: `silent` if its process does not answer. */
export async function statusOrSilent(
  folder: string,
): Promise<ProcessStatus | 'silent' | undefined> {
  return statusOf(folder).catch(() => 'silent' as const);
}

export async function vmStatus({ folder, vm }: FoundVm): Promise<LabVmStatus> {
  const answer = await statusOrSilent(folder);
  const process = answer === 'silent' ? undefined : answer;
  return {
    id: vm.id,
    name: vm.name,
    folder,
    state: answer === 'silent' ? 'critical' : (process?.state ?? 'off'),
    unclean: answer === undefined && vm.running,
    vss: vm.guest.vss,
    ...(process === undefined ? {} : { pid: process.pid, generation: process.generation }),
    ...(process?.frozen === undefined ? {} : { frozen: process.frozen }),
    ...(process?.merging === undefined ? {} : { merging: process.merging }),
    disks: vm.disks.map((disk) => diskStatus(folder, disk)),
    checkpoints: vm.checkpoints.map(({ name, kind, created }) => ({ name, kind, created })),
    faults: [...listFaults(folder, vm.name), ...listFaults(join(folder, '..'))],
  };
}

export function diskStatus(folder: string, disk: VmFile['disks'][number]): LabDiskStatus {
  const layers = layerPaths(folder, disk);
  return {
    name: disk.name,
    layers,
    sizeBytes: disk.sizeBytes,
    fileBytes: layers.reduce((sum, layer) => sum + occupiedBytes(layer), 0),
  };
}

/** What a file takes of its volume; 0 if it has just gone. */
export function occupiedBytes(path: string): number {
  const stats = statIfThere(path);
  if (stats === undefined) return 0;
  // Windows does not tell how many blocks a file has.
  return platform === 'win32' ? stats.size : stats.blocks * 512;
}

function statIfThere(path: string): Stats | undefined {
  return statSync(path, { throwIfNoEntry: false });
}

function listFaults(folder: string, vm?: string): LabFault[] {
  return readFaults(folder).map(({ name, once, ms, step, seen }) => ({
    name,
    once,
    ...(vm === undefined ? {} : { vm }),
    ...(ms === undefined ? {} : { ms }),
    ...(step === undefined ? {} : { step: step - seen }),
  }));
}

/** Any failure as one of ours. */
export function asFirnError(failure: unknown): FirnError {
  if (isFirnError(failure)) return failure;
  if (failure instanceof Error && 'code' in failure && typeof failure.code === 'string') {
    return fromFileSystem(failure, 'lab', 'ERR_READ');
  }
  const text = failure instanceof Error ? failure.message : String(failure);
  return firnError('ERR_HOST_FAILED', text, { cause: failure });
}
