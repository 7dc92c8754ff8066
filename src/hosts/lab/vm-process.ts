/**
 * The process that plays one running machine: its hypervisor (machine.ts) and its guest (guest.ts), and what answers calls (control.ts).
 */

import type { Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { CONSISTENCIES, meetsConsistency } from '../../consistency.js';
import { firnError } from '../../errors.js';
import {
  type CallName,
  type ControlCalls,
  closeServer,
  holdMachine,
  type ProcessStatus,
} from './control.js';
import { findFault, takeFault } from './faults.js';
import { Guest } from './guest.js';
import { Machine } from './machine.js';
import { reachableWith } from './vm-status.js';

const HOLD_TRIES_MS = 30_000;
const POLL_MS = 20;
const FREEZE_SLOW_MS = 1000;

const takes = {
  status: z.object({}),
  freeze: z.object({
    level: z.enum(CONSISTENCIES),
    mark: z.string(),
    deadlineMs: z
      .number()
      .min(0)
      .max(2 ** 31 - 1),
  }),
  thaw: z.object({ mark: z.string() }),
  checkpoint: z.object({
    name: z.string().min(1),
    kind: z.enum(['recovery', 'user']),
    needsFreeze: z.boolean(),
    reference: z.string().optional(),
  }),
  keep: z.object({ mark: z.string(), reference: z.string() }),
  merge: z.object({ name: z.string(), deadlineMs: z.number().min(0) }),
  stop: z.object({}),
} satisfies { [Name in CallName]: z.ZodType<ControlCalls[Name]['take']> };

export class VmProcess {
  readonly #machine: Machine;
  readonly #guest: Guest;
  readonly #stopping = new AbortController();
  readonly #server: Server;
  #stopped: Promise<void> | undefined;

  /** Takes hold of the machine and starts its guest. ERR_VM_BUSY if somebody else keeps it. */
  static async start(folder: string): Promise<VmProcess> {
    let answer: VmProcess | undefined;
    const server = await takeHold(folder, (call, take, gone) => {
      if (answer === undefined) throw firnError('ERR_VM_BUSY', 'The machine is starting');
      return answer.#answer(call, take, gone);
    });
    answer = new VmProcess(Machine.open(folder), server);
    return answer;
  }

  private constructor(machine: Machine, server: Server) {
    this.#machine = machine;
    this.#server = server;
    this.#guest = new Guest(machine.chains, machine.vm.guest);
    machine.setRunning(true);
    this.#guest.start();
  }

  /** Shuts the guest down cleanly and lets the machine go. A merge under way is given up; the next release goes on with it. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#stopping.abort(firnError('ERR_VM_BUSY', 'The machine is being shut down'));
    await this.#machine.idle();
    this.#guest.shutDown();
    for (const chain of this.#machine.chains) chain.flush();
    this.#machine.setRunning(false);
    this.#machine.close();
    void closeServer(this.#server);
  }

  async #answer(call: string, take: unknown, gone: AbortSignal): Promise<object> {
    switch (call) {
      case 'status':
        return this.#status();
      case 'freeze':
        return this.#freeze(takes.freeze.parse(take), gone);
      case 'thaw':
        return this.#thaw(takes.thaw.parse(take));
      case 'checkpoint':
        return this.#checkpoint(takes.checkpoint.parse(take), gone);
      case 'merge':
        return this.#merge(takes.merge.parse(take));
      case 'keep': {
        const { mark, reference } = takes.keep.parse(take);
        return { kept: await this.#machine.keep(mark, reference) };
      }
      case 'stop':
        await this.stop();
        return {};
      default:
        throw firnError('ERR_UNSUPPORTED', `There is no call ${call}`);
    }
  }

  #status(): ProcessStatus {
    const frozen = this.#guest.frozen;
    const { merging } = this.#machine;
    return {
      pid: process.pid,
      state: this.#guest.problem === undefined ? 'running' : 'critical',
      generation: this.#guest.generation,
      ...(frozen === undefined ? {} : { frozen: { level: frozen.level, mark: frozen.mark } }),
      ...(merging === undefined ? {} : { merging }),
    };
  }

  async #freeze(
    { level, mark, deadlineMs }: ControlCalls['freeze']['take'],
    gone: AbortSignal,
  ): Promise<ControlCalls['freeze']['give']> {
    const { name, guest } = this.#machine.vm;
    const reachable = reachableWith(guest.vss);
    if (!meetsConsistency(reachable, level)) {
      throw firnError(
        'ERR_FREEZE_FAILED',
        `${name}: its guest cannot promise more than ${reachable}`,
      );
    }
    const begun = performance.now();
    const signal = AbortSignal.any([gone, this.#stopping.signal, AbortSignal.timeout(deadlineMs)]);
    try {
      await this.#sufferFreezeFaults(signal);
      await sleep(guest.freezeMs, undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
      throw firnError(
        'ERR_FREEZE_FAILED',
        `${name}: its guest did not freeze in ${deadlineMs} ms`,
        {
          cause: error,
        },
      );
    }
    const left = Math.max(1, deadlineMs - (performance.now() - begun));
    const { since } = this.#guest.freeze(level, mark, left);
    return { frozenAt: since };
  }

  async #sufferFreezeFaults(signal: AbortSignal): Promise<void> {
    const { folder, vm } = this.#machine;
    if (takeFault(folder, 'freeze-refuses') !== undefined) {
      throw firnError('ERR_FREEZE_FAILED', `${vm.name}: its guest refused to freeze`);
    }
    const slow = takeFault(folder, 'freeze-slow');
    if (slow !== undefined) await sleep(slow.ms ?? FREEZE_SLOW_MS, undefined, { signal });
    const hangs = takeFault(folder, 'freeze-hangs');
    while (hangs?.once || findFault(folder, 'freeze-hangs') !== undefined) {
      await sleep(POLL_MS, undefined, { signal });
    }
  }

  #thaw({ mark }: ControlCalls['thaw']['take']): ControlCalls['thaw']['give'] {
    const frozenMs = this.#guest.thaw(mark);
    return frozenMs === undefined ? {} : { frozenMs };
  }

  #checkpoint(
    { name, kind, needsFreeze, reference }: ControlCalls['checkpoint']['take'],
    gone: AbortSignal,
  ): Promise<ControlCalls['checkpoint']['give']> {
    this.#stopping.signal.throwIfAborted();
    return this.#machine.checkpoint(
      { name, kind, reference },
      (work) => this.#guest.hold(work),
      () => {
        // A caller that died meanwhile would leave a checkpoint that nobody waits for.
        gone.throwIfAborted();
        if (!needsFreeze || this.#guest.frozen?.mark === name) return;
        throw firnError(
          'ERR_FREEZE_FAILED',
          `${this.#machine.vm.name}: its guest went on before the checkpoint was made`,
        );
      },
    );
  }

  async #merge({ name, deadlineMs }: ControlCalls['merge']['take']) {
    const signal = AbortSignal.any([
      this.#stopping.signal,
      AbortSignal.timeout(Math.min(deadlineMs, 2 ** 31 - 1)),
    ]);
    return { merged: await this.#machine.merge(name, signal) };
  }
}

// Whoever works on the files of a machine that is off soon lets it go.
async function takeHold(
  folder: string,
  answer: Parameters<typeof holdMachine>[1],
): Promise<Server> {
  const until = performance.now() + HOLD_TRIES_MS;
  for (;;) {
    const server = await holdMachine(folder, answer);
    if (server !== undefined) return server;
    if (performance.now() > until) {
      throw firnError('ERR_VM_BUSY', `${folder}: another process works on the machine`);
    }
    await sleep(POLL_MS);
  }
}
