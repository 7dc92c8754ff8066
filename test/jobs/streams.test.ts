/**
 * Streams of points between real repositories with the real engine: what arrives is whole, what is sent is sent once, and what breaks is
 * kept as far as it came.
 *
 * A repository that received is verified to the last byte, and restored from, so "whole" is meant literally.
 */

import { closeSync } from 'node:fs';
import { readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadEngine } from '../../src/engine/engine.js';
import { type FirnError, isFirnError } from '../../src/errors.js';
import { backup } from '../../src/jobs/backup.js';
import { copyPoints } from '../../src/jobs/copy-points.js';
import { prune } from '../../src/jobs/prune.js';
import { listHave, type ReceiveResult, receive } from '../../src/jobs/receive.js';
import { restore } from '../../src/jobs/restore.js';
import { type SendOptions, send } from '../../src/jobs/send.js';
import { withInput, withOutput } from '../../src/jobs/streams/descriptors.js';
import { verify } from '../../src/jobs/verify.js';
import { packFile } from '../../src/repository/format/names.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { Repository } from '../../src/repository/repository.js';
import { filesOf, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { wrapStore } from '../helpers/memory-store.js';
import { randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;

async function backUp(
  repository: Repository,
  content: Buffer,
  options: { vm?: string; tags?: string[] } = {},
): Promise<PointObject> {
  const disk = await rawDisk(content);
  const { point } = await backup(repository, {
    vm: 'web',
    disks: [disk],
    codec: 'lz4',
    ...options,
  });
  await rm(path.dirname(disk), { recursive: true });
  if (point === undefined) throw new Error('a backup that is no dry run makes a point');
  return point;
}

async function siblingOf(repository: Repository): Promise<Repository> {
  return Repository.create(path.join(await temporaryFolder(), 'sibling'), {
    like: repository.config,
  });
}

/** Sends to a new file; gives its path and what the send said. */
async function sendToFile(repository: Repository, options: Omit<SendOptions, 'fd'>) {
  const file = path.join(await temporaryFolder(), 'stream');
  const result = await withOutput(file, {}, (fd) => send(repository, { ...options, fd }));
  return { file, result };
}

function receiveFile(target: Repository, file: string) {
  return withInput(file, (fd) => receive(target.path, { fd }));
}

/** The copy, of a stream of one point. */
function onlyOf({ points }: ReceiveResult): PointObject {
  const [received, ...others] = points;
  if (received === undefined || others.length > 0) throw new Error('expected one point');
  return received.point;
}

async function haveOf(target: Repository, records: boolean): Promise<string> {
  const file = path.join(await temporaryFolder(), 'have');
  await withOutput(file, {}, (fd) => listHave(target, { fd, records }));
  return file;
}

async function expectWhole(repository: Repository): Promise<void> {
  expect((await verify(repository, { readData: true })).problems).toEqual([]);
}

async function contentOf(repository: Repository, point: PointObject): Promise<Buffer> {
  const file = path.join(await temporaryFolder(), 'back.raw');
  await restore(repository, { point: point.id, to: file });
  return readFile(file);
}

describe('a stream', () => {
  test('brings points as they are, under ids of their own', async () => {
    const source = await newRepository();
    const content = randomContent(5 * MIB);
    const one = await backUp(source, content, { tags: ['gold'] });
    const changed = Buffer.concat([content.subarray(0, 4 * MIB), randomContent(2 * MIB)]);
    const two = await backUp(source, changed, { vm: 'db' });
    const { file, result } = await sendToFile(source, { all: true });
    expect(result.streamBytes).toBe((await stat(file)).size);
    const target = await siblingOf(source);
    const received = await receiveFile(target, file);
    expect(received.storedBytes).toBe(result.bytes);
    expect(received.receivedRecords).toBe(result.records);
    const points = await target.points();
    expect(points).toHaveLength(2);
    for (const [index, original] of [one, two].entries()) {
      const copy = points[index] as PointObject;
      expect(copy.id).not.toBe(original.id);
      expect(copy.origin).toEqual({ repository: source.id, point: original.id });
      const { vm, created, consistency, method, tags, disks } = original;
      expect(copy).toMatchObject({ vm, created, consistency, method, disks });
      expect(copy.tags).toEqual(tags);
    }
    expect((await contentOf(target, points[1] as PointObject)).equals(changed)).toBe(true);
    await expectWhole(target);
    expect(await target.listIds('pending')).toEqual([]);
  });

  test('is received once: again it brings nothing, not even a point', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(2 * MIB));
    const { file } = await sendToFile(source, { all: true });
    const target = await siblingOf(source);
    await receiveFile(target, file);
    const before = await filesOf(target);
    const again = await receiveFile(target, file);
    expect(again.points.map(({ isOld }) => isOld)).toEqual([true]);
    expect(again.storedBytes).toBe(0);
    expect(await filesOf(target)).toEqual(before);
  });

  test('goes on to a third repository and back, and is known there', async () => {
    const a = await newRepository();
    await backUp(a, randomContent(MIB));
    const [b, c] = [await siblingOf(a), await siblingOf(a)];
    await receiveFile(b, (await sendToFile(a, { all: true })).file);
    const { file } = await sendToFile(b, { all: true });
    await receiveFile(c, file);
    expect((await c.points())[0]?.origin?.repository).toBe(a.id);
    expect((await receiveFile(a, file)).points.map(({ isOld }) => isOld)).toEqual([true]);
    expect((await copyPoints(a, c, { all: true })).left).toHaveLength(1);
  });

  test('makes the repository it is received into, if that is asked for', async () => {
    const source = await newRepository({ chunking: { scheme: 'fixed', chunkBytes: 65536 } });
    await backUp(source, randomContent(MIB));
    const { file } = await sendToFile(source, { all: true });
    const folder = path.join(await temporaryFolder(), 'new');
    expect(await codeOf(() => withInput(file, (fd) => receive(folder, { fd })))).toBe(
      'ERR_REPOSITORY_NOT_FOUND',
    );
    const { isNew, repository } = await withInput(file, (fd) =>
      receive(folder, { fd, init: true }),
    );
    expect(isNew).toBe(true);
    expect(repository.id).not.toBe(source.id);
    expect(repository.config.chunking).toEqual(source.config.chunking);
    await expectWhole(repository);
  });

  test('is refused by a repository of other keys or other chunk sizes, before anything is written', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(MIB));
    const { file } = await sendToFile(source, { all: true });
    const otherKey = await newRepository();
    const otherSizes = await newRepository({
      like: { ...source.config, chunking: { scheme: 'fixed', pages: 16 } },
    });
    for (const target of [otherKey, otherSizes]) {
      expect(await codeOf(() => receiveFile(target, file))).toBe('ERR_STREAM_MISMATCH');
      expect(await codeOf(() => copyPoints(source, target, { all: true }))).toBe(
        'ERR_STREAM_MISMATCH',
      );
      const have = await haveOf(target, true);
      expect(await codeOf(() => send(source, { all: true, have }))).toBe('ERR_STREAM_MISMATCH');
      expect(await filesOf(target)).toEqual(['config']);
    }
  });

  test('with a bit turned over or cut off anywhere leaves no point that is not whole', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(40 * 1024));
    const { file } = await sendToFile(source, { all: true });
    const bytes = await readFile(file);
    const target = await siblingOf(source);
    const damaged = path.join(await temporaryFolder(), 'damaged');
    const failuresOf = async (content: Buffer, offset: number) => {
      await writeFile(damaged, content);
      let code: string | undefined;
      try {
        await receiveFile(target, damaged);
      } catch (error) {
        if (!isFirnError(error)) throw error;
        code = error.code;
      }
      expect(code, `at ${offset}`).toMatch(/^ERR_(CORRUPT_STREAM|STREAM_TRUNCATED|VERSION)$/);
      // The last frame alone may be hurt without harm to the point, which was sealed before it.
      const sealed = await target.points();
      if (offset < bytes.length - 80) expect(sealed, `at ${offset}`).toEqual([]);
    };
    const step = Math.ceil(bytes.length / 150);
    for (let offset = 0; offset < bytes.length - 80; offset += step) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(offset) ^ (1 << (offset % 8)), offset);
      await failuresOf(flipped, offset);
      await failuresOf(bytes.subarray(0, offset), offset);
    }
    await failuresOf(bytes.subarray(0, -1), bytes.length - 1);
    expect(await target.points()).toHaveLength(1);
    await expectWhole(target);
  }, 300_000);

  test('that breaks leaves what has arrived, and only the rest is stored when it comes again', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(12 * MIB));
    const { file, result } = await sendToFile(source, { all: true });
    const whole = await readFile(file);
    const target = await siblingOf(source);
    await truncate(file, 7 * MIB);
    expect(await codeOf(() => receiveFile(target, file))).toBe('ERR_STREAM_TRUNCATED');
    expect(await target.points()).toEqual([]);
    // The sender can be told, and then sends only the rest.
    const rest = await sendToFile(source, { all: true, have: await haveOf(target, true) });
    expect(rest.result.bytes).toBeLessThan(7 * MIB);
    expect(rest.result.skippedBytes).toBeGreaterThan(4 * MIB);
    const other = await siblingOf(source);
    expect(await codeOf(() => receiveFile(other, rest.file))).toBe('ERR_HAVE_STALE');
    await receiveFile(target, rest.file);
    await expectWhole(target);
    // Or it sends all again, and what is there is dropped.
    await writeFile(file, whole);
    const again = await receiveFile(other, file);
    expect(again.receivedBytes).toBe(result.bytes);
    expect(again.storedBytes).toBeLessThan(7 * MIB);
    await expectWhole(other);
  });

  test('of what changed since is as small as that, with a list of points alone', async () => {
    const source = await newRepository();
    const content = randomContent(8 * MIB);
    await backUp(source, content);
    const target = await siblingOf(source);
    await receiveFile(target, (await sendToFile(source, { all: true })).file);
    content.fill(7, MIB, MIB + 4096);
    await backUp(source, content);
    const have = await haveOf(target, false);
    expect((await stat(have)).size).toBeLessThan(2000);
    const { file, result } = await sendToFile(source, { all: true, have });
    expect(result).toMatchObject({ points: { length: 1 }, left: { length: 1 } });
    expect(result.streamBytes).toBeLessThan(600 * 1024);
    const received = await receiveFile(target, file);
    expect((await contentOf(target, onlyOf(received))).equals(content)).toBe(true);
    await expectWhole(target);
  });

  test('with a list that is no longer true seals nothing, and says what to do', async () => {
    const source = await newRepository();
    const content = randomContent(3 * MIB);
    await backUp(source, content);
    const target = await siblingOf(source);
    const first = await receiveFile(target, (await sendToFile(source, { all: true })).file);
    const have = await haveOf(target, true);
    await target.removePoint(onlyOf(first).id);
    await prune(target);
    content.fill(9, 0, 4096);
    await backUp(source, content);
    const { file } = await sendToFile(source, { points: ['latest'], have });
    let failure: FirnError | undefined;
    await receiveFile(target, file).catch((error: FirnError) => {
      failure = error;
    });
    expect(failure?.code).toBe('ERR_HAVE_STALE');
    expect(failure?.hint).toContain('--have');
    expect(await target.points()).toEqual([]);
    expect(await target.listIds('pending')).toEqual([]);
  });

  test('finds the packs of a receiver that was killed before it could name them', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(4 * MIB));
    const { file } = await sendToFile(source, { all: true });
    const target = await siblingOf(source);
    const first = await receiveFile(target, file);
    await target.removePoint(onlyOf(first).id);
    for (const name of await target.indexRuns()) await target.store.delete(`index/${name}`);
    const again = await receiveFile(target, file);
    expect(again.adoptedPacks).toBeGreaterThan(0);
    expect(again.storedBytes).toBe(0);
    await expectWhole(target);
  });

  test('is counted without being written', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(2 * MIB));
    const counted = await send(source, { all: true });
    const { result } = await sendToFile(source, { all: true });
    expect(counted).toMatchObject({ streamBytes: 0, records: result.records, bytes: result.bytes });
  });

  test('goes no faster than it may', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(MIB));
    const begun = performance.now();
    await sendToFile(source, { all: true, bytesPerSecond: 2 * MIB });
    expect(performance.now() - begun).toBeGreaterThan(450);
  });

  test('goes on when a collection moves the packs that it is read from', async () => {
    const source = await newRepository();
    const shared = randomContent(6 * MIB);
    const old = await backUp(source, Buffer.concat([shared, randomContent(20 * MIB)]));
    const point = await backUp(source, Buffer.concat([shared, randomContent(6 * MIB)]));
    await source.removePoint(old.id);
    const target = await siblingOf(source);
    const before = new Set(await source.packs());
    // So slow that the collection comes while it is under way.
    const copying = copyPoints(source, target, { points: [point.id], bytesPerSecond: 6 * MIB });
    for await (const { doneBytes } of copying) if (doneBytes > 0) break;
    await prune(source, { maxWaste: 0 });
    expect((await source.packs()).some((pack) => !before.has(pack))).toBe(true);
    await copying;
    await expectWhole(target);
    expect(await target.points()).toHaveLength(1);
  });
});

describe('copyPoints', () => {
  test('copies what the target lacks, and nothing the next time', async () => {
    const source = await newRepository();
    const content = randomContent(6 * MIB);
    await backUp(source, content);
    const target = await siblingOf(source);
    const first = await copyPoints(source, target, { all: true });
    expect(first).toMatchObject({ points: { length: 1 }, left: [], attempts: 1 });
    content.fill(1, 0, 4096);
    await backUp(source, content);
    const dry = await copyPoints(source, target, { all: true, dryRun: true });
    expect(dry).toMatchObject({ dryRun: true, points: { length: 1 }, copies: [] });
    const second = await copyPoints(source, target, { all: true });
    expect(second).toMatchObject({ points: { length: 1 }, left: { length: 1 } });
    expect(second.bytes).toBe(dry.bytes);
    expect(second.storedBytes).toBe(second.bytes);
    expect(second.bytes).toBeLessThan(600 * 1024);
    const third = await copyPoints(source, target, { all: true });
    expect(third).toMatchObject({ points: [], left: { length: 2 }, bytes: 0 });
    await expectWhole(target);
  });

  test('copies the points that are chosen, by machine, by tag, the newest of each', async () => {
    const source = await newRepository();
    const points = [];
    for (const [vm, tag] of [
      ['web', 'gold'],
      ['web', 'tin'],
      ['db', 'tin'],
    ] as const) {
      points.push(await backUp(source, randomContent(64 * 1024), { vm, tags: [tag] }));
    }
    const target = await siblingOf(source);
    const idsOf = async (choice: object) => {
      const { points: chosen } = await copyPoints(source, target, { ...choice, dryRun: true });
      return chosen.map(({ point }) => point.id);
    };
    const [first, second, third] = points.map(({ id }) => id);
    expect(await idsOf({ vms: ['web'] })).toEqual([first, second]);
    expect(await idsOf({ tags: ['tin'] })).toEqual([second, third]);
    expect(await idsOf({ latest: 1 })).toEqual([second, third]);
    expect(await idsOf({ vms: ['web'], latest: 1 })).toEqual([second]);
    expect(await idsOf({ points: ['latest:web'] })).toEqual([second]);
    expect(await codeOf(() => idsOf({}))).toBe('ERR_INVALID_ARGUMENT');
    expect(await codeOf(() => idsOf({ all: true, points: ['latest'] }))).toBe(
      'ERR_INVALID_ARGUMENT',
    );
  });

  test('survives a collection at the target that takes away what has arrived', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(10 * MIB));
    const target = await siblingOf(source);
    let collections = 0;
    // When all has arrived, and nothing says yet that it is needed.
    const watched = await Repository.open(
      target.path,
      wrapStore(target.store, async (method, name, call) => {
        // Fewer than the attempts that a copy has: each costs it one.
        if (method === 'putNew' && name.startsWith('pending/') && collections < 2) {
          collections++;
          await prune(target, { maxWaste: 0 });
          expect(await target.packs()).toEqual([]);
        }
        return call();
      }),
    );
    const { attempts } = await copyPoints(source, watched, { all: true });
    expect([collections, attempts]).toEqual([2, 3]);
    await prune(target, { maxWaste: 0 });
    await expectWhole(target);
    expect(await target.points()).toHaveLength(1);
  });

  test('says of a damaged source that the source is damaged, and seals nothing', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(2 * MIB));
    const target = await siblingOf(source);
    for (const pack of await source.packs()) {
      const file = path.join(source.path, packFile(pack));
      const bytes = await readFile(file);
      bytes.fill(0xff, 200, 4000);
      await writeFile(file, bytes);
    }
    const code = await codeOf(() => copyPoints(source, target, { all: true }));
    expect(code).toMatch(/^ERR_CORRUPT_(CHUNK|PACK)$/);
    expect(await target.points()).toEqual([]);
  });

  test('can be stopped, and goes on from there', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(16 * MIB));
    const target = await siblingOf(source);
    const stop = new AbortController();
    const copying = copyPoints(source, target, {
      all: true,
      bytesPerSecond: 8 * MIB,
      signal: stop.signal,
    });
    const watching = (async () => {
      for await (const { doneBytes } of copying) if (doneBytes > 5 * MIB) stop.abort();
    })().catch(() => {
      // The copy's own end is looked at below.
    });
    expect(await codeOf(() => copying)).toBe('ERR_ABORTED');
    await watching;
    expect(await target.points()).toEqual([]);
    const rest = await copyPoints(source, target, { all: true });
    expect(rest.skippedBytes).toBeGreaterThan(3 * MIB);
    await expectWhole(target);
  });

  test('refuses one repository twice', async () => {
    const source = await newRepository();
    expect(await codeOf(() => copyPoints(source, source, { all: true }))).toBe(
      'ERR_INVALID_ARGUMENT',
    );
  });
});

describe('a pipe', () => {
  test('carries a stream between two jobs of one process', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(3 * MIB));
    const target = await siblingOf(source);
    const [input, output] = loadEngine().newPipe();
    const sending = send(source, { all: true, fd: output }).finally(() => closeSync(output));
    const received = await receive(target.path, { fd: input }).finally(() => closeSync(input));
    expect(received.storedBytes).toBe((await sending).bytes);
    await expectWhole(target);
  });

  test('whose reader goes away ends the sender with an error that says so', async () => {
    const source = await newRepository();
    await backUp(source, randomContent(3 * MIB));
    const [input, output] = loadEngine().newPipe();
    closeSync(input);
    let failure: FirnError | undefined;
    await send(source, { all: true, fd: output })
      .catch((error: FirnError) => {
        failure = error;
      })
      .finally(() => closeSync(output));
    expect(failure?.code).toBe('ERR_WRITE');
    expect(failure?.message).toContain('reader has gone away');
  });
});
