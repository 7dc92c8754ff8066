/**
 * VHDX files as QEMU leaves them when it dies while it changes their tables, made byte by byte from ones that it left in order: the log's id is
 * in the headers, and of the entry that is to be replayed there is all, a part or nothing. For files as qemu-img lays them out.
 */

import { randomBytes } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { crc32c } from '../../../src/crc32c.js';

export const HEADER_OFFSETS = [64 * 1024, 128 * 1024] as const;
export const HEADER_BYTES = 4096;
const LOG_OFFSET = 1024 * 1024;
const LOG_BYTES = 1024 * 1024;
const BAT_OFFSET = 2 * 1024 * 1024;
const PAGE_BYTES = 4096;

/**
 * What of an entry is in the log: `whole`: all, and the table is yet to be changed, so the disk's content is lost without a replay; `begun`: its
 * first sector; `none`; `two`: first sectors of two entries of one id, which QEMU never makes; `truncated`: a whole one that says that
 * the file was longer.
 */
export type Crash = 'whole' | 'begun' | 'none' | 'two' | 'truncated';

/** Whether only the header that is current asks for a replay, as between the writes of the two. */
export async function crash(file: string, how: Crash, headers: 1 | 2 = 2): Promise<void> {
  const id = randomBytes(16);
  const handle = await open(file, 'r+');
  try {
    await setLogId(handle, id, headers);
    const table = await readPage(handle, BAT_OFFSET);
    if (how === 'whole') await handle.write(Buffer.alloc(PAGE_BYTES), 0, PAGE_BYTES, BAT_OFFSET);
    for (const [at, bytes] of sectorsOf(how, id, table)) {
      await handle.write(bytes, 0, bytes.length, LOG_OFFSET + at);
    }
  } finally {
    await handle.close();
  }
}

export interface Header {
  isIntact: boolean;
  sequence: bigint;
  fileWriteId: string;
  dataWriteId: string;
  logId: string;
}

export async function readHeaders(file: string): Promise<Header[]> {
  const handle = await open(file, 'r');
  try {
    const pages = await Promise.all(HEADER_OFFSETS.map((offset) => readPage(handle, offset)));
    return pages.map((page) => ({
      isIntact: page.readUInt32LE(4) === checksumOf(page),
      sequence: page.readBigUInt64LE(8),
      fileWriteId: page.toString('hex', 16, 32),
      dataWriteId: page.toString('hex', 32, 48),
      logId: page.toString('hex', 48, 64),
    }));
  } finally {
    await handle.close();
  }
}

/** Damages a header's checksum. */
export async function breakHeader(file: string, copy: 0 | 1): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    await handle.write(Buffer.from('oops'), 0, 4, HEADER_OFFSETS[copy] + 4);
  } finally {
    await handle.close();
  }
}

/** Puts the id into both headers, or into the current one only. */
async function setLogId(handle: FileHandle, id: Buffer, headers: 1 | 2): Promise<void> {
  const pages = await Promise.all(HEADER_OFFSETS.map((offset) => readPage(handle, offset)));
  const sequences = pages.map((page) => page.readBigUInt64LE(8));
  const current = (sequences[1] ?? 0n) > (sequences[0] ?? 0n) ? 1 : 0;
  for (const [copy, page] of pages.entries()) {
    if (headers === 1 && copy !== current) continue;
    id.copy(page, 48);
    page.writeUInt32LE(checksumOf(page), 4);
    await handle.write(page, 0, PAGE_BYTES, HEADER_OFFSETS[copy]);
  }
}

function sectorsOf(how: Crash, id: Buffer, table: Buffer): [at: number, bytes: Buffer][] {
  if (how === 'none') return [];
  const entry = entryOf(id, table, how === 'truncated' ? 2 ** 40 : 0);
  const first = entry.subarray(0, PAGE_BYTES);
  if (how === 'begun') return [[0, first]];
  if (how === 'two') {
    return [
      [0, first],
      [2 * PAGE_BYTES, first],
    ];
  }
  // Around the end of the ring, where its first sector stands.
  const last = LOG_BYTES - PAGE_BYTES;
  entry.writeUInt32LE(last, 12);
  entry.writeUInt32LE(checksumOf(entry), 4);
  return [
    [last, first],
    [0, entry.subarray(PAGE_BYTES)],
  ];
}

/** An entry that writes one page, as QEMU does. */
function entryOf(id: Buffer, page: Buffer, flushedBytes: number): Buffer {
  const entry = Buffer.alloc(2 * PAGE_BYTES);
  entry.write('loge', 0, 'latin1');
  entry.writeUInt32LE(entry.length, 8);
  entry.writeBigUInt64LE(1n, 16);
  entry.writeUInt32LE(1, 24);
  id.copy(entry, 32);
  entry.writeBigUInt64LE(BigInt(flushedBytes), 48);
  entry.write('desc', 64, 'latin1');
  page.copy(entry, 68, PAGE_BYTES - 4, PAGE_BYTES);
  page.copy(entry, 72, 0, 8);
  entry.writeBigUInt64LE(BigInt(BAT_OFFSET), 80);
  entry.writeBigUInt64LE(1n, 88);
  entry.write('data', PAGE_BYTES, 'latin1');
  page.copy(entry, PAGE_BYTES + 8, 8, PAGE_BYTES - 4);
  entry.writeUInt32LE(1, 2 * PAGE_BYTES - 4);
  entry.writeUInt32LE(checksumOf(entry), 4);
  return entry;
}

function checksumOf(structure: Buffer): number {
  const bytes = Buffer.from(structure);
  bytes.writeUInt32LE(0, 4);
  return crc32c(bytes);
}

async function readPage(handle: FileHandle, offset: number): Promise<Buffer> {
  const page = Buffer.alloc(PAGE_BYTES);
  await handle.read(page, 0, PAGE_BYTES, offset);
  return page;
}
