/**
 * Who holds a machine, and how to talk to its process.
 *
 * A machine is held by the process that listens under its name: the one that plays it while it runs, or one that works on its files while
 * it is off. The name is an abstract socket on Linux and a named pipe on Windows, both of which the kernel takes back the moment
 * their owner dies: so the name is a lock that no crash leaves behind, and no file has to be looked at to tell who is alive. (A socket
 * file in a temporary folder stays after a kill, and two that both find it stale would both take it.)
 *
 * One line of JSON each way on a connection. Anyone on this computer may connect: a lab is a test bench, not a place for secrets.
 */

import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { platform } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Consistency } from '../../consistency.js';
import { firnError, fromFileSystem, isErrorCode, isFirnError } from '../../errors.js';
import { type CheckpointRequest, type CheckpointResult, Machine } from './machine.js';

const LINE_BYTES_MAX = 64 * 1024;
const POLL_MS = 15;
const STATUS_TIMEOUT_MS = 30_000;

/** What a machine's process tells of itself. */
export interface ProcessStatus {
  pid: number;
  state: 'running' | 'critical';
  generation: number;
  frozen?: { level: Consistency; mark?: string };
  merging?: string;
}

/** The calls that a machine's process answers, with what they take and give. */
export interface ControlCalls {
  status: { take: Record<string, never>; give: ProcessStatus };
  /** Brings the guest to rest, for `deadlineMs` from now at the most; then it goes on by itself. */
  freeze: {
    take: { level: Consistency; mark: string; deadlineMs: number };
    give: { frozenAt: string };
  };
  /** Gives how long the guest has stood still; undefined if it was not frozen for the mark. */
  thaw: { take: { mark: string }; give: { frozenMs?: number } };
  /** `needsFreeze`: only if the guest stands frozen for it. */
  checkpoint: {
    take: CheckpointRequest & { needsFreeze: boolean };
    give: CheckpointResult;
  };
  /** Machine.keep. */
  keep: { take: { mark: string; reference: string }; give: { kept: boolean } };
  merge: { take: { name: string; deadlineMs: number }; give: { merged: boolean } };
  stop: { take: Record<string, never>; give: Record<string, never> };
}
export type CallName = keyof ControlCalls;

const requestSchema = z.object({ call: z.string(), take: z.record(z.string(), z.unknown()) });
const answerSchema = z.union([
  z.object({ give: z.record(z.string(), z.unknown()) }),
  z.object({ held: z.literal(true) }),
  z.object({
    error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
  }),
]);

/** Answers one call; `signal` fires when the caller has gone. */
export type Answerer = (
  call: string,
  take: Record<string, unknown>,
  signal: AbortSignal,
) => Promise<object>;

function endpointOf(folder: string): string {
  let real: string;
  try {
    real = realpathSync.native(folder);
  } catch (error) {
    throw firnError('ERR_VM_NOT_FOUND', `${folder} is not there`, { path: folder, cause: error });
  }
  const key = createHash('sha256').update(real).digest('hex').slice(0, 40);
  return platform === 'win32' ? `\\\\.\\pipe\\firn-lab-${key}` : `\0firn-lab-${key}`;
}

/** Holds a machine until it is closed. Undefined if another process or another part of this one holds it. */
export async function holdMachine(
  folder: string,
  answer: Answerer | 'held',
): Promise<Server | undefined> {
  const server = createServer((socket) => serve(socket, answer));
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined);
      else reject(fromFileSystem(error, 'listen', 'ERR_READ'));
    });
    server.listen(endpointOf(folder), () => resolve(server));
  });
}

function serve(socket: Socket, answer: Answerer | 'held'): void {
  const gone = new AbortController();
  socket.on('error', () => {}); // it shows as a close
  socket.on('close', () => gone.abort());
  readLine(socket)
    .then(async (line) => {
      if (answer === 'held') return { held: true };
      const { call, take } = requestSchema.parse(JSON.parse(line));
      return { give: await answer(call, take, gone.signal) };
    })
    .catch((error: unknown) => ({ error: describeError(error) }))
    .then((reply) => socket.end(`${JSON.stringify(reply)}\n`));
}

function describeError(error: unknown) {
  if (isFirnError(error)) return { code: error.code, message: error.message, hint: error.hint };
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { code: 'ERR_HOST_FAILED', message: text };
}

function readLine(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (part: string) => {
      text += part;
      const end = text.indexOf('\n');
      if (end >= 0) resolve(text.slice(0, end));
      else if (text.length > LINE_BYTES_MAX) socket.destroy();
    });
    socket.on('close', () => reject(new Error('the connection was closed')));
  });
}

/**
 * How a call ended when it did not fail: with an answer, or because no process plays the machine, another works on its files, or the
 * process died before it answered.
 */
export type CallResult<Name extends CallName> =
  | { state: 'answered'; give: ControlCalls[Name]['give'] }
  | { state: 'off' | 'held' | 'lost' };

/** Calls the machine's process. Throws what that says, and the signal's reason when it fires. */
export async function callMachine<Name extends CallName>(
  folder: string,
  call: Name,
  take: ControlCalls[Name]['take'],
  signal?: AbortSignal,
): Promise<CallResult<Name>> {
  signal?.throwIfAborted();
  const line = await exchange(endpointOf(folder), JSON.stringify({ call, take }), signal);
  signal?.throwIfAborted();
  if (line === 'off' || line === 'lost') return { state: line };
  const reply = answerSchema.parse(JSON.parse(line.text));
  if ('held' in reply) return { state: 'held' };
  if ('give' in reply) {
    // Both ends are this file's types; the process at the other end is of this package.
    return { state: 'answered', give: reply.give as ControlCalls[Name]['give'] };
  }
  const { code, message, hint } = reply.error;
  throw firnError(isErrorCode(code) ? code : 'ERR_HOST_FAILED', message, { hint });
}

function exchange(
  endpoint: string,
  request: string,
  signal: AbortSignal | undefined,
): Promise<{ text: string } | 'off' | 'lost'> {
  return new Promise((resolve) => {
    const socket = connect(endpoint);
    const leave = () => socket.destroy();
    let connected = false;
    signal?.addEventListener('abort', leave, { once: true });
    socket.on('error', () => {}); // it shows as a close
    socket.on('close', () => {
      signal?.removeEventListener('abort', leave);
      resolve(connected ? 'lost' : 'off');
    });
    socket.on('connect', () => {
      connected = true;
      socket.write(`${request}\n`);
    });
    readLine(socket).then(
      (text) => {
        resolve({ text });
        socket.end();
      },
      () => {}, // the close tells
    );
  });
}

/** The status of the machine's process, or why there is none. */
export async function processStatus(
  folder: string,
  timeoutMs = STATUS_TIMEOUT_MS,
): Promise<ProcessStatus | undefined> {
  const result = await callMachine(folder, 'status', {}, AbortSignal.timeout(timeoutMs));
  return result.state === 'answered' ? result.give : undefined;
}

/**
 * Does something with a machine in whichever way fits: by its process while it runs, or on its files while it is off, which it holds for
 * so long. Waits while another process works on the files. `online` may give a result that is no answer, and then both are tried again:
 * only for work that may be done twice.
 */
export async function withMachine<Result>(
  folder: string,
  ways: {
    online: () => Promise<{ state: 'answered'; give: Result } | { state: 'off' | 'held' | 'lost' }>;
    offline: (machine: Machine) => Promise<Result>;
  },
  signal: AbortSignal,
): Promise<Result> {
  for (;;) {
    signal.throwIfAborted();
    const result = await ways.online();
    if (result.state === 'answered') return result.give;
    const held = result.state === 'held' ? undefined : await holdMachine(folder, 'held');
    if (held === undefined) {
      await sleep(POLL_MS, undefined, { signal });
      continue;
    }
    try {
      return await workOffline(folder, ways.offline);
    } finally {
      await closeServer(held);
    }
  }
}

async function workOffline<Result>(
  folder: string,
  work: (machine: Machine) => Promise<Result>,
): Promise<Result> {
  const machine = Machine.open(folder);
  try {
    return await work(machine);
  } finally {
    machine.close();
  }
}

export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}
