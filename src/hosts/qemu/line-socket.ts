/**
 * JSON documents, one a line, over a Unix socket: what QMP and the guest agent's protocol have in common.
 *
 * Lines are taken in the order in which they came, one at a time. A socket that failed, ended or ran into a deadline stays unusable:
 * a late answer must never be taken for the next one's. Both servers talk to one client at a time and leave the next one waiting, so to
 * be connected says nothing until the first line has come.
 */

import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const LINE_BYTES_MAX = 64 * 1024 * 1024;
const NEWLINE = 0x0a;
/** Stands before the guest agent's answer to a sync, and at no other place: it is no byte of UTF-8. */
const SENTINEL = 0xff;
const CONNECT_POLL_MS = 20;

/** Nothing came in time. */
export class NoAnswer extends Error {}

export class LineSocket {
  readonly #socket: Socket;
  #rest: Buffer[] = [];
  #restBytes = 0;
  readonly #lines: string[] = [];
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (bytes) => this.#take(bytes));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the connection was closed')));
  }

  /** Connects; rejects with the system's error (ENOENT, ECONNREFUSED: nobody listens), or NoAnswer after `timeoutMs`. */
  static async connect(path: string, timeoutMs: number): Promise<LineSocket> {
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      try {
        return new LineSocket(await connectOnce(path));
      } catch (error) {
        // The server's queue of waiting clients is full: it is there, and busy.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
        if (performance.now() >= endMs) throw new NoAnswer('other clients are waiting for it');
        await sleep(CONNECT_POLL_MS);
      }
    }
  }

  send(bytes: string | Uint8Array): void {
    if (this.#failure === undefined) this.#socket.write(bytes);
  }

  /** The next line. Rejects with NoAnswer after `timeoutMs`, and from then on always. One call at a time. */
  async receive(timeoutMs: number): Promise<string> {
    const timer = setTimeout(() => {
      this.#fail(new NoAnswer(`no answer within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    try {
      for (;;) {
        const line = this.#lines.shift();
        if (line !== undefined) return line;
        if (this.#failure !== undefined) throw this.#failure;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#fail(new Error('the connection was closed'));
  }

  #take(bytes: Buffer): void {
    let begin = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, begin)) {
      const line = Buffer.concat([...this.#rest, bytes.subarray(begin, end)]);
      this.#lines.push(line.subarray(line.lastIndexOf(SENTINEL) + 1).toString('utf8'));
      this.#rest = [];
      this.#restBytes = 0;
      begin = end + 1;
    }
    this.#rest.push(bytes.subarray(begin));
    this.#restBytes += bytes.length - begin;
    if (this.#restBytes > LINE_BYTES_MAX) this.#fail(new Error('a line without an end came'));
    this.#wake?.();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#socket.destroy();
    this.#wake?.();
  }
}

function connectOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
