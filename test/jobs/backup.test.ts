import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { repairIndex } from '../../src/jobs/repair.js';
import { restore } from '../../src/jobs/restore.js';
import type { Progress } from '../../src/jobs/run.js';
import { verify } from '../../src/jobs/verify.js';
import type { ChunkingObject } from '../../src/repository/format/objects.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { filesOf, imageOf, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { encodeDisk, keysOf, makeContent, randomContent, writePoint } from '../helpers/writer.js';

const MIB = 1024 * 1024;

async function rescued(repositoryPath: string, point = 'latest'): Promise<Buffer> {
  const to = path.join(await temporaryFolder(), 'rescued.raw');
  await using rescue = await Rescue.open(repositoryPath);
  await rescue.restore({ point, to });
  return readFile(to);
}

const contentArbitrary = fc.record({
  pages: fc.integer({ min: 0, max: 6000 }),
  seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  tailBytes: fc.constantFrom(0, 512),
});

describe('the engine and the TypeScript implementation of the format', () => {
  test('give a disk the same root, in every chunking', async () => {
    const chunkings = [
      { scheme: 'content' },
      { scheme: 'content', minBytes: 4096, averageBytes: 8192, maxBytes: 32768 },
      { scheme: 'content', minBytes: 16384, averageBytes: 16384, maxBytes: 8 * MIB },
      { scheme: 'fixed', chunkBytes: 65536 },
      { scheme: 'fixed', chunkBytes: 8 * MIB },
    ] as const;
    await fc.assert(
      fc.asyncProperty(
        contentArbitrary,
        fc.constantFrom(...chunkings),
        async ({ pages, seed, tailBytes }, chunking) => {
          const repository = await newRepository({ chunking });
          const content = makeContent(pages + 1, seed, tailBytes);
          const expected: ChunkingObject = repository.config.chunking;
          const { root, dataPages } = encodeDisk(content, expected, keysOf(repository));
          const result = await backup(repository, {
            disks: [await rawDisk(content)],
            dryRun: true,
          });
          expect(result.disks[0]?.root).toBe(root);
          expect(result.disks[0]?.dataBytes).toBe(dataPages * 4096);
        },
      ),
      { numRuns: 20 },
    );
  }, 300_000);

  test('read what the other has written: rescue gives back what the engine stored', async () => {
    await fc.assert(
      fc.asyncProperty(
        contentArbitrary,
        fc.constantFrom('raw' as const, 'lz4' as const, 'zstd' as const),
        async ({ pages, seed, tailBytes }, codec) => {
          const repository = await newRepository();
          const content = makeContent(pages + 1, seed, tailBytes);
          await backup(repository, { disks: [await rawDisk(content)], codec });
          expect((await rescued(repository.path)).equals(content)).toBe(true);
        },
      ),
      { numRuns: 9 },
    );
  });

  test('and the engine restores what was written without it, once the index is made', async () => {
    const repository = await newRepository();
    const content = makeContent(5000, 77, 512);
    await writePoint(repository, content);
    const to = path.join(await temporaryFolder(), 'disk.raw');
    expect(await codeOf(() => restore(repository, { point: 'latest', to }))).toBe(
      'ERR_CHUNK_MISSING',
    );
    const repaired = await repairIndex(repository);
    expect(repaired.problems).toEqual([]);
    expect(repaired.packs).toBe(3);
    await restore(repository, { point: 'latest', to });
    expect((await readFile(to)).equals(content)).toBe(true);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
    // And dedups against it: nothing of the same disk is new.
    const again = await backup(repository, { disks: [await rawDisk(content)] });
    expect(again.summary.newBytes).toBe(0);
  });
});

describe('backup', () => {
  test('the same content again stores nothing, and has the same root in any image format', async () => {
    const repository = await newRepository();
    const content = makeContent(4096, 5);
    const first = await backup(repository, { disks: [await rawDisk(content)] });
    const image = await imageOf(content, 'disk.vhdx');
    const second = await backup(repository, { disks: [image] });
    expect(second.disks[0]?.root).toBe(first.disks[0]?.root);
    expect(second.summary.newBytes).toBe(0);
    expect(second.summary.storedBytes).toBe(0);
    expect(second.summary.totalRatio).toBeUndefined();
    expect(await repository.points()).toHaveLength(2);
    expect((await verify(repository)).problems).toEqual([]);
  });

  test('a small change stores little', async () => {
    const repository = await newRepository();
    const content = Buffer.concat([randomContent(20 * MIB)]);
    await backup(repository, { disks: [await rawDisk(content)] });
    randomContent(4096).copy(content, 7 * MIB);
    const changed = await backup(repository, { disks: [await rawDisk(content)] });
    expect(changed.summary.newBytes).toBeGreaterThan(0);
    expect(changed.summary.newBytes).toBeLessThan(MIB);
    expect((await rescued(repository.path, changed.point?.id)).equals(content)).toBe(true);
  });

  test('several disks are one point, with names of their own', async () => {
    const repository = await newRepository();
    const disks = [
      await rawDisk(makeContent(100, 1), 'web.raw'),
      await rawDisk(makeContent(200, 2), 'web.raw'),
      { path: await rawDisk(makeContent(300, 3), 'x.raw'), name: 'data' },
      await rawDisk(makeContent(10, 4), 'a:b*c..raw'),
    ];
    const { point } = await backup(repository, { disks });
    expect(point?.vm.name).toBe('web');
    expect(point?.disks.map((disk) => disk.name)).toEqual(['web', 'web-2', 'data', 'a_b_c']);
    expect(point?.consistency).toBe('crash');
    expect(await repository.points()).toEqual([point]);
  });

  test('a dry run computes the roots and writes nothing at all', async () => {
    const repository = await newRepository();
    const before = await filesOf(repository);
    const disks = [await rawDisk(makeContent(1000, 8))];
    const dry = await backup(repository, { disks, dryRun: true });
    expect(dry.point).toBeUndefined();
    expect(await filesOf(repository)).toEqual(before);
    expect((await readdir(repository.path)).some((name) => name.startsWith('.'))).toBe(false);
    const wet = await backup(repository, { disks });
    expect(wet.disks).toEqual(dry.disks);
  });

  test('the account of it adds up', async () => {
    const repository = await newRepository();
    const half = makeContent(2048, 9);
    const content = Buffer.concat([half, half, Buffer.alloc(8 * MIB)]);
    const { summary } = await backup(repository, { disks: [await rawDisk(content)], vm: 'db' });
    const { dataBytes, newBytes, storedBytes, sizeBytes } = summary;
    expect(sizeBytes).toBe(24 * MIB);
    expect(dataBytes).toBeLessThan(16 * MIB);
    expect(newBytes * 2).toBeLessThanOrEqual(dataBytes);
    expect(summary.dedupRatio).toBeCloseTo(dataBytes / newBytes);
    expect(summary.compressionRatio).toBeCloseTo(newBytes / storedBytes);
    expect(summary.totalRatio).toBeCloseTo(dataBytes / storedBytes);
    expect(summary.bytesPerSecond).toBeGreaterThan(0);
    expect(summary.stats.phase).toBe('done');
  });

  test('reports progress to a callback and to a loop, and the loop ends with it', async () => {
    const repository = await newRepository();
    const seen: Progress[] = [];
    const run = backup(repository, {
      disks: [await rawDisk(randomContent(30 * MIB))],
      onProgress: (progress) => seen.push(progress),
      progressIntervalMs: 5,
    });
    let looped = 0;
    for await (const progress of run) {
      looped++;
      expect(progress.doneBytes).toBeLessThanOrEqual(progress.totalBytes);
    }
    const { summary } = await run;
    expect(looped).toBeGreaterThan(0);
    expect(seen.at(-1)).toMatchObject({ phase: 'done', doneBytes: summary.stats.doneBytes });
  });

  test('a loop over a failing run throws what the run rejects with', async () => {
    const repository = await newRepository();
    const run = backup(repository, { disks: ['/nowhere/disk.raw'] });
    const looping = async () => {
      for await (const _ of run);
    };
    expect(await codeOf(looping)).toBe('ERR_NOT_FOUND');
    expect(await codeOf(() => run)).toBe('ERR_NOT_FOUND');
  });

  test('a run that is stopped leaves no point, and the next one works', async () => {
    const repository = await newRepository();
    const content = randomContent(200 * MIB);
    const disks = [await rawDisk(content)];
    const controller = new AbortController();
    const stopped = () =>
      backup(repository, {
        disks,
        signal: controller.signal,
        progressIntervalMs: 1,
        onProgress: () => controller.abort(new Error('enough')),
      });
    expect(await codeOf(stopped)).toBe('ERR_ABORTED');
    expect(await repository.listIds('points')).toEqual([]);
    expect(await repository.listIds('pending')).toEqual([]);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
    await backup(repository, { disks });
    expect((await rescued(repository.path)).equals(content)).toBe(true);
  });

  test('a signal that has fired already starts nothing', async () => {
    const repository = await newRepository();
    const signal = AbortSignal.abort();
    expect(await codeOf(() => backup(repository, { disks: ['x'], signal }))).toBe('ERR_ABORTED');
  });

  test('a progress callback that throws stops the run with that error', async () => {
    const repository = await newRepository();
    const failure = new Error('the screen is gone');
    const run = backup(repository, {
      disks: [await rawDisk(randomContent(50 * MIB))],
      progressIntervalMs: 1,
      onProgress: () => {
        throw failure;
      },
    });
    await expect(run).rejects.toBe(failure);
    expect(await repository.points()).toEqual([]);
  });

  test('one disk that cannot be read fails the whole point', async () => {
    const repository = await newRepository();
    const bad = path.join(await temporaryFolder(), 'bad.vhdx');
    await writeFile(bad, Buffer.alloc(MIB, 'no disk'));
    const disks = [await rawDisk(makeContent(10, 1)), bad];
    expect(await codeOf(() => backup(repository, { disks }))).toBe('ERR_DISK_INVALID');
    expect(await repository.points()).toEqual([]);
  });

  test('options that make no sense are refused before anything is read', async () => {
    const repository = await newRepository();
    const disk = '/nowhere/disk.raw';
    const bad = [
      { disks: [] },
      { disks: [{ path: disk, name: '../x' }] },
      {
        disks: [
          { path: disk, name: 'a' },
          { path: disk, name: 'A' },
        ],
      },
      { disks: [disk], vm: '' },
      { disks: [disk], codec: 'zip' as 'raw' },
      { disks: [disk], codec: 'zstd' as const, level: 99 },
      { disks: [disk], tuning: { memoryBytes: 1 } },
    ];
    for (const options of bad) {
      expect(await codeOf(() => backup(repository, options))).toBe('ERR_INVALID_ARGUMENT');
    }
  });

  test('backups at one time into one repository all come back', async () => {
    const repository = await newRepository();
    const shared = randomContent(8 * MIB);
    const contents = [1, 2, 3].map((seed) => Buffer.concat([shared, makeContent(1500, seed)]));
    const points = await Promise.all(
      contents.map(async (content, index) => {
        const disks = [await rawDisk(content)];
        return (await backup(repository, { disks, vm: `vm ${index}` })).point;
      }),
    );
    for (const [index, point] of points.entries()) {
      expect((await rescued(repository.path, point?.id)).equals(contents[index] as Buffer)).toBe(
        true,
      );
    }
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  });
});

test.skipIf(process.platform !== 'linux')(
  'lets go of the mapped index when it ends, not when its objects are collected as garbage',
  async () => {
    const repository = await newRepository();
    for (let day = 0; day < 3; day++) {
      await backup(repository, { disks: [await rawDisk(randomContent(MIB))] });
    }
    const maps = await readFile('/proc/self/maps', 'utf8');
    expect(maps.split('\n').filter((line) => line.includes(repository.path))).toEqual([]);
  },
);
