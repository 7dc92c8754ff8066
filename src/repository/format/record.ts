/**
 * Records: how everything that has content is stored. docs/repository-format.md section 2.
 *
 * The one implementation in TypeScript, used for object files and by rescue. Reading trusts nothing: header CRC, every header field,
 * stored CRC and lengths are checked, and at last the id is recomputed from the content; what comes back was checked.
 */

import { crc32c } from '../../crc32c.js';
import { type ErrorCode, type FirnError, firnError } from '../../errors.js';
import { CODECS, type Codec, compressLz4, decompress } from './codecs.js';
import { blake3, ID_BYTES } from './keys.js';

export type RecordClass = 'chunk' | 'map' | 'object';

export const RECORD_HEADER_BYTES = 64;
/** The most that raw and stored lengths may be. */
export const RECORD_CONTENT_BYTES_MAX = 8 * 1024 * 1024 + 64 * 1024;

export const RECORD_MAGIC = Buffer.from('FIRR', 'latin1');
const VERSION = 1;
const FLAG_SEALED = 1;
/** By their numbers in the header. */
export const RECORD_CLASSES: readonly (RecordClass | undefined)[] = [
  undefined,
  'chunk',
  'map',
  'object',
];

export interface RecordHeader {
  readonly recordClass: RecordClass;
  readonly codec: Codec;
  readonly rawLength: number;
  /** Bytes that follow the header. */
  readonly storedLength: number;
  readonly id: Buffer;
  readonly storedCrc: number;
}

/** True if a record header may begin here: magic and CRC agree. `bytes` holds at least RECORD_HEADER_BYTES. */
export function isRecordHeader(bytes: Buffer): boolean {
  return (
    bytes.compare(RECORD_MAGIC, 0, 4, 0, 4) === 0 &&
    bytes.readUInt32LE(60) === crc32c(bytes.subarray(0, 60))
  );
}

/**
 * The header at the start of `bytes`. Throws ERR_CORRUPT_CHUNK (or ERR_CORRUPT_OBJECT, if that is what `expected` is), ERR_VERSION for
 * a newer version, ERR_UNSUPPORTED for a sealed record.
 */
export function decodeRecordHeader(bytes: Buffer, expected?: RecordClass): RecordHeader {
  const corrupt = (what: string) => corruptRecord(expected, what);
  if (bytes.length < RECORD_HEADER_BYTES) throw corrupt('a record is cut short');
  if (!isRecordHeader(bytes)) throw corrupt('no record begins here, or its header is damaged');
  const version = bytes.readUInt8(4);
  if (version > VERSION) {
    throw firnError('ERR_VERSION', `A record of format version ${version}, which is newer`);
  }
  const recordClass = RECORD_CLASSES[bytes.readUInt8(5)];
  const codec = CODECS[bytes.readUInt8(6)];
  const flags = bytes.readUInt8(7);
  const rawLength = bytes.readUInt32LE(8);
  const storedLength = bytes.readUInt32LE(12);
  if (version !== VERSION || recordClass === undefined || codec === undefined) {
    throw corrupt("a record's header holds values that no record has");
  }
  if (rawLength > RECORD_CONTENT_BYTES_MAX || storedLength > RECORD_CONTENT_BYTES_MAX) {
    throw corrupt('a record is longer than records are');
  }
  if (flags === FLAG_SEALED) {
    throw firnError('ERR_UNSUPPORTED', 'The record is encrypted; this version has no key for it');
  }
  if (flags !== 0 || bytes.readBigUInt64LE(48) !== 0n) {
    throw corrupt("a record's reserved bits are not zero");
  }
  if (expected !== undefined && recordClass !== expected) {
    throw corrupt(`a ${recordClass} record stands where a ${expected} record belongs`);
  }
  return {
    recordClass,
    codec,
    rawLength,
    storedLength,
    id: Buffer.from(bytes.subarray(16, 16 + ID_BYTES)),
    storedCrc: bytes.readUInt32LE(56),
  };
}

/**
 * The content of the one record that `bytes` is, header and all; its id has been recomputed with `key` (without a key for the config
 * object alone). Throws as decodeRecordHeader does. The content may share the memory of `bytes`.
 */
export function decodeRecord(
  bytes: Buffer,
  expected: RecordClass,
  key: Uint8Array | undefined,
): { header: RecordHeader; content: Buffer } {
  const header = decodeRecordHeader(bytes, expected);
  const stored = bytes.subarray(RECORD_HEADER_BYTES);
  if (stored.length !== header.storedLength) {
    throw corruptRecord(expected, "a record's length is not the one its header states");
  }
  if (crc32c(stored) !== header.storedCrc) {
    throw corruptRecord(expected, "a record's bytes do not match their checksum");
  }
  const content = decompress(header.codec, stored, header.rawLength);
  if (content === undefined) throw corruptRecord(expected, 'a record does not decompress');
  if (!blake3(content, key).equals(header.id)) {
    throw corruptRecord(expected, "a record's content does not match its id");
  }
  return { header, content };
}

/** The whole record of `content`, compressed with LZ4 if that is worth it. `key` as in decodeRecord. */
export function encodeRecord(
  recordClass: RecordClass,
  key: Uint8Array | undefined,
  content: Buffer,
): Buffer {
  if (content.length > RECORD_CONTENT_BYTES_MAX) {
    throw firnError('ERR_INTERNAL', `A record of ${content.length} bytes is too long`);
  }
  const compressed = compressLz4(content);
  const stored = compressed ?? content;
  const header = Buffer.alloc(RECORD_HEADER_BYTES);
  RECORD_MAGIC.copy(header);
  header.writeUInt8(VERSION, 4);
  header.writeUInt8(RECORD_CLASSES.indexOf(recordClass), 5);
  header.writeUInt8(CODECS.indexOf(compressed === undefined ? 'raw' : 'lz4'), 6);
  header.writeUInt32LE(content.length, 8);
  header.writeUInt32LE(stored.length, 12);
  blake3(content, key).copy(header, 16);
  header.writeUInt32LE(crc32c(stored), 56);
  header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
  return Buffer.concat([header, stored]);
}

function corruptRecord(expected: RecordClass | undefined, what: string): FirnError {
  const code: ErrorCode =
    expected === 'chunk' || expected === undefined ? 'ERR_CORRUPT_CHUNK' : 'ERR_CORRUPT_OBJECT';
  return firnError(code, `Corrupt record: ${what}`);
}
