/** `firn verify`: checks what the repository holds. Defects are listed one by one; with any of them the exit code is 30. */

import type { Command } from 'commander';
import { firnError, isErrorCode } from '../../errors.js';
import type { VerifyProblem, VerifyResult } from '../../jobs/verify.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { fields } from '../ui/text.js';

interface VerifyFlags {
  readData?: boolean;
  source?: string[];
  parentFolder?: string[];
}

const PROBLEMS_SHOWN = 50;

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
    .action(register(verify));
}

async function verify(context: Context, selectors: string[], flags: VerifyFlags) {
  const { Repository } = await import('../../repository/repository.js');
  const job = await import('../../jobs/verify.js');
  const repository = await Repository.open(context.repository);
  const { readData, parentFolder: parentFolders } = flags;
  const source = flags.source?.map((path) => ({ path, parentFolders }));
  const fallback = source === undefined ? undefined : ['latest'];
  const points = selectors.length > 0 ? selectors : fallback;
  const result = await context.withProgress('verify', (run) =>
    job.verify(repository, { points, readData, source, tuning: context.tuning, ...run }),
  );
  const { problems, problemCount, ...account } = result;
  const { output } = context;
  // For people the list is cut and names the points; JSON has both in full.
  const shown = output.json ? problems : problems.slice(0, PROBLEMS_SHOWN).map(withPoints);
  for (const problem of shown) output.problem(problem);
  context.output.message('summary', { problemCount, ...account });
  if (problemCount === 0) {
    context.output.text(...describeVerify(result, source !== undefined, context.output.quiet));
    return 0;
  }
  throw defectsFound(result);
}

function withPoints(problem: VerifyProblem): VerifyProblem {
  if (problem.points.length === 0) return problem;
  const points = problem.points.map((id) => id.slice(0, 8)).join(', ');
  return { ...problem, message: `${problem.message} (needed by ${points})` };
}

function describeVerify(result: VerifyResult, compared: boolean, quiet: boolean): string[] {
  const headline = compared ? 'no defects: the point holds what its source holds' : 'no defects';
  if (quiet) return [headline];
  const { points, objects, chunks, packs, stats } = result;
  return [
    headline,
    ...fields(
      [
        [
          'points',
          `${formatCount(points)}, with ${formatCount(chunks)} different chunks and map objects`,
        ],
        ['objects', `${formatCount(objects)} read`],
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
function defectsFound({ problems, problemCount }: VerifyResult) {
  const first = problems[0]?.code;
  const affected = new Set(problems.flatMap(({ points }) => points));
  const shown = Math.min(problemCount, PROBLEMS_SHOWN);
  const message =
    `${formatNumberOf(problemCount, 'defect')} found` +
    (shown < problemCount ? `, ${shown} of them shown` : '') +
    (affected.size > 0 ? `; points affected: ${[...affected].join(', ')}` : '');
  return firnError(isErrorCode(first) ? first : 'ERR_VERIFY_MISMATCH', message);
}
