import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { newId } from '../../src/repository/format/names.js';
import { Repository } from '../../src/repository/repository.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { pointFor } from '../helpers/writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };

async function sealPoint(repository: Repository, vm: string, created: string, id = newId()) {
  const point = pointFor(NO_DISK, 0, { id, vm: { name: vm }, created });
  await repository.seal(point);
  return point;
}

describe('creating a repository', () => {
  test('makes its folders and a config that opens as the same repository', async () => {
    const folder = path.join(await temporaryFolder(), 'a', 'b');
    const created = await Repository.create(folder);
    const opened = await Repository.open(folder);
    expect(opened.config).toEqual(created.config);
    expect(opened.config.chunking).toEqual({
      scheme: 'content',
      minPages: 8,
      averagePages: 16,
      maxPages: 64,
    });
    expect((await readdir(folder)).sort()).toEqual([
      'checks',
      'condemned',
      'config',
      'damage',
      'index',
      'keys',
      'labels',
      'packs',
      'pending',
      'points',
    ]);
  });

  test('keeps the chunking it was given', async () => {
    const folder = await temporaryFolder();
    await Repository.create(folder, { chunking: { scheme: 'fixed', chunkBytes: 65536 } });
    const repository = await Repository.open(folder);
    expect(repository.config.chunking).toEqual({ scheme: 'fixed', pages: 16 });
    expect((await repository.view()).native.chunking).toEqual({
      scheme: 'fixed',
      minPages: 16,
      averagePages: 16,
      maxPages: 16,
    });
  });

  test('is refused where one is, or where the folder holds anything else', async () => {
    const folder = await temporaryFolder();
    await Repository.create(folder);
    expect(await codeOf(() => Repository.create(folder))).toBe('ERR_REPOSITORY_EXISTS');
    const other = await temporaryFolder();
    await writeFile(path.join(other, 'holiday.jpg'), '');
    expect(await codeOf(() => Repository.create(other))).toBe('ERR_EXISTS');
  });

  test('is refused over the packs of a repository that has lost its config', async () => {
    const folder = await temporaryFolder();
    await Repository.create(folder);
    await writeFile(path.join(folder, 'packs', 'somebody'), '');
    await rm(path.join(folder, 'config'));
    expect(await codeOf(() => Repository.create(folder))).toBe('ERR_EXISTS');
  });

  test('goes on where an init that died has left folders', async () => {
    const folder = await temporaryFolder();
    await mkdir(path.join(folder, 'packs'));
    await writeFile(path.join(folder, '.tmp-0123'), 'half a config');
    await Repository.create(folder);
    await Repository.open(folder);
  });

  test('of two at a time one alone succeeds, and its repository works', async () => {
    const folder = await temporaryFolder();
    const outcomes = await Promise.allSettled([
      Repository.create(folder),
      Repository.create(folder),
    ]);
    const made = outcomes.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    expect(made).toHaveLength(1);
    expect((await Repository.open(folder)).id).toBe(made[0]?.id);
  });

  test('two repositories never have the same key', async () => {
    const [a, b] = [await temporaryFolder(), await temporaryFolder()];
    expect((await Repository.create(a)).config.idKey).not.toBe(
      (await Repository.create(b)).config.idKey,
    );
  });
});

describe('opening a repository', () => {
  test('a folder without a config is none', async () => {
    const folder = await temporaryFolder();
    expect(await codeOf(() => Repository.open(folder))).toBe('ERR_REPOSITORY_NOT_FOUND');
    expect(await codeOf(() => Repository.open(path.join(folder, 'x')))).toBe(
      'ERR_REPOSITORY_NOT_FOUND',
    );
  });

  test('every flipped bit of the config is found', async () => {
    const folder = await temporaryFolder();
    await Repository.create(folder);
    const file = path.join(folder, 'config');
    const whole = await readFile(file);
    for (let at = 0; at < whole.length; at++) {
      const damaged = Buffer.from(whole);
      damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << (at % 8)), at);
      await writeFile(file, damaged);
      expect(await codeOf(() => Repository.open(folder)), `byte ${at}`).toBe('ERR_CORRUPT_OBJECT');
    }
  });
});

describe('points', () => {
  test('come oldest first, whatever their ids and time zones', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const late = await sealPoint(repository, 'a', '2026-03-01T00:30:00Z', '1'.repeat(32));
    const early = await sealPoint(repository, 'a', '2026-03-01T01:00:00+02:00', '2'.repeat(32));
    expect((await repository.points()).map((point) => point.id)).toEqual([early.id, late.id]);
  });

  test('a damaged one is thrown, or handed over and left out', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const good = await sealPoint(repository, 'a', '2026-03-01T00:00:00Z');
    const bad = await sealPoint(repository, 'a', '2026-03-02T00:00:00Z');
    await writeFile(path.join(repository.path, 'points', bad.id), 'rubbish');
    expect(await codeOf(() => repository.points())).toBe('ERR_CORRUPT_OBJECT');
    const damaged: string[] = [];
    const points = await repository.points((id) => damaged.push(id));
    expect(points.map((point) => point.id)).toEqual([good.id]);
    expect(damaged).toEqual([bad.id]);
  });

  test('a point under another name, or one copied from another repository, is refused', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const other = await Repository.create(await temporaryFolder());
    const point = await sealPoint(repository, 'a', '2026-03-01T00:00:00Z');
    const bytes = await readFile(path.join(repository.path, 'points', point.id));
    const name = newId();
    await writeFile(path.join(repository.path, 'points', name), bytes);
    await writeFile(path.join(other.path, 'points', point.id), bytes);
    expect(await codeOf(() => repository.readPoint(name))).toBe('ERR_CORRUPT_OBJECT');
    expect(await codeOf(() => other.readPoint(point.id))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('pending points are not points', async () => {
    const repository = await Repository.create(await temporaryFolder());
    await repository.writePending(pointFor(NO_DISK, 0));
    expect(await repository.points()).toEqual([]);
    expect(await codeOf(() => repository.resolvePoint('latest'))).toBe('ERR_POINT_NOT_FOUND');
  });
});

describe('selectors', () => {
  const ids = { first: `ab12${'0'.repeat(28)}`, second: `ab13${'0'.repeat(28)}` };

  async function makeRepository(): Promise<Repository> {
    const repository = await Repository.create(await temporaryFolder());
    await sealPoint(repository, 'web', '2026-03-01T00:00:00Z', ids.second);
    await sealPoint(repository, 'db: main', '2026-03-02T00:00:00Z', ids.first);
    return repository;
  }

  test.each([
    [ids.first, ids.first],
    [ids.first.toUpperCase(), ids.first],
    ['ab12', ids.first],
    ['ab130', ids.second],
    ['latest', ids.first],
    ['latest:web', ids.second],
    ['latest:db: main', ids.first],
  ])('"%s" means %s', async (selector, id) => {
    expect((await (await makeRepository()).resolvePoint(selector)).id).toBe(id);
  });

  test.each([
    ['ab1', 'ERR_POINT_AMBIGUOUS'],
    ['a', 'ERR_POINT_AMBIGUOUS'],
    ['ff', 'ERR_POINT_NOT_FOUND'],
    ['f'.repeat(32), 'ERR_POINT_NOT_FOUND'],
    ['latest:mail', 'ERR_POINT_NOT_FOUND'],
    ['latest:', 'ERR_POINT_NOT_FOUND'],
    ['', 'ERR_INVALID_ARGUMENT'],
    ['newest', 'ERR_INVALID_ARGUMENT'],
    ['../config', 'ERR_INVALID_ARGUMENT'],
    ['a'.repeat(33), 'ERR_INVALID_ARGUMENT'],
  ])('"%s" fails with %s', async (selector, code) => {
    const repository = await makeRepository();
    expect(await codeOf(() => repository.resolvePoint(selector))).toBe(code);
  });
});

describe('what a job is told of the repository', () => {
  test('names packs and index runs as the format does, and nothing else that lies there', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const run = newId();
    await mkdir(path.join(repository.path, 'packs', run));
    for (const name of ['0000-00000000.pack', '0000-00000001.pack.partial', 'notes.txt']) {
      await writeFile(path.join(repository.path, 'packs', run, name), '');
    }
    for (const name of [`${run}-0000-00000000.idx`, '.tmp-1', 'Thumbs.db']) {
      await writeFile(path.join(repository.path, 'index', name), '');
    }
    const { native, generation } = await repository.view();
    expect(native.packs).toEqual([`${run}/0000-00000000`]);
    expect(native.indexRuns).toEqual([`${run}-0000-00000000.idx`]);
    expect(native.root).toBe(repository.path);
    expect(generation).toBe('');
    await repository.moveGeneration();
    expect((await repository.view()).generation).toMatch(/^[0-9a-f]{32}$/);
  });
});
