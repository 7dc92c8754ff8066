/**
 * A host: where virtual machines run, as a run needs it. Implemented by hosts/lab, hosts/qemu and hosts/hyperv.
 *
 * The contract that makes a run survive anything:
 *
 * - Everything that a host makes on behalf of a run bears the run's mark where the host itself keeps it (a checkpoint's name, a layer's
 *   file name), so that it is found again without the journal. What bears no mark, or another's, is never touched.
 * - `release` is idempotent and needs nothing but the mark: it may be called any number of times, by any process, after any crash, while
 *   the machine runs or is off.
 * - Work that changes the host goes through `steps.run`, which journals it before and after and gives it its deadline. A step's work
 *   watches its signal and, once it has fired, begins nothing new.
 * - One machine's failure never rejects a call for several machines: it stands in that machine's outcome.
 *
 * Capturing is one call, not freeze, checkpoint and thaw one by one, because hosts differ in what is one operation there: on Hyper-V 2012
 * R2 freezing, checkpointing and the shadow copy of several machines are; from 2016 on freezing is part of the checkpoint; elsewhere they
 * are apart. The steps that a host goes through carry the same names on all of them.
 */

import type { Consistency } from '../consistency.js';
import type { FirnError } from '../errors.js';
import type { DiskChanges, HostTracking, Reference, TrackingRequest } from './tracking.js';

export type HostKind = 'lab' | 'hyperv' | 'qemu';

/** What a run does to one machine, in this order; a host leaves out what it has not. */
export const STEP_NAMES = [
  'freeze',
  'checkpoint',
  'thaw',
  'shadow-copy',
  'changes',
  'read',
  'seal',
  'keep',
  'merge',
  'drop-shadow-copy',
  'confirm',
] as const;
export type StepName = (typeof STEP_NAMES)[number];

/** Which machine; the id is the host's own and stays when the name changes. */
export interface VmRef {
  id: string;
  name: string;
}

/** Who it is, of whatever else is known of a machine: what goes into events, outcomes and records. */
export function refOf({ id, name }: VmRef): VmRef {
  return { id, name };
}

export interface VmDisk {
  /** The place on the machine, unique there and fit to be a file's name: "scsi-0-1". */
  name: string;
  /** The layer that takes the machine's writes, as the host names it. */
  path: string;
  /** How many files the chain has; 1 is a disk without checkpoints. */
  layers: number;
  /** Virtual size. */
  sizeBytes: number;
  /** What all layers' files occupy. */
  fileBytes: number;
  /** The host's volume that the layer above a checkpoint would grow on. */
  volume: string;
  /** Why this disk cannot be backed up from the host (pass-through, shared with another machine); absent when it can. */
  unsupported?: string;
}

export interface Vm extends VmRef {
  state: 'running' | 'off' | 'saved' | 'paused' | 'critical';
  /** The most that a freeze can promise now. */
  reachable: Consistency;
  /** Why it is not `application`, for people: "guest VSS is switched off". */
  reachableReason?: string;
  disks: VmDisk[];
}

export interface Volume {
  /** As in VmDisk.volume. */
  name: string;
  sizeBytes: number;
  freeBytes: number;
}

export interface HostInfo {
  kind: HostKind;
  /** The host's own name. */
  name: string;
  /** "Windows Server 2016 (10.0.14393)", "QEMU 7.2.0", "lab". */
  version: string;
  /** How a machine is captured here, for the point's record: "recovery checkpoint", "VSS set", "blockdev-snapshot". */
  method: string;
}

/** What the job wants of the guest's promise. If `required` cannot be reached, there is no point. */
export interface ConsistencyPolicy {
  wanted: Consistency;
  required: Consistency;
}

export interface CaptureRequest {
  vm: Vm;
  policy: ConsistencyPolicy;
  /** Names of disks to leave out. A host that can only checkpoint all of them does, and leaves them out of the capture. */
  excludedDisks: readonly string[];
  /** How long the guest may take to freeze, and how long it may stand frozen. */
  freezeDeadlineMs: number;
  /** Absent: no changes are asked for, and no reference is wanted. */
  tracking?: TrackingRequest;
}

export interface FrozenDisk {
  /** VmDisk.name. */
  name: string;
  /** The frozen layers, the top one first, as the host names them: none changes until `release`. */
  layers: string[];
  /** What may differ from the point whose reference is Capture.since. */
  changes?: DiskChanges;
  /** Why there are none although tracking was asked for. */
  fullReason?: string;
}

export interface Capture {
  vm: Vm;
  /** What was reached, never what was asked for. */
  consistency: Consistency;
  /** Why it is less than was wanted. */
  consistencyReason?: string;
  method: string;
  disks: FrozenDisk[];
  /** The machine's configuration as of the capture: files that stand until `release`, as the host names them. */
  configuration: string[];
  /** ISO time at which the disks froze. */
  frozenAt: string;
  /** How long the guest stood still, where the host can tell. */
  frozenMs?: number;
  /** The guest's file systems stood still when the disks froze. Absent of a machine that was off: nobody looked at how it went off. */
  guestFroze?: true;
  /** The name of the reference, of those that were given, that the disks' changes are counted from. */
  since?: string;
  /** What the host wants to be given next time; kept only if the release says so. */
  reference?: Reference;
}

export type CaptureOutcome =
  | { vm: VmRef; capture: Capture; error?: undefined }
  | { vm: VmRef; capture?: undefined; error: FirnError };

/** A machine to release. */
export interface Release extends VmRef {
  /** Capture.reference, given only once the point is sealed: it is kept, and the older ones of its owner at this machine go. */
  advance?: Reference;
}

export interface ReleaseOutcome {
  vm: VmRef;
  /** Undefined when nothing of the mark is left at this machine. */
  error?: FirnError;
}

/** Something that a run left, or seems to have: found on the host, not in the journal. */
export interface Leftover {
  kind: 'checkpoint' | 'layer' | 'shadow-copy' | 'frozen-guest' | 'bitmap';
  /** As the host names it. */
  name: string;
  vm?: VmRef;
  /** The mark that it bears; absent if it bears none of Firn's, and then it is somebody else's. */
  mark?: string;
  /** For people: whose it seems to be, how old it is. */
  detail?: string;
}

/** One thing that `firn doctor` looked at. */
export interface Check {
  name: string;
  state: 'ok' | 'warning' | 'error' | 'unknown';
  message: string;
  /** The next step, unless all is well. */
  hint?: string;
}

export interface StepOptions {
  /** The step fails with ERR_DEADLINE after so long. Without one it takes as long as it takes. */
  deadlineMs?: number;
}

/** How a host's work is recorded; jobs/ gives one to each call. */
export interface Steps {
  /**
   * Journals that the step begins, does `work`, journals how it ended, and gives its result. What `work` throws is thrown on. `signal`
   * fires at the deadline or when the run is given up.
   */
  run<Result>(
    vm: VmRef,
    step: StepName,
    options: StepOptions,
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result>;
}

export interface Host {
  readonly kind: HostKind;
  /** What --host was given: enough to open the same host again. */
  readonly spec: string;

  info(): Promise<HostInfo>;
  listVms(): Promise<Vm[]>;
  volumes(): Promise<Volume[]>;
  /** Looks at all that would make a backup fail here, for `firn doctor`. */
  check(): Promise<Check[]>;

  /** Splits machines into groups that must be captured together; one each where nothing forces more. */
  batches(vms: readonly Vm[]): Vm[][];
  /** Captures a batch. One outcome for each request, in order; never rejects for a machine's sake. `mark` is markOf(run). */
  capture(batch: readonly CaptureRequest[], mark: string, steps: Steps): Promise<CaptureOutcome[]>;
  /**
   * Ends all that bears the mark at these machines: thaws, merges checkpoints and waits for the merge, drops shadow copies, and confirms
   * that no layer of the mark is in any chain. `mergeDeadlineMs` is for each machine. A machine that is gone has nothing left.
   *
   * What a capture made as its reference is kept where `advance` says so, in a step `keep`; then the older references go, as a merge does.
   * Without it, it goes with all else of the mark. If it is kept already, or its capture is gone, `advance` only drops the older ones
   * that it succeeds, and never the last that there is.
   */
  release(
    vms: readonly Release[],
    mark: string,
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<ReleaseOutcome[]>;
  /** What is on the host that looks like a backup's left-over: Firn's by their marks, and others', to be named and left alone. */
  leftovers(): Promise<Leftover[]>;
  /** Absent where a host cannot say what changed. */
  readonly tracking?: HostTracking;

  /** Told of each journal entry once it is durable. The lab dies here when it was asked to. */
  observe?(entry: { vm: VmRef; step: StepName; state: 'begun' | 'done' | 'failed' }): void;
  close(): Promise<void>;
}

const MARK_PREFIX = 'firn-';

/** The mark of a run, from its id (32 hexadecimal digits). */
export function markOf(run: string): string {
  return MARK_PREFIX + run;
}

/** The run whose mark stands in `text` (a checkpoint's name, a file's name), or undefined. */
export function runOfMark(text: string): string | undefined {
  return /(?<![0-9a-z])firn-([0-9a-f]{32})(?![0-9a-f])/.exec(text)?.[1];
}

/** `text` as it would be without a mark: the name of what bears it. */
export function withoutMark(text: string): string {
  return text.replace(/[-_. ]?(?<![0-9a-z])firn-[0-9a-f]{32}(?![0-9a-f])/, '');
}
