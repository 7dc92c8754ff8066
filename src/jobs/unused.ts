/**
 * Unused blocks: what a backup leaves out of a disk because none of the guest's file systems uses it, and how a point says so.
 *
 * The engine decides, block by block, and copies whatever is unclear (native/used/used.h). Here is what it may believe: of a machine that
 * ran only the word of a guest that froze its file systems for this capture; of all others that of file systems which were unmounted
 * cleanly. A point keeps these options, because whoever compares it with its disks later has to look at them in the same way.
 */

import type { NativeUnused, NativeUnusedOptions } from '../engine/binding.js';
import { loadEngine, runSession, throwIfAborted } from '../engine/engine.js';
import {
  type OpenDiskOptions,
  resolveOpenDisk,
  resolveTuning,
  resolveUnused,
  type TuningOptions,
  type UnusedOptions,
} from '../engine/options.js';
import { firnError } from '../errors.js';
import type { PointPartition, PointUnused } from '../repository/format/objects.js';
import type { JobOptions } from './run.js';

/** So many partitions are kept in a point, of all its disks together: a hostile guest can make thousands. */
const PARTITIONS_MAX = 4096;
const PARTITIONS_OF_DISK_MAX = 128;

/** What a point of so many disks says of one of them. */
export function recordUnused(
  options: NativeUnusedOptions,
  found: NativeUnused,
  disks: number,
): PointUnused {
  const { rules, skippedBytes, partitions } = found;
  const most = Math.min(PARTITIONS_OF_DISK_MAX, Math.max(1, Math.floor(PARTITIONS_MAX / disks)));
  return {
    ...options,
    rules,
    skippedBytes,
    ...reasonOf(found),
    partitions: partitions.slice(0, most).map(recordPartition),
  };
}

function recordPartition(partition: NativeUnused['partitions'][0]): PointPartition {
  const { offset, sizeBytes, type, fileSystem, usedBytes, skippedBytes, pageFileBytes } = partition;
  return {
    offset,
    sizeBytes,
    ...(type !== '' && { type }),
    ...(fileSystem !== '' && { fileSystem }),
    usedBytes,
    skippedBytes,
    ...(pageFileBytes > 0 && { pageFileBytes }),
    ...reasonOf(partition),
  };
}

function reasonOf({ reasonCode, reason }: { reasonCode?: string; reason?: string }) {
  return {
    ...(reasonCode !== undefined && { reasonCode }),
    ...(reason !== undefined && { reason }),
  };
}

/** The options that a point's disk was made with. */
export function recordedOptions(unused: PointUnused): NativeUnusedOptions {
  const { quiesced, keepShadowCopies, skipPageFiles } = unused;
  return { quiesced, keepShadowCopies, skipPageFiles };
}

/**
 * Says what a backup of a disk image would leave out and why it would not: of an image that nobody writes to, as `backup` with 'skip' sees
 * it. Several disks of one machine may differ from each alone, as a hibernated system keeps all of them whole.
 */
export async function findUnused(
  file: string,
  options: OpenDiskOptions &
    Omit<UnusedOptions, 'unused'> &
    Pick<JobOptions, 'signal'> & { tuning?: TuningOptions | undefined } = {},
): Promise<PointUnused> {
  const unused = resolveUnused({ ...options, unused: 'skip' }, false);
  if (unused === undefined) throw firnError('ERR_INTERNAL', 'A search for nothing');
  throwIfAborted(options.signal);
  const { disks } = await runSession(
    loadEngine().startFindUnused({
      tuning: resolveTuning(options.tuning),
      disks: [{ path: file, open: resolveOpenDisk(options), unused }],
    }),
    { signal: options.signal },
  );
  return recordUnused(unused, disks[0] as NativeUnused, 1);
}
