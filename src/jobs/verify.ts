/**
 * Verify: is what the repository holds what was stored?
 *
 * Always: every object file is read and checked, and the maps of the points are walked, each map object read and each chunk looked up. With
 * `readData` every byte of every pack and index run is read and checked. With `source` a point is held against the disks
 * themselves: equal content has an equal root, whatever way it was stored, so that is the proof that a backup told the truth.
 *
 * Defects are results, not exceptions: verify goes on after each, and rejects only where it could not look.
 */

import type { NativeProblem, NativeRepository, NativeStats } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import { type FirnError, firnError, isFirnError } from '../errors.js';
import { ignoreDamage, isQuiet, mayHaveMoved } from '../repository/commit.js';
import { newId } from '../repository/format/names.js';
import { disksOf, type PointObject } from '../repository/format/objects.js';
import type { Repository, RepositoryView } from '../repository/repository.js';
import { type DiskSource, resolveSources } from './backup.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { recordedOptions } from './unused.js';

const ROUNDS_MAX = 5;

export interface VerifyOptions extends JobOptions {
  /** Selectors of the points to check; all of them when not given. */
  points?: readonly string[] | undefined;
  /** Reads and checks all packs and index runs, not only what the points' maps need. */
  readData?: boolean | undefined;
  /** The disks that the one point in `points` was made from, in its order: their content is compared with the point's. */
  source?: readonly (string | DiskSource)[] | undefined;
  tuning?: TuningOptions | undefined;
}

/** A defect. `points` are the ids of the sealed points that it touches, as far as that is known. */
export interface VerifyProblem extends NativeProblem {
  points: string[];
}

export interface VerifyResult {
  /** The first thousand or so; none if all is well. */
  problems: VerifyProblem[];
  problemCount: number;
  /** Points whose maps were walked. */
  points: number;
  /** Object files read. */
  objects: number;
  /** Distinct chunks looked up. */
  chunks: number;
  /** Packs read in full. */
  packs: number;
  /** Damaged copies that a scrub has named, of records of which another copy is whole: the next prune clears them away. */
  healed: number;
  /** With `source`: what of it was not compared, because the point left it out as unused. */
  skippedBytes?: number;
  stats: NativeStats;
}

/** Checks a repository, or some of its points. */
export function verify(repository: Repository, options: VerifyOptions = {}): Run<VerifyResult> {
  return startRun(options, (session) => runVerify(repository, options, session));
}

/** The same as a part of another job. */
export async function runVerify(
  repository: Repository,
  options: VerifyOptions,
  session: RunSessionOptions,
): Promise<VerifyResult> {
  const tuning = resolveTuning(options.tuning);
  const objects = await checkObjects(repository);
  const points =
    options.points === undefined
      ? await repository.points(ignoreDamage) // Damaged ones are among the objects' problems.
      : await resolveAll(repository, options.points);
  const roots = [...new Set(points.flatMap((point) => point.disks.map((disk) => disk.root)))];
  const engine = loadEngine();

  for (let round = 1; ; round++) {
    const view = await repository.view(ignoreDamage);
    const native = await runSession(
      engine.startVerify({
        repository: view.native,
        tuning,
        roots,
        readData: options.readData === true,
      }),
      session,
    );
    if (round < ROUNDS_MAX && (await hasMoved(repository, view, native.problems))) continue;
    const compared =
      options.source === undefined
        ? { problems: [] }
        : await compareSource(view.native, points, options.source, tuning, session);
    const found = native.problems.map((problem) => ({
      ...problem,
      points: pointsWith(points, problem.roots ?? []),
    }));
    return {
      problems: [...objects.problems, ...compared.problems, ...found],
      problemCount: objects.problems.length + compared.problems.length + native.problemCount,
      points: points.length,
      objects: objects.count,
      chunks: native.chunks,
      packs: native.packs,
      healed: native.healed,
      ...('skippedBytes' in compared && { skippedBytes: compared.skippedBytes }),
      stats: native.stats,
    };
  }
}

async function resolveAll(
  repository: Repository,
  selectors: readonly string[],
): Promise<PointObject[]> {
  const points = new Map<string, PointObject>();
  for (const selector of selectors) {
    const point = await repository.resolvePoint(selector);
    points.set(point.id, point);
  }
  return [...points.values()];
}

/** Reads every object file. One that is deleted meanwhile is none. */
async function checkObjects(
  repository: Repository,
): Promise<{ count: number; problems: VerifyProblem[] }> {
  const problems: VerifyProblem[] = [];
  let count = 0;
  for (const name of await repository.objects()) {
    try {
      if (await repository.checkObject(name)) count++;
    } catch (error) {
      if (!isFirnError(error)) throw error;
      count++;
      const [folder, id] = name.split('/');
      problems.push(problemOf(error, name, folder === 'points' && id !== undefined ? [id] : []));
    }
  }
  return { count, problems };
}

function problemOf(error: FirnError, object: string, points: string[]): VerifyProblem {
  const { code, message, op, path, offset, osCode, retryable, dataLoss } = error;
  return {
    code,
    message,
    retryable,
    dataLoss,
    object,
    points,
    ...(op === undefined ? {} : { op }),
    ...(path === undefined ? {} : { path }),
    ...(offset === undefined ? {} : { offset }),
    ...(osCode === undefined ? {} : { osCode }),
  };
}

/** What is missing may have been moved by a collection: then the same walk on a new view tells. */
async function hasMoved(
  repository: Repository,
  view: RepositoryView,
  problems: readonly NativeProblem[],
): Promise<boolean> {
  const missing = problems.some((problem) => mayHaveMoved(problem.code));
  return missing && !(await isQuiet(repository, view));
}

function pointsWith(points: readonly PointObject[], roots: readonly string[]): string[] {
  return points
    .filter((point) => point.disks.some((disk) => roots.includes(disk.root)))
    .map((point) => point.id);
}

async function compareSource(
  repository: NativeRepository,
  points: readonly PointObject[],
  source: readonly (string | DiskSource)[],
  tuning: ReturnType<typeof resolveTuning>,
  session: RunSessionOptions,
): Promise<{ problems: VerifyProblem[]; skippedBytes?: number }> {
  const [point] = points;
  if (point === undefined || points.length !== 1) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected one point to compare the source with but received ${points.length}`,
    );
  }
  const disks = resolveSources(source);
  const expected = disksOf(point);
  if (disks.length !== expected.length) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected ${expected.length} disks, in the point's order, but received ${disks.length}`,
    );
  }
  const result = await runSession(
    loadEngine().startBackup({
      repository,
      tuning,
      disks: disks.map(({ path, open }, index) => {
        const unused = expected[index]?.unused;
        return { path, open, ...(unused !== undefined && { unused: recordedOptions(unused) }) };
      }),
      run: newId(),
      attempt: 0,
      codec: 'raw',
      level: 0,
      store: false,
    }),
    session,
  );
  const problems = expected.flatMap((disk, index) => {
    const { root, unused } = result.disks[index] as (typeof result.disks)[0];
    if (root === disk.root) return [];
    const path = (disks[index] as (typeof disks)[0]).path;
    const isOtherRule = unused !== undefined && unused.rules !== disk.unused?.rules;
    const because = isOtherRule
      ? '; but the point leaves out unused blocks by other rules than this Firn, so that says little'
      : '';
    const message = `${path} does not hold what point ${point.id} has as disk "${disk.name}"${because}`;
    const error = firnError('ERR_VERIFY_MISMATCH', message, { path });
    return [{ ...problemOf(error, `points/${point.id}`, [point.id]), roots: [disk.root] }];
  });
  if (expected.every((disk) => disk.unused === undefined)) return { problems };
  const skipped = result.disks.map(({ unused }) => unused?.skippedBytes ?? 0);
  return { problems, skippedBytes: skipped.reduce((total, bytes) => total + bytes, 0) };
}
