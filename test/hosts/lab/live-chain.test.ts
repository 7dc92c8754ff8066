/**
 * Goal: a chain reads the same whatever is merged in it, while the guest writes on and when a merge dies. Method: a model in memory against
 * the chain and against the engine's own reading, through random writes between the steps of a merge; and merges that die at each of their
 * operations on files, looked at by the engine and then begun again.
 */

import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test, vi } from 'vitest';
import { ImageFile } from '../../../src/hosts/lab/image-file.js';
import { LiveChain } from '../../../src/hosts/lab/live-chain.js';
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
  type Shape,
} from './images.js';

const SHAPE: Shape = { sizeBytes: 5 * MIB, blockBytes: 2 * MIB, sectorBytes: 512 };

/** A chain of `depth` layers with random content in each, and that content. The base is the last path. */
async function makeChain(
  folder: string,
  depth: number,
  shape = SHAPE,
): Promise<{ paths: string[]; model: Buffer }> {
  const model = Buffer.alloc(shape.sizeBytes);
  const paths: string[] = [];
  for (let number = 0; number < depth; number++) {
    const file = path.join(folder, number === 0 ? 'base.vhdx' : `layer ${number} & more.avhdx`);
    const [parent] = paths;
    if (parent === undefined) await createBase(file, shape);
    else await createChild(file, parent, shape, number % 2 === 0 ? MIB : 2 * MIB);
    paths.unshift(file);
    const layer = LiveLayer.open(file, { write: true });
    for (const write of fc.sample(arbitraryWrite(shape), 5)) {
      layer.write(write.offset, bytesOf(write));
      applyTo(model, write);
    }
    layer.flush();
    layer.close();
  }
  return { paths, model };
}

function writeSome(chain: LiveChain, model: Buffer, count: number, shape = SHAPE): void {
  for (const write of fc.sample(arbitraryWrite(shape), count)) {
    chain.write(write.offset, bytesOf(write));
    applyTo(model, write);
  }
}

function contentOf(chain: LiveChain): Buffer {
  return chain.read(0, chain.sizeBytes);
}

/** Merges all at once, as when the guest is held. */
function mergeNow(chain: LiveChain, layer: string): void {
  const merge = chain.beginMerge(layer);
  while (!merge.copySome());
  chain.bypassMerged();
  chain.dropMerged();
}

test.each([
  [2, 0],
  [3, 0],
  [3, 1],
  [4, 1],
  [4, 2],
])(
  'of %i layers, the one with %i above it is merged while the guest writes on',
  async (depth, above) => {
    for (let round = 0; round < 3; round++) {
      const { paths, model } = await makeChain(await temporaryFolder(), depth);
      const chain = LiveChain.open(paths);
      onTestFinished(() => chain.close());
      const doomed = paths[above] ?? '';
      const merge = chain.beginMerge(doomed);
      do {
        writeSome(chain, model, 2);
        expect(contentOf(chain).equals(model)).toBe(true);
        if (round === 1) chain.flush();
      } while (!merge.copySome());
      writeSome(chain, model, 2);
      chain.bypassMerged();
      expect(chain.dropMerged()).toBe(doomed);
      expect(chain.paths).toEqual(paths.filter((file) => file !== doomed));
      expect(contentOf(chain).equals(model)).toBe(true);
      writeSome(chain, model, 3);
      chain.flush();
      chain.close();
      const [top = ''] = chain.paths;
      await writeFile(doomed, 'gone');
      expect((await engineContent(top)).equals(model)).toBe(true);
      await expectSound(top);
    }
  },
);

test('a merge that was abandoned changes nothing, and the next one completes', async () => {
  const { paths, model } = await makeChain(await temporaryFolder(), 3);
  const chain = LiveChain.open(paths);
  const [top = '', middle = ''] = paths;
  for (const layer of [top, middle, top]) {
    const merge = chain.beginMerge(layer);
    merge.copySome();
    writeSome(chain, model, 2);
    chain.abandonMerge();
    writeSome(chain, model, 2);
    chain.flush();
    expect(contentOf(chain).equals(model)).toBe(true);
    expect((await engineContent(top)).equals(model)).toBe(true);
    await expectSound(top);
  }
  mergeNow(chain, middle);
  mergeNow(chain, top);
  expect(chain.paths).toHaveLength(1);
  writeSome(chain, model, 1);
  chain.flush();
  chain.close();
  expect((await engineContent(chain.paths[0] ?? '')).equals(model)).toBe(true);
});

test('a new layer takes the writes, and the one below does not change any more', async () => {
  const folder = await temporaryFolder();
  const { paths, model } = await makeChain(folder, 2);
  const chain = LiveChain.open(paths);
  writeSome(chain, model, 3);
  chain.flush();
  const below = Buffer.from(model);
  const [old = ''] = paths;
  const child = path.join(folder, 'new.avhdx');
  await createChild(child, old, SHAPE);
  chain.push(child);
  const bytes = await readFile(old);
  writeSome(chain, model, 5);
  chain.flush();
  expect((await readFile(old)).equals(bytes)).toBe(true);
  expect((await engineContent(old)).equals(below)).toBe(true);
  expect((await engineContent(child)).equals(model)).toBe(true);
  chain.close();
});

test('a layer taken away again before anything was written to it leaves the chain as it was', async () => {
  const folder = await temporaryFolder();
  const { paths, model } = await makeChain(folder, 1);
  const chain = LiveChain.open(paths);
  const child = path.join(folder, 'new.avhdx');
  await createChild(child, paths[0] ?? '', SHAPE);
  chain.push(child);
  chain.pop();
  expect(chain.paths).toEqual(paths);
  writeSome(chain, model, 3);
  chain.flush();
  chain.close();
  expect((await engineContent(paths[0] ?? '')).equals(model)).toBe(true);
});

test('a chain whose parent was changed behind its back is refused', async () => {
  const { paths } = await makeChain(await temporaryFolder(), 2);
  const base = LiveLayer.open(paths[1] ?? '', { write: true });
  base.replaceDataWriteGuid(newGuid());
  base.close();
  expect(() => LiveChain.open(paths)).toThrow(
    expect.objectContaining({ code: 'ERR_PARENT_MISMATCH' }),
  );
  expect(() => LiveChain.open(paths.slice(0, 1))).toThrow(
    expect.objectContaining({ code: 'ERR_PARENT_NOT_FOUND' }),
  );
});

test('a merge for which there is no room leaves chain and guest as they were', async () => {
  const folder = await temporaryFolder();
  const [layer, base] = [path.join(folder, 'child.avhdx'), path.join(folder, 'base.vhdx')];
  await createBase(base, SHAPE);
  await createChild(layer, base, SHAPE);
  let full = false;
  const chain = LiveChain.open([layer, base], () => {
    if (full) throw new Error('full');
  });
  const model = Buffer.alloc(SHAPE.sizeBytes, 77);
  chain.write(0, model);
  const merge = chain.beginMerge(layer);
  merge.copySome();
  full = true;
  expect(() => {
    while (!merge.copySome());
  }).toThrow('full');
  chain.abandonMerge();
  chain.write(512, Buffer.alloc(512, 78));
  model.fill(78, 512, 1024);
  chain.flush();
  expect((await engineContent(layer)).equals(model)).toBe(true);
  full = false;
  mergeNow(chain, layer);
  chain.close();
  expect((await engineContent(base)).equals(model)).toBe(true);
});

test('a room that ends while the guest writes to what was merged ends the merge, not the guest', async () => {
  const folder = await temporaryFolder();
  const paths = [path.join(folder, 'child.avhdx'), path.join(folder, 'base.vhdx')] as const;
  const shape = { sizeBytes: 8 * MIB, blockBytes: MIB, sectorBytes: 512 };
  await createBase(paths[1], shape);
  await createChild(paths[0], paths[1], shape, 2 * MIB);
  let full = false;
  const chain = LiveChain.open(paths, () => {
    if (full) throw new Error('full');
  });
  // The child has room for all of its first block, the parent for the first MiB of it.
  chain.write(0, Buffer.alloc(512, 1));
  chain.write(7 * MIB, Buffer.alloc(512, 1));
  const merge = chain.beginMerge(paths[0]);
  merge.copySome();
  merge.copySome();
  full = true;
  chain.write(MIB + 512, Buffer.alloc(512, 2));
  expect(() => merge.copySome()).toThrow('full');
  chain.abandonMerge();
  expect(chain.read(MIB + 512, 512)).toEqual(Buffer.alloc(512, 2));
  chain.flush();
  chain.close();
  await expectSound(paths[0]);
});

// --- Merges that die ---

class Death extends Error {}

/** Runs `work` in which every operation on a file from the `count`th on fails. True if it died. */
function dyingAt(count: number, work: () => void): boolean {
  let left = count;
  const spies = (['writeAt', 'setSize', 'sync'] as const).map((name) => {
    const real = ImageFile.prototype[name] as (...parameters: unknown[]) => void;
    return vi.spyOn(ImageFile.prototype, name).mockImplementation(function (
      this: ImageFile,
      ...parameters: unknown[]
    ) {
      left--;
      if (left < 0) throw new Death();
      real.apply(this, parameters);
    });
  });
  try {
    work();
    return false;
  } catch (error) {
    if (!(error instanceof Death)) throw error;
    return true;
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

test.each([
  ['the top layer', 2, 0],
  ['a layer in the middle', 3, 1],
])(
  'a merge of %s that dies at any moment leaves a chain that reads the same and merges',
  async (_name, depth, above) => {
    const shape = { sizeBytes: 3 * MIB, blockBytes: MIB, sectorBytes: 512 };
    const { paths, model } = await makeChain(await temporaryFolder(), depth, shape);
    const doomed = paths[above] ?? '';
    const [top = ''] = paths;
    const originals = await Promise.all(paths.map((file) => readFile(file)));
    let died = true;
    for (let count = 0; died; count++) {
      for (const [index, file] of paths.entries()) await writeFile(file, originals[index] ?? '');
      const chain = LiveChain.open(paths);
      died = dyingAt(count, () => {
        const merge = chain.beginMerge(doomed);
        while (!merge.copySome());
        chain.bypassMerged();
      });
      chain.close();
      // By the paths that the layers name, and with the layers given, as a backup has them.
      await expectSound(top);
      expect((await engineContent(top)).equals(model), `by path, dead at ${count}`).toBe(true);
      const given = await engineContent(top, paths.slice(1));
      expect(given.equals(model), `given, dead at ${count}`).toBe(true);

      const again = LiveChain.open(paths);
      mergeNow(again, doomed);
      expect(contentOf(again).equals(model), `merged, dead at ${count}`).toBe(true);
      again.flush();
      const rest = again.paths;
      again.close();
      await writeFile(doomed, 'gone');
      expect((await engineContent(rest[0] ?? '')).equals(model)).toBe(true);
      await expectSound(rest[0] ?? '');
    }
  },
);
