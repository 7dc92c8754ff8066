/**
 * A repository: its configuration, its points, and the lists that the native side works with.
 *
 * Holds no state but the configuration, which never changes: every question is answered by reading the store at that moment, so
 * any number of processes may work on one repository. The order in which a writer reads, lists and publishes is the commit
 * protocol's and stands in commit.ts; what is here are its single steps.
 *
 * Members that are steps of the protocol take and give plain names: packs as "RUN/ATTEMPT-SEQ", index runs as file names in index/.
 */

import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import type { NativeChunking, NativeRepository } from '../engine/binding.js';
import { type ChunkingOptions, resolveChunking } from '../engine/options.js';
import {
  type ErrorCode,
  type FirnError,
  firnError,
  fromFileSystem,
  isFirnError,
} from '../errors.js';
import { deriveKeys, type RepositoryKeys } from './format/keys.js';
import {
  CONFIG_NAME,
  FOLDERS,
  GENERATION_NAME,
  isId,
  isIndexFile,
  isLabelName,
  isUnfinished,
  labelName,
  newId,
  type ObjectFolder,
  packOfFile,
} from './format/names.js';
import {
  type ChunkingObject,
  type ConfigObject,
  encodeObject,
  FORMAT_VERSION,
  type LabelObject,
  type PointObject,
  parseCondemned,
  parseConfig,
  parseGeneration,
  parseLabel,
  parsePoint,
} from './format/objects.js';
import { decodeRecord, encodeRecord } from './format/record.js';
import { DirectoryStore } from './stores/directory.js';
import type { Store } from './stores/store.js';

export interface CreateOptions {
  /** How disks are cut into chunks; set once. 32 / 64 / 256 KiB by content when not given. */
  chunking?: ChunkingOptions | undefined;
}

/** What a job knows of the repository: everything as it was listed, in the protocol's order, at one time. */
export interface RepositoryView {
  /** The generation's token, read before anything was listed. */
  readonly generation: string;
  readonly native: NativeRepository;
}

/** Told of an object that could not be read, and why. */
export type OnDamaged = (id: string, error: FirnError) => void;

export class Repository {
  /** The folder. */
  readonly path: string;
  readonly config: Readonly<ConfigObject>;
  readonly store: Store;
  readonly #keys: RepositoryKeys;

  private constructor(path: string, store: Store, config: ConfigObject) {
    this.path = path;
    this.store = store;
    this.config = config;
    this.#keys = deriveKeys(Buffer.from(config.idKey, 'hex'));
  }

  get id(): string {
    return this.config.repositoryId;
  }

  /**
   * Makes a repository in a folder that is empty or not there yet. ERR_REPOSITORY_EXISTS if there is one, ERR_EXISTS if the folder
   * holds anything else. The config is written last, and of two who init at a time one alone succeeds with it; an init that died can
   * be run again.
   */
  static async create(path: string, options: CreateOptions = {}): Promise<Repository> {
    const config: ConfigObject = {
      type: 'config',
      version: FORMAT_VERSION,
      repositoryId: newId(),
      created: new Date().toISOString(),
      idKey: randomBytes(32).toString('hex'),
      chunking: chunkingObject(resolveChunking(options.chunking)),
      sealed: false,
    };
    const store = new DirectoryStore(path);
    await refuseOccupied(store.root);
    await store.prepare(FOLDERS);
    try {
      await store.putNew(CONFIG_NAME, encodeRecord('object', undefined, encodeObject(config)));
    } catch (error) {
      if (isCode(error, 'ERR_EXISTS')) throw repositoryExists(store.root);
      throw error;
    }
    return new Repository(store.root, store, config);
  }

  /** ERR_REPOSITORY_NOT_FOUND, ERR_VERSION for a newer format, ERR_CORRUPT_OBJECT. `store` is the folder's when not given. */
  static async open(path: string, store?: Store): Promise<Repository> {
    const directory = new DirectoryStore(path);
    let record: Buffer;
    try {
      record = await (store ?? directory).get(CONFIG_NAME);
    } catch (error) {
      if (!isCode(error, 'ERR_NOT_FOUND')) throw error;
      throw firnError('ERR_REPOSITORY_NOT_FOUND', `${path} holds no repository`, {
        path,
        cause: error,
      });
    }
    const config = withPath(CONFIG_NAME, () =>
      parseConfig(decodeRecord(record, 'object', undefined).content),
    );
    return new Repository(directory.root, store ?? directory, config);
  }

  /**
   * The sealed points, oldest first. A point that cannot be read is handed to `onDamaged` and left out; without that it is thrown.
   */
  async points(onDamaged?: OnDamaged): Promise<PointObject[]> {
    const points: PointObject[] = [];
    for (const id of await this.listIds('points')) {
      try {
        points.push(await this.readPoint(id));
      } catch (error) {
        // A point may be removed between the listing and now.
        if (isCode(error, 'ERR_POINT_NOT_FOUND')) continue;
        if (!isFirnError(error) || onDamaged === undefined) throw error;
        onDamaged(id, error);
      }
    }
    return points.sort(
      (a, b) => Date.parse(a.created) - Date.parse(b.created) || (a.id < b.id ? -1 : 1),
    );
  }

  /**
   * The point that a selector means: an id or the beginning of one, "latest", or "latest:VM" with the VM's name. ERR_POINT_NOT_FOUND,
   * ERR_POINT_AMBIGUOUS, ERR_INVALID_ARGUMENT.
   */
  async resolvePoint(selector: string): Promise<PointObject> {
    if (selector === 'latest' || selector.startsWith('latest:')) {
      const name = selector === 'latest' ? undefined : selector.slice('latest:'.length);
      const points = await this.points();
      const latest = points.findLast((point) => name === undefined || point.vm.name === name);
      if (latest !== undefined) return latest;
      throw firnError(
        'ERR_POINT_NOT_FOUND',
        name === undefined ? 'The repository has no points' : `No point of a VM named "${name}"`,
      );
    }
    const prefix = selector.toLowerCase();
    if (!/^[0-9a-f]{1,32}$/.test(prefix)) {
      throw firnError(
        'ERR_INVALID_ARGUMENT',
        `Expected a point's id, the beginning of one, latest or latest:VM but received "${selector}"`,
      );
    }
    const found = (await this.listIds('points')).filter((id) => id.startsWith(prefix));
    if (found.length > 1) {
      throw firnError('ERR_POINT_AMBIGUOUS', `${found.length} points begin with "${selector}"`);
    }
    return this.readPoint(found[0] ?? selector);
  }

  /** A sealed point by its full id. ERR_POINT_NOT_FOUND, ERR_CORRUPT_OBJECT. */
  async readPoint(id: string): Promise<PointObject> {
    return this.#readPointFrom('points', id);
  }

  /** A pending point by its full id: a run that is not done, or died. */
  async readPending(id: string): Promise<PointObject> {
    return this.#readPointFrom('pending', id);
  }

  async writePending(point: PointObject): Promise<void> {
    await this.#putNew(`pending/${point.id}`, point);
  }

  async removePending(id: string): Promise<void> {
    await this.store.delete(`pending/${id}`);
  }

  /** Makes a point one. Only after every object that it names is durable, and the protocol's checks have passed. */
  async seal(point: PointObject): Promise<void> {
    await this.#putNew(`points/${point.id}`, point);
  }

  /**
   * Takes a sealed point away, durably; its chunks are a later collection's to clear. Labels are not looked at: that, and the order in which
   * it is safe, is forgetPoint's.
   */
  async removePoint(id: string): Promise<void> {
    if (isId(id)) await this.store.delete(`points/${id}`);
  }

  /** Names of all labels, "POINT-LABEL". */
  async labels(): Promise<string[]> {
    return (await this.store.list('labels')).filter(isLabelName).sort();
  }

  /** A label by its name. ERR_NOT_FOUND, ERR_CORRUPT_OBJECT, ERR_VERSION. */
  async readLabel(name: string): Promise<LabelObject> {
    const path = `labels/${name}`;
    const content = await this.#get(path);
    return withPath(path, () => parseLabel(content, name));
  }

  /** Writes a label, durably. */
  async writeLabel(label: LabelObject): Promise<void> {
    const name = `labels/${labelName(label)}`;
    try {
      await this.#putNew(name, label);
    } catch (error) {
      if (!isCode(error, 'ERR_NOT_FOUND') || !(this.store instanceof DirectoryStore)) throw error;
      // The folder is younger than format version 1.
      await this.store.prepare(['labels']);
      await this.#putNew(name, label);
    }
  }

  async removeLabel(name: string): Promise<void> {
    await this.store.delete(`labels/${name}`);
  }

  /**
   * The generation's token; empty before the first collection. If it is damaged, a token that equals no other: who cannot tell whether it
   * moved must look whether packs went, which is always right.
   */
  async generation(): Promise<string> {
    try {
      return await orIfMissing('', () => this.#readGeneration());
    } catch (error) {
      if (isCode(error, 'ERR_CORRUPT_OBJECT')) return newId();
      throw error;
    }
  }

  /** Moves the generation to a token never used before: packs have been deleted. */
  async moveGeneration(): Promise<void> {
    const content = encodeObject({ type: 'generation', token: newId() });
    await this.store.replace(GENERATION_NAME, encodeRecord('object', this.#keys.object, content));
  }

  /**
   * All packs that some collection has condemned, by name. A set that cannot be read is handed to `onDamaged` and left out; without that it
   * is thrown, as a writer must know them all.
   */
  async condemnedPacks(onDamaged?: OnDamaged): Promise<Set<string>> {
    const packs = new Set<string>();
    for (const id of await this.listIds('condemned')) {
      try {
        for (const pack of await this.readCondemned(id)) packs.add(pack);
      } catch (error) {
        if (!isFirnError(error) || onDamaged === undefined) throw error;
        onDamaged(id, error);
      }
    }
    return packs;
  }

  /** The packs of one condemned set; none if the set is gone, which ends a collection. */
  async readCondemned(id: string): Promise<string[]> {
    return orIfMissing([], () => this.#readCondemned(id));
  }

  /** Condemns packs: announces, durably, that a collection is about to delete them. Gives the set's id. */
  async condemn(packs: readonly string[]): Promise<string> {
    const id = newId();
    await this.#putNew(`condemned/${id}`, { type: 'condemned', id, packs: [...packs] });
    return id;
  }

  /** Takes a condemned set away: its packs are gone, or stay. */
  async liftCondemned(id: string): Promise<void> {
    await this.store.delete(`condemned/${id}`);
  }

  async indexRuns(): Promise<string[]> {
    return (await this.store.list('index')).filter(isIndexFile).sort();
  }

  async packs(): Promise<string[]> {
    const files = await this.store.list('packs');
    return files
      .map(packOfFile)
      .filter((pack) => pack !== undefined)
      .sort();
  }

  /** Names of the objects in a folder. */
  async listIds(folder: ObjectFolder): Promise<string[]> {
    return (await this.store.list(folder)).filter(isId).sort();
  }

  /**
   * Steps 1 to 4 of a writer, which are a reader's too: the generation, then the condemned sets, then index runs, and packs last. A pack
   * that is listed after the sets were read and is in none of them was not condemned when the work began. `onDamaged` as in
   * condemnedPacks: a reader goes on without the set, as it does not rely on it.
   */
  async view(onDamaged?: OnDamaged): Promise<RepositoryView> {
    const generation = await this.generation();
    const condemned = [...(await this.condemnedPacks(onDamaged))].sort();
    const indexRuns = await this.indexRuns();
    const packs = await this.packs();
    return { generation, native: { ...this.nativeBasis(), indexRuns, packs, condemned } };
  }

  /** What a native job needs of the repository besides the lists. */
  nativeBasis(): Pick<NativeRepository, 'root' | 'idKey' | 'chunking'> {
    const { idKey, chunking } = this.config;
    return { root: this.path, idKey, chunking: nativeChunking(chunking) };
  }

  /** Names of all object files; the generation's also before there is one. */
  async objects(): Promise<string[]> {
    const names: string[] = [CONFIG_NAME, GENERATION_NAME];
    for (const folder of ['points', 'pending', 'condemned'] as const) {
      for (const id of await this.listIds(folder)) names.push(`${folder}/${id}`);
    }
    for (const label of await this.labels()) names.push(`labels/${label}`);
    return names;
  }

  /** Reads an object file by its name and checks everything in it. ERR_CORRUPT_OBJECT; false if it is gone. */
  async checkObject(name: string): Promise<boolean> {
    const [folder = '', id = ''] = name.split('/');
    const check = {
      config: () => Repository.open(this.path, this.store),
      generation: () => this.#readGeneration(),
      points: () => this.readPoint(id),
      pending: () => this.readPending(id),
      condemned: () => this.#readCondemned(id),
      labels: () => this.readLabel(id),
    }[folder];
    if (check === undefined) throw firnError('ERR_INTERNAL', `${name} is not an object's name`);
    try {
      await check();
      return true;
    } catch (error) {
      if (isCode(error, 'ERR_NOT_FOUND') || isCode(error, 'ERR_POINT_NOT_FOUND')) return false;
      throw error;
    }
  }

  async #readGeneration(): Promise<string> {
    const content = await this.#get(GENERATION_NAME);
    return withPath(GENERATION_NAME, () => parseGeneration(content).token);
  }

  async #readCondemned(id: string): Promise<string[]> {
    const name = `condemned/${id}`;
    const content = await this.#get(name);
    return withPath(name, () => parseCondemned(content, id).packs);
  }

  async #readPointFrom(folder: 'points' | 'pending', id: string): Promise<PointObject> {
    const name = `${folder}/${id}`;
    try {
      // An id may come from a user: it must not lead out of the folder.
      if (!isId(id)) throw firnError('ERR_NOT_FOUND', `"${id}" is not the id of a point`);
      const content = await this.#get(name);
      return withPath(name, () => parsePoint(content, id));
    } catch (error) {
      if (!isCode(error, 'ERR_NOT_FOUND')) throw error;
      throw firnError('ERR_POINT_NOT_FOUND', `No point ${id}`, { cause: error });
    }
  }

  async #get(name: string): Promise<Buffer> {
    const record = await this.store.get(name);
    return withPath(name, () => decodeRecord(record, 'object', this.#keys.object).content);
  }

  async #putNew(name: string, object: Parameters<typeof encodeObject>[0]): Promise<void> {
    await this.store.putNew(name, encodeRecord('object', this.#keys.object, encodeObject(object)));
  }
}

async function refuseOccupied(root: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(root);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw fromFileSystem(error, 'list', 'ERR_READ');
  }
  if (names.includes(CONFIG_NAME)) throw repositoryExists(root);
  const store = new DirectoryStore(root);
  for (const name of names.filter((each) => !isUnfinished(each))) {
    // Empty folders are what an init that died has left; packs without a config are somebody's data.
    const isOurs = (FOLDERS as readonly string[]).includes(name);
    if (!isOurs || (await store.list(name)).length > 0) {
      throw firnError('ERR_EXISTS', `${root} is not empty: it holds "${name}"`, { path: root });
    }
  }
}

function repositoryExists(root: string): FirnError {
  return firnError('ERR_REPOSITORY_EXISTS', `${root} is a repository already`, { path: root });
}

function chunkingObject(chunking: NativeChunking): ChunkingObject {
  const { scheme, minPages, averagePages, maxPages } = chunking;
  if (scheme === 'fixed') return { scheme, pages: maxPages };
  return { scheme, minPages, averagePages, maxPages };
}

function nativeChunking(chunking: ChunkingObject): NativeChunking {
  if (chunking.scheme === 'fixed') {
    const { scheme, pages } = chunking;
    return { scheme, minPages: pages, averagePages: pages, maxPages: pages };
  }
  // Member by member: an object from a repository may have more of them.
  const { scheme, minPages, averagePages, maxPages } = chunking;
  return { scheme, minPages, averagePages, maxPages };
}

/** Runs a check of an object's content, and says in its failure which object that is. */
function withPath<Result>(name: string, check: () => Result): Result {
  try {
    return check();
  } catch (error) {
    if (!isFirnError(error) || error.path !== undefined) throw error;
    throw firnError(error.code, `${name}: ${error.message}`, { path: name, cause: error });
  }
}

async function orIfMissing<Result, Missing>(
  missing: Missing,
  read: () => Promise<Result>,
): Promise<Result | Missing> {
  try {
    return await read();
  } catch (error) {
    if (isCode(error, 'ERR_NOT_FOUND')) return missing;
    throw error;
  }
}

function isCode(error: unknown, code: ErrorCode): boolean {
  return isFirnError(error) && error.code === code;
}
