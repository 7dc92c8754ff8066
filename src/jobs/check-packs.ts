/**
 * The check that needs no key: every pack of a repository read from end to end, and held against its own checksums.
 *
 * It finds rot and torn files, on any computer that may read the storage. What somebody changed on purpose, checksums included, only a key
 * tells: that is verify's and scrub's. Nothing is noted in the repository.
 */

import type { NativeStats } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import type { Repository } from '../repository/repository.js';
import { type JobOptions, type Run, startRun } from './run.js';
import type { VerifyProblem } from './verify.js';

export interface CheckPacksOptions extends JobOptions {
  tuning?: TuningOptions | undefined;
}

export interface CheckPacksResult {
  /** The first thousand. */
  problems: VerifyProblem[];
  problemCount: number;
  packs: number;
  packBytes: number;
  stats: NativeStats;
}

/** Checks the packs; Repository.openLocked is enough for it. Packs that a collection deletes meanwhile are passed over. */
export function checkPacks(
  repository: Repository,
  options: CheckPacksOptions = {},
): Run<CheckPacksResult> {
  return startRun(options, (session) => runCheckPacks(repository, options, session));
}

async function runCheckPacks(
  repository: Repository,
  { tuning }: CheckPacksOptions,
  session: RunSessionOptions,
): Promise<CheckPacksResult> {
  const packs = await repository.packs();
  const started = loadEngine().startScrub({
    // The index is not looked at: without the key nobody can tell whether it is to be believed.
    repository: { ...repository.nativeBasis(), indexRuns: [], packs, condemned: [], damaged: [] },
    tuning: resolveTuning(tuning),
    chosen: packs,
    stopAfterMs: 0,
  });
  const result = await runSession(started, session);
  const read = result.packs.filter(({ gone }) => !gone);
  return {
    problems: result.problems.map((problem) => ({ ...problem, points: [] })),
    problemCount: result.problemCount,
    packs: read.length,
    packBytes: read.reduce((total, { bytes }) => total + bytes, 0),
    stats: result.stats,
  };
}
