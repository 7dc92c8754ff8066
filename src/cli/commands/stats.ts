/** `firn stats`: how much there is, and what deduplication and compression make of it. */

import type { Command } from 'commander';
import type { NativeIndexInfo } from '../../engine/binding.js';
import type { PointObject } from '../../repository/format/objects.js';
import type { Context, Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf, formatRatio } from '../ui/bytes.js';
import { fields, formatTime } from '../ui/text.js';

export function defineStats(program: Command, register: Register): void {
  program
    .command('stats')
    .description('show sizes and ratios of the repository')
    .action(register(stats));
}

async function stats(context: Context) {
  const { Repository } = await import('../../repository/repository.js');
  const { loadEngine } = await import('../../engine/engine.js');
  const repository = await Repository.open(context.repository);
  const points = await repository.points();
  const { native } = await repository.view();
  const index = await loadEngine().indexInfo(native);
  const account = accountOf(points, index);
  context.output.document({
    path: repository.path,
    repositoryId: repository.id,
    indexRuns: native.indexRuns.length,
    ...account,
  });
  const { dataBytes, rawBytes, storedBytes } = account;
  const [first, last] = [points[0], points.at(-1)];
  context.output.text(
    `repository ${repository.path}`,
    ...fields(
      [
        ['id', repository.id],
        ['points', `${formatCount(account.points)} of ${formatNumberOf(account.vms, 'VM')}`],
        ['first', first && formatTime(first.created)],
        ['last', last && formatTime(last.created)],
        [
          'disks',
          `${formatBytes(account.sizeBytes)} in all points, ${formatBytes(dataBytes)} of it data`,
        ],
        [
          'unique',
          `${formatBytes(rawBytes)} in ${formatNumberOf(account.entries, 'record')}, deduplication ${formatRatio(dataBytes, rawBytes)}`,
        ],
        [
          'stored',
          `${formatBytes(storedBytes)}, compression ${formatRatio(rawBytes, storedBytes)}`,
        ],
        ['packs', `${formatNumberOf(account.packs, 'file')}, ${formatBytes(account.fileBytes)}`],
        ['index', formatNumberOf(native.indexRuns.length, 'index run')],
        ['in all', `${formatRatio(dataBytes, account.fileBytes)}: data of all points to files`],
      ],
      '  ',
    ),
  );
  return 0;
}

function accountOf(points: readonly PointObject[], index: NativeIndexInfo) {
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const dataOf = ({ stats: kept }: PointObject) =>
    typeof kept?.dataBytes === 'number' ? kept.dataBytes : 0;
  return {
    points: points.length,
    vms: new Set(points.map(({ vm }) => vm.name)).size,
    sizeBytes: sum(points.flatMap(({ disks }) => disks.map((disk) => disk.sizeBytes))),
    dataBytes: sum(points.map(dataOf)),
    entries: index.entries,
    packs: index.packs.length,
    rawBytes: sum(index.packs.map((pack) => pack.rawBytes)),
    storedBytes: sum(index.packs.map((pack) => pack.storedBytes)),
    fileBytes: sum(index.packs.map((pack) => pack.fileBytes)),
  };
}
