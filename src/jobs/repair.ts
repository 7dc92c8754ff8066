/**
 * Repair of the index: it is a cache, and is made again from the packs alone.
 *
 * The new index run stands before the old ones go, so that a repair that dies at any step leaves at worst both. Backups that run at
 * the same time publish index runs of their own, which this does not touch.
 */

import type { NativeProblem, NativeStats } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import { ignoreDamage } from '../repository/commit.js';
import { newId } from '../repository/format/names.js';
import type { Repository } from '../repository/repository.js';
import { type JobOptions, type Run, startRun } from './run.js';

export interface RepairIndexOptions extends JobOptions {
  tuning?: TuningOptions | undefined;
}

export interface RepairIndexResult {
  /** Index runs written, and those that they replaced: file names in index/. */
  indexRuns: string[];
  replaced: string[];
  packs: number;
  chunks: number;
  /** Packs that could not be read, or not in full: the index has what could. */
  problems: NativeProblem[];
  stats: NativeStats;
}

/** Makes the index again from the packs. */
export function repairIndex(
  repository: Repository,
  options: RepairIndexOptions = {},
): Run<RepairIndexResult> {
  return startRun(options, (session) => runRepairIndex(repository, options, session));
}

async function runRepairIndex(
  repository: Repository,
  options: RepairIndexOptions,
  session: RunSessionOptions,
): Promise<RepairIndexResult> {
  const tuning = resolveTuning(options.tuning);
  const { native } = await repository.view(ignoreDamage);
  const started = loadEngine().startRepairIndex({
    repository: { ...native, indexRuns: [] },
    tuning,
    run: newId(),
    attempt: 0,
  });
  const result = await runSession(started, session);
  for (const name of native.indexRuns) await repository.store.delete(`index/${name}`);
  return { ...result, replaced: native.indexRuns };
}
