/**
 * `firn reconcile`: finishes what runs left whose process died: thaws, merges, drops shadow copies, removes points that were never sealed.
 *
 * What a host has that bears no mark of this journal's runs is named and left alone. With --every it goes on until it is told to stop,
 * and then a round that fails, such as one whose host is away, is reported and the next one tries again.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { firnError, isFirnError } from '../../errors.js';
import type { Leftover } from '../../hosts/host.js';
import type { Journal } from '../../jobs/runs/journal.js';
import type { ReconcileReport } from '../../jobs/runs/types.js';
import { type Context, parse, type Register } from '../context.js';
import {
  addHostOption,
  addStateOption,
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
  if (flags.every === undefined) {
    const reports = await withJournal(flags, (journal) => oneRound(context, journal, flags));
    return judge(reports, flags);
  }
  while (!context.signal.aborted) {
    try {
      const reports = await withJournal(flags, (journal) => oneRound(context, journal, flags));
      judge(reports, flags);
    } catch (error) {
      if (context.signal.aborted) break;
      reportFailure(context.output, error);
    }
    // Being told to stop is how this ends, and no failure.
    await delay(flags.every, undefined, { signal: context.signal }).catch(() => {});
  }
  return 0;
}

/** Reconciles every host that is concerned, and says what came of it. */
async function oneRound(
  context: Context,
  journal: Journal,
  flags: ReconcileFlags,
): Promise<HostReport[]> {
  const { reconcile } = await import('../../jobs/runs/reconcile.js');
  const { hosts, run } = await concerned(journal, flags);
  const { dryRun, mergeDeadline: mergeDeadlineMs } = flags;
  const reports: HostReport[] = [];
  const progress = new VmProgress(context.output, context.progressMode);
  try {
    for (const spec of hosts) {
      if (context.signal.aborted) throw firnError('ERR_ABORTED', 'Reconciling was given up');
      const report = await withHost(spec, (host) =>
        reconcile(host, journal, {
          ...(dryRun === undefined ? {} : { dryRun }),
          ...(run === undefined ? {} : { run }),
          ...(mergeDeadlineMs === undefined ? {} : { mergeDeadlineMs }),
          signal: context.signal,
          onEvent: (event) => progress.handle(event),
        }),
      );
      reports.push({ host: spec, ...report });
    }
  } finally {
    progress.close();
  }
  tell(context, reports, dryRun === true);
  return reports;
}

/** Which hosts to look at, and the id of a run that only its mark is known of. */
async function concerned(journal: Journal, flags: ReconcileFlags) {
  if (flags.run === undefined) {
    const spec = hostSpec(flags);
    return { hosts: spec === undefined ? journal.unfinishedHosts() : [spec], run: undefined };
  }
  const { checkRunId } = await import('../../jobs/runs/reconcile.js');
  const known = knownRun(journal, flags.run);
  if (known === undefined) return { hosts: [requiredHost(flags)], run: checkRunId(flags.run) };
  if (known.state === 'active') {
    throw firnError('ERR_VM_BUSY', `The run ${known.id} is under way: its process lives`, {
      hint: 'Let it end, or end it with Ctrl-C.',
    });
  }
  // Its host's round finishes it with the others.
  return { hosts: [known.host], run: undefined };
}

function knownRun(journal: Journal, id: string) {
  try {
    return journal.run(id).run;
  } catch (error) {
    if (isFirnError(error) && error.code === 'ERR_RUN_NOT_FOUND') return undefined;
    throw error;
  }
}

function tell({ output }: Context, reports: readonly HostReport[], dryRun: boolean): void {
  output.message('summary', { dryRun, hosts: reports });
  const runs = reports.flatMap((report) => report.runs);
  for (const { id, vms, removedPoints, error } of runs) {
    const short = id.slice(0, ID_DIGITS);
    for (const { vm, error: failure } of vms) {
      if (failure !== undefined) reportFailure(output, failure, vm);
      else
        output.text(`run ${short}: ${printable(vm.name)} ${dryRun ? 'would be' : 'is'} released`);
    }
    for (const point of removedPoints) {
      const verb = dryRun ? 'would be' : 'is';
      output.text(`run ${short}: point ${point.slice(0, ID_DIGITS)} ${verb} removed, never sealed`);
    }
    if (error !== undefined) reportFailure(output, error);
  }
  if (runs.length === 0) output.text('nothing to finish');
  output.text(...reports.flatMap(({ foreign }) => foreign).map(foreignLine));
}

/** A line for what is on a host and no run of this journal's. */
export function foreignLine({ kind, name, vm, mark, detail }: Leftover): string {
  const at = vm === undefined ? '' : ` at ${vm.name}`;
  const whose = mark === undefined ? "not Firn's" : `of a run that this journal does not know`;
  const more = detail === undefined ? '' : ` (${detail})`;
  return printable(`left alone: ${kind} ${name}${at}, ${whose}${more}`);
}

/** 0, or ERR_INCOMPLETE when something of a run is still there. */
function judge(reports: readonly HostReport[], { dryRun }: ReconcileFlags): number {
  if (dryRun === true) return 0;
  const runs = reports.flatMap((report) => report.runs);
  const open = runs.filter(
    ({ vms, error }) => error !== undefined || vms.some((vm) => vm.error !== undefined),
  );
  if (open.length === 0) return 0;
  throw firnError('ERR_INCOMPLETE', `${formatNumberOf(open.length, 'run')} could not be finished`, {
    hint: 'What failed is named above. "firn reconcile" may be run again at any time.',
  });
}
