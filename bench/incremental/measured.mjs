/** What the parts of the benchmark share: taking times and judging what came out. */
import { rmSync } from 'node:fs';
import { loadEngine } from '../../dist/engine/engine.js';
import { resolveTuning } from '../../dist/engine/options.js';
import { backup, Repository } from '../../dist/index.js';
import { settle } from '../peers/measure.mjs';

export const MIB = 2 ** 20;
const READ_BLOCK_BYTES = MIB;
const READ_DEPTH = 16;
const LONGER_THAN_ANY_READ_MS = 3_600_000;

/** Runs something once and says how long it took, in seconds. */
export async function timed(work) {
  const start = performance.now();
  const result = await work();
  return { seconds: (performance.now() - start) / 1000, result };
}

/** A repository in a folder that is emptied first. */
export function newRepository(folder) {
  rmSync(folder, { recursive: true, force: true });
  return Repository.create(folder);
}

/** A backup as a job makes it, from opening the repository to the sealed point. */
export function timedBackup(folder, disk, options = {}) {
  settle(folder);
  return timed(async () =>
    backup(await Repository.open(folder), { disks: [disk], vm: 'bench', ...options }),
  );
}

/** Seconds that one deep queue of unbuffered reads takes for all bytes that the disk holds, and how many those are. */
export async function readUnbuffered(path) {
  const scan = await loadEngine().startIoScan({
    tuning: resolveTuning(),
    kind: 'map',
    path,
    open: { parentFolders: [], parents: [], format: '' },
    fileBytes: 0,
    blockBytes: READ_BLOCK_BYTES,
    depth: READ_DEPTH,
    direct: true,
    cold: true,
    position: 0,
    warmUpMs: 0,
    runMs: LONGER_THAN_ANY_READ_MS,
    sliceMs: 100,
    data: { seed: 0, entropy: 1, duplicates: 0 },
  }).done;
  if (!scan.direct) throw new Error(`${path} cannot be read past the page cache here`);
  return { seconds: scan.elapsedSeconds, bytes: scan.bytes };
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * A row of the result: the median is held against the bound.
 *
 * @param {{ work: string, asked: string, values: number[], show: (value: number) => string,
 *   most?: number, least?: number }} row
 */
export function row({ work, asked, values, show, most = Infinity, least = -Infinity }) {
  const middle = median(values);
  const range =
    values.length > 1 ? ` (${show(Math.min(...values))} to ${show(Math.max(...values))})` : '';
  const passed = middle <= most && middle >= least;
  return { work, asked, reached: `${show(middle)}${range}`, passed, values };
}

export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const times = (value) => `${value.toFixed(2)}x`;
export const finely = (value) => `${value.toFixed(3)}x`;
export const inSeconds = (value) => `${value.toFixed(2)} s`;
export const inMib = (bytes) => `${(bytes / MIB).toFixed(0)} MiB`;
