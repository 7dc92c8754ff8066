/**
 * The tables of a VHDX file, as far as a running machine's layers need them: headers, regions, metadata, the parent locator, and where the
 * entries of the block allocation table lie (MS-VHDX 2.2 to 2.6).
 *
 * Pure functions over buffers; live-layer.ts does the input and output. Everything read is checked before it is used, although a lab's
 * images are its own: a folder can hold anything.
 */

import { randomBytes } from 'node:crypto';
import { crc32c } from '../../crc32c.js';
import { firnError } from '../../errors.js';

export const KIB = 1024;
export const MIB = 1024 * KIB;

export const HEADER_OFFSETS = [64 * KIB, 128 * KIB] as const;
export const HEADER_BYTES = 4 * KIB;
export const REGION_TABLE_OFFSETS = [192 * KIB, 256 * KIB] as const;
export const REGION_TABLE_BYTES = 64 * KIB;
export const METADATA_TABLE_BYTES = 64 * KIB;
export const BITMAP_BYTES = MIB;
export const ZERO_GUID = '00000000-0000-0000-0000-000000000000';

const BAT_REGION = '2dc27766-f623-4200-9d64-115e9bfd4a08';
const METADATA_REGION = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
const FILE_PARAMETERS = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
const VIRTUAL_DISK_SIZE = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
const LOGICAL_SECTOR_SIZE = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
const PARENT_LOCATOR = 'a8d35f2d-b30b-454d-abf7-d3d84834ab0c';
const LOCATOR_TYPE = 'b04aefb7-d19e-4a81-b789-25b8e9445913';

const ENTRY_COUNT_MAX = 2047;
const LOCATOR_ENTRIES_MAX = 256;
const LOCATOR_BYTES_MAX = 256 * KIB;
const METADATA_BYTES_MAX = 128 * MIB;
const VIRTUAL_BYTES_MAX = 64 * 2 ** 40;
/** The table of a whole layer is held in memory; a lab's disks have some thousand blocks. */
const BAT_BYTES_MAX = 32 * MIB;

/** Throws ERR_DISK_INVALID. */
export function invalid(path: string, message: string, offset?: number): never {
  throw firnError('ERR_DISK_INVALID', `${path}: ${message}`, { path, offset });
}

export function newGuid(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(7) & 0x0f) | 0x40, 7); // the third field is little-endian
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return guidAt(bytes, 0);
}

/** Text of the GUID at `offset`: the first three fields are little-endian. */
export function guidAt(bytes: Buffer, offset: number): string {
  const hex = (start: number, end: number) => bytes.toString('hex', offset + start, offset + end);
  const swapped = (start: number, end: number) =>
    Buffer.from(bytes.subarray(offset + start, offset + end))
      .reverse()
      .toString('hex');
  return [swapped(0, 4), swapped(4, 6), swapped(6, 8), hex(8, 10), hex(10, 16)].join('-');
}

export function putGuid(bytes: Buffer, offset: number, guid: string): void {
  const plain = Buffer.from(guid.replaceAll('-', ''), 'hex');
  for (const [start, end] of [
    [0, 4],
    [4, 6],
    [6, 8],
  ] as const) {
    plain.subarray(start, end).reverse();
  }
  plain.copy(bytes, offset);
}

/** An integer of 64 bits that must be exact as a number. */
export function safeUint64(bytes: Buffer, offset: number): number {
  const value = Number(bytes.readBigUInt64LE(offset));
  if (!Number.isSafeInteger(value)) throw firnError('ERR_DISK_INVALID', 'An offset is too large');
  return value;
}

function checksum(bytes: Buffer): number {
  const copy = Buffer.from(bytes);
  copy.writeUInt32LE(0, 4);
  return crc32c(copy);
}

function isIntact(bytes: Buffer, signature: string): boolean {
  return bytes.toString('latin1', 0, 4) === signature && bytes.readUInt32LE(4) === checksum(bytes);
}

// --- Headers (MS-VHDX 2.2.2) ---

export interface Header {
  /** Which of the two copies is current. */
  slot: 0 | 1;
  sequence: bigint;
  dataWriteGuid: string;
  /** Where the log's space ends in the file. */
  logEnd: number;
  bytes: Buffer;
}

/** The current one of the two copies. */
export function currentHeader(copies: readonly [Buffer, Buffer], path: string): Header {
  const intact = copies.map((copy) => isIntact(copy, 'head'));
  const sequences = copies.map((copy) => copy.readBigUInt64LE(8)) as [bigint, bigint];
  if (!intact[0] && !intact[1]) invalid(path, 'both headers are damaged', HEADER_OFFSETS[0]);
  const second = intact[1] && (!intact[0] || sequences[1] > sequences[0]);
  const slot = second ? 1 : 0;
  const bytes = copies[slot];
  if (bytes.readUInt16LE(66) !== 1) invalid(path, 'not version 1', HEADER_OFFSETS[slot]);
  if (guidAt(bytes, 48) !== ZERO_GUID) {
    throw firnError('ERR_UNSUPPORTED', `${path}: its log must be replayed before it can be used`, {
      path,
    });
  }
  const logEnd = safeUint64(bytes, 72) + bytes.readUInt32LE(68);
  return { slot, sequence: sequences[slot], dataWriteGuid: guidAt(bytes, 32), logEnd, bytes };
}

/** The next header, for the copy that is not current now. */
export function nextHeader(
  header: Header,
  changes: { fileWriteGuid?: string; dataWriteGuid?: string },
): Header {
  const bytes = Buffer.from(header.bytes);
  const sequence = header.sequence + 1n;
  bytes.writeBigUInt64LE(sequence, 8);
  if (changes.fileWriteGuid !== undefined) putGuid(bytes, 16, changes.fileWriteGuid);
  if (changes.dataWriteGuid !== undefined) putGuid(bytes, 32, changes.dataWriteGuid);
  bytes.writeUInt32LE(checksum(bytes), 4);
  const slot = header.slot === 0 ? 1 : 0;
  return { ...header, slot, sequence, dataWriteGuid: guidAt(bytes, 32), bytes };
}

// --- Regions (MS-VHDX 2.2.3) ---

export interface Region {
  offset: number;
  length: number;
}

export function findRegions(
  copies: readonly [Buffer, Buffer],
  fileBytes: number,
  path: string,
): { bat: Region; metadata: Region } {
  const table = copies.find((copy) => isIntact(copy, 'regi'));
  if (table === undefined) invalid(path, 'both region tables are damaged', REGION_TABLE_OFFSETS[0]);
  const count = table.readUInt32LE(8);
  if (count > ENTRY_COUNT_MAX) invalid(path, `${count} regions`, REGION_TABLE_OFFSETS[0]);
  const regions = new Map<string, Region>();
  for (let at = 16; at < 16 + 32 * count; at += 32) {
    const region = { offset: safeUint64(table, at + 16), length: table.readUInt32LE(at + 24) };
    if (region.offset < MIB || region.offset + region.length > fileBytes) {
      invalid(path, 'a region lies outside the file', region.offset);
    }
    regions.set(guidAt(table, at), region);
  }
  const bat = regions.get(BAT_REGION);
  const metadata = regions.get(METADATA_REGION);
  if (bat === undefined || metadata === undefined) return invalid(path, 'a region is missing');
  if (metadata.length > METADATA_BYTES_MAX || metadata.length < METADATA_TABLE_BYTES) {
    invalid(path, 'the metadata region has no possible length', metadata.offset);
  }
  return { bat, metadata };
}

// --- Metadata (MS-VHDX 2.6) ---

export interface MetadataItem {
  /** Of its entry, in the table. */
  entryOffset: number;
  /** In the region. */
  offset: number;
  length: number;
}

export interface MetadataItems {
  fileParameters: MetadataItem;
  size: MetadataItem;
  sector: MetadataItem;
  locator: MetadataItem | undefined;
  /** Where the items other than the locator end, in the region. */
  end: number;
}

export function findItems(table: Buffer, region: Region, path: string): MetadataItems {
  const count = table.readUInt16LE(10);
  if (table.toString('latin1', 0, 8) !== 'metadata' || count > ENTRY_COUNT_MAX) {
    invalid(path, 'the metadata table is damaged', region.offset);
  }
  const items = new Map<string, MetadataItem>();
  let end = METADATA_TABLE_BYTES;
  for (let at = 32; at < 32 + 32 * count; at += 32) {
    const id = guidAt(table, at);
    const offset = table.readUInt32LE(at + 16);
    const length = table.readUInt32LE(at + 20);
    if (length > MIB || offset + length > region.length) {
      invalid(path, 'a metadata item lies outside its region', region.offset + at);
    }
    items.set(id, { entryOffset: at, offset, length });
    if (id !== PARENT_LOCATOR) end = Math.max(end, offset + length);
  }
  const need = (id: string, length: number): MetadataItem => {
    const item = items.get(id);
    if (item === undefined || item.length !== length || item.offset < METADATA_TABLE_BYTES) {
      return invalid(path, `the metadata item ${id} is missing or has another length`);
    }
    return item;
  };
  return {
    fileParameters: need(FILE_PARAMETERS, 8),
    size: need(VIRTUAL_DISK_SIZE, 8),
    sector: need(LOGICAL_SECTOR_SIZE, 4),
    locator: items.get(PARENT_LOCATOR),
    end,
  };
}

export interface DiskShape {
  sizeBytes: number;
  blockBytes: number;
  sectorBytes: number;
  hasParent: boolean;
}

export function checkShape(shape: DiskShape, path: string): void {
  const { sizeBytes, blockBytes, sectorBytes } = shape;
  if (sectorBytes !== 512 && sectorBytes !== 4096) invalid(path, `a sector of ${sectorBytes}`);
  const blockMib = blockBytes / MIB;
  if (!Number.isInteger(Math.log2(blockMib)) || blockMib < 1 || blockMib > 256) {
    invalid(path, `a block of ${blockBytes} bytes`);
  }
  if (sizeBytes <= 0 || sizeBytes > VIRTUAL_BYTES_MAX || sizeBytes % sectorBytes !== 0) {
    invalid(path, `a disk of ${sizeBytes} bytes`);
  }
}

// --- The parent locator (MS-VHDX 2.6.2.6) ---

export type Locator = Map<string, string>;

export function parseLocator(item: Buffer, path: string): Locator {
  if (item.length < 20 || guidAt(item, 0) !== LOCATOR_TYPE) {
    invalid(path, 'the parent locator is of an unknown type');
  }
  const count = item.readUInt16LE(18);
  if (count > LOCATOR_ENTRIES_MAX || 20 + 12 * count > item.length) {
    invalid(path, 'the parent locator is too short');
  }
  const text = (offset: number, length: number): string => {
    if (offset + length > item.length) invalid(path, 'the parent locator has text outside it');
    return item.toString('utf16le', offset, offset + length);
  };
  const locator: Locator = new Map();
  for (let at = 20; at < 20 + 12 * count; at += 12) {
    const key = text(item.readUInt32LE(at), item.readUInt16LE(at + 8));
    locator.set(key, text(item.readUInt32LE(at + 4), item.readUInt16LE(at + 10)));
  }
  return locator;
}

export function encodeLocator(locator: Locator): Buffer {
  const head = Buffer.alloc(20 + 12 * locator.size);
  putGuid(head, 0, LOCATOR_TYPE);
  head.writeUInt16LE(locator.size, 18);
  const parts = [head];
  let end = head.length;
  let at = 20;
  for (const [key, value] of locator) {
    for (const [text, field] of [
      [key, 0],
      [value, 1],
    ] as const) {
      const bytes = Buffer.from(text, 'utf16le');
      head.writeUInt32LE(end, at + 4 * field);
      head.writeUInt16LE(bytes.length, at + 8 + 2 * field);
      parts.push(bytes);
      end += bytes.length;
    }
    at += 12;
  }
  return Buffer.concat(parts);
}

/**
 * Where a changed locator goes: not over the present one, so that the entry that names it is the one place that switches. Offset in the
 * region.
 */
export function placeForLocator(
  items: MetadataItems,
  length: number,
  region: Region,
  path: string,
): number {
  const first = Math.ceil(items.end / (4 * KIB)) * 4 * KIB;
  const { offset, length: present } = items.locator ?? { offset: 0, length: 0 };
  for (const place of [first, first + LOCATOR_BYTES_MAX]) {
    const free = place >= offset + present || place + length <= offset;
    if (free && length <= LOCATOR_BYTES_MAX && place + length <= region.length) return place;
  }
  return invalid(path, 'there is no room for another parent locator', region.offset);
}

// --- The block allocation table (MS-VHDX 2.5) ---

export const BLOCK_NOT_PRESENT = 0;
export const BLOCK_ZERO = 2;
export const BLOCK_FULL = 6;
export const BLOCK_PARTIAL = 7;
export const BITMAP_PRESENT = 6;
const BLOCK_UNDEFINED = 1;
const BLOCK_UNMAPPED = 3;

/** The states in which a block reads as zeros, whatever the parent has. */
export function readsAsZero(state: number): boolean {
  return state === BLOCK_ZERO || state === BLOCK_UNDEFINED || state === BLOCK_UNMAPPED;
}

export interface BatShape {
  blocks: number;
  /** Payload blocks for each sector bitmap. */
  chunkRatio: number;
  entries: number;
}

export function batShape(disk: DiskShape, region: Region, path: string): BatShape {
  const chunkRatio = (2 ** 23 * disk.sectorBytes) / disk.blockBytes;
  const blocks = Math.ceil(disk.sizeBytes / disk.blockBytes);
  const chunks = Math.ceil(blocks / chunkRatio);
  const entries = disk.hasParent
    ? chunks * (chunkRatio + 1)
    : blocks + Math.floor((blocks - 1) / chunkRatio);
  if (entries * 8 > region.length || entries * 8 > BAT_BYTES_MAX) {
    invalid(path, `${entries} blocks do not fit into its table, or are too many`, region.offset);
  }
  return { blocks, chunkRatio, entries };
}

export function payloadIndex(bat: BatShape, block: number): number {
  return block + Math.floor(block / bat.chunkRatio);
}

export function bitmapIndex(bat: BatShape, chunk: number): number {
  return chunk * (bat.chunkRatio + 1) + bat.chunkRatio;
}
