/**
 * Scrubs on real repositories with the real engine: what is damaged is found, named with what it costs, healed by the next backup that has
 * the content, and cleared away by prune; and a scrub that has no time, dies or meets others still gets round.
 */

import { readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadEngine } from '../../src/engine/engine.js';
import { backup } from '../../src/jobs/backup.js';
import { prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { scrub } from '../../src/jobs/scrub.js';
import { verify } from '../../src/jobs/verify.js';
import { readCheckTimes, recordChecks } from '../../src/repository/checks.js';
import { packFile } from '../../src/repository/format/names.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import type { Repository } from '../../src/repository/repository.js';
import { flipBit, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;
const HOUR_MS = 3_600_000;

async function backUp(repository: Repository, content: Buffer, vm = 'web') {
  const disk = await rawDisk(content);
  const { point } = await backup(repository, { vm, disks: [disk], codec: 'raw' });
  await rm(path.dirname(disk), { recursive: true });
  if (point === undefined) throw new Error('a backup that is no dry run makes a point');
  return point;
}

/** The pack of a point's run that holds chunks, which is the larger one. */
async function dataPackOf(repository: Repository, { run }: PointObject): Promise<string> {
  const packs = (await repository.packs()).filter((pack) => pack.startsWith(run));
  const sizes = await Promise.all(
    packs.map((pack) => stat(path.join(repository.path, packFile(pack))).then(({ size }) => size)),
  );
  return packs[sizes.indexOf(Math.max(...sizes))] as string;
}

const fileOf = (repository: Repository, pack: string) => path.join(repository.path, packFile(pack));

async function restored(repository: Repository, point: PointObject): Promise<Buffer> {
  const to = path.join(await temporaryFolder(), 'back.raw');
  await restore(repository, { point: point.id, to });
  return readFile(to);
}

describe('scrub', () => {
  test('reads every pack of a sound repository once, and notes when', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(2 * MIB));
    await backUp(repository, randomContent(2 * MIB), 'db');
    const before = Date.now();
    const result = await scrub(repository);
    expect(result).toMatchObject({ problems: [], problemCount: 0, packs: 4, packsLeft: 0 });
    expect(result).toMatchObject({ points: 2, healed: 0, lifted: 0 });
    expect(result.packBytes).toBeGreaterThan(4 * MIB);
    const times = await readCheckTimes(repository);
    for (const pack of await repository.packs()) {
      expect(times.get(pack)).toBeGreaterThanOrEqual(before);
      expect(times.get(pack)).toBeLessThanOrEqual(Date.now());
    }
    expect(await repository.listIds('damage')).toEqual([]);
    expect((await verify(repository)).problems).toEqual([]);
  });

  test('names a damaged chunk with what it costs; the next backup heals it and prune clears it away', async () => {
    const repository = await newRepository();
    const content = Buffer.concat([Buffer.alloc(3 * MIB), randomContent(2 * MIB)]);
    const old = await backUp(repository, content);
    const other = await backUp(repository, randomContent(MIB), 'db');
    const pack = await dataPackOf(repository, old);
    await flipBit(fileOf(repository, pack), MIB, 3);

    const found = await scrub(repository);
    const [bad] = found.problems.filter(({ id }) => id !== undefined);
    expect(bad).toMatchObject({ code: 'ERR_CORRUPT_CHUNK', pack, healed: false });
    expect(bad?.points).toEqual([old.id]);
    expect(bad?.losses).toMatchObject([
      { point: old.id, vm: 'web', disk: old.disks[0]?.name, rangeCount: 1 },
    ]);
    const [loss] = bad?.losses ?? [];
    const [offset, length] = loss?.ranges[0] ?? [0, 0];
    expect(length).toBe(loss?.bytes);
    expect(offset).toBeGreaterThanOrEqual(3 * MIB);
    expect(offset + length).toBeLessThanOrEqual(5 * MIB);
    expect(bad?.offset).toBeLessThanOrEqual(MIB);

    // From now on it is known without reading: to verify, and to backups.
    const known = await verify(repository, { points: [old.id] });
    expect(known.problems).toMatchObject([{ id: bad?.id, points: [old.id] }]);
    expect((await verify(repository, { points: [other.id] })).problems).toEqual([]);
    expect(await codeOf(() => restored(repository, old))).toBe('ERR_CORRUPT_CHUNK');
    // Nothing else has the content: prune leaves what there is of it.
    expect(await prune(repository)).toMatchObject({ deleted: 0, damaged: [] });

    const disk = await rawDisk(content);
    const again = await backup(repository, { vm: 'web', disks: [disk], codec: 'raw' });
    expect(again.summary.newBytes).toBe(length);
    expect((await restored(repository, old)).equals(content)).toBe(true);
    const healed = await verify(repository, { points: [old.id], readData: true });
    expect(healed.problems).toEqual([]);
    expect(healed.healed).toBeGreaterThan(0);
    const scrubbed = await scrub(repository);
    expect(scrubbed).toMatchObject({ problems: [], problemCount: 0 });
    expect(scrubbed.healed).toBeGreaterThan(0);

    await prune(repository);
    expect(await repository.packs()).not.toContain(pack);
    expect(await repository.listIds('damage')).toEqual([]);
    const clean = await verify(repository, { readData: true });
    expect(clean).toMatchObject({ problems: [], healed: 0 });
    expect((await restored(repository, old)).equals(content)).toBe(true);
  });

  test('a damaged map object is named with the disk that needs it, and healed as well', async () => {
    const repository = await newRepository();
    const content = randomContent(2 * MIB);
    const point = await backUp(repository, content);
    const data = await dataPackOf(repository, point);
    const map = (await repository.packs()).find((pack) => pack !== data) as string;
    // The first record of the pack begins after the stripe's header.
    await flipBit(fileOf(repository, map), 64 + 64 + 5, 0);
    const found = await scrub(repository);
    expect(found.problems.flatMap(({ points }) => points)).toContain(point.id);
    expect(found.problems.flatMap(({ losses }) => losses ?? [])).not.toEqual([]);
    await backUp(repository, content);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
    expect((await restored(repository, point)).equals(content)).toBe(true);
  });

  test('a copy that is damaged where another is whole costs nothing, but is reported at first', async () => {
    const repository = await newRepository();
    const content = randomContent(MIB);
    const point = await backUp(repository, content);
    const pack = await dataPackOf(repository, point);
    const mend = await flipBit(fileOf(repository, pack), MIB / 2, 0);
    await scrub(repository);
    const second = await backUp(repository, content);
    await mend();
    // Sound again, as after the repair of a device: what was said of it is taken back.
    expect(await scrub(repository)).toMatchObject({ problems: [], lifted: 1 });
    expect(await repository.listIds('damage')).toEqual([]);
    await flipBit(fileOf(repository, await dataPackOf(repository, second)), 1000, 0);
    const found = await scrub(repository);
    expect(found.problemCount).toBeGreaterThan(0);
    expect(found.problems.filter(({ id }) => id !== undefined)).toMatchObject([{ healed: true }]);
    expect(found.problems.flatMap(({ points }) => points)).toEqual([]);
    expect((await restored(repository, point)).equals(content)).toBe(true);
  });

  test('a pack that was cut short is lost where it ends, and healed', async () => {
    const repository = await newRepository();
    const content = randomContent(2 * MIB);
    const point = await backUp(repository, content);
    const pack = await dataPackOf(repository, point);
    await truncate(fileOf(repository, pack), MIB);
    const found = await scrub(repository);
    const lost = found.problems.flatMap(({ losses }) => losses ?? []);
    const bytes = lost.reduce((total, loss) => total + loss.bytes, 0);
    expect(bytes).toBeGreaterThan(0.9 * MIB);
    expect(bytes).toBeLessThan(1.5 * MIB);
    const again = await backup(repository, { disks: [await rawDisk(content)], codec: 'raw' });
    expect(again.summary.newBytes).toBe(bytes);
    expect((await restored(repository, point)).equals(content)).toBe(true);
    await prune(repository);
    expect(await repository.packs()).not.toContain(pack);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
    expect((await restored(repository, point)).equals(content)).toBe(true);
  });

  test('reads those first that were never read, then those that were longest not read', async () => {
    const repository = await newRepository();
    const points = [];
    for (const vm of ['a', 'b', 'c']) points.push(await backUp(repository, randomContent(MIB), vm));
    const runs = points.map(({ run }) => run);
    const packsOf = async (run: string | undefined) =>
      (await repository.packs()).filter((pack) => pack.startsWith(run as string));
    const now = Date.now();
    const times = await readCheckTimes(repository);
    await recordChecks(repository, times, await packsOf(runs[0]), now - 5 * HOUR_MS);
    await recordChecks(repository, times, await packsOf(runs[1]), now - 50 * HOUR_MS);
    const turn = (pack: string) => [runs[2], runs[1], runs[0]].indexOf(pack.slice(0, 32));
    const left = new Set(await repository.packs());
    for (let round = 1; left.size > 0; round++) {
      // A millisecond: one pack, or the second of the two that were read so long ago as well.
      const result = await scrub(repository, { forMs: 1, tuning: { workers: 1 } });
      const fresh = await readCheckTimes(repository);
      const read = [...left].filter((pack) => (fresh.get(pack) ?? 0) >= now);
      expect(read.length).toBeGreaterThan(0);
      for (const pack of read) left.delete(pack);
      for (const pack of left) {
        expect(turn(pack)).toBeGreaterThanOrEqual(Math.max(...read.map(turn)));
      }
      if (left.size > 0)
        expect(result).toMatchObject({ packs: read.length, packsLeft: 6 - read.length });
      expect(round).toBeLessThan(7);
    }
  });

  test('believes no time that lies ahead, and a lost record costs an earlier reading alone', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(MIB));
    const packs = await repository.packs();
    const times = await readCheckTimes(repository);
    await recordChecks(repository, times, packs, Date.now() + 1000 * HOUR_MS);
    const fresh = await readCheckTimes(repository);
    expect(packs.map((pack) => fresh.get(pack))).toEqual([undefined, undefined]);
    expect(await scrub(repository)).toMatchObject({ packs: 2 });
    const after = await readCheckTimes(repository);
    for (const pack of packs) expect(after.get(pack)).toBeLessThanOrEqual(Date.now());
    for (const id of await repository.listIds('checks')) {
      await flipBit(path.join(repository.path, 'checks', id), 100, 0);
    }
    const found = await scrub(repository);
    expect(found.packs).toBe(2);
    expect(found.problems.map(({ code }) => code)).toEqual([
      'ERR_CORRUPT_OBJECT',
      'ERR_CORRUPT_OBJECT',
    ]);
  });

  test('two at once check everything, and each pack is noted', async () => {
    const repository = await newRepository();
    for (const vm of ['a', 'b', 'c', 'd']) await backUp(repository, randomContent(MIB), vm);
    const results = await Promise.all([scrub(repository), scrub(repository)]);
    for (const result of results) expect(result).toMatchObject({ problems: [], packsLeft: 0 });
    const times = await readCheckTimes(repository);
    for (const pack of await repository.packs()) expect(times.get(pack)).toBeDefined();
  });

  test('what was read before it is stopped stays read', async () => {
    const repository = await newRepository();
    for (const vm of 'abcdefgh') await backUp(repository, randomContent(MIB / 2), vm);
    const controller = new AbortController();
    const run = scrub(repository, {
      signal: controller.signal,
      // Each pack of chunks costs the ones after it four seconds.
      tuning: { workers: 1, bytesPerSecond: MIB / 8 },
      progressIntervalMs: 10,
      onProgress: ({ doneBytes }) => {
        if (doneBytes >= MIB / 2) controller.abort();
      },
    });
    expect(await codeOf(() => run)).toBe('ERR_ABORTED');
    const times = await readCheckTimes(repository);
    const read = (await repository.packs()).filter((pack) => times.get(pack) !== undefined);
    expect(read.length).toBeGreaterThan(0);
    expect(read.length).toBeLessThan(16);
  });

  test('keeps to its rate', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(4 * MIB));
    const begun = performance.now();
    await scrub(repository, { tuning: { bytesPerSecond: 4 * MIB } });
    expect(performance.now() - begun).toBeGreaterThan(400);
  });

  test('finds an index run that is whole and leads to the wrong place', async () => {
    const repository = await newRepository();
    const content = randomContent(MIB);
    const point = await backUp(repository, content);
    const [run] = await repository.indexRuns();
    const file = path.join(repository.path, 'index', run as string);
    const bytes = await readFile(file);
    const entries = Number(bytes.readBigUInt64LE(40));
    // Two entries of chunks, which have class 1, change places: of those at the pack's beginning, where each fits into the other's.
    const count = Number(bytes.readBigUInt64LE(16));
    const rows = Array.from({ length: count }, (_, row) => entries + row * 48);
    const offsets = rows
      .filter((row) => bytes.readUInt8(row + 47) === 1)
      .map((row) => row + 36)
      .sort((first, second) => bytes.readUInt32LE(first) - bytes.readUInt32LE(second));
    const [a, b] = offsets.map((at) => bytes.readUInt32LE(at)) as [number, number];
    bytes.writeUInt32LE(b, offsets[0] as number);
    bytes.writeUInt32LE(a, offsets[1] as number);
    const hashed = loadEngine().blake3(null, bytes.subarray(0, -32));
    Buffer.from(hashed).copy(bytes, bytes.length - 32);
    await rm(file);
    await writeFile(file, bytes);
    expect((await verify(repository)).problems).toEqual([]);
    const found = await scrub(repository);
    expect(found.problems.map(({ code }) => code)).toEqual(
      expect.arrayContaining(['ERR_CORRUPT_INDEX', 'ERR_CORRUPT_INDEX']),
    );
    expect(found.problems.every(({ points }) => points.includes(point.id))).toBe(true);
    await backUp(repository, content);
    expect((await restored(repository, point)).equals(content)).toBe(true);
  });

  test('many records of checks become one, and prune forgets those of packs that are gone', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    for (let i = 0; i < 12; i++) await scrub(repository, { forMs: 1 });
    expect((await repository.listIds('checks')).length).toBeLessThan(9);
    await repository.removePoint(point.id);
    await prune(repository);
    expect(await repository.packs()).toEqual([]);
    expect(await repository.listIds('checks')).toEqual([]);
  });
});
