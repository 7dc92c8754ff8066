import { readFile, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { repairIndex } from '../../src/jobs/repair.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { newId } from '../../src/repository/format/names.js';
import type { Repository } from '../../src/repository/repository.js';
import { condemn } from '../helpers/collector.js';
import { filesOf, flipBit, imageOf, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 1024 * 1024;

async function smallRepository(): Promise<{ repository: Repository; ids: string[] }> {
  const repository = await newRepository();
  const ids: string[] = [];
  for (const seed of [1, 2]) {
    const disks = [await rawDisk(makeContent(150, seed))];
    const { point } = await backup(repository, { disks, codec: seed === 1 ? 'lz4' : 'zstd' });
    ids.push(point?.id as string);
  }
  return { repository, ids };
}

const packsIn = async (repository: Repository) =>
  (await filesOf(repository)).filter((name) => name.startsWith('packs/'));

describe('verify', () => {
  test('finds nothing wrong with a sound repository, and says what it looked at', async () => {
    const { repository } = await smallRepository();
    const result = await verify(repository, { readData: true });
    expect(result.problems).toEqual([]);
    expect(result.problemCount).toBe(0);
    expect(result).toMatchObject({ points: 2, objects: 3, packs: 4 });
    expect(result.chunks).toBeGreaterThan(2);
    const one = await verify(repository, { points: ['latest'] });
    expect(one).toMatchObject({ points: 1, packs: 0 });
  });

  test('reports every flipped bit of every file', async () => {
    const { repository } = await smallRepository();
    await condemn(repository, [`${newId()}/0000-00000000`]);
    const pending = { ...(await repository.resolvePoint('latest')), id: newId() };
    await repository.writePending(pending);
    await repository.moveGeneration();
    const files = [...(await filesOf(repository)), 'generation'];
    expect(new Set(files.map((name) => name.split('/')[0])).size).toBe(7);
    await fc.assert(
      fc.asyncProperty(fc.nat(files.length - 1), fc.nat(), fc.nat(7), async (which, place, bit) => {
        const name = files[which] as string;
        const mend = await flipBit(path.join(repository.path, name), place, bit);
        try {
          const { problems, problemCount } = await verify(repository, { readData: true });
          expect(problemCount, name).toBeGreaterThan(0);
          expect(
            problems.some((problem) => problem.object === name),
            name,
          ).toBe(true);
        } finally {
          await mend();
        }
      }),
      { numRuns: 250 },
    );
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  }, 300_000);

  test('a damaged condemned set stops backups, which must know it, and not restores', async () => {
    const { repository } = await smallRepository();
    const id = await condemn(repository, [`${newId()}/0000-00000000`]);
    await flipBit(path.join(repository.path, 'condemned', id), 80, 0);
    const disks = [await rawDisk(makeContent(10, 1))];
    expect(await codeOf(() => backup(repository, { disks }))).toBe('ERR_CORRUPT_OBJECT');
    await restore(repository, { point: 'latest', to: await temporaryFolder() });
    expect((await verify(repository)).problems).toMatchObject([{ object: `condemned/${id}` }]);
  });

  test('a damaged generation is reported, and stops neither backups nor restores', async () => {
    const { repository } = await smallRepository();
    await repository.moveGeneration();
    await flipBit(path.join(repository.path, 'generation'), 80, 0);
    const { attempts } = await backup(repository, { disks: [await rawDisk(makeContent(10, 1))] });
    expect(attempts).toBe(1);
    await restore(repository, { point: 'latest', to: await temporaryFolder() });
    expect((await verify(repository)).problems).toMatchObject([{ object: 'generation' }]);
  });

  test('reports every file that is cut short, by one byte or to nothing', async () => {
    const { repository } = await smallRepository();
    for (const name of (await filesOf(repository)).slice(1)) {
      const file = path.join(repository.path, name);
      const whole = await readFile(file);
      for (const length of [0, Math.floor(whole.length / 2), whole.length - 1]) {
        await truncate(file, length);
        const { problems } = await verify(repository, { readData: true });
        expect(
          problems.some((problem) => problem.object === name),
          `${name} ${length}`,
        ).toBe(true);
        await writeFile(file, whole);
      }
    }
  });

  test('says which points a damaged pack touches', async () => {
    const repository = await newRepository();
    const shared = randomContent(2 * MIB);
    const ids: string[] = [];
    for (const own of [1, 2]) {
      const content = Buffer.concat([shared, Buffer.alloc(8 * MIB), randomContent(own * MIB)]);
      const { point } = await backup(repository, { disks: [await rawDisk(content)] });
      ids.push(point?.id as string);
    }
    const { run } = await repository.readPoint(ids[0] as string);
    const [first, both] = [[ids[0]], [...ids].sort()];
    const touched: (string | undefined)[][] = [];
    // Which worker wrote what both rely on is chance, so each pack is damaged in turn.
    for (const name of (await packsIn(repository)).filter((each) => each.includes(run))) {
      const mend = await flipBit(path.join(repository.path, name), 3000, 0);
      const { problems } = await verify(repository, { readData: true });
      await mend();
      touched.push([...new Set(problems.flatMap((problem) => problem.points))].sort());
    }
    expect(touched).toContainEqual(both);
    for (const points of touched) expect([first, both]).toContainEqual(points);
  });

  test('a missing pack is reported with what needs it, without reading data', async () => {
    const { repository, ids } = await smallRepository();
    const { run } = await repository.readPoint(ids[1] as string);
    const gone = (await packsIn(repository)).filter((name) => name.includes(run));
    for (const name of gone) await rm(path.join(repository.path, name));
    const { problems } = await verify(repository);
    expect(problems.length).toBeGreaterThan(0);
    expect(new Set(problems.flatMap((problem) => problem.points))).toEqual(new Set([ids[1]]));
    const to = await temporaryFolder();
    expect(await codeOf(() => restore(repository, { point: ids[1] as string, to }))).toMatch(
      /^ERR_(CHUNK|PACK)_MISSING$/,
    );
    await restore(repository, { point: ids[0] as string, to });
  });

  test('a point that names a map which is not there is reported', async () => {
    const { repository, ids } = await smallRepository();
    const point = await repository.readPoint(ids[0] as string);
    const disks = point.disks.map((disk) => ({ ...disk, root: 'f'.repeat(64) }));
    const ghost = newId();
    await repository.seal({ ...point, id: ghost, disks });
    const { problems } = await verify(repository);
    expect(problems.map((problem) => problem.points)).toEqual([[ghost]]);
    expect(problems[0]?.code).toBe('ERR_CHUNK_MISSING');
  });

  test('holds a point against its source: the same content, whatever its format', async () => {
    const { repository } = await smallRepository();
    const content = makeContent(150, 2);
    const same = await imageOf(content, 'other.vhdx', {});
    const equal = await verify(repository, { points: ['latest'], source: [same] });
    expect(equal.problems).toEqual([]);
    content[70_000] = (content[70_000] as number) ^ 1;
    const differs = await verify(repository, {
      points: ['latest'],
      source: [await rawDisk(content)],
    });
    expect(differs.problems).toMatchObject([{ code: 'ERR_VERIFY_MISMATCH' }]);
    expect(differs.problemCount).toBe(1);
  });

  test('comparing needs one point and as many disks as it has', async () => {
    const { repository } = await smallRepository();
    const source = [await rawDisk(makeContent(150, 2))];
    expect(await codeOf(() => verify(repository, { source }))).toBe('ERR_INVALID_ARGUMENT');
    const two = [...source, ...source];
    expect(await codeOf(() => verify(repository, { points: ['latest'], source: two }))).toBe(
      'ERR_INVALID_ARGUMENT',
    );
  });
});

describe('repairIndex', () => {
  test('makes a lost or damaged index again, and everything restores', async () => {
    const { repository, ids } = await smallRepository();
    const [first, second] = await repository.indexRuns();
    await rm(path.join(repository.path, 'index', first as string));
    await writeFile(path.join(repository.path, 'index', second as string), 'rubbish');
    const before = await verify(repository);
    expect(before.problems.map((problem) => problem.code)).toContain('ERR_CORRUPT_INDEX');
    const repaired = await repairIndex(repository);
    expect(repaired).toMatchObject({ packs: 4, problems: [], replaced: [second] });
    expect(await repository.indexRuns()).toEqual(repaired.indexRuns);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
    for (const [index, id] of ids.entries()) {
      const to = path.join(await temporaryFolder(), 'x.raw');
      await restore(repository, { point: id, to });
      expect((await readFile(to)).equals(makeContent(150, index + 1))).toBe(true);
    }
  });

  test('a backup after it finds all chunks again', async () => {
    const { repository } = await smallRepository();
    await repairIndex(repository);
    const again = await backup(repository, { disks: [await rawDisk(makeContent(150, 1))] });
    expect(again.summary.newBytes).toBe(0);
  });

  test('a pack without its footer is read by its records, and reported', async () => {
    const { repository, ids } = await smallRepository();
    const file = path.join(repository.path, (await packsIn(repository))[0] as string);
    const whole = await readFile(file);
    await truncate(file, whole.length - 4096);
    const repaired = await repairIndex(repository);
    expect(repaired.problems.length).toBeGreaterThan(0);
    for (const id of ids) await restore(repository, { point: id, to: await temporaryFolder() });
  });

  test('a repository without any pack gets an empty index', async () => {
    const repository = await newRepository();
    const repaired = await repairIndex(repository);
    expect(repaired).toMatchObject({ packs: 0, chunks: 0, problems: [] });
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  });
});
