/** Reads and writes by block size, depth, order and cache mode, as cells; and the test files that they read. */

import type { NativeIoScan, NativeIoScanResult } from '../engine/bench-binding.js';
import { loadEngine, runSession } from '../engine/engine.js';
import { resolveOpenDisk, resolveTuning } from '../engine/options.js';
import type { BenchSession, Cell, Sample } from './rounds.js';
import type { Scratch } from './scratch.js';
import type { BenchSettings, CacheMode, ReadOrder } from './settings.js';
import { sizeName } from './words.js';

const SLICE_MS = 50;
const ORDER_WORDS: Readonly<Record<ReadOrder, string>> = { file: 'file order', map: 'map order' };

export interface ReadPoint {
  path: string;
  order: ReadOrder;
  cache: CacheMode;
  blockBytes: number;
  depth: number;
}

/** Makes a file of generated data for reading. */
export async function makeDataFile(
  scratch: Scratch,
  name: string,
  settings: BenchSettings,
  { signal }: BenchSession,
): Promise<string> {
  const path = scratch.path(name);
  await runSession(
    loadEngine().startMakeData({
      tuning: resolveTuning(settings.tuning),
      path,
      bytes: settings.sizeBytes,
      data: settings.data,
    }),
    { signal },
  );
  return path;
}

/** Reads at one point of the scan; each round goes on where the last one has ended. */
export function readCell(point: ReadPoint, settings: BenchSettings, session: BenchSession): Cell {
  const { order, cache, blockBytes, depth } = point;
  let position = 0;
  return {
    id: `read/${order}/${cache}/${sizeName(blockBytes)}/${depth}`,
    suite: 'read',
    label: `${ORDER_WORDS[order]}, ${cache}, ${sizeName(blockBytes)} x ${depth}`,
    parameters: { order, cache, blockBytes, depth },
    async run() {
      const result = await scan(
        {
          kind: order,
          path: point.path,
          direct: cache === 'direct',
          cold: cache === 'cold',
          warmUpMs: cache === 'cold' ? 0 : 1000 * settings.warmUpSeconds,
          blockBytes,
          depth,
          position: cache === 'cold' ? 0 : position,
        },
        settings,
        session,
      );
      position = result.position;
      return sampleOf(result);
    },
  };
}

export interface WritePoint {
  direct: boolean;
  blockBytes: number;
  depth: number;
}

/** Writes a new file inside the scratch folder; its time goes until all is durable. */
export function writeCell(
  point: WritePoint,
  scratch: Scratch,
  settings: BenchSettings,
  session: BenchSession,
): Cell {
  const { direct, blockBytes, depth } = point;
  const cache = direct ? 'direct' : 'buffered';
  const name = `write-${cache}-${blockBytes}-${depth}`;
  return {
    id: `write/${cache}/${sizeName(blockBytes)}/${depth}`,
    suite: 'write',
    label: `${cache}, ${sizeName(blockBytes)} x ${depth}, until durable`,
    parameters: { cache, blockBytes, depth },
    async run() {
      const result = await scan(
        {
          kind: 'write',
          path: scratch.path(name),
          direct,
          cold: false,
          warmUpMs: 1000 * settings.warmUpSeconds,
          blockBytes,
          depth,
          position: 0,
        },
        settings,
        session,
      );
      return sampleOf(result);
    },
  };
}

async function scan(
  options: Pick<
    NativeIoScan,
    'kind' | 'path' | 'direct' | 'cold' | 'warmUpMs' | 'blockBytes' | 'depth' | 'position'
  >,
  settings: BenchSettings,
  { signal }: BenchSession,
): Promise<NativeIoScanResult> {
  const started = loadEngine().startIoScan({
    ...options,
    tuning: resolveTuning(settings.tuning),
    open: resolveOpenDisk({ parentFolders: settings.parentFolders }),
    fileBytes: settings.sizeBytes,
    warmUpMs: Math.round(options.warmUpMs),
    runMs: Math.round(1000 * settings.seconds),
    sliceMs: SLICE_MS,
    data: settings.data,
  });
  return runSession(started, { signal });
}

function sampleOf(result: NativeIoScanResult): Sample {
  const sliceSeconds = SLICE_MS / 1000;
  return {
    bytes: result.bytes,
    seconds: result.elapsedSeconds + result.syncSeconds,
    latency: result.latency,
    // The last slice is seldom a whole one.
    timeline: {
      sliceSeconds,
      bytesPerSecond: result.slices.slice(0, -1).map((bytes) => bytes / sliceSeconds),
    },
  };
}

/** What copies of these images may take at most: their virtual sizes would be too much to ask for, their files are not enough. */
export async function imageBytes(images: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const image of images) {
    const { layers } = await loadEngine().inspectDisk(image, resolveOpenDisk());
    bytes += layers.reduce((sum, layer) => sum + layer.fileBytes, 0);
  }
  return bytes;
}
