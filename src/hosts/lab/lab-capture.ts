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
import { isSucceededBy, type Reference } from '../tracking.js';
import { type CallResult, callMachine, withMachine } from './control.js';
import { findChanges, referenceOf } from './lab-tracking.js';
import type { CheckpointResult } from './machine.js';
import { markedFiles, readVmFile } from './vm-file.js';
import { asFirnError, type FoundVm, reachableNow, statusOf } from './vm-status.js';

export const METHOD = 'lab checkpoint';
const CHECKPOINT_DEADLINE_MS = 60_000;
const THAW_DEADLINE_MS = 30_000;
const CONFIRM_DEADLINE_MS = 30_000;
const KEEP_DEADLINE_MS = 30_000;

/** What the guest promises, and why it is not more. */
interface Promised {
  level: Consistency;
  reason?: string | undefined;
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
    let made: { checkpoint: CheckpointResult; promised: Promised };
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
  ): Promise<{ checkpoint: CheckpointResult; promised: Promised }> {
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
  ): Promise<{ checkpoint: CheckpointResult; promised: Promised }> {
    const { folder } = this.#found;
    const { tracking } = this.#request;
    const options = { deadlineMs: CHECKPOINT_DEADLINE_MS };
    const wanted = {
      name: this.#mark,
      kind: 'recovery' as const,
      reference: tracking?.mode === 'checkpoint' ? tracking.name : undefined,
    };
    return this.#steps.run(this.#request.vm, 'checkpoint', options, async (signal) => {
      if (running) {
        const needsFreeze = promised.level !== 'crash';
        const take = { ...wanted, needsFreeze };
        return {
          checkpoint: answered(await callMachine(folder, 'checkpoint', take, signal)),
          promised,
        };
      }
      return withMachine<{ checkpoint: CheckpointResult; promised: Promised }>(
        folder,
        {
          online: async () => {
            // It was off a moment ago: no freeze was asked for.
            const take = { ...wanted, needsFreeze: false };
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
            checkpoint: await machine.checkpoint(wanted, (work) => work()),
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

  #describe(made: CheckpointResult, promised: Promised, frozenMs: number | undefined): Capture {
    const { vm, excludedDisks, tracking } = this.#request;
    const { since, changes } =
      tracking === undefined
        ? { since: undefined, changes: new Map() }
        : findChanges(readVmFile(this.#found.folder), made, tracking);
    return {
      vm,
      consistency: promised.level,
      ...(promised.reason === undefined ? {} : { consistencyReason: promised.reason }),
      method: METHOD,
      disks: made.disks
        .filter((disk) => !excludedDisks.includes(disk.name))
        .map(({ name, layers }) => ({ name, layers, ...changes.get(name) })),
      configuration: [made.configuration],
      frozenAt: made.frozenAt,
      ...(frozenMs === undefined ? {} : { frozenMs, guestFroze: true }),
      ...(since === undefined ? {} : { since }),
      ...(tracking?.mode === 'checkpoint' ? { reference: referenceOf(tracking.name, made) } : {}),
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

/** Ends all that bears the mark at one machine, and keeps its checkpoint as a reference if that is asked. Rejects with a FirnError. */
export async function releaseVm(
  found: FoundVm,
  { vm, mark, advance }: { vm: VmRef; mark: string; advance?: Reference | undefined },
  mergeDeadlineMs: number,
  steps: Steps,
): Promise<void> {
  const { folder } = found;
  const status = await statusOf(folder);
  if (status?.frozen?.mark === mark) await thaw(found, vm, mark, steps);
  if (advance !== undefined && mayBeKept(folder, mark, advance.name)) {
    await steps.run(vm, 'keep', { deadlineMs: KEEP_DEADLINE_MS }, (signal) =>
      keepMark(folder, mark, advance.name, signal),
    );
  }
  const doomed = () => [
    ...(bearsMark(folder, mark) ? [mark] : []),
    ...(advance === undefined ? [] : succeededReferences(folder, advance.name)),
  ];
  if (doomed().length > 0) {
    await steps.run(vm, 'merge', { deadlineMs: mergeDeadlineMs }, async (signal) => {
      for (const name of doomed()) await mergeMark(folder, name, mergeDeadlineMs, signal);
    });
  }
  await steps.run(vm, 'confirm', { deadlineMs: CONFIRM_DEADLINE_MS }, async () => {
    const frozen = (await statusOf(folder))?.frozen?.mark === mark;
    if (!frozen && doomed().length === 0) return;
    throw firnError('ERR_MERGE_FAILED', `${vm.name}: something of ${mark} is still there`);
  });
}

function mayBeKept(folder: string, mark: string, reference: string): boolean {
  return readVmFile(folder).checkpoints.some(
    (checkpoint) => checkpoint.name === mark && checkpoint.reference === reference,
  );
}

/** What the reference takes the place of. Nothing unless it stands: the last reference that there is must stay. */
function succeededReferences(folder: string, reference: string): string[] {
  const kept = readVmFile(folder).checkpoints.filter(({ kind }) => kind === 'reference');
  if (kept.every(({ name }) => name !== reference)) return [];
  return kept.map(({ name }) => name).filter((name) => isSucceededBy(name, reference));
}

async function keepMark(
  folder: string,
  mark: string,
  reference: string,
  signal: AbortSignal,
): Promise<void> {
  const kept = await withMachine<boolean>(
    folder,
    {
      online: async () => {
        const result = await callMachine(folder, 'keep', { mark, reference }, signal);
        return result.state === 'answered' ? { state: 'answered', give: result.give.kept } : result;
      },
      offline: (machine) => machine.keep(mark, reference),
    },
    signal,
  );
  if (kept) return;
  throw firnError('ERR_CHECKPOINT_FAILED', `${folder}: the checkpoint of ${mark} has gone`);
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
