/**
 * Records: how everything that has content is stored. docs/repository-format.md section 2.
 *
 * The one implementation in TypeScript, used for object files and by rescue. Reading trusts nothing: header CRC, every header field,
 * stored CRC and lengths are checked, and at last the id is recomputed from the content; what comes back was checked. Sealed records
 * are opened and made with keys that ../seal/keyring.ts holds.
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
/** Bytes of the header that are authenticated with sealed bytes: all but the checksums. */
const ASSOCIATED_BYTES = 56;
/** What a record's flags may be. */
export const RECORD_FLAGS = { plain: 0, sealed: 1, toPublicKey: 3 } as const;
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
  /** One of RECORD_FLAGS. */
  readonly flags: number;
  /** Of a sealed record. */
  readonly nonce: bigint;
}

/** Opens sealed records of one writer, or one kind of objects. */
export interface RecordOpener {
  /** The stored bytes as they were before they were sealed. ERR_TAMPERED, ERR_KEY_WRITE_ONLY. */
  open(header: RecordHeader, associated: Buffer, stored: Buffer): Buffer;
}

/** Seals records as they are made. */
export interface RecordSealer {
  readonly flags: number;
  /** How much longer the stored bytes become. */
  readonly overheadBytes: number;
  seal(id: Buffer, associated: Buffer, stored: Buffer): Buffer;
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
 * a newer version.
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
  const nonce = bytes.readBigUInt64LE(48);
  const isPlain = flags === RECORD_FLAGS.plain && nonce === 0n;
  const isSealed = flags === RECORD_FLAGS.sealed || flags === RECORD_FLAGS.toPublicKey;
  if (!isPlain && !isSealed) throw corrupt("a record's reserved bits are not zero");
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
    flags,
    nonce,
  };
}

/**
 * The content of the one record that `bytes` is, header and all; its id has been recomputed with `key` (without a key for the config
 * object alone). `opener` is there in a sealed repository, where every record must be sealed: ERR_TAMPERED; without it a sealed one is
 * ERR_KEY_REQUIRED. Throws as decodeRecordHeader does. The content may share the memory of `bytes`.
 */
export function decodeRecord(
  bytes: Buffer,
  expected: RecordClass,
  key: Uint8Array | undefined,
  opener?: RecordOpener,
): { header: RecordHeader; content: Buffer } {
  const header = decodeRecordHeader(bytes, expected);
  const stored = bytes.subarray(RECORD_HEADER_BYTES);
  if (stored.length !== header.storedLength) {
    throw corruptRecord(expected, "a record's length is not the one its header states");
  }
  if (crc32c(stored) !== header.storedCrc) {
    throw corruptRecord(expected, "a record's bytes do not match their checksum");
  }
  const opened = openStored(header, bytes, stored, opener);
  const content = decompress(header.codec, opened, header.rawLength);
  if (content === undefined) throw corruptRecord(expected, 'a record does not decompress');
  if (!blake3(content, key).equals(header.id)) {
    throw corruptRecord(expected, "a record's content does not match its id");
  }
  return { header, content };
}

function openStored(
  header: RecordHeader,
  bytes: Buffer,
  stored: Buffer,
  opener: RecordOpener | undefined,
): Buffer {
  if (header.flags === RECORD_FLAGS.plain) {
    if (opener === undefined) return stored;
    throw firnError('ERR_TAMPERED', 'An unsealed record stands in a sealed repository');
  }
  if (opener === undefined) {
    throw firnError('ERR_KEY_REQUIRED', 'The record is sealed, and there is no key');
  }
  return opener.open(header, bytes.subarray(0, ASSOCIATED_BYTES), stored);
}

/** The whole record of `content`, compressed with LZ4 if that is worth it, and sealed. `key` as in decodeRecord. */
export function encodeRecord(
  recordClass: RecordClass,
  key: Uint8Array | undefined,
  content: Buffer,
  sealer?: RecordSealer,
): Buffer {
  if (content.length > RECORD_CONTENT_BYTES_MAX) {
    throw firnError('ERR_INTERNAL', `A record of ${content.length} bytes is too long`);
  }
  const compressed = compressLz4(content);
  const plain = compressed ?? content;
  const header = Buffer.alloc(RECORD_HEADER_BYTES);
  RECORD_MAGIC.copy(header);
  header.writeUInt8(VERSION, 4);
  header.writeUInt8(RECORD_CLASSES.indexOf(recordClass), 5);
  header.writeUInt8(CODECS.indexOf(compressed === undefined ? 'raw' : 'lz4'), 6);
  header.writeUInt8(sealer?.flags ?? RECORD_FLAGS.plain, 7);
  header.writeUInt32LE(content.length, 8);
  header.writeUInt32LE(plain.length + (sealer?.overheadBytes ?? 0), 12);
  const id = blake3(content, key);
  id.copy(header, 16);
  const stored = sealer?.seal(id, header.subarray(0, ASSOCIATED_BYTES), plain) ?? plain;
  header.writeUInt32LE(crc32c(stored), 56);
  header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
  return Buffer.concat([header, stored]);
}

function corruptRecord(expected: RecordClass | undefined, what: string): FirnError {
  const code: ErrorCode =
    expected === 'chunk' || expected === undefined ? 'ERR_CORRUPT_CHUNK' : 'ERR_CORRUPT_OBJECT';
  return firnError(code, `Corrupt record: ${what}`);
}
