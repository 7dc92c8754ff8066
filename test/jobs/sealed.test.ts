/**
 * Jobs on a sealed repository, with the real engine: what they do on others they do here, and the keys decide what is refused.
 */

import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { checkPacks } from '../../src/jobs/check-packs.js';
import { copyPoints } from '../../src/jobs/copy-points.js';
import { forget } from '../../src/jobs/forget.js';
import { prune } from '../../src/jobs/prune.js';
import { type ReceiveOptions, receive } from '../../src/jobs/receive.js';
import { repairIndex } from '../../src/jobs/repair.js';
import { restore } from '../../src/jobs/restore.js';
import { scrub } from '../../src/jobs/scrub.js';
import { send } from '../../src/jobs/send.js';
import { withInput, withOutput } from '../../src/jobs/streams/descriptors.js';
import { verify } from '../../src/jobs/verify.js';
import { packFile } from '../../src/repository/format/names.js';
import { Repository } from '../../src/repository/repository.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { change, newSealed, openSealed, openWriteOnly, passphrase } from '../helpers/sealed.js';
import { makeContent } from '../helpers/writer.js';

async function restored(repository: Repository, point: string): Promise<Buffer> {
  const to = await temporaryFolder();
  const { disks } = await restore(repository, { point, to });
  return readFile(disks[0]?.path ?? '');
}

async function backUp(repository: Repository, content: Buffer, name = 'disk.raw') {
  const { point } = await backup(repository, { disks: [await rawDisk(content, name)] });
  if (point === undefined) throw new Error('there is no point');
  return point;
}

describe('a sealed repository', () => {
  test('gives a disk back through the engine and through rescue, and verifies', async () => {
    const repository = await newSealed();
    const content = makeContent(3000, 1);
    const { id } = await backUp(repository, content);
    const opened = await openSealed(repository);
    expect((await restored(opened, id)).equals(content)).toBe(true);
    expect((await verify(opened, { readData: true })).problems).toEqual([]);
    await using rescue = await Rescue.open(repository.path, {}, { passphrase: passphrase() });
    const to = path.join(await temporaryFolder(), 'rescued.raw');
    await rescue.restore({ point: id, to });
    expect((await readFile(to)).equals(content)).toBe(true);
    expect(rescue.damagedPacks).toEqual([]);
  });

  test('holds nothing of the disk as it was, and the same chunks once', async () => {
    const repository = await newSealed();
    const marker = Buffer.from('a line of a letter that nobody else is to read');
    const content = makeContent(500, 2);
    for (let at = 0; at + 4096 <= content.length; at += 8192) marker.copy(content, at);
    await backUp(repository, content);
    await backUp(repository, content, 'again.raw');
    for (const pack of await repository.packs()) {
      const bytes = await readFile(path.join(repository.path, packFile(pack)));
      expect(bytes.includes(marker)).toBe(false);
    }
    expect(new Set((await repository.packs()).map((pack) => pack.slice(0, 32))).size).toBe(1);
  });

  test('has other packs and ids than any other with the same disk', async () => {
    const content = makeContent(100, 3);
    const roots = [];
    for (const repository of [await newSealed(), await newSealed()]) {
      roots.push((await backUp(repository, content)).disks[0]?.root);
    }
    expect(new Set(roots).size).toBe(2);
  });

  test('is collected: what stays is sealed anew and restores', async () => {
    const repository = await newSealed();
    const kept = makeContent(2000, 4);
    const gone = Buffer.concat([kept, makeContent(6000, 5)]);
    const first = await backUp(repository, gone);
    const second = await backUp(repository, kept, 'kept.raw');
    await forget(repository, { points: [first.id] });
    const before = new Set(await repository.packs());
    await prune(repository, { maxWaste: 0 });
    const after = await repository.packs();
    expect(after.some((pack) => !before.has(pack))).toBe(true);
    expect((await restored(await openSealed(repository), second.id)).equals(kept)).toBe(true);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  });

  test('gets its index made again from packs, and is scrubbed', async () => {
    const repository = await newSealed();
    const content = makeContent(1000, 6);
    const { id } = await backUp(repository, content);
    await rm(path.join(repository.path, 'index'), { recursive: true });
    await mkdir(path.join(repository.path, 'index'));
    await repairIndex(repository);
    expect((await restored(repository, id)).equals(content)).toBe(true);
    const found = await scrub(repository);
    expect(found.problems).toEqual([]);
    expect(found.packs).toBe((await repository.packs()).length);
  });

  test('is healed by the next backup after a flipped bit', async () => {
    const repository = await newSealed();
    const content = makeContent(1000, 7);
    const { id } = await backUp(repository, content);
    const [pack = ''] = await repository.packs();
    await change(repository, packFile(pack), (bytes) => {
      bytes.writeUInt8(bytes.readUInt8(300) ^ 4, 300);
      return bytes;
    });
    expect((await scrub(repository)).problemCount).toBeGreaterThan(0);
    await backUp(repository, content);
    expect((await restored(repository, id)).equals(content)).toBe(true);
  });

  test('copies its points to a sealed sibling, and to no other', async () => {
    const repository = await newSealed();
    const content = makeContent(1000, 8);
    await backUp(repository, content);
    const like = { ...repository.config, idKey: repository.idKey };
    const sibling = await newSealed({ like });
    const { copies } = await copyPoints(repository, sibling, { all: true });
    const copied = (await sibling.points())[0]?.id ?? '';
    expect(copies).toHaveLength(1);
    expect((await restored(await openSealed(sibling), copied)).equals(content)).toBe(true);
    expect((await verify(sibling, { readData: true })).problems).toEqual([]);
    const plain = await newRepository();
    expect(await codeOf(() => copyPoints(repository, plain, { all: true }))).toBe(
      'ERR_STREAM_MISMATCH',
    );
  });

  test('from an unsealed sibling takes points, which are sealed then', async () => {
    const plain = await newRepository();
    const content = makeContent(1000, 9);
    await backUp(plain, content);
    const sealed = await newSealed({ like: plain.config });
    await copyPoints(plain, sealed, { all: true });
    const [point] = await sealed.points();
    expect((await restored(sealed, point?.id ?? '')).equals(content)).toBe(true);
    const back = await newRepository({ like: plain.config });
    const refused = (async () => copyPoints(sealed, back, { all: true }))();
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_UNSUPPORTED',
      hint: expect.stringContaining('firn send --unsealed'),
    });
  });
});

describe('a stream of a sealed repository, which is not sealed itself', () => {
  const stream = async (repository: Repository) => {
    const file = path.join(await temporaryFolder(), 'stream');
    await withOutput(file, {}, (fd) => send(repository, { all: true, unsealed: true, fd }));
    return file;
  };
  const take = (target: Repository, file: string, options: Partial<ReceiveOptions> = {}) =>
    withInput(file, (fd) => receive(target.path, { fd, ...options }));
  const withKey = () => ({ access: { passphrase: passphrase() } });
  const likeOf = (repository: Repository) => ({ ...repository.config, idKey: repository.idKey });

  test('is received by a sealed sibling, once, and sealed there', async () => {
    const repository = await newSealed();
    const content = makeContent(1000, 21);
    await backUp(repository, content);
    const sibling = await newSealed({ like: likeOf(repository) });
    const file = await stream(repository);
    for (const isOld of [false, true]) {
      const { points } = await take(sibling, file, withKey());
      expect(points.map((each) => each.isOld)).toEqual([isOld]);
    }
    const opened = await openSealed(sibling);
    const [point] = await opened.points();
    expect((await restored(opened, point?.id ?? '')).equals(content)).toBe(true);
    expect((await verify(opened, { readData: true })).problems).toEqual([]);
    // The other way round, and back: it is the same point everywhere.
    await take(repository, await stream(opened), withKey());
    expect(await repository.points()).toHaveLength(1);
    expect((await copyPoints(opened, repository, { all: true })).left).toHaveLength(1);
  });

  test('is received by an unsealed sibling, and what that sends by the sealed one', async () => {
    const plain = await newRepository();
    const sealed = await newSealed({ like: plain.config });
    const content = makeContent(1000, 22);
    await backUp(sealed, content);
    const received = await take(plain, await stream(sealed));
    const { id } = received.points[0]?.point ?? { id: '' };
    expect((await restored(plain, id)).equals(content)).toBe(true);
    const more = makeContent(700, 23);
    await backUp(plain, more);
    const { points } = await take(sealed, await stream(plain), withKey());
    expect(points.map(({ isOld }) => isOld)).toEqual([true, false]);
    expect((await restored(sealed, points[1]?.point.id ?? '')).equals(more)).toBe(true);
    expect((await verify(sealed, { readData: true })).problems).toEqual([]);
  });

  test('is refused by whoever is no sibling, has no key or only writes, and makes no repository', async () => {
    const repository = await newSealed();
    await backUp(repository, makeContent(200, 24));
    const file = await stream(repository);
    expect(await codeOf(() => take(repository, file))).toBe('ERR_KEY_REQUIRED');
    const stranger = await newSealed();
    expect(await codeOf(() => take(stranger, file, withKey()))).toBe('ERR_STREAM_MISMATCH');
    const plain = await newRepository();
    expect(await codeOf(() => take(plain, file))).toBe('ERR_STREAM_MISMATCH');
    const sibling = await newSealed({ like: likeOf(repository) });
    await openWriteOnly(sibling);
    const host = { access: { passphrase: passphrase('host') } };
    expect(await codeOf(() => take(sibling, file, host))).toBe('ERR_KEY_WRITE_ONLY');
    expect(await sibling.points()).toEqual([]);
    const none = path.join(await temporaryFolder(), 'none');
    const init = withInput(file, (fd) => receive(none, { fd, init: true, ...withKey() }));
    await expect(init).rejects.toMatchObject({
      code: 'ERR_UNSUPPORTED',
      hint: expect.stringContaining('firn init --sealed --like'),
    });
    expect(await codeOf(() => Repository.open(none))).toBe('ERR_REPOSITORY_NOT_FOUND');
  });
});

describe('packs of a sealed repository', () => {
  test('are held against their checksums without a key, and rot is found', async () => {
    const repository = await newSealed();
    await backUp(repository, makeContent(1000, 10));
    const locked = await Repository.openLocked(repository.path);
    const packs = await locked.packs();
    expect(await checkPacks(locked)).toMatchObject({ problemCount: 0, packs: packs.length });
    for (const [number, pack] of packs.entries()) {
      await change(repository, packFile(pack), (bytes) => {
        const at = Math.floor((bytes.length * (number + 1)) / (packs.length + 1));
        bytes.writeUInt8(bytes.readUInt8(at) ^ 16, at);
        return bytes;
      });
    }
    expect((await checkPacks(locked)).problemCount).toBeGreaterThanOrEqual(packs.length);
  });

  test('in the place of each other are named', async () => {
    const repository = await newSealed();
    await backUp(repository, makeContent(1000, 11));
    const [a = '', b = ''] = await repository.packs();
    const file = (pack: string) => path.join(repository.path, packFile(pack));
    await rename(file(a), `${file(a)}.aside`);
    await rename(file(b), file(a));
    await rename(`${file(a)}.aside`, file(b));
    const { problems } = await verify(repository, { readData: true });
    expect(problems.map(({ code }) => code)).toContain('ERR_SWAPPED');
  });

  test('of another repository are tampered, to restore and to rescue', async () => {
    const content = makeContent(300, 12);
    const repository = await newSealed();
    const { id } = await backUp(repository, content);
    const like = { ...repository.config, idKey: repository.idKey };
    const other = await newSealed({ like });
    await backUp(other, content);
    // Every pack of the one under the names of the other: equal ids, equal places, another key.
    const [mine, theirs] = [await repository.packs(), await other.packs()];
    expect(mine.length).toBe(theirs.length);
    for (const [number, pack] of theirs.entries()) {
      const bytes = await readFile(path.join(other.path, packFile(pack)));
      await change(repository, packFile(mine[number] as string), () => bytes);
    }
    expect(await codeOf(() => restored(repository, id))).toBe('ERR_TAMPERED');
    await using rescue = await Rescue.open(repository.path, {}, { passphrase: passphrase() });
    const to = path.join(await temporaryFolder(), 'rescued.raw');
    expect(await codeOf(() => rescue.restore({ point: id, to }))).toBe('ERR_TAMPERED');
  });
});

describe('a write-only key', () => {
  test('backs up, finds what is there already, and can read nothing of it', async () => {
    const repository = await newSealed();
    const content = makeContent(2000, 13);
    await backUp(repository, content);
    const host = await openWriteOnly(repository);
    const changed = Buffer.from(content);
    changed.fill(0x77, 0, 65536);
    const disk = await rawDisk(changed, 'changed.raw');
    const { point, summary } = await backup(host, { disks: [disk] });
    expect(summary.newBytes).toBeLessThan(content.length / 4);
    const id = point?.id ?? '';
    const sibling = await newSealed({ like: { ...host.config, idKey: host.idKey } });
    for (const action of [
      () => restored(host, id),
      () => verify(host, { readData: true }),
      () => prune(host),
      () => forget(host, { points: [id] }),
      () => scrub(host),
      () => copyPoints(host, sibling, { all: true }),
      () => Rescue.open(host.path, {}, { passphrase: passphrase('host') }),
    ]) {
      expect(await codeOf(action)).toBe('ERR_KEY_WRITE_ONLY');
    }
    // A process that begins only now, and has never seen the host's key.
    const owner = await openSealed(repository);
    expect((await restored(owner, id)).equals(changed)).toBe(true);
    expect((await verify(owner, { readData: true })).problems).toEqual([]);
    await using rescue = await Rescue.open(owner.path, {}, { passphrase: passphrase() });
    const to = path.join(await temporaryFolder(), 'rescued.raw');
    await rescue.restore({ point: id, to });
    expect((await readFile(to)).equals(changed)).toBe(true);
  });

  test('its run is read though the first stripe of a pack has lost its header', async () => {
    const repository = await newSealed();
    const host = await openWriteOnly(repository);
    const content = makeContent(4000, 14);
    const { point } = await backup(host, { disks: [await rawDisk(content)] });
    for (const pack of await repository.packs()) {
      await change(repository, packFile(pack), (bytes) => bytes.fill(0, 0, 8));
      break;
    }
    const owner = await openSealed(repository);
    expect((await restored(owner, point?.id ?? '')).equals(content)).toBe(true);
  });

  test('what it wrote is collected and sealed anew by who reads', async () => {
    const repository = await newSealed();
    const host = await openWriteOnly(repository);
    const kept = makeContent(1500, 15);
    const both = await rawDisk(Buffer.concat([kept, makeContent(6000, 16)]), 'both.raw');
    const { point: first } = await backup(host, { disks: [both] });
    const { point } = await backup(host, { disks: [await rawDisk(kept, 'kept.raw')] });
    await forget(repository, { points: [first?.id ?? ''] });
    await prune(repository, { maxWaste: 0 });
    expect(
      (await readdir(path.join(repository.path, 'packs'))).some((run) => !run.startsWith('f')),
    ).toBe(true);
    expect((await restored(repository, point?.id ?? '')).equals(kept)).toBe(true);
  });
});
