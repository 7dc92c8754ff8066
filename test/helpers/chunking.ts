/**
 * The chunking rule in TypeScript, straight from docs/repository-format.md section 4: the oracle for the engine's.
 *
 * It is written for clarity and works on whole segments in memory.
 */

import { createRequire } from 'node:module';
import type { ChunkingObject } from '../../src/repository/format/objects.js';
import { PAGE_BYTES, SEGMENT_PAGES } from '../../src/rescue/map.js';

const { XXHash3 } = createRequire(import.meta.url)('xxhash-addon') as {
  XXHash3: new (seed: Buffer) => { update(data: Buffer): void; digest(): Buffer; reset(): void };
};

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

export interface SegmentRun {
  firstPage: number;
  pages: number;
  hole: boolean;
}

/** XXH3_64 of a page. The library takes the seed and gives the hash with the most significant byte first. */
export function pageHasher(seed: bigint): (page: Buffer) => bigint {
  const seedBytes = Buffer.alloc(8);
  seedBytes.writeBigUInt64BE(seed);
  const hasher = new XXHash3(seedBytes);
  return (page) => {
    hasher.reset();
    hasher.update(page);
    return hasher.digest().readBigUInt64BE(0);
  };
}

/** The runs of one segment, which is given in full: 2048 pages. */
export function segmentRuns(
  segment: Buffer,
  chunking: ChunkingObject,
  cutSeed: bigint,
): SegmentRun[] {
  const hash = pageHasher(cutSeed);
  const runs: SegmentRun[] = [];
  let open: SegmentRun | undefined;
  for (let number = 0; number < SEGMENT_PAGES; number++) {
    const page = segment.subarray(number * PAGE_BYTES, (number + 1) * PAGE_BYTES);
    if (page.equals(ZERO_PAGE)) {
      open = undefined;
      const last = runs.at(-1);
      if (last?.hole) last.pages++;
      else runs.push({ firstPage: number, pages: 1, hole: true });
      continue;
    }
    if (open === undefined) {
      open = { firstPage: number, pages: 0, hole: false };
      runs.push(open);
    }
    open.pages++;
    if (cuts(page, number, open.pages, chunking, hash)) open = undefined;
  }
  return runs;
}

function cuts(
  page: Buffer,
  number: number,
  length: number,
  chunking: ChunkingObject,
  hash: (page: Buffer) => bigint,
): boolean {
  if (chunking.scheme === 'fixed') return (number + 1) % chunking.pages === 0;
  const { minPages, averagePages, maxPages } = chunking;
  if (length === maxPages) return true;
  if (length < minPages) return false;
  if (averagePages === minPages) return true;
  const threshold = 2n ** 64n / BigInt(averagePages - minPages + 1);
  return hash(page) < threshold;
}
