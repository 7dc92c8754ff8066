/**
 * A client of QEMU's machine protocol (QMP), for QEMU itself and for its storage daemon.
 *
 * One command at a time, each with a time limit. Events are skipped: what matters is asked for again, as a process that was started
 * after a crash must do anyway. The monitor serves one client at a time, so a connection is held for as long as a few commands take
 * and never while something is waited for: withQmp() is the way to have one.
 */

import path from 'node:path';
import { z } from 'zod';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import { LineSocket } from './line-socket.js';

const greetingSchema = z.object({
  QMP: z.object({
    version: z.object({
      qemu: z.object({ major: z.number(), minor: z.number(), micro: z.number() }),
    }),
  }),
});

const CONNECT_MS = 10_000;
const COMMAND_MS = 30_000;

/** QEMU understood a command and refused it. */
export class QmpRefusal extends Error {
  readonly command: string;
  /** 'CommandNotFound', 'DeviceNotFound', mostly 'GenericError'. */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, text: string) {
    super(`${command}: ${text}`);
    this.command = command;
    this.errorClass = errorClass;
  }
}

/** No process listens at a machine's monitor: the machine is off. */
export class NotRunning extends Error {}

export class QmpClient {
  readonly #lines: LineSocket;
  // Not from one on: an answer to the client before this one may come to this one.
  #nextId = Math.floor(Math.random() * 2 ** 40);
  /** "7.2.22", as the greeting has it. */
  version = '';

  private constructor(lines: LineSocket) {
    this.#lines = lines;
  }

  /**
   * Connects to a monitor and gets past the greeting. Rejects with NotRunning when nobody listens, with ERR_HOST_UNREACHABLE when no
   * greeting comes (another client holds the monitor, or QEMU hangs), with ERR_ACCESS_DENIED when the socket is not ours to use.
   */
  static async connect(socketPath: string, timeoutMs = CONNECT_MS): Promise<QmpClient> {
    let lines: LineSocket | undefined;
    try {
      lines = await LineSocket.connect(socketPath, timeoutMs);
      const client = new QmpClient(lines);
      await client.#awaitGreeting(performance.now() + timeoutMs);
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      lines?.close();
      throw connectFailure(socketPath, error);
    }
  }

  /**
   * Executes a command and gives what it returned. Rejects with QmpRefusal when QEMU refuses, with ERR_HOST_UNREACHABLE when it does not
   * answer; then nobody knows whether the command was done.
   */
  async execute(
    command: string,
    parameters: Record<string, unknown> = {},
    timeoutMs = COMMAND_MS,
  ): Promise<unknown> {
    const id = this.#nextId++;
    this.#lines.send(`${JSON.stringify({ execute: command, arguments: parameters, id })}\n`);
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const message = await this.#receive(command, Math.max(1, endMs - performance.now()));
      if (message.id !== id) continue;
      if (message.error !== undefined) {
        const { class: errorClass, desc } = message.error as { class?: string; desc?: string };
        throw new QmpRefusal(command, errorClass ?? 'GenericError', desc ?? 'refused');
      }
      return message.return;
    }
  }

  /** Executes a command and checks the shape of what it returned. */
  async query<Schema extends z.ZodType>(
    schema: Schema,
    command: string,
    parameters?: Record<string, unknown>,
  ): Promise<z.output<Schema>> {
    const parsed = schema.safeParse(await this.execute(command, parameters));
    if (parsed.success) return parsed.data;
    throw firnError('ERR_HOST_FAILED', `QEMU's answer to ${command} is not what it should be`, {
      cause: parsed.error,
    });
  }

  /** As query(), but undefined where this QEMU, or the storage daemon, has no such command. */
  async queryIfKnown<Schema extends z.ZodType>(
    schema: Schema,
    command: string,
    parameters?: Record<string, unknown>,
  ): Promise<z.output<Schema> | undefined> {
    try {
      return await this.query(schema, command, parameters);
    } catch (error) {
      if (error instanceof QmpRefusal && error.errorClass === 'CommandNotFound') return undefined;
      throw error;
    }
  }

  close(): void {
    this.#lines.close();
  }

  /** What QEMU had still to send when the client before this one left comes first: events, an answer, the end of a line. */
  async #awaitGreeting(endMs: number): Promise<void> {
    for (;;) {
      const line = await this.#lines.receive(Math.max(1, endMs - performance.now()));
      const version = versionOf(line);
      if (version === undefined) continue;
      this.version = `${version.major}.${version.minor}.${version.micro}`;
      return;
    }
  }

  async #receive(command: string, timeoutMs: number): Promise<Record<string, unknown>> {
    try {
      return JSON.parse(await this.#lines.receive(timeoutMs)) as Record<string, unknown>;
    } catch (error) {
      this.close();
      throw firnError('ERR_HOST_UNREACHABLE', `QEMU did not answer ${command}: ${text(error)}`, {
        cause: error,
      });
    }
  }
}

/** Of a greeting; undefined for any other line. */
function versionOf(line: string): Record<'major' | 'minor' | 'micro', number> | undefined {
  try {
    return greetingSchema.safeParse(JSON.parse(line)).data?.QMP.version.qemu;
  } catch {
    return undefined;
  }
}

/** Connects to the monitor of the machine in `folder` for as long as `work` takes. */
export async function withQmp<Result>(
  folder: string,
  work: (qmp: QmpClient) => Promise<Result>,
): Promise<Result> {
  const qmp = await QmpClient.connect(monitorSocket(folder));
  try {
    return await work(qmp);
  } finally {
    qmp.close();
  }
}

export function monitorSocket(folder: string): string {
  return path.join(folder, 'qmp.sock');
}

/** A failure of host work as one of ours: what QEMU refused becomes ERR_HOST_FAILED. */
export function hostFailure(failure: unknown): FirnError {
  if (isFirnError(failure)) return failure;
  if (failure instanceof NotRunning) {
    return firnError('ERR_HOST_UNREACHABLE', failure.message, { cause: failure });
  }
  const code = failure instanceof QmpRefusal ? 'ERR_HOST_FAILED' : 'ERR_INTERNAL';
  return firnError(code, text(failure), { cause: failure });
}

function connectFailure(socketPath: string, failure: unknown): Error {
  const code = (failure as NodeJS.ErrnoException).code;
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new NotRunning(`No QEMU listens at ${socketPath}`, { cause: failure });
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return firnError('ERR_ACCESS_DENIED', `No access to ${socketPath}`, {
      path: socketPath,
      cause: failure,
    });
  }
  return firnError('ERR_HOST_UNREACHABLE', `No answer at ${socketPath}: ${text(failure)}`, {
    path: socketPath,
    hint: 'A monitor serves one client at a time: give Firn one of its own with another -qmp option.',
    cause: failure,
  });
}

function text(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}
