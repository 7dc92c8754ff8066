/**
 * The stand-in's change tracking: reference points, and for each tracking id what was written to its disk since. A guest here writes into
 * layers alone, so what a merge brings down is what was written: it is read from the layer's file as it is merged.
 */

import { randomUUID } from 'node:crypto';
import { DISK_BYTES, type StandinDisk, topOf } from './layers.js';
import type { Machine } from './machines.js';

type Values = Record<string, unknown>;

export interface ReferencePoint {
  id: string;
  /** Of each disk the tracking id. */
  trackings: Map<StandinDisk, string>;
}

/** As much of a disk as one answer covers. */
const ANSWER_BYTES_MAX = 3 * 1024 * 1024;
const CONTROLLER = '83F8638B-8DCA-4152-9EDA-2CA8B33039B4';
const ID_UNKNOWN = 'Die Änderungsnachverfolgungs-ID ist ungültig (0xC03A0029).';

/** From now on all that is merged into the machine's disks is counted under new ids. */
export function makePoint(machine: Machine): ReferencePoint {
  const trackings = new Map<StandinDisk, string>();
  for (const disk of machine.disks) {
    const tracking = `rctX:${randomUUID()}:${disk.trackings.size}`;
    trackings.set(disk, tracking);
    disk.trackings.set(tracking, []);
  }
  const point = { id: randomUUID(), trackings };
  machine.points.push(point);
  return point;
}

export function endPoint(machine: Machine, point: ReferencePoint): void {
  machine.points = machine.points.filter((other) => other !== point);
  for (const [disk, tracking] of point.trackings) disk.trackings.delete(tracking);
}

export function pointOf(machine: Machine, { id, trackings }: ReferencePoint): Values {
  return {
    StandinReference: `point:${id}`,
    InstanceID: `Microsoft:${id.toUpperCase()}`,
    ReferencePointType: 2,
    ConsistencyLevel: 1,
    VirtualSystemIdentifier: machine.id.toUpperCase(),
    HasAssociatedData: false,
    VirtualDiskIdentifiers: [...trackings.keys()].map((disk) => storageId(machine, disk)),
    // A disk that is not tracked has none, and then the lists do not go together.
    ResilientChangeTrackingIdentifiers: [...trackings.values()].filter((id) => id !== ''),
  };
}

/** Msvm_StorageAllocationSettingData of a machine's disks. */
export function storagesOf(machine: Machine): Values[] {
  return machine.disks.map((disk) => ({
    InstanceID: storageId(machine, disk),
    ResourceType: 31,
    ResourceSubType: 'Microsoft:Hyper-V:Virtual Hard Disk',
    HostResource: [topOf(disk).path],
  }));
}

/** GetVirtualDiskChanges: its answer, or what its job fails with. */
export function changesOf(
  disks: readonly StandinDisk[],
  { Path, LimitId, ByteOffset, ByteLength }: Values,
): Values | string {
  const disk = disks.find(({ chain }) => chain.some((layer) => layer.path === Path));
  if (disk === undefined) return { ReturnValue: 32779 };
  const [offset, length] = [Number(ByteOffset), Number(ByteLength)];
  const isRegion = length > 0 && offset >= 0 && offset + length <= DISK_BYTES;
  if (!isRegion || length >= DISK_BYTES) return { ReturnValue: 32773 };
  const written = disk.trackings.get(String(LimitId));
  if (written === undefined) return ID_UNKNOWN;
  const processed = Math.min(length, ANSWER_BYTES_MAX);
  const ranges = written
    .map(([from, bytes]) => {
      const begin = Math.max(from, offset);
      return [begin, Math.min(from + bytes, offset + processed) - begin] as const;
    })
    .filter(([, bytes]) => bytes > 0);
  return {
    ReturnValue: 0,
    ProcessedByteLength: processed,
    ChangedByteOffsets: ranges.map(([from]) => from),
    ChangedByteLengths: ranges.map(([, bytes]) => bytes),
  };
}

function storageId(machine: Machine, disk: StandinDisk): string {
  const place = disk.name.split('-').slice(1).join('\\');
  return `Microsoft:${machine.id.toUpperCase()}\\${CONTROLLER}\\${place}\\L`;
}
