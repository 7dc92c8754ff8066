/**
 * Recovery of pending points: a writer that died between its pending point and the seal has stored everything, and any node may do the rest.
 *
 * It does what the writer would, through the same commit protocol, with the point's chunks and no source. The point is given up only if a
 * chunk of it is nowhere and the repository was quiet meanwhile. To recover the point of a writer that is alive is safe too, but makes a
 * second point of its run: so nobody does it unasked.
 */

import type { NativeRepository } from '../engine/binding.js';
import { isFirnError } from '../errors.js';
import { commitRun } from './commit.js';
import { newId } from './format/names.js';
import type { Repository } from './repository.js';

/** The packs, of those that are not condemned, that these maps need. ERR_CHUNK_MISSING, ERR_PACK_MISSING. */
export type FindPacks = (repository: NativeRepository, roots: string[]) => Promise<string[]>;

/** "left": others were in the way, or what it needs is about to be collected; it may be tried again. */
export type Recovery = 'sealed' | 'discarded' | 'left';

/** Completes or discards a pending point; undefined if it is gone. */
export async function recoverPending(
  repository: Repository,
  id: string,
  findPacks: FindPacks,
  signal?: AbortSignal,
): Promise<Recovery | undefined> {
  if ((await repository.listIds('points')).includes(id)) {
    // Sealed: its writer had only this left to do.
    await repository.removePending(id);
    return 'sealed';
  }
  let point: Awaited<ReturnType<Repository['readPending']>>;
  try {
    point = await repository.readPending(id);
  } catch (error) {
    if (isFirnError(error) && error.code === 'ERR_POINT_NOT_FOUND') return undefined;
    throw error;
  }
  const roots = [...new Set(point.disks.map(({ root }) => root))];
  try {
    await commitRun(
      repository,
      {
        store: async (native) => ({ packs: [], reliedPacks: await findPacks(native, roots) }),
        point: () => ({ ...point, id: newId() }),
      },
      signal,
    );
  } catch (error) {
    if (!isFirnError(error)) throw error;
    if (error.code === 'ERR_REPOSITORY_CHANGED') return 'left';
    if (error.code !== 'ERR_CHUNK_MISSING' && error.code !== 'ERR_PACK_MISSING') throw error;
    await repository.removePending(id);
    return 'discarded';
  }
  await repository.removePending(id);
  return 'sealed';
}
