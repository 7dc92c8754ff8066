/** `firn prune`: what no point needs any more goes, and the space comes back. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { PruneResult } from '../../jobs/prune.js';
import { type Context, parse, type Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatBytes, formatCount, formatNumberOf, formatSeconds } from '../ui/bytes.js';
import { fields, formatTime, printable } from '../ui/text.js';

interface PruneFlags {
  maxWaste?: number;
  dryRun?: boolean;
  recover?: boolean;
}

const NOTES = `
Examples:
  firn prune                         after firn forget
  firn prune --dry-run               what would go
  firn prune --max-waste 0%          as small as it gets, for more writing

Backups, restores and other prunes may run at the same time. A prune that was interrupted goes on
with the next one.`;

export function definePrune(program: Command, register: Register): void {
  program
    .command('prune')
    .description('delete data that no point needs any more')
    .option(
      '--max-waste <percent>',
      'how much of a pack may be waste before it is written again, 20% by default',
      parse.percent('--max-waste'),
    )
    .option('-n, --dry-run', 'show what would go')
    .option('--recover', 'clear up what dead runs have left; only while nothing else runs')
    .addHelpText('after', NOTES)
    .action(register(prune));
}

async function prune(context: Context, { maxWaste, dryRun, recover }: PruneFlags) {
  const job = await import('../../jobs/prune.js');
  const repository = await context.openRepository();
  const result = await context.withProgress('prune', (run) =>
    job.prune(repository, { maxWaste, dryRun, recover, tuning: context.tuning, ...run }),
  );
  const { output } = context;
  for (const { pack, code, message } of result.damaged) {
    output.problem({ code, message, path: `packs/${pack}.pack` });
  }
  output.message('summary', { ...result, damaged: result.damaged.length });
  output.text(...describe(result, output.quiet));
  tellPending(context, result);
  tellUnfinished(context, result, recover === true && dryRun !== true);
  if (result.damaged.length === 0) return 0;
  throw firnError(
    'ERR_INCOMPLETE',
    `${formatNumberOf(result.damaged.length, 'pack')} could not be copied from: what is in them stays`,
    { hint: 'Run "firn verify --read-data" to learn which points need what is damaged.' },
  );
}

function describe(result: PruneResult, quiet: boolean): string[] {
  const { dryRun, deletedBytes, rescuedBytes } = result;
  const freed = formatBytes(Math.max(0, deletedBytes - rescuedBytes));
  const headline = dryRun ? `would free about ${freed}` : `freed ${freed}`;
  if (quiet) return [headline];
  const { packsBefore, packsAfter, deleted, spared, bytesBefore } = result;
  const kept = spared > 0 ? `, ${formatCount(spared)} spared: a run has come to need them` : '';
  const rewritten = dryRun ? '' : ` in ${formatNumberOf(result.rescuedPacks, 'new pack')}`;
  const lines: [string, string][] = [
    ['before', `${formatNumberOf(packsBefore, 'pack')}, ${formatBytes(bytesBefore)}`],
    ['deleted', `${formatNumberOf(deleted, 'pack')}, ${formatBytes(deletedBytes)}${kept}`],
    ['written again', `${formatBytes(rescuedBytes)}${rewritten}`],
  ];
  if (!dryRun) {
    const { indexRunsBefore, indexRunsAfter, elapsedSeconds } = result;
    lines.push(
      ['after', formatNumberOf(packsAfter, 'pack')],
      ['index runs', `${formatCount(indexRunsBefore)} before, ${formatCount(indexRunsAfter)} now`],
      ['time', formatSeconds(elapsedSeconds)],
    );
  }
  return [headline, ...fields(lines, '  ')];
}

function tellUnfinished({ output }: Context, { unfinished }: PruneResult, removed: boolean): void {
  const { files, bytes } = unfinished;
  if (files === 0) return;
  const what = `${formatNumberOf(files, 'unfinished file')}, ${formatBytes(bytes)}`;
  if (removed) output.note(`removed ${what}, which dead runs had left`);
  else output.note(`${what}: of runs that are at work, or died: then firn prune --recover`);
}

function tellPending({ output }: Context, { pending }: PruneResult): void {
  for (const { id, vm, created, recovery } of pending) {
    const point = `${id.slice(0, ID_DIGITS)} of ${printable(vm)}, begun ${formatTime(created)}`;
    if (recovery === undefined || recovery === 'left') {
      output.note(`pending: ${point}. Its run is at work, or died: then firn prune --recover`);
    } else {
      output.note(`${recovery}: ${point}, which a dead run had left`);
    }
  }
}
