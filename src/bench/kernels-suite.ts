/**
 * The kernels on one thread, with data that is neither zeros nor noise: what each stage of a backup costs on this processor. tinybench calls
 * them; a round's value is the median of its calls. Other libraries stand beside ours on the same chunks.
 *
 * Ours run without crossing into JavaScript but once for each pass over the input. lz4-napi and node:crypto are called for each chunk, as
 * there is no other way to call them, and allocate each result.
 */

import { createCipheriv, createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { Bench } from 'tinybench';
import { loadEngine, throwIfAborted } from '../engine/engine.js';
import { firnError } from '../errors.js';
import type { SuiteResult } from './read-suite.js';
import type { Measurement } from './report.js';
import type { BenchSession } from './rounds.js';
import type { BenchSettings } from './settings.js';
import { summarize } from './statistics.js';
import { bothRates } from './words.js';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const INPUT_BYTES = 4 * MIB;
const CHUNK_BYTES = 64 * 1024;
const ZSTD_LEVELS = [1, 3, 6, 9];
const LZ4_ACCELERATIONS = [1, 2, 8];

interface Contestant {
  id: string;
  label: string;
  parameters: Record<string, string | number | boolean>;
  inputBytes: number;
  run(): number;
  /** True if what run gives is compressed. */
  compresses: boolean;
}

export async function runKernels(
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult> {
  const input = loadEngine().benchData({ bytes: INPUT_BYTES, data: settings.data });
  const contestants = [...ownKernels(input, settings), ...foreignKernels(input)];
  const samples = new Map(contestants.map(({ id }) => [id, [] as number[]]));
  for (let round = 0; round < settings.rounds; round++) {
    session.onStep({ label: 'kernels', done: round, total: settings.rounds });
    const rates = await runRound(contestants, settings, session.signal);
    for (const [id, rate] of rates) samples.get(id)?.push(rate);
  }
  const measurements = contestants.map((each) => measurementOf(each, samples.get(each.id) ?? []));
  return { measurements, findings: findingsOf(measurements), paste: [], warnings: [] };
}

/** Each has a bench of its own, so that a Ctrl-C is noticed between two of them. */
async function runRound(
  contestants: readonly Contestant[],
  settings: BenchSettings,
  signal: AbortSignal,
): Promise<[id: string, bytesPerSecond: number][]> {
  const rates: [id: string, bytesPerSecond: number][] = [];
  for (const { id, inputBytes, run } of contestants) {
    throwIfAborted(signal);
    const bench = new Bench({
      time: 1000 * settings.seconds,
      warmupTime: 1000 * settings.warmUpSeconds,
      iterations: 3,
      warmupIterations: 1,
    });
    await bench.add(id, run).run();
    const result = bench.getTask(id)?.result;
    if (result?.state !== 'completed') throw firnError('ERR_INTERNAL', `${id} did not run`);
    rates.push([id, (1000 * inputBytes) / result.latency.p50]);
    // A timer's turn: signals arrive there.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return rates;
}

function ownKernels(input: Uint8Array, settings: BenchSettings): Contestant[] {
  const engine = loadEngine();
  const make = (name: string, level = 0, cpuImpl = '', shown = name): Contestant => {
    const kernel = engine.newKernel({ name, level, cpuImpl, chunkBytes: CHUNK_BYTES }, input);
    return {
      id: `kernels/${shown.replaceAll(' ', '-')}`,
      label: shown,
      parameters: { kernel: name, level, cpuImpl, chunkBytes: CHUNK_BYTES },
      inputBytes: kernel.inputBytes,
      run: () => kernel.run(),
      compresses: name === 'lz4' || name === 'zstd',
    };
  };
  const levels = [
    ...new Set([...ZSTD_LEVELS, ...(settings.codec === 'zstd' ? [settings.level] : [])]),
  ];
  return [
    make('memcpy'),
    make('zero-scan'),
    make('zero-scan-portable'),
    make('cut'),
    make('crc32c'),
    ...engine.blake3Implementations().map((each) => make('blake3', 0, each, `blake3 ${each}`)),
    ...LZ4_ACCELERATIONS.map((each) => make('lz4', each, '', `lz4 ${each}`)),
    make('lz4-decode', 1),
    ...levels.map((each) => make('zstd', each, '', `zstd ${each}`)),
    make('zstd-decode', 3),
    make('aes-256-gcm'),
  ];
}

function foreignKernels(input: Uint8Array): Contestant[] {
  const lz4 = createRequire(import.meta.url)('lz4-napi') as {
    compressSync(data: Buffer): Buffer;
    uncompressSync(data: Buffer): Buffer;
  };
  const chunks = chunksOf(input);
  const compressed = chunks.map((chunk) => lz4.compressSync(chunk));
  const key = Buffer.alloc(32);
  const nonce = Buffer.alloc(12);
  const make = (label: string, each: readonly Buffer[], work: (chunk: Buffer) => number) => ({
    id: `kernels/${label.replaceAll(/[ ()]+/g, '-')}`,
    label,
    parameters: { kernel: label, chunkBytes: CHUNK_BYTES },
    inputBytes: input.length,
    run: () => each.reduce((sum, chunk) => sum + work(chunk), 0),
    compresses: label === 'lz4-napi',
  });
  return [
    make('lz4-napi', chunks, (chunk) => lz4.compressSync(chunk).length),
    make('lz4-napi decode', compressed, (chunk) => lz4.uncompressSync(chunk).length),
    make('node:crypto aes-256-gcm', chunks, (chunk) => {
      nonce.writeUInt32LE((nonce.readUInt32LE(0) + 1) >>> 0, 0);
      return createCipheriv('aes-256-gcm', key, nonce).update(chunk).length;
    }),
    make(
      'node:crypto sha256',
      chunks,
      (chunk) => createHash('sha256').update(chunk).digest().length,
    ),
  ];
}

function chunksOf(input: Uint8Array): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < input.length; at += CHUNK_BYTES) {
    // A copy: lz4-napi takes Buffers that own their memory.
    chunks.push(Buffer.from(input.subarray(at, at + CHUNK_BYTES)));
  }
  return chunks;
}

function measurementOf(contestant: Contestant, rounds: number[]): Measurement {
  const summary = summarize(rounds);
  return {
    id: contestant.id,
    suite: 'kernels',
    label: contestant.label,
    parameters: contestant.parameters,
    rounds,
    summary,
    // One thread that does nothing else: its time is CPU time.
    cpuSecondsPerGib: GIB / summary.median,
    ...(contestant.compresses && { ratio: contestant.inputBytes / contestant.run() }),
  };
}

function findingsOf(measurements: readonly Measurement[]): string[] {
  const rate = (label: string) => measurements.find((each) => each.label === label)?.summary.median;
  const best = measurements.filter(({ label }) => label.startsWith('blake3 ')).at(-1);
  const [ours, theirs] = [rate('lz4 1'), rate('lz4-napi')];
  const found: string[] = [];
  if (best !== undefined) {
    found.push(
      `BLAKE3 runs at ${bothRates(best.summary.median)} a core with ${best.label.slice(7)}.`,
    );
  }
  if (ours !== undefined && theirs !== undefined) {
    found.push(
      `LZ4 in the engine is ${(ours / theirs).toFixed(2)} times as fast as lz4-napi on the same chunks.`,
    );
  }
  return found;
}
