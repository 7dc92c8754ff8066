/**
 * Prune: space that no point needs any more comes back.
 *
 * One or more collections, each whole in itself (repository/collection.ts), until there is nothing left to do; after a crash or a cancel
 * the next prune goes on. Backups, restores and other prunes may run at the same time. Pending points that dead runs have left keep their
 * data; they are reported, and on request completed or discarded.
 */

import type { NativeMark, NativeRepository, NativeTuning } from '../engine/binding.js';
import {
  loadEngine,
  type RunSessionOptions,
  runSession,
  throwIfAborted,
} from '../engine/engine.js';
import { expected, resolveTuning, type TuningOptions } from '../engine/options.js';
import { firnError } from '../errors.js';
import { clearRecords } from '../repository/checks.js';
import {
  type CollectionPlane,
  type CollectionResult,
  collect,
  type MarkRequest,
} from '../repository/collection.js';
import { nativeDamage } from '../repository/native.js';
import { type Recovery, recoverPending } from '../repository/recovery.js';
import type { Repository } from '../repository/repository.js';
import { DirectoryStore } from '../repository/stores/directory.js';
import { type JobOptions, type Run, startRun } from './run.js';

export const MAX_WASTE_DEFAULT = 0.2;
/** Collections that one prune makes at most; each takes away as much as it may. */
const COLLECTIONS_MAX = 1000;

export interface PruneOptions extends JobOptions {
  /** The share of a pack, 0..1, that may be waste; packs with more are written again. 0.2 when not given. */
  maxWaste?: number | undefined;
  /** Finds out what would go, and changes nothing. */
  dryRun?: boolean | undefined;
  /**
   * Completes or discards pending points, and removes unfinished files. For when nothing else is running: of a backup that is, a second point
   * would be made, or it would fail and have to run again.
   */
  recover?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface PendingPoint {
  id: string;
  vm: string;
  created: string;
  recovery: Recovery | undefined;
}

export interface PruneResult
  extends Omit<CollectionResult, 'rescued' | 'indexRunsWritten' | 'more'> {
  dryRun: boolean;
  collections: number;
  packsAfter: number;
  rescuedPacks: number;
  indexRunsAfter: number;
  /** Pending points that were there, and what became of them. */
  pending: PendingPoint[];
  /** Files of writers that are at work or died: those that are left, or with `recover` those that were removed. */
  unfinished: { files: number; bytes: number };
  elapsedSeconds: number;
}

/** Deletes what no point needs. ERR_REPOSITORY_CHANGED, ERR_CHUNK_MISSING and others if a point is not whole: then nothing more was deleted. */
export function prune(repository: Repository, options: PruneOptions = {}): Run<PruneResult> {
  return startRun(options, (session) => runPrune(repository, options, session));
}

async function runPrune(
  repository: Repository,
  options: PruneOptions,
  session: RunSessionOptions,
): Promise<PruneResult> {
  const begun = performance.now();
  const { maxWaste = MAX_WASTE_DEFAULT, dryRun = false, recover = false, signal } = options;
  if (!(maxWaste >= 0 && maxWaste <= 1))
    throw expected('maxWaste', 'a share from 0 to 1', maxWaste);
  const tuning = resolveTuning(options.tuning);
  const plane = nativePlane(repository, tuning, session);
  const collectAll = () => collectRepeatedly(repository, plane, { maxWaste, dryRun, signal });
  const pending = await pendingPoints(repository, dryRun);
  const results = await collectAll();
  if (recover && !dryRun && pending.length > 0) {
    // After the first, which finishes what dead collectors have left: only a quiet repository shows that a chunk is lost.
    for (const each of pending) {
      throwIfAborted(signal);
      each.recovery = await recoverPending(
        repository,
        each.id,
        packFinder(tuning, session),
        signal,
      );
    }
    results.push(...(await collectAll()));
  }
  if (!dryRun) await clearRecords(repository);
  const { rescued, packsAfter, indexRunsAfter, ...account } = summarize(results);
  return {
    ...account,
    dryRun,
    collections: results.length,
    packsAfter: dryRun ? packsAfter : (await repository.packs()).length,
    rescuedPacks: rescued,
    indexRunsAfter: dryRun ? indexRunsAfter : (await repository.indexRuns()).length,
    pending,
    unfinished: await unfinishedFiles(repository, recover && !dryRun),
    elapsedSeconds: (performance.now() - begun) / 1000,
  };
}

async function collectRepeatedly(
  repository: Repository,
  plane: CollectionPlane,
  options: Parameters<typeof collect>[2],
): Promise<CollectionResult[]> {
  const results: CollectionResult[] = [];
  while (results.length < COLLECTIONS_MAX) {
    const result = await collect(repository, plane, options);
    results.push(result);
    // One that could delete nothing would not get further the next time.
    if (!result.more || options.dryRun === true || result.deleted === 0) break;
  }
  return results;
}

function summarize(results: readonly CollectionResult[]) {
  const first = results[0] as CollectionResult;
  const last = results.at(-1) as CollectionResult;
  const sum = (count: (result: CollectionResult) => number) =>
    results.reduce((total, result) => total + count(result), 0);
  const { packsBefore, bytesBefore, indexRunsBefore } = first;
  const deleted = sum((result) => result.deleted);
  const indexRunsReplaced = sum((result) => result.indexRunsReplaced);
  return {
    packsBefore,
    bytesBefore,
    liveBytes: last.liveBytes,
    deleted,
    deletedBytes: sum((result) => result.deletedBytes),
    rescued: sum((result) => result.rescued.length),
    rescuedBytes: sum((result) => result.rescuedBytes),
    spared: last.spared,
    damaged: last.damaged,
    indexRunsBefore,
    indexRunsReplaced,
    finishedSets: sum((result) => result.finishedSets),
    packsAfter: packsBefore - deleted,
    indexRunsAfter: indexRunsBefore - indexRunsReplaced,
  };
}

/** The pending points; those whose writers died just after the seal are cleared away. */
async function pendingPoints(repository: Repository, dryRun: boolean): Promise<PendingPoint[]> {
  const found: PendingPoint[] = [];
  const ids = await repository.listIds('pending');
  const sealed = new Set(ids.length > 0 ? await repository.listIds('points') : []);
  for (const id of ids) {
    if (sealed.has(id)) {
      if (!dryRun) await repository.removePending(id);
      continue;
    }
    const point = await repository.readPending(id).catch(() => undefined);
    if (point === undefined) continue;
    found.push({ id, vm: point.vm.name, created: point.created, recovery: undefined });
  }
  return found;
}

async function unfinishedFiles({ store }: Repository, removes: boolean) {
  const found = store instanceof DirectoryStore ? await store.listUnfinished() : [];
  if (removes) for (const { name } of found) await store.delete(name);
  return { files: found.length, bytes: found.reduce((total, { bytes }) => total + bytes, 0) };
}

function rootsOf(points: MarkRequest['view']['points']): string[] {
  return [...new Set(points.flatMap(({ disks }) => disks.map(({ root }) => root)))];
}

/** The native data plane, as the collector wants it. */
function nativePlane(
  repository: Repository,
  tuning: NativeTuning,
  session: RunSessionOptions,
): CollectionPlane {
  const engine = loadEngine();
  return {
    async mark({ view, condemned, victims }) {
      const native: NativeRepository = {
        ...repository.nativeBasis(),
        indexRuns: [...view.indexRuns],
        packs: [...view.packs],
        condemned: [...condemned],
        damaged: nativeDamage(view.damage),
      };
      const started = engine.startMark({
        repository: native,
        tuning,
        roots: rootsOf(view.points),
        pendingRoots: rootsOf(view.pending),
        victims: [...(victims ?? [])],
        onlyVictims: victims !== undefined,
      });
      const { packs, indexRuns, missing, mark } = await runSession(started, session);
      const basis = { ...native, indexRuns: [], packs: [], condemned: [], damaged: [] };
      // Names are never used twice: each piece of work has a run of its own.
      const named = (held: NativeMark) => ({
        repository: basis,
        tuning,
        mark: held,
        run: repository.newRun(),
        attempt: 0,
      });
      return {
        packs,
        indexRuns,
        missing,
        rescue: async (chosen) =>
          runSession(engine.startRescue({ ...named(mark), victims: [...chosen] }), session),
        mergeIndex: async (runs, dropped) => {
          const options = { ...named(mark), indexRuns: [...runs], dropped: [...dropped] };
          // Carried through even if the job is cancelled: packs have been deleted by now.
          return (await runSession(engine.startMergeIndex(options))).indexRuns;
        },
        release: () => engine.releaseMark(mark),
      };
    },
  };
}

/** Where the chunks of maps are, in packs that may be relied on. */
function packFinder(tuning: NativeTuning, session: RunSessionOptions) {
  return async (native: NativeRepository, roots: string[]): Promise<string[]> => {
    const engine = loadEngine();
    const started = engine.startMark({
      repository: native,
      tuning,
      roots,
      pendingRoots: [],
      victims: [],
      onlyVictims: true,
    });
    const { packs, mark } = await runSession(started, session);
    engine.releaseMark(mark);
    if (packs.some((pack) => pack.needed)) {
      throw firnError('ERR_REPOSITORY_CHANGED', 'What a pending point needs has been condemned');
    }
    return packs.filter((pack) => pack.ownedBytes > 0).map(({ name }) => name);
  };
}
