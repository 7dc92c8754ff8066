/**
 * `firn verify`: checks what the repository holds. Defects are listed one by one; with any of them the exit code is 30. With --all
 * it is the scrub, which reads the packs a part at a time.
 */

import type { Command } from 'commander';
import type { TuningOptions } from '../../engine/options.js';
import { firnError, isErrorCode } from '../../errors.js';
import type { ScrubLoss, ScrubProblem, ScrubResult } from '../../jobs/scrub.js';
import type { VerifyProblem, VerifyResult } from '../../jobs/verify.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { type Field, fields, formatTime } from '../ui/text.js';

interface VerifyFlags {
  readData?: boolean;
  source?: string[];
  parentFolder?: string[];
  all?: boolean;
  packsOnly?: boolean;
  for?: number;
  limit?: number;
}

const PROBLEMS_SHOWN = 50;
const LOSSES_SHOWN = 3;
const HEAL_HINT =
  'Back the machines up again: what still is as it was is stored anew, and mends old points. Then run "firn prune".';

const NOTES = `
Examples:
  firn verify                        the points, and that all they need is there
  firn verify --all --for 10m        every night: ten minutes of reading packs, longest not read first
  firn verify --all --limit 50M      everything, at no more than 50 MiB a second

What --all finds damaged is noted in the repository: the next backup that has the same content stores
it again, and prune removes the damaged copy. firn stats shows how long ago packs were read.`;

export function defineVerify(program: Command, register: Register): void {
  program
    .command('verify')
    .description('check the points and the data they need')
    .argument('[points...]', 'which, all when not given')
    .option('--read-data', 'read and check every byte of every pack as well')
    .option(
      '--source <file>',
      'compare one point (or the latest) with its disks, in order',
      parse.list,
    )
    .option('--parent-folder <dir>', "where else parents of the source's disks may lie", parse.list)
    .option('--all', 'read all packs as well, those first that were longest not read')
    .option(
      '--packs-only',
      "read all packs and hold them against their checksums: needs no sealed repository's key",
    )
    .option(
      '--for <duration>',
      'with --all: how long to read, 10m; the next run goes on',
      parse.duration('--for'),
    )
    .option(
      '--limit <rate>',
      'bytes a second to read at most, 50M: of packs, or of the disks of --source',
      parse.size('--limit'),
    )
    .addHelpText('after', NOTES)
    .action(register(verify));
}

async function verify(context: Context, selectors: string[], flags: VerifyFlags) {
  checkTogether(selectors, flags);
  if (flags.all === true) return scrub(context, flags);
  if (flags.packsOnly === true) return checkPacks(context, flags);
  const job = await import('../../jobs/verify.js');
  const repository = await context.openRepository();
  const { readData, parentFolder: parentFolders } = flags;
  const tuning = limited(context, flags);
  const source = flags.source?.map((path) => ({ path, parentFolders }));
  const fallback = source === undefined ? undefined : ['latest'];
  const points = selectors.length > 0 ? selectors : fallback;
  const result = await context.withProgress('verify', (run) =>
    job.verify(repository, { points, readData, source, tuning, ...run }),
  );
  tellFound(context, result, withPoints);
  tellHealed(context, result.healed);
  if (result.problemCount > 0) throw defectsFound(result);
  context.output.text(...describeVerify(result, source !== undefined, context.output.quiet));
  return 0;
}

function limited({ tuning }: Context, { limit }: VerifyFlags): TuningOptions {
  return { ...tuning, bytesPerSecond: limit };
}

/** Each problem, and the summary. For people the list is cut, and its messages say more; JSON has all of it as data. */
function tellFound<Problem extends VerifyProblem>(
  { output }: Context,
  result: { problems: readonly Problem[] },
  withMore: (problem: Problem) => Problem,
): void {
  const { problems, ...account } = result;
  const shown = output.json ? problems : problems.slice(0, PROBLEMS_SHOWN).map(withMore);
  for (const problem of shown) output.problem(problem);
  output.message('summary', account);
}

function checkTogether(selectors: readonly string[], flags: VerifyFlags): void {
  const { all, packsOnly, for: time, readData, source } = flags;
  const isOfPoints = selectors.length > 0 || readData === true || source !== undefined;
  if (packsOnly === true && (all === true || isOfPoints || time !== undefined)) {
    throw firnError('ERR_INVALID_ARGUMENT', '--packs-only goes with --limit alone');
  }
  const message =
    all === true || packsOnly === true
      ? isOfPoints && '--all checks the whole repository: not points, --read-data or --source'
      : whyNot(flags);
  if (message) throw firnError('ERR_INVALID_ARGUMENT', message);
}

/** Of points: without --read-data and --source next to nothing is read. */
function whyNot({ for: time, limit, readData, source }: VerifyFlags): string | undefined {
  if (time !== undefined) return '--for is for --all';
  const isIdle = limit !== undefined && readData !== true && source === undefined;
  return isIdle ? '--limit is for --all, --packs-only, --read-data and --source' : undefined;
}

async function scrub(context: Context, flags: VerifyFlags) {
  const job = await import('../../jobs/scrub.js');
  const repository = await context.openRepository();
  const result = await context.withProgress('verify', (run) =>
    job.scrub(repository, { forMs: flags.for, tuning: limited(context, flags), ...run }),
  );
  tellFound(context, result, withLosses);
  tellHealed(context, result.healed);
  context.output.text(...describeScrub(result, context.output.quiet));
  if (result.problemCount > 0) throw defectsFound(result, HEAL_HINT);
  return 0;
}

async function checkPacks(context: Context, flags: VerifyFlags) {
  const { Repository } = await import('../../repository/repository.js');
  const job = await import('../../jobs/check-packs.js');
  const repository = await Repository.openLocked(context.repository);
  const result = await context.withProgress('verify', (run) =>
    job.checkPacks(repository, { tuning: limited(context, flags), ...run }),
  );
  tellFound(context, result, (problem) => problem);
  if (result.problemCount > 0) throw defectsFound(result);
  const read = `${formatNumberOf(result.packs, 'pack')}, ${formatBytes(result.packBytes)}`;
  context.output.text(`no defects in ${read}`);
  return 0;
}

function withLosses(problem: ScrubProblem): ScrubProblem {
  const { losses = [], healed, message } = problem;
  if (healed === true) return { ...problem, message: `${message} (another copy is whole)` };
  if (losses.length === 0) return withPoints(problem);
  const more = losses.length - LOSSES_SHOWN;
  const shown = losses.slice(0, LOSSES_SHOWN).map(describeLoss).join('; ');
  return { ...problem, message: `${message} (${shown}${more > 0 ? `; and ${more} more` : ''})` };
}

function describeLoss({ point, vm, created, disk, bytes, rangeCount, ranges }: ScrubLoss): string {
  const [first] = ranges;
  const of = `of disk ${disk} in ${point.slice(0, 8)} of ${vm}, ${formatTime(created)}`;
  if (bytes === 0 || first === undefined) return `all ${of}`;
  const places = rangeCount > 1 ? ` and ${rangeCount - 1} more places` : '';
  return `${formatBytes(bytes)} at ${first[0]}${places} ${of}`;
}

function describeScrub(result: ScrubResult, quiet: boolean): string[] {
  const { packs, packBytes, packsLeft, lifted, problemCount } = result;
  const left = packsLeft > 0 ? `, ${formatCount(packsLeft)} left for the next time` : '';
  const headline =
    problemCount === 0
      ? `no defects in ${formatNumberOf(packs, 'pack')}${left}`
      : `${formatNumberOf(packs, 'pack')} read${left}`;
  if (quiet) return problemCount === 0 ? [headline] : [];
  return [
    headline,
    ...fields(
      [
        ...structureRows(result),
        ['packs', `${formatCount(packs)} read, ${formatBytes(packBytes)}`],
        [
          'taken back',
          lifted > 0 ? `${formatNumberOf(lifted, 'record')} of damage: it is gone` : undefined,
        ],
        ['time', speedLine(result.stats.doneBytes, result.stats.elapsedSeconds)],
      ],
      '  ',
    ),
  ];
}

/** What the points are made of: checked in every run. */
function structureRows({ points, chunks, objects }: VerifyResult | ScrubResult): Field[] {
  const differing = `${formatCount(chunks)} different chunks and map objects`;
  return [
    ['points', `${formatCount(points)}, with ${differing}`],
    ['objects', `${formatCount(objects)} read`],
  ];
}

function tellHealed({ output }: Context, healed: number): void {
  if (healed === 0) return;
  output.note(`${formatNumberOf(healed, 'defect')} known and healed: firn prune clears it away`);
}

function withPoints(problem: VerifyProblem): VerifyProblem {
  if (problem.points.length === 0) return problem;
  const points = problem.points.map((id) => id.slice(0, 8)).join(', ');
  return { ...problem, message: `${problem.message} (needed by ${points})` };
}

function describeVerify(result: VerifyResult, compared: boolean, quiet: boolean): string[] {
  const { skippedBytes } = result;
  // Also when that is nothing: it was looked at through the same eyes.
  const but =
    skippedBytes === undefined
      ? ''
      : `, but for ${formatBytes(skippedBytes)} of unused blocks that it leaves out`;
  const headline = compared
    ? `no defects: the point holds what its source holds${but}`
    : 'no defects';
  if (quiet) return [headline];
  const { packs, stats } = result;
  return [
    headline,
    ...fields(
      [
        ...structureRows(result),
        [
          'packs',
          packs > 0
            ? `${formatCount(packs)} read, ${formatBytes(stats.readBytes)}`
            : 'not read: that is --read-data',
        ],
        ['time', speedLine(stats.doneBytes, stats.elapsedSeconds)],
      ],
      '  ',
    ),
    ...bottleneckLines(stats),
  ];
}

/** The error that a repository with defects ends with: the first defect's code says the most. */
function defectsFound(
  { problems, problemCount }: Pick<VerifyResult, 'problems' | 'problemCount'>,
  hint?: string,
) {
  const first = problems[0]?.code;
  const affected = new Set(problems.flatMap(({ points }) => points));
  const shown = Math.min(problemCount, PROBLEMS_SHOWN);
  const message =
    `${formatNumberOf(problemCount, 'defect')} found` +
    (shown < problemCount ? `, ${shown} of them shown` : '') +
    (affected.size > 0 ? `; points affected: ${[...affected].join(', ')}` : '');
  const code = isErrorCode(first) ? first : 'ERR_VERIFY_MISMATCH';
  return firnError(code, message, hint === undefined ? {} : { hint });
}
