/**
 * Every default and every check of an option: what comes out of here is complete and valid, and the native side only asserts it.
 *
 * Sizes are bytes, given as a number or as text ("64K", "1.5GiB"). A value that does not fit throws ERR_INVALID_ARGUMENT with a
 * message of one form: Expected <what> for <name> but received <value>.
 */

import { availableParallelism } from 'node:os';
import { type FirnError, firnError } from '../errors.js';
import type {
  Codec,
  IoMode,
  NativeChunking,
  NativeOpenDisk,
  NativeTuning,
  NativeUnusedOptions,
} from './binding.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

export const PAGE_BYTES = 4 * KIB;
/** A segment: 8 MiB of a disk. */
export const SEGMENT_PAGES = 2048;

/** What Node itself takes of the process's memory; the rest is the engine's. */
export const NODE_MEMORY_BYTES = 100 * MIB;
export const MEMORY_BYTES_DEFAULT = 256 * MIB;
export const MEMORY_BYTES_MIN = 160 * MIB;
export const MEMORY_BYTES_MAX = 1024 * GIB;
export const WORKERS_MAX = 256;

export const CODECS = ['raw', 'lz4', 'zstd'] as const satisfies readonly Codec[];
export const IO_MODES = ['auto', 'direct', 'buffered'] as const satisfies readonly IoMode[];
export const BACKENDS = [
  'auto',
  'uring',
  'threads',
] as const satisfies readonly NativeTuning['backend'][];

/** How a job may use the machine. */
export interface TuningOptions {
  /** Threads that hash and compress; as many as there are cores when not given. */
  workers?: number | undefined;
  /** What the whole process may take, Node included; 256 MiB when not given. */
  memoryBytes?: number | undefined;
  /** 'direct' goes around the operating system's cache, 'buffered' through it, 'auto' decides by file and file system. */
  io?: IoMode | undefined;
  backend?: NativeTuning['backend'] | undefined;
  /**
   * What a job reads of disks or packs in a second at most, in bytes, all its workers together; 0 or not given: no cap. Backups, restores,
   * copies and the checks of packs keep to it; points that are sent have a limit of their own.
   */
  bytesPerSecond?: number | undefined;
}

export function resolveTuning(options: TuningOptions = {}): NativeTuning {
  const memoryBytes = options.memoryBytes ?? MEMORY_BYTES_DEFAULT;
  if (
    !(
      Number.isSafeInteger(memoryBytes) &&
      memoryBytes >= MEMORY_BYTES_MIN &&
      memoryBytes <= MEMORY_BYTES_MAX
    )
  ) {
    throw expected('memoryBytes', 'at least 160 MiB and at most 1 TiB', memoryBytes);
  }
  return {
    workers: integerIn(
      'workers',
      options.workers ?? Math.min(availableParallelism(), WORKERS_MAX),
      1,
      WORKERS_MAX,
    ),
    memoryBytes: memoryBytes - NODE_MEMORY_BYTES,
    io: oneOf('io', options.io ?? 'auto', IO_MODES),
    backend: oneOf('backend', options.backend ?? 'auto', BACKENDS),
    bytesPerSecond: integerIn(
      'bytesPerSecond',
      options.bytesPerSecond ?? 0,
      0,
      Number.MAX_SAFE_INTEGER,
    ),
  };
}

export interface CompressionOptions {
  codec?: Codec | undefined;
  /** zstd: 1 (fast) to 19 (small), 3 when not given. LZ4: acceleration, 1 (small) to 64 (fast), 1 when not given. Not for raw. */
  level?: number | undefined;
}

// LZ4 at acceleration 2 takes 6 % less of a full backup's CPU than at 1, for 3 % more bytes; who wants size takes zstd.
const LEVELS: Readonly<Record<Codec, { min: number; max: number; fallback: number }>> = {
  raw: { min: 0, max: 0, fallback: 0 },
  lz4: { min: 1, max: 64, fallback: 2 },
  zstd: { min: 1, max: 19, fallback: 3 },
};

export function resolveCompression(options: CompressionOptions = {}): {
  codec: Codec;
  level: number;
} {
  const codec = oneOf('codec', options.codec ?? 'lz4', CODECS);
  const { min, max, fallback } = LEVELS[codec];
  return { codec, level: integerIn(`level of ${codec}`, options.level ?? fallback, min, max) };
}

/** How a repository cuts disks into chunks; sizes are bytes and multiples of 4 KiB. Set once, at init. */
export type ChunkingOptions =
  | {
      scheme: 'content';
      minBytes?: number | undefined;
      averageBytes?: number | undefined;
      maxBytes?: number | undefined;
    }
  | { scheme: 'fixed'; chunkBytes: number };

/** 32 / 64 / 256 KiB by content when nothing is given. */
export function resolveChunking(options: ChunkingOptions = { scheme: 'content' }): NativeChunking {
  if (options.scheme === 'fixed') {
    const pages = pagesOf('chunkBytes', options.chunkBytes);
    if (SEGMENT_PAGES % pages !== 0) {
      throw expected('chunkBytes', 'a power of two from 4 KiB to 8 MiB', options.chunkBytes);
    }
    return { scheme: 'fixed', minPages: pages, averagePages: pages, maxPages: pages };
  }
  oneOf('chunking', options.scheme, ['content', 'fixed'] as const);
  const minPages = pagesOf('minBytes', options.minBytes ?? 32 * KIB);
  const averagePages = pagesOf('averageBytes', options.averageBytes ?? 64 * KIB);
  const maxPages = pagesOf('maxBytes', options.maxBytes ?? 256 * KIB);
  if (minPages > averagePages || averagePages > maxPages) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected min <= average <= max for the chunk sizes but received ${[
        minPages,
        averagePages,
        maxPages,
      ]
        .map((pages) => `${(pages * PAGE_BYTES) / KIB}K`)
        .join(', ')}`,
    );
  }
  return { scheme: 'content', minPages, averagePages, maxPages };
}

function pagesOf(name: string, bytes: number): number {
  if (!Number.isInteger(bytes) || bytes % PAGE_BYTES !== 0) {
    throw expected(name, 'a multiple of 4 KiB', bytes);
  }
  return integerIn(name, bytes, PAGE_BYTES, SEGMENT_PAGES * PAGE_BYTES) / PAGE_BYTES;
}

export interface OpenDiskOptions {
  /** Folders that may hold the parents of a differencing disk, beside the disk's own folder. */
  parentFolders?: readonly string[] | undefined;
  /** The exact parents, nearest first, instead of searching. */
  parents?: readonly string[] | undefined;
  /** What the file is; found out when not given. */
  format?: NativeOpenDisk['format'] | undefined;
}

export function resolveOpenDisk(options: OpenDiskOptions = {}): NativeOpenDisk {
  return {
    parentFolders: [...(options.parentFolders ?? [])],
    parents: [...(options.parents ?? [])],
    format: oneOf('format', options.format ?? '', ['', 'raw', 'vhd', 'vhdx'] as const),
  };
}

export const UNUSED_MODES = ['skip', 'keep'] as const;
export type UnusedMode = (typeof UNUSED_MODES)[number];

export interface UnusedOptions {
  /** 'skip' leaves unused blocks out: they are zeros in the point. 'keep' copies them. */
  unused?: UnusedMode | undefined;
  /**
   * An NTFS volume that has shadow copies is copied whole, as they read what is free now. With true it is not: then the shadow copies inside
   * the restored guest (its "previous versions" and restore points) are damaged, and nothing else is.
   */
  dropGuestShadowCopies?: boolean | undefined;
  /** Copies page files, swap files and inactive hibernation files, whose content is worth nothing after a start. */
  keepPageFiles?: boolean | undefined;
}

/** What the engine is asked for; undefined if all is to be kept. `quiesced`: the guest froze its file systems for these disks. */
export function resolveUnused(
  { unused, dropGuestShadowCopies, keepPageFiles }: UnusedOptions,
  quiesced: boolean,
): NativeUnusedOptions | undefined {
  if (oneOf('unused', unused ?? 'keep', UNUSED_MODES) === 'keep') return undefined;
  return {
    quiesced,
    keepShadowCopies: dropGuestShadowCopies !== true,
    skipPageFiles: keepPageFiles !== true,
  };
}

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  ...powers(1024, (letter) => [letter, `${letter}IB`]),
  ...powers(1000, (letter) => [`${letter}B`]),
};

function powers(base: number, names: (letter: string) => string[]): Record<string, number> {
  const letters = ['K', 'M', 'G', 'T', 'P'];
  return Object.fromEntries(
    letters.flatMap((letter, power) => names(letter).map((name) => [name, base ** (power + 1)])),
  );
}

/**
 * Bytes of a size in text: 4096, 64K, 1.5GiB, 10MB. K, M, G, T, P and KiB, MiB, ... are powers of 1024; kB, MB, ... are powers of 1000.
 * Case does not matter.
 */
export function parseSize(text: string, name = 'size'): number {
  const match = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = UNITS[match?.[2]?.toUpperCase() ?? '?'];
  const bytes = match === null || unit === undefined ? Number.NaN : Number(match[1]) * unit;
  if (!Number.isSafeInteger(bytes)) throw expected(name, 'a size such as 64K, 1M or 2GiB', text);
  return bytes;
}

/** A whole number in text, from min to max. */
export function parseInteger(text: string, name: string, min: number, max: number): number {
  return integerIn(name, /^-?\d+$/.test(text.trim()) ? Number(text) : text, min, max);
}

export function integerIn(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) {
    return value;
  }
  throw expected(name, min === max ? `${min}` : `an integer from ${min} to ${max}`, value);
}

export function oneOf<Value extends string>(
  name: string,
  value: unknown,
  values: readonly Value[],
): Value {
  const found = values.find((candidate) => candidate === value);
  if (found !== undefined) return found;
  throw expected(name, `one of ${values.filter((each) => each !== '').join(', ')}`, value);
}

/** The error for an option that does not fit. */
export function expected(name: string, what: string, received: unknown): FirnError {
  const shown = typeof received === 'string' ? JSON.stringify(received) : String(received);
  return firnError('ERR_INVALID_ARGUMENT', `Expected ${what} for ${name} but received ${shown}`);
}
