/**
 * What this computer remembers of a sealed repository: that it was sealed, which generations it has had, which points were forgotten.
 *
 * Whoever may write to the repository's storage may also put back an old file that was once true, and nothing in the repository itself can
 * tell. This memory, outside of it, can: a generation that was seen before the last one, or a point that this computer has forgotten, is
 * refused. It knows what this computer has seen, and no more; where there is no memory, or it cannot be written, nothing is refused.
 *
 * One small file for each repository, by its path. Processes that write it at a time may lose each other's additions, which only makes it
 * know less.
 */

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { firnError } from '../../errors.js';
import { blake3 } from '../format/keys.js';
import { isId } from '../format/names.js';

const GENERATIONS_MAX = 10_000;
const FORGOTTEN_MAX = 100_000;

interface Remembered {
  repositoryId: string;
  /** Tokens in the order in which they were first seen; "" is before the first. */
  generations: string[];
  forgotten: string[];
}

export class RepositoryMemory {
  readonly #file: string;
  readonly #known: Remembered;

  private constructor(file: string, known: Remembered) {
    this.#file = file;
    this.#known = known;
  }

  /** True if the repository in this folder was sealed when it was last seen. `folder` is where memories are kept. */
  static async wasSealed(folder: string, repositoryPath: string): Promise<string | undefined> {
    const file = fileOf(folder, repositoryPath);
    return (await read(file)) === undefined ? undefined : file;
  }

  /** What is remembered of a sealed repository; from now on that it is sealed. */
  static async of(folder: string, repositoryPath: string, id: string): Promise<RepositoryMemory> {
    const file = fileOf(folder, repositoryPath);
    const known = await read(file);
    if (known?.repositoryId === id) return new RepositoryMemory(file, known);
    const memory = new RepositoryMemory(file, { repositoryId: id, generations: [], forgotten: [] });
    await memory.#write();
    return memory;
  }

  /** Takes in the generation as it was just read. ERR_REPLAYED if it is one from before the last. */
  async seeGeneration(token: string): Promise<void> {
    const { generations } = this.#known;
    if (generations.at(-1) === token) return;
    // A generation is replaced, and never taken away.
    const isGone = token === '' && generations.length > 0;
    if (isGone || generations.includes(token)) {
      const what = isGone ? 'gone' : 'an old one that was put back';
      throw firnError('ERR_REPLAYED', `The generation is ${what}`, {
        path: 'generation',
      });
    }
    generations.push(token);
    generations.splice(0, generations.length - GENERATIONS_MAX);
    await this.#write();
  }

  async forget(point: string): Promise<void> {
    this.#known.forgotten.push(point);
    this.#known.forgotten.splice(0, this.#known.forgotten.length - FORGOTTEN_MAX);
    await this.#write();
  }

  hasForgotten(point: string): boolean {
    return this.#known.forgotten.includes(point);
  }

  async #write(): Promise<void> {
    const temporary = `${this.#file}.${randomBytes(6).toString('hex')}`;
    try {
      await mkdir(path.dirname(this.#file), { recursive: true, mode: 0o700 });
      await writeFile(temporary, JSON.stringify(this.#known), { mode: 0o600 });
      await rename(temporary, this.#file);
    } catch {
      // It is a second line of defence: the work goes on without it.
      await rm(temporary, { force: true }).catch(() => {});
    }
  }
}

function fileOf(folder: string, repositoryPath: string): string {
  const name = blake3(Buffer.from(path.resolve(repositoryPath))).toString('hex', 0, 16);
  return path.join(folder, 'sealed', `${name}.json`);
}

async function read(file: string): Promise<Remembered | undefined> {
  try {
    const value = JSON.parse(await readFile(file, 'utf8')) as Partial<Remembered>;
    const isList = (list: unknown): list is string[] =>
      Array.isArray(list) && list.every((each) => typeof each === 'string');
    const { repositoryId, generations, forgotten } = value;
    if (typeof repositoryId !== 'string' || !isId(repositoryId)) return undefined;
    if (!isList(generations) || !isList(forgotten)) return undefined;
    return { repositoryId, generations, forgotten };
  } catch {
    return undefined;
  }
}
