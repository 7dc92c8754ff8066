/**
 * Packs, read without an index: by the record table in the footer or, where that is damaged, by looking for record headers.
 * docs/repository-format.md section 6.
 *
 * What comes out are hints: a record is believed only when its id has been recomputed. Files are read in pieces of a fixed size, so a
 * hostile count cannot make this take memory.
 */

import type { FileHandle } from 'node:fs/promises';
import { crc32c } from '../crc32c.js';
import { type FirnError, firnError, isFirnError } from '../errors.js';
import { CODECS } from '../repository/format/codecs.js';
import { Blake3, ID_BYTES } from '../repository/format/keys.js';
import {
  decodeRecordHeader,
  isRecordHeader,
  RECORD_CLASSES,
  RECORD_CONTENT_BYTES_MAX,
  RECORD_FLAGS,
  RECORD_HEADER_BYTES,
  RECORD_MAGIC,
  type RecordClass,
} from '../repository/format/record.js';

export const PACK_ALIGNMENT = 4096;
export const PACK_BYTES_MAX = 2 * 1024 ** 3;
export const TRAILER_BYTES = 96;
export const TRAILER_MAGIC = 'FIRNFOOT';
export const RECORD_ROW_BYTES = 48;
export const STRIPE_ROW_BYTES = 40;
const ROWS_AT_ONCE = 16384;
const SCAN_BYTES = 1024 * 1024;

/** A record of a pack, as its footer or its own header describes it. `id` is valid during the call only. */
export interface PackRecord {
  id: Buffer;
  recordClass: RecordClass;
  /** Of the record's header, in the file. */
  offset: number;
  storedLength: number;
  rawLength: number;
}

interface Trailer {
  recordCount: number;
  stripeCount: number;
  footerOffset: number;
  fileBytes: number;
  hash: Buffer;
}

/**
 * Calls `onRecord` for each row of the record table. Throws ERR_CORRUPT_PACK before the first call unless the footer is whole and agrees
 * with the file.
 */
export async function readPackTable(
  file: FileHandle,
  onRecord: (record: PackRecord) => void,
): Promise<void> {
  const trailer = await readTrailer(file);
  const { footerOffset, fileBytes, recordCount, stripeCount } = trailer;
  const stripesAt = footerOffset + recordCount * RECORD_ROW_BYTES;
  const stripesEnd = stripesAt + stripeCount * STRIPE_ROW_BYTES;

  const hasher = new Blake3();
  for await (const bytes of pieces(
    file,
    footerOffset,
    fileBytes - TRAILER_BYTES,
    RECORD_ROW_BYTES,
  )) {
    hasher.update(bytes);
  }
  if (!hasher.digest().equals(trailer.hash)) throw corrupt('its footer is damaged');

  let expected = 0;
  for await (const bytes of pieces(file, stripesAt, stripesEnd, STRIPE_ROW_BYTES)) {
    for (let at = 0; at < bytes.length; at += STRIPE_ROW_BYTES) {
      const length = bytes.readUInt32LE(at + 4);
      if (bytes.readUInt32LE(at) !== expected || length === 0 || length % PACK_ALIGNMENT !== 0) {
        throw corrupt('its stripes do not follow each other');
      }
      expected += length;
    }
  }
  if (expected !== footerOffset) throw corrupt('its stripes do not fill it');

  // Twice over the table: no row is handed out unless all of them hold.
  for (const emit of [undefined, onRecord]) {
    for await (const bytes of pieces(file, footerOffset, stripesAt, RECORD_ROW_BYTES)) {
      for (let at = 0; at < bytes.length; at += RECORD_ROW_BYTES) {
        const record = decodeRow(bytes.subarray(at, at + RECORD_ROW_BYTES), footerOffset);
        emit?.(record);
      }
    }
  }
}

async function readTrailer(file: FileHandle): Promise<Trailer> {
  const { size } = await file.stat();
  if (size < PACK_ALIGNMENT || size > PACK_BYTES_MAX || size % PACK_ALIGNMENT !== 0) {
    throw corrupt('its size is none that a pack has');
  }
  const bytes = await readExactly(file, size - TRAILER_BYTES, TRAILER_BYTES);
  if (
    bytes.toString('latin1', 0, TRAILER_MAGIC.length) !== TRAILER_MAGIC ||
    bytes.readUInt32LE(92) !== crc32c(bytes.subarray(0, 92))
  ) {
    throw corrupt('it has no whole trailer at its end');
  }
  const trailer = {
    recordCount: bytes.readUInt32LE(8),
    stripeCount: bytes.readUInt32LE(12),
    footerOffset: Number(bytes.readBigUInt64LE(16)),
    fileBytes: Number(bytes.readBigUInt64LE(24)),
    hash: Buffer.from(bytes.subarray(32, 32 + ID_BYTES)),
  };
  const rowsBytes = trailer.recordCount * RECORD_ROW_BYTES + trailer.stripeCount * STRIPE_ROW_BYTES;
  const footerBytes = Math.ceil((rowsBytes + TRAILER_BYTES) / PACK_ALIGNMENT) * PACK_ALIGNMENT;
  if (
    trailer.fileBytes !== size ||
    trailer.footerOffset !== size - footerBytes ||
    bytes.subarray(64, 92).some((byte) => byte !== 0)
  ) {
    throw corrupt('its trailer does not agree with the file');
  }
  return trailer;
}

function decodeRow(row: Buffer, footerOffset: number): PackRecord {
  const recordClass = RECORD_CLASSES[row.readUInt8(44)];
  const record = {
    id: row.subarray(0, ID_BYTES),
    offset: row.readUInt32LE(32),
    storedLength: row.readUInt32LE(36),
    rawLength: row.readUInt32LE(40),
  };
  const end = record.offset + RECORD_HEADER_BYTES + record.storedLength;
  if (
    recordClass === undefined ||
    CODECS[row.readUInt8(45)] === undefined ||
    row.readUInt8(46) > RECORD_FLAGS.sealed ||
    row.readUInt8(47) !== 0 ||
    record.storedLength > RECORD_CONTENT_BYTES_MAX ||
    record.rawLength > RECORD_CONTENT_BYTES_MAX ||
    end > footerOffset
  ) {
    throw corrupt('its record table holds what no pack has');
  }
  return { ...record, recordClass };
}

/**
 * Finds records without a footer: every place where magic and header CRC agree and the stored bytes end inside the file.
 *
 * Looks at every byte and never skips a record's content: a header may stand inside the content of a record whose own header is damaged
 * (a disk that holds packs), and its length may reach over whole records. What that finds too much does no harm, as no content has its
 * id.
 */
export async function scanPack(
  file: FileHandle,
  onRecord: (record: PackRecord) => void,
): Promise<void> {
  const { size } = await file.stat();
  const end = Math.min(size, PACK_BYTES_MAX);
  for (let start = 0; start + RECORD_HEADER_BYTES <= end; start += SCAN_BYTES) {
    // A header that begins in this piece may end in the next.
    const length = Math.min(SCAN_BYTES + RECORD_HEADER_BYTES - 1, end - start);
    const bytes = await readExactly(file, start, length);
    for (let at = bytes.indexOf(RECORD_MAGIC); at >= 0; at = bytes.indexOf(RECORD_MAGIC, at + 1)) {
      if (at >= SCAN_BYTES || at + RECORD_HEADER_BYTES > length) break;
      const header = tryDecodeHeader(bytes.subarray(at, at + RECORD_HEADER_BYTES));
      const offset = start + at;
      if (header === undefined || offset + RECORD_HEADER_BYTES + header.storedLength > end)
        continue;
      const { id, recordClass, storedLength, rawLength } = header;
      onRecord({ id, recordClass, offset, storedLength, rawLength });
    }
  }
}

function tryDecodeHeader(bytes: Buffer) {
  if (!isRecordHeader(bytes)) return undefined;
  try {
    return decodeRecordHeader(bytes);
  } catch (error) {
    if (isFirnError(error)) return undefined;
    throw error;
  }
}

/** Bytes [offset, offset + length) of a file. ERR_CORRUPT_PACK if it ends before. */
export async function readExactly(
  file: FileHandle,
  offset: number,
  length: number,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, offset + done);
    if (bytesRead === 0) throw corrupt('it is shorter than it says');
    done += bytesRead;
  }
  return bytes;
}

/** [from, to) in pieces of whole rows. */
async function* pieces(file: FileHandle, from: number, to: number, rowBytes: number) {
  const pieceBytes = ROWS_AT_ONCE * rowBytes;
  for (let offset = from; offset < to; offset += pieceBytes) {
    yield readExactly(file, offset, Math.min(pieceBytes, to - offset));
  }
}

function corrupt(what: string): FirnError {
  return firnError('ERR_CORRUPT_PACK', `Corrupt pack: ${what}`);
}
