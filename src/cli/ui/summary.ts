/**
 * The account at the end of a job, in words and as a summary message.
 *
 * Its last line says where the time went: how long reads and writes were under way, how long the workers were at each stage, and in
 * front what they did, or waited for, most of all. Only when that gets faster does the job.
 */

import type { NativeStats } from '../../engine/binding.js';
import { formatBytes, formatNumberOf, formatRate, formatRatio, formatSeconds } from './bytes.js';

/** One line, "bottleneck: source (source 92% · hash 14% · compress 61% · target 33%)", or none for a job with nothing to do. */
export function bottleneckLines({ stages, bottleneck }: NativeStats): string[] {
  if (bottleneck === 'none') return [];
  const shown = (['source', 'scan', 'hash', 'compress', 'target'] as const).filter(
    // Looking for holes is nearly free; it is named when, against expectation, it is what counts.
    (stage) => stage !== 'scan' || bottleneck === 'scan',
  );
  const shares = shown.map((stage) => `${stage} ${Math.round(100 * stages[stage])}%`);
  if (bottleneck === 'limit') shares.push(`limit ${Math.round(100 * stages.limited)}%`);
  return [`  bottleneck: ${bottleneck} (${shares.join(' · ')})`];
}

/** "in 12.3 s, 812 MiB/s": `bytes` is what the job went through, which may be nothing. */
export function speedLine(bytes: number, seconds: number): string {
  const rate = bytes > 0 ? `, ${formatRate(bytes, seconds)}` : '';
  return `in ${formatSeconds(seconds)}${rate}`;
}

/** Lines about what a backup read, found new and stored. */
export function reductionLines(summary: {
  sizeBytes: number;
  dataBytes: number;
  newBytes: number;
  storedBytes: number;
}): [name: string, value: string][] {
  const { sizeBytes, dataBytes, newBytes, storedBytes } = summary;
  return [
    ['disks', `${formatBytes(sizeBytes)}, ${formatBytes(dataBytes)} of it data`],
    ['new', `${formatBytes(newBytes)}, deduplication ${formatRatio(dataBytes, newBytes)}`],
    ['stored', `${formatBytes(storedBytes)}, compression ${formatRatio(newBytes, storedBytes)}`],
  ];
}

/** "backend io_uring, 2 workers, 96.0 MiB of buffers": with what means the job ran. */
export function meansLine(stats: NativeStats): string {
  return `${stats.backend} I/O, ${formatNumberOf(stats.workers, 'worker')}, ${formatBytes(stats.memoryBytes)} of buffers`;
}
