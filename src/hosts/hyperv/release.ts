/**
 * The end of a capture at one machine: asks the host again and again until nothing of the mark is left, which is how both methods go.
 *
 * Each question is short and may be asked by anybody at any time, so a process that dies in between leaves nothing that the next one
 * could not go on with. The end of a checkpoint is asked for at the first question, and then only after a pause, as a second deletion
 * beside the first one makes matters worse.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { type FirnError, firnError } from '../../errors.js';
import type { Steps, VmRef } from '../host.js';
import type { Connection } from './connection.js';
import { type EndReply, endSchema } from './replies.js';
import type { HypervTuning } from './tuning.js';

/** For the step's deadline: this waiting ends by itself, and says more than that it took too long. */
const STEP_GRACE_MS = 30_000;

export interface ReleaseContext {
  connection: Connection;
  tuning: HypervTuning;
  operation: 'end-checkpoint' | 'end-set';
  mark: string;
  mergeDeadlineMs: number;
  steps: Steps;
}

/** Waits until the host says that nothing is left. ERR_MERGE_FAILED at the deadline, with what the host gave as reasons. */
export async function waitForEnd(
  vm: VmRef,
  context: ReleaseContext,
  signal: AbortSignal,
): Promise<void> {
  const { tuning, mergeDeadlineMs } = context;
  const end = performance.now() + mergeDeadlineMs;
  let nextEnd = 0;
  let refusal: string | undefined;
  for (;;) {
    const now = performance.now();
    const late = now >= end;
    const destroy = now >= nextEnd;
    if (destroy) nextEnd = now + tuning.endRetryMs;
    const reply = await askForEnd(vm, context, { destroy, explain: late }, signal);
    if (reply.state === 'done') return;
    refusal = reply.error ?? refusal;
    if (late) throw mergeError(vm, { ...reply, error: refusal }, mergeDeadlineMs);
    await sleep(Math.min(tuning.mergePollMs, Math.max(1, end - now)), undefined, { signal });
  }
}

/** Confirms in a step of its own that the host knows of nothing that bears the mark. */
export async function confirmEnd(vm: VmRef, context: ReleaseContext): Promise<void> {
  await context.steps.run(vm, 'confirm', { deadlineMs: STEP_GRACE_MS * 4 }, async (signal) => {
    const reply = await askForEnd(vm, context, { destroy: false, explain: true }, signal);
    if (reply.state !== 'done') throw mergeError(vm, reply, undefined);
  });
}

/** The deadline for the step in which waitForEnd is called. */
export function mergeStepDeadline(mergeDeadlineMs: number): number {
  return mergeDeadlineMs + STEP_GRACE_MS;
}

async function askForEnd(
  vm: VmRef,
  { connection, tuning, operation, mark }: ReleaseContext,
  how: { destroy: boolean; explain: boolean },
  signal: AbortSignal,
): Promise<EndReply> {
  const request = { mark, answerMs: tuning.answerMs, ...how };
  const answer = await connection.callFor(vm, operation, request, endSchema, { signal });
  if (answer.moved && answer.result.state === 'done') {
    await connection.call('drop-claim', { vm: vm.id, mark }, z.unknown(), { signal });
  }
  return answer.result;
}

function mergeError(
  vm: VmRef,
  { reason, error, events }: EndReply,
  deadlineMs: number | undefined,
): FirnError {
  const when = deadlineMs === undefined ? '' : ` after ${deadlineMs} ms`;
  const parts = [`${vm.name} is not as it was${when}: ${reason ?? 'the host does not say why'}`];
  if (error !== undefined) parts.push(error);
  if (events[0] !== undefined) parts.push(`Event 19100: ${events[0]}`);
  return firnError('ERR_MERGE_FAILED', parts.join('. '));
}
