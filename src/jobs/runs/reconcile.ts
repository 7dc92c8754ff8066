/**
 * The reconciler: finishes what dead runs left, from the journal and from the marks on the host.
 *
 * It works like a run's own last part: release by the mark, and the points that were never sealed go from the repository. A run that lives
 * is never touched: taking a dead run's claim is what proves it dead, and keeps two reconcilers apart. What bears no mark of this journal's
 * runs is named in the report and left alone; an operator may hand in such a run's id to have it taken up.
 */

import { type FirnError, firnError } from '../../errors.js';
import {
  type Host,
  type Leftover,
  markOf,
  type Release,
  refOf,
  runOfMark,
  type VmRef,
} from '../../hosts/host.js';
import { ignoreDamage } from '../../repository/commit.js';
import type { PointObject } from '../../repository/format/objects.js';
import { Repository } from '../../repository/repository.js';
import { Claim } from './claim.js';
import { unstageConfiguration } from './configuration.js';
import type { Journal } from './journal.js';
import { asFirnError, JournaledSteps } from './steps.js';
import { advanceOf } from './tracking.js';
import {
  type ReconcileOptions,
  type ReconcileReport,
  type RunRecord,
  VM_BACKUP_DEFAULTS,
} from './types.js';

/**
 * Finishes dead runs of a host. Never rejects for one run's sake: its failure stands in the report, and the next reconciliation tries it
 * again. Rejects if the host does not answer.
 */
export async function reconcile(
  host: Host,
  journal: Journal,
  options: ReconcileOptions = {},
): Promise<ReconcileReport> {
  const leftovers = await host.leftovers();
  const runs: ReconcileReport['runs'] = [];
  for (const record of journal.unfinished()) {
    if (record.host !== host.spec || options.signal?.aborted) continue;
    const report = await new Reconciler(host, journal, options).finish(record.id);
    if (report !== undefined) runs.push(report);
  }
  const returned = leftovers.filter((leftover) => isOver(journal, leftover));
  for (const [run, vms] of byRun(returned)) {
    if (runs.some((report) => report.id === run)) continue;
    runs.push(await new Reconciler(host, journal, options).releaseMark(run, vms));
  }
  if (options.run !== undefined && !runs.some(({ id }) => id === options.run)) {
    if (recordOf(journal, options.run)?.state === 'active') {
      throw firnError(
        'ERR_VM_BUSY',
        `The run ${options.run} is alive; only its own process may end it`,
      );
    }
    const vms = byRun(leftovers).get(options.run) ?? [];
    runs.push(await new Reconciler(host, journal, options).releaseMark(options.run, vms));
  }
  const foreign = leftovers.filter(
    (leftover) => runOf(leftover) === undefined || !isKnown(journal, runOf(leftover) ?? ''),
  );
  return { runs, foreign: foreign.filter((leftover) => runOf(leftover) !== options.run) };
}

type RunReport = ReconcileReport['runs'][0];

class Reconciler {
  readonly #host: Host;
  readonly #journal: Journal;
  readonly #options: ReconcileOptions;

  constructor(host: Host, journal: Journal, options: ReconcileOptions) {
    this.#host = host;
    this.#journal = journal;
    this.#options = options;
  }

  /** Finishes a run of the journal; undefined if it lives or somebody else has finished it meanwhile. */
  async finish(id: string): Promise<RunReport | undefined> {
    const claim = Claim.take(this.#journal.folder, id);
    if (claim === undefined) return undefined;
    let over = false;
    try {
      const record = this.#journal.unfinished().find((run) => run.id === id);
      over = record === undefined;
      if (record === undefined) return undefined;
      const report = await this.#finishClaimed(record);
      over = this.#journal.unfinished().every((run) => run.id !== id);
      return report;
    } finally {
      claim.release(over);
    }
  }

  /** Releases what bears a mark, whatever the journal says of its run. */
  async releaseMark(run: string, vms: readonly VmRef[]): Promise<RunReport> {
    const released = await this.#release(run, vms, undefined);
    return { id: run, vms: released, removedPoints: [] };
  }

  async #finishClaimed(record: RunRecord): Promise<RunReport> {
    const sealed = await this.#sealedPoints(record);
    const waiting = record.vms
      .filter((vm) => vm.state !== 'released')
      .map((vm) =>
        advanceOf(
          vm,
          sealed.find((point) => vmOf(point).id === vm.id),
        ),
      );
    const vms = await this.#release(record.id, waiting, record);
    const report: RunReport = { id: record.id, vms, removedPoints: [] };
    try {
      report.removedPoints = await this.#removePending(record);
    } catch (failure) {
      // The repository may be away; its pending point harms nothing until then, and the run stays unfinished.
      report.error = asFirnError(failure);
    }
    if (this.#options.dryRun === true) return report;
    await unstageConfiguration(this.#journal.folder, record.id);
    const clean = report.error === undefined && vms.every((vm) => vm.error === undefined);
    if (clean)
      this.#journal.end(record.id, record.ended === undefined ? 'reconciled' : outcomeOf(record));
    return report;
  }

  async #release(
    run: string,
    vms: readonly Release[],
    record: RunRecord | undefined,
  ): Promise<{ vm: VmRef; error?: FirnError }[]> {
    const { dryRun, mergeDeadlineMs, onEvent } = this.#options;
    if (dryRun === true || vms.length === 0) return vms.map((vm) => ({ vm: refOf(vm) }));
    const steps =
      record === undefined
        ? unrecordedSteps
        : new JournaledSteps({
            run,
            journal: this.#journal,
            host: this.#host,
            reconciled: true,
            onEvent,
          });
    const deadline = mergeDeadlineMs ?? VM_BACKUP_DEFAULTS.mergeDeadlineMs;
    const refs = vms.map(({ advance, ...vm }) => ({ ...refOf(vm), ...(advance && { advance }) }));
    const outcomes = await this.#host
      .release(refs, markOf(run), deadline, steps)
      .catch((failure: unknown) =>
        vms.map((vm) => ({ vm: refOf(vm), error: asFirnError(failure) })),
      );
    for (const { vm, error } of outcomes) {
      if (error === undefined && record !== undefined) this.#journal.setReleased(run, vm);
    }
    return outcomes;
  }

  /**
   * What the run sealed before it died, by the repository itself: the journal may have been cut off before it heard of it. None if the
   * repository is away; then the machines' new references go with all else, and the older ones stay, which are as good as they were.
   */
  async #sealedPoints(record: RunRecord): Promise<PointObject[]> {
    try {
      const repository = await Repository.open(record.repository, undefined, this.#options.access);
      const points = await repository.points(ignoreDamage);
      return points.filter(({ capture }) => capture?.run === record.id);
    } catch {
      return [];
    }
  }

  /** Points of the run that were about to be sealed. A sealed one is no longer pending, or is both and stays. */
  async #removePending(record: RunRecord): Promise<string[]> {
    const repository = await Repository.open(record.repository, undefined, this.#options.access);
    const removed: string[] = [];
    for (const id of await repository.listIds('pending')) {
      const point = await repository.readPending(id).catch(() => undefined);
      if (point?.capture?.run !== record.id) continue;
      const sealed = (await repository.listIds('points')).includes(id);
      if (this.#options.dryRun !== true) {
        if (sealed) this.#journal.setVm(record.id, vmOf(point), 'sealed', id);
        await repository.removePending(id);
      }
      if (!sealed) removed.push(id);
    }
    return removed;
  }
}

function vmOf({ vm }: PointObject): VmRef {
  return { id: vm.id ?? vm.name, name: vm.name };
}

/** For marks of runs that the journal does not have: there is nothing to record them in. */
const unrecordedSteps = {
  run: async <Result>(
    _vm: VmRef,
    _step: string,
    { deadlineMs }: { deadlineMs?: number },
    work: (signal: AbortSignal) => Promise<Result>,
  ) =>
    work(deadlineMs === undefined ? new AbortController().signal : AbortSignal.timeout(deadlineMs)),
};

// An ended run with something left keeps what was said of it when it ended.
function outcomeOf(record: RunRecord) {
  return record.vms.every((vm) => vm.point !== undefined) ? 'done' : 'partial';
}

function runOf(leftover: Leftover): string | undefined {
  return leftover.mark === undefined ? undefined : runOfMark(leftover.mark);
}

function isKnown(journal: Journal, run: string): boolean {
  return recordOf(journal, run) !== undefined;
}

/** True if the leftover is of a run that the journal holds for finished: something came after its release. */
function isOver(journal: Journal, leftover: Leftover): boolean {
  const run = runOf(leftover);
  const record = run === undefined ? undefined : recordOf(journal, run);
  return record !== undefined && record.state !== 'active' && record.state !== 'dead';
}

function recordOf(journal: Journal, run: string): RunRecord | undefined {
  try {
    return journal.run(run).run;
  } catch {
    return undefined;
  }
}

function byRun(leftovers: readonly Leftover[]): Map<string, VmRef[]> {
  const runs = new Map<string, VmRef[]>();
  for (const leftover of leftovers) {
    const run = runOf(leftover);
    if (run === undefined || leftover.vm === undefined) continue;
    const { vm } = leftover;
    const vms = runs.get(run) ?? [];
    if (!vms.some((other) => other.id === vm.id)) vms.push(vm);
    runs.set(run, vms);
  }
  return runs;
}

/** Finds the run whose mark an operator names: a whole id, as the report of foreign leftovers shows it. */
export function checkRunId(text: string): string {
  if (/^[0-9a-f]{32}$/.test(text)) return text;
  throw firnError(
    'ERR_INVALID_ARGUMENT',
    `Expected a run's id of 32 digits but received "${text}"`,
  );
}
