/**
 * Decompression of records as the format demands it: one LZ4 block behind its length, or one zstd frame with its content size.
 *
 * The input is hostile. Lengths are compared before anything is allocated, and a frame is walked block by block before it is
 * decompressed, so that neither library ever meets a length that the record's header does not have.
 *
 * Both libraries are loaded when a record first needs them: most runs need neither, and together they cost a fifth of
 * the command line's start.
 */

import { createRequire } from 'node:module';

export type Codec = 'raw' | 'lz4' | 'zstd';

/** In the order of their numbers in a record's header. */
export const CODECS: readonly Codec[] = ['raw', 'lz4', 'zstd'];

const LZ4_PREFIX_BYTES = 4;
const ZSTD_MAGIC = 0xfd2fb528;

/** Below this, what compression saves is less than what a file occupies anyway. */
const COMPRESSED_BYTES_MIN = 4096;

const require = createRequire(import.meta.url);
const lz4 = () => require('lz4-napi') as typeof import('lz4-napi');
const zstd = () => require('fzstd') as typeof import('fzstd');

/** The content as LZ4 stores it, or undefined if it is small or that saves less than 3 %. */
export function compressLz4(content: Buffer): Buffer | undefined {
  if (content.length < COMPRESSED_BYTES_MIN) return undefined;
  const stored = lz4().compressSync(content);
  return stored.length <= content.length - Math.ceil((content.length * 3) / 100)
    ? stored
    : undefined;
}

/** The content of `stored`, exactly `rawLength` bytes, or undefined if it is anything else. */
export function decompress(codec: Codec, stored: Buffer, rawLength: number): Buffer | undefined {
  // Before, as a library that does not load is no damage and must not look like it.
  if (codec === 'lz4') lz4();
  if (codec === 'zstd') zstd();
  try {
    const content = decompressUnchecked(codec, stored, rawLength);
    return content?.length === rawLength ? content : undefined;
  } catch {
    // Both libraries throw plain errors for broken input; why it is broken helps nobody.
    return undefined;
  }
}

function decompressUnchecked(codec: Codec, stored: Buffer, rawLength: number): Buffer | undefined {
  switch (codec) {
    case 'raw':
      return stored;
    case 'lz4':
      if (stored.length <= LZ4_PREFIX_BYTES || stored.readUInt32LE(0) !== rawLength) {
        return undefined;
      }
      return lz4().uncompressSync(stored);
    case 'zstd': {
      if (zstdFrameContentBytes(stored) !== rawLength) return undefined;
      const content = zstd().decompress(stored, new Uint8Array(rawLength));
      return Buffer.from(content.buffer, content.byteOffset, content.byteLength);
    }
  }
}

/**
 * The content size that a zstd frame states (RFC 8878 section 3.1.1), or undefined unless `frame` is exactly one whole frame that states
 * it and needs no dictionary.
 */
function zstdFrameContentBytes(frame: Buffer): number | undefined {
  const descriptor = frame.readUInt8(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  if (frame.readUInt32LE(0) !== ZSTD_MAGIC || (descriptor & 0x0b) !== 0) return undefined;
  const sizeAt = singleSegment ? 5 : 6;
  const sizeFlag = descriptor >>> 6;
  if (sizeFlag === 0 && !singleSegment) return undefined;
  const sizeBytes = 1 << sizeFlag;
  let contentBytes: number;
  if (sizeBytes === 8) contentBytes = Number(frame.readBigUInt64LE(sizeAt));
  else contentBytes = frame.readUIntLE(sizeAt, sizeBytes) + (sizeBytes === 2 ? 256 : 0);

  let at = sizeAt + sizeBytes;
  for (let last = false; !last; ) {
    const header = frame.readUIntLE(at, 3);
    const type = (header >>> 1) & 3;
    if (type === 3) return undefined;
    last = (header & 1) !== 0;
    at += 3 + (type === 1 ? 1 : header >>> 3);
  }
  const checksumBytes = (descriptor & 0x04) === 0 ? 0 : 4;
  return at + checksumBytes === frame.length ? contentBytes : undefined;
}
