/**
 * A client of the guest agent, through the socket at which QEMU offers the guest's port.
 *
 * Nobody tells a client whether an agent is there: a guest without one is silence. What an earlier client left unread may still come, so
 * a connection begins with guest-sync-delimited, and its answer is waited for. Commands may be sent before earlier ones were answered;
 * answers come in order. The socket serves one client at a time.
 */

import { randomInt } from 'node:crypto';
import path from 'node:path';
import { firnError } from '../../errors.js';
import { LineSocket } from './line-socket.js';

/** How long an agent that is there may take to answer what takes no time. */
export const AGENT_ANSWER_MS = 5_000;

/** The agent understood a command and refused it, or it failed in the guest. */
export class AgentRefusal extends Error {}

export class GuestAgent {
  readonly #lines: LineSocket;
  /** Settles when all that was sent has its answer. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(lines: LineSocket) {
    this.#lines = lines;
  }

  /** Connects and makes sure that the agent answers. Rejects with ERR_HOST_UNREACHABLE after `timeoutMs`. */
  static async connect(socketPath: string, timeoutMs = AGENT_ANSWER_MS): Promise<GuestAgent> {
    const endMs = performance.now() + timeoutMs;
    const restMs = () => Math.max(1, endMs - performance.now());
    let lines: LineSocket | undefined;
    try {
      lines = await LineSocket.connect(socketPath, timeoutMs);
      const id = randomInt(2 ** 31);
      const sync = { execute: 'guest-sync-delimited', arguments: { id } };
      // The first byte makes the agent forget half a command that an earlier client may have left.
      lines.send(Buffer.concat([Buffer.of(0xff), Buffer.from(`${JSON.stringify(sync)}\n`)]));
      for (;;) {
        const answer = parse(await lines.receive(restMs()));
        if (answer?.return === id) return new GuestAgent(lines);
      }
    } catch (error) {
      lines?.close();
      throw silence(`The guest agent does not answer at ${socketPath}`, error);
    }
  }

  /** Rejects with AgentRefusal when the agent refuses, with ERR_HOST_UNREACHABLE when nothing comes within `timeoutMs`. */
  execute(command: string, timeoutMs = AGENT_ANSWER_MS): Promise<unknown> {
    this.#lines.send(`${JSON.stringify({ execute: command })}\n`);
    const answer = this.#last.then(() => this.#answer(command, timeoutMs));
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  async isFrozen(): Promise<boolean> {
    return (await this.execute('guest-fsfreeze-status')) === 'frozen';
  }

  /** Freezes all of the guest's file systems; how many. */
  async freeze(timeoutMs: number): Promise<number> {
    return Number(await this.execute('guest-fsfreeze-freeze', timeoutMs));
  }

  /** How many file systems this call thawed: 0 if none stood frozen any more. */
  async thaw(timeoutMs = AGENT_ANSWER_MS): Promise<number> {
    return Number(await this.execute('guest-fsfreeze-thaw', timeoutMs));
  }

  /** Whether the agent may freeze: it was built with it, and no administrator has forbidden it. */
  async canFreeze(): Promise<boolean> {
    const info = (await this.execute('guest-info')) as {
      supported_commands?: { name: string; enabled: boolean }[];
    };
    const usable = (name: string) =>
      info.supported_commands?.some((each) => each.name === name && each.enabled) === true;
    return usable('guest-fsfreeze-freeze') && usable('guest-fsfreeze-thaw');
  }

  close(): void {
    this.#lines.close();
  }

  async #answer(command: string, timeoutMs: number): Promise<unknown> {
    let line: string;
    try {
      line = await this.#lines.receive(timeoutMs);
    } catch (error) {
      throw silence(`The guest agent did not answer ${command}`, error);
    }
    const answer = parse(line);
    if (answer === undefined) throw silence(`The guest agent's answer to ${command} is no JSON`);
    if (answer.error !== undefined) {
      const { desc } = answer.error as { desc?: string };
      throw new AgentRefusal(`${command}: ${desc ?? 'refused'}`);
    }
    return answer.return;
  }
}

export function agentSocket(folder: string): string {
  return path.join(folder, 'qga.sock');
}

function silence(message: string, cause?: unknown): Error {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return firnError('ERR_HOST_UNREACHABLE', message + why, {
    hint: 'Is the guest agent running in the guest, and does no other program hold its socket?',
    cause,
  });
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
