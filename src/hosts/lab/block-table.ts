/**
 * Where a layer's blocks lie in its file, and which sectors of partial blocks count: the block allocation table and the sector bitmaps, held
 * in memory and written back by `flush`.
 *
 * A change takes effect for this process at once and for the file at the flush, in an order that leaves the file valid at every moment:
 * bitmaps, then the entries of new bitmaps, then the entries of blocks, each durable before the next. Entries and bitmap pages are
 * written by single writes inside one page, so that none is ever half there.
 */

import type { ImageFile } from './image-file.js';
import {
  type BatShape,
  BITMAP_BYTES,
  BITMAP_PRESENT,
  BLOCK_FULL,
  BLOCK_PARTIAL,
  bitmapIndex,
  type DiskShape,
  invalid,
  KIB,
  MIB,
  payloadIndex,
  type Region,
} from './vhdx-tables.js';

const PAGE_BYTES = 4 * KIB;

export class BlockTable {
  readonly #file: ImageFile;
  readonly #disk: DiskShape;
  readonly #bat: BatShape;
  readonly #region: Region;
  readonly #entries: Buffer;
  readonly #bitmaps = new Map<number, Buffer>();
  readonly #dirtyPages = new Set<number>();
  readonly #dirtyBitmapPages = new Map<number, Set<number>>();
  readonly #newBitmaps = new Set<number>();

  constructor(file: ImageFile, disk: DiskShape, bat: BatShape, region: Region) {
    this.#file = file;
    this.#disk = disk;
    this.#bat = bat;
    this.#region = region;
    this.#entries = file.load(region.offset, bat.entries * 8);
  }

  /** Checks that all entries point into the file; gives the end of what they point to. */
  checkEntries(fileBytes: number): number {
    let end = 0;
    for (let index = 0; index < this.#bat.entries; index++) {
      const offset = this.#offset(index);
      if (offset === 0) continue;
      const isBitmap = (index + 1) % (this.#bat.chunkRatio + 1) === 0;
      const bytes = isBitmap ? BITMAP_BYTES : this.#disk.blockBytes;
      const state = this.#state(index);
      const used = state === BLOCK_FULL || state === BLOCK_PARTIAL;
      if (used && (offset < MIB || offset + bytes > fileBytes)) {
        invalid(this.#file.path, `entry ${index} of its table points outside the file`, offset);
      }
      end = Math.max(end, offset + bytes);
    }
    return end;
  }

  stateOf(block: number): number {
    return this.#state(payloadIndex(this.#bat, block));
  }

  placeOf(block: number): number {
    return this.#offset(payloadIndex(this.#bat, block));
  }

  setBlock(block: number, state: number, offset: number): void {
    const index = payloadIndex(this.#bat, block);
    this.#entries.writeBigUInt64LE(BigInt(offset) | BigInt(state), index * 8);
    this.#dirtyPages.add(Math.floor((index * 8) / PAGE_BYTES));
  }

  hasBitmapFor(block: number): boolean {
    return this.#state(bitmapIndex(this.#bat, this.#chunkOf(block))) === BITMAP_PRESENT;
  }

  /** Gives the block's chunk an empty bitmap, which lies at `offset`, where the file is zero. */
  addBitmapFor(block: number, offset: number): void {
    const chunk = this.#chunkOf(block);
    const index = bitmapIndex(this.#bat, chunk);
    this.#entries.writeBigUInt64LE(BigInt(offset) | BigInt(BITMAP_PRESENT), index * 8);
    this.#newBitmaps.add(index);
    this.#bitmaps.set(chunk, Buffer.alloc(BITMAP_BYTES));
  }

  /** How many sectors from the `sector`th of a block on are all here or all not, and which of it; at most `count`. */
  runOfSectors(block: number, sector: number, count: number): { here: boolean; sectors: number } {
    const bitmap = this.#bitmap(this.#chunkOf(block));
    const first = this.#firstBit(block) + sector;
    const here = testBit(bitmap, first);
    let sectors = 1;
    while (sectors < count && testBit(bitmap, first + sectors) === here) sectors++;
    return { here, sectors };
  }

  /** Sets or clears the bits of `count` sectors of a block. */
  setSectors(block: number, sector: number, count: number, here: boolean): void {
    const chunk = this.#chunkOf(block);
    const bitmap = this.#bitmap(chunk);
    const first = this.#firstBit(block) + sector;
    const dirty = this.#dirtyBitmapPages.get(chunk) ?? new Set<number>();
    for (let bit = first; bit < first + count; bit++) {
      if (testBit(bitmap, bit) === here) continue;
      const byte = bit >>> 3;
      bitmap.writeUInt8(bitmap.readUInt8(byte) ^ (1 << (bit & 7)), byte);
      dirty.add(Math.floor(byte / PAGE_BYTES));
    }
    if (dirty.size > 0) this.#dirtyBitmapPages.set(chunk, dirty);
  }

  /** Writes what has changed, durably. The payload that it points to must be durable. */
  flush(): void {
    const bitmaps = this.#dirtyBitmapPages.size > 0 || this.#newBitmaps.size > 0;
    if (bitmaps) {
      this.#writeBitmaps();
      this.#writeNewBitmapEntries();
    }
    if (this.#dirtyPages.size === 0) return;
    for (const page of this.#dirtyPages) {
      const at = page * PAGE_BYTES;
      const bytes = this.#entries.subarray(at, at + PAGE_BYTES);
      this.#file.writeAt(this.#region.offset + at, bytes);
    }
    this.#dirtyPages.clear();
    this.#file.sync();
  }

  #writeBitmaps(): void {
    for (const [chunk, pages] of this.#dirtyBitmapPages) {
      const place = this.#offset(bitmapIndex(this.#bat, chunk));
      const bitmap = this.#bitmap(chunk);
      for (const page of pages) {
        const at = page * PAGE_BYTES;
        this.#file.writeAt(place + at, bitmap.subarray(at, at + PAGE_BYTES));
      }
    }
    this.#dirtyBitmapPages.clear();
    this.#file.sync();
  }

  // One by one, before any page of the table: a partial block whose bitmap is missing would be damage.
  #writeNewBitmapEntries(): void {
    if (this.#newBitmaps.size === 0) return;
    for (const index of this.#newBitmaps) {
      const bytes = this.#entries.subarray(index * 8, index * 8 + 8);
      this.#file.writeAt(this.#region.offset + index * 8, bytes);
    }
    this.#newBitmaps.clear();
    this.#file.sync();
  }

  #state(index: number): number {
    return this.#entries.readUInt8(index * 8) & 7;
  }

  #offset(index: number): number {
    const low = this.#entries.readUInt32LE(index * 8);
    return this.#entries.readUInt32LE(index * 8 + 4) * 2 ** 32 + (low >>> 20) * MIB;
  }

  #chunkOf(block: number): number {
    return Math.floor(block / this.#bat.chunkRatio);
  }

  #firstBit(block: number): number {
    const inChunk = block % this.#bat.chunkRatio;
    return (inChunk * this.#disk.blockBytes) / this.#disk.sectorBytes;
  }

  #bitmap(chunk: number): Buffer {
    let bitmap = this.#bitmaps.get(chunk);
    if (bitmap === undefined) {
      const index = bitmapIndex(this.#bat, chunk);
      if (this.#state(index) !== BITMAP_PRESENT) {
        return invalid(this.#file.path, `the sector bitmap of chunk ${chunk} is missing`);
      }
      bitmap = this.#file.load(this.#offset(index), BITMAP_BYTES);
      this.#bitmaps.set(chunk, bitmap);
    }
    return bitmap;
  }
}

function testBit(bitmap: Buffer, bit: number): boolean {
  return ((bitmap.readUInt8(bit >>> 3) >>> (bit & 7)) & 1) !== 0;
}
