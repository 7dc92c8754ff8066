/**
 * Change tracking on Windows Server 2016 and later: reference points and resilient change tracking (RCT).
 *
 * A capture's recovery checkpoint is the reference in the making: nothing else is needed until the point is sealed. Then the checkpoint is
 * converted into a reference point, which ends it and leaves each disk a tracking id; GetVirtualDiskChanges tells what was written since
 * that id was given out. The reference point's own id is known only after the conversion, so the sealed point has a name, and the host
 * keeps what the name stands for (scripts/tracking.ps1).
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { firnError } from '../../errors.js';
import { ChangedRanges } from '../changed-ranges.js';
import type { FrozenDisk, Vm, VmRef } from '../host.js';
import {
  isSucceededBy,
  type KeptReference,
  ownerOfReference,
  type Reference,
  type TrackingRequest,
} from '../tracking.js';
import type { Connection } from './connection.js';
import { asFirnError } from './policy.js';
import { explainRct } from './rct-codes.js';
import {
  changesSchema,
  droppedSchema,
  keptSchema,
  type ReferenceReply,
  referenceSchema,
  referencesSchema,
} from './replies.js';
import type { HypervTuning } from './tuning.js';

export const TRACKING_METHOD = 'RCT';
/** From here on Hyper-V tracks the disks of a machine itself; those of older ones are tracked nowhere. */
export const VERSION_MIN = 8;

const MIB = 1024 * 1024;
/** More answers than this for one disk are a defect, not a disk. */
const CALLS_MAX = 10_000;

const diskSchema = z.object({ path: z.string().min(1), sizeBytes: z.number() });

type Answer = Pick<FrozenDisk, 'changes' | 'fullReason'>;

export interface Tracked {
  since?: string;
  disks: FrozenDisk[];
  reference?: Reference;
}

export class ReferencePoints {
  readonly #connection: Connection;
  readonly #tuning: HypervTuning;

  constructor(connection: Connection, tuning: HypervTuning) {
    this.#connection = connection;
    this.#tuning = tuning;
  }

  /** What changed on the frozen disks, and what the capture is known by later. Rejects when the host cannot be asked at all. */
  async track(
    vm: Vm,
    disks: readonly FrozenDisk[],
    { name, since }: TrackingRequest,
    signal: AbortSignal,
  ): Promise<Tracked> {
    const names = since.map((reference) => reference.name).filter(ownerOfReference);
    const { result: found } = await this.#connection.callFor(
      vm,
      'find-reference',
      { names },
      referenceSchema,
      { signal },
    );
    const refusal = whyUntracked(found.version);
    if (refusal !== undefined)
      return { disks: disks.map((disk) => ({ ...disk, fullReason: refusal })) };
    const sizes = new Map(vm.disks.map((disk) => [disk.name, disk.sizeBytes]));
    const last = since.find((reference) => reference.name === found.name);
    const answered: FrozenDisk[] = [];
    for (const disk of disks) {
      answered.push({ ...disk, ...(await this.#ask(vm, disk, { last, found, since }, signal)) });
    }
    return {
      ...(last !== undefined && { since: last.name }),
      disks: answered,
      ...(disks.some(isTrackable) && {
        reference: {
          name,
          method: TRACKING_METHOD,
          disks: Object.fromEntries(
            disks
              .filter(isTrackable)
              .map((disk) => [
                disk.name,
                { path: disk.layers[0], sizeBytes: sizes.get(disk.name) },
              ]),
          ),
        },
      }),
    };
  }

  /** Makes the mark's checkpoint the reference point `name`. False if there is neither: somebody has ended it. */
  async keep(vm: VmRef, mark: string, name: string, signal: AbortSignal): Promise<boolean> {
    const { checkpointMarginMs: jobMs, jobPollMs: pollMs, mergePollMs } = this.#tuning;
    for (;;) {
      const { result } = await this.#connection.callFor(
        vm,
        'keep-reference',
        { mark, name, jobMs, pollMs },
        keptSchema,
        { signal, deadlineMs: 2 * jobMs },
      );
      if (result.state !== 'pending') return result.state === 'kept';
      await sleep(mergePollMs, undefined, { signal });
    }
  }

  /** Drops what `name` takes the place of, if it is kept itself. */
  async dropSucceeded(vm: VmRef, name: string, signal?: AbortSignal): Promise<void> {
    const own = await this.#listAt(vm, signal);
    if (!own.some((item) => item.name === name && item.stands)) return;
    for (const older of own) {
      if (isSucceededBy(older.name, name)) await this.drop(vm, older.name, signal);
    }
  }

  /** True if there was one. */
  async drop(vm: VmRef, name: string, signal?: AbortSignal): Promise<boolean> {
    const { checkpointMarginMs: jobMs, jobPollMs: pollMs } = this.#tuning;
    const { result } = await this.#connection.callFor(
      vm,
      'drop-reference',
      { name, jobMs, pollMs },
      droppedSchema,
      { signal, deadlineMs: 2 * jobMs },
    );
    return result.found;
  }

  async list(): Promise<KeptReference[]> {
    const { result } = await this.#connection.call('references', {}, referencesSchema);
    return result.items
      .filter(({ stands }) => stands)
      .map(({ name, vm, made }) => ({
        name,
        vm,
        method: TRACKING_METHOD,
        ...(made !== undefined && { made }),
      }));
  }

  async #listAt(vm: VmRef, signal: AbortSignal | undefined) {
    try {
      const options = { signal };
      const answer = await this.#connection.callFor(
        vm,
        'references',
        {},
        referencesSchema,
        options,
      );
      return answer.result.items;
    } catch (failure) {
      // With the machine went all that was kept of it.
      if (asFirnError(failure).code === 'ERR_VM_NOT_FOUND') return [];
      throw failure;
    }
  }

  /** What changed on one disk; whatever goes wrong is a reason to read the whole of it. */
  async #ask(
    vm: Vm,
    disk: FrozenDisk,
    known: { last: Reference | undefined; found: ReferenceReply; since: readonly Reference[] },
    signal: AbortSignal,
  ): Promise<Answer> {
    const tracked = known.found.disks.find(({ name }) => name === disk.name);
    const fullReason = whyNot(disk, tracked, known);
    if (fullReason !== undefined || tracked === undefined) {
      return { fullReason: fullReason ?? 'the host does not track it' };
    }
    try {
      return { changes: { kind: 'ranges', ranges: await this.#ranges(vm, disk, tracked, signal) } };
    } catch (failure) {
      signal.throwIfAborted();
      return { fullReason: explainRct(asFirnError(failure).message) };
    }
  }

  async #ranges(
    vm: Vm,
    { layers }: FrozenDisk,
    { tracking, sizeBytes }: ReferenceReply['disks'][number],
    signal: AbortSignal,
  ) {
    const { checkpointMarginMs: jobMs, jobPollMs: pollMs } = this.#tuning;
    const ranges = new ChangedRanges();
    // The length must be less than the disk's size, says its page.
    const lengthMax = Math.max(MIB, Math.floor(sizeBytes / 2 / MIB) * MIB);
    let offset = 0;
    for (let calls = 0; offset < sizeBytes; calls++) {
      if (calls === CALLS_MAX) throw strange(`${CALLS_MAX} answers and no end`);
      const length = Math.min(lengthMax, sizeBytes - offset);
      const { result } = await this.#connection.callFor(
        vm,
        'get-changes',
        { path: layers[0], tracking, offset, length, jobMs, pollMs },
        changesSchema,
        { signal, deadlineMs: 2 * jobMs },
      );
      const { processed, offsets, lengths } = result;
      if (processed <= 0 || processed > length) throw strange(`${processed} of ${length} bytes`);
      if (offsets.length !== lengths.length) throw strange('lists of different lengths');
      const pairs = offsets.map((at, index) => [at, lengths[index] ?? 0] as const);
      for (const [at, bytes] of pairs.sort((a, b) => a[0] - b[0])) ranges.add(at, bytes);
      offset += processed;
    }
    return ranges.ranges();
  }
}

/** Why a machine cannot be tracked at all, by the version of its configuration. */
export function whyUntracked(version: string): string | undefined {
  const major = Number.parseInt(version, 10);
  return major >= VERSION_MIN
    ? undefined
    : `the machine's configuration has version ${version || 'unknown'}, and change tracking takes ${VERSION_MIN}.0`;
}

function isTrackable({ layers }: FrozenDisk): boolean {
  return /\.a?vhdx$/i.test(layers[0] ?? '');
}

function whyNot(
  disk: FrozenDisk,
  tracked: ReferenceReply['disks'][number] | undefined,
  { last, since }: { last: Reference | undefined; since: readonly Reference[] },
): string | undefined {
  if (!isTrackable(disk)) return 'change tracking takes VHDX, and it is VHD';
  if (last === undefined) {
    return since.length === 0
      ? 'no earlier point of this machine has a reference'
      : 'the reference points of the last points are gone from this host';
  }
  const recorded = diskSchema.safeParse(last.disks[disk.name]);
  if (!recorded.success) return 'the reference does not have this disk';
  if (recorded.data.path.toLowerCase() !== disk.layers[0]?.toLowerCase()) {
    return 'it lay in another file then: a checkpoint was made or applied since, or it was moved';
  }
  if (tracked === undefined) return 'the reference point has no tracking id for it';
  if (recorded.data.sizeBytes !== tracked.sizeBytes) {
    return `it had ${recorded.data.sizeBytes} bytes then, and has ${tracked.sizeBytes} now`;
  }
  return undefined;
}

function strange(what: string) {
  return firnError('ERR_HOST_FAILED', `the host's answer is not as expected: ${what}`);
}
