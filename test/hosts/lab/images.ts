/** Small images for the tests of live layers and chains, and what the engine reads in them. */

import path from 'node:path';
import fc from 'fast-check';
import { expect } from 'vitest';
import { loadEngine } from '../../../src/engine/engine.js';

export const MIB = 1024 * 1024;

export interface Shape {
  sizeBytes: number;
  blockBytes: number;
  sectorBytes: number;
}

export const SHAPES: readonly Shape[] = [
  { sizeBytes: 9 * MIB + 4096, blockBytes: MIB, sectorBytes: 512 },
  { sizeBytes: 9 * MIB + 4096, blockBytes: 2 * MIB, sectorBytes: 4096 },
  { sizeBytes: 40 * MIB, blockBytes: 32 * MIB, sectorBytes: 512 },
];

export async function createBase(file: string, shape: Shape): Promise<void> {
  await loadEngine().createDisk(
    file,
    {
      format: 'vhdx',
      kind: 'dynamic',
      sizeBytes: shape.sizeBytes,
      blockBytes: shape.blockBytes,
      logicalSectorBytes: shape.sectorBytes,
      physicalSectorBytes: 4096,
      diskId: '12345678-9abc-4def-8123-456789abcdef',
    },
    '',
    false,
  );
}

/** An empty child; its blocks are 2 MiB unless the test wants another size than the parent's. */
export async function createChild(
  file: string,
  parent: string,
  shape: Shape,
  blockBytes = 2 * MIB,
): Promise<void> {
  await loadEngine().createDisk(
    file,
    {
      format: 'vhdx',
      kind: 'differencing',
      sizeBytes: shape.sizeBytes,
      blockBytes,
      logicalSectorBytes: shape.sectorBytes,
      physicalSectorBytes: 4096,
      diskId: '',
    },
    parent,
    false,
  );
}

/** All of a disk as the engine reads it: parents found by their locators, or given. */
export async function engineContent(file: string, parents: string[] = []): Promise<Buffer> {
  const disk = await loadEngine().openDisk(file, { parentFolders: [], parents, format: '' });
  try {
    const { sizeBytes } = disk.identity;
    const parts: Uint8Array[] = [];
    for (let at = 0; at < sizeBytes; at += 4 * MIB) {
      parts.push(await disk.read(at, Math.min(4 * MIB, sizeBytes - at)));
    }
    return Buffer.concat(parts);
  } finally {
    disk.close();
  }
}

/** Expects that the engine finds nothing wrong with an image and its parents. */
export async function expectSound(file: string): Promise<void> {
  const { layers, error } = await loadEngine().inspectDisk(file, {
    parentFolders: [],
    parents: [],
    format: 'vhdx',
  });
  expect(error).toBeUndefined();
  const worse = layers.flatMap((layer) =>
    layer.findings
      .filter((finding) => finding.severity !== 'info')
      .map((finding) => `${path.basename(layer.path)}: ${finding.message}`),
  );
  expect(worse).toEqual([]);
}

/** A write to a disk: whole sectors of one byte, so that a model is easily kept. */
export interface Write {
  offset: number;
  length: number;
  fill: number;
}

/** Writes of all kinds: single sectors, over block boundaries, whole blocks, at the disk's end. */
export function arbitraryWrite(shape: Shape): fc.Arbitrary<Write> {
  const { sizeBytes, sectorBytes, blockBytes } = shape;
  const sectors = sizeBytes / sectorBytes;
  const aligned = fc
    .integer({ min: 0, max: Math.ceil(sizeBytes / blockBytes) - 1 })
    .map((block) => ({
      offset: block * blockBytes,
      length: Math.min(blockBytes, sizeBytes - block * blockBytes),
    }));
  const anywhere = fc
    .tuple(fc.integer({ min: 0, max: sectors - 1 }), fc.integer({ min: 1, max: 300 }))
    .map(([first, count]) => ({
      offset: first * sectorBytes,
      length: Math.min(count, sectors - first) * sectorBytes,
    }));
  return fc
    .tuple(
      fc.oneof({ weight: 1, arbitrary: aligned }, { weight: 6, arbitrary: anywhere }),
      fc.integer({ min: 1, max: 250 }),
    )
    .map(([range, fill]) => ({ ...range, fill }));
}

export function bytesOf({ length, fill }: Write): Buffer {
  return Buffer.alloc(length, fill);
}

export function applyTo(model: Buffer, write: Write): void {
  bytesOf(write).copy(model, write.offset);
}
