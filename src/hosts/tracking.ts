/**
 * Change tracking, as a run and a host speak of it: which bytes of a disk may differ from an earlier point.
 *
 * A reference is what a host keeps of a capture so that it can say later what was written since: a retained checkpoint, a dirty bitmap, a
 * tracking epoch. Its data stands in the sealed point, and what it names stands at the host. Contract:
 *
 * - A host claims changes only if it can prove that they hold every byte that differs from the point whose reference was given. Any doubt
 *   (another disk, a chain that was altered, a reference that is gone, a machine that was restored) is a `fullReason`: then the disk is
 *   read, which is always right.
 * - Until `release` is told that the point is sealed, the new reference is the run's: it goes with all that bears the run's mark, and the
 *   older one stays as good as it was. Told so, the host keeps the new one under its name and only then drops the older ones of the
 *   same owner. Both are idempotent and need nothing but the mark and the name.
 * - A kept reference bears its own name and no run's mark, so no reconciler takes it for something that a dead run left. The name says
 *   whose it is, so that repositories do not drop each other's.
 */

import type { VmRef } from './host.js';

/**
 * `none`: disks are read. `auto`: what costs the guest nothing (a tracking epoch, a dirty bitmap), where the host has it. `checkpoint`: where
 * there is nothing of that kind, also a checkpoint that stays from run to run, whose layer holds what was written since.
 */
export const TRACKING_MODES = ['none', 'auto', 'checkpoint'] as const;
export type TrackingMode = (typeof TRACKING_MODES)[number];

/** What a host gave at a capture, to be given back at a later one. Plain data: it stands in the point, and comes back from there unchecked. */
export interface Reference {
  /** By which the host finds what it keeps, without a journal. */
  name: string;
  /** How it tracks: "checkpoint", "rct", "dirty bitmap". */
  method: string;
  /** What the host needs to prove its claim, by VmDisk.name. Only the host looks at it. */
  disks: Readonly<Record<string, unknown>>;
}

export interface TrackingRequest {
  mode: Exclude<TrackingMode, 'none'>;
  /** The name of the reference that this capture may make. */
  name: string;
  /** Those of sealed points of the machine in the run's repository, the newest point's first; the host takes the first that it still has. */
  since: readonly Reference[];
}

/** What may differ, of one disk. More than the truth is only slower. */
export type DiskChanges =
  | {
      kind: 'ranges';
      /** Bytes of the virtual disk; in any order, they may overlap. */
      ranges: readonly (readonly [offset: number, length: number])[];
    }
  | {
      /** The first `count` of FrozenDisk.layers hold all that was written since. Whoever can read the files makes ranges of them. */
      kind: 'layers';
      count: number;
      /** The identity that the layer below them must have now (DataWriteGuid of a VHDX). */
      baseLinkage: string;
    };

/** A reference that stands at a host. */
export interface KeptReference {
  name: string;
  vm: VmRef;
  method: string;
  /** ISO time. */
  made?: string;
  /** What it takes of the host's volumes now. */
  bytes?: number;
}

/** What a host that tracks changes has besides. */
export interface HostTracking {
  /** All references that Firn keeps at this host's machines, by whatever repository. */
  references(): Promise<KeptReference[]>;
  /** Drops one and waits for the merge where that is one. ERR_NOT_FOUND; ERR_VM_BUSY while a run reads below it. */
  drop(vm: VmRef, name: string, deadlineMs: number): Promise<void>;
}

const NAME = /^firn-ref-([0-9a-f]{16})-([0-9a-f]{32})$/;

/** The name of the reference that a run into a repository makes; both ids have 32 hexadecimal digits. No run's mark is in it. */
export function referenceName(repositoryId: string, run: string): string {
  return `firn-ref-${repositoryId.slice(0, 16)}-${run}`;
}

/** Whose reference it is, by its name: the same text for all of one repository. Undefined if that is no name of a reference. */
export function ownerOfReference(name: string): string | undefined {
  return NAME.exec(name)?.[1];
}

/** True for another reference of the same repository: what goes when `name` is kept. */
export function isSucceededBy(older: string, name: string): boolean {
  const owner = ownerOfReference(older);
  return older !== name && owner !== undefined && owner === ownerOfReference(name);
}
