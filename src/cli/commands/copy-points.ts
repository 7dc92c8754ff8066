/** `firn copy-points`: points go from one repository to another, and only what that one lacks. */

import type { Command } from 'commander';
import type { CopyPointsResult } from '../../jobs/copy-points.js';
import { type Context, parse, type Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { fields, formatTime, printable } from '../ui/text.js';
import { addSelectionOptions, leftOutText, type SelectionFlags, selectionOf } from './send.js';

interface CopyPointsFlags extends SelectionFlags {
  from?: string;
  to: string;
  limit?: number;
  dryRun?: boolean;
}

const NOTES = `
Examples:
  firn init --like /backup /mnt/second                     once: a sibling
  firn copy-points --all --from /backup --to /mnt/second
  firn copy-points --latest 1 --from /backup --to /mnt/second --limit 20M

Points that the target has are left; run it again after a break, or every night.`;

export function defineCopyPoints(program: Command, register: Register): void {
  addSelectionOptions(
    program
      .command('copy-points')
      .description('copy points to another repository')
      .argument('[point...]', 'which: ids, latest or latest:VM'),
  )
    .option('--from <dir>', 'the repository that has them, instead of --repo')
    .requiredOption('--to <dir>', 'the repository that gets them: a sibling of the first')
    .option('--limit <size>', 'no more than so much a second', parse.size('--limit'))
    .option('-n, --dry-run', 'show what would be copied')
    .addHelpText('after', NOTES)
    .action(register(copyPoints));
}

async function copyPoints(context: Context, points: string[], flags: CopyPointsFlags) {
  const { from, to, limit, dryRun } = flags;
  const job = await import('../../jobs/copy-points.js');
  const source = await context.openRepository(from);
  const target = await context.openRepository(to);
  const result = await context.withProgress('copy points', (run) =>
    job.copyPoints(source, target, {
      ...selectionOf(points, flags),
      bytesPerSecond: limit,
      dryRun,
      tuning: context.tuning,
      ...run,
    }),
  );
  const { copies, points: chosen, left, stats, ...counts } = result;
  context.output.message('summary', {
    from: source.path,
    to: target.path,
    points: chosen.map(({ point }) => point.id),
    left: left.map(({ point }) => point.id),
    copies: copies.map(({ sent, point, storedBytes }) => ({
      point: point.id,
      origin: sent.origin,
      storedBytes,
    })),
    ...counts,
    stats: stats ?? null,
  });
  context.output.text(...describeCopy(result, context.output.quiet));
  return 0;
}

function describeCopy(result: CopyPointsResult, quiet: boolean): string[] {
  const { dryRun, points, left, copies, records, bytes, stats } = result;
  const verb = dryRun ? 'would copy' : 'copied';
  const headline = `${verb} ${formatNumberOf(points.length, 'point')}, ${formatBytes(bytes)}`;
  if (quiet) return [headline];
  const copyOf = new Map(copies.map(({ sent, point }) => [sent.id, point.id.slice(0, ID_DIGITS)]));
  const rows: [string, string | undefined][] = [
    ...points.map(({ point }): [string, string] => {
      const copy = copyOf.get(point.id);
      const as = copy === undefined ? '' : `, as ${copy}`;
      return [
        `point ${point.id.slice(0, ID_DIGITS)}`,
        `${printable(point.vm.name)} of ${formatTime(point.created)}${as}`,
      ];
    }),
    ['records', formatCount(records)],
    ['left out', leftOutText(result.skippedRecords, result.skippedBytes, left.length)],
    ['time', stats === undefined ? undefined : speedLine(bytes, stats.elapsedSeconds)],
  ];
  return [headline, ...fields(rows, '  '), ...(stats === undefined ? [] : bottleneckLines(stats))];
}
