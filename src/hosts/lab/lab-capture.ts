/**
 * Capturing and releasing one machine of a lab, in the steps that a run journals.
 *
 * The agent is asked for the most that is wanted and can be had; if the freeze fails, for the next less that the policy allows; at last
 * nothing is frozen. What is recorded is what the guest stood at when its disks switched, as its own process says.
 */

import {
  CONSISTENCIES,
  type Consistency,
  leastConsistency,
  meetsConsistency,
} from '../../consistency.js';
import { type FirnError, firnError } from '../../errors.js';
import { type Capture, type CaptureRequest, runOfMark, type Steps, type VmRef } from '../host.js';
import { type CallResult, callMachine, withMachine } from './control.js';
import { markedFiles, readVmFile } from './vm-file.js';
import { asFirnError, type FoundVm, reachableNow, statusOf } from './vm-status.js';

export const METHOD = 'lab checkpoint';
const CHECKPOINT_DEADLINE_MS = 60_000;
const THAW_DEADLINE_MS = 10_000;
const CONFIRM_DEADLINE_MS = 10_000;

/** What the guest promises, and why it is not more. */
interface Promised {
  level: Consistency;
  reason?: string | undefined;
}

interface Checkpointed {
  disks: { name: string; layers: string[] }[];
  configuration: string;
  frozenAt: string;
}

/** One machine's capture. Rejects with a FirnError. */
export class VmCapture {
  readonly #found: FoundVm;
  readonly #request: CaptureRequest;
  readonly #mark: string;
  readonly #steps: Steps;

  constructor(found: FoundVm, request: CaptureRequest, mark: string, steps: Steps) {
    this.#found = found;
    this.#request = request;
    this.#mark = mark;
    this.#steps = steps;
  }

  async run(): Promise<Capture> {
    const running = (await statusOf(this.#found.folder)) !== undefined;
    const best = this.#best(running);
    const promised = running ? await this.#freeze(best) : best;
    let made: { checkpoint: Checkpointed; promised: Promised };
    try {
      made = await this.#checkpoint(promised, running);
    } catch (error) {
      await this.#thaw(promised).catch(() => {
        // It thaws by itself; that there is no checkpoint is what has to be told.
      });
      throw error;
    }
    const frozenMs = await this.#thaw(made.promised);
    return this.#describe(made.checkpoint, made.promised, frozenMs);
  }

  // The most that is wanted and within reach. ERR_CONSISTENCY if that is less than is required.
  #best(running: boolean): Promised {
    const { vm } = this.#found;
    const { wanted, required } = this.#request.policy;
    const { reachable, reason } = reachableNow(vm, running);
    if (!meetsConsistency(reachable, required)) {
      throw firnError(
        'ERR_CONSISTENCY',
        `${vm.name} reaches ${reachable} consistency, and ${required} is required: ${reason}`,
      );
    }
    // A machine that is off has no guest to ask: its disks are worth what it left them at.
    const level = running ? leastConsistency(wanted, reachable) : reachable;
    return { level, reason: meetsConsistency(level, wanted) ? undefined : reason };
  }

  async #freeze(best: Promised): Promise<Promised> {
    const { required } = this.#request.policy;
    let promised = best;
    while (promised.level !== 'crash') {
      try {
        await this.#freezeAt(promised.level);
        return promised;
      } catch (error) {
        promised = this.#settleFor(required, promised, asFirnError(error));
      }
    }
    return promised;
  }

  async #freezeAt(level: Consistency): Promise<void> {
    const { freezeDeadlineMs: deadlineMs } = this.#request;
    const { folder, vm } = this.#found;
    await this.#steps.run(this.#request.vm, 'freeze', { deadlineMs }, async (signal) => {
      const take = { level, mark: this.#mark, deadlineMs };
      const result = await callMachine(folder, 'freeze', take, signal);
      if (result.state === 'answered') return;
      throw firnError('ERR_FREEZE_FAILED', `${vm.name} has gone off`);
    });
  }

  // The next less that the policy allows, or the error. A guest that did not answer is not asked again.
  #settleFor(required: Consistency, failed: Promised, error: FirnError): Promised {
    const guestsFault =
      error.code === 'ERR_FREEZE_FAILED' ||
      error.code === 'ERR_DEADLINE' ||
      error.code === 'ERR_DISK_FULL';
    if (!guestsFault) throw error;
    const next =
      error.code === 'ERR_DEADLINE'
        ? 'crash'
        : (CONSISTENCIES[CONSISTENCIES.indexOf(failed.level) + 1] ?? 'crash');
    if (!meetsConsistency(next, required)) throw error;
    return { level: next, reason: error.message };
  }

  async #checkpoint(
    promised: Promised,
    running: boolean,
  ): Promise<{ checkpoint: Checkpointed; promised: Promised }> {
    try {
      return await this.#checkpointAt(promised, running);
    } catch (failure) {
      const error = asFirnError(failure);
      // The guest went on before its disks switched: its freeze is worth nothing.
      if (error.code !== 'ERR_FREEZE_FAILED' || promised.level === 'crash') throw error;
      if (this.#request.policy.required !== 'crash') throw error;
      return this.#checkpointAt({ level: 'crash', reason: error.message }, running);
    }
  }

  #checkpointAt(
    promised: Promised,
    running: boolean,
  ): Promise<{ checkpoint: Checkpointed; promised: Promised }> {
    const { folder } = this.#found;
    const options = { deadlineMs: CHECKPOINT_DEADLINE_MS };
    const name = this.#mark;
    const kind = 'recovery' as const;
    return this.#steps.run(this.#request.vm, 'checkpoint', options, async (signal) => {
      if (running) {
        const needsFreeze = promised.level !== 'crash';
        const take = { name, kind, needsFreeze };
        return {
          checkpoint: answered(await callMachine(folder, 'checkpoint', take, signal)),
          promised,
        };
      }
      return withMachine<{ checkpoint: Checkpointed; promised: Promised }>(
        folder,
        {
          online: async () => {
            // It was off a moment ago: no freeze was asked for.
            const take = { name, kind, needsFreeze: false };
            const result = await callMachine(folder, 'checkpoint', take, signal);
            if (result.state !== 'answered') return result;
            const crash = this.#settleFor(
              this.#request.policy.required,
              { level: 'filesystem' },
              firnError('ERR_FREEZE_FAILED', 'The machine was being started'),
            );
            return { state: 'answered', give: { checkpoint: result.give, promised: crash } };
          },
          offline: async (machine) => ({
            checkpoint: await machine.checkpoint({ name, kind }, (work) => work()),
            promised,
          }),
        },
        signal,
      );
    });
  }

  async #thaw({ level }: Promised): Promise<number | undefined> {
    if (level === 'crash' || (await statusOf(this.#found.folder)) === undefined) return undefined;
    return thaw(this.#found, this.#request.vm, this.#mark, this.#steps);
  }

  #describe(made: Checkpointed, promised: Promised, frozenMs: number | undefined): Capture {
    const { vm, excludedDisks } = this.#request;
    return {
      vm,
      consistency: promised.level,
      ...(promised.reason === undefined ? {} : { consistencyReason: promised.reason }),
      method: METHOD,
      disks: made.disks.filter((disk) => !excludedDisks.includes(disk.name)),
      configuration: [made.configuration],
      frozenAt: made.frozenAt,
      ...(frozenMs === undefined ? {} : { frozenMs }),
    };
  }
}

function answered<Name extends 'checkpoint'>(result: CallResult<Name>) {
  if (result.state === 'answered') return result.give;
  throw firnError('ERR_CHECKPOINT_FAILED', 'The machine died while its checkpoint was being made');
}

async function thaw(
  { folder }: FoundVm,
  vm: VmRef,
  mark: string,
  steps: Steps,
): Promise<number | undefined> {
  return steps.run(vm, 'thaw', { deadlineMs: THAW_DEADLINE_MS }, async (signal) => {
    const result = await callMachine(folder, 'thaw', { mark }, signal);
    // A machine that has gone off is not frozen either.
    return result.state === 'answered' ? result.give.frozenMs : undefined;
  });
}

/** Ends all that bears the mark at one machine. Rejects with a FirnError. */
export async function releaseVm(
  found: FoundVm,
  vm: VmRef,
  mark: string,
  mergeDeadlineMs: number,
  steps: Steps,
): Promise<void> {
  const { folder } = found;
  const status = await statusOf(folder);
  if (status?.frozen?.mark === mark) await thaw(found, vm, mark, steps);
  if (bearsMark(folder, mark)) {
    await steps.run(vm, 'merge', { deadlineMs: mergeDeadlineMs }, async (signal) => {
      await mergeMark(folder, mark, mergeDeadlineMs, signal);
    });
  }
  await steps.run(vm, 'confirm', { deadlineMs: CONFIRM_DEADLINE_MS }, async () => {
    const frozen = (await statusOf(folder))?.frozen?.mark === mark;
    if (!frozen && !bearsMark(folder, mark)) return;
    throw firnError('ERR_MERGE_FAILED', `${vm.name}: something of ${mark} is still there`);
  });
}

/** Merges a checkpoint by its name, by the machine's process or on its files. */
export async function mergeMark(
  folder: string,
  name: string,
  deadlineMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  return withMachine(
    folder,
    {
      online: async () => {
        const result = await callMachine(folder, 'merge', { name, deadlineMs }, signal);
        return result.state === 'answered'
          ? { state: 'answered', give: result.give.merged }
          : result;
      },
      offline: (machine) => machine.merge(name, signal),
    },
    signal,
  );
}

function bearsMark(folder: string, mark: string): boolean {
  const vm = readVmFile(folder);
  const run = runOfMark(mark);
  const bears = (text: string) => run !== undefined && runOfMark(text) === run;
  return (
    vm.checkpoints.some(({ name }) => name === mark) ||
    vm.disks.some(({ layers }) => layers.some(bears)) ||
    vm.garbage.some(bears) ||
    markedFiles(folder).some((file) => file.mark === mark)
  );
}
