/** Options in, complete and valid plain data out, or a message that says what was expected and what came. */

import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import {
  MEMORY_BYTES_DEFAULT,
  NODE_MEMORY_BYTES,
  parseInteger,
  parseSize,
  resolveChunking,
  resolveCompression,
  resolveOpenDisk,
  resolveTuning,
} from '../../src/engine/options.js';
import { isFirnError } from '../../src/errors.js';

function messageOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (isFirnError(error)) return `${error.code} ${error.message}`;
    throw error;
  }
  return 'no error';
}

describe('parseSize', () => {
  it.each([
    ['0', 0],
    ['4096', 4096],
    ['64K', 65536],
    ['64k', 65536],
    ['64KiB', 65536],
    ['64kB', 64000],
    ['1M', 1048576],
    ['2GiB', 2147483648],
    ['1.5G', 1610612736],
    ['10MB', 10000000],
    ['1T', 1099511627776],
    [' 8 MiB ', 8388608],
    ['7P', 7881299347898368],
  ])('reads %s as %i bytes', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', 'K', '-1', '1e3', '1.2.3M', '12X', '0x10', '1.0001', '9P', 'NaN', '١'])(
    'refuses %j',
    (text) => {
      expect(messageOf(() => parseSize(text, '--memory'))).toBe(
        `ERR_INVALID_ARGUMENT Expected a size such as 64K, 1M or 2GiB for --memory but received ${JSON.stringify(text)}`,
      );
    },
  );
});

describe('parseInteger', () => {
  it('takes whole numbers in range alone', () => {
    expect(parseInteger('8', '--workers', 1, 256)).toBe(8);
    for (const text of ['0', '257', '1.5', '', 'two', '1e2', '0x2']) {
      expect(messageOf(() => parseInteger(text, '--workers', 1, 256))).toMatch(
        /^ERR_INVALID_ARGUMENT Expected an integer from 1 to 256 for --workers but received/,
      );
    }
  });
});

describe('resolveTuning', () => {
  it('uses every core and leaves Node its part of the memory', () => {
    expect(resolveTuning()).toEqual({
      workers: Math.min(availableParallelism(), 256),
      memoryBytes: MEMORY_BYTES_DEFAULT - NODE_MEMORY_BYTES,
      io: 'auto',
      backend: 'auto',
      bytesPerSecond: 0,
    });
  });

  it('takes what is given and treats undefined as not given', () => {
    expect(
      resolveTuning({
        workers: 3,
        memoryBytes: 2 ** 30,
        io: 'direct',
        backend: undefined,
        bytesPerSecond: 7,
      }),
    ).toEqual({
      workers: 3,
      memoryBytes: 2 ** 30 - NODE_MEMORY_BYTES,
      io: 'direct',
      backend: 'auto',
      bytesPerSecond: 7,
    });
  });

  it('refuses what the engine cannot work with', () => {
    expect(messageOf(() => resolveTuning({ workers: 0 }))).toMatch(
      /integer from 1 to 256 for workers/,
    );
    expect(messageOf(() => resolveTuning({ bytesPerSecond: -1 }))).toMatch(/for bytesPerSecond/);
    expect(messageOf(() => resolveTuning({ workers: 1.5 }))).toMatch(/received 1.5/);
    expect(messageOf(() => resolveTuning({ memoryBytes: 1024 }))).toMatch(/for memoryBytes/);
    expect(messageOf(() => resolveTuning({ io: 'fast' as 'auto' }))).toBe(
      'ERR_INVALID_ARGUMENT Expected one of auto, direct, buffered for io but received "fast"',
    );
  });
});

describe('resolveCompression', () => {
  it('has a default level for each codec', () => {
    expect(resolveCompression()).toEqual({ codec: 'lz4', level: 2 });
    expect(resolveCompression({ codec: 'zstd' })).toEqual({ codec: 'zstd', level: 3 });
    expect(resolveCompression({ codec: 'raw' })).toEqual({ codec: 'raw', level: 0 });
  });

  it('refuses a level that the codec does not have', () => {
    expect(messageOf(() => resolveCompression({ codec: 'zstd', level: 20 }))).toMatch(
      /from 1 to 19 for level of zstd but received 20/,
    );
    expect(messageOf(() => resolveCompression({ codec: 'raw', level: 1 }))).toMatch(
      /Expected 0 for level of raw/,
    );
  });
});

describe('resolveChunking', () => {
  it('cuts by content into 32, 64 and 256 KiB by default', () => {
    expect(resolveChunking()).toEqual({
      scheme: 'content',
      minPages: 8,
      averagePages: 16,
      maxPages: 64,
    });
  });

  it('gives a fixed chunk one size three times', () => {
    expect(resolveChunking({ scheme: 'fixed', chunkBytes: 65536 })).toEqual({
      scheme: 'fixed',
      minPages: 16,
      averagePages: 16,
      maxPages: 16,
    });
  });

  it('refuses a fixed size that does not divide a segment', () => {
    expect(messageOf(() => resolveChunking({ scheme: 'fixed', chunkBytes: 3 * 4096 }))).toMatch(
      /power of two/,
    );
    expect(messageOf(() => resolveChunking({ scheme: 'fixed', chunkBytes: 2 ** 24 }))).toMatch(
      /for chunkBytes/,
    );
    expect(messageOf(() => resolveChunking({ scheme: 'fixed', chunkBytes: 1000 }))).toMatch(
      /multiple of 4 KiB/,
    );
  });

  it('refuses sizes out of order', () => {
    expect(
      messageOf(() => resolveChunking({ scheme: 'content', minBytes: 131072, maxBytes: 65536 })),
    ).toBe(
      'ERR_INVALID_ARGUMENT Expected min <= average <= max for the chunk sizes but received 128K, 64K, 64K',
    );
  });
});

describe('resolveOpenDisk', () => {
  it('is complete, and a copy of the lists that were given', () => {
    const parentFolders = ['/a'];
    const resolved = resolveOpenDisk({ parentFolders });
    expect(resolved).toEqual({ parentFolders: ['/a'], parents: [], format: '' });
    expect(resolved.parentFolders).not.toBe(parentFolders);
  });
});
