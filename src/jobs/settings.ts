/**
 * The settings of a job over machines as people write them: durations, shares, consistency, patterns, path mappings. One grammar for the
 * command line and for job files.
 *
 * What does not fit throws ERR_INVALID_ARGUMENT in the form "Expected <what> for <name> but received <value>".
 */

import { CONSISTENCIES } from '../consistency.js';
import { expected, oneOf, UNUSED_MODES, type UnusedMode } from '../engine/options.js';
import type { ConsistencyPolicy } from '../hosts/host.js';
import { TRACKING_MODES, type TrackingMode } from '../hosts/tracking.js';
import { type DiskExclusion, type PathMapping, VM_BACKUP_DEFAULTS } from './runs/types.js';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** Node's timers take no more: 24.8 days. */
const DURATION_MS_MAX = 2 ** 31 - 1;

export const PARALLEL_VMS_MAX = 64;

/** Milliseconds of "500ms", "30s", "5m", "1.5h". More than none, and less than 25 days. */
export function parseDuration(text: string, name: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)$/.exec(text.trim());
  const ms = match === null ? Number.NaN : Number(match[1]) * (UNIT_MS[match[2] ?? ''] ?? 0);
  if (Math.round(ms) >= 1 && ms <= DURATION_MS_MAX) return Math.round(ms);
  throw expected(name, 'a duration such as 500ms, 30s, 5m or 1h', text);
}

/** The share, 0..1, of "5%" or "0.5%"; the sign may be left out. */
export function parsePercent(text: string, name: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*%?$/.exec(text.trim());
  const percent = match === null ? Number.NaN : Number(match[1]);
  if (percent <= 100) return percent / 100;
  throw expected(name, 'a percentage such as 5%', text);
}

/**
 * "best": as much as the guest can promise, and any of it will do. A level ("application", also "required application"): that, or no
 * point; with "crash" the guest is not asked to freeze at all.
 */
export function parseConsistency(text: string, name: string): ConsistencyPolicy {
  if (text === 'best') return VM_BACKUP_DEFAULTS.consistency;
  const level = CONSISTENCIES.find((each) => text === each || text === `required ${each}`);
  if (level !== undefined) return { wanted: level, required: level };
  throw expected(name, 'application, filesystem, crash or best', text);
}

/** "none", "auto" or "checkpoint". */
export function parseTracking(text: string, name: string): TrackingMode {
  return oneOf(name, text, TRACKING_MODES);
}

/** "skip" or "keep". */
export function parseUnused(text: string, name: string): UnusedMode {
  return oneOf(name, text, UNUSED_MODES);
}

/** "VM/DISK", each with `*` for any characters. A machine's name may have slashes, a disk's has none. */
export function parseExclusion(text: string, name: string): DiskExclusion {
  const slash = text.lastIndexOf('/');
  const [vm, disk] = [text.slice(0, Math.max(0, slash)), text.slice(slash + 1)];
  if (vm !== '' && disk !== '') return { vm, disk };
  throw expected(name, 'VM/DISK, such as web/scsi-0-1 or */scratch*', text);
}

/** "FROM=TO": paths of the host that begin with FROM are read below TO. */
export function parseMapping(text: string, name: string): PathMapping {
  const sign = text.indexOf('=');
  const [from, to] = [text.slice(0, Math.max(0, sign)), text.slice(sign + 1)];
  if (from !== '' && to !== '') return { from, to };
  throw expected(name, 'FROM=TO, such as D:\\VMs=/mnt/vms', text);
}
