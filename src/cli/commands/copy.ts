/** `firn copy`: one disk image becomes another, in the same format or a different one. Reads no repository. */

import type { Command } from 'commander';
import { TARGET_FORMATS, type TargetFormat } from '../../jobs/target.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { bottleneckLines, meansLine, speedLine } from '../ui/summary.js';
import { fields, printable } from '../ui/text.js';

interface CopyFlags {
  format?: TargetFormat;
  parentFolder?: string[];
  force?: boolean;
  limit?: number;
}

export function defineCopy(program: Command, register: Register): void {
  program
    .command('copy')
    .description('copy or convert a disk image, with its chain merged into one file')
    .argument('<source>', 'VHDX, VHD or raw')
    .argument('<target>', 'the new image')
    .option('--format <format>', TARGET_FORMATS.join(', '), parse.oneOf('--format', TARGET_FORMATS))
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('-f, --force', 'replace an image that exists')
    .option('--limit <rate>', 'read no more bytes a second than this', parse.size('--limit'))
    .action(register(copy));
}

async function copy(context: Context, source: string, target: string, flags: CopyFlags) {
  const job = await import('../../jobs/copy.js');
  const { format, force, parentFolder: parentFolders, limit } = flags;
  const result = await context.withProgress('copy', (run) =>
    job.copyDisk(source, target, {
      source: { parentFolders },
      format,
      force,
      tuning: { ...context.tuning, bytesPerSecond: limit },
      ...run,
    }),
  );
  const { path, identity, stats } = result;
  context.output.message('summary', { path, identity, stats });
  const { format: written, kind, sizeBytes } = identity;
  context.output.text(`made ${printable(path)} (${written} ${kind}, ${formatBytes(sizeBytes)})`);
  if (!context.output.quiet) {
    context.output.text(
      ...fields(
        [
          [
            'copied',
            `${formatBytes(stats.writtenBytes)} written, ${formatBytes(stats.readBytes)} read`,
          ],
          ['time', speedLine(stats.doneBytes, stats.elapsedSeconds)],
          ['with', meansLine(stats)],
        ],
        '  ',
      ),
      ...bottleneckLines(stats),
    );
  }
  return 0;
}
