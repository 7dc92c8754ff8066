/** `firn restore`: the disks of a point become images again. */

import path from 'node:path';
import type { Command } from 'commander';
import { isFirnError } from '../../errors.js';
import type { RestoreResult } from '../../jobs/restore.js';
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
  limit?: number;
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
    .option('--limit <rate>', 'read no more bytes a second than this', parse.size('--limit'))
    .action(register(restore));
}

async function restore(context: Context, point: string, { limit, ...flags }: RestoreFlags) {
  const job = await import('../../jobs/restore.js');
  const repository = await context.openRepository();
  const result = await context.withProgress('restore', (run) =>
    job.restore(repository, {
      point,
      ...flags,
      tuning: { ...context.tuning, bytesPerSecond: limit },
      ...run,
    }),
  );
  const { disks, files, stats } = result;
  const importing = await importOf(result);
  context.output.message('summary', {
    point: result.point.id,
    disks,
    files,
    importCommand: importing?.command ?? null,
    stats,
  });
  const quiet = context.output.quiet;
  context.output.text(
    `restored point ${result.point.id} of ${printable(result.point.vm.name)}`,
    ...fields(
      [
        ...disks.map(({ name, path: file, identity }): [string, string] => [
          `disk ${name}`,
          `${file} (${identity.format} ${identity.kind}, ${formatBytes(identity.sizeBytes)})`,
        ]),
        ...files.map(({ name, path: file }): [string, string] => [`file ${name}`, file]),
        ['time', quiet ? undefined : speedLine(stats.doneBytes, stats.elapsedSeconds)],
        ['with', quiet ? undefined : meansLine(stats)],
      ],
      '  ',
    ),
    ...(quiet ? [] : bottleneckLines(stats)),
    ...(importing === undefined
      ? []
      : [importing.explanation, `  ${printable(importing.command)}`]),
  );
  return 0;
}

/** How a machine of Hyper-V is registered there again, if its configuration came back. */
async function importOf({ point, files }: RestoreResult) {
  const { method, capture } = point;
  const [first] = files;
  if (capture?.hostKind !== 'hyperv' || first === undefined) return undefined;
  if (method !== 'recovery checkpoint' && method !== 'VSS set') return undefined;
  const { importCommand } = await import('../../hosts/hyperv/import-command.js');
  const here = path.dirname(first.path);
  const isThere = process.platform === 'win32';
  const folder = isThere ? here : 'C:\\Restored';
  const names = files.map(({ name }) => name);
  try {
    const command = importCommand(folder, names, method);
    const explanation = isThere
      ? 'to register the machine, in PowerShell:'
      : `to register the machine, copy ${printable(here)} to ${folder} of its host; there, in PowerShell:`;
    return { command, explanation };
  } catch (error) {
    // The disks are restored; a machine can be made around them without its configuration.
    if (isFirnError(error) && error.code === 'ERR_NOT_FOUND') return undefined;
    throw error;
  }
}
