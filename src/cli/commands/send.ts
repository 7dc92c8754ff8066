/** `firn send`: points become a stream, on standard output or in a file. */

import { fstatSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { firnError } from '../../errors.js';
import type { SendResult } from '../../jobs/send.js';
import type { PointSelection } from '../../jobs/streams/selection.js';
import { parseTag } from '../../repository/tags.js';
import { type Context, parse, type Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { fields, formatTime, printable } from '../ui/text.js';

/** Options that choose points; copy-points has the same. */
export interface SelectionFlags {
  all?: boolean;
  vm?: string[];
  tag?: string[];
  latest?: number;
}

interface SendFlags extends SelectionFlags {
  output?: string;
  have?: string;
  limit?: number;
  dryRun?: boolean;
  unsealed?: boolean;
  force?: boolean;
}

const STANDARD_OUTPUT = 1;
const LATEST_MAX = 1_000_000;

const NOTES = `
Examples:
  firn send latest:web | ssh backup2 firn receive --repo /backup
  firn send --all --output /mnt/tape/all.firn
  ssh backup2 firn receive --repo /backup --list-have > have
  firn send --latest 1 --have have --limit 2M | ssh backup2 firn receive --repo /backup

The receiving repository is a sibling: "firn init --like REPO", or "firn receive --init".`;

export function addSelectionOptions(command: Command): Command {
  return command
    .option('--all', 'all points')
    .option('--vm <name>', 'of this VM only; may be given again', parse.list)
    .option(
      '--tag <tag>',
      'with this tag only; may be given again, for any of them',
      parse.listAs('--tag', parseTag),
    )
    .option(
      '--latest <n>',
      'of each VM the newest n only',
      parse.integer('--latest', 1, LATEST_MAX),
    );
}

export function selectionOf(points: string[], flags: SelectionFlags): PointSelection {
  const { all, vm, tag, latest } = flags;
  return { points, all, vms: vm, tags: tag, latest };
}

export function defineSend(program: Command, register: Register): void {
  addSelectionOptions(
    program
      .command('send')
      .description('write points as one stream, for firn receive')
      .argument('[point...]', 'which: ids, latest or latest:VM'),
  )
    .option('-o, --output <file>', 'a file, a pipe or a device, instead of standard output')
    .addOption(new Option('--have <file>', 'leave out what this list of the receiver names'))
    .option('--limit <size>', 'no more than so much a second', parse.size('--limit'))
    .option('-n, --dry-run', 'show how much it would be')
    .option('--unsealed', 'also from a sealed repository: whoever gets the stream can read it')
    .option('-f, --force', 'replace a file that exists')
    .addHelpText('after', NOTES)
    .action(register(sendPoints));
}

async function sendPoints(context: Context, points: string[], flags: SendFlags) {
  const { output: file, have, limit, dryRun = false, force } = flags;
  const toStandardOutput = file === undefined && !dryRun;
  if (toStandardOutput) checkStandardOutput(context);
  const job = await import('../../jobs/send.js');
  const { withOutput } = await import('../../jobs/streams/descriptors.js');
  const repository = await context.openRepository();
  const sendTo = (fd: number | undefined) =>
    context.withProgress('send', (run) =>
      job.send(repository, {
        ...selectionOf(points, flags),
        fd,
        have,
        bytesPerSecond: limit,
        unsealed: flags.unsealed,
        tuning: context.tuning,
        ...run,
      }),
    );
  const result = await (dryRun
    ? sendTo(undefined)
    : file === undefined
      ? sendTo(STANDARD_OUTPUT)
      : withOutput(file, { force }, sendTo));
  report(context, result, { dryRun, toStandardOutput, file });
  return 0;
}

/** Bytes of a stream are for programs: not for a screen, and not between lines of JSON. */
function checkStandardOutput({ output }: Context): void {
  if (output.json) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected --output FILE with --json, as the stream would go to standard output too',
    );
  }
  if (fstatSync(STANDARD_OUTPUT).isCharacterDevice() && output.stdout.isTTY === true) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected a pipe or --output FILE, not a terminal');
  }
}

function report(
  { output }: Context,
  result: SendResult,
  {
    dryRun,
    toStandardOutput,
    file,
  }: { dryRun: boolean; toStandardOutput: boolean; file: string | undefined },
): void {
  const { points, left, stats, ...counts } = result;
  output.message('summary', {
    dryRun,
    output: file ?? null,
    points: points.map(({ point }) => point.id),
    left: left.map(({ point }) => point.id),
    ...counts,
    stats,
  });
  const lines = describeSend(result, dryRun, output.quiet);
  if (toStandardOutput) for (const line of lines) output.note(line);
  else output.text(...lines);
}

function describeSend(result: SendResult, dryRun: boolean, quiet: boolean): string[] {
  const { points, left, records, bytes, skippedRecords, skippedBytes, stats } = result;
  const verb = dryRun ? 'would send' : 'sent';
  const headline = `${verb} ${formatNumberOf(points.length, 'point')}, ${formatBytes(bytes)}`;
  if (quiet) return [headline];
  const rows: [string, string | undefined][] = [
    ...points.map(({ point }): [string, string] => [
      `point ${point.id.slice(0, ID_DIGITS)}`,
      `${printable(point.vm.name)} of ${formatTime(point.created)}`,
    ]),
    ['records', formatCount(records)],
    ['left out', leftOutText(skippedRecords, skippedBytes, left.length)],
    ['time', dryRun ? undefined : speedLine(result.streamBytes, stats.elapsedSeconds)],
  ];
  return [headline, ...fields(rows, '  '), ...(dryRun ? [] : bottleneckLines(stats))];
}

/** What the other side has, in words; undefined if it is nothing. */
export function leftOutText(records: number, bytes: number, points: number): string | undefined {
  if (records === 0 && points === 0) return undefined;
  const wholes = points > 0 ? `${formatNumberOf(points, 'point')} that it has` : undefined;
  const parts =
    records > 0
      ? `${formatNumberOf(records, 'record')} that it has, ${formatBytes(bytes)}`
      : undefined;
  return [wholes, parts].filter((text) => text !== undefined).join('; ');
}
