/** `firn list`: the points of a repository, oldest first. Reads the points alone and loads no addon. */

import type { Command } from 'commander';
import { disksOf, type PointObject } from '../../repository/format/objects.js';
import type { Context, Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { formatTime, table } from '../ui/text.js';

const ID_DIGITS = 8;

export function defineList(program: Command, register: Register): void {
  program
    .command('list')
    .alias('ls')
    .description('list the points')
    .option('--vm <name>', 'of one VM only')
    .action(register(list));
}

/** The action; `firn rescue list` is the same. */
export async function list(context: Context, flags: { vm?: string }) {
  const { Repository } = await import('../../repository/repository.js');
  const repository = await Repository.open(context.repository);
  const { output } = context;
  let damaged = 0;
  const all = await repository.points((id, { code, message, path }) => {
    damaged += 1;
    output.problem({ code, message: `point ${id}: ${message}`, ...(path ? { path } : {}) });
  });
  const points = all.filter(({ vm }) => flags.vm === undefined || vm.name === flags.vm);
  output.document({ points, damaged });
  if (points.length > 0) output.text(...pointTable(points));
  else output.note(flags.vm === undefined ? 'no points yet' : `no points of ${flags.vm}`);
  return damaged > 0 ? 3 : 0;
}

function pointTable(points: readonly PointObject[]): string[] {
  const columns = [
    { title: 'POINT' },
    { title: 'TIME' },
    { title: 'VM' },
    { title: 'DISKS', align: 'right' },
    { title: 'SIZE', align: 'right' },
    { title: 'DATA', align: 'right' },
    { title: 'ADDED', align: 'right' },
    { title: 'CONSISTENCY' },
  ] as const;
  const rows = points.map((point) => [
    point.id.slice(0, ID_DIGITS),
    formatTime(point.created),
    point.vm.name,
    String(disksOf(point).length),
    formatBytes(disksOf(point).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
    statText(point, 'dataBytes'),
    statText(point, 'storedBytes'),
    point.consistency,
  ]);
  return table(columns, rows);
}

/** A size from the account that the point's run left in it; another version may have left none. */
export function statText(
  point: PointObject,
  name: 'dataBytes' | 'newBytes' | 'storedBytes',
): string {
  const value = point.stats?.[name];
  return typeof value === 'number' ? formatBytes(value) : '-';
}
