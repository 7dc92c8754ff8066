/**
 * A year of daily points of one disk: what it costs, what a policy leaves of it, and that any point stands alone.
 *
 * The disk is small and its churn is that of a small machine: a log that grows, and a record that is rewritten somewhere. Days are told by
 * the clock that points are dated with, so the year takes a minute.
 */

import { createHash } from 'node:crypto';
import { cpSync, readdirSync, statSync } from 'node:fs';
import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { forget } from '../../src/jobs/forget.js';
import { prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { Repository } from '../../src/repository/repository.js';
import { diskContent, sha256 } from '../helpers/disks.js';
import { suiteFolder, temporaryFolder } from '../helpers/folder.js';

const KIB = 1024;
const DISK_BYTES = 24 * 1024 * KIB;
const DAYS = 365;
const FIRST_DAY = Date.UTC(2025, 0, 1, 20);
const DAY_MS = 86_400_000;
const LOG_BYTES = 120 * KIB;
const RECORD_BYTES = 8 * KIB;
const CHANGED_BYTES = LOG_BYTES + RECORD_BYTES;
/**
 * What a day adds to the repository for each byte that changed. A write costs the chunks that it touches (64 KiB on average) and what of the
 * next is cut anew, a point its maps, its index run and itself: a day that changes 128 KiB in two places stores 343 (2.7 times as much).
 */
const COST_FACTOR_MAX = 3;
/** After all points but one went: that point's content, and what waste a pack may keep. */
const ALONE_FACTOR_MAX = 1.3;
const VM = 'year';

type Write = readonly [offset: number, content: Buffer];

const folder = suiteFolder();
const disk = path.join(folder, 'disk.raw');
const repositoryFolder = path.join(folder, 'repository');
const points: PointObject[] = [];
let bytesAfterFirst = 0;

/** Bytes that nothing compresses, the same on every run. */
function noise(seed: string, bytes: number): Buffer {
  const hash = createHash('shake256', { outputLength: bytes });
  return hash.update(seed).digest();
}

/** What happens on a day: the log goes on where it was, round and round, and a record somewhere is rewritten. */
function writesOf(day: number): Write[] {
  const logPlaces = Math.floor(DISK_BYTES / 2 / LOG_BYTES);
  const recordPlaces = DISK_BYTES / 2 / RECORD_BYTES;
  const record = noise(`place ${day}`, 4).readUInt32LE() % recordPlaces;
  return [
    [(day % logPlaces) * LOG_BYTES, noise(`log ${day}`, LOG_BYTES)],
    [DISK_BYTES / 2 + record * RECORD_BYTES, noise(`record ${day}`, RECORD_BYTES)],
  ];
}

/** The digests of the disk as it was on these days. */
function digestsOf(days: readonly number[]): Map<number, string> {
  const content = noise('disk', DISK_BYTES);
  const digests = new Map<number, string>();
  for (let day = 0; day < DAYS; day++) {
    if (day > 0) for (const [offset, bytes] of writesOf(day)) bytes.copy(content, offset);
    if (days.includes(day)) digests.set(day, sha256(content));
  }
  return digests;
}

function bytesUnder(where: string): number {
  const files = readdirSync(where, { recursive: true, withFileTypes: true });
  return files
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).size, 0);
}

async function backUp(repository: Repository, writes: readonly Write[]): Promise<PointObject> {
  const last = points.at(-1);
  const base = last && {
    point: last.id,
    root: last.disks[0]?.root ?? '',
    skipsUnused: false,
    ranges: writes.map(([offset, { length }]): [number, number] => [offset, length]),
  };
  const { point, disks } = await backup(repository, { disks: [{ path: disk, base }], vm: VM });
  expect([disks[0]?.baseRefused, disks[0]?.base?.point]).toEqual([undefined, last?.id]);
  if (point === undefined) throw new Error('the backup made no point');
  return point;
}

beforeAll(async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  await writeFile(disk, noise('disk', DISK_BYTES));
  const repository = await Repository.create(repositoryFolder);
  const file = await open(disk, 'r+');
  try {
    for (let day = 0; day < DAYS; day++) {
      vi.setSystemTime(FIRST_DAY + day * DAY_MS);
      const writes = day === 0 ? [] : writesOf(day);
      for (const [offset, content] of writes) await file.write(content, 0, content.length, offset);
      points.push(await backUp(repository, writes));
      if (day === 0) bytesAfterFirst = bytesUnder(repositoryFolder);
    }
  } finally {
    await file.close();
  }
}, 900_000);

afterAll(() => {
  vi.useRealTimers();
});

/** The repository of the year, to take apart. */
async function copyOfYear(): Promise<Repository> {
  const copy = path.join(await temporaryFolder(), 'repository');
  cpSync(repositoryFolder, copy, { recursive: true });
  return Repository.open(copy);
}

async function restoredDigest(repository: Repository, point: string): Promise<string> {
  const target = path.join(await temporaryFolder(), 'restored.raw');
  await restore(repository, { point, to: target });
  return sha256(await diskContent(target));
}

test('a year of daily points costs what changed in it', () => {
  const grown = bytesUnder(repositoryFolder) - bytesAfterFirst;
  const changed = (DAYS - 1) * CHANGED_BYTES;
  expect(points).toHaveLength(DAYS);
  expect(bytesAfterFirst).toBeLessThan(1.05 * DISK_BYTES);
  expect(grown).toBeGreaterThan(changed);
  expect(grown).toBeLessThan(COST_FACTOR_MAX * changed);
});

test.each([0, 171, DAYS - 1])(
  'point %i restores alone, when all others are gone',
  async (day) => {
    const repository = await copyOfYear();
    const { id = '' } = points[day] ?? {};
    const { forgotten } = await forget(repository, { vms: [VM], keep: [id], forceEmpty: true });
    expect(forgotten).toHaveLength(DAYS - 1);
    await prune(repository);
    expect((await repository.points()).map((point) => point.id)).toEqual([id]);
    expect(bytesUnder(repository.path)).toBeLessThan(ALONE_FACTOR_MAX * DISK_BYTES);
    expect(await restoredDigest(repository, id)).toBe(digestsOf([day]).get(day));
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  },
  300_000,
);

test('a policy keeps exactly what it says, and all of that is whole', async () => {
  const repository = await copyOfYear();
  const policy = { daily: 7, weekly: 4, monthly: 12, yearly: 1 };
  await forget(repository, { policy, timeZone: 'UTC' });
  await prune(repository);
  const kept = await repository.points();
  const monthEnds = ['01-31', '02-28', '03-31', '04-30', '05-31', '06-30'].concat([
    '07-31',
    '08-31',
    '09-30',
    '10-31',
    '11-30',
  ]);
  // Weeks end on Sundays; the 28th and the 31st are among the last seven days.
  const days = ['12-14', '12-21', '12-25', '12-26', '12-27', '12-28', '12-29', '12-30', '12-31'];
  const dates = kept.map(({ created }) => created.slice(0, 10)).sort();
  expect(dates).toEqual([...monthEnds, ...days].map((date) => `2025-${date}`));
  const dayOf = ({ created }: PointObject) => (Date.parse(created) - FIRST_DAY) / DAY_MS;
  const digests = digestsOf(kept.map(dayOf));
  for (const point of kept) {
    expect(await restoredDigest(repository, point.id)).toBe(digests.get(dayOf(point)));
  }
  expect((await verify(repository, { readData: true })).problems).toEqual([]);
}, 300_000);
