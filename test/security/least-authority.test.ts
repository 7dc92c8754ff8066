/**
 * Goal: what a repository says cannot make a restore touch anything but the files it was asked for, and nobody outside the group gets to
 * read what a repository or a restored image holds. Method: points as an attacker would write them, links where files will be, and a look
 * at the modes of everything that was made.
 */

import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { restore } from '../../src/jobs/restore.js';
import { isDiskName, restoredName } from '../../src/repository/format/names.js';
import { encodeObject, parsePoint } from '../../src/repository/format/objects.js';
import { encodeRecord } from '../../src/repository/format/record.js';
import type { Repository } from '../../src/repository/repository.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { keysOf, makeContent, pointFor } from '../helpers/writer.js';

const posix = process.platform !== 'win32';

const HOSTILE = [
  '..',
  '.',
  '../../etc/cron.d/x',
  '/etc/passwd',
  'C:x',
  'C:\\Windows\\x',
  '\\\\server\\share\\x',
  '\\\\?\\GLOBALROOT\\x',
  '\\\\.\\PhysicalDrive0',
  'web.vhdx:stream',
  'web::$DATA',
  'a/b',
  'a\\b',
  'a\u0000b',
  'a\nb',
  'a\u007fb',
  'a\u0085b',
  'web.',
  'web ',
  'w?b',
  'w*b',
  '<web>',
  'a|b',
  '\ud800',
  'a\udfff',
  '',
  'x'.repeat(129),
];

async function sealHostile(repository: Repository, id: string, names: readonly string[]) {
  const point = (await repository.points())[0];
  const disk = point?.disks[0];
  if (point === undefined || disk === undefined) throw new Error('there is no point');
  const hostile = { ...point, id, disks: names.map((name) => ({ ...disk, name })) };
  const content = encodeRecord('object', keysOf(repository).object, encodeObject(hostile));
  await writeFile(path.join(repository.path, 'points', id), content);
}

describe('names of disks in a point', () => {
  const point = pointFor({ root: 'c'.repeat(64), dataPages: 0, chunks: [], maps: [] }, 4096);
  const [disk] = point.disks;

  test.each(HOSTILE.map((name) => [JSON.stringify(name), name]))(
    '%s is none, and a point that has it is refused',
    async (_, name) => {
      expect(isDiskName(name)).toBe(false);
      const bytes = encodeObject({
        ...point,
        disks: [{ ...disk, name } as (typeof point.disks)[0]],
      });
      expect(await codeOf(() => parsePoint(bytes, point.id))).toBe('ERR_CORRUPT_OBJECT');
    },
  );

  test('differ in more than case', async () => {
    const disks = ['Web', 'wEB'].map((name) => ({ ...disk, name }) as (typeof point.disks)[0]);
    const bytes = encodeObject({ ...point, disks });
    expect(await codeOf(() => parsePoint(bytes, point.id))).toBe('ERR_CORRUPT_OBJECT');
  });

  test.each([
    ['nul', '_nul'],
    ['CON.2', '_CON.2'],
    ['aux', '_aux'],
    ['Com1', '_Com1'],
    ['lpt³', '_lpt³'],
    ['conin$', '_conin$'],
    ['console', 'console'],
    ['com', 'com'],
    ['nullify.nul', 'nullify.nul'],
  ])('%s, which may be a device on Windows, becomes the file %s', (name, file) => {
    expect(isDiskName(name)).toBe(true);
    expect(restoredName(name)).toBe(file);
  });
});

describe('a hostile point', () => {
  test('restores nothing, anywhere, and hides no other point', async () => {
    const repository = await newRepository();
    const content = makeContent(20, 1);
    await backup(repository, { disks: [await rawDisk(content)], vm: 'vm' });
    const id = 'd'.repeat(32);
    await sealHostile(repository, id, ['../../escaped']);
    const base = await temporaryFolder();
    const to = path.join(base, 'a/b');
    await mkdir(to, { recursive: true });
    await expect(restore(repository, { point: id, to })).rejects.toMatchObject({
      code: 'ERR_CORRUPT_OBJECT',
    });
    expect(await readdir(base, { recursive: true })).toEqual(['a', 'a/b']);
    const damaged: string[] = [];
    const points = await repository.points((name) => damaged.push(String(name)));
    expect(points).toHaveLength(1);
    expect(damaged).toHaveLength(1);
  });

  test('restores a disk that is called as a device under a name that is none', async () => {
    const repository = await newRepository();
    const content = makeContent(20, 1);
    await backup(repository, { disks: [{ path: await rawDisk(content), name: 'aux' }], vm: 'vm' });
    const to = await temporaryFolder();
    const { disks } = await restore(repository, { point: 'latest', to });
    expect(disks.map((disk) => disk.path)).toEqual([path.join(to, '_aux.raw')]);
    expect((await readFile(path.join(to, '_aux.raw'))).equals(content)).toBe(true);
  });
});

describe.skipIf(!posix)('a restore into a folder where others can make names', () => {
  test('never writes through a link', async () => {
    const repository = await newRepository();
    const content = makeContent(20, 1);
    await backup(repository, { disks: [{ path: await rawDisk(content), name: 'web' }], vm: 'vm' });
    const precious = path.join(await temporaryFolder(), 'precious');
    await writeFile(precious, 'precious');
    const missing = path.join(await temporaryFolder(), 'missing');
    for (const aim of [precious, missing]) {
      const to = await temporaryFolder();
      const link = path.join(to, 'web.raw');
      await symlink(aim, link);
      await expect(restore(repository, { point: 'latest', to })).rejects.toMatchObject({
        code: 'ERR_EXISTS',
      });
      expect(await readlink(link)).toBe(aim);
      // When it may be replaced, it is the link that goes, not what it leads to.
      await restore(repository, { point: 'latest', to, force: true });
      expect((await readFile(link)).equals(content)).toBe(true);
      expect((await stat(link)).isFile()).toBe(true);
    }
    expect(await readFile(precious, 'utf8')).toBe('precious');
    expect(existsSync(missing)).toBe(false);
  });

  test('nor does a rescue, whatever lies where its unfinished file might', async () => {
    const repository = await newRepository();
    const content = makeContent(20, 1);
    await backup(repository, { disks: [{ path: await rawDisk(content), name: 'web' }], vm: 'vm' });
    const precious = path.join(await temporaryFolder(), 'precious');
    await writeFile(precious, 'precious');
    const to = path.join(await temporaryFolder(), 'web.raw');
    await symlink(precious, `${to}.partial`);
    const rescue = await Rescue.open(repository.path);
    await rescue.restore({ point: 'latest', to });
    expect((await readFile(to)).equals(content)).toBe(true);
    expect(await readFile(precious, 'utf8')).toBe('precious');
  });
});

describe.skipIf(!posix)('what is made', () => {
  test('is closed to everybody outside the owner and the group, whatever the umask allows', async () => {
    const before = process.umask(0);
    try {
      const repository = await newRepository();
      await backup(repository, { disks: [await rawDisk(makeContent(20, 1))], vm: 'vm' });
      const to = await temporaryFolder();
      const { disks } = await restore(repository, { point: 'latest', to });
      const made = (await readdir(repository.path, { recursive: true })).map((name) =>
        path.join(repository.path, name),
      );
      expect(made.length).toBeGreaterThan(8);
      for (const file of [repository.path, ...made, ...disks.map((disk) => disk.path)]) {
        expect([file, (await stat(file)).mode & 0o027]).toEqual([file, 0]);
      }
    } finally {
      process.umask(before);
    }
  });
});
