/**
 * Goal: two versions of Firn may meet in one repository. What a newer one wrote is used where this one understands it, refused by name where it
 * does not, and deleted by it in no case. Method: a repository gets what a later format may have (members, requirements, versions, kinds of files
 * and folders), and everything that deletes runs over it.
 */

import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../src/crc32c.js';
import { backup } from '../../src/jobs/backup.js';
import { copyPoints } from '../../src/jobs/copy-points.js';
import { forget } from '../../src/jobs/forget.js';
import { prune } from '../../src/jobs/prune.js';
import { repairIndex } from '../../src/jobs/repair.js';
import { restore } from '../../src/jobs/restore.js';
import { scrub } from '../../src/jobs/scrub.js';
import { verify } from '../../src/jobs/verify.js';
import { blake3 } from '../../src/repository/format/keys.js';
import { newId, packFile } from '../../src/repository/format/names.js';
import { decodeRecord, encodeRecord } from '../../src/repository/format/record.js';
import { holdPoint } from '../../src/repository/labels.js';
import { Repository } from '../../src/repository/repository.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { keysOf, makeContent } from '../helpers/writer.js';

const DISK = makeContent(200, 1);

/** A repository with two points, of which the first is forgotten: so there is something to collect. */
async function withWaste(): Promise<{ repository: Repository; kept: string }> {
  const repository = await newRepository();
  const first = await backup(repository, { disks: [await rawDisk(makeContent(300, 2))], vm: 'vm' });
  const second = await backup(repository, { disks: [await rawDisk(DISK)], vm: 'vm' });
  await forget(repository, { points: [first.point?.id ?? ''] });
  return { repository, kept: second.point?.id ?? '' };
}

/** Rewrites an object with other members; the record around it is as it should be. */
async function change(repository: Repository, name: string, members: object, as = name) {
  const key = name === 'config' ? undefined : keysOf(repository).object;
  const bytes = await readFile(path.join(repository.path, name));
  const { content } = decodeRecord(bytes, 'object', key);
  const object = { ...(JSON.parse(content.toString()) as object), ...members };
  const record = encodeRecord('object', key, Buffer.from(JSON.stringify(object)));
  await writeFile(path.join(repository.path, as), record);
}

async function everyFile(repository: Repository): Promise<string[]> {
  const entries = await readdir(repository.path, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(repository.path, path.join(entry.parentPath, entry.name)))
    .sort();
}

async function content(repository: Repository, point: string): Promise<Buffer> {
  const to = path.join(await temporaryFolder(), 'disk.raw');
  await restore(repository, { point, to });
  return readFile(to);
}

describe('what a newer version adds without a new number', () => {
  test('members that are not known are ignored, and kept where an object is copied', async () => {
    const { repository, kept } = await withWaste();
    const later = { later: { than: ['this'] } };
    await holdPoint(repository, await repository.readPoint(kept));
    const [label = ''] = await readdir(path.join(repository.path, 'labels'));
    for (const name of ['config', `points/${kept}`, `labels/${label}`]) {
      await change(repository, name, later);
    }
    const opened = await Repository.open(repository.path);
    expect(await opened.readPoint(kept)).toMatchObject(later);
    expect((await content(opened, kept)).equals(DISK)).toBe(true);
    const sibling = await newRepository({ like: opened.config });
    const { copies } = await copyPoints(opened, sibling, { all: true });
    expect(await sibling.readPoint(copies[0]?.point.id ?? '')).toMatchObject(later);
    expect((await prune(opened, { maxWaste: 0 })).deleted).toBeGreaterThan(0);
    expect((await verify(opened, { readData: true })).problems).toEqual([]);
  });

  test('files and folders that are not known are left where they are by all that deletes', async () => {
    const { repository, kept } = await withWaste();
    const run = newId();
    const strange = [
      `future/${newId()}`,
      `points/${kept}.2`,
      `pending/${kept}-${newId()}`,
      `condemned/${newId()}.set`,
      `labels/${kept}`,
      `labels/${newId()}-${newId()}-${newId()}`,
      `checks/${newId()}.2`,
      `damage/x`,
      `index/${run}-0000-00000000.idx2`,
      `packs/${run}/0000-00000000.pack2`,
      `packs/${run}-delta`,
      'lock',
    ];
    for (const name of strange) {
      await mkdir(path.dirname(path.join(repository.path, name)), { recursive: true });
      await writeFile(path.join(repository.path, name), 'what a newer version wrote');
    }
    expect((await prune(repository, { maxWaste: 0, recover: true })).deleted).toBeGreaterThan(0);
    await scrub(repository);
    await repairIndex(repository);
    await backup(repository, { disks: [await rawDisk(makeContent(100, 3))], vm: 'vm' });
    await forget(repository, { policy: { last: 1 } });
    await prune(repository, { maxWaste: 0, recover: true });
    const left = await everyFile(repository);
    expect(strange.filter((name) => !left.includes(name))).toEqual([]);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  });
});

describe('what this version cannot read', () => {
  const NEWER = [
    ['version', { version: 2 }],
    ['requirement', { requires: ['leap-seconds'] }],
  ] as const;

  test.each(NEWER)(
    'a config of another %s: the repository is refused, by every reader',
    async (_, members) => {
      const { repository, kept } = await withWaste();
      await change(repository, 'config', members);
      const open = () => Repository.open(repository.path);
      expect(await codeOf(open)).toBe('ERR_VERSION');
      expect(await codeOf(() => Rescue.open(repository.path))).toBe('ERR_VERSION');
      if ('requires' in members) await expect(open()).rejects.toThrow(/"leap-seconds"/);
      expect(existsSync(path.join(repository.path, 'points', kept))).toBe(true);
    },
  );

  test.each(NEWER)(
    'a point of another %s is refused by name, and nothing is collected beside it',
    async (_, members) => {
      const { repository, kept } = await withWaste();
      const newer = newId();
      await change(repository, `points/${kept}`, { ...members, id: newer }, `points/${newer}`);
      const before = await everyFile(repository);
      expect(await codeOf(() => repository.readPoint(newer))).toBe('ERR_VERSION');
      expect(await codeOf(() => content(repository, newer))).toBe('ERR_VERSION');
      expect(await codeOf(() => prune(repository, { maxWaste: 0 }))).toBe('ERR_VERSION');
      expect(await codeOf(() => prune(repository, { maxWaste: 0, recover: true }))).toBe(
        'ERR_VERSION',
      );
      const { damaged, forgotten } = await forget(repository, { policy: { last: 1 } });
      expect(damaged.map(({ point, error }) => [point, error.code])).toEqual([
        [newer, 'ERR_VERSION'],
      ]);
      expect(forgotten).toEqual([]);
      expect(await everyFile(repository)).toEqual(before);
      // The other one is as good as ever, and so is a new one.
      expect((await content(repository, kept)).equals(DISK)).toBe(true);
      await backup(repository, { disks: [await rawDisk(makeContent(90, 3))], vm: 'vm' });
      const { problems } = await verify(repository, { readData: true });
      expect(problems.map(({ code }) => code)).toEqual(['ERR_VERSION']);
    },
  );

  test.each(NEWER)('a pending point of another %s keeps a collection away', async (_, members) => {
    const { repository, kept } = await withWaste();
    const newer = newId();
    await change(repository, `points/${kept}`, { ...members, id: newer }, `pending/${newer}`);
    const before = await everyFile(repository);
    for (const recover of [false, true]) {
      expect(await codeOf(() => prune(repository, { maxWaste: 0, recover }))).toBe('ERR_VERSION');
    }
    expect(await everyFile(repository)).toEqual(before);
  });

  test.each(NEWER)('a label of another %s holds its point', async (_, members) => {
    const { repository, kept } = await withWaste();
    await holdPoint(repository, await repository.readPoint(kept));
    const [label = ''] = await readdir(path.join(repository.path, 'labels'));
    await change(repository, `labels/${label}`, { ...members, kind: 'keep-until' });
    const forgetIt = () => forget(repository, { points: [kept] });
    expect(await codeOf(forgetIt)).toBe('ERR_POINT_HELD');
    await backup(repository, { disks: [await rawDisk(makeContent(90, 3))], vm: 'vm' });
    expect((await forget(repository, { policy: { last: 1 } })).forgotten).toEqual([]);
    await prune(repository, { maxWaste: 0 });
    expect((await content(repository, kept)).equals(DISK)).toBe(true);
    expect(existsSync(path.join(repository.path, 'labels', label))).toBe(true);
  });

  test('an index run of a newer version ends a collection, and a repair makes another beside it', async () => {
    const { repository } = await withWaste();
    const [name = ''] = await repository.indexRuns();
    const file = path.join(repository.path, 'index', name);
    const bytes = await readFile(file);
    bytes.writeUInt16LE(2, 8);
    mendIndex(bytes);
    const newer = `${newId()}-0000-00000000.idx`;
    await writeFile(path.join(repository.path, 'index', newer), bytes);
    const packs = await repository.packs();
    expect(await codeOf(() => prune(repository, { maxWaste: 0 }))).toBe('ERR_VERSION');
    expect(await repository.packs()).toEqual(packs);
    expect(await repository.indexRuns()).toContain(newer);
  });

  test('a pack of a newer version stays while a point of that version does', async () => {
    const { repository, kept } = await withWaste();
    const [pack = ''] = await repository.packs();
    const newer = `${newId()}/0000-00000000`;
    const bytes = await readFile(path.join(repository.path, packFile(pack)));
    bytes.writeUInt16LE(2, 8);
    await mkdir(path.dirname(path.join(repository.path, packFile(newer))));
    await writeFile(path.join(repository.path, packFile(newer)), bytes);
    const id = newId();
    await change(repository, `points/${kept}`, { version: 2, id }, `points/${id}`);
    expect(await codeOf(() => prune(repository, { maxWaste: 0, recover: true }))).toBe(
      'ERR_VERSION',
    );
    expect(await repository.packs()).toContain(newer);
  });
});

/** The checksums that a writer of such an index run would have made. */
function mendIndex(bytes: Buffer): void {
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 124)), 124);
  blake3(bytes.subarray(0, bytes.length - 32)).copy(bytes, bytes.length - 32);
}
