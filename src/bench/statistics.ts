/**
 * The one place that turns samples into statements: docs/bench.md says the same in words.
 *
 * What is measured is skewed (a neighbour or a flush only ever slows), so the middle is the median, the spread the median absolute deviation,
 * and the interval comes from resampling what was seen instead of from a bell curve that is not there. Resampling is seeded: the same samples
 * give the same statement.
 */

/** A round's value is its median over time; more rounds make the interval narrower, longer ones do not. */
export interface Summary {
  rounds: number;
  median: number;
  /** The interval in which the true median lies in 95 of 100 such measurements; the samples' range when there are fewer than 4. */
  low: number;
  high: number;
  min: number;
  max: number;
  /** Median absolute deviation, times 1.4826: the standard deviation where samples are normal. */
  mad: number;
  /** mad / median. */
  variation: number;
}

/** Above this the report warns. */
export const VARIATION_WARNING = 0.05;

const RESAMPLES = 2000;
const RESAMPLES_MIN = 4;
const CONFIDENCE = 0.95;
/** Of many comparisons some are off by chance: each is held to more than a single statement is. */
const COMPARE_CONFIDENCE = 0.99;
const NORMAL_CONSISTENCY = 1.4826;

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value below which `share` of the samples lie, between neighbours in proportion. NaN without samples. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return Number.NaN;
  const place = Math.min(1, Math.max(0, share)) * (sorted.length - 1);
  const below = Math.floor(place);
  const low = sorted[below] as number;
  const high = sorted[Math.min(below + 1, sorted.length - 1)] as number;
  return low + (high - low) * (place - below);
}

export function summarize(values: readonly number[]): Summary {
  const middle = median(values);
  const mad = NORMAL_CONSISTENCY * median(values.map((value) => Math.abs(value - middle)));
  const [min, max] = [Math.min(...values), Math.max(...values)];
  const [low, high] = intervalOf(values);
  const variation = middle > 0 ? mad / middle : 0;
  return { rounds: values.length, median: middle, low, high, min, max, mad, variation };
}

function intervalOf(values: readonly number[]): [low: number, high: number] {
  if (values.length < RESAMPLES_MIN) return [Math.min(...values), Math.max(...values)];
  const random = seededRandom(values.length);
  const medians = resamples(() => median(resample(values, random)));
  return ends(medians, CONFIDENCE);
}

export interface Change {
  /** After / before: above 1 is more. */
  ratio: number;
  /** Where the ratio lies in 99 of 100 such comparisons. */
  low: number;
  high: number;
  verdict: 'faster' | 'slower' | 'same' | 'unclear';
}

/**
 * How `after` differs from `before`. A change counts if its whole interval lies on one side of 1 and the ratio is off by `threshold` at
 * least; 'same' if the whole interval is nearer to 1 than that; else nobody can tell.
 */
export function compareSamples(
  before: readonly number[],
  after: readonly number[],
  threshold: number,
): Change {
  const random = seededRandom(before.length * 31 + after.length);
  const ratio = median(after) / median(before);
  const few = Math.min(before.length, after.length) < RESAMPLES_MIN;
  const [low, high] = few
    ? [Math.min(...after) / Math.max(...before), Math.max(...after) / Math.min(...before)]
    : ends(
        resamples(() => median(resample(after, random)) / median(resample(before, random))),
        COMPARE_CONFIDENCE,
      );
  return { ratio, low, high, verdict: verdictOf(ratio, low, high, threshold) };
}

function verdictOf(ratio: number, low: number, high: number, threshold: number): Change['verdict'] {
  if (low > 1 && ratio >= 1 + threshold) return 'faster';
  if (high < 1 && ratio <= 1 - threshold) return 'slower';
  return low >= 1 - threshold && high <= 1 + threshold ? 'same' : 'unclear';
}

function resamples(make: () => number): number[] {
  return Array.from({ length: RESAMPLES }, make);
}

function resample(values: readonly number[], random: () => number): number[] {
  return values.map(() => values[Math.floor(random() * values.length)] as number);
}

function ends(values: readonly number[], confidence: number): [low: number, high: number] {
  const rest = (1 - confidence) / 2;
  return [quantile(values, rest), quantile(values, 1 - rest)];
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
function seededRandom(seed: number): () => number {
  let state = (seed + 0x9e3779b9) | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
