/**
 * The folder that a benchmark writes to: a new one inside a folder that the user has named, gone again on every way out.
 *
 * Leaving in order, an error and the first Ctrl-C end in dispose(). Leaving through process.exit, and the second Ctrl-C, which ends the
 * process at once, are caught here too. A process that is killed outright leaves the folder behind, and the next benchmark in the same place
 * removes it: a folder bears the computer's name and holds a claim, a lock that the system drops with its process. Folders of other
 * computers, of other users, and those without a claim are left alone, as nobody could know whether they are still needed.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { lstat, readdir, rm, stat, statfs } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { firnError, fromFileSystem } from '../errors.js';
import { Claim, fileOfClaim } from '../jobs/runs/claim.js';

const CLAIM = 'bench';
/** Another benchmark may take a folder that has no claim yet for one that was left behind, and remove it: then the next one is made. */
const ATTEMPTS = 5;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** What a benchmark leaves free, whatever it is asked to write. */
const RESERVE_BYTES = 512 * 1024 * 1024;

export class Scratch {
  readonly folder: string;
  #claim: Claim | undefined;
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
    await removeLeftOvers(place);
    const freeBytes = await freeBytesOf(place);
    if (freeBytes < bytes + RESERVE_BYTES) {
      const mebibytes = (value: number) => `${Math.ceil(value / 2 ** 20)} MiB`;
      throw firnError(
        'ERR_DISK_FULL',
        `${place} has ${mebibytes(freeBytes)} free; this needs ${mebibytes(bytes)}, and ${mebibytes(RESERVE_BYTES)} stay free`,
        { path: place, hint: 'Choose another folder, or a smaller --size.' },
      );
    }
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const scratch = Scratch.#new(place);
      const claim = claimOf(scratch.folder);
      if (claim === undefined) return scratch;
      if (claim !== 'taken') {
        scratch.#claim = claim;
        if (await hasOwnClaim(scratch.folder)) return scratch;
      }
      await scratch.dispose();
    }
    throw firnError('ERR_WRITE', `Other processes remove what is made in ${place}`, {
      path: place,
    });
  }

  /** At once, so that no signal comes when there is a folder and nobody who would remove it. */
  static #new(place: string): Scratch {
    try {
      return new Scratch(mkdtempSync(path.join(place, prefix())));
    } catch (error) {
      throw fromFileSystem(error, 'create', 'ERR_WRITE');
    }
  }

  /** A file or folder inside. */
  path(name: string): string {
    return path.join(this.folder, name);
  }

  async dispose(): Promise<void> {
    this.#giveUp();
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 });
    process.off('exit', this.#remove);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }

  #giveUp(): void {
    this.#claim?.release(true);
    this.#claim = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  readonly #remove = () => {
    this.#giveUp();
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

/** Folders of this computer. Six letters or digits follow. */
function prefix(): string {
  return `firn-bench-${hostname()
    .replace(/[^\w.-]/g, '_')
    .slice(0, 64)}-`;
}

/** Undefined where the file system knows no locks: such a folder is never removed by another process. */
function claimOf(folder: string): Claim | 'taken' | undefined {
  try {
    return Claim.take(folder, CLAIM) ?? 'taken';
  } catch {
    return undefined;
  }
}

/** Removes what benchmarks of this user left in `place` when they were killed on this computer. What can't be removed stays. */
async function removeLeftOvers(place: string): Promise<void> {
  const entries = await readdir(place, { withFileTypes: true });
  for (const entry of entries) {
    const isOurs =
      entry.isDirectory() &&
      entry.name.startsWith(prefix()) &&
      /^[A-Za-z0-9]{6}$/.test(entry.name.slice(prefix().length));
    const folder = path.join(place, entry.name);
    if (!isOurs || !(await hasOwnClaim(folder))) continue;
    const claim = claimOf(folder);
    if (claim === undefined || claim === 'taken') continue;
    // The claim is held meanwhile, where the system can remove what is open.
    const isWindows = process.platform === 'win32';
    if (isWindows) claim.release(true);
    await rm(folder, { recursive: true, force: true, maxRetries: 3 }).catch(() => {});
    if (!isWindows) claim.release(true);
  }
}

async function hasOwnClaim(folder: string): Promise<boolean> {
  try {
    const found = await lstat(fileOfClaim(folder, CLAIM));
    return found.isFile() && (process.getuid === undefined || found.uid === process.getuid());
  } catch {
    return false;
  }
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
