/**
 * The release of one machine: thaw, keep the reference, merge, and look whether it is so. From the mark and the reference's name alone,
 * whatever state a dead run has left.
 */

import { firnError } from '../../errors.js';
import type { Steps } from '../host.js';
import type { Reference } from '../tracking.js';
import { keepBitmaps, readBitmaps, removeBitmaps, succeededBitmaps } from './bitmaps.js';
import { thawGuest } from './freeze.js';
import { markedLayer, readGraph } from './graph.js';
import { overlayFiles } from './layer-files.js';
import { isLive, type Machine } from './machines.js';
import { LiveMerge } from './merge.js';
import { closeExports, markedExports } from './nbd.js';
import { mergeOffline } from './offline.js';
import { agentSocket } from './qga.js';
import { type QmpClient, withQmp } from './qmp.js';
import { marksIn, type RunRecord, readRecord, removeRecord, writeRecord } from './record.js';

/** How long a guest is given to answer that it goes on. A guard may be at it at the same time. */
const THAW_MS = 30_000;
const KEEP_MS = 30_000;

/** What is released: the run's mark, and the reference to keep, if its point is sealed. */
export interface Released {
  mark: string;
  advance: Reference | undefined;
}

/** Ends all that bears the mark at a machine. Rejects with what stands in its outcome; then it may be called again. */
export async function releaseMachine(
  machine: Machine,
  { mark, advance }: Released,
  mergeDeadlineMs: number,
  steps: Steps,
): Promise<void> {
  if (machine.problem !== undefined) throw machine.problem;
  const { ref, folder } = machine;
  const record = await readRecord(folder, mark);
  const isMarked = await bearsMark(machine, mark, record);
  const advances =
    advance !== undefined && isLive(machine) && (await mayAdvance(machine, mark, advance));
  if (!isMarked && !advances) return;

  // A guest that cannot be thawed must not keep its disks from being merged, nor a reference that cannot be kept: it is told at the end.
  const failures: unknown[] = [];
  if (record?.freeze === 'begun' && isLive(machine)) {
    const deadlineMs = Math.min(THAW_MS, mergeDeadlineMs);
    await steps
      .run(ref, 'thaw', { deadlineMs }, () => thaw(machine, mark, record, deadlineMs))
      .catch((failure: unknown) => failures.push(failure));
  }
  if (advances) {
    await steps
      .run(ref, 'keep', { deadlineMs: KEEP_MS }, () => keepReference(machine, mark, advance))
      .catch((failure: unknown) => failures.push(failure));
  }
  if (isMarked) {
    await steps.run(ref, 'merge', { deadlineMs: mergeDeadlineMs }, (signal) =>
      isLive(machine)
        ? mergeLive(machine, { mark, advance }, record, signal)
        : mergeOffline(machine, mark, record, signal),
    );
  }
  if (failures.length > 0) throw failures[0];
  await steps.run(ref, 'confirm', { deadlineMs: mergeDeadlineMs }, async () => {
    await confirmClean(machine, mark, record);
    await removeRecord(folder, mark);
  });
}

async function bearsMark(
  machine: Machine,
  mark: string,
  record: RunRecord | undefined,
): Promise<boolean> {
  if (record !== undefined || (await marksIn(machine.folder)).includes(mark)) return true;
  return !(await isClean(machine, mark, record));
}

/** Whether there is a bitmap to keep, or one that the reference succeeds. */
async function mayAdvance(
  { folder }: Machine,
  mark: string,
  { name }: Reference,
): Promise<boolean> {
  const bitmaps = await withQmp(folder, readBitmaps);
  return (
    bitmaps.some((bitmap) => bitmap.name === mark) || succeededBitmaps(bitmaps, name).length > 0
  );
}

/** The new bitmaps first; the older ones go when those are there under their name. */
async function keepReference(
  { folder }: Machine,
  mark: string,
  { name }: Reference,
): Promise<void> {
  await withQmp(folder, async (qmp) => {
    await closeExports(qmp, folder, mark);
    await keepBitmaps(qmp, mark, name);
    await removeBitmaps(qmp, succeededBitmaps(await readBitmaps(qmp), name));
  });
}

/** Merges. A bitmap that still bears the mark goes after that, unless a failed step should have kept it. */
async function mergeLive(
  machine: Machine,
  { mark, advance }: Released,
  record: RunRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { folder } = machine;
  await withQmp(folder, (qmp) => closeExports(qmp, folder, mark));
  await new LiveMerge(machine, mark, record).run(signal);
  if (advance !== undefined) return;
  await withQmp(folder, async (qmp) => {
    const bitmaps = await readBitmaps(qmp);
    await removeBitmaps(
      qmp,
      bitmaps.filter(({ name }) => name === mark),
    );
  });
}

async function thaw(
  { folder }: Machine,
  mark: string,
  record: RunRecord,
  timeoutMs: number,
): Promise<void> {
  await thawGuest(agentSocket(folder), timeoutMs);
  record.freeze = 'ended';
  await writeRecord(folder, mark, record);
}

async function confirmClean(
  machine: Machine,
  mark: string,
  record: RunRecord | undefined,
): Promise<void> {
  if (await isClean(machine, mark, record)) return;
  throw firnError('ERR_MERGE_FAILED', `${machine.ref.name}: something of ${mark} is still there`);
}

/** Whether no layer of the mark is in any chain, no file of one beside the disks, and no bitmap or export of it in QEMU. */
async function isClean(
  machine: Machine,
  mark: string,
  record: RunRecord | undefined,
): Promise<boolean> {
  const disks = isLive(machine) ? await withQmp(machine.folder, readGraph) : [];
  if (disks.some((disk) => markedLayer(disk, mark) >= 0)) return false;
  if (isLive(machine) && !(await withQmp(machine.folder, (qmp) => isUntracked(qmp, mark)))) {
    return false;
  }
  return (await overlayFiles(machine.folder, mark, disks, record)).length === 0;
}

async function isUntracked(qmp: QmpClient, mark: string): Promise<boolean> {
  const bitmaps = await readBitmaps(qmp);
  return (
    bitmaps.every(({ name }) => name !== mark) && (await markedExports(qmp, mark)).length === 0
  );
}
