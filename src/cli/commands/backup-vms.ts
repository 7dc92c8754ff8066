/**
 * `firn backup --host`: machines of a host become one point each. What was asked for comes from the command line, else from the job file,
 * else from the environment, else from the defaults.
 *
 * The exit code is 3 when some machines have no point, something is left at one, or the retention policy could not be carried out; when
 * none has a point it is that of the failure.
 */

import { type Consistency, meetsConsistency } from '../../consistency.js';
import type { Codec } from '../../engine/binding.js';
import { type FirnError, firnError } from '../../errors.js';
import { type ConsistencyPolicy, refOf, type VmRef } from '../../hosts/host.js';
import type { TrackingMode } from '../../hosts/tracking.js';
import type { ForgetResult } from '../../jobs/forget.js';
import type { JobFile } from '../../jobs/job-file.js';
import {
  type DiskExclusion,
  type PathMapping,
  VM_BACKUP_DEFAULTS,
  type VmBackupOptions,
  type VmBackupResult,
  type VmEvent,
  type VmResult,
} from '../../jobs/runs/types.js';
import type { Context } from '../context.js';
import {
  type HostFlags,
  ID_DIGITS,
  reportFailure,
  requiredHost,
  type StateFlags,
  withHost,
  withJournal,
} from '../machines.js';
import { formatBytes, formatCount, formatNumberOf, formatSeconds } from '../ui/bytes.js';
import type { Output } from '../ui/output.js';
import { bottleneckLines } from '../ui/summary.js';
import { printable, table } from '../ui/text.js';
import { keptPartitionLines } from '../ui/unused.js';
import { VmProgress } from '../ui/vm-progress.js';
import { unusedMode } from './backup.js';
import { verdictJson } from './forget.js';

export interface MachineFlags extends HostFlags, StateFlags {
  job?: string;
  all?: boolean;
  consistency?: ConsistencyPolicy;
  excludeDisk?: DiskExclusion[];
  freezeDeadline?: number;
  mergeDeadline?: number;
  tracking?: TrackingMode;
  parallelVms?: number;
  minFree?: number;
  churn?: number;
  window?: number;
  map?: PathMapping[];
}

/** What there is to say of points, whatever they are made of. */
export interface PointFlags {
  codec?: Codec;
  level?: number;
  tag?: string[];
  limit?: number;
  skipUnused?: boolean;
  keepUnused?: boolean;
  dropGuestShadowCopies?: boolean;
}

export async function backupMachines(
  global: Context,
  names: readonly string[],
  flags: MachineFlags & PointFlags,
): Promise<number> {
  const job = await readJob(flags.job);
  const context = global.withFallbacks({
    repo: job?.repository,
    memoryBytes: job?.memory,
    workers: job?.workers,
  });
  const options = optionsOf(names, flags, job);
  const spec = requiredHost(flags, job?.host);
  const state = flags.state ?? job?.state;
  const { backupVms } = await import('../../jobs/runs/vm-backup.js');
  const repository = await context.openRepository();
  const result = await withJournal(state === undefined ? {} : { state }, (journal) =>
    withHost(spec, (host) =>
      withVmProgress(context, (onEvent) =>
        backupVms(repository, host, journal, {
          ...options,
          tuning: { ...context.tuning, bytesPerSecond: flags.limit ?? job?.limit },
          signal: context.signal,
          onEvent,
        }),
      ),
    ),
  );
  tell(context.output, result, options.consistency);
  return judge(result, context.signal.aborted);
}

async function readJob(file: string | undefined): Promise<JobFile | undefined> {
  if (file === undefined) return undefined;
  // Its parsers take longer to load than a command that needs none takes to run.
  const { readJobFile } = await import('../../jobs/job-file.js');
  return readJobFile(file);
}

function optionsOf(
  names: readonly string[],
  flags: MachineFlags & PointFlags,
  job: JobFile | undefined,
): VmBackupOptions {
  const defaults = VM_BACKUP_DEFAULTS;
  return {
    vms: chosenVms(names, flags, job),
    consistency: flags.consistency ?? job?.consistency ?? defaults.consistency,
    excludedDisks: flags.excludeDisk ?? job?.exclude ?? [],
    freezeDeadlineMs: flags.freezeDeadline ?? job?.freezeDeadline ?? defaults.freezeDeadlineMs,
    mergeDeadlineMs: flags.mergeDeadline ?? job?.mergeDeadline ?? defaults.mergeDeadlineMs,
    tracking: flags.tracking ?? job?.tracking ?? defaults.tracking,
    parallelVms: flags.parallelVms ?? job?.parallelVms ?? defaults.parallelVms,
    space: {
      minimumFreeBytes: flags.minFree ?? job?.minimumFree ?? defaults.space.minimumFreeBytes,
      churnPerHour: flags.churn ?? job?.churn ?? defaults.space.churnPerHour,
      windowMs: flags.window ?? job?.window ?? defaults.space.windowMs,
    },
    map: flags.map ?? job?.map ?? [],
    codec: flags.codec ?? job?.codec,
    // A level is of its codec: the file's says nothing about another one.
    level: flags.level ?? (flags.codec === undefined ? job?.level : undefined),
    unused: unusedMode(flags) ?? job?.unused ?? defaults.unused,
    dropGuestShadowCopies: flags.dropGuestShadowCopies ?? job?.guestShadowCopies === 'drop',
    job: job?.name,
    tags: flags.tag ?? job?.tags,
    retention: job?.retention,
  };
}

/** Names or ids; undefined for all. To back up everything has to be said. */
function chosenVms(
  names: readonly string[],
  { all }: MachineFlags,
  job: JobFile | undefined,
): readonly string[] | undefined {
  if (all === true) {
    if (names.length === 0) return undefined;
    throw firnError('ERR_INVALID_ARGUMENT', `Expected either machines or --all, not both`);
  }
  if (names.length > 0) return names;
  if (job?.vms !== undefined) return job.vms;
  if (job?.all === true) return undefined;
  throw firnError('ERR_INVALID_ARGUMENT', 'No machines were given', {
    hint: 'Name them, or pass --all. In a job file: vms, or all: true. "firn vm list" shows what there is.',
  });
}

/** Runs `work` with its events shown: progress, warnings, and what became of each machine as soon as that is known. */
async function withVmProgress<Result>(
  { output, progressMode }: Context,
  work: (onEvent: (event: VmEvent) => void) => Promise<Result>,
): Promise<Result> {
  const progress = new VmProgress(output, progressMode);
  try {
    return await work((event) => {
      progress.handle(event);
      if (event.type === 'warning') warn(output, event.vm, event.message);
      if (event.type === 'vm-done') tellDone(output, event.result);
    });
  } finally {
    progress.close();
  }
}

function warn(output: Output, vm: VmRef | undefined, message: string): void {
  output.warning(vm === undefined ? message : `${vm.name}: ${message}`, {
    vm: vm && refOf(vm),
    reason: message,
  });
}

function tellDone(output: Output, result: VmResult): void {
  const { vm, point, error, releaseError } = result;
  output.message('vm', resultMembers(result));
  if (error !== undefined) reportFailure(output, error, vm);
  if (releaseError !== undefined && releaseError !== error) reportFailure(output, releaseError, vm);
  if (point !== undefined) {
    output.note(
      `${printable(vm.name)}: point ${point.id} is sealed, ${point.consistency}-consistent`,
    );
  }
}

/** A machine's result as JSON has it: durations in seconds. */
function resultMembers(result: VmResult) {
  const { vm, point, consistency, consistencyReason, frozenMs, summary, steps, retention } = result;
  const { readings } = result;
  const unused = point?.disks.flatMap((disk) =>
    disk.unused === undefined ? [] : [{ disk: disk.name, ...disk.unused }],
  );
  const { stats, ...account } = summary ?? { stats: undefined };
  return {
    vm: refOf(vm),
    point: point?.id ?? null,
    consistency,
    consistencyReason,
    frozenSeconds: frozenMs === undefined ? undefined : frozenMs / 1000,
    ...account,
    readings,
    unused,
    steps: steps.map(({ elapsedMs, ...step }) => ({ ...step, elapsedSeconds: elapsedMs / 1000 })),
    stats,
    error: result.error?.toJSON(),
    releaseError: result.releaseError?.toJSON(),
    retention: retention && retentionMembers(retention),
    retentionError: result.retentionError?.toJSON(),
  };
}

function retentionMembers(retention: ForgetResult) {
  return {
    points: retention.vms.flatMap(({ verdicts }) => verdicts).map(verdictJson),
    forgotten: retention.forgotten.map(({ id }) => id),
    kept: keptIds(retention),
    spared: retention.spared.map(({ id }) => id),
    damaged: retention.damaged.length,
  };
}

/** The points that were looked at and are still there. */
function keptIds({ vms, forgotten }: ForgetResult): string[] {
  const gone = new Set(forgotten.map(({ id }) => id));
  const looked = vms.flatMap(({ verdicts }) => verdicts.map(({ point }) => point.id));
  return looked.filter((id) => !gone.has(id));
}

function tell(output: Output, result: VmBackupResult, { wanted }: ConsistencyPolicy): void {
  const { run, host, vms, warnings, elapsedMs } = result;
  const sealed = vms.filter(({ point }) => point !== undefined);
  output.message('summary', {
    run,
    host,
    vms: vms.map(resultMembers),
    points: sealed.map(({ point }) => point?.id),
    warnings,
    elapsedSeconds: elapsedMs / 1000,
  });
  const machines = formatNumberOf(vms.length, 'machine');
  output.text(
    `run ${run.slice(0, ID_DIGITS)}: ${sealed.length} of ${machines} backed up in ${formatSeconds(elapsedMs / 1000)}`,
  );
  output.text(...retentionLines(vms));
  if (output.quiet) return;
  output.text(...resultTable(vms, wanted), ...vms.flatMap(readingLines));
  output.text(...vms.flatMap(unusedLines));
  const stats = vms.length === 1 ? vms[0]?.summary?.stats : undefined;
  if (stats !== undefined) output.text(...bottleneckLines(stats));
}

/** What the policy made of all machines together; nothing where there was none. */
function retentionLines(vms: readonly VmResult[]): string[] {
  const applied = vms.flatMap(({ retention }) => retention ?? []);
  if (applied.length === 0) return [];
  const forgotten = applied.flatMap((each) => each.forgotten).length;
  const kept = applied.flatMap(keptIds).length;
  return [`retention: forgot ${formatNumberOf(forgotten, 'point')}, ${formatCount(kept)} kept`];
}

function resultTable(vms: readonly VmResult[], wanted: Consistency): string[] {
  const hasPolicy = vms.some(({ retention, retentionError }) => retention ?? retentionError);
  const columns = [
    { title: 'VM' },
    { title: 'POINT' },
    { title: 'CONSISTENCY' },
    { title: 'FROZEN', align: 'right' },
    { title: 'READ', align: 'right' },
    { title: 'NEW', align: 'right' },
    { title: 'STORED', align: 'right' },
    { title: 'MERGE', align: 'right' },
    ...(hasPolicy ? FORGET_COLUMNS : []),
    { title: '' },
  ] as const;
  const rows = vms.map((result) => {
    const { vm, point, frozenMs, summary, steps, retention } = result;
    const merges = steps.filter(({ step }) => step === 'merge');
    return [
      vm.name,
      point?.id.slice(0, ID_DIGITS) ?? '-',
      point === undefined ? '-' : consistencyText(point.consistency, wanted),
      frozenMs === undefined ? '-' : formatSeconds(frozenMs / 1000),
      sizeText(summary?.readBytes),
      sizeText(summary?.newBytes),
      sizeText(summary?.storedBytes),
      merges.length === 0
        ? '-'
        : formatSeconds(merges.reduce((sum, { elapsedMs }) => sum + elapsedMs, 0) / 1000),
      ...(hasPolicy
        ? [countText(retention?.forgotten), countText(retention && keptIds(retention))]
        : []),
      failureText(result),
    ];
  });
  return table(columns, rows);
}

/** How much of each disk was left out, and what could not be although it might seem so. */
function unusedLines({ vm, point }: VmResult): string[] {
  return (point?.disks ?? []).flatMap(({ name, unused }) => {
    if (unused === undefined) return [];
    const place = `${vm.name}/${name}`;
    const { skippedBytes, reason } = unused;
    return [
      ...(skippedBytes > 0
        ? [`${printable(place)}: ${formatBytes(skippedBytes)} of unused blocks left out`]
        : []),
      ...(reason === undefined ? [] : [printable(`${place}: copied whole: ${reason}`)]),
      ...keptPartitionLines(place, unused),
    ];
  });
}

/** What each disk was read on top of, and why not, where a host tracks changes. */
function readingLines({ vm, point, readings = [] }: VmResult): string[] {
  const isTracked = point?.capture?.reference !== undefined;
  return readings.flatMap(({ disk, base, fullReason }) => {
    const name = printable(`${vm.name}/${disk}`);
    const reason = fullReason === undefined ? '' : printable(fullReason);
    if (base !== undefined) {
      const more = reason === '' ? '' : `; a part of it was read as a whole: ${reason}`;
      const changed = formatBytes(base.changedBytes);
      return [
        `${name}: incremental from ${base.point.slice(0, ID_DIGITS)}, ${changed} changed${more}`,
      ];
    }
    return isTracked && reason !== '' ? [`${name}: read as a whole: ${reason}`] : [];
  });
}

const FORGET_COLUMNS = [
  { title: 'FORGOT', align: 'right' },
  { title: 'KEPT', align: 'right' },
] as const;

function countText(points: readonly unknown[] | undefined): string {
  return points === undefined ? '-' : formatCount(points.length);
}

/** The codes of all that went wrong with a machine. */
function failureText({ error, releaseError, retentionError }: VmResult): string {
  return [
    error?.code,
    releaseError && `left at it: ${releaseError.code}`,
    retentionError && `retention: ${retentionError.code}`,
  ]
    .filter((text) => text !== undefined)
    .join(', ');
}

/** Less than was wanted cannot be read as though it were all right. */
function consistencyText(reached: Consistency, wanted: Consistency): string {
  return meetsConsistency(reached, wanted)
    ? reached
    : `${reached.toUpperCase()}, NOT ${wanted.toUpperCase()}`;
}

function sizeText(bytes: number | undefined): string {
  return bytes === undefined ? '-' : formatBytes(bytes);
}

/** 0, or the error that the command ends with. */
function judge({ vms }: VmBackupResult, isAborted: boolean): number {
  const errors = vms.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const left = vms.filter(({ releaseError }) => releaseError !== undefined);
  const unforgotten = vms.flatMap(({ retentionError }) => retentionError ?? []);
  const unread = vms.some(
    ({ retention }) => retention !== undefined && retention.damaged.length > 0,
  );
  const aborted = [...errors, ...unforgotten].find(({ code }) => code === 'ERR_ABORTED');
  if (isAborted && aborted !== undefined) throw aborted;
  if (errors.length === vms.length && left.length === 0) throw allFailed(errors);
  const hints = [
    ...(left.length > 0 ? ['Run "firn reconcile" to finish what is left.'] : []),
    ...(unread ? ['Run "firn verify" to see what is damaged.'] : []),
  ];
  const parts = [
    ...(errors.length > 0 ? [`${errors.length} of ${vms.length} machines have no new point`] : []),
    ...(left.length > 0 ? [`something of the run is left at ${left.length} of them`] : []),
    ...(unforgotten.length > 0
      ? [`retention failed for ${formatNumberOf(unforgotten.length, 'machine')}`]
      : []),
    ...(unread ? ['retention met points that cannot be read'] : []),
  ];
  if (parts.length === 0) return 0;
  throw firnError('ERR_INCOMPLETE', parts.join('; '), {
    ...(hints.length > 0 && { hint: hints.join(' ') }),
  });
}

/** What to end with when there is no point at all: the only failure, or one that stands for all. */
function allFailed(errors: readonly FirnError[]): FirnError {
  const [first] = errors;
  if (first === undefined) throw firnError('ERR_INTERNAL', 'A run ended without results');
  if (errors.length === 1) return first;
  const { code, hint } = first;
  return firnError(code, `None of ${errors.length} machines has a new point: ${first.message}`, {
    hint,
    cause: first,
  });
}
