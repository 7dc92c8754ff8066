/**
 * What a run is going to do, decided before anything is touched: which machines, which disks, whether the space suffices, and where this
 * process reads what the host names. Pure functions.
 */

import { type FirnError, firnError } from '../../errors.js';
import type { Vm, VmDisk, Volume } from '../../hosts/host.js';
import type { DiskExclusion, PathMapping, SpacePolicy } from './types.js';

const HOUR_MS = 3_600_000;

/** The machines by name or id, in the host's order; all if `wanted` is undefined. ERR_VM_NOT_FOUND, ERR_VM_AMBIGUOUS. */
export function selectVms(vms: readonly Vm[], wanted: readonly string[] | undefined): Vm[] {
  if (wanted === undefined) return [...vms];
  const chosen = new Set(wanted.map((text) => findVm(vms, text)));
  return vms.filter((vm) => chosen.has(vm));
}

/** One machine: by its id, or by its name if only one has it. */
export function findVm(vms: readonly Vm[], text: string): Vm {
  const byId = vms.find((vm) => vm.id.toLowerCase() === text.toLowerCase());
  const byName = vms.filter((vm) => vm.name === text);
  // Hyper-V takes names without regard to case, so a user may too where it is clear who is meant.
  const alike = vms.filter((vm) => vm.name.toLowerCase() === text.toLowerCase());
  const found = byId !== undefined ? [byId] : byName.length > 0 ? byName : alike;
  const [first, second] = found;
  if (first === undefined) {
    throw firnError('ERR_VM_NOT_FOUND', `The host has no machine "${text}"`);
  }
  if (second !== undefined) {
    const ids = found.map((vm) => vm.id).join(', ');
    throw firnError('ERR_VM_AMBIGUOUS', `${found.length} machines have the name "${text}": ${ids}`);
  }
  return first;
}

export interface DiskPlan {
  /** Names of disks to leave out, because the job says so or because they cannot be backed up. */
  excluded: string[];
  warnings: string[];
  /** Set if no disk is left. */
  error?: FirnError;
}

/** Which disks of a machine are left out; none is left out silently. */
export function planDisks(vm: Vm, exclusions: readonly DiskExclusion[]): DiskPlan {
  const excluded: string[] = [];
  const warnings: string[] = [];
  for (const disk of vm.disks) {
    const byJob = exclusions.some(
      (rule) =>
        (matches(rule.vm, vm.name) || matches(rule.vm, vm.id)) && matches(rule.disk, disk.name),
    );
    if (!byJob && disk.unsupported === undefined) continue;
    excluded.push(disk.name);
    if (!byJob) warnings.push(`disk ${disk.name} is left out: ${disk.unsupported}`);
  }
  if (excluded.length < vm.disks.length) return { excluded, warnings };
  const error = firnError('ERR_UNSUPPORTED', `${vm.name} has no disk that can be backed up`);
  return { excluded, warnings, error };
}

/** True if the text fits the pattern, in which `*` stands for anything; without regard to case. */
function matches(pattern: string, text: string): boolean {
  const [first = '', ...rest] = pattern.toLowerCase().split('*');
  const whole = text.toLowerCase();
  const last = rest.pop();
  if (last === undefined) return whole === first;
  if (!whole.startsWith(first)) return false;
  let at = first.length;
  // The earliest place for each part leaves the most for those after it.
  for (const part of rest) {
    const found = whole.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return whole.length - last.length >= at && whole.endsWith(last);
}

/**
 * ERR_VOLUME_LOW if a volume could run full while checkpoints of these machines stand: each disk may be rewritten by size x churn x window,
 * and the minimum stays free besides.
 */
export function checkSpace(
  vms: readonly Vm[],
  volumes: readonly Volume[],
  { minimumFreeBytes, churnPerHour, windowMs }: SpacePolicy,
): FirnError | undefined {
  const growth = new Map<string, number>();
  for (const { volume, sizeBytes, fileBytes } of vms.flatMap((vm): VmDisk[] => vm.disks)) {
    // A checkpoint's layer can't hold more than the disk, and what a thin disk never held is seldom rewritten.
    const bytes = Math.min(sizeBytes, Math.max(fileBytes, 1) * churnPerHour * (windowMs / HOUR_MS));
    growth.set(volume, (growth.get(volume) ?? 0) + bytes);
  }
  for (const { name, freeBytes } of volumes) {
    const bytes = growth.get(name);
    if (bytes === undefined || freeBytes >= minimumFreeBytes + bytes) continue;
    return firnError(
      'ERR_VOLUME_LOW',
      `Volume ${name} has ${mebibytes(freeBytes)} free; the checkpoints may take ${mebibytes(bytes)} and ${mebibytes(minimumFreeBytes)} must stay free`,
    );
  }
  return undefined;
}

export function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}

/**
 * Where this process reads what the host calls `hostPath`. The longest mapping that fits wins; it fits on whole path components, and
 * where the host's path is a Windows one without regard to case and to the kind of slash.
 */
export function mapPath(hostPath: string, mappings: readonly PathMapping[]): string {
  const windows = /^[A-Za-z]:[\\/]|^\\\\/.test(hostPath);
  const normal = (text: string) =>
    (windows ? text.replaceAll('\\', '/').toLowerCase() : text).replace(/\/+$/, '');
  const path = normal(hostPath);
  let best: PathMapping | undefined;
  for (const mapping of mappings) {
    const from = normal(mapping.from);
    if (path !== from && !path.startsWith(`${from}/`)) continue;
    if (best === undefined || from.length > normal(best.from).length) best = mapping;
  }
  if (best === undefined) return hostPath;
  const rest = hostPath.slice(normal(best.from).length);
  const separator = best.to.includes('\\') ? '\\' : '/';
  const below = windows ? rest.replaceAll(/[\\/]+/g, separator) : rest;
  return best.to.replace(/[\\/]+$/, '') + below;
}
