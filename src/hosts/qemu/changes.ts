/**
 * What changed on a machine's disks since a point: the reference's bitmaps, read once the disks stand frozen.
 *
 * A bitmap is trusted only on the disk that it was made on: the same file, of the same size, and only if QEMU says that it recorded all the
 * time. Anything else is a reason to read the disk as a whole.
 */

import { z } from 'zod';
import type { FrozenDisk } from '../host.js';
import { ownerOfReference, type Reference } from '../tracking.js';
import { type Bitmap, readBitmaps, TRACKING_METHOD } from './bitmaps.js';
import type { GraphDisk } from './graph.js';
import type { Machine } from './machines.js';
import { type BitmapPlace, readBitmapRanges } from './nbd.js';
import { withQmp } from './qmp.js';

const diskSchema = z.object({ file: z.string().min(1), sizeBytes: z.number() });

export type Answer = Pick<FrozenDisk, 'changes' | 'fullReason'>;

/** A disk whose first layer of before the capture stands frozen now. */
type Disk = Pick<GraphDisk, 'name' | 'sizeBytes'> & { active: { file: string; node: string } };

/** What these disks are known by later. */
export function referenceOf(name: string, disks: readonly Disk[]): Reference {
  return {
    name,
    method: TRACKING_METHOD,
    disks: Object.fromEntries(
      disks.map((disk) => [disk.name, { file: disk.active.file, sizeBytes: disk.sizeBytes }]),
    ),
  };
}

/** The same answer for every disk. */
export function sameAnswer(disks: readonly Disk[], fullReason: string): Map<string, Answer> {
  return new Map(disks.map(({ name }) => [name, { fullReason }]));
}

/** What changed on each disk since the first of the references that the machine still has. `since` comes from points, and is not trusted. */
export async function findChanges(
  machine: Machine,
  mark: string,
  disks: readonly Disk[],
  since: readonly Reference[],
  signal: AbortSignal,
): Promise<{ since?: string; answers: Map<string, Answer> }> {
  const bitmaps = await withQmp(machine.folder, readBitmaps);
  const reference = since.find(
    ({ name }) =>
      ownerOfReference(name) !== undefined && bitmaps.some((bitmap) => bitmap.name === name),
  );
  if (reference === undefined) {
    const reason =
      since.length === 0
        ? 'no earlier point of this machine has a reference'
        : 'the bitmaps of the last points are gone: they end with the QEMU process';
    return { answers: sameAnswer(disks, reason) };
  }
  const answers = new Map<string, Answer>();
  const places: BitmapPlace[] = [];
  for (const disk of disks) {
    const fullReason = whyNot(disk, reference, bitmaps);
    if (fullReason !== undefined) answers.set(disk.name, { fullReason });
    else places.push({ disk: disk.name, node: disk.active.node, sizeBytes: disk.sizeBytes });
  }
  const read = await readBitmapRanges(machine.folder, mark, reference.name, places, signal);
  for (const [disk, result] of read) {
    const answer: Answer =
      typeof result === 'string'
        ? { fullReason: result }
        : { changes: { kind: 'ranges', ranges: result } };
    answers.set(disk, answer);
  }
  return { since: reference.name, answers };
}

/** Why the reference's bitmap says nothing about a disk; undefined if it does. */
function whyNot(
  { name, sizeBytes, active }: Disk,
  reference: Reference,
  bitmaps: readonly Bitmap[],
): string | undefined {
  const recorded = diskSchema.safeParse(reference.disks[name]);
  if (!recorded.success) return 'the reference does not have this disk';
  if (recorded.data.file !== active.file) return 'the reference is of another file';
  if (recorded.data.sizeBytes !== sizeBytes) {
    return `it had ${recorded.data.sizeBytes} bytes then, and has ${sizeBytes} now`;
  }
  const bitmap = bitmaps.find((each) => each.node === active.node && each.name === reference.name);
  if (bitmap === undefined) return 'its bitmap is gone';
  if (bitmap.inconsistent) return 'QEMU calls its bitmap inconsistent';
  if (!bitmap.recording) return 'its bitmap was switched off';
  if (bitmap.busy) return 'another program holds its bitmap';
  return undefined;
}
