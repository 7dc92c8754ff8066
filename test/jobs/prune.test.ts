/**
 * Pruning on real repositories with the real engine: what goes, what stays, what it costs, and that no point is ever touched by it.
 *
 * After each prune a verification reads every byte of every pack, so "stays whole" is meant literally.
 */

import { copyFile, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isFirnError } from '../../src/errors.js';
import { backup } from '../../src/jobs/backup.js';
import { type PruneOptions, prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { newId, packFile } from '../../src/repository/format/names.js';
import { Repository } from '../../src/repository/repository.js';
import { filesOf, flipBit, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { wrapStore } from '../helpers/memory-store.js';
import { makeContent, pointFor, randomContent, writePacks, writePoint } from '../helpers/writer.js';

const MIB = 2 ** 20;

async function backUp(repository: Repository, content: Buffer, vm = 'web') {
  const disk = await rawDisk(content);
  const { point } = await backup(repository, { vm, disks: [disk], codec: 'raw' });
  await rm(path.dirname(disk), { recursive: true });
  if (point === undefined) throw new Error('a backup that is no dry run makes a point');
  return point;
}

/** An empty repository with the same keys: it cuts disks as the other does. */
async function twinOf(repository: Repository): Promise<Repository> {
  const { path: folder } = await newRepository();
  await copyFile(path.join(repository.path, 'config'), path.join(folder, 'config'));
  return Repository.open(folder);
}

async function packBytes(repository: Repository): Promise<number> {
  const sizes = (await repository.packs()).map((pack) =>
    stat(path.join(repository.path, packFile(pack))).then(({ size }) => size),
  );
  return (await Promise.all(sizes)).reduce((total, size) => total + size, 0);
}

async function expectWhole(repository: Repository): Promise<void> {
  const result = await verify(repository, { readData: true });
  expect(result.problems).toEqual([]);
}

/** Nothing is there but what the points need. */
async function expectNoGarbage(repository: Repository): Promise<void> {
  const result = await prune(repository, { dryRun: true, maxWaste: 0 });
  expect(result).toMatchObject({ deleted: 0, rescuedBytes: 0 });
  expect(await repository.listIds('condemned')).toEqual([]);
}

describe('prune', () => {
  test('leaves a repository alone in which everything is needed', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(3 * MIB));
    const before = await filesOf(repository);
    expect(await prune(repository)).toMatchObject({ deleted: 0, rescuedPacks: 0, collections: 1 });
    expect(await filesOf(repository)).toEqual(before);
  });

  test('deletes the packs of a forgotten point and what names them, and says what it freed', async () => {
    const repository = await newRepository();
    const kept = await backUp(repository, randomContent(2 * MIB));
    const gone = await backUp(repository, randomContent(5 * MIB), 'old');
    const before = await packBytes(repository);
    await repository.removePoint(gone.id);
    const dry = await prune(repository, { dryRun: true });
    expect(await packBytes(repository)).toBe(before);
    const result = await prune(repository);
    expect(dry).toMatchObject({ deleted: result.deleted, deletedBytes: result.deletedBytes });
    expect(result.deletedBytes).toBe(before - (await packBytes(repository)));
    expect(result.deletedBytes).toBeGreaterThan(5 * MIB);
    expect(result).toMatchObject({ rescuedPacks: 0, spared: 0, indexRunsAfter: 1 });
    await expectWhole(repository);
    await expectNoGarbage(repository);
    expect((await repository.points()).map(({ id }) => id)).toEqual([kept.id]);
    expect(await repository.generation()).not.toBe('');
  });

  test('empties a repository without points', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    await repository.removePoint(point.id);
    await prune(repository);
    expect(await filesOf(repository)).toEqual(['config']);
  });

  test('writes packs again whose waste is more than it may be, and those alone', async () => {
    const repository = await newRepository();
    const shared = randomContent(2 * MIB);
    const first = await backUp(repository, Buffer.concat([shared, randomContent(6 * MIB)]));
    const content = Buffer.concat([shared, Buffer.alloc(6 * MIB)]);
    const second = await backUp(repository, content);
    await repository.removePoint(first.id);
    expect((await prune(repository, { maxWaste: 0.9 })).rescuedPacks).toBe(0);
    const result = await prune(repository);
    expect(result.rescuedPacks).toBeGreaterThan(0);
    expect(result.rescuedBytes).toBeGreaterThan(MIB);
    expect(await packBytes(repository)).toBeLessThan(2.5 * MIB);
    await expectWhole(repository);
    await expectNoGarbage(repository);
    const folder = await temporaryFolder();
    await restore(repository, { point: second.id, to: path.join(folder, 'back.raw') });
    expect((await readFile(path.join(folder, 'back.raw'))).equals(content)).toBe(true);
  });

  test('keeps one copy of what two runs stored', async () => {
    const repository = await newRepository();
    const content = makeContent(2000, 7);
    await writePoint(repository, content);
    await writePoint(repository, content);
    const { indexRuns } = await import('../../src/jobs/repair.js').then(({ repairIndex }) =>
      repairIndex(repository),
    );
    expect(indexRuns).toHaveLength(1);
    const before = await packBytes(repository);
    await prune(repository);
    expect(await packBytes(repository)).toBeLessThan(before * 0.6);
    await expectWhole(repository);
    await expectNoGarbage(repository);
  });

  test('finds in packs that no index run names what a point needs, and saves it', async () => {
    const repository = await newRepository();
    // The second writer of the format writes no index: its map could not even be read.
    const { packs, disk } = await writePoint(repository, makeContent(900, 3));
    expect(await codeOf(() => prune(repository))).toBe('ERR_CHUNK_MISSING');
    expect(await repository.packs()).toEqual([...packs].sort());
    await import('../../src/jobs/repair.js').then(({ repairIndex }) => repairIndex(repository));
    const orphans = await writePacks(repository, disk, newId());
    const result = await prune(repository);
    expect(result.deleted).toBe(orphans.length);
    expect(await repository.packs()).toEqual([...packs].sort());
    await expectWhole(repository);
  });

  test('joins small packs, and merges index runs, when there are many', async () => {
    const repository = await newRepository();
    for (let number = 0; number < 17; number++) await backUp(repository, randomContent(64 * 1024));
    const result = await prune(repository);
    expect(result.packsBefore).toBe(34);
    expect(result.packsAfter).toBe(2);
    expect(result.indexRunsAfter).toBe(1);
    await expectWhole(repository);
    await expectNoGarbage(repository);
  });

  test('spares the data of pending points, and reports them', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    const pending = { ...point, id: newId() };
    await repository.writePending(pending);
    await repository.removePoint(point.id);
    const result = await prune(repository);
    expect(result.deleted).toBe(0);
    expect(result.pending).toMatchObject([{ id: pending.id, vm: 'web', recovery: undefined }]);
    expect(await repository.listIds('pending')).toEqual([pending.id]);
  });

  test('completes a pending point whose data is whole, and discards one whose data is lost', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    const whole = { ...point, id: newId() };
    await repository.removePoint(point.id);
    await repository.writePending(whole);
    await repository.writePending(
      pointFor({ root: 'ab'.repeat(32), dataPages: 0, chunks: [], maps: [] }, 0),
    );
    const result = await prune(repository, { recover: true });
    expect(result.pending.map(({ recovery }) => recovery).sort()).toEqual(['discarded', 'sealed']);
    expect(await repository.listIds('pending')).toEqual([]);
    const points = await repository.points();
    expect(points.map(({ disks }) => disks)).toEqual([point.disks]);
    await expectWhole(repository);
  });

  test('reports unfinished files, and removes them only when asked to', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(MIB));
    const [pack = ''] = await repository.packs();
    const partial = path.join(repository.path, `${packFile(pack)}.partial`);
    await writeFile(partial, 'half');
    expect((await prune(repository)).unfinished).toEqual({ files: 1, bytes: 4 });
    expect((await prune(repository, { recover: true })).unfinished.files).toBe(1);
    expect((await prune(repository)).unfinished).toEqual({ files: 0, bytes: 0 });
    await expectWhole(repository);
  });

  test('leaves no empty folders of runs', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    await repository.removePoint(point.id);
    await prune(repository);
    expect(await readdir(path.join(repository.path, 'packs'))).toEqual([]);
  });

  test('clears away the pending point of a run that died just after its seal', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(MIB));
    await repository.writePending(point);
    expect((await prune(repository)).pending).toEqual([]);
    expect(await repository.listIds('pending')).toEqual([]);
    expect(await repository.points()).toHaveLength(1);
  });

  test('finishes what a dead collector had condemned, and lifts its set', async () => {
    const repository = await newRepository();
    const point = await backUp(repository, randomContent(2 * MIB));
    const dead = await backUp(repository, randomContent(MIB), 'old');
    await repository.removePoint(dead.id);
    await repository.condemn(await repository.packs());
    const result = await prune(repository);
    expect(result.finishedSets).toBe(1);
    expect(await repository.listIds('condemned')).toEqual([]);
    expect((await repository.points()).map(({ id }) => id)).toEqual([point.id]);
    await expectWhole(repository);
    await expectNoGarbage(repository);
  });
});

describe('prune does not make damage worse', () => {
  test('with a point that is not whole it deletes nothing', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(MIB));
    const gone = await backUp(repository, randomContent(MIB));
    await repository.removePoint(gone.id);
    await repository.seal(
      pointFor({ root: 'cd'.repeat(32), dataPages: 0, chunks: [], maps: [] }, 0),
    );
    const before = await filesOf(repository);
    expect(await codeOf(() => prune(repository))).toBe('ERR_CHUNK_MISSING');
    expect(await filesOf(repository)).toEqual(before);
  });

  test('with an index run that is not what its hash says it deletes nothing', async () => {
    const repository = await newRepository();
    await backUp(repository, randomContent(MIB));
    const gone = await backUp(repository, randomContent(MIB));
    await repository.removePoint(gone.id);
    const [name = ''] = await repository.indexRuns();
    const file = path.join(repository.path, 'index', name);
    await flipBit(file, (await stat(file)).size - 60, 3);
    const before = await filesOf(repository);
    expect(await codeOf(() => prune(repository))).toBe('ERR_CORRUPT_INDEX');
    expect(await filesOf(repository)).toEqual(before);
  });

  test('a damaged record that is needed keeps its pack, and is reported', async () => {
    const repository = await newRepository();
    const shared = randomContent(MIB);
    const first = await backUp(repository, Buffer.concat([shared, randomContent(3 * MIB)]));
    await backUp(repository, Buffer.concat([shared, Buffer.alloc(3 * MIB)]));
    await repository.removePoint(first.id);
    const sizes = await Promise.all(
      (await repository.packs()).map(async (pack) => {
        const file = path.join(repository.path, packFile(pack));
        return { pack, file, size: (await stat(file)).size };
      }),
    );
    const { pack, file } = sizes.sort((a, b) => b.size - a.size)[0] as (typeof sizes)[0];
    // The shared data came first, and is in one of the first records of the pack.
    const heal = await flipBit(file, 200_000, 1);
    const result = await prune(repository);
    expect(result.damaged).toMatchObject([{ pack, code: 'ERR_CORRUPT_CHUNK' }]);
    expect(await repository.packs()).toContain(pack);
    await heal();
    await expectWhole(repository);
    await prune(repository);
    expect(await repository.packs()).not.toContain(pack);
    await expectWhole(repository);
    await expectNoGarbage(repository);
  });

  test('a store that fails at any step leaves every point whole, and the next prune does the rest', async () => {
    let failed = 0;
    for (let failAt = 0; ; failAt++) {
      const sound = await newRepository();
      const shared = randomContent(256 * 1024);
      const first = await backUp(sound, Buffer.concat([shared, randomContent(512 * 1024)]));
      await backUp(sound, shared);
      await sound.removePoint(first.id);
      let step = -1;
      const store = wrapStore(sound.store, async (_method, _name, call) => {
        step++;
        // Half of the failures come after their effect.
        if (step !== failAt) return call();
        if (failAt % 2 === 1) await call().catch(() => {});
        throw Object.assign(new Error('the cable was pulled'), { code: 'EIO' });
      });
      const repository = await Repository.open(sound.path, store).catch(() => undefined);
      const outcome = await (repository && prune(repository))?.then(
        () => 'done',
        () => 'failed',
      );
      await expectWhole(sound);
      await prune(sound);
      await expectWhole(sound);
      await expectNoGarbage(sound);
      if (outcome === 'done') break;
      failed++;
    }
    expect(failed).toBeGreaterThan(15);
  }, 300_000);
});

describe('prune that is cancelled', () => {
  test('at any step leaves every point whole, no condemned set that stands in the way, and the next does the rest', async () => {
    let aborted = 0;
    for (let abortAt = 1; ; abortAt += 2) {
      const sound = await newRepository();
      const shared = randomContent(256 * 1024);
      const first = await backUp(sound, Buffer.concat([shared, randomContent(512 * 1024)]));
      await backUp(sound, shared);
      await sound.removePoint(first.id);
      const controller = new AbortController();
      let step = -1;
      let deleting = false;
      const store = wrapStore(sound.store, async (method, name, call) => {
        if (++step === abortAt) controller.abort();
        if (method === 'delete' && name.startsWith('packs/')) deleting = true;
        return call();
      });
      const repository = await Repository.open(sound.path, store);
      const outcome = await prune(repository, { signal: controller.signal }).then(
        () => 'done',
        (error: unknown) => (isFirnError(error) ? error.code : String(error)),
      );
      if (outcome !== 'done') {
        expect(outcome).toBe('ERR_ABORTED');
        // What has begun to delete is carried through.
        expect(deleting).toBe(false);
        expect(await sound.listIds('condemned')).toEqual([]);
        aborted++;
      }
      await expectWhole(sound);
      await prune(sound);
      await expectWhole(sound);
      await expectNoGarbage(sound);
      if (step < abortAt) break;
    }
    expect(aborted).toBeGreaterThan(5);
  }, 300_000);
});

describe('prune after any history', () => {
  test('keeps every root whole, and leaves about what a new repository of the same points would have', async () => {
    const options: PruneOptions[] = [{}, { maxWaste: 0 }, { maxWaste: 0.5 }];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.boolean()), {
          minLength: 2,
          maxLength: 6,
        }),
        fc.constantFrom(...options),
        async (steps, how) => {
          const repository = await newRepository();
          const kept: Buffer[] = [];
          for (const [seed, keeps] of steps) {
            // Neighbours share content: a part of each disk is the same.
            const content = Buffer.concat([makeContent(300, seed), makeContent(500, seed + 1)]);
            const point = await backUp(repository, content);
            if (keeps) kept.push(content);
            else await repository.removePoint(point.id);
            if (seed % 3 === 0) await prune(repository, how);
          }
          const roots = (await repository.points()).map(({ disks }) => disks[0]?.root);
          await prune(repository, { ...how, maxWaste: 0 });
          await expectWhole(repository);
          await expectNoGarbage(repository);
          expect((await repository.points()).map(({ disks }) => disks[0]?.root)).toEqual(roots);
          const fresh = await twinOf(repository);
          for (const content of kept) await backUp(fresh, content);
          const pages = 4096 * 4 * (2 * (await repository.packs()).length + 2);
          expect(await packBytes(repository)).toBeLessThan((await packBytes(fresh)) + pages);
        },
      ),
      { numRuns: 12 },
    );
  }, 300_000);
});
