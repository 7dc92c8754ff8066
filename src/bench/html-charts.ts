/** Which plots a report gives: those for which it has figures. */

import type { BenchReport, Measurement, PipelineReport } from './report.js';
import { type BarRow, barChart, heatMap, legend, lineChart, type Series, ticksTo } from './svg.js';
import { duration, mebibytes, percent, sizeName } from './words.js';

export interface Chart {
  title: string;
  content: string;
  note: string;
}

const MIB = 2 ** 20;
const LINES_MAX = 4;

export function charts(report: BenchReport): Chart[] {
  const { pipeline } = report;
  // What ran beside peers is a second time the same.
  const measurements = report.measurements.filter(({ id }) => !id.endsWith('/with-peers'));
  return [
    ...(pipeline === undefined ? [] : [ceilings(pipeline), stageShares(pipeline)]),
    ...scans(measurements),
    ...overTime(measurements),
    ...latencies(measurements, 'read'),
    ...latencies(measurements, 'write'),
    ...bars(measurements, 'scale', 'More workers, more disks'),
    ...bars(measurements, 'copy', 'Copies'),
    ...bars(measurements.filter(isLook), 'kernels', 'One core, looking at bytes'),
    ...bars(
      measurements.filter((each) => !isLook(each)),
      'kernels',
      'One core, hashing, compressing, sealing',
    ),
  ];
}

/** Kernels at the speed of memory would make all others look like nothing beside them. */
function isLook({ parameters }: Measurement): boolean {
  return ['memcpy', 'zero-scan', 'zero-scan-portable', 'cut', 'crc32c'].includes(
    String(parameters.kernel),
  );
}

function ceilings(pipeline: PipelineReport): Chart {
  const rows: BarRow[] = [
    ...pipeline.ceilings.map(({ name, bytesPerSecond }) => ({
      name: `${name} alone`,
      value: bytesPerSecond,
      text: `${mebibytes(bytesPerSecond)} MiB/s`,
    })),
    {
      name: 'all together',
      value: pipeline.bytesPerSecond,
      text: `${mebibytes(pipeline.bytesPerSecond)} MiB/s`,
      isMark: true,
    },
  ];
  return {
    title: 'What a backup could do, and does',
    content: barChart(rows, 'rates of the stages alone and of all together'),
    note: `Bytes of the disk a second. All together reach ${percent(pipeline.share)} of the slowest stage alone; ${percent(pipeline.storedShare)} of what is read is stored.`,
  };
}

function stageShares({ stages }: PipelineReport): Chart {
  const words: Readonly<Record<string, string>> = {
    source: 'reads were in flight',
    scan: 'workers: zero scan and cut',
    hash: 'workers: BLAKE3',
    compress: 'workers: compression',
    starved: 'workers waited for the source',
    blocked: 'workers waited for the target',
    limited: 'workers waited for the limit',
    target: 'writes were in flight',
  };
  const rows = Object.entries(words).map(([stage, name]): BarRow => {
    const value = stages[stage] ?? 0;
    return { name, value, text: percent(value), isMark: stage === 'source' || stage === 'target' };
  });
  // Most runs have no limit.
  const shown = rows.filter(({ name, value }) => name !== words.limited || value > 0);
  return {
    title: 'Where the time goes',
    content: barChart(shown, 'shares of time of each stage'),
    note: 'Shares of the time that the last backup took: of all workers for their stages, of the wall clock for reads and writes.',
  };
}

/** Block size by depth, of each suite, order and cache that has more than one of both. */
function scans(measurements: readonly Measurement[]): Chart[] {
  const groups = groupBy(
    measurements.filter(({ parameters }) => typeof parameters.depth === 'number'),
    ({ suite, parameters }) => [suite, parameters.order ?? '', parameters.cache].join(' '),
  );
  return [...groups].flatMap(([, group]) => {
    const blocks = distinct(group, 'blockBytes');
    const depths = distinct(group, 'depth');
    if (blocks.length < 2 || depths.length < 2) return [];
    const [{ suite, parameters }] = group as [Measurement];
    const rate = (block: number, depth: number) =>
      group.find((each) => each.parameters.blockBytes === block && each.parameters.depth === depth)
        ?.summary.median;
    const content = heatMap(
      {
        columns: depths.map(String),
        rows: blocks.map(sizeName),
        columnTitle: 'requests in flight',
        rowTitle: 'block',
        values: blocks.map((block) => depths.map((depth) => rate(block, depth))),
        say: mebibytes,
      },
      `${suite}: rate by block size and depth`,
    );
    const order = parameters.order === undefined ? '' : `, ${parameters.order} order`;
    return [
      {
        title: `${suite === 'read' ? 'Reading' : 'Writing'} by block size and depth${order}, ${parameters.cache}`,
        content,
        note: 'MiB/s, the median of all rounds; the best is framed.',
      },
    ];
  });
}

function distinct(group: readonly Measurement[], name: string): number[] {
  return [...new Set(group.map(({ parameters }) => Number(parameters[name])))].sort(
    (a, b) => a - b,
  );
}

function overTime(measurements: readonly Measurement[]): Chart[] {
  const stores = measurements.some(({ parameters }) => parameters.stored === true);
  const best = ['backup', 'copy', 'read', 'write'].flatMap((suite) => {
    const found = measurements.filter(
      (each) =>
        each.suite === suite &&
        (each.timeline?.bytesPerSecond.length ?? 0) > 2 &&
        // Beside a backup that stores, one that does not is only a part of it.
        (each.parameters.stored !== false || !stores),
    );
    return found.length === 0
      ? []
      : [found.reduce((a, b) => (b.summary.median > a.summary.median ? b : a))];
  });
  const series = best.slice(0, LINES_MAX).map(({ suite, label, timeline }): Series => {
    const { sliceSeconds = 1, bytesPerSecond = [] } = timeline ?? {};
    return {
      name: `${suite}: ${label}`,
      points: bytesPerSecond.map((rate, index) => [(index + 1) * sliceSeconds, rate / MIB]),
    };
  });
  if (series.length === 0) return [];
  const points = series.flatMap((each) => each.points);
  const times = ticksTo(Math.max(...points.map(([x]) => x)), (value) =>
    Number(value.toFixed(2)).toString(),
  );
  const rates = ticksTo(Math.max(...points.map(([, y]) => y)), (value) => value.toFixed(0));
  return [
    {
      title: 'Throughput over time',
      content:
        lineChart(
          series,
          { title: 'seconds', ticks: times, min: 0, max: Math.max(...points.map(([x]) => x)) },
          { title: 'MiB/s', ticks: rates, min: 0, max: rates.at(-1)?.[0] ?? 1 },
          'throughput over time',
        ) + legend(series),
      note: 'MiB/s in the last round of each, the fastest of its kind.',
    },
  ];
}

/** Of the block size that does best: one line for each depth. */
function latencies(measurements: readonly Measurement[], suite: 'read' | 'write'): Chart[] {
  const all = measurements.filter((each) => each.suite === suite && each.latency !== undefined);
  if (all.length === 0) return [];
  const best = all.reduce((a, b) => (b.summary.median > a.summary.median ? b : a));
  const chosen = all.filter(({ parameters }) =>
    ['blockBytes', 'order', 'cache'].every((name) => parameters[name] === best.parameters[name]),
  );
  const series = chosen.slice(0, LINES_MAX + 2).map(
    ({ label, latency }): Series => ({
      name: label,
      points: (latency?.curve ?? []).map(([share, ns]) => [
        -Math.log10(1 - share),
        Math.log10(Math.max(1, ns)),
      ]),
    }),
  );
  const heights = series.flatMap(({ points }) => points.map(([, y]) => y));
  const [low, high] = [Math.floor(Math.min(...heights)), Math.ceil(Math.max(...heights) + 1e-9)];
  const powers = Array.from({ length: high - low + 1 }, (_, index) => low + index);
  return [
    {
      title: `Latency of ${suite === 'read' ? 'reads' : 'writes'}, ${sizeName(Number(best.parameters.blockBytes))} each`,
      content:
        lineChart(
          series,
          {
            title: 'share of requests',
            ticks: [
              [0, '0'],
              [1, '90 %'],
              [2, '99 %'],
              [3, '99.9 %'],
            ],
            min: 0,
            max: 3,
          },
          {
            title: '',
            ticks: powers.map((power) => [
              power,
              duration(10 ** power)
                .replace('.00', '')
                .replace('.0', ''),
            ]),
            min: low,
            max: Math.max(high, low + 1),
          },
          'latency by share of requests',
        ) + legend(series),
      note: 'So many requests took at most so long; both axes are logarithmic. More in flight means each waits longer.',
    },
  ];
}

function bars(measurements: readonly Measurement[], suite: string, title: string): Chart[] {
  const rows = measurements
    .filter((each) => each.suite === suite)
    .map(
      ({ label, summary }): BarRow => ({
        name: label,
        value: summary.median,
        low: summary.low,
        high: summary.high,
        text: `${mebibytes(summary.median)} MiB/s`,
      }),
    );
  if (rows.length < 2) return [];
  return [
    { title, content: barChart(rows, title), note: 'The median; whiskers are the 95 % interval.' },
  ];
}

function groupBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [item]);
    else group.push(item);
  }
  return groups;
}
