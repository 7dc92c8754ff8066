/**
 * The release of one machine: thaw, merge, and look whether it is so. From the mark alone, whatever state a dead run has left.
 */

import { firnError } from '../../errors.js';
import type { Steps } from '../host.js';
import { thawGuest } from './freeze.js';
import { markedLayer, readGraph } from './graph.js';
import { overlayFiles } from './layer-files.js';
import { isLive, type Machine } from './machines.js';
import { LiveMerge } from './merge.js';
import { mergeOffline } from './offline.js';
import { agentSocket } from './qga.js';
import { withQmp } from './qmp.js';
import { marksIn, type RunRecord, readRecord, removeRecord, writeRecord } from './record.js';

/** How long a guest is given to answer that it goes on. A guard may be at it at the same time. */
const THAW_MS = 30_000;

/** Ends all that bears the mark at a machine. Rejects with what stands in its outcome; then it may be called again. */
export async function releaseMachine(
  machine: Machine,
  mark: string,
  mergeDeadlineMs: number,
  steps: Steps,
): Promise<void> {
  if (machine.problem !== undefined) throw machine.problem;
  const { ref, folder } = machine;
  const record = await readRecord(folder, mark);
  if (!(await bearsMark(machine, mark, record))) return;

  // A guest that cannot be thawed must not keep its disks from being merged: the failure is told at the end.
  let thawFailure: unknown;
  if (record?.freeze === 'begun' && isLive(machine)) {
    const deadlineMs = Math.min(THAW_MS, mergeDeadlineMs);
    await steps
      .run(ref, 'thaw', { deadlineMs }, () => thaw(machine, mark, record, deadlineMs))
      .catch((failure: unknown) => {
        thawFailure = failure;
      });
  }
  await steps.run(ref, 'merge', { deadlineMs: mergeDeadlineMs }, (signal) =>
    isLive(machine)
      ? new LiveMerge(machine, mark, record).run(signal)
      : mergeOffline(machine, mark, record, signal),
  );
  if (thawFailure !== undefined) throw thawFailure;
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
  throw firnError('ERR_MERGE_FAILED', `${machine.ref.name}: a layer of ${mark} is still there`);
}

/** Whether no layer of the mark is in any chain, and no file of one beside the disks. */
async function isClean(
  machine: Machine,
  mark: string,
  record: RunRecord | undefined,
): Promise<boolean> {
  const disks = isLive(machine) ? await withQmp(machine.folder, readGraph) : [];
  if (disks.some((disk) => markedLayer(disk, mark) >= 0)) return false;
  return (await overlayFiles(machine.folder, mark, disks, record)).length === 0;
}
