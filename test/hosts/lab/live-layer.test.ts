/**
 * Goal: what is written in place is what the engine reads, and an image is valid at every moment. Method: writes of all kinds, into images of
 * several shapes, against a model in memory; and deaths, of which there are two kinds: a process that is killed has done a prefix of its
 * operations on the file, a computer that loses its power also lacks any of those since the last sync. Both are made from a record of the
 * real operations and read by the engine.
 */

import { copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { ImageFile } from '../../../src/hosts/lab/image-file.js';
import { LiveLayer } from '../../../src/hosts/lab/live-layer.js';
import { newGuid } from '../../../src/hosts/lab/vhdx-tables.js';
import { temporaryFolder } from '../../helpers/folder.js';
import {
  applyTo,
  arbitraryWrite,
  bytesOf,
  createBase,
  createChild,
  engineContent,
  expectSound,
  MIB,
  SHAPES,
  type Shape,
  type Write,
} from './images.js';

const nameOf = ({ blockBytes, sectorBytes }: Shape) =>
  `blocks of ${blockBytes / MIB} MiB and sectors of ${sectorBytes}`;

describe.each(SHAPES.map((shape) => [nameOf(shape), shape] as const))('with %s', (_name, shape) => {
  test('the engine reads what was written into a dynamic image, over several sessions', async () => {
    const file = path.join(await temporaryFolder(), 'base.vhdx');
    await createBase(file, shape);
    const model = Buffer.alloc(shape.sizeBytes);
    for (const writes of fc.sample(
      fc.array(arbitraryWrite(shape), { minLength: 3, maxLength: 12 }),
      4,
    )) {
      const layer = LiveLayer.open(file, { write: true });
      for (const write of writes) {
        layer.write(write.offset, bytesOf(write));
        applyTo(model, write);
      }
      layer.flush();
      layer.close();
      expect((await engineContent(file)).equals(model), JSON.stringify(writes)).toBe(true);
      await expectSound(file);
    }
  });

  test('the engine reads what was written into a differencing image over its parent', async () => {
    const folder = await temporaryFolder();
    const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
    await createBase(base, shape);
    const model = Buffer.alloc(shape.sizeBytes);
    const [below = [], ...rounds] = fc.sample(
      fc.array(arbitraryWrite(shape), { minLength: 4, maxLength: 12 }),
      4,
    );
    writeAll(base, below, model);
    await createChild(child, base, shape);
    for (const writes of rounds) {
      writeAll(child, writes, model);
      expect((await engineContent(child)).equals(model), JSON.stringify([below, writes])).toBe(
        true,
      );
      await expectSound(child);
    }
  });
});

function writeAll(file: string, writes: readonly Write[], model: Buffer): void {
  const layer = LiveLayer.open(file, { write: true });
  for (const write of writes) {
    layer.write(write.offset, bytesOf(write));
    applyTo(model, write);
  }
  layer.flush();
  layer.close();
}

test('a differencing image over 4 GiB has a sector bitmap for each chunk that needs one', async () => {
  const folder = await temporaryFolder();
  const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
  const shape = { sizeBytes: 9 * 1024 * MIB, blockBytes: 2 * MIB, sectorBytes: 512 };
  await createBase(base, shape);
  await createChild(child, base, shape);
  const places = [0, 4096 * MIB - 512, 4096 * MIB, 8192 * MIB + 1024, shape.sizeBytes - 512];
  const layer = LiveLayer.open(child, { write: true });
  for (const [index, place] of places.entries()) layer.write(place, Buffer.alloc(512, index + 1));
  layer.flush();
  layer.close();
  await expectSound(child);
  const again = LiveLayer.open(child, { write: false });
  for (const [index, place] of places.entries()) {
    const [run] = again.runs(place, 512);
    const bytes = Buffer.alloc(512);
    if (run?.kind === 'data') again.readRun(run, 0, bytes);
    expect(bytes).toEqual(Buffer.alloc(512, index + 1));
  }
  again.close();
});

test('zeros hide what the parent has, in a part of a block and in a whole one', async () => {
  const folder = await temporaryFolder();
  const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
  const shape = { sizeBytes: 8 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(base, shape);
  const model = Buffer.alloc(shape.sizeBytes);
  writeAll(base, [{ offset: 0, length: 8 * MIB, fill: 7 }], model);
  await createChild(child, base, shape, MIB);
  const layer = LiveLayer.open(child, { write: true });
  for (const [offset, length] of [
    [512, 1024],
    [2 * MIB, 2 * MIB],
    [5 * MIB - 512, MIB + 1024],
  ] as const) {
    layer.writeZeros(offset, length);
    model.fill(0, offset, offset + length);
  }
  // Into a block that reads as zero: the rest of it must not become the parent's.
  layer.write(2 * MIB + 4096, Buffer.alloc(512, 9));
  model.fill(9, 2 * MIB + 4096, 2 * MIB + 4608);
  layer.flush();
  layer.close();
  expect((await engineContent(child)).equals(model)).toBe(true);
  await expectSound(child);
});

test('the identity of the content changes with the first write of a session, and only with it', async () => {
  const file = path.join(await temporaryFolder(), 'base.vhdx');
  const shape = { sizeBytes: 4 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(file, shape);
  const bytes = await readFile(file);
  const reader = LiveLayer.open(file, { write: true });
  const first = reader.dataWriteGuid;
  reader.flush();
  reader.close();
  expect((await readFile(file)).equals(bytes)).toBe(true);

  const layer = LiveLayer.open(file, { write: true });
  layer.write(0, Buffer.alloc(512, 1));
  const second = layer.dataWriteGuid;
  layer.write(512, Buffer.alloc(512, 1));
  expect(second).not.toBe(first);
  expect(layer.dataWriteGuid).toBe(second);
  layer.flush();
  layer.close();
  await expectSound(file);
});

test('a parent locator is replaced in place, again and again, and the engine follows it', async () => {
  const folder = await temporaryFolder();
  const shape = { sizeBytes: 4 * MIB, blockBytes: MIB, sectorBytes: 512 };
  const [base, other, child] = ['base.vhdx', 'übrige & co.vhdx', 'child.avhdx'].map((name) =>
    path.join(folder, name),
  ) as [string, string, string];
  await createBase(base, shape);
  await createChild(child, base, shape);
  await copyFile(base, other);
  for (let round = 0; round < 6; round++) {
    const [to, linkage] = round % 2 === 0 ? [other, newGuid()] : [base, newGuid()];
    const parent = LiveLayer.open(to, { write: true });
    parent.replaceDataWriteGuid(linkage);
    parent.close();
    const layer = LiveLayer.open(child, { write: true });
    const locator = new Map(layer.locator);
    locator.set('relative_path', `.\\${path.basename(to)}`);
    locator.set('parent_linkage', `{${linkage}}`);
    layer.replaceLocator(locator);
    expect(layer.locator).toEqual(locator);
    layer.close();
    await expectSound(child);
  }
});

test('what is no VHDX, or a damaged one, is refused', async () => {
  const folder = await temporaryFolder();
  const file = path.join(folder, 'base.vhdx');
  const shape = { sizeBytes: 4 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(file, shape);
  const layer = LiveLayer.open(file, { write: true });
  layer.write(0, Buffer.alloc(512, 1));
  layer.flush();
  layer.close();
  const good = await readFile(file);
  const open = async (change: (bytes: Buffer) => Buffer) => {
    await writeFile(file, change(Buffer.from(good)));
    LiveLayer.open(file, { write: false }).close();
  };
  await expect(open(() => Buffer.from('short'))).rejects.toMatchObject({
    code: 'ERR_DISK_INVALID',
  });
  await expect(
    open((bytes) => bytes.fill(0, 65536, 65540) && bytes.fill(1, 131072, 131080)),
  ).rejects.toMatchObject({ code: 'ERR_DISK_INVALID' });
  await expect(open((bytes) => bytes.subarray(0, bytes.length - MIB))).rejects.toMatchObject({
    code: 'ERR_DISK_INVALID',
  });
  await expect(open((bytes) => bytes.fill(255, 3 * MIB + 4, 3 * MIB + 8))).rejects.toMatchObject({
    code: 'ERR_DISK_INVALID',
  });
  await expect(open((bytes) => bytes)).resolves.toBeUndefined();
});

test('writes that are no whole sectors, or outside the disk, are refused', async () => {
  const file = path.join(await temporaryFolder(), 'base.vhdx');
  await createBase(file, { sizeBytes: 4 * MIB, blockBytes: MIB, sectorBytes: 512 });
  const layer = LiveLayer.open(file, { write: true });
  onTestFinished(() => layer.close());
  for (const [offset, length] of [
    [1, 512],
    [0, 100],
    [4 * MIB, 512],
    [-512, 512],
  ] as const) {
    expect(() => layer.write(offset, Buffer.alloc(length))).toThrow('whole sectors');
  }
});

test('a write that needs room that is not there leaves the disk as it was', async () => {
  const folder = await temporaryFolder();
  const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
  const shape = { sizeBytes: 8 * MIB, blockBytes: 2 * MIB, sectorBytes: 512 };
  await createBase(base, shape);
  const model = Buffer.alloc(shape.sizeBytes);
  writeAll(base, [{ offset: 0, length: shape.sizeBytes, fill: 3 }], model);
  await createChild(child, base, shape);
  let full = true;
  const layer = LiveLayer.open(child, {
    write: true,
    beforeGrowth: () => {
      if (full) throw new Error('full');
    },
  });
  expect(() => layer.write(4096, Buffer.alloc(512, 4))).toThrow('full');
  layer.flush();
  expect((await engineContent(child)).equals(model)).toBe(true);
  full = false;
  layer.write(4096, Buffer.alloc(512, 4));
  layer.flush();
  layer.close();
  model.fill(4, 4096, 4608);
  expect((await engineContent(child)).equals(model)).toBe(true);
  await expectSound(child);
});

// --- Deaths ---

type Operation =
  | { kind: 'write'; offset: number; bytes: Buffer }
  | { kind: 'resize'; bytes: number }
  | { kind: 'sync' }
  /** The disk's content is promised to be this from here on; so many writes were done. */
  | { kind: 'flushed'; content: Buffer; writes: number };

/** Records what is done to files while `work` runs, in order. */
async function record(
  work: (note: (content: Buffer, writes: number) => void) => void,
): Promise<Operation[]> {
  const operations: Operation[] = [];
  const { writeAt, setSize, sync } = ImageFile.prototype;
  const spies = [
    vi.spyOn(ImageFile.prototype, 'writeAt').mockImplementation(function (
      this: ImageFile,
      offset,
      bytes,
    ) {
      operations.push({ kind: 'write', offset, bytes: Buffer.from(bytes) });
      writeAt.call(this, offset, bytes);
    }),
    vi.spyOn(ImageFile.prototype, 'setSize').mockImplementation(function (this: ImageFile, bytes) {
      operations.push({ kind: 'resize', bytes });
      setSize.call(this, bytes);
    }),
    vi.spyOn(ImageFile.prototype, 'sync').mockImplementation(function (this: ImageFile) {
      sync.call(this);
      operations.push({ kind: 'sync' });
    }),
  ];
  try {
    work((content, writes) =>
      operations.push({ kind: 'flushed', content: Buffer.from(content), writes }),
    );
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
  return operations;
}

/** The file after a death: all operations up to `end`, without those since the last sync that `survives` denies. */
async function fileAfterDeath(
  file: string,
  before: Buffer,
  operations: readonly Operation[],
  survives: (operation: Operation) => boolean,
): Promise<void> {
  const synced = operations.findLastIndex((operation) => operation.kind === 'sync');
  let bytes: Buffer = Buffer.from(before);
  for (const [index, operation] of operations.entries()) {
    if (index > synced && !survives(operation)) continue;
    if (operation.kind === 'resize') {
      bytes = Buffer.concat([bytes, Buffer.alloc(Math.max(0, operation.bytes - bytes.length))]);
      bytes = bytes.subarray(0, operation.bytes);
    } else if (operation.kind === 'write') {
      const end = operation.offset + operation.bytes.length;
      if (end > bytes.length) bytes = Buffer.concat([bytes, Buffer.alloc(end - bytes.length)]);
      operation.bytes.copy(bytes, operation.offset);
    }
  }
  await writeFile(file, bytes);
  await truncate(file, Math.ceil(bytes.length / 4096) * 4096);
}

async function deaths(powerLoss: boolean): Promise<void> {
  const folder = await temporaryFolder();
  const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
  const shape = { sizeBytes: 6 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(base, shape);
  const model = Buffer.alloc(shape.sizeBytes);
  writeAll(base, [{ offset: 0, length: shape.sizeBytes, fill: 200 }], model);
  await createChild(child, base, shape, MIB);
  const before = await readFile(child);
  const start = Buffer.from(model);
  const writes = fc.sample(arbitraryWrite(shape), 24);
  const operations = await record((note) => {
    const layer = LiveLayer.open(child, { write: true });
    for (const [index, write] of writes.entries()) {
      layer.write(write.offset, bytesOf(write));
      applyTo(model, write);
      if (index % 4 !== 3) continue;
      layer.flush();
      note(model, index + 1);
    }
    layer.close();
  });
  expect((await engineContent(child)).equals(model)).toBe(true);

  const ends = operations.map((_operation, index) => index + 1);
  const parity = Math.floor(Math.random() * 2);
  const chosen = ends.filter((end) => end % 2 === parity);
  for (const end of chosen) {
    const done = operations.slice(0, end);
    await fileAfterDeath(child, before, done, () => !powerLoss || Math.random() < 0.5);
    const flushed = done.findLast((operation) => operation.kind === 'flushed');
    const [old, first] =
      flushed?.kind === 'flushed' ? [flushed.content, flushed.writes] : [start, 0];
    await expectSound(child);
    const content = await engineContent(child);
    // No more than four writes are done between two flushes.
    const since = writes.slice(first, first + 4);
    expectEachSectorFrom(content, old, since, `after operation ${end}`);
  }
}

// A sector holds what was promised, or what a write since has put there; writes are told apart by their fill.
function expectEachSectorFrom(
  content: Buffer,
  old: Buffer,
  writes: readonly Write[],
  where: string,
): void {
  for (let at = 0; at < content.length; at += 512) {
    const sector = content.subarray(at, at + 512);
    if (sector.equals(old.subarray(at, at + 512))) continue;
    const possible = writes.some(
      (write) =>
        write.offset <= at &&
        at + 512 <= write.offset + write.length &&
        sector.equals(Buffer.alloc(512, write.fill)),
    );
    expect(possible, `${where}, sector at ${at}`).toBe(true);
  }
}

test('a kill at any moment leaves a valid image, with all that was flushed', () => deaths(false));

test('a loss of power at any moment leaves a valid image, with all that was flushed', () =>
  deaths(true));

test.each([
  ['dynamic', false],
  ['differencing', true],
])('a %s image shows nothing later of what a killed session had begun', async (_kind, isChild) => {
  const folder = await temporaryFolder();
  const [base, child] = [path.join(folder, 'base.vhdx'), path.join(folder, 'child.avhdx')];
  const shape = { sizeBytes: 4 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(base, shape);
  if (isChild) {
    writeAll(base, [{ offset: 0, length: shape.sizeBytes, fill: 5 }], Buffer.alloc(4 * MIB));
    await createChild(child, base, shape, MIB);
  }
  const file = isChild ? child : base;
  const before = await readFile(file);
  const operations = await record(() => {
    const layer = LiveLayer.open(file, { write: true });
    layer.write(MIB + 4096, Buffer.alloc(65536, 9));
    layer.flush();
    layer.close();
  });
  for (const end of operations.keys()) {
    await fileAfterDeath(file, before, operations.slice(0, end), () => true);
    await expectGoesOnAt(file, MIB + 8192);
  }
});

async function expectGoesOnAt(file: string, offset: number): Promise<void> {
  const model = await engineContent(file);
  writeAll(file, [{ offset, length: 512, fill: 17 }], model);
  expect((await engineContent(file)).equals(model)).toBe(true);
  await expectSound(file);
}
