/** Changed ranges as hosts tell them: nothing that was added is ever lost, and there is a bound to how many are kept. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ChangedRanges } from '../../src/hosts/changed-ranges.js';

const ascending = fc
  .array(
    fc.record({
      gap: fc.integer({ min: 0, max: 100_000 }),
      length: fc.integer({ min: 0, max: 20_000 }),
    }),
    { maxLength: 60 },
  )
  .map((parts) => {
    let at = 0;
    return parts.map(({ gap, length }) => {
      at += gap;
      return [at, length] as const;
    });
  });

test('hold every byte that was added, in order, apart, and not more of them than allowed', () => {
  fc.assert(
    fc.property(ascending, fc.integer({ min: 1, max: 20 }), (added, max) => {
      const changed = new ChangedRanges(max);
      for (const [offset, length] of added) changed.add(offset, length);
      const ranges = changed.ranges();
      expect(ranges.length).toBeLessThanOrEqual(max);
      for (const [index, [offset, length]] of ranges.entries()) {
        expect(length).toBeGreaterThan(0);
        const [before = 0, beforeLength = 0] = ranges[index - 1] ?? [];
        if (index > 0) expect(offset).toBeGreaterThan(before + beforeLength);
      }
      for (const [offset, length] of added) {
        if (length === 0) continue;
        const holding = ranges.filter(
          ([from, bytes]) => from <= offset && offset + length <= from + bytes,
        );
        expect(holding).toHaveLength(1);
      }
    }),
  );
});

test('keep what lies apart apart while there is room', () => {
  const changed = new ChangedRanges();
  for (const [offset, length] of [
    [0, 4096],
    [4096, 4096],
    [8192, 0],
    [65_536, 10],
    [65_540, 4],
  ] as const) {
    changed.add(offset, length);
  }
  expect(changed.ranges()).toEqual([
    [0, 8192],
    [65_536, 10],
  ]);
});

test('refuse what is no range, and what begins before the last one', () => {
  const changed = new ChangedRanges();
  changed.add(100, 50);
  for (const [offset, length] of [
    [99, 1],
    [Number.NaN, 1],
    [200, -1],
    [200, 0.5],
    [2 ** 53, 1],
    [2 ** 53 - 1, 2],
  ] as const) {
    expect(() => changed.add(offset, length)).toThrow(RangeError);
  }
  expect(changed.ranges()).toEqual([[100, 50]]);
});
