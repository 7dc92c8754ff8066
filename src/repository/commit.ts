/**
 * The commit protocol: how a run's work becomes a sealed point, and how a reader tells a lost chunk from one that moved.
 *
 * Writers, collectors and readers share a store without locks, clocks or compare-and-swap, and any of them may die at any step. So the
 * order of the steps is everything. A writer looks at the condemned sets before it relies on a pack and once more, with its point
 * pending, before it seals: a collector that condemns a pack in between sees the pending point's packs as live or is seen here. It
 * looks at the generation last, because a collection may have come and gone in between. docs/repository-format.md section 8.
 */

import type { NativeRepository } from '../engine/binding.js';
import { throwIfAborted } from '../engine/engine.js';
import { type ErrorCode, firnError, isFirnError } from '../errors.js';
import type { PointObject } from './format/objects.js';
import type { Repository, RepositoryView } from './repository.js';

/** Runs that a collection has overtaken so often in a row are given up. */
const ATTEMPTS_MAX = 5;
const ROUNDS_MAX = 5;

/** What a run has stored: the packs it wrote, and those of earlier runs that it found chunks in. */
export interface StoredRun {
  packs: string[];
  reliedPacks: string[];
}

export interface CommitSteps<Stored extends StoredRun> {
  /** Writes packs and index runs, durably. Called once an attempt, from 0. */
  store(repository: NativeRepository, attempt: number): Promise<Stored>;
  /** The point for what was stored, with an id never used before. */
  point(stored: Stored, attempt: number): PointObject;
  /** Goes round the sealing of a stored point, for those who record it. */
  aroundSeal?<Result>(seal: () => Promise<Result>): Promise<Result>;
}

export interface Commit<Stored> {
  stored: Stored;
  point: PointObject;
  attempts: number;
}

/**
 * Stores and seals. ERR_REPOSITORY_CHANGED if collections came between in every attempt; ERR_ABORTED if the signal fires before the seal.
 * After any failure there is no point, and no pending one as far as it could be removed; packs that were written are garbage for a
 * later collection.
 */
export async function commitRun<Stored extends StoredRun>(
  repository: Repository,
  steps: CommitSteps<Stored>,
  signal?: AbortSignal,
): Promise<Commit<Stored>> {
  const pending: string[] = [];
  try {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      throwIfAborted(signal);
      const view = await repository.view();
      const stored = await unlessGone(repository, view, () => steps.store(view.native, attempt));
      if (stored === undefined) continue;
      const seal = async () => {
        const point = steps.point(stored, attempt);
        pending.push(point.id);
        await repository.writePending(point);
        // Only now: until the new one stands, the old one keeps its chunks alive.
        if (pending.length > 1) await repository.removePending(pending.shift() as string);
        throwIfAborted(signal);
        const packs = [...stored.packs, ...stored.reliedPacks];
        if (!(await standsFirm(repository, view, packs))) return undefined;
        await repository.seal(point);
        return point;
      };
      const point = await (steps.aroundSeal?.(seal) ?? seal());
      if (point !== undefined) return { stored, point, attempts: attempt + 1 };
    }
    throw firnError(
      'ERR_REPOSITORY_CHANGED',
      `Collections deleted packs under this run in each of ${ATTEMPTS_MAX} attempts`,
    );
  } finally {
    for (const id of pending) {
      await repository.removePending(id).catch(() => {
        // The point is sealed, or another failure is on its way out; a pending point that stays is a collection's to clear.
      });
    }
  }
}

/**
 * Runs `read` on a view of the repository, and again on a new one while a collection moves packs under it. What is missing then is lost
 * for good: nothing was condemned and the generation stood still over the whole round. `read` must be repeatable.
 */
export async function readSteadily<Result>(
  repository: Repository,
  read: (repository: NativeRepository) => Promise<Result>,
): Promise<Result> {
  for (let round = 1; ; round++) {
    const view = await repository.view(ignoreDamage);
    if (round === ROUNDS_MAX) return read(view.native);
    const result = await unlessGone(repository, view, async () => ({
      value: await read(view.native),
    }));
    if (result !== undefined) return result.value;
  }
}

/** True if neither a collection nor a repair has touched the repository since `view`, nor is about to. */
export async function isQuiet(repository: Repository, view: RepositoryView): Promise<boolean> {
  // A set that cannot be read condemns something all the same.
  if (view.native.condemned.length > 0 || (await repository.listIds('condemned')).length > 0) {
    return false;
  }
  const indexRuns = new Set(await repository.indexRuns());
  return (
    view.native.indexRuns.every((name) => indexRuns.has(name)) &&
    (await repository.generation()) === view.generation
  );
}

/** For readers, who can do without an object that is damaged; verify reports it. */
export function ignoreDamage(): void {}

/** True if what is missing may have moved, rather than be lost. */
export function mayHaveMoved(code: ErrorCode | string): boolean {
  return code === 'ERR_PACK_MISSING' || code === 'ERR_CHUNK_MISSING' || code === 'ERR_NOT_FOUND';
}

async function unlessGone<Result>(
  repository: Repository,
  view: RepositoryView,
  action: () => Promise<Result>,
): Promise<Result | undefined> {
  try {
    return await action();
  } catch (error) {
    if (!isFirnError(error) || !mayHaveMoved(error.code)) throw error;
    if (await isQuiet(repository, view)) throw error;
    return undefined;
  }
}

/** Step 7 of a writer: no pack of the point is condemned, and none has gone. */
async function standsFirm(
  repository: Repository,
  view: RepositoryView,
  packs: readonly string[],
): Promise<boolean> {
  const condemned = await repository.condemnedPacks();
  const generation = await repository.generation();
  if (packs.some((pack) => condemned.has(pack))) return false;
  if (generation === view.generation) return true;
  const listed = new Set(await repository.packs());
  return packs.every((pack) => listed.has(pack));
}
