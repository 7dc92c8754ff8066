/**
 * Capturing on Windows Server 2016 and later: a recovery checkpoint for each machine.
 *
 * Freezing the guest is part of making the checkpoint, so there are no steps of their own for it. If the guest does not come to rest and the
 * policy allows, what is left of the attempt is ended first and a checkpoint is made without asking the guest.
 */

import { type Consistency, leastConsistency, meetsConsistency } from '../../consistency.js';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import type { Capture, CaptureRequest, Steps, VmRef } from '../host.js';
import type { Reference, TrackingRequest } from '../tracking.js';
import type { Connection } from './connection.js';
import { asFirnError } from './policy.js';
import { ReferencePoints, type Tracked } from './reference-points.js';
import { confirmEnd, mergeStepDeadline, type ReleaseContext, waitForEnd } from './release.js';
import { checkpointSchema } from './replies.js';
import type { HypervTuning } from './tuning.js';

export const CHECKPOINT_METHOD = 'recovery checkpoint';

/** What the guest is asked for, as Msvm_VirtualSystemSnapshotSettingData.ConsistencyLevel. */
const APPLICATION_LEVEL = 1;
const CRASH_LEVEL = 2;
/** Nobody waits for it but the run, and without an answer the disks are read as a whole. */
const CHANGES_DEADLINE_MS = 600_000;

interface Reached {
  consistency: Consistency;
  reason?: string | undefined;
}

export class RecoveryCheckpoints {
  readonly #connection: Connection;
  readonly #tuning: HypervTuning;
  readonly #points: ReferencePoints;

  constructor(connection: Connection, tuning: HypervTuning) {
    this.#connection = connection;
    this.#tuning = tuning;
    this.#points = new ReferencePoints(connection, tuning);
  }

  /** Captures one machine. Rejects with why there is no capture; what was made until then is the release's. */
  async capture(request: CaptureRequest, mark: string, steps: Steps): Promise<Capture> {
    const capture = await this.#checkpoint(request, mark, steps);
    if (request.tracking === undefined) return capture;
    return { ...capture, ...(await this.#track(capture, request.tracking, steps)) };
  }

  async #track({ vm, disks }: Capture, tracking: TrackingRequest, steps: Steps): Promise<Tracked> {
    try {
      return await steps.run(vm, 'changes', { deadlineMs: CHANGES_DEADLINE_MS }, (signal) =>
        this.#points.track(vm, disks, tracking, signal),
      );
    } catch (failure) {
      const { code, message: fullReason } = asFirnError(failure);
      if (code === 'ERR_ABORTED') throw failure;
      return { disks: disks.map((disk) => ({ ...disk, fullReason })) };
    }
  }

  async #checkpoint(request: CaptureRequest, mark: string, steps: Steps): Promise<Capture> {
    const { vm, policy } = request;
    const asksGuest =
      policy.wanted !== 'crash' && vm.state === 'running' && vm.reachable !== 'crash';
    if (!asksGuest) return this.#attempt(request, mark, steps, CRASH_LEVEL, vm.reachableReason);
    try {
      return await this.#attempt(request, mark, steps, APPLICATION_LEVEL, undefined);
    } catch (error) {
      if (!isFirnError(error) || !isGuestFailure(error)) throw error;
      if (!meetsConsistency('crash', policy.required)) {
        throw firnError('ERR_FREEZE_FAILED', `${vm.name} did not come to rest: ${error.message}`, {
          cause: error,
        });
      }
      await this.#endAttempt(request, mark, steps);
      const reason = `the guest did not come to rest: ${error.message}`;
      return this.#attempt(request, mark, steps, CRASH_LEVEL, reason);
    }
  }

  /** Ends what bears the mark at one machine; with `advance`, it is made a reference point before, and older ones go at last. */
  async release(
    vm: VmRef,
    { mark, advance }: { mark: string; advance: Reference | undefined },
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<void> {
    const context = this.#releaseContext(mark, mergeDeadlineMs, steps);
    const deadlineMs = mergeStepDeadline(mergeDeadlineMs);
    // A checkpoint that cannot be kept is merged all the same: that it was not kept is told at the end.
    const failures: unknown[] = [];
    if (advance !== undefined) {
      const keepMs = 3 * this.#tuning.checkpointMarginMs;
      await steps
        .run(vm, 'keep', { deadlineMs: keepMs }, (signal) =>
          this.#points.keep(vm, mark, advance.name, signal),
        )
        .catch((failure: unknown) => failures.push(failure));
    }
    await steps.run(vm, 'merge', { deadlineMs }, async (signal) => {
      await waitForEnd(vm, context, signal);
      if (advance !== undefined) await this.#points.dropSucceeded(vm, advance.name, signal);
    });
    await confirmEnd(vm, context);
    if (failures.length > 0) throw failures[0];
  }

  get points(): ReferencePoints {
    return this.#points;
  }

  async #attempt(
    request: CaptureRequest,
    mark: string,
    steps: Steps,
    level: number,
    lessBecause: string | undefined,
  ): Promise<Capture> {
    const { vm, policy, excludedDisks, freezeDeadlineMs } = request;
    const jobMs = freezeDeadlineMs + this.#tuning.checkpointMarginMs;
    // The script ends by itself at jobMs and still has to name the checkpoint.
    const deadlineMs = jobMs + this.#tuning.checkpointMarginMs;
    const { result } = await steps.run(vm, 'checkpoint', { deadlineMs }, (signal) =>
      this.#connection.callFor(
        vm,
        'make-checkpoint',
        { mark, level, jobMs, pollMs: this.#tuning.jobPollMs, windowMs: 3 * deadlineMs },
        checkpointSchema,
        { signal, deadlineMs },
      ),
    );
    const { consistency, reason } = reached(request, level, result, lessBecause);
    if (!meetsConsistency(consistency, policy.required)) {
      const why = reason ?? 'the guest was not asked';
      throw firnError('ERR_CONSISTENCY', `${vm.name} reached ${consistency} consistency: ${why}`);
    }
    return {
      vm,
      consistency,
      ...(!meetsConsistency(consistency, policy.wanted) && {
        consistencyReason: reason ?? 'the host does not say why',
      }),
      method: CHECKPOINT_METHOD,
      disks: result.disks.filter((disk) => !excludedDisks.includes(disk.name)),
      configuration: result.configuration,
      frozenAt: result.frozenAt,
      ...(result.state !== 'off' && consistency !== 'crash' && { guestFroze: true as const }),
    };
  }

  /** After a failed attempt: nothing of it may stand below the next one. */
  async #endAttempt(request: CaptureRequest, mark: string, steps: Steps): Promise<void> {
    const { vm, freezeDeadlineMs } = request;
    const context = this.#releaseContext(
      mark,
      freezeDeadlineMs + this.#tuning.checkpointMarginMs,
      steps,
    );
    const deadlineMs = mergeStepDeadline(context.mergeDeadlineMs);
    await steps.run(vm, 'checkpoint', { deadlineMs }, (signal) => waitForEnd(vm, context, signal));
  }

  #releaseContext(mark: string, mergeDeadlineMs: number, steps: Steps): ReleaseContext {
    const [connection, tuning] = [this.#connection, this.#tuning];
    return { connection, tuning, operation: 'end-checkpoint', mark, mergeDeadlineMs, steps };
  }
}

/** What a checkpoint that was made is worth. Only what is certain counts: a warning takes away what the guest seemed to promise. */
function reached(
  { vm, policy }: CaptureRequest,
  level: number,
  result: { state: string; warning?: string | undefined },
  lessBecause: string | undefined,
): Reached {
  // At rest before and after: nobody had anything in memory.
  if (result.state === 'off')
    return { consistency: leastConsistency('application', policy.wanted) };
  if (level === CRASH_LEVEL) return { consistency: 'crash', reason: lessBecause };
  if (result.warning !== undefined) {
    return { consistency: 'crash', reason: `the host warns: ${result.warning}` };
  }
  return { consistency: vm.reachable, reason: vm.reachableReason };
}

/** True for what the guest may be to blame for; not for a machine that is busy, gone, or not to be reached. */
function isGuestFailure(error: FirnError): boolean {
  return error.code === 'ERR_CHECKPOINT_FAILED';
}
