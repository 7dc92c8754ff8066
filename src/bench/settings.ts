/** What a benchmark can be told, with every default; the command line and the library resolve their options here. */

import type { Codec, IoMode } from '../engine/binding.js';
import {
  expected,
  integerIn,
  oneOf,
  resolveCompression,
  resolveTuning,
  type TuningOptions,
} from '../engine/options.js';
import { firnError } from '../errors.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** How files are read: past the cache, through a cache that was emptied, or through a warm one. */
export const CACHE_MODES = ['direct', 'cold', 'warm'] as const;
export type CacheMode = (typeof CACHE_MODES)[number];

export const READ_ORDERS = ['file', 'map'] as const;
export type ReadOrder = (typeof READ_ORDERS)[number];

export interface BenchOptions {
  rounds?: number | undefined;
  /** Of one round of one measurement. */
  seconds?: number | undefined;
  warmUpSeconds?: number | undefined;
  blockBytes?: readonly number[] | undefined;
  depths?: readonly number[] | undefined;
  caches?: readonly CacheMode[] | undefined;
  orders?: readonly ReadOrder[] | undefined;
  /** Of files that are made. */
  sizeBytes?: number | undefined;
  entropy?: number | undefined;
  duplicates?: number | undefined;
  seed?: number | undefined;
  /** Bytes a second that no measurement reads, or in a scan of writes writes, more than; 0: no cap. Not with peers, who know no such thing. */
  limit?: number | undefined;
  codec?: Codec | undefined;
  level?: number | undefined;
  parentFolders?: readonly string[] | undefined;
  peers?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface BenchSettings {
  rounds: number;
  seconds: number;
  warmUpSeconds: number;
  blockBytes: number[];
  depths: number[];
  caches: CacheMode[];
  orders: ReadOrder[];
  sizeBytes: number;
  data: { entropy: number; duplicates: number; seed: number };
  limit: number;
  codec: Codec;
  level: number;
  parentFolders: string[];
  peers: boolean;
  /** With `limit` as its cap. */
  tuning: TuningOptions & { io: IoMode };
}

export function resolveBench(options: BenchOptions = {}): BenchSettings {
  const { codec, level } = resolveCompression(options);
  const limit = options.limit ?? options.tuning?.bytesPerSecond ?? 0;
  const tuning = { ...options.tuning, io: options.tuning?.io ?? 'direct', bytesPerSecond: limit };
  resolveTuning(tuning);
  if (limit > 0 && options.peers === true) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected a limit or peers, not both: other programs know no limit',
    );
  }
  return {
    rounds: integerIn('rounds', options.rounds ?? 5, 1, 1000),
    seconds: secondsIn('seconds', options.seconds ?? 0.5, 0.01, 3600),
    warmUpSeconds: secondsIn('warm-up', options.warmUpSeconds ?? 0.1, 0, 3600),
    blockBytes: (options.blockBytes ?? [64 * KIB, 256 * KIB, MIB, 4 * MIB]).map(blockIn),
    depths: (options.depths ?? [1, 8, 32]).map((each) => integerIn('queue depth', each, 1, 1024)),
    caches: (options.caches ?? ['direct', 'cold']).map((each) => oneOf('cache', each, CACHE_MODES)),
    orders: (options.orders ?? READ_ORDERS).map((each) => oneOf('order', each, READ_ORDERS)),
    sizeBytes: pagesIn(integerIn('size', options.sizeBytes ?? GIB, 16 * MIB, 1024 * 1024 * GIB)),
    data: {
      entropy: secondsIn('entropy', options.entropy ?? 0.5, 0.05, 1),
      duplicates: secondsIn('duplicates', options.duplicates ?? 0.2, 0, 0.95),
      seed: integerIn('seed', options.seed ?? 1, 0, 2 ** 32 - 1),
    },
    limit,
    codec,
    level,
    parentFolders: [...(options.parentFolders ?? [])],
    peers: options.peers ?? false,
    tuning,
  };
}

function blockIn(bytes: number): number {
  const block = integerIn('block size', bytes, 4 * KIB, 64 * MIB);
  if (block % (4 * KIB) !== 0) throw expected('block size', 'a multiple of 4 KiB', bytes);
  return block;
}

function pagesIn(bytes: number): number {
  return bytes - (bytes % MIB);
}

function secondsIn(name: string, value: number, min: number, max: number): number {
  if (Number.isFinite(value) && value >= min && value <= max) return value;
  throw expected(name, `a number from ${min} to ${max}`, value);
}
