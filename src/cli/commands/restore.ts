/** `firn restore`: the disks of a point become images again. */

import type { Command } from 'commander';
import { TARGET_FORMATS, type TargetFormat } from '../../jobs/target.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { bottleneckLines, meansLine, speedLine } from '../ui/summary.js';
import { fields, printable } from '../ui/text.js';

interface RestoreFlags {
  to: string;
  format?: TargetFormat;
  disk?: string;
  force?: boolean;
}

export function defineRestore(program: Command, register: Register): void {
  program
    .command('restore')
    .description('write the disks of a point to images')
    .argument('<point>', 'which: an id, latest or latest:VM')
    .requiredOption('--to <path>', 'a folder, or for one disk a file')
    .option('--format <format>', TARGET_FORMATS.join(', '), parse.oneOf('--format', TARGET_FORMATS))
    .option('--disk <name>', 'one disk of the point only')
    .option('-f, --force', 'replace images that exist')
    .action(register(restore));
}

async function restore(context: Context, point: string, flags: RestoreFlags) {
  const { Repository } = await import('../../repository/repository.js');
  const job = await import('../../jobs/restore.js');
  const repository = await Repository.open(context.repository);
  const result = await context.withProgress('restore', (run) =>
    job.restore(repository, { point, ...flags, tuning: context.tuning, ...run }),
  );
  const { disks, stats } = result;
  context.output.message('summary', { point: result.point.id, disks, stats });
  const quiet = context.output.quiet;
  context.output.text(
    `restored point ${result.point.id} of ${printable(result.point.vm.name)}`,
    ...fields(
      [
        ...disks.map(({ name, path, identity }): [string, string] => [
          `disk ${name}`,
          `${path} (${identity.format} ${identity.kind}, ${formatBytes(identity.sizeBytes)})`,
        ]),
        ['time', quiet ? undefined : speedLine(stats.doneBytes, stats.elapsedSeconds)],
        ['with', quiet ? undefined : meansLine(stats)],
      ],
      '  ',
    ),
    ...(quiet ? [] : bottleneckLines(stats)),
  );
  return 0;
}
