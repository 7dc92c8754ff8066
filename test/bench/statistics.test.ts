import { expect, it } from 'vitest';
import { compareSamples, median, quantile, summarize } from '../../src/bench/statistics.js';

/** Rounds of a machine whose true rate is `rate`, with noise that only slows. */
function noisyRounds(rate: number, seed: number, count: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return rate * (1 - 0.1 * (state / 2 ** 32) ** 2);
  });
}

it('quantiles lie between their neighbours in proportion', () => {
  expect(quantile([4, 1, 3, 2], 0)).toBe(1);
  expect(quantile([4, 1, 3, 2], 1)).toBe(4);
  expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
  expect(median([9, 1, 5])).toBe(5);
  expect(median([])).toBeNaN();
});

it('one slow round moves neither the median nor the deviation', () => {
  const calm = summarize([100, 101, 99, 100, 102]);
  const hit = summarize([100, 101, 99, 100, 10]);
  expect(calm.median).toBe(100);
  expect(hit.median).toBe(100);
  expect(hit.variation).toBeLessThan(0.02);
  expect(hit.min).toBe(10);
});

it('the interval holds the median, and fewer than four rounds give their whole range', () => {
  const few = summarize([3, 1, 2]);
  expect([few.low, few.high]).toEqual([1, 3]);
  const many = summarize(noisyRounds(1000, 7, 15));
  expect(many.low).toBeLessThanOrEqual(many.median);
  expect(many.high).toBeGreaterThanOrEqual(many.median);
  expect(many.high - many.low).toBeLessThan(many.max - many.min);
});

it('the 95 % interval holds the true median about as often as it says', () => {
  // Of such noise the median is at 1 - 0.1 * 0.25 of the rate.
  const truth = 975;
  let held = 0;
  for (let seed = 1; seed <= 200; seed++) {
    const { low, high } = summarize(noisyRounds(1000, seed * 7919, 9));
    if (low <= truth && truth <= high) held += 1;
  }
  expect(held).toBeGreaterThan(175);
});

it('the same samples give the same statement', () => {
  const rounds = noisyRounds(500, 3, 8);
  expect(summarize(rounds)).toEqual(summarize(rounds));
});

it('two runs of one machine seldom differ, and one that lost a fifth always does', () => {
  let alarms = 0;
  for (let seed = 1; seed <= 100; seed++) {
    const before = noisyRounds(1000, seed * 31, 7);
    const again = noisyRounds(1000, seed * 37 + 5, 7);
    if (compareSamples(before, again, 0.05).verdict === 'slower') alarms += 1;
    const slower = again.map((rate) => rate * 0.8);
    expect(compareSamples(before, slower, 0.05).verdict).toBe('slower');
    expect(compareSamples(slower, before, 0.05).verdict).toBe('faster');
  }
  expect(alarms).toBeLessThanOrEqual(2);
});

it('a change below the threshold counts for nothing, however sure it is', () => {
  const before = [100, 100.1, 99.9, 100, 100.05];
  const after = before.map((rate) => rate * 0.97);
  expect(compareSamples(before, after, 0.05)).toMatchObject({ verdict: 'same' });
  expect(compareSamples(before, after, 0.01)).toMatchObject({ verdict: 'slower' });
});

it('what varies more than it changes is unclear', () => {
  expect(compareSamples([100, 50, 150, 80, 120], [90, 140, 60, 110, 70], 0.05).verdict).toBe(
    'unclear',
  );
});
