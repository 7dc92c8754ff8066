/**
 * Steps: what a run does to a machine, journaled before and after, with its deadline.
 *
 * The entry "begun" is durable before the work starts, so that whatever the work leaves has a record. A step that overruns its deadline
 * is told by its signal and then given a moment to end by itself: work that is cut off between two calls to a host can make something
 * after the run has already looked for what there is to clean up.
 */

import { throwIfAborted } from '../../engine/engine.js';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import {
  type Host,
  refOf,
  type StepName,
  type StepOptions,
  type Steps,
  type VmRef,
} from '../../hosts/host.js';
import type { Journal } from './journal.js';
import type { StepTime, VmEvent } from './types.js';

/** How long work may go on after its signal before the run goes on without it. */
const GRACE_MS = 10_000;

export interface JournaledStepsOptions {
  run: string;
  journal: Journal;
  host: Host;
  /** Fires when the run is given up. What must be done in any case is given steps without one. */
  signal?: AbortSignal | undefined;
  reconciled: boolean;
  onEvent?: ((event: VmEvent) => void) | undefined;
}

export class JournaledSteps implements Steps {
  readonly #options: JournaledStepsOptions;
  readonly #times = new Map<string, StepTime[]>();

  constructor(options: JournaledStepsOptions) {
    this.#options = options;
  }

  /** The steps of a machine that are over, in order. */
  times(vm: VmRef): StepTime[] {
    return this.#times.get(vm.id) ?? [];
  }

  async run<Result>(
    machine: VmRef,
    step: StepName,
    { deadlineMs }: StepOptions,
    work: (signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const { run, journal, host, signal, reconciled, onEvent } = this.#options;
    throwIfAborted(signal);
    const vm = refOf(machine);
    const number = journal.beginStep(run, vm, step, reconciled);
    host.observe?.({ vm, step, state: 'begun' });
    onEvent?.({ type: 'step', vm, step, state: 'begun' });
    const begun = new Date();
    const startedMs = performance.now();
    const end = (error?: FirnError) => {
      const elapsedMs = performance.now() - startedMs;
      this.#note(vm, { step, begun: begun.toISOString(), elapsedMs });
      journal.endStep(number, error);
      host.observe?.({ vm, step, state: error === undefined ? 'done' : 'failed' });
      onEvent?.(
        error === undefined
          ? { type: 'step', vm, step, state: 'done', elapsedMs }
          : { type: 'step', vm, step, state: 'failed', elapsedMs, error },
      );
    };
    try {
      const result = await withDeadline({ vm, step, deadlineMs, signal }, work);
      end();
      return result;
    } catch (failure) {
      const error = asFirnError(failure);
      end(error);
      throw error;
    }
  }

  #note(vm: VmRef, time: StepTime): void {
    const times = this.#times.get(vm.id);
    if (times === undefined) this.#times.set(vm.id, [time]);
    else times.push(time);
  }
}

/** Any failure as one of ours; a defect of a host's code becomes ERR_INTERNAL. */
export function asFirnError(failure: unknown): FirnError {
  if (isFirnError(failure)) return failure;
  const text = failure instanceof Error ? failure.message : String(failure);
  return firnError('ERR_INTERNAL', text, { cause: failure });
}

interface Bounds {
  vm: VmRef;
  step: StepName;
  deadlineMs: number | undefined;
  signal: AbortSignal | undefined;
}

async function withDeadline<Result>(
  { vm, step, deadlineMs, signal }: Bounds,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const stop = new AbortController();
  const giveUp = () => stop.abort(signal?.reason);
  signal?.addEventListener('abort', giveUp, { once: true });
  const timer =
    deadlineMs === undefined
      ? undefined
      : setTimeout(() => {
          const text = `${vm.name}: "${step}" took longer than ${deadlineMs / 1000} s`;
          stop.abort(firnError('ERR_DEADLINE', text));
        }, deadlineMs);
  let grace: NodeJS.Timeout | undefined;
  const overdue = new Promise<undefined>((resolve) => {
    const wait = () => {
      grace = setTimeout(resolve, GRACE_MS, undefined);
    };
    stop.signal.addEventListener('abort', wait, { once: true });
  });
  try {
    const outcome = await Promise.race([work(stop.signal).then((result) => ({ result })), overdue]);
    // What is done in time stands, even if the signal fired at the end.
    if (outcome !== undefined) return outcome.result;
    throw stop.signal.reason;
  } catch (failure) {
    // What the work made of its signal says less than why the signal fired.
    const reason: unknown = stop.signal.aborted ? stop.signal.reason : undefined;
    if (isFirnError(reason) && reason.code === 'ERR_DEADLINE') throw reason;
    if (stop.signal.aborted) throwIfAborted(signal);
    throw failure;
  } finally {
    clearTimeout(timer);
    clearTimeout(grace);
    signal?.removeEventListener('abort', giveUp);
  }
}
