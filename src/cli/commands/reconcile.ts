/**
 * `firn reconcile`: finishes what runs left whose process died: thaws, merges, drops shadow copies, removes points that were never sealed.
 *
 * What a host has that bears no mark of this journal's runs is named and left alone. With --every it goes on until it is told to stop,
 * and then a round that fails, such as one whose host is away, is reported and the next one tries again.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { type FirnError, firnError } from '../../errors.js';
import type { Leftover } from '../../hosts/host.js';
import type { Journal } from '../../jobs/runs/journal.js';
import type { ReconcileReport, VmEvent } from '../../jobs/runs/types.js';
import { type Context, definedOf, parse, type Register } from '../context.js';
import {
  addHostOption,
  addStateOption,
  findRun,
  type HostFlags,
  hostSpec,
  ID_DIGITS,
  reportFailure,
  requiredHost,
  type StateFlags,
  withHost,
  withJournal,
} from '../machines.js';
import { formatNumberOf } from '../ui/bytes.js';
import { printable } from '../ui/text.js';
import { VmProgress } from '../ui/vm-progress.js';

interface ReconcileFlags extends HostFlags, StateFlags {
  dryRun?: boolean;
  run?: string;
  every?: number;
  mergeDeadline?: number;
}

interface HostReport extends ReconcileReport {
  host: string;
  /** Why nothing could be done on this host. */
  error?: FirnError;
}

export function defineReconcile(program: Command, register: Register): void {
  const command = program
    .command('reconcile')
    .description('finish what runs left whose process died')
    .option('-n, --dry-run', 'say what would be done')
    .option('--run <id>', 'take up the mark of a run that this journal does not know')
    .option('--merge-deadline <time>', 'for each machine, 1h by default', readMergeDeadline)
    .addOption(
      new Option('--every <time>', 'again and again, until Ctrl-C').argParser(
        parse.duration('--every'),
      ),
    );
  addStateOption(addHostOption(command)).action(register(reconcileHosts));
}

const readMergeDeadline = parse.duration('--merge-deadline');

async function reconcileHosts(context: Context, flags: ReconcileFlags) {
  if (flags.every !== undefined) return keepReconciling(context, flags, flags.every);
  const reports = await withJournal(flags, (journal) => oneRound(context, journal, flags));
  tell(context, reports, flags);
  return judge(reports, flags);
}

/**
 * Round after round until it is told to stop, which is how this ends, and no failure. The rounds share one journal, as the files of one
 * that was closed stay open until the garbage collector has been.
 */
async function keepReconciling(context: Context, flags: ReconcileFlags, everyMs: number) {
  const pause = () => delay(everyMs, undefined, { signal: context.signal }).catch(() => {});
  let saidBefore = '';
  while (!context.signal.aborted) {
    try {
      await withJournal(flags, async (journal) => {
        while (!context.signal.aborted && journal.isInPlace()) {
          const reports = await oneRound(context, journal, flags);
          // Said once, and again when it changes: a log that repeats itself is not read.
          const found = JSON.stringify(reports);
          const isNews = found !== saidBefore && reports.some(hasNews);
          if (context.output.json || isNews) tell(context, reports, flags);
          saidBefore = found;
          await pause();
        }
      });
    } catch (error) {
      if (context.signal.aborted) break;
      reportFailure(context.output, error);
      await pause();
    }
  }
  return 0;
}

function hasNews({ runs, foreign, error }: HostReport): boolean {
  return runs.length > 0 || foreign.length > 0 || error !== undefined;
}

/** Reconciles every host that is concerned; one that does not answer keeps no other one waiting. */
async function oneRound(
  context: Context,
  journal: Journal,
  flags: ReconcileFlags,
): Promise<HostReport[]> {
  const { reconcile } = await import('../../jobs/runs/reconcile.js');
  const { asFirnError } = await import('../../jobs/runs/steps.js');
  const { hosts, run } = await concerned(journal, flags);
  const { dryRun, mergeDeadline: mergeDeadlineMs } = flags;
  const reports: HostReport[] = [];
  const progress = new VmProgress(context.output, context.progressMode);
  const onEvent = (event: VmEvent) => progress.handle(event);
  const options = {
    ...definedOf({ dryRun, run, mergeDeadlineMs }),
    access: await context.access(false),
    signal: context.signal,
    onEvent,
  };
  try {
    for (const spec of hosts) {
      if (context.signal.aborted) throw firnError('ERR_ABORTED', 'Reconciling was given up');
      try {
        const report = await withHost(spec, (host) => reconcile(host, journal, options));
        reports.push({ host: spec, ...report });
      } catch (failure) {
        reports.push({ host: spec, runs: [], foreign: [], error: asFirnError(failure) });
      }
    }
  } finally {
    progress.close();
  }
  return reports;
}

/** Which hosts to look at, and the id of a run that only its mark is known of. */
async function concerned(journal: Journal, flags: ReconcileFlags) {
  if (flags.run === undefined) {
    const spec = hostSpec(flags);
    return { hosts: spec === undefined ? journal.unfinishedHosts() : [spec], run: undefined };
  }
  const { checkRunId } = await import('../../jobs/runs/reconcile.js');
  const known = findRun(journal, flags.run);
  if (known === undefined) return { hosts: [requiredHost(flags)], run: checkRunId(flags.run) };
  if (known.state === 'active') {
    throw firnError('ERR_VM_BUSY', `The run ${known.id} is under way: its process lives`, {
      hint: 'Let it end, or end it with Ctrl-C.',
    });
  }
  // Its host's round finishes it with the others.
  return { hosts: [known.host], run: undefined };
}

function tell({ output }: Context, reports: readonly HostReport[], flags: ReconcileFlags): void {
  const verb = flags.dryRun === true ? 'would be' : 'is';
  const runs = reports.flatMap((report) => report.runs);
  for (const { id, vms, removedPoints, error } of runs) {
    const short = id.slice(0, ID_DIGITS);
    for (const { vm, error: failure } of vms) {
      if (failure !== undefined) reportFailure(output, failure, vm);
      else output.text(`run ${short}: ${printable(vm.name)} ${verb} released`);
    }
    for (const point of removedPoints) {
      output.text(`run ${short}: point ${point.slice(0, ID_DIGITS)} ${verb} removed, never sealed`);
    }
    if (error !== undefined) reportFailure(output, error);
  }
  const failures = reports.flatMap(({ error }) => (error === undefined ? [] : [error]));
  // The only one is what the command ends with.
  const isLastWord = flags.every === undefined && reports.length === 1;
  if (!isLastWord) for (const error of failures) reportFailure(output, error);
  if (runs.length === 0 && failures.length === 0) output.text('nothing to finish');
  output.text(...reports.flatMap(({ foreign }) => foreign).map(foreignLine));
  output.message('summary', { dryRun: flags.dryRun === true, hosts: reports });
}

/** A line for what is on a host and no run of this journal's. */
function foreignLine({ kind, name, vm, mark, detail }: Leftover): string {
  const at = vm === undefined ? '' : ` at ${vm.name}`;
  const whose = mark === undefined ? "not Firn's" : `of a run that this journal does not know`;
  const more = detail === undefined ? '' : ` (${detail})`;
  return printable(`left alone: ${kind} ${name}${at}, ${whose}${more}`);
}

/** 0, or what to end with when something of a run is still there. */
function judge(reports: readonly HostReport[], { dryRun }: ReconcileFlags): number {
  const [first] = reports;
  if (reports.length === 1 && first?.error !== undefined) throw first.error;
  const runs = reports.flatMap((report) => report.runs);
  const open = runs.filter(
    ({ vms, error }) => error !== undefined || vms.some((vm) => vm.error !== undefined),
  );
  const away = reports.filter(({ error }) => error !== undefined);
  if (away.length === 0 && (open.length === 0 || dryRun === true)) return 0;
  const parts = [
    ...(open.length > 0 ? [`${formatNumberOf(open.length, 'run')} could not be finished`] : []),
    ...(away.length > 0 ? [`${formatNumberOf(away.length, 'host')} could not be looked at`] : []),
  ];
  throw firnError('ERR_INCOMPLETE', parts.join('; '), {
    hint: 'What failed is named above. "firn reconcile" may be run again at any time.',
  });
}
