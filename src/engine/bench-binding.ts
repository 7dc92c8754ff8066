/**
 * The part of the native surface that measures; NativeBinding has it too. Sizes are bytes, latencies nanoseconds, times seconds unless a
 * name says otherwise.
 */

import type { Codec, NativeOpenDisk, NativeSession, NativeStats, NativeTuning } from './binding.js';

/** What generated data is like: native/bench/bench_data.h. */
export interface NativeBenchData {
  seed: number;
  entropy: number; // share of random bytes, 0.05 to 1
  duplicates: number; // share of 1 MiB units that repeat an earlier one, 0 to 0.95
}

export interface NativeIoScan {
  tuning: NativeTuning; // only its backend and its cap, which is on writes as well
  kind: 'file' | 'map' | 'write'; // map: a disk's allocated bytes in the disk's order
  path: string; // write: must not be there
  open: NativeOpenDisk; // map
  fileBytes: number; // write: begins anew after so many
  blockBytes: number;
  depth: number; // 1 to 1024; with blockBytes at most 1 GiB of buffers
  direct: boolean;
  cold: boolean; // drop the file from the cache first, and end with its last byte
  position: number; // reads begin at this byte of what there is to read
  warmUpMs: number;
  runMs: number;
  sliceMs: number;
  data: NativeBenchData; // write
}

export interface NativeLatency {
  count: number;
  meanNs: number;
  minNs: number;
  maxNs: number;
  buckets: [upperNs: number, count: number][]; // those that are not empty, rising; within 1/64
}

export interface NativeIoScanResult {
  bytes: number;
  elapsedSeconds: number;
  syncSeconds: number; // write: until all was durable, after elapsedSeconds
  latency: NativeLatency;
  slices: number[]; // bytes completed in each sliceMs
  planBytes: number; // what there is to read
  position: number; // where the next scan may go on
  direct: boolean; // all requests went past the cache
  cut: boolean; // there is more, in too many pieces
  backend: string;
  stats: NativeStats;
}

export interface NativeStageScan {
  tuning: NativeTuning;
  path: string;
  open: NativeOpenDisk;
  codec: Codec;
  level: number;
  bytesMax: number;
}

/** CPU seconds of one thread for each stage alone. */
export interface NativeStageScanResult {
  scannedBytes: number;
  dataBytes: number; // in pages that are not zero
  chunks: number;
  uniqueChunks: number;
  uniqueBytes: number;
  compressedBytes: number;
  scanSeconds: number; // zero scan and cut
  hashSeconds: number;
  compressSeconds: number;
  stats: NativeStats;
}

export interface NativeKernelOptions {
  name: string; // native/bench/kernel.h lists them
  level: number;
  cpuImpl: string; // blake3: one of blake3Implementations(), '' for the best
  chunkBytes: number;
}

export interface NativeKernel {
  readonly inputBytes: number;
  /** Goes over its input once; the bytes that came out. */
  run(): number;
}

export interface NativeBenchBinding {
  startIoScan(options: NativeIoScan): NativeSession<NativeIoScanResult>;
  startStageScan(options: NativeStageScan): NativeSession<NativeStageScanResult>;
  /** Writes a new file of generated data, durable and not in the cache when it is done. */
  startMakeData(options: {
    tuning: NativeTuning;
    path: string;
    bytes: number;
    data: NativeBenchData;
  }): NativeSession<{ stats: NativeStats }>;
  /** The input is copied: at most 64 MiB. */
  newKernel(options: NativeKernelOptions, input: Uint8Array): NativeKernel;
  /** Slowest first. */
  blake3Implementations(): string[];
  /** The beginning of such data, at most 64 MiB. */
  benchData(options: { bytes: number; data: NativeBenchData }): Uint8Array;
}
