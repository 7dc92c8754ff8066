/** `firn repair index`: makes the index again from the packs. A group of its own, as there will be other things to mend. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { Context, Register } from '../context.js';
import { formatCount, formatNumberOf } from '../ui/bytes.js';
import { bottleneckLines, speedLine } from '../ui/summary.js';
import { fields } from '../ui/text.js';

export function defineRepair(program: Command, register: Register): void {
  program
    .command('repair')
    .description('mend a repository')
    .command('index')
    .description('make the index again from the packs')
    .action(register(repairIndex));
}

async function repairIndex(context: Context) {
  const job = await import('../../jobs/repair.js');
  const repository = await context.openRepository();
  const result = await context.withProgress('repair index', (run) =>
    job.repairIndex(repository, { tuning: context.tuning, ...run }),
  );
  const { problems, ...account } = result;
  for (const problem of problems) context.output.problem(problem);
  context.output.message('summary', { problemCount: problems.length, ...account });
  const { packs, chunks, indexRuns, replaced, stats } = result;
  context.output.text(
    'the index is made again',
    ...fields(
      [
        [
          'from',
          `${formatNumberOf(packs, 'pack')} with ${formatCount(chunks)} chunks and map objects`,
        ],
        [
          'index runs',
          `${formatCount(indexRuns.length)} new, ${formatCount(replaced.length)} replaced`,
        ],
        ['time', speedLine(stats.readBytes, stats.elapsedSeconds)],
      ],
      '  ',
    ),
    ...bottleneckLines(stats),
  );
  if (problems.length === 0) return 0;
  throw firnError(
    'ERR_INCOMPLETE',
    `${formatNumberOf(problems.length, 'pack')} could not be read in full: the index has the rest`,
    { hint: 'Run "firn verify" to learn which points need what is missing.' },
  );
}
