/** Two reports of the same suites: what changed, how sure that is, and whether anything got slower. */

import type { StoredReport } from './report.js';
import { type Change, compareSamples, median } from './statistics.js';

/** A change has to be at least so large to count: runs on the same machine differ by a few percent whatever is done. */
export const THRESHOLD_DEFAULT = 0.05;

export interface ComparedMeasurement extends Change {
  id: string;
  label: string;
  before: number;
  after: number;
}

export interface Comparison {
  measurements: ComparedMeasurement[];
  /** Ids that only one of the two has. */
  onlyBefore: string[];
  onlyAfter: string[];
  regressions: number;
  warnings: string[];
}

export function compareReports(
  before: StoredReport,
  after: StoredReport,
  threshold = THRESHOLD_DEFAULT,
): Comparison {
  const old = new Map(before.measurements.map((each) => [each.id, each]));
  const seen = new Set(after.measurements.map(({ id }) => id));
  const measurements = after.measurements.flatMap(({ id, label, rounds }) => {
    const other = old.get(id);
    if (other === undefined) return [];
    const change = compareSamples(other.rounds, rounds, threshold);
    return [{ id, label, before: median(other.rounds), after: median(rounds), ...change }];
  });
  return {
    measurements,
    onlyBefore: [...old.keys()].filter((id) => !seen.has(id)),
    onlyAfter: [...seen].filter((id) => !old.has(id)),
    regressions: measurements.filter(({ verdict }) => verdict === 'slower').length,
    warnings: warningsOf(before, after),
  };
}

function warningsOf(before: StoredReport, after: StoredReport): string[] {
  const warnings: string[] = [];
  for (const name of ['cpu', 'os', 'firn'] as const) {
    const [old, now] = [before.environment[name], after.environment[name]];
    if (old !== now) warnings.push(`Not the same ${name}: "${old}" before, "${now}" after.`);
  }
  const fewest = Math.min(
    ...[...before.measurements, ...after.measurements].map(({ rounds }) => rounds.length),
  );
  if (fewest < 4) {
    warnings.push('Fewer than 4 rounds: the intervals are the whole range of what was seen.');
  }
  return warnings;
}
