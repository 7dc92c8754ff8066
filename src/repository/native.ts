/** What native jobs take of a repository's objects, and the other way round: the two name chunking and damage differently. */

import type { NativeChunking, NativeDamage } from '../engine/binding.js';
import type { ChunkingObject, DamageObject } from './format/objects.js';

/** Records of damage as native jobs take them. */
export function nativeDamage(damage: readonly DamageObject[]): NativeDamage[] {
  return damage.map(({ pack, records }) => ({ pack, ...(records !== undefined && { records }) }));
}

export function chunkingObject(chunking: NativeChunking): ChunkingObject {
  const { scheme, minPages, averagePages, maxPages } = chunking;
  if (scheme === 'fixed') return { scheme, pages: maxPages };
  return { scheme, minPages, averagePages, maxPages };
}

export function nativeChunking(chunking: ChunkingObject): NativeChunking {
  if (chunking.scheme === 'fixed') {
    const { scheme, pages } = chunking;
    return { scheme, minPages: pages, averagePages: pages, maxPages: pages };
  }
  // Member by member: an object from a repository may have more of them.
  const { scheme, minPages, averagePages, maxPages } = chunking;
  return { scheme, minPages, averagePages, maxPages };
}
