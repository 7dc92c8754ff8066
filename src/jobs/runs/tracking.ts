/**
 * What an earlier point lends a run: the points that a host may count from, and per disk the map to read on top of with what changed.
 *
 * A host's claim is taken only for the very disk that the point holds: of the same name and with the same id. All else, and whatever goes
 * wrong on the way, is a reason to read the disk as a whole, never a failure of the run.
 */

import { loadEngine } from '../../engine/engine.js';
import { resolveOpenDisk } from '../../engine/options.js';
import type { Capture, FrozenDisk, VmRef } from '../../hosts/host.js';
import { referenceName, type TrackingMode, type TrackingRequest } from '../../hosts/tracking.js';
import { ignoreDamage } from '../../repository/commit.js';
import { disksOf, type PointObject } from '../../repository/format/objects.js';
import type { Repository } from '../../repository/repository.js';
import type { BackedUpDisk, DiskBase, DiskSource } from '../backup.js';
import type { DiskReading } from './types.js';

/** A host has one reference for a repository, or two while one takes the other's place; more points than that are asked about in vain. */
const POINTS_ASKED = 16;

/** The points of each machine that have a reference, the newest first. */
export type ReferencePoints = ReadonlyMap<string, readonly PointObject[]>;

export async function referencePoints(
  repository: Repository,
  mode: TrackingMode,
): Promise<ReferencePoints> {
  const found = new Map<string, PointObject[]>();
  // A write-only key cannot read points: then each disk is read as a whole.
  if (mode === 'none' || !repository.canRead) return found;
  // A point that cannot be read is verify's to tell; here it is one less to count from.
  const points = await repository.points(ignoreDamage);
  for (const point of points.toReversed()) {
    if (point.vm.id === undefined || point.capture?.reference === undefined) continue;
    const ofVm = found.get(point.vm.id) ?? [];
    if (ofVm.length < POINTS_ASKED) found.set(point.vm.id, [...ofVm, point]);
  }
  return found;
}

export function trackingRequest(
  mode: TrackingMode,
  { repository, run }: { repository: Repository; run: string },
  points: readonly PointObject[],
): TrackingRequest | undefined {
  if (mode === 'none') return undefined;
  const since = points.flatMap(({ capture }) => capture?.reference ?? []);
  return { mode, name: referenceName(repository.id, run), since };
}

/** A disk to back up: on top of a point, or as a whole and why. */
export type PlannedDisk = DiskSource & { name: string; fullReason?: string };

/** Finds what a frozen disk can be read on top of. `source` is where this process reads it; `points` are those that the host was asked about. */
export async function planDisk(
  capture: Capture,
  disk: FrozenDisk,
  source: DiskSource,
  points: readonly PointObject[],
): Promise<PlannedDisk> {
  const named = { ...source, name: disk.name };
  try {
    const found = await findBase(capture, disk, source, points);
    return typeof found === 'string' ? { ...named, fullReason: found } : { ...named, base: found };
  } catch (failure) {
    return { ...named, fullReason: failure instanceof Error ? failure.message : String(failure) };
  }
}

async function findBase(
  { since }: Capture,
  { name, changes, fullReason }: FrozenDisk,
  source: DiskSource,
  points: readonly PointObject[],
): Promise<DiskBase | string> {
  if (fullReason !== undefined) return fullReason;
  if (changes === undefined) return 'the host does not say what changed';
  const point = points.find(({ capture }) => capture?.reference?.name === since);
  if (point === undefined) return 'the host counts from a point that it was not asked about';
  const based = disksOf(point).find((disk) => disk.name === name);
  if (based === undefined) return `point ${point.id} does not have this disk`;
  const { diskId, ranges } = await readChanges(source, changes);
  if (diskId.toLowerCase() !== based.identity.diskId.toLowerCase()) {
    return `in point ${point.id} this was another disk`;
  }
  const skipsUnused = based.unused !== undefined;
  return { point: point.id, root: based.root, skipsUnused, ranges };
}

async function readChanges(
  source: DiskSource,
  changes: NonNullable<FrozenDisk['changes']>,
): Promise<{ diskId: string; ranges: DiskBase['ranges'] }> {
  const engine = loadEngine();
  const open = resolveOpenDisk(source);
  if (changes.kind === 'layers') {
    const { count, baseLinkage } = changes;
    const { identity, ranges } = await engine.layerChanges(source.path, open, count, baseLinkage);
    return { diskId: identity.diskId, ranges };
  }
  const disk = await engine.openDisk(source.path, open);
  disk.close();
  return {
    diskId: disk.identity.diskId,
    ranges: changes.ranges.map(([offset, length]) => [offset, length]),
  };
}

/** How the disks are about to be read; `changedBytes` is what the ranges add up to. */
export function plannedReadings(disks: readonly PlannedDisk[]): DiskReading[] {
  return disks.map(({ name, base, fullReason }) => ({
    disk: name,
    ...(base !== undefined && {
      base: {
        point: base.point,
        changedBytes: base.ranges.reduce((sum, [, length]) => sum + length, 0),
      },
    }),
    ...(fullReason !== undefined && { fullReason }),
  }));
}

/** How they were read. */
export function readingsOf(
  planned: readonly PlannedDisk[],
  disks: readonly BackedUpDisk[],
): DiskReading[] {
  return planned.map(({ name, fullReason }) => {
    const disk = disks.find((candidate) => candidate.name === name);
    const reason = fullReason ?? disk?.baseRefused;
    return {
      disk: name,
      ...(disk?.base !== undefined && { base: disk.base }),
      ...(reason !== undefined && { fullReason: reason }),
    };
  });
}

/** The reference that a sealed point moves its machine on to. */
export function advanceOf(vm: VmRef, point: PointObject | undefined) {
  const reference = point?.capture?.reference;
  return reference === undefined ? vm : { ...vm, advance: reference };
}
