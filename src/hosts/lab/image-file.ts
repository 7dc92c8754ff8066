/**
 * A file that is read and written in whole pieces at given offsets, synchronously: what cannot be done whole is an error with its place.
 */

import {
  closeSync,
  fdatasync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { firnError, fromFileSystem } from '../../errors.js';

export class ImageFile {
  readonly path: string;
  readonly #fd: number;
  #closed = false;

  /** ERR_NOT_FOUND, ERR_ACCESS_DENIED. */
  constructor(path: string, access: { write: boolean }) {
    this.path = path;
    try {
      this.#fd = openSync(path, access.write ? 'r+' : 'r');
    } catch (error) {
      throw fromFileSystem(error, 'open', 'ERR_READ');
    }
  }

  get bytes(): number {
    return fstatSync(this.#fd).size;
  }

  /** ERR_READ, ERR_DISK_TRUNCATED. */
  load(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.readAt(offset, bytes);
    return bytes;
  }

  readAt(offset: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const got = this.#attempt('read', 'ERR_READ', () =>
        readSync(this.#fd, target, done, target.length - done, offset + done),
      );
      if (got === 0) {
        throw firnError('ERR_DISK_TRUNCATED', `${this.path} ends too early`, {
          path: this.path,
          offset: offset + done,
        });
      }
      done += got;
    }
  }

  /** ERR_WRITE, ERR_DISK_FULL. */
  writeAt(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      done += this.#attempt('write', 'ERR_WRITE', () =>
        writeSync(this.#fd, bytes, done, bytes.length - done, offset + done),
      );
    }
  }

  setSize(bytes: number): void {
    this.#attempt('resize', 'ERR_WRITE', () => ftruncateSync(this.#fd, bytes));
  }

  sync(): void {
    this.#attempt('sync', 'ERR_WRITE', () => fdatasyncSync(this.#fd));
  }

  /** The same without holding the process up. */
  async syncLater(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      fdatasync(this.#fd, (error) =>
        error === null ? resolve() : reject(fromFileSystem(error, 'sync', 'ERR_WRITE')),
      );
    });
  }

  /** May be called again. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }

  #attempt<Result>(op: string, fallback: 'ERR_READ' | 'ERR_WRITE', action: () => Result): Result {
    try {
      return action();
    } catch (error) {
      throw fromFileSystem(error, op, fallback);
    }
  }
}
