/**
 * Freezing a guest from the backup's side: starts the guard (freeze-guard.ts), which freezes and will thaw whatever becomes of this
 * process, and tells it when to. If the guard itself dies, this side thaws.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { firnError } from '../../errors.js';
import type { GuardEvent } from './freeze-guard.js';
import { GuestAgent } from './qga.js';

export interface Thawed {
  /** True if the guest stood frozen until it was asked to thaw: what was captured before that is what the freeze promised. */
  held: boolean;
  /** From the moment the guest was asked to freeze to its answer that it goes on: the most that it can have stood still. */
  frozenMs: number;
  /** Why it did not hold. */
  reason?: string;
}

/** The guest did not freeze, or goes on again already: nothing stands frozen on our account. */
export class NotFrozen extends Error {}

export class FrozenGuest {
  readonly #guard: ChildProcess;
  readonly #events: AsyncIterator<string>;
  readonly #agentSocket: string;
  readonly #frozenFromMs: number;
  /** How many file systems froze. */
  readonly fileSystems: number;
  #thawed: Promise<Thawed> | undefined;

  private constructor(
    guard: ChildProcess,
    events: AsyncIterator<string>,
    frozen: { agentSocket: string; fromMs: number; fileSystems: number },
  ) {
    this.#guard = guard;
    this.#events = events;
    this.#agentSocket = frozen.agentSocket;
    this.#frozenFromMs = frozen.fromMs;
    this.fileSystems = frozen.fileSystems;
  }

  /**
   * Freezes the guest behind the agent's socket; it stands still until thaw(), for `deadlineMs` from now at most. Rejects with
   * NotFrozen, and with the signal's reason when that fires: then the guard thaws as soon as the guest lets it.
   */
  static async freeze(
    agentSocket: string,
    deadlineMs: number,
    signal: AbortSignal,
  ): Promise<FrozenGuest> {
    signal.throwIfAborted();
    const fromMs = performance.now();
    const guard = spawn(process.execPath, [guardScript(), agentSocket, String(deadlineMs)], {
      // In a session of its own: what ends the backup's terminal must not end it.
      detached: true,
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    const events = lines(guard);
    const stop = new AbortController();
    try {
      // A guest that hangs in the freeze is the guard's to wait for.
      const givenUp = once(signal, 'abort', { signal: stop.signal }).catch(() => undefined);
      const event = await Promise.race([nextEvent(events), givenUp.then(() => undefined)]);
      signal.throwIfAborted();
      if (event?.event === 'frozen') {
        const { fileSystems } = event;
        return new FrozenGuest(guard, events, { agentSocket, fromMs, fileSystems });
      }
      if (event !== undefined) throw new NotFrozen(`the guest did not freeze: ${failureOf(event)}`);
      throw firnError('ERR_FREEZE_FAILED', 'The process that guards the freeze died');
    } catch (error) {
      letGo(guard);
      throw error;
    } finally {
      stop.abort();
    }
  }

  /** Thaws the guest and says whether it had stood frozen until now. May be called again. Rejects with ERR_FREEZE_FAILED. */
  thaw(): Promise<Thawed> {
    this.#thawed ??= this.#thaw();
    return this.#thawed;
  }

  /** Leaves the thaw to the guard, without waiting for it. */
  letGo(): void {
    letGo(this.#guard);
  }

  async #thaw(): Promise<Thawed> {
    this.#guard.stdin?.write('thaw\n');
    const event = await nextEvent(this.#events);
    letGo(this.#guard);
    if (event?.event !== 'thawed') return this.#thawWithoutGuard();
    const { fileSystems, frozenMs, by, problem } = event;
    if (by === 'deadline') {
      return { held: false, frozenMs, reason: 'the guest had to be thawed at its deadline' };
    }
    if (fileSystems > 0) return { held: true, frozenMs };
    const reason = problem ?? 'the guest had gone on by itself';
    return { held: false, frozenMs, reason };
  }

  async #thawWithoutGuard(): Promise<Thawed> {
    try {
      const thawed = await thawGuest(this.#agentSocket);
      const frozenMs = performance.now() - this.#frozenFromMs;
      return thawed > 0
        ? { held: true, frozenMs }
        : { held: false, frozenMs, reason: 'the guest had gone on by itself' };
    } catch (cause) {
      throw firnError('ERR_FREEZE_FAILED', `The guest could not be thawed: ${String(cause)}`, {
        hint: 'Run "fsfreeze --unfreeze" in the guest, or "virsh domfsthaw", or "firn reconcile".',
        cause,
      });
    }
  }
}

/** Thaws a guest that a dead run left frozen: how many file systems. Rejects with ERR_HOST_UNREACHABLE. */
export async function thawGuest(agentSocket: string, timeoutMs?: number): Promise<number> {
  const agent = await GuestAgent.connect(agentSocket, timeoutMs);
  try {
    return (await agent.isFrozen()) ? await agent.thaw() : 0;
  } finally {
    agent.close();
  }
}

/** The compiled guard: a new process of Node cannot run the TypeScript that a test runner may have loaded this module from. */
function guardScript(): string {
  const beside = fileURLToPath(new URL('./freeze-guard.js', import.meta.url));
  if (existsSync(beside)) return beside;
  return fileURLToPath(new URL('../../../dist/hosts/qemu/freeze-guard.js', import.meta.url));
}

function lines(guard: ChildProcess): AsyncIterator<string> {
  // A guard that could not be started, or died, is seen by the end of its output.
  guard.on('error', () => guard.stdout?.destroy());
  guard.stdin?.on('error', () => undefined);
  if (guard.stdout === null) throw new Error('the freeze guard has no output');
  return createInterface({ input: guard.stdout })[Symbol.asyncIterator]();
}

async function nextEvent(events: AsyncIterator<string>): Promise<GuardEvent | undefined> {
  const next = await events.next().catch(() => undefined);
  if (next === undefined || next.done === true) return undefined;
  return JSON.parse(next.value) as GuardEvent;
}

function failureOf(event: Exclude<GuardEvent, { event: 'frozen' }>): string {
  return event.event === 'failed' ? event.message : (event.problem ?? 'it took too long');
}

/** Ends the guard's input, upon which it thaws if it has not, and keeps it from holding this process. */
function letGo(guard: ChildProcess): void {
  guard.stdin?.end();
  guard.stdout?.destroy();
  guard.unref();
}
