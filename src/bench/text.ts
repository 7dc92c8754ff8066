/** A report for the terminal: tables with bars and sparklines, then what follows from them. */

import { type Column, fields, paint, type TextStream, table } from '../cli/ui/text.js';
import type { Comparison } from './compare.js';
import type { BenchReport, HostPage, Measurement, PeerRatio, PipelineReport } from './report.js';
import {
  bothRates,
  digits,
  duration,
  longTime,
  mebibytes,
  megabytes,
  percent,
  sizeName,
} from './words.js';

const BAR_COLUMNS = 20;
const SPARK_COLUMNS = 24;
const EIGHTHS = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const LEVELS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

export function reportLines(report: BenchReport, stream: TextStream): string[] {
  const title = (text: string) => ['', paint(stream, 'bold', text)];
  const suites = [...new Set(report.measurements.map(({ suite }) => suite))];
  return [
    ...fields(environmentPairs(report)),
    ...suites.flatMap((suite) => [
      ...title(suite),
      ...measurementTable(report.measurements.filter((each) => each.suite === suite)),
    ]),
    ...(report.pipeline === undefined
      ? []
      : [...title('where the time goes'), ...pipelineLines(report.pipeline)]),
    ...(report.peers?.length ? [...title('beside its peers'), ...peerLines(report.peers)] : []),
    ...(report.host === undefined ? [] : [...title('this host'), ...hostLines(report.host)]),
    ...(report.findings.length > 0
      ? [...title('what follows'), ...report.findings.map((each) => `  ${each}`)]
      : []),
    ...(report.paste.length > 0
      ? [...title('to paste'), ...report.paste.map((each) => `  ${each}`)]
      : []),
  ];
}

export function environmentPairs({ environment, settings }: BenchReport): [string, string][] {
  const { cpu, cores, memoryBytes, os, fileSystem, io, cpuFeatures, firn, node } = environment;
  const data = settings.data as { entropy: number; duplicates: number; seed: number } | undefined;
  return [
    [
      'processor',
      `${cpu}, ${cores} cores (${cpuFeatures.join(', ') || 'no vector extensions named'})`,
    ],
    ['memory', sizeName(memoryBytes)],
    ['system', `${os}, ${io}${fileSystem === undefined ? '' : `, ${fileSystem}`}`],
    ['firn', `${firn} on Node ${node}`],
    ...(data === undefined
      ? []
      : ([
          [
            'data',
            `${percent(data.entropy)} random, ${percent(data.duplicates)} repeated, no zeros, seed ${data.seed}`,
          ],
        ] as [string, string][])),
    [
      'each',
      `${settings.rounds} rounds of ${settings.seconds} s after ${settings.warmUpSeconds} s of warm-up`,
    ],
  ];
}

function measurementTable(measurements: readonly Measurement[]): string[] {
  const best = Math.max(...measurements.map(({ summary }) => summary.median));
  const has = (of: (measurement: Measurement) => unknown) =>
    measurements.some((each) => of(each) !== undefined);
  const columns: { column: Column; cell(measurement: Measurement): string; shown: boolean }[] = [
    { column: { title: '' }, cell: ({ label }) => label, shown: true },
    {
      column: { title: 'MiB/s', align: 'right' },
      cell: ({ summary }) => mebibytes(summary.median),
      shown: true,
    },
    {
      column: { title: 'MB/s', align: 'right' },
      cell: ({ summary }) => megabytes(summary.median),
      shown: true,
    },
    { column: { title: '95 % interval' }, cell: ({ summary }) => intervalOf(summary), shown: true },
    { column: { title: '' }, cell: ({ summary }) => bar(summary.median / best), shown: true },
    {
      column: { title: 'CPU s/GiB', align: 'right' },
      cell: ({ cpuSecondsPerGib }) =>
        cpuSecondsPerGib === undefined ? '' : digits(cpuSecondsPerGib),
      shown: has(({ cpuSecondsPerGib }) => cpuSecondsPerGib),
    },
    {
      column: { title: 'p50', align: 'right' },
      cell: ({ latency }) => (latency === undefined ? '' : duration(latency.p50Ns)),
      shown: has(({ latency }) => latency),
    },
    {
      column: { title: 'p99', align: 'right' },
      cell: ({ latency }) => (latency === undefined ? '' : duration(latency.p99Ns)),
      shown: has(({ latency }) => latency),
    },
    {
      column: { title: 'p99.9', align: 'right' },
      cell: ({ latency }) => (latency === undefined ? '' : duration(latency.p999Ns)),
      shown: has(({ latency }) => latency),
    },
    {
      column: { title: 'ratio', align: 'right' },
      cell: ({ ratio }) => (ratio === undefined ? '' : `${digits(ratio)}x`),
      shown: has(({ ratio }) => ratio),
    },
    {
      column: { title: 'over time' },
      cell: ({ timeline }) => sparkline(timeline?.bytesPerSecond ?? []),
      shown: has(({ timeline }) => (timeline?.bytesPerSecond.length ?? 0) > 3 || undefined),
    },
  ];
  const shown = columns.filter((each) => each.shown);
  return table(
    shown.map(({ column }) => column),
    measurements.map((measurement) => shown.map(({ cell }) => cell(measurement))),
  ).map((line) => `  ${line}`);
}

function intervalOf({ low, high }: { low: number; high: number }): string {
  return `${mebibytes(low)} - ${mebibytes(high)}`;
}

/** A bar of at most 20 columns, in eighths of one. */
export function bar(share: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * BAR_COLUMNS * 8);
  return `${'█'.repeat(Math.floor(eighths / 8))}${EIGHTHS[eighths % 8]}`.trimEnd();
}

/** Values as a row of blocks, averaged down to 24 of them; from 0, so that a flat line looks flat. */
export function sparkline(values: readonly number[]): string {
  const max = Math.max(...values, 0);
  if (max === 0) return '';
  const columns = Math.min(SPARK_COLUMNS, values.length);
  return Array.from({ length: columns }, (_, column) => {
    const begin = Math.floor((column * values.length) / columns);
    const end = Math.max(begin + 1, Math.floor(((column + 1) * values.length) / columns));
    const part = values.slice(begin, end);
    const mean = part.reduce((sum, value) => sum + value, 0) / part.length;
    return LEVELS[Math.min(7, Math.floor((mean / max) * 8))];
  }).join('');
}

function pipelineLines(pipeline: PipelineReport): string[] {
  const rows = pipeline.ceilings.map(({ name, bytesPerSecond, note }) => [
    `${name} alone`,
    mebibytes(bytesPerSecond),
    megabytes(bytesPerSecond),
    note,
  ]);
  rows.push([
    'all together',
    mebibytes(pipeline.bytesPerSecond),
    megabytes(pipeline.bytesPerSecond),
    `${percent(pipeline.share)} of the lowest`,
  ]);
  const shares = ['source', 'scan', 'hash', 'compress', 'target']
    .map((stage) => `${stage} ${Math.round(100 * (pipeline.stages[stage] ?? 0))}%`)
    .join(' · ');
  return [
    ...table(
      [
        { title: '' },
        { title: 'MiB/s', align: 'right' },
        { title: 'MB/s', align: 'right' },
        { title: '' },
      ],
      rows,
    ),
    `bottleneck: ${pipeline.bottleneck} (${shares})`,
  ].map((line) => `  ${line}`);
}

function peerLines(peers: readonly PeerRatio[]): string[] {
  return table(
    [{ title: '' }, { title: 'Firn is' }, { title: '95 % interval' }, { title: 'version' }],
    peers.map(({ name, work, summary, failure, version }) => [
      `${work}: ${name}`,
      summary === undefined ? `failed: ${failure}` : `${summary.median.toFixed(2)} times as fast`,
      summary === undefined ? '' : `${summary.low.toFixed(2)} - ${summary.high.toFixed(2)}`,
      version,
    ]),
  ).map((line) => `  ${line}`);
}

export function hostPairs({
  figures,
  bottleneck,
  changeFirst,
  window,
}: HostPage): [string, string][] {
  const { sizeBytes, churn, fullSeconds, trackedSeconds, untrackedSeconds } = window;
  const size = sizeName(sizeBytes);
  return [
    ...figures.map(({ name, bytesPerSecond, note }): [string, string] => [
      name,
      `${bothRates(bytesPerSecond)}, ${note}`,
    ]),
    ['bottleneck', bottleneck],
    ['change first', changeFirst],
    [`first backup of ${size}`, longTime(fullSeconds)],
    [`next one, ${percent(churn)} changed`, `${longTime(trackedSeconds)} with change tracking`],
    ['', `${longTime(untrackedSeconds)} without: all of it is read and hashed`],
  ];
}

function hostLines(page: HostPage): string[] {
  return fields(hostPairs(page), '  ');
}

const VERDICTS = { faster: 'green', slower: 'red', same: 'dim', unclear: 'dim' } as const;

export function comparisonLines(comparison: Comparison, stream: TextStream): string[] {
  const change = (ratio: number) => `${ratio >= 1 ? '+' : ''}${(100 * (ratio - 1)).toFixed(1)} %`;
  const lines = table(
    [
      { title: '' },
      { title: 'before', align: 'right' },
      { title: 'after', align: 'right' },
      { title: 'change', align: 'right' },
      { title: '99 % interval' },
      { title: '' },
    ],
    comparison.measurements.map(({ label, before, after, ratio, low, high, verdict }) => [
      label,
      `${mebibytes(before)} MiB/s`,
      `${mebibytes(after)} MiB/s`,
      change(ratio),
      `${change(low)} to ${change(high)}`,
      verdict,
    ]),
  );
  return lines.map((line, index) => {
    const verdict = comparison.measurements[index - 1]?.verdict;
    return verdict === undefined ? line : paint(stream, VERDICTS[verdict], line);
  });
}
