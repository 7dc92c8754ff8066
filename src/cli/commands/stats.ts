/** `firn stats`: how much there is, what deduplication and compression make of it, and how long ago it was read in full. */

import type { Command } from 'commander';
import type { NativeIndexInfo, NativeRepository } from '../../engine/binding.js';
import type { PointObject } from '../../repository/format/objects.js';
import type { Repository } from '../../repository/repository.js';
import type { Context, Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf, formatRatio } from '../ui/bytes.js';
import { fields, formatTime } from '../ui/text.js';

const DAY_MS = 24 * 3_600_000;

export function defineStats(program: Command, register: Register): void {
  program
    .command('stats')
    .description('show sizes and ratios of the repository')
    .action(register(stats));
}

async function stats(context: Context) {
  const { loadEngine } = await import('../../engine/engine.js');
  const repository = await context.openRepository();
  const points = await repository.points();
  const { native } = await repository.view();
  const index = await loadEngine().indexInfo(native);
  const checks = await checksOf(repository, native);
  const account = { ...accountOf(points, index), checks };
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
        ['checked', describeAges(checks)],
        ['oldest check', checks.oldest && formatTime(checks.oldest)],
        [
          'damaged',
          checks.damagedPacks > 0
            ? `${formatNumberOf(checks.damagedPacks, 'pack')}: firn verify says what it costs`
            : undefined,
        ],
        ['in all', `${formatRatio(dataBytes, account.fileBytes)}: data of all points to files`],
      ],
      '  ',
    ),
  );
  return 0;
}

/** Packs by how long ago a scrub has read them. */
interface CheckAges {
  never: number;
  day: number;
  week: number;
  month: number;
  older: number;
  /** When the pack was read that was longest not read, of those that were. */
  oldest: string | undefined;
  damagedPacks: number;
}

async function checksOf(repository: Repository, native: NativeRepository): Promise<CheckAges> {
  const { readCheckTimes } = await import('../../repository/checks.js');
  const times = await readCheckTimes(repository);
  const ages: CheckAges = {
    never: 0,
    day: 0,
    week: 0,
    month: 0,
    older: 0,
    oldest: undefined,
    damagedPacks: 0,
  };
  const now = Date.now();
  let oldest = Number.POSITIVE_INFINITY;
  for (const pack of native.packs) {
    const at = times.get(pack);
    if (at === undefined) {
      ages.never++;
      continue;
    }
    oldest = Math.min(oldest, at);
    const days = (now - at) / DAY_MS;
    ages[days < 1 ? 'day' : days < 7 ? 'week' : days < 30 ? 'month' : 'older']++;
  }
  if (oldest < Number.POSITIVE_INFINITY) ages.oldest = new Date(oldest).toISOString();
  const listed = new Set(native.packs);
  const damaged = native.damaged.filter(({ pack }) => listed.has(pack));
  ages.damagedPacks = new Set(damaged.map(({ pack }) => pack)).size;
  return ages;
}

function describeAges({ never, day, week, month, older }: CheckAges): string {
  const parts: [number, string][] = [
    [day, 'within a day'],
    [week, 'within 7 days'],
    [month, 'within 30 days'],
    [older, 'longer ago'],
    [never, 'never'],
  ];
  const shown = parts.filter(([count]) => count > 0);
  if (shown.length === 0) return 'no packs';
  return shown.map(([count, age]) => `${formatCount(count)} ${age}`).join(', ');
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
