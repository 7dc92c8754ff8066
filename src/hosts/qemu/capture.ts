/**
 * The capture of one machine: freeze, one transaction that puts a layer on each disk, thaw.
 *
 * All that can be prepared is prepared before the freeze: the connection, the record, the configuration, the names. While the guest stands
 * frozen there is one command to QEMU, and the steps' entries. The consistency is decided after the thaw: only a guest that still stood
 * frozen then kept its promise for the whole of the checkpoint. What changed since an earlier point is asked after the thaw too.
 */

import { rm, stat } from 'node:fs/promises';
import { z } from 'zod';
import { type Consistency, meetsConsistency } from '../../consistency.js';
import { type FirnError, firnError } from '../../errors.js';
import type { Capture, CaptureRequest, Steps } from '../host.js';
import type { TrackingRequest } from '../tracking.js';
import { addBitmap } from './bitmaps.js';
import { type Answer, findChanges, referenceOf, sameAnswer } from './changes.js';
import { describeConfiguration } from './configuration.js';
import { FrozenGuest, NotFrozen, type Thawed } from './freeze.js';
import { type GraphDisk, type GraphLayer, readGraph } from './graph.js';
import type { Machine } from './machines.js';
import { nodeName, overlayMark, overlayPaths } from './overlay.js';
import { agentSocket } from './qga.js';
import { hostFailure, type QmpClient, QmpRefusal, withQmp } from './qmp.js';
import { FILE_SYSTEMS_ONLY, whyNoFreeze } from './reach.js';
import {
  configurationPath,
  newRecord,
  type RunRecord,
  writeDurably,
  writeRecord,
} from './record.js';
import { refuseStaleLog } from './stale-log.js';

export const METHOD = 'blockdev-snapshot';
/** Nobody waits for it but the run, and without an answer the disks are read as a whole. */
const CHANGES_DEADLINE_MS = 300_000;

/** What stays the same through one machine's capture. */
interface Task {
  machine: Machine;
  request: CaptureRequest;
  mark: string;
  steps: Steps;
  qmp: QmpClient;
  disks: readonly ChosenDisk[];
  record: RunRecord;
  configuration: string;
  /** Stands frozen. Kept here and not in a step's result, which is lost when the step's end cannot be journaled. */
  guest: FrozenGuest | undefined;
}

interface ChosenDisk extends GraphDisk {
  active: GraphLayer;
  overlay: string;
}

/** Captures a running machine. Rejects with what stands in its outcome; `release` ends what may be left. */
export async function captureMachine(
  machine: Machine,
  request: CaptureRequest,
  mark: string,
  steps: Steps,
): Promise<Capture> {
  const { required } = request.policy;
  if (required === 'application') {
    throw firnError('ERR_CONSISTENCY', `${request.vm.name}: ${FILE_SYSTEMS_ONLY}`);
  }
  const { disks, capture } = await withQmp(machine.folder, async (qmp) => {
    const disks = await chooseDisks(qmp, request, mark);
    await Promise.all(disks.map(({ active }) => refuseStaleLog(request.vm, active)));
    const named = disks.map((disk) => ({
      name: disk.name,
      base: disk.active.file,
      overlay: disk.overlay,
    }));
    const task: Task = {
      machine,
      request,
      mark,
      steps,
      qmp,
      disks,
      record: newRecord(request.vm, named),
      configuration: configurationPath(machine.folder, request.vm.name, mark),
      guest: undefined,
    };
    try {
      return { disks, capture: await checkpointAndThaw(task, await freeze(task)) };
    } finally {
      // On whatever way: after this, the guard thaws at once if nobody has.
      task.guest?.letGo();
    }
  });
  return request.tracking === undefined
    ? capture
    : track(machine, { capture, disks, tracking: request.tracking }, mark, steps);
}

/** Adds to the capture what changed, and by what it is known later. */
async function track(
  machine: Machine,
  what: { capture: Capture; disks: readonly ChosenDisk[]; tracking: TrackingRequest },
  mark: string,
  steps: Steps,
): Promise<Capture> {
  const { capture, disks, tracking } = what;
  const { since, answers } = await askForChanges(machine, what, mark, steps);
  return {
    ...capture,
    disks: capture.disks.map((disk) => ({ ...disk, ...answers.get(disk.name) })),
    ...(since !== undefined && { since }),
    reference: referenceOf(tracking.name, disks),
  };
}

async function askForChanges(
  machine: Machine,
  { capture, disks, tracking }: Parameters<typeof track>[1],
  mark: string,
  steps: Steps,
): Promise<{ since?: string; answers: Map<string, Answer> }> {
  const deadline = { deadlineMs: CHANGES_DEADLINE_MS };
  try {
    return await steps.run(capture.vm, 'changes', deadline, (signal) =>
      findChanges(machine, mark, disks, tracking.since, signal),
    );
  } catch (failure) {
    const error = hostFailure(failure);
    if (error.code === 'ERR_ABORTED') throw error;
    return { answers: sameAnswer(disks, error.message) };
  }
}

async function chooseDisks(
  qmp: QmpClient,
  { vm, excludedDisks }: CaptureRequest,
  mark: string,
): Promise<ChosenDisk[]> {
  const graph = await readGraph(qmp);
  const disks = graph.filter(
    ({ name, unsupported }) => unsupported === undefined && !excludedDisks.includes(name),
  );
  if (disks.length === 0) {
    throw firnError('ERR_CHECKPOINT_FAILED', `${vm.name} has no disk that can be backed up`, {
      retryable: false,
      hint: 'Look at "firn vm list": it says why each disk is left out.',
    });
  }
  const paths = overlayPaths(
    disks.map(({ name, layers }) => ({ name, path: layers[0]?.file ?? '' })),
    mark,
  );
  return disks.map((disk, index) => {
    const [active] = disk.layers;
    const held = disk.layers.map((layer) => overlayMark(layer.file)).find(Boolean);
    if (held !== undefined || active === undefined) {
      throw firnError('ERR_VM_BUSY', `${vm.name}: the layer of ${held} lies on ${disk.name}`, {
        hint: 'Another backup is under way or has died: look at "firn runs list", then run "firn reconcile".',
      });
    }
    return { ...disk, active, overlay: paths[index] ?? '' };
  });
}

/** Writes down what is about to be there, before anything is. */
async function prepare(task: Task, freeze: RunRecord['freeze']): Promise<void> {
  const { machine, mark, record, qmp, request, disks, configuration } = task;
  record.freeze = freeze;
  await writeRecord(machine.folder, mark, record);
  await writeDurably(configuration, await describeConfiguration(qmp, request.vm, disks));
}

/** Freezes the guest if that is wanted and can be; why it is not frozen, undefined also where nobody wanted it. */
async function freeze(task: Task): Promise<string | undefined> {
  const { machine, request, steps, qmp } = task;
  const { policy, vm, freezeDeadlineMs } = request;
  if (policy.wanted === 'crash') return undefined;
  const reason = await whyNoFreeze(qmp, machine);
  if (reason !== undefined) {
    if (meetsConsistency('crash', policy.required)) return reason;
    throw firnError('ERR_CONSISTENCY', `${vm.name}: ${reason}`);
  }
  try {
    await steps.run(vm, 'freeze', { deadlineMs: freezeDeadlineMs }, async (signal) => {
      await prepare(task, 'begun');
      try {
        const socket = agentSocket(machine.folder);
        task.guest = await FrozenGuest.freeze(socket, freezeDeadlineMs, signal);
      } catch (failure) {
        if (!(failure instanceof NotFrozen)) throw failure;
        // From now on, a guest that stands frozen does so on somebody else's account.
        task.record.freeze = 'ended';
        await writeRecord(machine.folder, task.mark, task.record);
        throw firnError('ERR_FREEZE_FAILED', `${vm.name}: ${failure.message}`);
      }
    });
    return undefined;
  } catch (failure) {
    const error = hostFailure(failure);
    if (!isFreezeFailure(error) || !meetsConsistency('crash', policy.required)) throw error;
    return error.message;
  }
}

/** Whether it was the freeze that failed, and not the run that was given up or a disk that was full. */
function isFreezeFailure({ code }: FirnError): boolean {
  return code === 'ERR_FREEZE_FAILED' || code === 'ERR_DEADLINE' || code === 'ERR_HOST_UNREACHABLE';
}

async function checkpointAndThaw(task: Task, whyNot: string | undefined): Promise<Capture> {
  const { machine, request, mark, steps, record, guest } = task;
  const { vm, freezeDeadlineMs } = request;
  const deadline = { deadlineMs: freezeDeadlineMs };
  const frozenAt = await steps.run(vm, 'checkpoint', deadline, async (signal) => {
    if (record.freeze === 'none') await prepare(task, 'none');
    signal.throwIfAborted();
    return putLayers(task);
  });
  let thawed: Thawed | undefined;
  if (guest !== undefined) {
    thawed = await steps.run(vm, 'thaw', deadline, () => guest.thaw());
    record.freeze = 'ended';
  }
  for (const disk of record.disks) disk.stage = 'standing';
  await writeRecord(machine.folder, mark, record);
  const reached = reachedConsistency(guest, thawed, whyNot);
  if (!meetsConsistency(reached.consistency, request.policy.required)) {
    throw firnError('ERR_FREEZE_FAILED', `${vm.name}: ${reached.reason}`);
  }
  const isLess = !meetsConsistency(reached.consistency, request.policy.wanted);
  return {
    vm,
    consistency: reached.consistency,
    ...(isLess && { consistencyReason: reached.reason ?? 'no reason is known' }),
    method: METHOD,
    disks: task.disks.map(({ name, layers }) => ({ name, layers: layers.map(({ file }) => file) })),
    configuration: [task.configuration],
    frozenAt,
    ...(thawed !== undefined && { frozenMs: thawed.frozenMs }),
    ...(reached.consistency !== 'crash' && { guestFroze: true as const }),
  };
}

function reachedConsistency(
  guest: FrozenGuest | undefined,
  thawed: Thawed | undefined,
  whyNot: string | undefined,
): { consistency: Consistency; reason: string | undefined } {
  if (guest === undefined) return { consistency: 'crash', reason: whyNot };
  if (guest.fileSystems === 0) {
    return { consistency: 'crash', reason: 'the guest agent found no file system to freeze' };
  }
  if (thawed?.held !== true) return { consistency: 'crash', reason: thawed?.reason };
  return { consistency: 'filesystem', reason: FILE_SYSTEMS_ONLY };
}

/** The transaction: all disks at one moment. The time of it, ISO. */
async function putLayers(task: Task): Promise<string> {
  const { qmp, disks, mark, request } = task;
  for (const { overlay } of disks) await refuseExisting(overlay);
  const bitmaps =
    request.tracking === undefined ? [] : disks.map(({ active }) => addBitmap(active.node, mark));
  const layers = disks.map((disk, index) => ({
    type: 'blockdev-snapshot-sync',
    data: {
      'node-name': disk.active.node,
      'snapshot-file': disk.overlay,
      'snapshot-node-name': nodeName(mark, index),
      format: 'qcow2',
      mode: 'absolute-paths',
    },
  }));
  try {
    await qmp.execute('transaction', { actions: [...bitmaps, ...layers] });
    return new Date().toISOString();
  } catch (failure) {
    if (!(failure instanceof QmpRefusal)) throw failure;
    // All or nothing: it was undone, but for the files that it had made.
    for (const { overlay } of disks) await rm(overlay, { force: true });
    const busy = await qmp.queryIfKnown(z.array(z.unknown()), 'query-block-jobs');
    const code = (busy ?? []).length > 0 ? 'ERR_VM_BUSY' : 'ERR_CHECKPOINT_FAILED';
    throw firnError(code, `${request.vm.name}: ${failure.message}`, { cause: failure });
  }
}

/** QEMU would empty a file that is there. */
async function refuseExisting(overlay: string): Promise<void> {
  try {
    await stat(overlay);
  } catch {
    return;
  }
  throw firnError('ERR_CHECKPOINT_FAILED', `${overlay} exists already`, {
    path: overlay,
    hint: 'This run has left it before: run "firn reconcile".',
  });
}
