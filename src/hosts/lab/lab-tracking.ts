/**
 * How a lab tells what changed: the layers above a checkpoint that a run has kept hold all that was written since.
 *
 * What is claimed rests on two records: the reference, which stands in the sealed point and names the identity of each disk's frozen top
 * layer, and vm.json, which says that this identity became the present one by merges that the machine itself did. The third, whether the
 * files agree, is looked at by whoever reads them (engine.layerChanges). Where the records part, the disk is read.
 */

import { basename, join } from 'node:path';
import { z } from 'zod';
import type { FrozenDisk } from '../host.js';
import {
  type KeptReference,
  ownerOfReference,
  type Reference,
  type TrackingRequest,
} from '../tracking.js';
import type { CheckpointResult } from './machine.js';
import type { VmCheckpoint, VmFile } from './vm-file.js';
import { occupiedBytes } from './vm-status.js';

export const TRACKING_METHOD = 'retained checkpoint';

const diskSchema = z.object({ linkage: z.string().min(1) });

type Answer = Pick<FrozenDisk, 'changes' | 'fullReason'>;

/** What changed on each disk of a capture, or why that cannot be said. `vm` is the machine with the capture's checkpoint on it. */
export function findChanges(
  vm: VmFile,
  { disks }: CheckpointResult,
  { since, mode }: TrackingRequest,
): { since?: string; changes: Map<string, Answer> } {
  const found = since
    .map((reference) => ({ reference, checkpoint: keptCheckpoint(vm, reference.name) }))
    .find(({ checkpoint }) => checkpoint !== undefined);
  if (found?.checkpoint === undefined) {
    const fullReason = noReference(since.length, mode);
    return { changes: new Map(disks.map(({ name }) => [name, { fullReason }])) };
  }
  const { reference, checkpoint } = found;
  return {
    since: reference.name,
    changes: new Map(disks.map((disk) => [disk.name, changesOf(disk, reference, checkpoint)])),
  };
}

/** What this capture is known by later. */
export function referenceOf(name: string, { disks }: CheckpointResult): Reference {
  return {
    name,
    method: TRACKING_METHOD,
    disks: Object.fromEntries(disks.map((disk) => [disk.name, { linkage: disk.linkage }])),
  };
}

export function keptReferences(folder: string, vm: VmFile): KeptReference[] {
  return vm.checkpoints
    .filter(({ kind }) => kind === 'reference')
    .map(({ name, created, layers }) => ({
      name,
      vm: { id: vm.id, name: vm.name },
      method: TRACKING_METHOD,
      made: created,
      bytes: Object.values(layers).reduce(
        (sum, layer) => sum + occupiedBytes(join(folder, layer)),
        0,
      ),
    }));
}

function keptCheckpoint(vm: VmFile, name: string): VmCheckpoint | undefined {
  if (ownerOfReference(name) === undefined) return undefined;
  return vm.checkpoints.find(
    (checkpoint) => checkpoint.kind === 'reference' && checkpoint.name === name,
  );
}

function noReference(given: number, mode: TrackingRequest['mode']): string {
  if (given > 0) return 'what was kept at the last points of this machine is gone';
  return mode === 'checkpoint'
    ? 'no earlier point of this machine has a reference'
    : 'a lab can tell only from a checkpoint that is kept, and none was asked for';
}

function changesOf(
  { name, layers }: CheckpointResult['disks'][number],
  reference: Reference,
  checkpoint: VmCheckpoint,
): Answer {
  const recorded = diskSchema.safeParse(reference.disks[name]);
  const own = checkpoint.layers[name];
  const below = checkpoint.below?.[name];
  if (!recorded.success || own === undefined || below === undefined) {
    return { fullReason: 'the reference does not have this disk' };
  }
  if (recorded.data.linkage !== below.frozen) {
    return { fullReason: 'the reference is of another state of this disk' };
  }
  const at = layers.findIndex((layer) => basename(layer) === own);
  if (at < 0) return { fullReason: "the reference's layer is not in the disk's chain any more" };
  return { changes: { kind: 'layers', count: at + 1, baseLinkage: below.now } };
}
