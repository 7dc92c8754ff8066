/**
 * The folder that a benchmark writes to: a new one inside a folder that the user has named, gone again on every way out.
 *
 * Leaving in order, an error and the first Ctrl-C end in dispose(). Leaving through process.exit, and the second Ctrl-C, which ends the
 * process at once, are caught here too. Only a process that is killed outright leaves the folder behind, and nothing removes it later: nobody
 * could know whose it is.
 */

import { rmSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { firnError, fromFileSystem } from '../errors.js';

const PREFIX = 'firn-bench-';
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** What a benchmark leaves free, whatever it is asked to write. */
const RESERVE_BYTES = 512 * 1024 * 1024;

export class Scratch {
  readonly folder: string;
  #signals = 0;

  private constructor(folder: string) {
    this.folder = folder;
    process.on('exit', this.#remove);
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /** A new folder inside `parent`, with room for `bytes`. ERR_NOT_FOUND, ERR_INVALID_ARGUMENT, ERR_DISK_FULL. */
  static async make(parent: string, bytes: number): Promise<Scratch> {
    const place = path.resolve(parent);
    await requireFolder(place);
    const freeBytes = await freeBytesOf(place);
    if (freeBytes < bytes + RESERVE_BYTES) {
      const mebibytes = (value: number) => `${Math.ceil(value / 2 ** 20)} MiB`;
      throw firnError(
        'ERR_DISK_FULL',
        `${place} has ${mebibytes(freeBytes)} free; this needs ${mebibytes(bytes)}, and ${mebibytes(RESERVE_BYTES)} stay free`,
        { path: place, hint: 'Choose another folder, or a smaller --size.' },
      );
    }
    const made = await mkdtemp(path.join(place, PREFIX)).catch((error: unknown) => {
      throw fromFileSystem(error, 'create', 'ERR_WRITE');
    });
    return new Scratch(made);
  }

  /** A file or folder inside. */
  path(name: string): string {
    return path.join(this.folder, name);
  }

  async dispose(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
    process.off('exit', this.#remove);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  readonly #remove = () => {
    rmSync(this.folder, { recursive: true, force: true });
  };

  // The first one ends the work in order, by whoever else listens. After the second nobody waits for that.
  readonly #onSignal = (signal: NodeJS.Signals) => {
    this.#signals += 1;
    if (this.#signals < 2) return;
    this.#remove();
    for (const each of SIGNALS) process.off(each, this.#onSignal);
    process.kill(process.pid, signal);
  };
}

async function requireFolder(place: string): Promise<void> {
  const found = await stat(place).catch((error: unknown) => {
    throw fromFileSystem(error, 'stat', 'ERR_READ');
  });
  if (!found.isDirectory()) {
    throw firnError('ERR_INVALID_ARGUMENT', `Expected a folder to write to but ${place} is none`, {
      path: place,
    });
  }
  if ((await readdir(place)).includes('config')) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `${place} looks like a repository: nothing is written into it`,
      { path: place, hint: 'Name another folder on the same volume.' },
    );
  }
}

export async function freeBytesOf(place: string): Promise<number> {
  const { bavail, bsize } = await statfs(place);
  return bavail * bsize;
}
