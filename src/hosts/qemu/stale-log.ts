/**
 * Disks that QEMU runs on with what an earlier QEMU left in their log when it died: such a VHDX is not to be merged into, nor to get a layer.
 *
 * QEMU refuses to change the tables of such a file, but only once for each block: then it takes it as done, and a merge that is begun
 * again ends well with nothing in the file. While QEMU changes the tables of a disk in order, an id stands in its headers too, for a moment,
 * and each change has its own.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { firnError, fromFileSystem } from '../../errors.js';
import type { VmRef } from '../host.js';
import type { GraphLayer } from './graph.js';
import { replayId } from './vhdx-log.js';

/** No change of a table takes that long, however slow the storage. */
const SAME_ID_MS = 30_000;
const POLL_MS = 100;

/** The id of the log of a layer that asks for a replay. For a disk that nobody writes to: below a layer, without a merge. */
export async function staleLog({ file, format }: GraphLayer): Promise<string | undefined> {
  if (format !== 'vhdx') return undefined;
  try {
    return await replayId(file);
  } catch (error) {
    // Somebody has removed it under QEMU: what can be done with it still, QEMU says.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
}

/** Rejects with ERR_CHECKPOINT_FAILED if the layer, which a machine writes to, has a log that was left: a checkpoint could not be merged. */
export async function refuseStaleLog(vm: VmRef, layer: GraphLayer): Promise<void> {
  const id = await staleLog(layer);
  if (id === undefined) return;
  for (let waitedMs = 0; waitedMs < SAME_ID_MS; waitedMs += POLL_MS) {
    await sleep(POLL_MS);
    if ((await staleLog(layer)) !== id) return;
  }
  throw firnError(
    'ERR_CHECKPOINT_FAILED',
    `${vm.name}: QEMU died while it changed the tables of ${layer.file}, and does not write to them any more`,
    {
      path: layer.file,
      retryable: false,
      hint: `The machine's writes are in danger. Shut it down, write the disk to a new one with "qemu-img convert -f vhdx -O vhdx ${layer.file} NEW.vhdx", and put that in its place.`,
    },
  );
}
