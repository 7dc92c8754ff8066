/** `firn backup`: disks of one VM become one point. */

import type { Command } from 'commander';
import type { Codec } from '../../engine/binding.js';
import { CODECS } from '../../engine/options.js';
import type { BackupResult } from '../../jobs/backup.js';
import { type Context, parse, type Register } from '../context.js';
import { bottleneckLines, meansLine, reductionLines, speedLine } from '../ui/summary.js';
import { fields, printable } from '../ui/text.js';

interface BackupFlags {
  disk: string[];
  vm?: string;
  codec?: Codec;
  level?: number;
  dryRun?: boolean;
  parentFolder?: string[];
}

export function defineBackup(program: Command, register: Register): void {
  program
    .command('backup')
    .description('make a restore point of the disks of one VM')
    .argument('[files...]', 'more disks')
    .option('-d, --disk <file>', 'a disk: VHDX, VHD or raw; may be given again', parse.list)
    .option('--vm <name>', "the VM's name, the first disk's by default")
    .option('--codec <codec>', 'lz4 (default), zstd or raw', parse.oneOf('--codec', CODECS))
    .option('--level <n>', 'zstd 1..19, lz4 acceleration 1..64', parse.integer('--level', 0, 64))
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('-n, --dry-run', 'read and hash, look nothing up and write nothing')
    .action(register(backup));
}

async function backup(context: Context, files: string[], flags: BackupFlags) {
  const { Repository } = await import('../../repository/repository.js');
  const job = await import('../../jobs/backup.js');
  const repository = await Repository.open(context.repository);
  const { vm, codec, level, dryRun, parentFolder: parentFolders } = flags;
  const disks = [...(flags.disk ?? []), ...files].map((path) => ({ path, parentFolders }));
  const result = await context.withProgress('backup', (run) =>
    job.backup(repository, { disks, vm, codec, level, dryRun, tuning: context.tuning, ...run }),
  );
  const { point, attempts, summary } = result;
  const { stats, ...account } = summary;
  context.output.message('summary', {
    dryRun: dryRun === true,
    point: point?.id ?? null,
    vm: point?.vm.name ?? null,
    disks: result.disks,
    attempts,
    ...account,
    stats,
  });
  context.output.text(...describeBackup(result, context.output.quiet));
  return 0;
}

function describeBackup({ point, disks, summary }: BackupResult, quiet: boolean): string[] {
  const headline =
    point === undefined
      ? 'dry run: nothing was written'
      : `point ${point.id} of ${printable(point.vm.name)} is sealed`;
  if (quiet) return [headline];
  const { stats } = summary;
  return [
    headline,
    ...fields(
      [
        ...disks.map(({ name, root }): [string, string] => [`disk ${name}`, `content ${root}`]),
        // A dry run looks nothing up, so it cannot know what would be new.
        ...reductionLines(summary).slice(0, point === undefined ? 1 : 3),
        ['time', speedLine(stats.doneBytes, summary.elapsedSeconds)],
        ['with', meansLine(stats)],
      ],
      '  ',
    ),
    ...bottleneckLines(stats),
  ];
}
