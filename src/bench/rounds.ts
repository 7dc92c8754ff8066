/**
 * Runs what is to be measured, round by round: in each round everything once, the order moving on from round to round. So a minute in which
 * the machine is slow weighs on all measurements alike instead of on the one that was due, and ratios taken inside a round are not touched
 * by it at all.
 */

import type { NativeLatency } from '../engine/bench-binding.js';
import { throwIfAborted } from '../engine/engine.js';
import { summarizeLatency } from './latency.js';
import type { Measurement, Suite, Timeline } from './report.js';
import { summarize, VARIATION_WARNING } from './statistics.js';

const GIB = 1024 ** 3;

export interface Sample {
  bytes: number;
  seconds: number;
  /** Of all threads of this process; measured around the run when not given. */
  cpuSeconds?: number;
  latency?: NativeLatency;
  timeline?: Timeline;
  ratio?: number;
}

export interface Cell {
  id: string;
  suite: Suite;
  label: string;
  parameters: Record<string, string | number | boolean>;
  /** True if other processes do the work: then this one's CPU time says nothing. */
  external?: boolean;
  run(round: number): Promise<Sample>;
}

/** What a suite is run with, besides its settings. */
export interface BenchSession {
  signal: AbortSignal;
  /** Told of each step: what is measured now, and how far the suite is. */
  onStep(step: { label: string; done: number; total: number }): void;
}

export async function runCells(
  cells: readonly Cell[],
  rounds: number,
  session: BenchSession,
): Promise<Measurement[]> {
  const samples = cells.map((): Sample[] => []);
  const total = cells.length * rounds;
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < cells.length; turn++) {
      const index = (turn + round) % cells.length;
      const cell = cells[index] as Cell;
      throwIfAborted(session.signal);
      session.onStep({ label: cell.label, done: round * cells.length + turn, total });
      samples[index]?.push(await runCell(cell, round));
    }
  }
  return cells.map((cell, index) => measurementOf(cell, samples[index] ?? []));
}

async function runCell(cell: Cell, round: number): Promise<Sample> {
  const before = process.cpuUsage();
  const sample = await cell.run(round);
  if (cell.external || sample.cpuSeconds !== undefined) return sample;
  const { user, system } = process.cpuUsage(before);
  return { ...sample, cpuSeconds: (user + system) / 1e6 };
}

function measurementOf(cell: Cell, samples: readonly Sample[]): Measurement {
  const rounds = samples.map(({ bytes, seconds }) => (seconds > 0 ? bytes / seconds : 0));
  const bytes = sum(samples.map((sample) => sample.bytes));
  const cpu = samples.flatMap(({ cpuSeconds }) => cpuSeconds ?? []);
  const latency = summarizeLatency(samples.flatMap((sample) => sample.latency ?? []));
  const last = samples.at(-1);
  return {
    id: cell.id,
    suite: cell.suite,
    label: cell.label,
    parameters: cell.parameters,
    rounds,
    summary: summarize(rounds),
    ...(cpu.length === samples.length && { cpuSecondsPerGib: (sum(cpu) / bytes) * GIB }),
    ...(latency !== undefined && { latency }),
    ...(last?.timeline !== undefined && { timeline: last.timeline }),
    ...(last?.ratio !== undefined && { ratio: last.ratio }),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Sentences about measurements that vary too much to be believed to the last digit. */
export function variationWarnings(measurements: readonly Measurement[]): string[] {
  const loose = measurements.filter(({ summary }) => summary.variation > VARIATION_WARNING);
  if (loose.length === 0) return [];
  const worst = loose.reduce((a, b) => (b.summary.variation > a.summary.variation ? b : a));
  const percent = (value: number) => `${Math.round(100 * value)} %`;
  return [
    `${loose.length} of ${measurements.length} measurements vary by more than ${percent(VARIATION_WARNING)} from round to round, the most by ${percent(worst.summary.variation)} (${worst.label}): mind the intervals, or give more rounds on a quieter machine.`,
  ];
}
