/**
 * The run: machines of a host become points, and nothing of the run stays at the host.
 *
 *     capture (freeze, checkpoint, thaw, shadow copy) -> read -> seal -> release (merge, drop shadow copy, confirm)
 *
 * Each batch goes this way by itself, so a machine that is slow or fails holds up nobody but those that must be captured with it. Whatever
 * happens to a batch, its release follows, also when the run is given up: the abort signal ends capturing and reading, never a merge.
 * The marks on the host and the journal's entries let another process do the release if this one dies at any point.
 */

import { cpus } from 'node:os';
import path from 'node:path';
import { meetsConsistency } from '../../consistency.js';
import { throwIfAborted } from '../../engine/engine.js';
import { MEMORY_BYTES_DEFAULT, NODE_MEMORY_BYTES } from '../../engine/options.js';
import { type FirnError, firnError } from '../../errors.js';
import {
  type Capture,
  type CaptureOutcome,
  type CaptureRequest,
  type Host,
  type HostInfo,
  markOf,
  refOf,
  type Vm,
  type VmRef,
} from '../../hosts/host.js';
import { newId } from '../../repository/format/names.js';
import type { PointCapture, PointObject } from '../../repository/format/objects.js';
import type { Repository } from '../../repository/repository.js';
import { parseTags } from '../../repository/tags.js';
import { backupMachine } from '../backup.js';
import type { Claim } from './claim.js';
import { stageConfiguration, unstageConfiguration } from './configuration.js';
import type { Journal } from './journal.js';
import { checkSpace, type DiskPlan, mapPath, planDisks, selectVms } from './plan.js';
import { reconcile } from './reconcile.js';
import { applyRetention } from './retention.js';
import { watchSpace } from './space-watch.js';
import { asFirnError, JournaledSteps } from './steps.js';
import {
  advanceOf,
  type PlannedDisk,
  planDisk,
  plannedReadings,
  type ReferencePoints,
  readingsOf,
  referencePoints,
  trackingRequest,
} from './tracking.js';
import {
  VM_BACKUP_DEFAULTS,
  type VmBackupOptions,
  type VmBackupResult,
  type VmEvent,
  type VmResult,
} from './types.js';

/**
 * Backs up machines. Resolves with what became of each, also if all failed; rejects for what kept the run from beginning: a machine that
 * is not there, too little space, a host that does not answer, or a run that is at one of the machines.
 */
export async function backupVms(
  repository: Repository,
  host: Host,
  journal: Journal,
  options: VmBackupOptions,
): Promise<VmBackupResult> {
  const startedMs = performance.now();
  throwIfAborted(options.signal);
  parseTags(options.tags ?? [], 'tags');
  const info = await host.info();
  const early = await finishDeadRuns(host, journal, options);
  const vms = selectVms(await host.listVms(), options.vms);
  if (vms.length === 0) throw firnError('ERR_VM_NOT_FOUND', 'The host has no machines');
  const shortage = checkSpace(vms, await host.volumes(), options.space);
  if (shortage !== undefined) throw shortage;
  throwIfAborted(options.signal);

  const run = newId();
  const claim = journal.begin({
    id: run,
    host: host.spec,
    repository: path.resolve(repository.path),
    job: options.job,
    vms,
  });
  const points = await referencePoints(repository, options.tracking);
  const vmRun = new VmRun({ repository, host, journal, options, run, info, points });
  const results = await vmRun.work(vms);
  finish(journal, claim, run, results, options.signal);
  const late = await applyRetention(repository, results, options);
  return {
    run,
    host: info,
    vms: results,
    warnings: [...early, ...vmRun.warnings, ...late],
    elapsedMs: performance.now() - startedMs,
  };
}

/** What dead runs left is finished first: a machine must not get a second checkpoint of ours on the first. */
async function finishDeadRuns(
  host: Host,
  journal: Journal,
  { mergeDeadlineMs, signal, onEvent }: VmBackupOptions,
): Promise<string[]> {
  const { runs } = await reconcile(host, journal, {
    mergeDeadlineMs,
    ...(signal !== undefined && { signal }),
    ...(onEvent !== undefined && { onEvent }),
  });
  const warnings = runs.flatMap(({ id, vms, error }) => [
    `the dead run ${id} was finished first`,
    ...vms.flatMap((vm) => (vm.error === undefined ? [] : [`${vm.vm.name}: ${vm.error.message}`])),
    ...(error === undefined ? [] : [error.message]),
  ]);
  for (const message of warnings) onEvent?.({ type: 'warning', vm: undefined, message });
  return warnings;
}

function finish(
  journal: Journal,
  claim: Claim,
  run: string,
  results: readonly VmResult[],
  signal: AbortSignal | undefined,
): void {
  const sealed = results.filter((result) => result.point !== undefined).length;
  const clean = results.every((result) => result.releaseError === undefined);
  if (sealed === results.length && clean) journal.end(run, 'done');
  else if (signal?.aborted) journal.end(run, 'aborted');
  else journal.end(run, sealed > 0 ? 'partial' : 'failed');
  claim.release(clean);
}

interface VmRunContext {
  repository: Repository;
  host: Host;
  journal: Journal;
  options: VmBackupOptions;
  run: string;
  info: HostInfo;
  points: ReferencePoints;
}

class VmRun {
  readonly warnings: string[] = [];
  readonly #context: VmRunContext;
  readonly #steps: JournaledSteps;
  /** For what must be done whatever becomes of the run. */
  readonly #lastSteps: JournaledSteps;
  readonly #results = new Map<string, VmResult>();
  readonly #plans = new Map<string, DiskPlan>();

  constructor(context: VmRunContext) {
    this.#context = context;
    const { run, journal, host, options } = context;
    const common = { run, journal, host, reconciled: false, onEvent: options.onEvent };
    this.#steps = new JournaledSteps({ ...common, signal: options.signal });
    this.#lastSteps = new JournaledSteps(common);
  }

  async work(vms: readonly Vm[]): Promise<VmResult[]> {
    const { host, options, journal, run } = this.#context;
    for (const vm of vms) this.#plan(vm);
    const capturable = vms.filter((vm) => this.#result(vm).error === undefined);
    await inParallel(host.batches(capturable), options.parallelVms, (batch) => this.#batch(batch));
    await this.#sweep(vms);
    await unstageConfiguration(journal.folder, run);
    return vms.map((vm) => this.#result(vm));
  }

  #plan(vm: Vm): void {
    const { options } = this.#context;
    const plan = planDisks(vm, options.excludedDisks);
    const result: VmResult = { vm: refOf(vm), steps: [] };
    this.#results.set(vm.id, result);
    this.#plans.set(vm.id, plan);
    for (const warning of plan.warnings) this.#warn(vm, warning);
    const refusal = plan.error ?? this.#refuseConsistency(vm);
    if (refusal === undefined) return;
    this.#fail(vm, refusal);
    this.#context.journal.setReleased(this.#context.run, vm);
    this.#give(result);
  }

  /** What is known beforehand to fall short is not frozen at all. */
  #refuseConsistency(vm: Vm): FirnError | undefined {
    const { required } = this.#context.options.consistency;
    if (meetsConsistency(vm.reachable, required)) return undefined;
    const reason = vm.reachableReason ?? `the guest can promise no more than ${vm.reachable}`;
    return firnError('ERR_CONSISTENCY', `${vm.name}: ${required} is required, but ${reason}`);
  }

  async #batch(batch: readonly Vm[]): Promise<void> {
    const { options } = this.#context;
    if (options.signal?.aborted) {
      for (const vm of batch) this.#fail(vm, abortOf(options.signal));
      for (const vm of batch) this.#context.journal.setReleased(this.#context.run, vm);
      return;
    }
    for (const outcome of await this.#capture(batch)) {
      if (outcome.capture === undefined) this.#fail(outcome.vm, outcome.error);
      else await this.#store(outcome.capture);
    }
    await this.#release(batch);
    for (const vm of batch) this.#give(this.#result(vm));
  }

  async #capture(batch: readonly Vm[]): Promise<CaptureOutcome[]> {
    const { host, options, run } = this.#context;
    const requests = batch.map((vm): CaptureRequest => {
      const tracking = trackingRequest(options.tracking, this.#context, this.#pointsOf(vm));
      return {
        vm,
        policy: options.consistency,
        excludedDisks: this.#plans.get(vm.id)?.excluded ?? [],
        freezeDeadlineMs: options.freezeDeadlineMs,
        ...(tracking !== undefined && { tracking }),
      };
    });
    try {
      return await host.capture(requests, markOf(run), this.#steps);
    } catch (failure) {
      const error = asFirnError(failure);
      return batch.map((vm) => ({ vm, error }));
    }
  }

  /** Reads a capture into a sealed point. */
  async #store(capture: Capture): Promise<void> {
    const { journal, run, options } = this.#context;
    const { vm } = capture;
    const result = this.#result(vm);
    journal.setVm(run, vm, 'captured');
    result.consistency = capture.consistency;
    if (capture.frozenMs !== undefined) result.frozenMs = capture.frozenMs;
    try {
      this.#judgeConsistency(capture, result);
      const disks = await this.#planReading(capture);
      const stored = await this.#backup(capture, disks);
      result.summary = stored.summary;
      result.readings = readingsOf(disks, stored.disks);
      if (stored.point === undefined) throw firnError('ERR_INTERNAL', 'A backup made no point');
      result.point = stored.point;
      journal.setVm(run, vm, 'sealed', stored.point.id);
    } catch (failure) {
      const error = options.signal?.aborted ? abortOf(options.signal) : asFirnError(failure);
      this.#fail(vm, error);
    }
  }

  /** A host that reached less than is required made no capture worth a point. */
  #judgeConsistency({ vm, consistency, consistencyReason }: Capture, result: VmResult): void {
    const { wanted, required } = this.#context.options.consistency;
    const reason = withoutName(consistencyReason ?? 'the host does not say why', vm);
    if (!meetsConsistency(consistency, required)) {
      throw firnError('ERR_CONSISTENCY', `${vm.name} reached ${consistency} only: ${reason}`);
    }
    if (meetsConsistency(consistency, wanted)) return;
    result.consistencyReason = reason;
    this.#warn(vm, `reached ${consistency} consistency, not ${wanted}: ${reason}`);
  }

  /** Where the frozen disks are read, and on top of what. */
  async #planReading(capture: Capture): Promise<PlannedDisk[]> {
    const { options } = this.#context;
    const vm = refOf(capture.vm);
    const disks: PlannedDisk[] = [];
    for (const disk of capture.disks) {
      const [top, ...parents] = disk.layers.map((layer) => mapPath(layer, options.map));
      if (top === undefined) throw firnError('ERR_INTERNAL', `Disk ${disk.name} has no layers`);
      const source = { path: top, parents, name: disk.name };
      disks.push(
        options.tracking === 'none'
          ? source
          : await planDisk(capture, disk, source, this.#pointsOf(vm)),
      );
    }
    options.onEvent?.({ type: 'reading', vm, disks: plannedReadings(disks) });
    return disks;
  }

  async #backup(capture: Capture, disks: readonly PlannedDisk[]) {
    const { repository, host, journal, options, run } = this.#context;
    const { vm } = capture;
    const files = capture.configuration.map((file) => mapPath(file, options.map));
    const configuration = await stageConfiguration(journal.folder, run, vm.id, files);
    const space = watchSpace(host, vm, options.space.minimumFreeBytes);
    const { tags, codec, level, tuning, onEvent } = options;
    const { unused = VM_BACKUP_DEFAULTS.unused, dropGuestShadowCopies, keepPageFiles } = options;
    try {
      return await backupMachine(
        repository,
        {
          disks: [...disks, ...configuration],
          vm: vm.name,
          tags,
          codec,
          level,
          unused,
          dropGuestShadowCopies,
          keepPageFiles,
          tuning: shareOf(tuning, options.parallelVms),
          signal: anySignal(options.signal, space.signal),
          onProgress: (progress) => onEvent?.({ type: 'progress', vm: refOf(vm), progress }),
        },
        {
          guestFroze: capture.guestFroze === true,
          describe: () => this.#describe(capture),
          aroundRead: (read) =>
            this.#steps.run(vm, 'read', {}, (stop) => read(anySignal(stop, space.signal))),
          aroundSeal: (seal) => this.#steps.run(vm, 'seal', {}, seal),
        },
      );
    } catch (failure) {
      throw space.error ?? failure;
    } finally {
      space.stop();
    }
  }

  #describe(captured: Capture) {
    const { vm, consistency, consistencyReason, method, frozenAt, frozenMs, reference } = captured;
    const { options, run, info } = this.#context;
    const capture: PointCapture = {
      run,
      ...(options.job !== undefined && { job: options.job }),
      ...options.consistency,
      ...(consistencyReason !== undefined && { reason: consistencyReason }),
      frozenAt,
      ...(frozenMs !== undefined && { frozenMs }),
      hostKind: info.kind,
      hostVersion: info.version,
      steps: this.#steps.times(vm),
      ...(reference !== undefined && {
        reference: { ...reference, disks: { ...reference.disks } },
      }),
    };
    return { vm: refOf(vm), consistency, method, host: info.name, capture };
  }

  /** Idempotent, so it may follow a capture that failed at any point. */
  async #release(vms: readonly VmRef[]): Promise<void> {
    const { host, options, journal, run } = this.#context;
    const releases = vms.map((vm) => advanceOf(refOf(vm), this.#result(vm).point));
    const outcomes = await host
      .release(releases, markOf(run), options.mergeDeadlineMs, this.#lastSteps)
      .catch((failure: unknown) => vms.map((vm) => ({ vm, error: asFirnError(failure) })));
    for (const { vm, error } of outcomes) {
      const result = this.#result(vm);
      result.steps = [...this.#steps.times(vm), ...this.#lastSteps.times(vm)];
      if (error === undefined) {
        delete result.releaseError;
        journal.setReleased(run, vm);
      } else {
        result.releaseError = error;
      }
    }
  }

  /** A step that overran its deadline may have made something after its machine was released. */
  async #sweep(vms: readonly Vm[]): Promise<void> {
    const { host, run } = this.#context;
    const mark = markOf(run);
    const leftovers = await host.leftovers().catch(() => []);
    const late = vms.filter(
      (vm) =>
        this.#result(vm).releaseError === undefined &&
        leftovers.some((leftover) => leftover.mark === mark && leftover.vm?.id === vm.id),
    );
    if (late.length > 0) await this.#release(late);
  }

  #fail(vm: VmRef, error: FirnError): void {
    const { journal, run } = this.#context;
    this.#result(vm).error = error;
    journal.setVm(run, vm, 'failed');
  }

  #give(result: VmResult): void {
    this.#context.options.onEvent?.({ type: 'vm-done', result });
  }

  /** Those that the host may count from. */
  #pointsOf(vm: VmRef): readonly PointObject[] {
    return this.#context.points.get(vm.id) ?? [];
  }

  #warn(vm: VmRef, message: string): void {
    this.warnings.push(`${vm.name}: ${message}`);
    const event: VmEvent = { type: 'warning', vm: refOf(vm), message };
    this.#context.options.onEvent?.(event);
  }

  #result(vm: VmRef): VmResult {
    const result = this.#results.get(vm.id);
    if (result === undefined) throw firnError('ERR_INTERNAL', `${vm.name} is not in this run`);
    return result;
  }
}

/** A host's sentence may begin with the machine's name, which is said already. */
function withoutName(text: string, vm: VmRef): string {
  return text.startsWith(`${vm.name}: `) ? text.slice(vm.name.length + 2) : text;
}

function abortOf(signal: AbortSignal | undefined): FirnError {
  return firnError('ERR_ABORTED', 'The run was given up', { cause: signal?.reason });
}

function anySignal(...signals: (AbortSignal | undefined)[]): AbortSignal {
  return AbortSignal.any(signals.filter((signal) => signal !== undefined));
}

/** Machines that are read at once share what the process may take. */
function shareOf(tuning: VmBackupOptions['tuning'], parts: number): VmBackupOptions['tuning'] {
  if (parts <= 1) return tuning;
  const memoryBytes = tuning?.memoryBytes ?? MEMORY_BYTES_DEFAULT;
  const workers = tuning?.workers ?? cpus().length;
  return {
    ...tuning,
    memoryBytes:
      NODE_MEMORY_BYTES +
      Math.max(60 * 2 ** 20, Math.floor((memoryBytes - NODE_MEMORY_BYTES) / parts)),
    workers: Math.max(1, Math.ceil(workers / parts)),
    ...(tuning?.bytesPerSecond && {
      bytesPerSecond: Math.max(1, Math.floor(tuning.bytesPerSecond / parts)),
    }),
  };
}

/** Works off the items, at most `limit` at once. `work` does not reject. */
async function inParallel<Item>(
  items: readonly Item[],
  limit: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.max(1, limit) }, worker));
}
