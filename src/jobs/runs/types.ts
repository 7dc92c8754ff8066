/**
 * What a run over machines is asked for, tells on its way, and records: the words that the run, the journal, the reconciler and the
 * command line share. Plain data, fit for JSON.
 */

import type { Consistency } from '../../consistency.js';
import type { CompressionOptions, TuningOptions, UnusedOptions } from '../../engine/options.js';
import type { FirnError } from '../../errors.js';
import type { ConsistencyPolicy, HostInfo, Leftover, StepName, VmRef } from '../../hosts/host.js';
import type { TrackingMode } from '../../hosts/tracking.js';
import type { PointObject } from '../../repository/format/objects.js';
import type { Access } from '../../repository/repository.js';
import type { RetentionPolicy } from '../../repository/retention.js';
import type { BackupSummary } from '../backup.js';
import type { ForgetResult } from '../forget.js';
import type { Progress } from '../run.js';

/** A disk of a machine that is left out, by names or patterns with `*`: of all machines when `vm` is "*". */
export interface DiskExclusion {
  vm: string;
  disk: string;
}

/** Host paths that begin with `from` are read below `to`; the longest `from` that fits wins. */
export interface PathMapping {
  from: string;
  to: string;
}

/** `unused` is 'skip' when not given. */
export interface VmBackupOptions extends CompressionOptions, UnusedOptions {
  /** Names or ids; undefined means every machine of the host. */
  vms: readonly string[] | undefined;
  consistency: ConsistencyPolicy;
  excludedDisks: readonly DiskExclusion[];
  freezeDeadlineMs: number;
  mergeDeadlineMs: number;
  /** Whether the host is asked what changed since the last point. */
  tracking: TrackingMode;
  /** How many batches are under way at once. */
  parallelVms: number;
  space: SpacePolicy;
  map: readonly PathMapping[];
  /** The job's name, for the record. */
  job?: string | undefined;
  /** Tags that every point of the run is made with. */
  tags?: readonly string[] | undefined;
  /** What stays of the points of each machine that got a new one; all of them when not given. */
  retention?: RetentionPolicy | undefined;
  tuning?: TuningOptions | undefined;
  /** Gives the run up: what is captured is released, then the run ends. */
  signal?: AbortSignal | undefined;
  onEvent?: ((event: VmEvent) => void) | undefined;
}

/** When a run is not begun, or is given up, for want of space on the host's volumes. */
export interface SpacePolicy {
  /** Never less free than this while a checkpoint stands. */
  minimumFreeBytes: number;
  /** How much of a disk is expected to be rewritten in an hour, 0..1. */
  churnPerHour: number;
  /** How long a checkpoint is expected to stand. */
  windowMs: number;
}

export const VM_BACKUP_DEFAULTS = {
  consistency: { wanted: 'application', required: 'crash' },
  freezeDeadlineMs: 60_000,
  mergeDeadlineMs: 3_600_000,
  tracking: 'auto',
  unused: 'skip',
  parallelVms: 2,
  space: { minimumFreeBytes: 2 * 2 ** 30, churnPerHour: 0.05, windowMs: 3_600_000 },
} as const satisfies Partial<VmBackupOptions>;

/** What happens to one machine, as it happens. */
export type VmEvent =
  | { type: 'step'; vm: VmRef; step: StepName; state: 'begun' }
  | { type: 'step'; vm: VmRef; step: StepName; state: 'done'; elapsedMs: number }
  | {
      type: 'step';
      vm: VmRef;
      step: StepName;
      state: 'failed';
      elapsedMs: number;
      error: FirnError;
    }
  /** How the disks are about to be read: on top of a point or as a whole. */
  | { type: 'reading'; vm: VmRef; disks: DiskReading[] }
  | { type: 'progress'; vm: VmRef; progress: Progress }
  /** Less than was wanted, and why; a disk left out; anything that a person must not miss. */
  | { type: 'warning'; vm: VmRef | undefined; message: string }
  | { type: 'vm-done'; result: VmResult };

export interface StepTime {
  step: StepName;
  /** ISO time. */
  begun: string;
  elapsedMs: number;
}

/** How a disk was read. */
export interface DiskReading {
  disk: string;
  /** The point that it was read on top of, and what had changed since; absent if it was read as a whole. */
  base?: { point: string; changedBytes: number };
  /** Why it, or a part of it, was read as a whole; absent if nothing else was asked for. */
  fullReason?: string;
}

/** What became of one machine. */
export interface VmResult {
  vm: VmRef;
  /** Undefined if it failed before the seal. */
  point?: PointObject;
  consistency?: Consistency;
  consistencyReason?: string;
  frozenMs?: number;
  summary?: BackupSummary;
  /** Of each disk, once they are read. */
  readings?: DiskReading[];
  steps: StepTime[];
  /** Why there is no point. */
  error?: FirnError;
  /** Why something of the run is still at the machine; the reconciler goes on with it. */
  releaseError?: FirnError;
  /** What the policy made of the machine's points after the run. */
  retention?: ForgetResult;
  /** Why the policy could not be carried out, or not to its end; the new point stands. */
  retentionError?: FirnError;
}

export interface VmBackupResult {
  run: string;
  host: HostInfo;
  vms: VmResult[];
  warnings: string[];
  elapsedMs: number;
}

export type RunState = 'active' | 'done' | 'partial' | 'failed' | 'aborted' | 'dead' | 'reconciled';

/** A run as the journal has it. `dead`: its process is gone and it has not been reconciled. */
export interface RunRecord {
  id: string;
  state: RunState;
  host: string;
  repository: string;
  job?: string;
  begun: string;
  ended?: string;
  vms: (VmRef & {
    state: 'waiting' | 'captured' | 'sealed' | 'released' | 'failed';
    point?: string;
  })[];
}

export interface StepRecord {
  vm: VmRef;
  step: StepName;
  state: 'begun' | 'done' | 'failed';
  begun: string;
  ended?: string;
  error?: { code: string; message: string };
  /** True if the reconciler did it, after the run. */
  reconciled: boolean;
}

export interface ReconcileOptions {
  /** Says what would be done. */
  dryRun?: boolean;
  /** Takes up a mark that this journal does not know: a run id. */
  run?: string;
  mergeDeadlineMs?: number;
  /** How sealed repositories are opened. */
  access?: Access;
  signal?: AbortSignal;
  onEvent?: (event: VmEvent) => void;
}

export interface ReconcileReport {
  /** Dead runs that were finished, or would be. */
  runs: {
    id: string;
    vms: { vm: VmRef; error?: FirnError }[];
    /** Points that were never sealed, removed from the repository. */
    removedPoints: string[];
    error?: FirnError;
  }[];
  /** With a mark of Firn that this journal does not know, or none: named and left alone. */
  foreign: Leftover[];
}
