/** Counters of a job as the engine reports them, with the members that a test cares about. */

import type { NativeStats } from '../../src/engine/binding.js';

export function makeStats(members: Partial<NativeStats>): NativeStats {
  return {
    phase: 'copy',
    elapsedSeconds: 0,
    totalBytes: 0,
    doneBytes: 0,
    readBytes: 0,
    zeroBytes: 0,
    newBytes: 0,
    storedBytes: 0,
    writtenBytes: 0,
    chunks: 0,
    newChunks: 0,
    workers: 2,
    backend: 'threads',
    memoryBytes: 0,
    stages: {
      source: 0,
      scan: 0,
      hash: 0,
      compress: 0,
      target: 0,
      starved: 0,
      blocked: 0,
      limited: 0,
    },
    bottleneck: 'none',
    ...members,
  };
}
