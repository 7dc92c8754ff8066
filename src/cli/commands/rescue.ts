/**
 * `firn rescue`: gets disks out of a repository with the reader that is TypeScript alone: no addon is loaded and no index is read.
 *
 * Slower than `firn restore`, and raw images only. With --skip-damaged it goes on where data is lost: those ranges read as zeros, each
 * is listed, and the exit code is 3.
 */

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { firnError, fromFileSystem } from '../../errors.js';
import { meansFile } from '../../jobs/target.js';
import { restoredName } from '../../repository/format/names.js';
import { disksOf, type PointObject } from '../../repository/format/objects.js';
import type { RescueProgress, RescueResult } from '../../rescue/rescue.js';
import type { Context, Register } from '../context.js';
import { formatBytes, formatCount } from '../ui/bytes.js';
import type { ProgressStats } from '../ui/progress.js';
import { speedLine } from '../ui/summary.js';
import { fields, printable } from '../ui/text.js';
import { list } from './list.js';

interface RescueFlags {
  to: string;
  disk?: string;
  force?: boolean;
  skipDamaged?: boolean;
}

export function defineRescue(program: Command, register: Register): void {
  const group = program
    .command('rescue')
    .description('restore without the native engine, also from a damaged repository');
  group
    .command('list')
    .description('list the points that can be read')
    .option('--vm <name>', 'of one VM only')
    .action(register(list));
  group
    .command('restore')
    .description('write the disks of a point to raw images')
    .argument('<point>', 'which: an id, latest or latest:VM')
    .requiredOption('--to <path>', 'a folder, or for one disk a file')
    .option('--disk <name>', 'one disk of the point only')
    .option('--skip-damaged', 'go on where data is lost; it reads as zeros')
    .option('-f, --force', 'replace images that exist')
    .action(register(rescueRestore));
}

async function rescueRestore(context: Context, selector: string, flags: RescueFlags) {
  const { Rescue } = await import('../../rescue/rescue.js');
  const access = await context.access();
  const beginMs = performance.now();
  const seconds = () => (performance.now() - beginMs) / 1000;
  const results = await context.withProgress('rescue', async ({ signal, onProgress }) => {
    const report = (progress: RescueProgress) => onProgress(statsOf(progress, seconds()));
    const reading = { signal, onProgress: report };
    await using rescue = await Rescue.open(context.repository, reading, access);
    for (const { pack, error } of rescue.damagedPacks) {
      context.output.problem({ code: error.code, message: `pack ${pack}: ${error.message}` });
    }
    const point = await rescue.repository.resolvePoint(selector);
    const done: RescueResult[] = [];
    for (const { disk, to } of await planTargets(point, flags)) {
      const { force, skipDamaged } = flags;
      const options = { point: point.id, disk, to, force, skipDamaged, signal, onProgress: report };
      done.push(await rescue.restore(options));
    }
    return done;
  });
  return account(context, results, seconds());
}

/** What to write where: one disk to a file, or each disk to a file in a folder. */
async function planTargets(point: PointObject, { to, disk }: RescueFlags) {
  const names = disk === undefined ? disksOf(point).map(({ name }) => name) : [disk];
  if (await meansFile(to)) {
    if (names.length === 1) return [{ disk: names[0] as string, to }];
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected a folder for ${names.length} disks, or --disk NAME, but received the file "${to}"`,
    );
  }
  try {
    await mkdir(to, { recursive: true });
  } catch (error) {
    throw fromFileSystem(error, 'create', 'ERR_WRITE');
  }
  return names.map((name) => ({ disk: name, to: join(to, `${restoredName(name)}.raw`) }));
}

function statsOf({ phase, done, total }: RescueProgress, elapsedSeconds: number): ProgressStats {
  // Packs are scanned before it is known how many bytes there are to copy.
  const bytes =
    phase === 'copy' ? { doneBytes: done, totalBytes: total } : { doneBytes: 0, totalBytes: 0 };
  return { phase: phase === 'copy' ? 'copy' : 'open', elapsedSeconds, ...bytes };
}

function account({ output }: Context, results: readonly RescueResult[], elapsedSeconds: number) {
  let lostBytes = 0;
  for (const result of results) {
    lostBytes += result.lostBytes;
    for (const { offset, length, error } of result.lost) {
      const message = `${formatBytes(length)} of disk ${result.disk.name} are lost: ${error.message}`;
      output.problem({ code: error.code, message, path: result.path, offset });
    }
  }
  const dataBytes = results.reduce((sum, result) => sum + result.dataBytes, 0);
  output.message('summary', {
    point: results[0]?.point.id,
    disks: results.map(({ disk, path, dataBytes: bytes, lostBytes: lost }) => ({
      name: disk.name,
      path,
      dataBytes: bytes,
      lostBytes: lost,
    })),
    elapsedSeconds,
    dataBytes,
    lostBytes,
  });
  const disks = results.map(({ disk, path }): [string, string] => [
    `disk ${disk.name}`,
    `${path} (raw, ${formatBytes(disk.sizeBytes)})`,
  ]);
  output.text(
    `rescued point ${results[0]?.point.id} of ${printable(results[0]?.point.vm.name ?? '')}`,
    ...fields([...disks, ['time', speedLine(dataBytes, elapsedSeconds)]], '  '),
  );
  if (lostBytes === 0) return 0;
  throw firnError(
    'ERR_INCOMPLETE',
    `${formatCount(lostBytes)} bytes are lost and read as zeros in what was written`,
  );
}
