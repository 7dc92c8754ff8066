/** `firn receive`: takes a stream of points in, or says what the repository has. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { ReceiveResult } from '../../jobs/receive.js';
import type { Context, Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatBytes, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { fields, formatTime, printable } from '../ui/text.js';

interface ReceiveFlags {
  init?: boolean;
  listHave?: boolean;
  records?: boolean;
  output?: string;
  force?: boolean;
}

const STANDARD_INPUT = 0;
const STANDARD_OUTPUT = 1;

const NOTES = `
Examples:
  ssh site1 firn send --repo /backup latest:web | firn receive --repo /copy --init
  firn receive --repo /copy /mnt/tape/all.firn
  firn receive --repo /copy --list-have > have            for firn send --have
  firn receive --repo /copy --list-have --records > have  the same after a break

What has arrived whole stays when the stream breaks, and is found when it is sent again.`;

export function defineReceive(program: Command, register: Register): void {
  program
    .command('receive')
    .description('take a stream of firn send into the repository')
    .argument('[file]', 'the stream, instead of standard input')
    .option('--init', 'make the repository if there is none, as a sibling of the sender')
    .option('--list-have', 'write what the repository has, for firn send --have')
    .option('--records', 'with --list-have: every record, to go on after a break')
    .option('-o, --output <file>', 'with --list-have: a file instead of standard output')
    .option('-f, --force', 'replace a file that exists')
    .addHelpText('after', NOTES)
    .action(register(receive));
}

async function receive(context: Context, file: string | undefined, flags: ReceiveFlags) {
  const { init, listHave, records, output, force } = flags;
  if (listHave !== true && (records ?? output ?? force) !== undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected --list-have with these options');
  }
  if (listHave === true) return writeHave(context, flags);
  if (file === undefined && process.stdin.isTTY === true) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected a pipe or a file, not a terminal');
  }
  const job = await import('../../jobs/receive.js');
  const { withInput } = await import('../../jobs/streams/descriptors.js');
  const path = context.repository;
  const access = await context.access();
  const receiveFrom = (fd: number) =>
    context.withProgress('receive', (run) =>
      job.receive(path, { fd, init, access, tuning: context.tuning, ...run }),
    );
  const result = await (file === undefined
    ? receiveFrom(STANDARD_INPUT)
    : withInput(file, receiveFrom));
  report(context, result);
  return 0;
}

async function writeHave(context: Context, { records, output: file, force }: ReceiveFlags) {
  if (file === undefined && (context.output.json || context.output.stdout.isTTY === true)) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected a pipe or --output FILE for the list');
  }
  const job = await import('../../jobs/receive.js');
  const { withOutput } = await import('../../jobs/streams/descriptors.js');
  const repository = await context.openRepository();
  const write = (fd: number) =>
    job.listHave(repository, { fd, records, tuning: context.tuning, signal: context.signal });
  const result = await (file === undefined
    ? write(STANDARD_OUTPUT)
    : withOutput(file, { force }, write));
  context.output.message('summary', { output: file ?? null, ...result });
  const listed = `listed ${formatNumberOf(result.points, 'point')}`;
  context.output.note(
    records === true ? `${listed} and ${formatNumberOf(result.records, 'record')}` : listed,
  );
  if (result.leftOut > 0) {
    context.output.note(`${formatNumberOf(result.leftOut, 'older point')} had no room in the list`);
  }
  return 0;
}

function report({ output }: Context, result: ReceiveResult): void {
  const { points, repository, isNew, stats, ...counts } = result;
  output.message('summary', {
    repository: repository.path,
    isNew,
    points: points.map(({ sent, point, isOld, storedBytes }) => ({
      point: point.id,
      origin: sent.origin,
      vm: sent.vm.name,
      created: sent.created,
      isOld,
      storedBytes,
    })),
    ...counts,
    stats: stats ?? null,
  });
  const copies = points.filter(({ isOld }) => !isOld);
  const headline = `received ${formatNumberOf(copies.length, 'point')}, stored ${formatBytes(result.storedBytes)}`;
  if (output.quiet) {
    output.text(headline);
    return;
  }
  const rows: [string, string | undefined][] = [
    ['made', isNew ? `the repository in ${repository.path}` : undefined],
    ...points.map(({ sent, point, isOld }): [string, string] => [
      `point ${point.id.slice(0, ID_DIGITS)}`,
      `${printable(sent.vm.name)} of ${formatTime(sent.created)}${isOld ? ', was there' : ''}`,
    ]),
    [
      'came',
      `${formatNumberOf(result.receivedRecords, 'record')}, ${formatBytes(result.receivedBytes)}`,
    ],
    [
      'found again',
      result.adoptedPacks > 0
        ? `${formatNumberOf(result.adoptedPacks, 'pack')} of a process that died`
        : undefined,
    ],
    ['time', stats === undefined ? undefined : speedLine(result.streamBytes, stats.elapsedSeconds)],
  ];
  output.text(
    headline,
    ...fields(rows, '  '),
    ...(stats === undefined ? [] : bottleneckLines(stats)),
  );
}
