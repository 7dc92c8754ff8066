/**
 * A store in a folder of a file system, local or shared.
 *
 * A new object is written as ".tmp-..." beside its place, synced, and linked to its name: a link fails where a file is already,
 * which rename does not. File systems without links get a look and a rename; names are random and never used twice, so nobody can
 * come between. Then the folder is synced, without which a crash may forget the name. A process that dies leaves a ".tmp-" file
 * that nobody lists.
 */

import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { firnError, fromFileSystem } from '../../errors.js';
import { syncFolder } from '../../sync-folder.js';
import { isUnfinished } from '../format/names.js';
import { RECORD_CONTENT_BYTES_MAX, RECORD_HEADER_BYTES } from '../format/record.js';
import type { Store } from './store.js';

const OBJECT_BYTES_MAX = RECORD_CONTENT_BYTES_MAX + RECORD_HEADER_BYTES;
// What the engine gives packs, index runs and restored images, too: nothing to those outside the group.
const FILE_MODE = 0o640;
const FOLDER_MODE = 0o750;
const NO_LINKS = new Set([
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  'EINVAL',
  'EMLINK',
  'UNKNOWN',
]);

export class DirectoryStore implements Store {
  readonly root: string;

  /** `root` is made by `prepare`; a store of a folder that is not there lists nothing. */
  constructor(root: string) {
    this.root = path.resolve(root);
  }

  /** Makes the root and its folders, durably; what is there already stays. */
  async prepare(folders: readonly string[]): Promise<void> {
    await this.#attempt('create', 'ERR_WRITE', async () => {
      for (const folder of ['', ...folders]) await makeFolder(path.join(this.root, folder));
    });
  }

  async get(name: string): Promise<Buffer> {
    return this.#attempt('read', 'ERR_READ', async () => {
      const file = await open(this.#path(name), 'r');
      try {
        const { size } = await file.stat();
        if (size > OBJECT_BYTES_MAX) {
          throw firnError('ERR_CORRUPT_OBJECT', `${name} is longer than an object can be`, {
            path: this.#path(name),
          });
        }
        return await file.readFile();
      } finally {
        await file.close();
      }
    });
  }

  async putNew(name: string, content: Uint8Array): Promise<void> {
    await this.#attempt('write', 'ERR_WRITE', () =>
      this.#write(name, content, async (temporary, target) => {
        try {
          await link(temporary, target);
        } catch (error) {
          if (!NO_LINKS.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
          if (await exists(target))
            throw firnError('ERR_EXISTS', `${target} exists`, { path: target });
          await rename(temporary, target);
        }
      }),
    );
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    await this.#attempt('write', 'ERR_WRITE', () => this.#write(name, content, rename));
  }

  async list(folder: string): Promise<string[]> {
    return this.#attempt('list', 'ERR_READ', async () => {
      const names: string[] = [];
      await this.#collect(folder, '', names);
      return names;
    });
  }

  async delete(name: string): Promise<void> {
    await this.#attempt('delete', 'ERR_WRITE', async () => {
      const target = this.#path(name);
      await rm(target, { force: true });
      await syncNames(path.dirname(target));
      // A run's folder goes with its last pack. One whose run still writes makes it again with the run's next attempt, which it needs anyway.
      if (name.split('/').length > 2) await removeIfEmpty(path.dirname(target));
    });
  }

  /** Names of all files that are not part of the repository: still being written, or left by writers that died. */
  async listUnfinished(): Promise<{ name: string; bytes: number }[]> {
    return this.#attempt('list', 'ERR_READ', async () => {
      const names: string[] = [];
      await this.#collect('', '', names, isUnfinished);
      const files = [];
      for (const name of names) {
        const found = await stat(this.#path(name)).catch(() => undefined);
        if (found !== undefined) files.push({ name, bytes: found.size });
      }
      return files;
    });
  }

  #path(name: string): string {
    return path.join(this.root, ...name.split('/'));
  }

  async #attempt<Result>(
    op: string,
    fallback: 'ERR_READ' | 'ERR_WRITE',
    action: () => Promise<Result>,
  ): Promise<Result> {
    try {
      return await action();
    } catch (error) {
      throw fromFileSystem(error, op, fallback);
    }
  }

  async #write(
    name: string,
    content: Uint8Array,
    publish: (temporary: string, target: string) => Promise<void>,
  ): Promise<void> {
    const target = this.#path(name);
    const folder = path.dirname(target);
    const temporary = path.join(folder, `.tmp-${randomBytes(8).toString('hex')}`);
    try {
      await writeDurably(temporary, content);
      await publish(temporary, target);
    } finally {
      await rm(temporary, { force: true }).catch(() => {
        // What remains is not part of the repository; the first failure is the one to report.
      });
    }
    await syncNames(folder);
  }

  async #collect(
    folder: string,
    prefix: string,
    names: string[],
    isWanted: (fileName: string) => boolean = (fileName) => !isUnfinished(fileName),
  ): Promise<void> {
    let entries: Awaited<ReturnType<typeof readEntries>>;
    try {
      entries = await readEntries(path.join(this.root, folder, prefix));
    } catch (error) {
      // Also a folder that went between its listing and now.
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      throw error;
    }
    for (const entry of entries) {
      if (entry.isDirectory()) {
        await this.#collect(folder, `${prefix}${entry.name}/`, names, isWanted);
      } else if (entry.isFile() && isWanted(entry.name)) names.push(prefix + entry.name);
    }
  }
}

function readEntries(folder: string) {
  return readdir(folder, { withFileTypes: true });
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function removeIfEmpty(folder: string): Promise<void> {
  try {
    await rmdir(folder);
    await syncNames(path.dirname(folder));
  } catch {
    // It is not empty, or somebody else has removed it; an empty folder that stays means nothing.
  }
}

async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true, mode: FOLDER_MODE });
  // The topmost folder that was made is durable once its parent is synced.
  if (first !== undefined) {
    for (let made = folder; made.length >= first.length; made = path.dirname(made)) {
      await syncNames(path.dirname(made));
    }
  }
}

async function writeDurably(file: string, content: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', FILE_MODE);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Some network file systems refuse to sync a folder: there the server decides. One that is gone has no names to keep. */
async function syncNames(folder: string): Promise<void> {
  try {
    await syncFolder(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EINVAL' && code !== 'ENOTSUP' && code !== 'ENOENT') throw error;
  }
}
