/** Latencies of many requests, joined over rounds: percentiles for tables and a curve for plots. All values are nanoseconds. */

import type { NativeLatency } from '../engine/bench-binding.js';

export interface LatencySummary {
  count: number;
  meanNs: number;
  minNs: number;
  maxNs: number;
  p50Ns: number;
  p90Ns: number;
  p95Ns: number;
  p99Ns: number;
  p999Ns: number;
  /** The share of requests that took at most so long, at most 60 points. */
  curve: [share: number, ns: number][];
}

/** Undefined where nothing was counted. */
export function summarizeLatency(parts: readonly NativeLatency[]): LatencySummary | undefined {
  const buckets = joinBuckets(parts);
  const count = buckets.reduce((sum, [, each]) => sum + each, 0);
  if (count === 0) return undefined;
  const maxNs = Math.max(...parts.map((part) => part.maxNs));
  const at = (share: number) => Math.min(maxNs, percentileOf(buckets, count, share));
  const counted = parts.filter((part) => part.count > 0);
  return {
    count,
    meanNs: counted.reduce((sum, part) => sum + part.meanNs * part.count, 0) / count,
    minNs: Math.min(...counted.map((part) => part.minNs)),
    maxNs,
    p50Ns: at(0.5),
    p90Ns: at(0.9),
    p95Ns: at(0.95),
    p99Ns: at(0.99),
    p999Ns: at(0.999),
    curve: curveShares().map((share) => [share, at(share)]),
  };
}

function joinBuckets(parts: readonly NativeLatency[]): [upperNs: number, count: number][] {
  const joined = new Map<number, number>();
  for (const { buckets } of parts) {
    for (const [upper, count] of buckets) joined.set(upper, (joined.get(upper) ?? 0) + count);
  }
  return [...joined].sort(([a], [b]) => a - b);
}

function percentileOf(
  buckets: readonly (readonly [number, number])[],
  count: number,
  share: number,
): number {
  const rank = Math.max(1, Math.ceil(share * count));
  let seen = 0;
  for (const [upper, each] of buckets) {
    seen += each;
    if (seen >= rank) return upper;
  }
  return buckets.at(-1)?.[0] ?? 0;
}

/** Even steps of the number of nines: 0, 0.1 ... 0.9 ... 0.99 ... 0.999. */
function curveShares(): number[] {
  return Array.from({ length: 49 }, (_, step) => 1 - 10 ** (-step / 16));
}
