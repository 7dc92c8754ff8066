/** Backups with 1, 2, 4 ... workers, and with 1, 2 ... disks at once: where more of either stops to help. */

import { availableParallelism } from 'node:os';
import { WORKERS_MAX } from '../engine/options.js';
import { backupCell } from './pipeline-suite.js';
import type { SuiteResult } from './read-suite.js';
import type { Measurement } from './report.js';
import { type BenchSession, runCells } from './rounds.js';
import type { Scratch } from './scratch.js';
import type { BenchSettings } from './settings.js';
import { bothRates } from './words.js';

/** More that brings less than this is not worth it. */
const GAIN_MIN = 1.05;
const MEMORY_PER_WORKER_BYTES = 64 * 1024 * 1024;
const MEMORY_BASE_BYTES = 256 * 1024 * 1024;

export async function runScale(
  files: readonly string[],
  scratch: Scratch | undefined,
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult> {
  const withWorkers = (workers: number): BenchSettings => ({
    ...settings,
    // Each worker has the buffers that it has alone: else memory would be what is measured.
    tuning: {
      ...settings.tuning,
      workers,
      memoryBytes: Math.max(
        settings.tuning.memoryBytes ?? 0,
        MEMORY_BASE_BYTES + workers * MEMORY_PER_WORKER_BYTES,
      ),
    },
  });
  const cell = (workers: number, disks: number) => ({
    ...backupCell(
      files.slice(0, disks).map((path) => ({ path })),
      scratch,
      withWorkers(workers),
      session,
    ),
    suite: 'scale' as const,
    id: `scale/${workers}-workers/${disks}-disks`,
  });
  const cores = Math.min(settings.tuning.workers ?? availableParallelism(), WORKERS_MAX);
  const byWorkers = steps(cores).map((workers) => cell(workers, 1));
  const byDisks = steps(files.length)
    .filter((disks) => disks > 1)
    .map((disks) => cell(cores, disks));
  const measurements = await runCells([...byWorkers, ...byDisks], settings.rounds, session);
  const best = turningPoint(measurements.slice(0, byWorkers.length));
  return {
    measurements,
    findings: [
      `With ${best.parameters.workers} workers a backup of one disk runs at ${bothRates(best.summary.median)}; more bring less than 5 %.`,
      ...diskFinding(measurements, byWorkers.length),
    ],
    paste: [`--workers ${best.parameters.workers}`],
    warnings: [],
  };
}

/** 1, 2, 4 ... and the end itself. */
function steps(end: number): number[] {
  const found: number[] = [];
  for (let value = 1; value < end; value *= 2) found.push(value);
  return [...found, end];
}

function turningPoint(measurements: readonly Measurement[]): Measurement {
  const [first, ...rest] = measurements as [Measurement, ...Measurement[]];
  let best = first;
  for (const each of rest) {
    if (each.summary.median >= GAIN_MIN * best.summary.median) best = each;
  }
  return best;
}

function diskFinding(measurements: readonly Measurement[], from: number): string[] {
  const [single, last] = [measurements[from - 1], measurements.at(-1)];
  if (last === undefined || single === undefined || measurements.length === from) return [];
  const gain = last.summary.median / single.summary.median;
  return [
    `${last.parameters.disks} disks at once run at ${gain.toFixed(2)} times the rate of one.`,
  ];
}
