import { readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { copyDisk } from '../../src/jobs/copy.js';
import { inspectDisk } from '../../src/jobs/disk.js';
import { diskContent, imageOf, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { makeContent } from '../helpers/writer.js';

describe('copyDisk', () => {
  test('goes through every format and back without losing a byte or the id', async () => {
    const content = makeContent(5000, 13);
    let file = await imageOf(content, 'start.vhdx', {});
    const id = (await inspectDisk(file)).layers[0]?.identity.diskId;
    const folder = await temporaryFolder();
    for (const [number, name] of ['a.vhd', 'b.vhdx', 'c.vhdx', 'd.vhd'].entries()) {
      const target = path.join(folder, name);
      const format = number === 2 ? ('vhdx-fixed' as const) : undefined;
      const result = await copyDisk(file, target, { format });
      expect((await diskContent(target)).equals(content)).toBe(true);
      expect(result.identity.diskId).toBe(id);
      file = target;
    }
    await copyDisk(file, path.join(folder, 'end.raw'));
    expect((await readFile(path.join(folder, 'end.raw'))).equals(content)).toBe(true);
  });

  test('an unknown extension keeps the format of the source', async () => {
    const source = await imageOf(makeContent(50, 1), 'a.vhdx', {});
    const target = path.join(await temporaryFolder(), 'copy.backup');
    expect((await copyDisk(source, target)).identity.format).toBe('vhdx');
  });

  test('refuses to replace a file, and under no circumstances replaces the source', async () => {
    const content = makeContent(50, 2);
    const source = await rawDisk(content);
    const folder = await temporaryFolder();
    const target = path.join(folder, 'target.raw');
    await writeFile(target, 'precious');
    expect(await codeOf(() => copyDisk(source, target))).toBe('ERR_EXISTS');
    await copyDisk(source, target, { force: true });
    expect((await readFile(target)).equals(content)).toBe(true);
    const link = path.join(folder, 'link.raw');
    await symlink(source, link);
    for (const same of [source, link]) {
      expect(await codeOf(() => copyDisk(source, same, { force: true }))).toBe(
        'ERR_INVALID_ARGUMENT',
      );
    }
    expect((await readFile(source)).equals(content)).toBe(true);
  });

  test('a disk that a format cannot hold is refused', async () => {
    const source = await imageOf(makeContent(64, 3), 'a.vhdx', { logicalSectorBytes: 4096 });
    const target = path.join(await temporaryFolder(), 'b.vhd');
    expect(await codeOf(() => copyDisk(source, target))).toBe('ERR_UNSUPPORTED');
  });
});
