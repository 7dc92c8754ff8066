import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compareReports } from '../../src/bench/compare.js';
import { toCsv } from '../../src/bench/csv.js';
import { toHtml } from '../../src/bench/html.js';
import { summarizeLatency } from '../../src/bench/latency.js';
import { type BenchReport, type Measurement, readReport } from '../../src/bench/report.js';
import { summarize } from '../../src/bench/statistics.js';
import { bar, reportLines, sparkline } from '../../src/bench/text.js';
import { sizeName } from '../../src/bench/words.js';
import { temporaryFolder } from '../helpers/folder.js';

const MIB = 2 ** 20;

function measurement(id: string, rounds: number[], label = id): Measurement {
  const latency = summarizeLatency([
    {
      count: 4,
      meanNs: 2e6,
      minNs: 1e6,
      maxNs: 4e6,
      buckets: [
        [1e6, 2],
        [4e6, 2],
      ],
    },
  ]);
  return {
    id,
    suite: 'read',
    label,
    parameters: { order: 'file', cache: 'direct', blockBytes: MIB, depth: 8 },
    rounds,
    summary: summarize(rounds),
    ...(latency !== undefined && { latency }),
    timeline: { sliceSeconds: 0.1, bytesPerSecond: [1e8, 2e8, 3e8, 2e8] },
  };
}

function report(measurements: Measurement[]): BenchReport {
  return {
    format: 1,
    suite: 'read',
    created: '2026-01-02T03:04:05.000Z',
    elapsedSeconds: 12,
    environment: {
      os: 'Linux 6 x64',
      cpu: 'A <b>processor</b>',
      cores: 2,
      cpuFeatures: ['avx2'],
      memoryBytes: 2 ** 34,
      loadAverage: 0,
      firn: '0.1.0',
      node: '20.0.0',
      io: 'io_uring',
    },
    settings: { rounds: 5, seconds: 1, warmUpSeconds: 0 },
    measurements,
    findings: ['<script>alert(1)</script>'],
    paste: ['--io direct'],
    warnings: [],
  };
}

const ROUNDS = [100 * MIB, 101 * MIB, 99 * MIB, 100 * MIB, 102 * MIB];

it('percentiles of joined latencies are those of all requests', () => {
  const joined = summarizeLatency([
    { count: 99, meanNs: 10, minNs: 5, maxNs: 10, buckets: [[10, 99]] },
    { count: 1, meanNs: 1000, minNs: 1000, maxNs: 1000, buckets: [[1000, 1]] },
  ]);
  expect(joined).toMatchObject({ count: 100, minNs: 5, maxNs: 1000, p50Ns: 10, p99Ns: 10 });
  expect(joined?.p999Ns).toBe(1000);
  expect(joined?.meanNs).toBeCloseTo(19.9);
  expect(summarizeLatency([])).toBeUndefined();
});

it('the HTML report loads nothing, runs nothing and shows foreign text as text', () => {
  const html = toHtml(
    report([measurement('read/a', ROUNDS, '"a" & <i>'), measurement('read/b', ROUNDS)]),
  );
  expect(html).not.toMatch(/<script|<i>|<b>processor|https?:|\bsrc=|@import|url\(/);
  expect(html).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
  expect(html).toContain("default-src 'none'");
  expect(html).toContain('prefers-color-scheme: dark');
  expect(html).toContain('@media print');
  expect(html).toContain('<svg');
  expect(html).not.toMatch(/NaN|undefined|Infinity/);
});

it('CSV has a line for each round, and no cell is a formula', () => {
  const lines = toCsv(report([measurement('=1+1', ROUNDS)]))
    .trimEnd()
    .split('\r\n');
  expect(lines).toHaveLength(1 + ROUNDS.length);
  expect(lines[0]?.split(',').slice(0, 5)).toEqual([
    'suite',
    'id',
    'round',
    'bytes_per_second',
    'mib_per_second',
  ]);
  expect(lines[1]?.split(',').slice(0, 5)).toEqual([
    'read',
    "'=1+1",
    '1',
    String(100 * MIB),
    '100',
  ]);
});

it('a comparison matches by id, names what is missing and counts what got slower', () => {
  const before = report([measurement('kept', ROUNDS), measurement('gone', ROUNDS)]);
  const after = report([
    measurement(
      'kept',
      ROUNDS.map((rate) => rate * 0.7),
    ),
    measurement('new', ROUNDS),
  ]);
  const result = compareReports(before, after);
  expect(result).toMatchObject({ onlyBefore: ['gone'], onlyAfter: ['new'], regressions: 1 });
  expect(result.measurements[0]).toMatchObject({ id: 'kept', verdict: 'slower' });
  expect(compareReports(before, before).regressions).toBe(0);
});

it('a saved report is read again, and what is none is refused with its place', async () => {
  const file = path.join(await temporaryFolder(), 'report.json');
  await writeFile(file, JSON.stringify(report([measurement('read/a', ROUNDS)])));
  expect((await readReport(file)).measurements[0]?.rounds).toEqual(ROUNDS);
  for (const text of ['', '[]', '{"format":2}', '{"format":1,"suite":"read"}']) {
    await writeFile(file, text);
    await expect(readReport(file)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      path: file,
    });
  }
  await expect(readReport(`${file}.not`)).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' });
});

it('bars and sparklines keep to their width and start at nothing', () => {
  expect(bar(0)).toBe('');
  expect(bar(0.5)).toHaveLength(10);
  expect(bar(7)).toHaveLength(20);
  expect(sparkline([])).toBe('');
  expect(sparkline([5, 5, 5])).toBe('███');
  expect(sparkline(Array.from({ length: 1000 }, (_, i) => i))).toHaveLength(24);
});

it('the text report says rates in both units', () => {
  const lines = reportLines(report([measurement('read/a', ROUNDS)]), {}).join('\n');
  expect(lines).toMatch(/MiB\/s +MB\/s/);
  expect(lines).toMatch(/100 +105/);
  expect([sizeName(65536), sizeName(2 ** 40), sizeName(1.5 * 2 ** 30)]).toEqual([
    '64K',
    '1T',
    '1.5G',
  ]);
});
