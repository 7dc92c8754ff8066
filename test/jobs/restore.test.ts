import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import type { DiskIdentity } from '../../src/engine/binding.js';
import { loadEngine } from '../../src/engine/engine.js';
import { backup } from '../../src/jobs/backup.js';
import { inspectDisk } from '../../src/jobs/disk.js';
import { restore } from '../../src/jobs/restore.js';
import type { TargetFormat } from '../../src/jobs/target.js';
import { packFile } from '../../src/repository/format/names.js';
import { diskContent, imageOf, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 1024 * 1024;

describe('restore', () => {
  test.each([
    { kind: 'dynamic' as const, blockBytes: 2 * MIB },
    { kind: 'fixed' as const, blockBytes: 32 * MIB },
    { kind: 'dynamic' as const, blockBytes: MIB, logicalSectorBytes: 4096 },
  ])('a VHDX comes back as the same disk: %j', async (identity) => {
    const repository = await newRepository();
    const content = makeContent(6000, 3);
    const image = await imageOf(content, 'system.vhdx', identity);
    const { disks } = await backup(repository, { disks: [image] });
    const to = await temporaryFolder();
    const restored = await restore(repository, { point: 'latest:system', to });
    const file = path.join(to, 'system.vhdx');
    expect(restored.disks.map((disk) => disk.path)).toEqual([file]);
    expect((await diskContent(file)).equals(content)).toBe(true);
    const { layers } = await inspectDisk(file);
    expect(layers[0]?.identity).toEqual(disks[0]?.identity);
    expect(layers[0]?.identity).toMatchObject(identity);
    expect(layers[0]?.findings.filter((finding) => finding.severity !== 'info')).toEqual([]);
  });

  test.each<[TargetFormat, string, string]>([
    ['raw', 'system.raw', 'fixed'],
    ['vhd', 'system.vhd', 'dynamic'],
    ['vhdx', 'system.vhdx', 'dynamic'],
    ['vhdx-fixed', 'system.vhdx', 'fixed'],
  ])('in format %s it makes %s, %s, with the same content and id', async (format, name, kind) => {
    const repository = await newRepository();
    const content = makeContent(5000, 4);
    const image = await imageOf(content, 'system.vhdx', {});
    const original = (await backup(repository, { disks: [image] })).disks[0]?.identity;
    const to = path.join(await temporaryFolder(), 'new', 'folder');
    await restore(repository, { point: 'latest', to, format });
    expect(await readdir(to)).toEqual([name]);
    const file = path.join(to, name);
    expect((await diskContent(file)).equals(content)).toBe(true);
    const { layers } = await inspectDisk(file);
    expect(layers[0]?.identity.kind).toBe(kind);
    if (format !== 'raw') expect(layers[0]?.identity.diskId).toBe(original?.diskId);
  });

  test('a raw disk comes back raw by default, byte for byte, whatever its size', async () => {
    const repository = await newRepository();
    for (const [pages, tail] of [
      [1, 0],
      [700, 512],
      [2048, 1536],
    ] as const) {
      const content = makeContent(pages, pages + 1, tail);
      await backup(repository, { disks: [await rawDisk(content)] });
      const to = path.join(await temporaryFolder(), 'x.raw');
      await restore(repository, { point: 'latest', to });
      expect((await readFile(to)).equals(content)).toBe(true);
    }
  });

  test("a differencing disk's whole chain comes back as one dynamic disk", async () => {
    const repository = await newRepository();
    const content = makeContent(3000, 5);
    const parent = await imageOf(content, 'parent.vhdx', {});
    const child = path.join(path.dirname(parent), 'child.vhdx');
    const identity = (await inspectDisk(parent)).layers[0]?.identity as DiskIdentity;
    await loadEngine().createDisk(child, { ...identity, kind: 'differencing' }, parent, false);
    await backup(repository, { disks: [child] });
    const to = path.join(await temporaryFolder(), 'whole.vhdx');
    const restored = await restore(repository, { point: 'latest:child', to });
    expect(restored.disks[0]?.identity).toMatchObject({ kind: 'dynamic', diskId: identity.diskId });
    expect((await diskContent(to)).equals(content)).toBe(true);
  });

  test('all disks go to a folder; one of them, by its name, to a file', async () => {
    const repository = await newRepository();
    const system = makeContent(500, 6);
    const data = makeContent(900, 7);
    await backup(repository, {
      disks: [await rawDisk(system, 'system.raw'), await imageOf(data, 'data.vhdx', {})],
    });
    const to = await temporaryFolder();
    await restore(repository, { point: 'latest', to });
    expect((await readdir(to)).sort()).toEqual(['data.vhdx', 'system.raw']);
    expect((await diskContent(path.join(to, 'data.vhdx'))).equals(data)).toBe(true);
    const file = path.join(to, 'copy.raw');
    await restore(repository, { point: 'latest', disk: 'data', to: file });
    expect((await readFile(file)).equals(data)).toBe(true);
    const both = () => restore(repository, { point: 'latest', to: path.join(to, 'both.raw') });
    expect(await codeOf(both)).toBe('ERR_INVALID_ARGUMENT');
    const missing = () => restore(repository, { point: 'latest', disk: 'swap', to: file });
    expect(await codeOf(missing)).toBe('ERR_NOT_FOUND');
  });

  test('replaces nothing unless told to, and then looks at all targets before it writes one', async () => {
    const repository = await newRepository();
    await backup(repository, {
      disks: [await rawDisk(makeContent(5, 1), 'a.raw'), await rawDisk(makeContent(5, 2), 'b.raw')],
    });
    const to = await temporaryFolder();
    await writeFile(path.join(to, 'b.raw'), 'precious');
    expect(await codeOf(() => restore(repository, { point: 'latest', to }))).toBe('ERR_EXISTS');
    expect(await readdir(to)).toEqual(['b.raw']);
    expect((await readFile(path.join(to, 'b.raw'))).toString()).toBe('precious');
    await restore(repository, { point: 'latest', to, force: true });
    expect((await readFile(path.join(to, 'b.raw'))).equals(makeContent(5, 2))).toBe(true);
  });

  test('does not replace a folder that stands where the image should', async () => {
    const repository = await newRepository();
    await backup(repository, { disks: [await rawDisk(makeContent(5, 1), 'a.raw')] });
    const to = await temporaryFolder();
    await mkdir(path.join(to, 'a.raw'));
    await writeFile(path.join(to, 'a.raw', 'inside'), '');
    const forced = () => restore(repository, { point: 'latest', to, force: true });
    await expect(forced()).rejects.toMatchObject({ name: expect.stringMatching(/Error$/) });
    expect(await readdir(path.join(to, 'a.raw'))).toEqual(['inside']);
  });

  test('damage is an error, and no image is left that looks whole', async () => {
    const repository = await newRepository();
    await backup(repository, { disks: [await rawDisk(randomContent(2 * MIB), 'a.raw')] });
    for (const pack of await repository.packs()) {
      const file = path.join(repository.path, packFile(pack));
      const bytes = await readFile(file);
      // The pack of chunks; that of maps is smaller.
      if (bytes.length > MIB) await writeFile(file, bytes.fill(0, 100_000, 100_100));
    }
    const to = await temporaryFolder();
    expect(await codeOf(() => restore(repository, { point: 'latest', to }))).toBe(
      'ERR_CORRUPT_CHUNK',
    );
    expect(await readdir(to)).toEqual([]);
  });

  test('stops when told to, and leaves no image that looks whole', async () => {
    const repository = await newRepository();
    await backup(repository, { disks: [await rawDisk(randomContent(32 * MIB), 'a.raw')] });
    const to = await temporaryFolder();
    const controller = new AbortController();
    const stopped = () =>
      restore(repository, {
        point: 'latest',
        to,
        signal: controller.signal,
        // Half a minute, if it is not stopped.
        tuning: { bytesPerSecond: MIB },
        progressIntervalMs: 1,
        onProgress: () => controller.abort(),
      });
    expect(await codeOf(stopped)).toBe('ERR_ABORTED');
    expect(await readdir(to)).toEqual([]);
  });

  test('a point that names no disk of its size is refused', async () => {
    const repository = await newRepository();
    const { point } = await backup(repository, { disks: [await rawDisk(makeContent(50, 1))] });
    if (point === undefined) throw new Error('no point');
    await repository.store.delete(`points/${point.id}`);
    const disks = point.disks.map((disk) => ({ ...disk, sizeBytes: disk.sizeBytes * 2 }));
    await repository.seal({ ...point, disks });
    const to = path.join(await temporaryFolder(), 'x.raw');
    const failing = restore(repository, { point: 'latest', to });
    await expect(failing).rejects.toMatchObject({ code: 'ERR_CORRUPT_OBJECT' });
  });

  test('a raw disk that is not whole sectors comes back raw, and no other format takes it', async () => {
    const repository = await newRepository();
    const content = makeContent(10, 3, 100);
    await backup(repository, { disks: [await rawDisk(content, 'odd.raw')] });
    const to = await temporaryFolder();
    for (const format of ['vhd', 'vhdx', 'vhdx-fixed'] as const) {
      const failing = () => restore(repository, { point: 'latest', to, format });
      expect(await codeOf(failing)).toBe('ERR_UNSUPPORTED');
    }
    await restore(repository, { point: 'latest', to });
    expect((await readFile(path.join(to, 'odd.raw'))).equals(content)).toBe(true);
  });
});
