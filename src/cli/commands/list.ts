/** `firn list`: the points of a repository, oldest first. Reads the points and their labels alone and loads no addon. */

import type { Command } from 'commander';
import { disksOf, type PointObject } from '../../repository/format/objects.js';
import type { LabelledPoint } from '../../repository/retention.js';
import { parseTag } from '../../repository/tags.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { formatTime, printable, table } from '../ui/text.js';

const ID_DIGITS = 8;

interface ListFlags {
  vm?: string;
  tag?: string[];
}

export function defineList(program: Command, register: Register): void {
  program
    .command('list')
    .alias('ls')
    .description('list the points')
    .option('--vm <name>', 'of one VM only')
    .option(
      '--tag <tag>',
      'with this tag only; may be given again, for any of them',
      parse.listAs('--tag', parseTag),
    )
    .action(register(list));
}

/** The action; `firn rescue list` is the same. */
export async function list(context: Context, flags: ListFlags) {
  const { labelledPoints } = await import('../../repository/labels.js');
  const repository = await context.openRepository();
  const { output } = context;
  let damaged = 0;
  const all = await labelledPoints(repository, (id, { code, message, path }) => {
    damaged += 1;
    output.problem({ code, message: `point ${id}: ${message}`, ...(path ? { path } : {}) });
  });
  const points = all.filter(
    ({ point, tags }) =>
      (flags.vm === undefined || point.vm.name === flags.vm) &&
      (flags.tag === undefined || flags.tag.some((tag) => tags.includes(tag))),
  );
  output.document({ points: points.map(pointJson), damaged });
  if (points.length > 0) output.text(...pointTable(points));
  else output.note(nothingText(flags));
  return damaged > 0 ? 3 : 0;
}

/** A point as JSON has it: with the tags that it has by now. */
export function pointJson({ point, tags, held }: LabelledPoint) {
  return { ...point, tags, held: held !== undefined };
}

function nothingText({ vm, tag }: ListFlags): string {
  if (vm === undefined && tag === undefined) return 'no points yet';
  const ofVm = vm === undefined ? '' : ` of ${vm}`;
  return printable(`no points${ofVm}${tag === undefined ? '' : ` with tag ${tag.join(' or ')}`}`);
}

function pointTable(points: readonly LabelledPoint[]): string[] {
  const hasTags = points.some(({ tags }) => tags.length > 0);
  const hasHolds = points.some(({ held }) => held !== undefined);
  const columns = [
    { title: 'POINT' },
    { title: 'TIME' },
    { title: 'VM' },
    { title: 'DISKS', align: 'right' },
    { title: 'SIZE', align: 'right' },
    { title: 'DATA', align: 'right' },
    { title: 'ADDED', align: 'right' },
    { title: 'CONSISTENCY' },
    ...(hasTags ? [{ title: 'TAGS' }] : []),
    ...(hasHolds ? [{ title: 'HELD' }] : []),
  ] as const;
  const rows = points.map(({ point, tags, held }) => [
    point.id.slice(0, ID_DIGITS),
    formatTime(point.created),
    point.vm.name,
    String(disksOf(point).length),
    formatBytes(disksOf(point).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)),
    statText(point, 'dataBytes'),
    statText(point, 'storedBytes'),
    point.consistency,
    ...(hasTags ? [tags.join(', ')] : []),
    ...(hasHolds ? [held === undefined ? '' : 'held'] : []),
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
