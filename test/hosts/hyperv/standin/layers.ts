/**
 * The stand-in's disks: real VHDX files, made with the engine.
 *
 * What a guest has written is kept as a list of pages for each layer, so a merge is: put the lists together and write the files anew. That is
 * not how Hyper-V merges, and need not be; what the files hold before and after is the same.
 */

import { randomUUID } from 'node:crypto';
import { open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { loadEngine } from '../../../../src/engine/engine.js';

export const DISK_BYTES = 8 * 1024 * 1024;
const PAGE_BYTES = 4096;
const MIB = 1024 * 1024;

/** Page number to the byte that fills it. */
export type Pages = Map<number, number>;

export interface Layer {
  path: string;
  pages: Pages;
}

/** A disk's chain, its base first. */
export interface StandinDisk {
  name: string;
  id: string;
  chain: Layer[];
  /** By tracking id, what was merged into the disk's layers since. */
  trackings: Map<string, (readonly [offset: number, length: number])[]>;
}

export async function makeDisk(name: string, base: string, seed: number): Promise<StandinDisk> {
  const pages: Pages = new Map();
  for (let page = 0; page < 40; page += 1)
    pages.set(page * 7 + seed, ((page * 13 + seed) % 255) + 1);
  const disk = { name, id: randomUUID(), chain: [{ path: base, pages }], trackings: new Map() };
  await writeLayer(disk.id, disk.chain, 0);
  return disk;
}

/** What a guest reads from the disk when its layers up to `top` are all there is. */
export function contentOf(disk: StandinDisk, top: Layer): Buffer {
  const content = Buffer.alloc(DISK_BYTES);
  for (const layer of disk.chain.slice(0, disk.chain.indexOf(top) + 1)) {
    for (const [page, value] of layer.pages) {
      content.fill(value, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
    }
  }
  return content;
}

export function topOf(disk: StandinDisk): Layer {
  const top = disk.chain.at(-1);
  if (top === undefined) throw new Error('a disk has a layer');
  return top;
}

/** Puts a new layer on top, into which the guest has written `pages` at once. */
export async function addLayer(disk: StandinDisk, pages: Pages): Promise<Layer> {
  const base = topOf({ ...disk, chain: disk.chain.slice(0, 1) }).path;
  const { dir, name } = path.parse(base);
  const layer = { path: path.join(dir, `${name}_${randomUUID().toUpperCase()}.avhdx`), pages };
  // A layer that can be seen has its file.
  await writeImage(layer.path, pages, disk.id, topOf(disk).path);
  disk.chain.push(layer);
  return layer;
}

/** Merges the layer above `frozen` into it. The chain changes at last, when all that it is to be then is in the files. */
export async function mergeAbove(disk: StandinDisk, frozen: Layer): Promise<void> {
  const index = disk.chain.indexOf(frozen);
  const child = disk.chain[index + 1];
  if (index < 0 || child === undefined) return;
  const ranges = await rangesOf(child, frozen);
  for (const written of disk.trackings.values()) written.push(...ranges);
  for (const [page, value] of child.pages) frozen.pages.set(page, value);
  const rest = disk.chain.filter((layer) => layer !== child);
  // What was above has a parent of another content now.
  for (let each = index; each < rest.length; each += 1) await writeLayer(disk.id, rest, each);
  await rm(child.path);
  disk.chain.splice(disk.chain.indexOf(child), 1);
}

/** What a layer's file holds of its own. */
async function rangesOf(layer: Layer, below: Layer) {
  const open = { parentFolders: [path.dirname(layer.path)], parents: [], format: '' as const };
  const engine = loadEngine();
  const base = (await engine.inspectDisk(below.path, open)).layers[0]?.dataWriteGuid ?? '';
  return (await engine.layerChanges(layer.path, open, 1, base)).ranges;
}

/** Writes a layer that is no part of the disk: a child of the file `parent` with `pages`. */
export async function writeChild(file: string, parent: string, pages: Pages): Promise<void> {
  await writeImage(file, pages, randomUUID(), parent);
}

async function writeLayer(id: string, chain: readonly Layer[], index: number): Promise<void> {
  const layer = chain[index];
  if (layer === undefined) throw new Error('there is no such layer');
  await writeImage(layer.path, layer.pages, id, chain[index - 1]?.path ?? '');
}

async function writeImage(file: string, pages: Pages, id: string, parent: string): Promise<void> {
  const raw = `${file}.raw`;
  const temporary = `${file}.new`;
  const handle = await open(raw, 'w');
  try {
    await handle.truncate(DISK_BYTES);
    for (const [page, value] of pages) {
      await handle.write(Buffer.alloc(PAGE_BYTES, value), 0, PAGE_BYTES, page * PAGE_BYTES);
    }
  } finally {
    await handle.close();
  }
  const session = loadEngine().startCopy({
    tuning: {
      workers: 1,
      memoryBytes: 160 * MIB,
      io: 'buffered',
      backend: 'threads',
      bytesPerSecond: 0,
    },
    source: { path: raw, open: { parentFolders: [], parents: [], format: 'raw' } },
    target: {
      path: temporary,
      identity: {
        format: 'vhdx',
        kind: parent === '' ? 'dynamic' : 'differencing',
        sizeBytes: DISK_BYTES,
        blockBytes: 2 * MIB,
        logicalSectorBytes: 512,
        physicalSectorBytes: 4096,
        diskId: id,
      },
      parentPath: parent,
    },
    overwrite: true,
  });
  await session.done;
  await rm(raw);
  await rename(temporary, file);
}

/** A layer as Get-VHD tells it, read from the file. */
export async function readLayer(file: string): Promise<Record<string, unknown>> {
  const folder = path.dirname(file);
  const { layers, error } = await loadEngine().inspectDisk(file, {
    parentFolders: [folder],
    parents: [],
    format: '',
  });
  const [top, parent] = layers;
  // One whose parent is being merged does not fit it for a moment: it must not pass for one that has none.
  if (top === undefined || error !== undefined) {
    throw new Error(error?.message ?? `${file} has no layer`);
  }
  return {
    Path: file,
    ParentPath: parent?.path ?? '',
    Size: top.identity.sizeBytes,
    FileSize: (await stat(file)).size,
    VhdType: parent === undefined ? 'Dynamic' : 'Differencing',
  };
}
