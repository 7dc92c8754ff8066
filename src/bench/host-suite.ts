/**
 * All of it in a set time, and one page at the end: what this host can do, what holds it back, what to change first, how long backups will take.
 *
 * The time is shared out beforehand; each suite gets as many rounds as fit, and three at least. A slow device may overrun it, as a round is never
 * cut off in the middle.
 */

import { makeDataFile, writeCell } from './io.js';
import { runKernels } from './kernels-suite.js';
import { type PipelineResult, runBackupSuite, runCopySuite } from './pipeline-suite.js';
import { readImage, type SuiteResult } from './read-suite.js';
import type { HostPage, Measurement, PipelineReport } from './report.js';
import type { BenchSession } from './rounds.js';
import { runCells } from './rounds.js';
import { runScale } from './scale-suite.js';
import type { Scratch } from './scratch.js';
import type { BenchSettings } from './settings.js';
import { bothRates, percent } from './words.js';

const MIB = 1024 * 1024;
const ROUNDS_MIN = 3;
/** Parts of the time, by what takes how long to be known. */
const SHARES = { read: 0.3, write: 0.15, kernels: 0.15, copy: 0.1, backup: 0.2, scale: 0.1 };

export interface HostOptions {
  seconds: number;
  /** Read instead of generated data. */
  image?: string | undefined;
  sizeBytes: number;
  churn: number;
}

export async function runHost(
  scratch: Scratch,
  options: HostOptions,
  settings: BenchSettings,
  session: BenchSession,
): Promise<PipelineResult & { host: HostPage }> {
  session.onStep({ label: 'making data', done: 0, total: 1 });
  const source = options.image ?? (await makeDataFile(scratch, 'data.raw', settings, session));
  const share = (part: keyof typeof SHARES, cells: number) =>
    fitTo(settings, options.seconds * SHARES[part], cells);
  const read = await readImage(
    source,
    { ...share('read', 12), blockBytes: [64 * 1024, MIB, 4 * MIB], depths: [1, 8, 32] },
    session,
  );
  const writes = [1, 32].map((depth) =>
    writeCell({ direct: true, blockBytes: MIB, depth }, scratch, share('write', 3), session),
  );
  const write = await runCells(writes, share('write', 3).rounds, session);
  const kernels = await runKernels(share('kernels', 28), session);
  const copy = await runCopySuite(
    source,
    scratch,
    { ...share('copy', 2), rounds: ROUNDS_MIN },
    session,
  );
  const whole = await runBackupSuite(
    source,
    scratch,
    // Whole backups and peers take what they take: three rounds say enough.
    { ...share('backup', 4), rounds: ROUNDS_MIN },
    session,
  );
  const scale = await runScale(
    [source],
    scratch,
    { ...share('scale', 2), rounds: ROUNDS_MIN },
    session,
  );
  const suites: SuiteResult[] = [read, kernels, copy, whole, scale];
  const measurements = [
    ...read.measurements,
    ...write,
    ...kernels.measurements,
    ...copy.measurements,
    ...whole.measurements.filter(({ suite }) => suite === 'backup'),
    ...scale.measurements,
  ];
  return {
    measurements,
    pipeline: whole.pipeline,
    peers: [...copy.peers, ...whole.peers],
    host: pageOf(measurements, whole.pipeline, options),
    findings: suites.flatMap((suite) => suite.findings),
    paste: read.paste,
    warnings: [...new Set(suites.flatMap((suite) => suite.warnings))],
  };
}

/** Rounds and seconds so that `cells` of them take about `seconds` together. */
function fitTo(settings: BenchSettings, seconds: number, cells: number): BenchSettings {
  const each = seconds / cells;
  const rounds = Math.max(ROUNDS_MIN, Math.min(settings.rounds, Math.floor(each / 0.2)));
  const one = Math.max(0.05, (0.85 * each) / rounds);
  return {
    ...settings,
    rounds,
    seconds: one,
    warmUpSeconds: Math.min(settings.warmUpSeconds, one / 5),
  };
}

function best(measurements: readonly Measurement[], prefix: string): number {
  const matching = measurements.filter(
    ({ id }) => id.startsWith(prefix) && !id.endsWith('/with-peers'),
  );
  return Math.max(0, ...matching.map(({ summary }) => summary.median));
}

export function pageOf(
  measurements: readonly Measurement[],
  pipeline: PipelineReport,
  { sizeBytes, churn }: Pick<HostOptions, 'sizeBytes' | 'churn'>,
): HostPage {
  const compute = pipeline.ceilings.find(({ name }) => name === 'compute');
  const figures = [
    { name: 'read', bytesPerSecond: best(measurements, 'read/'), note: 'the best of the scan' },
    { name: 'write', bytesPerSecond: best(measurements, 'write/'), note: 'until durable' },
    { name: 'compute', bytesPerSecond: compute?.bytesPerSecond ?? 0, note: compute?.note ?? '' },
    { name: 'copy', bytesPerSecond: best(measurements, 'copy/raw'), note: 'image to image' },
    { name: 'backup', bytesPerSecond: pipeline.bytesPerSecond, note: 'disk to a new repository' },
  ].filter(({ bytesPerSecond }) => bytesPerSecond > 0);
  return {
    figures,
    bottleneck: pipeline.bottleneck,
    changeFirst: adviceFor(pipeline),
    window: windowOf(pipeline, sizeBytes, churn),
  };
}

/** What changed is read, hashed, compressed and written; without change tracking the rest is read and hashed. */
function windowOf(
  { bytesPerSecond, lookBytesPerSecond }: PipelineReport,
  sizeBytes: number,
  churn: number,
): HostPage['window'] {
  const changed = churn * sizeBytes;
  const trackedSeconds = changed / bytesPerSecond;
  return {
    sizeBytes,
    churn,
    fullSeconds: sizeBytes / bytesPerSecond,
    trackedSeconds,
    untrackedSeconds:
      trackedSeconds + (sizeBytes - changed) / Math.max(lookBytesPerSecond, bytesPerSecond),
  };
}

const ADVICE: Readonly<Record<PipelineReport['bottleneck'], string>> = {
  read: 'Put the disks on faster storage, or read several volumes at once: processors and target wait for the source.',
  compute:
    'Give the backup more cores, or spend less on each byte (LZ4 instead of zstd, a lower level): the storage on both sides waits for the processors.',
  write:
    'Put the repository on a faster volume, one that the disks do not lie on, or compress more (zstd): source and processors wait for the target.',
  limit: 'Raise --limit, or leave it away: everything else waits for it.',
};

function adviceFor({ bottleneck, explained, nextAt, share, ceilings }: PipelineReport): string {
  const advice = ADVICE[bottleneck];
  if (bottleneck === 'limit') return advice;
  if (!explained) {
    return `${advice} Each stage alone is faster than all together (${percent(share)} of the slowest), so they are in each other's way: the same device, too few cores, or other programs.`;
  }
  if (nextAt === undefined) return advice;
  const reached = (ceilings[0]?.bytesPerSecond ?? 0) * nextAt.factor;
  return `${advice} That helps up to ${nextAt.factor.toFixed(1)} times, ${bothRates(reached)}; then ${nextAt.name} comes next.`;
}
