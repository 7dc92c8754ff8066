/**
 * Reads and writes: how fast, with what block size and depth, and what that means for a job.
 *
 * The scan over block size and depth goes past the cache and in the order of the map, as a backup reads. The best point of it is then
 * measured again in both orders and all cache modes.
 */

import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { formatOfPath } from '../jobs/target.js';
import { makeDataFile, type ReadPoint, readCell, writeCell } from './io.js';
import { runWithPeers } from './peers.js';
import type { Measurement, PeerRatio } from './report.js';
import { type BenchSession, type Cell, runCells } from './rounds.js';
import { Scratch } from './scratch.js';
import type { BenchSettings, ReadOrder } from './settings.js';
import { bothRates, percent, sizeName } from './words.js';

const MIB = 1024 * 1024;
/** So near to the best is as good: then the smaller buffers win. */
const GOOD_ENOUGH = 0.95;
/** What a worker keeps in flight at most: three segments of 8 MiB. */
const WORKER_BYTES = 24 * MIB;

export interface SuiteResult {
  measurements: Measurement[];
  peers?: PeerRatio[];
  findings: string[];
  paste: string[];
  warnings: string[];
}

/** Reads `place`: an image, or a folder in which a test file is made and removed. */
export async function runRead(
  place: string,
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult> {
  if (!(await stat(place)).isDirectory()) return readImage(place, settings, session);
  await using scratch = await Scratch.make(place, settings.sizeBytes);
  session.onStep({ label: `making ${sizeName(settings.sizeBytes)} of data`, done: 0, total: 1 });
  const made = await makeDataFile(scratch, 'data.raw', settings, session);
  return await readImage(made, settings, session);
}

export async function readImage(
  path: string,
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult> {
  // A raw image lies in its file as it is: the two orders are one.
  const isRaw = formatOfPath(path) === 'raw';
  const orders: readonly ReadOrder[] =
    isRaw && settings.orders.length > 1 ? (['file'] as const) : settings.orders;
  const order = orders.includes('map') ? 'map' : 'file';
  const [scanned = 'direct'] = settings.caches;
  const scan = grid(settings).map(
    (shape): ReadPoint => ({ path, order, cache: scanned, ...shape }),
  );
  const measurements = await measure(scan, settings, session);
  const best = bestOf(measurements);
  const others = orders.flatMap((each) =>
    settings.caches
      .filter((cache) => each !== order || cache !== scanned)
      .map((cache): ReadPoint => ({ path, order: each, cache, ...shapeOf(best) })),
  );
  measurements.push(...(await measure(others, settings, session)));
  const beside = settings.peers
    ? await besidePeers(path, shapeOf(best), settings, session)
    : undefined;
  measurements.push(...(beside?.measurements ?? []));
  return {
    measurements,
    ...(beside !== undefined && { peers: beside.peers }),
    findings: findingsOf(measurements, best),
    paste: pasteOf(measurements, best),
    warnings: await cacheWarnings(path, settings),
  };
}

/** The best point again, round by round beside programs that read the file too. */
async function besidePeers(
  path: string,
  shape: { blockBytes: number; depth: number },
  settings: BenchSettings,
  session: BenchSession,
) {
  const own = readCell({ path, order: 'file', cache: 'direct', ...shape }, settings, session);
  return runWithPeers(
    { ...own, id: 'read/with-peers', label: `${own.label}, beside peers` },
    path,
    (await stat(path)).size,
    undefined,
    settings.rounds,
    session,
  );
}

export async function runWrite(
  folder: string,
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult> {
  await using scratch = await Scratch.make(folder, settings.sizeBytes);
  const direct = grid(settings).map((shape) =>
    writeCell({ direct: true, ...shape }, scratch, settings, session),
  );
  const measurements = await runCells(direct, settings.rounds, session);
  const best = bestOf(measurements);
  const buffered = writeCell({ direct: false, ...shapeOf(best) }, scratch, settings, session);
  measurements.push(...(await runCells([buffered], settings.rounds, session)));
  return {
    measurements,
    findings: [
      `This volume takes ${bothRates(best.summary.median)} until it is durable: ${best.label.replace(', until durable', '')} reaches ${percent(best.summary.median / maxMedian(measurements))} of the best.`,
    ],
    paste: [],
    warnings: [],
  };
}

/** Block size by depth, without what would need more than 1 GiB of buffers. */
function grid({ blockBytes, depths }: BenchSettings): { blockBytes: number; depth: number }[] {
  return blockBytes.flatMap((block) =>
    depths
      .filter((depth) => block * depth <= 1024 * MIB)
      .map((depth) => ({ blockBytes: block, depth })),
  );
}

function measure(
  points: readonly ReadPoint[],
  settings: BenchSettings,
  session: BenchSession,
): Promise<Measurement[]> {
  const cells: Cell[] = points.map((point) => readCell(point, settings, session));
  return runCells(cells, settings.rounds, session);
}

function maxMedian(measurements: readonly Measurement[]): number {
  return Math.max(...measurements.map(({ summary }) => summary.median));
}

function shapeOf({ parameters }: Measurement): { blockBytes: number; depth: number } {
  return { blockBytes: Number(parameters.blockBytes), depth: Number(parameters.depth) };
}

function bufferOf(measurement: Measurement): number {
  const { blockBytes, depth } = shapeOf(measurement);
  return blockBytes * depth;
}

/** Of those that are good enough the one that needs the least buffers. */
export function bestOf(measurements: readonly Measurement[]): Measurement {
  const enough = GOOD_ENOUGH * maxMedian(measurements);
  return measurements
    .filter(({ summary }) => summary.median >= enough)
    .reduce((best, each) => (bufferOf(each) < bufferOf(best) ? each : best));
}

function findingsOf(measurements: readonly Measurement[], best: Measurement): string[] {
  const found = [
    `This host reads ${bothRates(best.summary.median)}: ${best.label} is within 5 % of the best of all block sizes and depths.`,
  ];
  const single = measurements.find(
    ({ parameters }) =>
      parameters.depth === 1 && parameters.blockBytes === best.parameters.blockBytes,
  );
  if (single !== undefined && single !== best) {
    const gain = best.summary.median / single.summary.median;
    found.push(
      gain > 1.2
        ? `Requests in parallel matter here: depth ${best.parameters.depth} is ${gain.toFixed(1)} times as fast as one request at a time.`
        : 'One request at a time is nearly as fast: depth brings little here.',
    );
  }
  return found;
}

function pasteOf(measurements: readonly Measurement[], best: Measurement): string[] {
  const cold = measurements.find(
    ({ parameters }) =>
      parameters.cache === 'cold' &&
      parameters.order === best.parameters.order &&
      bufferOf(best) === Number(parameters.blockBytes) * Number(parameters.depth),
  );
  const io =
    best.parameters.cache === 'direct' && cold !== undefined && cold.summary.low > best.summary.high
      ? 'buffered'
      : best.parameters.cache === 'direct'
        ? 'direct'
        : 'auto';
  // The engine reads 1 MiB at a time; bytes in flight are what counts.
  const cores = availableParallelism();
  const wanted = Math.ceil(bufferOf(best) / WORKER_BYTES);
  const workers = Math.min(2 * cores, Math.max(cores, wanted));
  const memory = Math.max(256, 128 + 64 * workers);
  return [
    `--io ${io} --workers ${workers} --memory ${memory}M`,
    `workers: ${workers}      # in a job file`,
    `memory: ${memory}M`,
  ];
}

async function cacheWarnings(path: string, settings: BenchSettings): Promise<string[]> {
  const { size } = await stat(path);
  const warnings: string[] = [];
  if (settings.caches.includes('warm')) {
    warnings.push('Warm reads measure memory, not the device.');
  }
  if (size < 256 * MIB) {
    warnings.push(
      `The file is only ${sizeName(size)}: a device's own cache may hold all of it. Take a larger one.`,
    );
  }
  return warnings;
}
