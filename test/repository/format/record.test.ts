import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../../src/crc32c.js';
import { loadEngine } from '../../../src/engine/engine.js';
import { decompress } from '../../../src/repository/format/codecs.js';
import { Blake3, blake3, deriveKeys } from '../../../src/repository/format/keys.js';
import {
  decodeRecord,
  encodeRecord,
  RECORD_HEADER_BYTES,
} from '../../../src/repository/format/record.js';
import { codeOf } from '../../helpers/errors.js';
import { makeContent, randomContent } from '../../helpers/writer.js';

const KEY = Buffer.alloc(32, 7);

/** A record header with some bytes changed and its CRC made right again: what only a hostile writer makes. */
function forge(record: Buffer, change: (header: Buffer) => void): Buffer {
  const forged = Buffer.from(record);
  change(forged);
  forged.writeUInt32LE(crc32c(forged.subarray(0, 60)), 60);
  return forged;
}

describe('CRC-32C', () => {
  test('agrees with the published check value and the iSCSI vectors', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
    expect(crc32c(Buffer.alloc(0))).toBe(0);
  });
});

describe('keys', () => {
  test('BLAKE3 agrees with the published test vectors, plain, keyed and derived', () => {
    const input = Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 251));
    const key = Buffer.from('whats the Elvish word for friend');
    expect(blake3(input).toString('hex')).toBe(
      '42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7',
    );
    expect(blake3(input, key).toString('hex')).toBe(
      '75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4',
    );
  });

  test('agrees with the engine, plain and keyed, at every length where the tree changes shape', () => {
    const engine = loadEngine();
    const input = randomContent(1_100_000);
    const lengths = new Set([0, 1, 63, 64, 65, 1_100_000]);
    // Chunks of 1024 bytes; vector units take 4, 8 or 16 of them at a time.
    for (let chunks = 1; chunks <= 1024; chunks *= 2) {
      for (const near of [-1024, -1, 0, 1, 1024]) lengths.add(chunks * 1024 + near);
    }
    for (const length of lengths) {
      const data = input.subarray(3, 3 + length);
      expect(blake3(data).equals(engine.blake3(null, data)), `length ${length}`).toBe(true);
      expect(blake3(data, KEY).equals(engine.blake3(KEY, data)), `keyed ${length}`).toBe(true);
      const pieces = new Blake3();
      for (let at = 0; at < data.length; at += 77_777)
        pieces.update(data.subarray(at, at + 77_777));
      expect(pieces.digest().equals(blake3(data)), `in pieces ${length}`).toBe(true);
    }
  });

  test('each class of record has a key of its own', () => {
    const keys = deriveKeys(KEY);
    expect(new Set([keys.chunk, keys.map, keys.object].map((key) => key.toString())).size).toBe(3);
    expect(new Set([...Object.values(keys)].map(String)).size).toBe(4);
    // Computed with the reference implementation, so that no change of library changes the keys.
    expect(Buffer.from(deriveKeys(Buffer.alloc(32, 5)).map).toString('hex')).toBe(
      'c142fcd905d6f5e7962cec925cf8cf3499f134c202b6678e1421a26879b18d64',
    );
  });
});

describe('records', () => {
  test('content comes back from its record', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 5000 }),
        fc.constantFrom('chunk' as const, 'map' as const, 'object' as const),
        (bytes, recordClass) => {
          const content = Buffer.from(bytes);
          const record = encodeRecord(recordClass, KEY, content);
          const decoded = decodeRecord(record, recordClass, KEY);
          expect(decoded.content.equals(content)).toBe(true);
          expect(decoded.header.id.equals(blake3(content, KEY))).toBe(true);
        },
      ),
    );
  });

  test('content that compresses by less than 3 % is stored raw, other content is not', () => {
    // Of these bytes LZ4 saves `repeated` at most.
    const withRepeats = (repeated: number) =>
      Buffer.concat([randomContent(10_000 - repeated), Buffer.alloc(repeated, 5)]);
    expect(encodeRecord('chunk', KEY, withRepeats(0)).readUInt8(6)).toBe(0);
    expect(encodeRecord('chunk', KEY, withRepeats(300)).readUInt8(6)).toBe(0);
    expect(encodeRecord('chunk', KEY, withRepeats(500)).readUInt8(6)).toBe(1);
    expect(encodeRecord('chunk', KEY, Buffer.alloc(4096, 5)).readUInt8(6)).toBe(1);
  });

  test('every flipped bit is found', async () => {
    for (const content of [Buffer.from('{"type":"generation"}'), Buffer.alloc(500, 'abc')]) {
      const record = encodeRecord('object', KEY, content);
      for (let bit = 0; bit < record.length * 8; bit++) {
        const damaged = Buffer.from(record);
        damaged.writeUInt8(damaged.readUInt8(bit >>> 3) ^ (1 << (bit & 7)), bit >>> 3);
        expect(await codeOf(() => decodeRecord(damaged, 'object', KEY)), `bit ${bit}`).toBe(
          'ERR_CORRUPT_OBJECT',
        );
      }
    }
  });

  test('a record cut short or with bytes after it is refused at every length', async () => {
    const record = encodeRecord('map', KEY, Buffer.alloc(300, 'xy'));
    for (let length = 0; length < record.length; length++) {
      const cut = record.subarray(0, length);
      expect(await codeOf(() => decodeRecord(cut, 'map', KEY))).toBe('ERR_CORRUPT_OBJECT');
    }
    const longer = Buffer.concat([record, Buffer.alloc(1)]);
    expect(await codeOf(() => decodeRecord(longer, 'map', KEY))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('a header whose checksum is right but whose fields are not is refused', async () => {
    const record = encodeRecord('chunk', KEY, Buffer.alloc(4096, 3));
    const forgeries: [string, (header: Buffer) => void, string][] = [
      ['version 0', (header) => header.writeUInt8(0, 4), 'ERR_CORRUPT_CHUNK'],
      ['version 2', (header) => header.writeUInt8(2, 4), 'ERR_VERSION'],
      ['class 0', (header) => header.writeUInt8(0, 5), 'ERR_CORRUPT_CHUNK'],
      ['class 4', (header) => header.writeUInt8(4, 5), 'ERR_CORRUPT_CHUNK'],
      ['another class', (header) => header.writeUInt8(2, 5), 'ERR_CORRUPT_CHUNK'],
      ['codec 3', (header) => header.writeUInt8(3, 6), 'ERR_CORRUPT_CHUNK'],
      ['sealed', (header) => header.writeUInt8(1, 7), 'ERR_KEY_REQUIRED'],
      ['another flag', (header) => header.writeUInt8(2, 7), 'ERR_CORRUPT_CHUNK'],
      ['raw length', (header) => header.writeUInt32LE(4097, 8), 'ERR_CORRUPT_CHUNK'],
      ['huge raw length', (header) => header.writeUInt32LE(0xffffffff, 8), 'ERR_CORRUPT_CHUNK'],
      ['stored length', (header) => header.writeUInt32LE(1, 12), 'ERR_CORRUPT_CHUNK'],
      ['id', (header) => header.writeUInt8(header.readUInt8(16) ^ 1, 16), 'ERR_CORRUPT_CHUNK'],
      ['nonce', (header) => header.writeUInt8(1, 48), 'ERR_CORRUPT_CHUNK'],
      ['codec raw', (header) => header.writeUInt8(0, 6), 'ERR_CORRUPT_CHUNK'],
      ['codec zstd', (header) => header.writeUInt8(2, 6), 'ERR_CORRUPT_CHUNK'],
    ];
    for (const [name, change, code] of forgeries) {
      expect(await codeOf(() => decodeRecord(forge(record, change), 'chunk', KEY)), name).toBe(
        code,
      );
    }
  });

  test('content under another key is refused', async () => {
    const record = encodeRecord('chunk', KEY, Buffer.alloc(4096, 3));
    const other = Buffer.alloc(32, 8);
    expect(await codeOf(() => decodeRecord(record, 'chunk', other))).toBe('ERR_CORRUPT_CHUNK');
  });
});

describe('decompression', () => {
  test('an LZ4 block that is shorter, longer or cut off is refused', () => {
    const record = encodeRecord('chunk', KEY, Buffer.alloc(8192, 'firn'));
    const stored = record.subarray(RECORD_HEADER_BYTES);
    expect(decompress('lz4', stored, 8192)?.equals(Buffer.alloc(8192, 'firn'))).toBe(true);
    for (const length of [8191, 8193]) {
      const forged = Buffer.from(stored);
      forged.writeUInt32LE(length, 0);
      expect(decompress('lz4', forged, length)).toBeUndefined();
    }
    expect(decompress('lz4', stored.subarray(0, stored.length - 1), 8192)).toBeUndefined();
    expect(decompress('lz4', Buffer.alloc(3), 0)).toBeUndefined();
  });

  test('no bytes make a decompressor throw or give another length', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('lz4' as const, 'zstd' as const),
        fc.uint8Array({ maxLength: 200 }),
        fc.nat(300),
        (codec, bytes, rawLength) => {
          const stored = Buffer.from(bytes);
          if (codec === 'lz4' && stored.length >= 4) stored.writeUInt32LE(rawLength, 0);
          if (codec === 'zstd' && stored.length >= 4) stored.writeUInt32LE(0xfd2fb528, 0);
          expect(decompress(codec, stored, rawLength)?.length ?? rawLength).toBe(rawLength);
        },
      ),
      { numRuns: 2000 },
    );
  });

  const zstd = zstdProgram();
  test.skipIf(zstd === undefined)(
    'zstd frames are read, and nothing but one whole frame is',
    () => {
      for (const content of [makeContent(20, 3), Buffer.alloc(100_000, 'firn'), Buffer.from('x')]) {
        for (const flags of [['-1'], ['-19'], ['-3', '--no-check']]) {
          const frame = compressWith(zstd as string, flags, content);
          expect(decompress('zstd', frame, content.length)?.equals(content)).toBe(true);
          expect(decompress('zstd', frame, content.length + 1)).toBeUndefined();
          expect(decompress('zstd', frame, content.length - 1)).toBeUndefined();
          expect(decompress('zstd', frame.subarray(0, -1), content.length)).toBeUndefined();
          const twice = Buffer.concat([frame, frame]);
          expect(decompress('zstd', twice, content.length)).toBeUndefined();
          expect(decompress('zstd', twice, content.length * 2)).toBeUndefined();
        }
      }
    },
  );

  test.skipIf(zstd === undefined)('a zstd frame without its content size is refused', () => {
    const content = Buffer.alloc(5000, 'firn');
    const frame = compressWith(zstd as string, ['--no-content-size'], content);
    expect(decompress('zstd', frame, content.length)).toBeUndefined();
  });
});

function zstdProgram(): string | undefined {
  try {
    execFileSync('zstd', ['--version']);
    return 'zstd';
  } catch {
    return undefined;
  }
}

function compressWith(program: string, flags: string[], input: Buffer): Buffer {
  // The size of what comes through a pipe is known to zstd only if it is told.
  const size = flags.includes('--no-content-size') ? [] : [`--stream-size=${input.length}`];
  return execFileSync(program, ['-q', '-c', ...flags, ...size], { input, maxBuffer: 1 << 26 });
}
