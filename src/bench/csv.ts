/** A report as CSV, one line for each measurement and round: what spreadsheets and R read without asking. */

import type { BenchReport, Measurement } from './report.js';

const COLUMNS = [
  'suite',
  'id',
  'round',
  'bytes_per_second',
  'mib_per_second',
  'mb_per_second',
  'cpu_seconds_per_gib',
  'latency_p50_ns',
  'latency_p90_ns',
  'latency_p95_ns',
  'latency_p99_ns',
  'latency_p999_ns',
  'latency_max_ns',
  'compression_ratio',
] as const;

/** Latencies, CPU time and ratio are of all rounds together and stand in each of their lines. */
export function toCsv(report: BenchReport): string {
  const lines = report.measurements.flatMap(linesOf);
  return `${[COLUMNS.join(','), ...lines].join('\r\n')}\r\n`;
}

function linesOf({ suite, id, rounds, cpuSecondsPerGib, latency, ratio }: Measurement): string[] {
  const common = [
    cpuSecondsPerGib,
    latency?.p50Ns,
    latency?.p90Ns,
    latency?.p95Ns,
    latency?.p99Ns,
    latency?.p999Ns,
    latency?.maxNs,
    ratio,
  ];
  return rounds.map((rate, round) =>
    [suite, id, round + 1, rate, rate / 2 ** 20, rate / 1e6, ...common].map(cell).join(','),
  );
}

function cell(value: string | number | undefined): string {
  if (value === undefined) return '';
  if (typeof value === 'number') return String(Number(value.toPrecision(12)));
  // Quotes are doubled; a spreadsheet takes what begins with these for a formula.
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
