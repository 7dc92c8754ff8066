/**
 * Copies and backups as a whole, and a backup's stages each alone: where the time goes, and how near that is to what this host could do.
 *
 * Three ceilings, each as disk bytes a second: reading the disk as a backup reads it and throwing the bytes away; the work that no backup can
 * leave out (zero scan, cut, BLAKE3, compression of what is new) on all cores; writing as much as that leaves over. A backup can't be faster
 * than the lowest of them. What it reaches of that is its share; the next ceiling says how far mending the first one would help.
 */

import { rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { NativeStageScanResult } from '../engine/bench-binding.js';
import type { NativeStats } from '../engine/binding.js';
import { loadEngine, runSession } from '../engine/engine.js';
import { resolveOpenDisk, resolveTuning } from '../engine/options.js';
import { type BackupResult, backup, type DiskSource } from '../jobs/backup.js';
import { copyDisk } from '../jobs/copy.js';
import { Repository } from '../repository/repository.js';
import { readCell, writeCell } from './io.js';
import { runWithPeers } from './peers.js';
import type { SuiteResult } from './read-suite.js';
import type { Measurement, PeerRatio, PipelineReport, StageCeiling, Timeline } from './report.js';
import { type BenchSession, type Cell, runCells } from './rounds.js';
import type { Scratch } from './scratch.js';
import type { BenchSettings } from './settings.js';
import { bothRates, percent } from './words.js';

const MIB = 1024 * 1024;
const READ = { blockBytes: MIB, depth: 32 };
const TIMELINE_MS = 100;
/** Below this share of the lowest ceiling something else holds a backup back: the meters of the run itself know better. */
const EXPLAINED_SHARE = 0.6;
const STAGE_OF_METER = {
  source: 'read',
  scan: 'compute',
  hash: 'compute',
  compress: 'compute',
  target: 'write',
  limit: 'limit',
  none: 'compute',
} as const satisfies Record<NativeStats['bottleneck'], PipelineReport['bottleneck']>;
/** The stages are looked at in so much of the disk. */
const STAGE_BYTES_MAX = 4 * 1024 * MIB;

export interface PipelineResult extends SuiteResult {
  pipeline: PipelineReport;
  peers: PeerRatio[];
}

/** Backs up `file` into new repositories inside the scratch folder; without one, everything but storing is measured. */
export async function runBackupSuite(
  file: string,
  scratch: Scratch | undefined,
  settings: BenchSettings,
  session: BenchSession,
): Promise<PipelineResult> {
  const stages = await scanStages(file, settings, session);
  let last: BackupResult | undefined;
  const whole = backupCell([{ path: file }], scratch, settings, session, (result) => {
    last = result;
  });
  const alone = [
    readCell({ path: file, order: 'map', cache: 'direct', ...READ }, settings, session),
    ...(scratch === undefined
      ? []
      : [writeCell({ direct: true, ...READ }, scratch, settings, session)]),
  ];
  const look = backupCell([{ path: file }], undefined, settings, session);
  const cells = scratch === undefined ? [whole, ...alone] : [whole, ...alone, look];
  const measurements = await runCells(cells, settings.rounds, session);
  let peers: PeerRatio[] = [];
  if (settings.peers && scratch !== undefined) {
    const compared = await runWithPeers(
      { ...whole, id: 'backup/with-peers', label: 'Firn beside its peers' },
      file,
      stages.scannedBytes,
      scratch,
      settings.rounds,
      session,
    );
    measurements.push(...compared.measurements);
    peers = compared.peers;
  }
  const [together, read, write, looked] = measurements as [
    Measurement,
    Measurement,
    ...Measurement[],
  ];
  const pipeline = pipelineOf(
    ceilingsOf(stages, read, scratch === undefined ? undefined : write, settings),
    together,
    (scratch === undefined ? together : looked) ?? together,
    (last as BackupResult).summary.stats,
  );
  const warnings =
    scratch === undefined
      ? ['Nothing was stored: without --repo DIR the write stage is not measured.']
      : [];
  return {
    measurements,
    pipeline,
    peers,
    findings: [...pipelineFindings(pipeline), ...(await sharedDevice(file, scratch, pipeline))],
    paste: [],
    warnings,
  };
}

/** Read and write ceilings do not add up on a device that has to do both. */
async function sharedDevice(
  file: string,
  scratch: Scratch | undefined,
  { ceilings }: PipelineReport,
): Promise<string[]> {
  if (scratch === undefined) return [];
  const [source, target] = await Promise.all([stat(file), stat(scratch.folder)]);
  if (source.dev !== target.dev) return [];
  const rates = ceilings
    .filter(({ name }) => name !== 'compute')
    .map((each) => each.bytesPerSecond);
  const inTurn = 1 / rates.reduce((sum, rate) => sum + 1 / rate, 0);
  return [
    `Source and target are on one device here: reading and writing in turn, it allows ${bothRates(inTurn)}. On two devices both go on at once.`,
  ];
}

function scanStages(
  path: string,
  settings: BenchSettings,
  session: BenchSession,
): Promise<NativeStageScanResult> {
  session.onStep({ label: 'each stage alone', done: 0, total: 1 });
  return runSession(
    loadEngine().startStageScan({
      tuning: resolveTuning(settings.tuning),
      path,
      open: resolveOpenDisk({ parentFolders: settings.parentFolders }),
      codec: settings.codec,
      level: settings.level,
      bytesMax: STAGE_BYTES_MAX,
    }),
    { signal: session.signal },
  );
}

/** A whole backup of disks that belong together. */
export function backupCell(
  disks: readonly DiskSource[],
  scratch: Scratch | undefined,
  settings: BenchSettings,
  session: BenchSession,
  onResult: (result: BackupResult) => void = () => {},
): Cell {
  const workers = resolveTuning(settings.tuning).workers;
  const stored = scratch !== undefined;
  const named = disks.map((disk, index) => ({
    ...disk,
    name: `disk${index}`,
    parentFolders: settings.parentFolders,
  }));
  // A repository is needed even to store nothing: it has the keys.
  return {
    id: `backup/${stored ? 'stored' : 'dry'}/${disks.length}-disks/${workers}-workers`,
    suite: 'backup',
    label: `${stored ? 'backup' : 'backup, nothing stored'}, ${workers} workers${disks.length > 1 ? `, ${disks.length} disks at once` : ''}`,
    parameters: {
      workers,
      disks: disks.length,
      stored,
      codec: settings.codec,
      level: settings.level,
    },
    async run(round) {
      const path = scratch?.path(`repository-${disks.length}-${workers}-${round}`);
      const repository = await openFor(path);
      const timeline = new TimelineRecorder();
      try {
        const result = await backup(repository, {
          disks: named,
          vm: 'bench',
          codec: settings.codec,
          level: settings.level,
          dryRun: !stored,
          tuning: settings.tuning,
          signal: session.signal,
          onProgress: (stats) => timeline.add(stats),
          progressIntervalMs: TIMELINE_MS,
        });
        onResult(result);
        const { stats, elapsedSeconds } = result.summary;
        return { bytes: stats.doneBytes, seconds: elapsedSeconds, timeline: timeline.finish() };
      } finally {
        if (path !== undefined) await rm(path, { recursive: true, force: true });
      }
    },
  };
}

function openFor(path: string | undefined): Promise<Repository> {
  return path === undefined ? memoryRepository() : Repository.create(path);
}

/** A repository in memory that takes nothing but its own configuration, for a run that stores nothing. */
async function memoryRepository(): Promise<Repository> {
  const { dryRepository } = await import('./dry-repository.js');
  return dryRepository();
}

class TimelineRecorder {
  #lastBytes = 0;
  #lastSeconds = 0;
  readonly #rates: number[] = [];

  add({ doneBytes, elapsedSeconds }: NativeStats): void {
    const seconds = elapsedSeconds - this.#lastSeconds;
    if (seconds < TIMELINE_MS / 2000) return;
    this.#rates.push(Math.max(0, doneBytes - this.#lastBytes) / seconds);
    this.#lastBytes = doneBytes;
    this.#lastSeconds = elapsedSeconds;
  }

  finish(): Timeline {
    return { sliceSeconds: TIMELINE_MS / 1000, bytesPerSecond: this.#rates };
  }
}

function ceilingsOf(
  stages: NativeStageScanResult,
  read: Measurement,
  write: Measurement | undefined,
  settings: BenchSettings,
): StageCeiling[] {
  const threads = Math.min(availableParallelism(), resolveTuning(settings.tuning).workers);
  const rateOf = (seconds: number) => (threads * stages.scannedBytes) / seconds;
  const { scanSeconds, hashSeconds, compressSeconds } = stages;
  const storedShare = stages.compressedBytes / stages.scannedBytes;
  const ceilings: StageCeiling[] = [
    {
      name: 'read',
      bytesPerSecond: read.summary.median,
      note: 'the disk in its own order, past the cache, the bytes thrown away',
    },
    {
      name: 'compute',
      bytesPerSecond: rateOf(scanSeconds + hashSeconds + compressSeconds),
      parts: {
        scan: rateOf(scanSeconds),
        hash: rateOf(hashSeconds),
        compress: rateOf(compressSeconds),
      },
      note: `zero scan, cut, BLAKE3 and ${settings.codec} of what is new, on ${threads} cores`,
    },
  ];
  if (write !== undefined && storedShare > 0) {
    ceilings.push({
      name: 'write',
      bytesPerSecond: write.summary.median / storedShare,
      note: `${bothRates(write.summary.median)} of what is stored, ${percent(storedShare)} of what is read`,
    });
  }
  return ceilings.sort((a, b) => a.bytesPerSecond - b.bytesPerSecond);
}

function pipelineOf(
  ceilings: StageCeiling[],
  together: Measurement,
  looked: Measurement,
  stats: NativeStats,
): PipelineReport {
  const [lowest, next] = ceilings as [StageCeiling, StageCeiling?];
  const part = (value: number) => (stats.readBytes > 0 ? value / stats.readBytes : 0);
  const share = together.summary.median / lowest.bytesPerSecond;
  const explained = share >= EXPLAINED_SHARE;
  return {
    ceilings,
    bytesPerSecond: together.summary.median,
    share,
    explained,
    // Under a limit, reading alone has the same ceiling, and no stage is what holds a backup back.
    bottleneck:
      explained && stats.bottleneck !== 'limit' ? lowest.name : STAGE_OF_METER[stats.bottleneck],
    lookBytesPerSecond: looked.summary.median,
    ...(next !== undefined && {
      nextAt: { name: next.name, factor: next.bytesPerSecond / lowest.bytesPerSecond },
    }),
    stages: { ...stats.stages },
    storedShare: part(stats.storedBytes),
    newShare: part(stats.newBytes),
  };
}

const STAGE_WORDS: Readonly<Record<PipelineReport['bottleneck'], string>> = {
  read: 'reading the disk',
  compute: 'computing',
  write: 'writing the repository',
  limit: 'waiting for the limit',
};

function pipelineFindings(pipeline: PipelineReport): string[] {
  const { bottleneck, explained, nextAt, share, ceilings } = pipeline;
  const [lowest] = ceilings as [StageCeiling];
  const found = [
    `A backup runs at ${bothRates(pipeline.bytesPerSecond)}, ${percent(share)} of the ${bothRates(lowest.bytesPerSecond)} that ${STAGE_WORDS[lowest.name]} alone allows.`,
  ];
  if (bottleneck === 'limit') {
    found.push('What holds it back is the limit that was given with --limit.');
  } else if (!explained) {
    found.push(
      `No stage alone explains that: in the run itself the time went into ${STAGE_WORDS[bottleneck]}, most of all.`,
    );
  } else if (nextAt !== undefined) {
    found.push(
      `What holds it back is ${STAGE_WORDS[lowest.name]}; with that mended, ${STAGE_WORDS[nextAt.name]} is next, at ${nextAt.factor.toFixed(2)} times today's ceiling.`,
    );
  }
  return found;
}

/** Copies `source` into the scratch folder, as raw. */
export async function runCopySuite(
  source: string,
  scratch: Scratch,
  settings: BenchSettings,
  session: BenchSession,
): Promise<SuiteResult & { peers: PeerRatio[] }> {
  const cell = copyCell(source, scratch, settings, session);
  const warmUp = await cell.run(-1);
  const { measurements, peers } = settings.peers
    ? await runWithPeers(cell, source, warmUp.bytes, scratch, settings.rounds, session)
    : { measurements: await runCells([cell], settings.rounds, session), peers: [] };
  const [own] = measurements as [Measurement];
  return {
    measurements,
    peers,
    findings: [`A disk is copied at ${bothRates(own.summary.median)}, until it is durable.`],
    paste: [],
    warnings: [],
  };
}

export function copyCell(
  source: string,
  scratch: Scratch,
  settings: BenchSettings,
  session: BenchSession,
): Cell {
  return {
    id: 'copy/raw',
    suite: 'copy',
    label: 'Firn copy to raw',
    parameters: { format: 'raw' },
    async run(round) {
      const target = scratch.path(`copy-${round}.raw`);
      const timeline = new TimelineRecorder();
      try {
        const { stats } = await copyDisk(source, target, {
          source: { parentFolders: settings.parentFolders },
          format: 'raw',
          tuning: settings.tuning,
          signal: session.signal,
          onProgress: (each) => timeline.add(each),
          progressIntervalMs: TIMELINE_MS,
        });
        return {
          bytes: stats.doneBytes,
          seconds: stats.elapsedSeconds,
          timeline: timeline.finish(),
        };
      } finally {
        await rm(target, { force: true });
      }
    },
  };
}
