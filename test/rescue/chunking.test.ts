import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ChunkingObject } from '../../src/repository/format/objects.js';
import { PAGE_BYTES, SEGMENT_PAGES } from '../../src/rescue/map.js';
import { pageHasher, type SegmentRun, segmentRuns } from '../helpers/chunking.js';

const SEED = 0x0123456789abcdefn;

/** A segment from page kinds: 0 is a zero page, other numbers are pages of different content. */
function segmentOf(pages: number[]): Buffer {
  const segment = Buffer.alloc(SEGMENT_PAGES * PAGE_BYTES);
  for (const [number, kind] of pages.entries()) {
    if (kind !== 0) segment.writeUInt32LE(kind, number * PAGE_BYTES);
  }
  return segment;
}

const pagesArbitrary = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 6 })), {
  minLength: 1,
  maxLength: 300,
});
const chunkingArbitrary: fc.Arbitrary<ChunkingObject> = fc.oneof(
  fc.constantFrom(1, 2, 8, 16, 2048).map((pages) => ({ scheme: 'fixed' as const, pages })),
  fc
    .tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 9 }), fc.nat(30))
    .map(([minPages, more, most]) => ({
      scheme: 'content' as const,
      minPages,
      averagePages: minPages + more,
      maxPages: minPages + more + most,
    })),
);

const chunksOf = (runs: SegmentRun[]) => runs.filter((run) => !run.hole);

describe('the chunking rule', () => {
  test('covers the segment with maximal holes and chunks within their limits', () => {
    fc.assert(
      fc.property(pagesArbitrary, chunkingArbitrary, (pages, chunking) => {
        const runs = segmentRuns(segmentOf(pages), chunking, SEED);
        let next = 0;
        for (const [index, run] of runs.entries()) {
          expect(run.firstPage).toBe(next);
          next += run.pages;
          if (run.hole) expect(runs[index + 1]?.hole ?? false).toBe(false);
          for (let page = run.firstPage; page < next; page++) {
            expect((pages[page] ?? 0) === 0).toBe(run.hole);
          }
          if (run.hole || chunking.scheme === 'fixed') continue;
          expect(run.pages).toBeLessThanOrEqual(chunking.maxPages);
          if (runs[index + 1]?.hole === false) {
            expect(run.pages).toBeGreaterThanOrEqual(chunking.minPages);
          }
        }
        expect(next).toBe(SEGMENT_PAGES);
      }),
      { numRuns: 60 },
    );
  });

  test('chunks after a hole do not depend on what stands before it', () => {
    fc.assert(
      fc.property(pagesArbitrary, pagesArbitrary, pagesArbitrary, (before, other, after) => {
        const chunking = { scheme: 'content' as const, minPages: 2, averagePages: 4, maxPages: 9 };
        const length = Math.max(before.length, other.length) + 1;
        const tail = (head: number[]) => {
          const pages = [...head, ...Array<number>(length - head.length).fill(0), ...after];
          const runs = segmentRuns(segmentOf(pages), chunking, SEED);
          return chunksOf(runs).filter((run) => run.firstPage >= length);
        };
        expect(tail(before)).toEqual(tail(other));
      }),
      { numRuns: 40 },
    );
  });

  test('with average equal to min every chunk of data has min pages', () => {
    const pages = Array.from({ length: 40 }, (_, index) => index + 1);
    const chunking = { scheme: 'content' as const, minPages: 4, averagePages: 4, maxPages: 9 };
    const runs = chunksOf(segmentRuns(segmentOf(pages), chunking, SEED));
    expect(runs.map((run) => run.pages)).toEqual(Array(10).fill(4));
  });

  test('fixed chunks end at multiples of their size and nowhere else but at holes', () => {
    const pages = [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1];
    const runs = segmentRuns(segmentOf(pages), { scheme: 'fixed', pages: 4 }, SEED);
    expect(runs.slice(0, 4)).toEqual([
      { firstPage: 0, pages: 3, hole: false },
      { firstPage: 3, pages: 1, hole: true },
      { firstPage: 4, pages: 4, hole: false },
      { firstPage: 8, pages: 4, hole: false },
    ]);
  });

  test('chunks have the average size that the threshold promises', () => {
    const pages = Array.from({ length: SEGMENT_PAGES }, (_, index) => index + 1);
    const chunking = { scheme: 'content' as const, minPages: 8, averagePages: 16, maxPages: 2048 };
    const runs = segmentRuns(segmentOf(pages), chunking, SEED);
    const mean = SEGMENT_PAGES / runs.length;
    // 128 chunks with a standard deviation of 9 pages each: 3.5 pages are four standard errors.
    expect(Math.abs(mean - 16)).toBeLessThan(3.5);
  });

  test('the page hash is XXH3 with the seed as an integer', () => {
    // The published hash of no bytes.
    expect(pageHasher(0n)(Buffer.alloc(0)).toString(16)).toBe('2d06800538d394c2');
    expect(pageHasher(SEED)(Buffer.alloc(4096))).not.toBe(pageHasher(0n)(Buffer.alloc(4096)));
  });
});
