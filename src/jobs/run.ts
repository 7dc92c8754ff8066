/**
 * What every job returns: a promise of its result that can also be iterated for progress.
 *
 *     const result = await backup(repository, { disks: ['web.vhdx'] });
 *     for await (const progress of run) show(progress.doneBytes / progress.totalBytes);
 *
 * Progress is a state, not a log: a slow consumer gets the newest counters and misses older ones, so nothing piles up. Leaving the loop
 * does not stop the job; the signal does, because stopping takes time and has a result of its own.
 */

import type { NativeStats } from '../engine/binding.js';
import { type RunSessionOptions, throwIfAborted } from '../engine/engine.js';

/** A running job's counters: bytes, shares of time of each stage, and which stage holds up the others. */
export type Progress = NativeStats;

export interface JobOptions {
  /** Stops the job: it rejects with ERR_ABORTED once everything it had open is closed. */
  signal?: AbortSignal | undefined;
  /** Called about every `progressIntervalMs` (100 when not given). What it throws stops the job and rejects it. */
  onProgress?: ((progress: Progress) => void) | undefined;
  progressIntervalMs?: number | undefined;
}

/** A job under way. */
export type Run<Result> = Promise<Result> & AsyncIterable<Progress>;

/** Starts `work` and makes a Run of it. `session` is what runSession wants for each native session of the job. */
export function startRun<Result>(
  options: JobOptions,
  work: (session: RunSessionOptions) => Promise<Result>,
): Run<Result> {
  const { signal, onProgress, progressIntervalMs } = options;
  const feed = new ProgressFeed();
  const onStats = (progress: Progress) => {
    onProgress?.(progress);
    feed.push(progress);
  };
  const result = (async () => {
    throwIfAborted(signal);
    return work({ signal, onStats, intervalMs: progressIntervalMs });
  })();
  return Object.assign(result, { [Symbol.asyncIterator]: () => feed.follow(result) });
}

class ProgressFeed {
  #newest: Progress | undefined;
  #count = 0;
  #wake: (() => void)[] = [];

  push(progress: Progress): void {
    this.#newest = progress;
    this.#count++;
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** Ends when the job does, and throws what it throws. */
  async *follow(result: Promise<unknown>): AsyncGenerator<Progress, void> {
    let ended = false;
    const end = result.then(
      () => {
        ended = true;
      },
      () => {
        ended = true;
      },
    );
    for (let seen = 0; ; ) {
      if (this.#newest !== undefined && this.#count > seen) {
        seen = this.#count;
        yield this.#newest;
      } else if (ended) {
        await result;
        return;
      } else {
        await Promise.race([end, new Promise<void>((resolve) => this.#wake.push(resolve))]);
      }
    }
  }
}
