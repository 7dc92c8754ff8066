/**
 * Backup: disks of one virtual machine, given as files, become one sealed point.
 *
 * The data plane does the work; here are its inputs, the commit, and the account of it. The disks are read as they lie in their files, so
 * what the point promises is crash consistency: whoever calls sees to it that nobody writes to them meanwhile.
 */

import { hostname } from 'node:os';
import path from 'node:path';
import type {
  DiskIdentity,
  NativeBackup,
  NativeBackupBase,
  NativeBackupResult,
  NativeStats,
  NativeUnusedOptions,
} from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import {
  type CompressionOptions,
  type OpenDiskOptions,
  resolveCompression,
  resolveOpenDisk,
  resolveTuning,
  resolveUnused,
  type TuningOptions,
  type UnusedOptions,
} from '../engine/options.js';
import { firnError } from '../errors.js';
import { commitRun, ignoreDamage } from '../repository/commit.js';
import { FORMAT_VERSION } from '../repository/format/members.js';
import { isDiskName, newId } from '../repository/format/names.js';
import type { PointObject, PointUnused } from '../repository/format/objects.js';
import { type LastOrders, lastOrders, orderAfter } from '../repository/point-order.js';
import type { Repository } from '../repository/repository.js';
import { parseTags } from '../repository/tags.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { recordUnused } from './unused.js';

/** A disk image to back up: raw, VHD or VHDX, with its parents if it is differencing. */
export interface DiskSource extends OpenDiskOptions {
  path: string;
  /** The disk's name in the point; the file's name without its extension when not given. */
  name?: string | undefined;
  /** PointDisk.fileBytes. */
  fileBytes?: number | undefined;
  /** What the disk is read on top of, instead of as a whole. */
  base?: DiskBase | undefined;
}

/** A disk of an earlier point, and every byte that may differ from it. A base that cannot be used costs time, not the backup. */
export interface DiskBase extends NativeBackupBase {
  /** The id of the sealed point. */
  point: string;
}

export interface BackupOptions extends JobOptions, CompressionOptions, UnusedOptions {
  /** The disks of one machine, as they belong together. A text is a path. */
  disks: readonly (string | DiskSource)[];
  /** The machine's name; that of the first disk when not given. */
  vm?: string | undefined;
  /** Tags that the point is made with: at most 64, of 1 to 128 characters without commas. */
  tags?: readonly string[] | undefined;
  /** Reads and hashes, but looks nothing up and writes nothing: the result has the roots and no point. */
  dryRun?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface BackedUpDisk {
  name: string;
  path: string;
  /** The content id: equal for equal content in one repository. */
  root: string;
  identity: DiskIdentity;
  /** Bytes of pages that are not zero. */
  dataBytes: number;
  /** PointDisk.fileBytes. */
  fileBytes?: number;
  /** Set if the disk was read on top of a point: the point, and what was said to have changed since, in whole pages. */
  base?: { point: string; changedBytes: number };
  /** Why the given base, or a part of it, was not used. */
  baseRefused?: string;
  /** Set if unused blocks were to be left out: which were, and why others not. */
  unused?: PointUnused;
}

export interface BackupResult {
  /** Undefined after a dry run. */
  point: PointObject | undefined;
  disks: BackedUpDisk[];
  /** How often the work was done: more than once only if a collection came between. */
  attempts: number;
  summary: BackupSummary;
}

/** What a run over machines adds to a backup: what the point says of the capture, and the record of the stages. */
export interface MachineBackup {
  /** The guest froze its file systems for these disks: what they say of unused blocks is believed. */
  guestFroze: boolean;
  /** Asked for when the point is about to be sealed. */
  describe(): Pick<PointObject, 'vm' | 'consistency' | 'method' | 'host' | 'capture'>;
  aroundRead<Result>(read: (signal: AbortSignal) => Promise<Result>): Promise<Result>;
  aroundSeal<Result>(seal: () => Promise<Result>): Promise<Result>;
}

/** The account of a backup. Ratios are undefined where nothing was stored. Bytes new and stored are of all attempts. */
export interface BackupSummary {
  elapsedSeconds: number;
  /** Virtual sizes of the disks. */
  sizeBytes: number;
  /** Pages that are not zero. */
  dataBytes: number;
  /** Left out of the point, as no file system of the guest uses them. */
  skippedBytes: number;
  /** What was read of the disks, also to find out what is unused. */
  readBytes: number;
  /** Content of chunks that the repository did not have. */
  newBytes: number;
  /** The same, as it was stored. */
  storedBytes: number;
  dedupRatio: number | undefined;
  compressionRatio: number | undefined;
  totalRatio: number | undefined;
  /** Data and holes gone through a second. */
  bytesPerSecond: number;
  bottleneck: NativeStats['bottleneck'];
  /** The last attempt's counters, with the stages' shares of time. */
  stats: NativeStats;
}

/**
 * Backs up disks into one point. Rejects with what kept it from sealing; the repository is whole then, and what was stored is found again
 * by the next run.
 */
export function backup(repository: Repository, options: BackupOptions): Run<BackupResult> {
  return startRun(options, (session) => runBackup(repository, options, session));
}

/** Backs up the frozen disks of a machine, whatever a host has captured. */
export function backupMachine(
  repository: Repository,
  options: BackupOptions,
  machine: MachineBackup,
): Run<BackupResult> {
  return startRun(options, (session) => runBackup(repository, options, session, machine));
}

async function runBackup(
  repository: Repository,
  options: BackupOptions,
  session: RunSessionOptions,
  machine?: MachineBackup,
): Promise<BackupResult> {
  const created = new Date();
  const sources = resolveSources(options.disks);
  const vm = options.vm ?? stemOf((sources[0] as ResolvedSource).path);
  if (vm === '' || vm.length > 4096) {
    throw firnError('ERR_INVALID_ARGUMENT', `Expected a name for vm but received "${vm}"`);
  }
  const tags = parseTags(options.tags ?? [], 'tags');
  const engine = loadEngine();
  const tally = new Tally();
  const run = repository.newRun();
  const unused = resolveUnused(options, machine?.guestFroze === true);
  const describe = (stored: NativeBackupResult) => describeDisks(sources, stored, unused);
  const native: Omit<NativeBackup, 'repository' | 'attempt'> = {
    tuning: resolveTuning(options.tuning),
    disks: sources.map((source) => ({
      ...nativeDisk(source),
      ...(unused !== undefined && source.fileBytes === undefined && { unused }),
    })),
    run,
    ...resolveCompression(options),
    store: options.dryRun !== true,
  };
  const store = async (view: NativeBackup['repository'], attempt: number) => {
    const read = async (signal = session.signal) => {
      const started = engine.startBackup({ ...native, repository: view, attempt });
      return tally.add(await runSession(started, { ...session, signal }));
    };
    return machine === undefined ? read() : machine.aroundRead(read);
  };

  if (options.dryRun === true) {
    const { native: view } = await repository.view();
    const stored = await store(view, 0);
    const disks = describe(stored);
    return { point: undefined, disks, attempts: 1, summary: tally.summary(disks) };
  }
  const commit = await commitRun(
    repository,
    {
      store: async (view, attempt) => {
        const earlier = earlierPoints(repository);
        return { ...(await store(view, attempt)), last: await earlier };
      },
      point: (stored, attempt) => {
        const disks = describe(stored);
        const about = { vm: { name: vm }, created: created.toISOString(), ...machine?.describe() };
        return {
          type: 'point',
          version: FORMAT_VERSION,
          id: newId(),
          consistency: 'crash',
          method: 'files',
          host: hostname(),
          ...about,
          ...orderAfter(stored.last, about),
          run,
          attempt,
          disks: disks.map(pointDisk),
          ...(tags.length > 0 && { tags }),
          firn: engine.version(),
          stats: pointStats(tally.summary(disks)),
        };
      },
      ...(machine !== undefined && { aroundSeal: machine.aroundSeal }),
    },
    session.signal,
  );
  const disks = describe(commit.stored);
  const { point, attempts } = commit;
  return { point, disks, attempts, summary: tally.summary(disks) };
}

/** Where the points that are there stand: read beside the disks, and looked at when the new one gets its place. */
function earlierPoints(repository: Repository): Promise<LastOrders> {
  const reading = repository.canRead
    ? repository.points(ignoreDamage).then(lastOrders)
    : Promise.resolve(new Map<string, number>());
  // If the disks cannot be read either, that is what is said.
  reading.catch(() => {});
  return reading;
}

interface ResolvedSource {
  path: string;
  name: string;
  fileBytes: number | undefined;
  open: ReturnType<typeof resolveOpenDisk>;
  base: DiskBase | undefined;
}

function nativeDisk({ path: file, open, base }: ResolvedSource): NativeBackup['disks'][0] {
  if (base === undefined) return { path: file, open };
  const { root, skipsUnused, ranges } = base;
  return { path: file, open, base: { root, skipsUnused, ranges } };
}

/** Absolute paths, checked options, and for each disk a name that no other one has. */
export function resolveSources(disks: readonly (string | DiskSource)[]): ResolvedSource[] {
  if (disks.length === 0) throw firnError('ERR_INVALID_ARGUMENT', 'Expected at least one disk');
  const taken = new Set<string>();
  return disks.map((disk) => {
    const source: DiskSource = typeof disk === 'string' ? { path: disk } : disk;
    const file = path.resolve(source.path);
    if (source.name !== undefined && (!isDiskName(source.name) || isTaken(taken, source.name))) {
      throw firnError(
        'ERR_INVALID_ARGUMENT',
        `Expected a name that can be a file's and that no other disk has but received "${source.name}"`,
      );
    }
    const name = source.name ?? freeName(taken, diskNameOf(file));
    taken.add(name.toLowerCase());
    const { fileBytes, base } = source;
    return { path: file, name, fileBytes, open: resolveOpenDisk(source), base };
  });
}

function isTaken(taken: ReadonlySet<string>, name: string): boolean {
  return taken.has(name.toLowerCase());
}

function freeName(taken: ReadonlySet<string>, name: string): string {
  if (!isTaken(taken, name)) return name;
  for (let number = 2; ; number++) {
    const candidate = `${name}-${number}`;
    if (!isTaken(taken, candidate)) return candidate;
  }
}

function stemOf(file: string): string {
  return path.basename(file, path.extname(file));
}

/** The file's name without extension, with "_" for what not every system allows in a name. */
function diskNameOf(file: string): string {
  const name = stemOf(file)
    .replace(/[\p{Cc}/\\:*?"<>|]/gu, '_')
    .slice(0, 120)
    .replace(/[. ]+$/, '');
  return name === '' ? 'disk' : name;
}

function describeDisks(
  sources: readonly ResolvedSource[],
  stored: NativeBackupResult,
  options: NativeUnusedOptions | undefined,
) {
  return sources.map(({ name, path: file, fileBytes, base }, index): BackedUpDisk => {
    const { root, identity, dataBytes, changedBytes, baseRefused, unused } = stored.disks[
      index
    ] as NativeBackupResult['disks'][0];
    return {
      name,
      path: file,
      root,
      identity,
      dataBytes,
      ...(fileBytes !== undefined && { fileBytes }),
      ...(base !== undefined &&
        changedBytes !== undefined && { base: { point: base.point, changedBytes } }),
      ...(baseRefused !== undefined && { baseRefused }),
      ...(options !== undefined &&
        unused !== undefined && { unused: recordUnused(options, unused, sources.length) }),
    };
  });
}

function pointDisk(disk: BackedUpDisk): PointObject['disks'][0] {
  const { name, path: source, root, identity, fileBytes, base, unused } = disk;
  const { sizeBytes, format, kind, blockBytes, logicalSectorBytes, physicalSectorBytes, diskId } =
    identity;
  return {
    name,
    source,
    sizeBytes,
    root,
    identity: { format, kind, blockBytes, logicalSectorBytes, physicalSectorBytes, diskId },
    ...(fileBytes !== undefined && { fileBytes }),
    ...(base !== undefined && { base: base.point }),
    ...(unused !== undefined && { unused }),
  };
}

function pointStats(summary: BackupSummary): Record<string, unknown> {
  const { elapsedSeconds, dataBytes, skippedBytes, readBytes, newBytes, storedBytes } = summary;
  return { elapsedSeconds, dataBytes, skippedBytes, readBytes, newBytes, storedBytes };
}

/** Adds up the attempts of a run. */
class Tally {
  readonly #startedMs = performance.now();
  #last: NativeStats | undefined;
  #readBytes = 0;
  #newBytes = 0;
  #storedBytes = 0;

  add(result: NativeBackupResult): NativeBackupResult {
    this.#last = result.stats;
    this.#readBytes += result.stats.readBytes;
    this.#newBytes += result.stats.newBytes;
    this.#storedBytes += result.stats.storedBytes;
    return result;
  }

  summary(disks: readonly BackedUpDisk[]): BackupSummary {
    const stats = this.#last as NativeStats;
    const newBytes = this.#newBytes;
    const storedBytes = this.#storedBytes;
    const dataBytes = sum(disks.map((disk) => disk.dataBytes));
    const ratio = (whole: number, part: number) => (part > 0 ? whole / part : undefined);
    return {
      elapsedSeconds: (performance.now() - this.#startedMs) / 1000,
      sizeBytes: sum(disks.map((disk) => disk.identity.sizeBytes)),
      dataBytes,
      skippedBytes: sum(disks.map((disk) => disk.unused?.skippedBytes ?? 0)),
      readBytes: this.#readBytes,
      newBytes,
      storedBytes,
      dedupRatio: ratio(dataBytes, newBytes),
      compressionRatio: ratio(newBytes, storedBytes),
      totalRatio: ratio(dataBytes, storedBytes),
      bytesPerSecond: stats.elapsedSeconds > 0 ? stats.doneBytes / stats.elapsedSeconds : 0,
      bottleneck: stats.bottleneck,
      stats,
    };
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
