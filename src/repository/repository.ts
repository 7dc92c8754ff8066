/**
 * A repository: its configuration, its points, and the lists that the native side works with.
 *
 * Holds no state but the configuration, which never changes: every question is answered by reading the store at that moment, so
 * any number of processes may work on one repository. The order in which a writer reads, lists and publishes is the commit
 * protocol's and stands in commit.ts; what is here are its single steps.
 *
 * A sealed repository is opened with a passphrase; what it then reads and writes is opened and sealed by seal/keyring.ts. Each of its objects
 * says under which name it was written (`at`), so that one put in another's place is told from one that was changed.
 *
 * Members that are steps of the protocol take and give plain names: packs as "RUN/ATTEMPT-SEQ", index runs as file names in index/.
 */

import { randomBytes } from 'node:crypto';
import { join as joinPath } from 'node:path';
import type { NativeRepository } from '../engine/binding.js';
import { type ChunkingOptions, resolveChunking } from '../engine/options.js';
import { type ErrorCode, type FirnError, firnError, isFirnError } from '../errors.js';
import { blake3, deriveKeys, type RepositoryKeys } from './format/keys.js';
import { FORMAT_VERSION } from './format/members.js';
import {
  CONFIG_NAME,
  FOLDERS,
  GENERATION_NAME,
  isId,
  isIndexFile,
  isLabelName,
  labelName,
  newId,
  type ObjectFolder,
  packFile,
  packOfFile,
  writerOfPack,
} from './format/names.js';
import {
  type ChecksObject,
  type ConfigObject,
  type DamageObject,
  encodeObject,
  type KeyObject,
  type LabelObject,
  type PointObject,
  parseChecks,
  parseCondemned,
  parseDamage,
  parseGeneration,
  parseLabel,
  parsePoint,
} from './format/objects.js';
import { encodeRecord, type RecordOpener } from './format/record.js';
import { chunkingObject, nativeChunking, nativeDamage } from './native.js';
import { ObjectFiles } from './object-files.js';
import { refuseOccupied, repositoryExists } from './occupied.js';
import { byOrder } from './point-order.js';
import {
  type Access,
  notSealed,
  readConfig,
  readKey,
  readKeys,
  unlock,
  withPath,
  writeKey,
} from './seal/access.js';
import { type Passphrase, wrapInPassphrase } from './seal/key-objects.js';
import { Keyring, LOCKED_SEAL } from './seal/keyring.js';
import type { RepositoryMemory } from './seal/memory.js';
import { readPublicTail } from './seal/stripe-header.js';
import { DirectoryStore } from './stores/directory.js';
import type { Store } from './stores/store.js';

export type { Access } from './seal/access.js';

export interface CreateOptions {
  /** How disks are cut into chunks; set once. 32 / 64 / 256 KiB by content when not given. */
  chunking?: ChunkingOptions | undefined;
  /** Another repository's: its id key and chunking are taken, so that points can go from one to the other as they are. */
  like?: Readonly<Pick<ConfigObject, 'idKey' | 'chunking' | 'sealed'>> | undefined;
  /** Seals the repository: nothing of what it holds can be read without a key. This passphrase is the first one. */
  passphrase?: Passphrase | undefined;
  /** scrypt's cost for it, a power of two; 2^17, which takes 128 MiB, when not given. */
  scryptCost?: number | undefined;
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
  readonly #keys: RepositoryKeys | undefined;
  /** Undefined unless it is sealed and open. */
  readonly #keyring: Keyring | undefined;
  readonly #memory: RepositoryMemory | undefined;
  readonly #objects: ObjectFiles;
  /** Readings of the generation, one after the other: they are remembered in that order. */
  #generationTurn: Promise<unknown> = Promise.resolve();
  #openedWith: string | undefined;

  private constructor(
    path: string,
    store: Store,
    config: ConfigObject,
    keyring?: Keyring,
    memory?: RepositoryMemory,
  ) {
    this.path = path;
    this.store = store;
    this.config = config;
    this.#keyring = keyring;
    this.#memory = memory;
    const { idKey } = config;
    this.#keys = idKey === undefined ? keyring?.keys() : deriveKeys(Buffer.from(idKey, 'hex'));
    this.#objects = new ObjectFiles(store, this.#keys, keyring);
  }

  get id(): string {
    return this.config.repositoryId;
  }

  /** True if what it holds is sealed. */
  get isSealed(): boolean {
    return this.config.sealed === true;
  }

  /** False if it was opened with a write-only key, or without one. */
  get canRead(): boolean {
    return !this.isSealed || this.#keyring?.capability === 'full';
  }

  /** What ids are made with. ERR_KEY_REQUIRED for a sealed repository that was opened without a key. */
  get keys(): RepositoryKeys {
    return this.#keys ?? refuseLocked();
  }

  /** The secret that ids are made with, 64 hex digits. ERR_KEY_REQUIRED. */
  get idKey(): string {
    return this.config.idKey ?? this.keyring.idKeyHex();
  }

  /** The keys of a sealed repository. ERR_NOT_SEALED, ERR_KEY_REQUIRED. */
  get keyring(): Keyring {
    if (!this.isSealed) throw notSealed(this.path);
    return this.#keyring ?? refuseLocked();
  }

  /** The id of the key that opened it. ERR_NOT_SEALED, ERR_KEY_REQUIRED. */
  get openedWith(): string {
    if (!this.isSealed) throw notSealed(this.path);
    return this.#openedWith ?? refuseLocked();
  }

  /** ERR_KEY_WRITE_ONLY or ERR_KEY_REQUIRED unless it was opened with a key that reads; `action` is what cannot be done. */
  requireReader(action: string): void {
    if (!this.canRead) throw this.keyring.refusal(action);
  }

  /**
   * Makes a repository in a folder that is empty or not there yet. ERR_REPOSITORY_EXISTS if there is one, ERR_EXISTS if the folder
   * holds anything else. The config is written last, and of two who init at a time one alone succeeds with it; an init that died can
   * be run again.
   */
  static async create(path: string, options: CreateOptions = {}): Promise<Repository> {
    const { like, passphrase } = options;
    if (like?.sealed === true && (passphrase === undefined || like.idKey === undefined)) {
      throw firnError('ERR_INVALID_ARGUMENT', 'A sibling of a sealed repository has to be sealed');
    }
    const idKey = like?.idKey ?? randomBytes(32).toString('hex');
    const config: ConfigObject = {
      type: 'config',
      version: FORMAT_VERSION,
      repositoryId: newId(),
      created: new Date().toISOString(),
      ...(passphrase === undefined && { idKey }),
      chunking: like?.chunking ?? chunkingObject(resolveChunking(options.chunking)),
      sealed: passphrase !== undefined,
    };
    const content = encodeObject(config);
    const store = new DirectoryStore(path);
    await refuseOccupied(store.root);
    await store.prepare(FOLDERS);
    const keyring =
      passphrase && Keyring.create(blake3(content), Buffer.from(idKey, 'hex'), randomBytes(32));
    const repository = new Repository(store.root, store, config, keyring);
    if (passphrase !== undefined) {
      const cost = options.scryptCost;
      const { id } = await repository.addKey(passphrase, { capability: 'full', cost });
      repository.#openedWith = id;
    }
    try {
      await store.putNew(CONFIG_NAME, encodeRecord('object', undefined, content));
    } catch (error) {
      if (isCode(error, 'ERR_EXISTS')) throw repositoryExists(store.root);
      throw error;
    }
    return repository;
  }

  /**
   * ERR_REPOSITORY_NOT_FOUND, ERR_VERSION for a newer format, ERR_CORRUPT_OBJECT; for a sealed repository ERR_KEY_REQUIRED, ERR_KEY_WRONG,
   * ERR_TAMPERED. `store` is the folder's when not given.
   */
  static async open(path: string, store?: Store, access: Access = {}): Promise<Repository> {
    const directory = new DirectoryStore(path);
    const used = store ?? directory;
    const found = await readConfig(path, used);
    const { keyring, keyId, memory } = await unlock(directory.root, used, found, access);
    const repository = new Repository(directory.root, used, found.config, keyring, memory);
    repository.#openedWith = keyId;
    return repository;
  }

  /** A repository for what needs no key: its packs' checksums, its keys' names. Everything else fails with ERR_KEY_REQUIRED. */
  static async openLocked(path: string, store?: Store): Promise<Repository> {
    const directory = new DirectoryStore(path);
    const { config } = await readConfig(path, store ?? directory);
    return new Repository(directory.root, store ?? directory, config);
  }

  /** The keys that open it, oldest first. Who sees the repository sees these, and not what is in them. */
  async listKeys(): Promise<KeyObject[]> {
    return readKeys(this.store);
  }

  /** Adds a key that this passphrase opens, durably. */
  async addKey(
    passphrase: Passphrase,
    options: Parameters<typeof wrapInPassphrase>[3],
  ): Promise<KeyObject> {
    const key = await wrapInPassphrase(this.keyring, this.id, passphrase, options);
    await writeKey(this.store, key);
    return key;
  }

  /** The id of a new run that writes packs. */
  newRun(): string {
    return this.isSealed ? this.keyring.newRun() : newId();
  }

  /** What opens the records of a pack that `packs` has listed; undefined if nothing is sealed. */
  packOpener(pack: string): RecordOpener | undefined {
    return this.isSealed ? this.keyring.packOpener(writerOfPack(pack)) : undefined;
  }

  /**
   * The sealed points, oldest first. A point that cannot be read is handed to `onDamaged` and left out; without that it is thrown.
   */
  async points(onDamaged?: OnDamaged): Promise<PointObject[]> {
    this.requireReader('list points');
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
    return points.sort(byOrder);
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
    await this.#objects.putNew(`pending/${point.id}`, point);
  }

  async removePending(id: string): Promise<void> {
    await this.store.delete(`pending/${id}`);
  }

  /** Makes a point one. Only after every object that it names is durable, and the protocol's checks have passed. */
  async seal(point: PointObject): Promise<void> {
    await this.#objects.putNew(`points/${point.id}`, point);
  }

  /**
   * Takes a sealed point away, durably; its chunks are a later collection's to clear. Labels are not looked at: that, and the order in which
   * it is safe, is forgetPoint's.
   */
  async removePoint(id: string): Promise<void> {
    this.requireReader('forget points');
    if (!isId(id)) return;
    await this.store.delete(`points/${id}`);
    await this.#memory?.forget(id);
  }

  /** Names of all labels, "POINT-LABEL". */
  async labels(): Promise<string[]> {
    return (await this.store.list('labels')).filter(isLabelName).sort();
  }

  /** A label by its name. ERR_NOT_FOUND, ERR_CORRUPT_OBJECT, ERR_VERSION. */
  async readLabel(name: string): Promise<LabelObject> {
    const path = `labels/${name}`;
    const content = await this.#objects.get(path);
    return withPath(path, () => parseLabel(content, name));
  }

  /** Writes a label, durably. */
  async writeLabel(label: LabelObject): Promise<void> {
    await this.#objects.putNewIn('labels', labelName(label), label);
  }

  async removeLabel(name: string): Promise<void> {
    this.requireReader('remove labels');
    await this.store.delete(`labels/${name}`);
  }

  /** A scrub's record of packs that it has read. ERR_NOT_FOUND, ERR_CORRUPT_OBJECT, ERR_VERSION. */
  async readChecks(id: string): Promise<ChecksObject> {
    const content = await this.#objects.get(`checks/${id}`);
    return withPath(`checks/${id}`, () => parseChecks(content, id));
  }

  async writeChecks(checks: ChecksObject): Promise<void> {
    await this.#objects.putNewIn('checks', checks.id, checks);
  }

  /** A scrub's record of damage in a pack. ERR_NOT_FOUND, ERR_CORRUPT_OBJECT, ERR_VERSION. */
  async readDamage(id: string): Promise<DamageObject> {
    const content = await this.#objects.get(`damage/${id}`);
    return withPath(`damage/${id}`, () => parseDamage(content, id));
  }

  async writeDamage(damage: DamageObject): Promise<void> {
    await this.#objects.putNewIn('damage', damage.id, damage);
  }

  async removeRecord(folder: 'checks' | 'damage', id: string): Promise<void> {
    await this.store.delete(`${folder}/${id}`);
  }

  /**
   * All that is known of damaged copies. To be asked for after the packs were listed: who sees a copy that was written because another is
   * damaged then sees why. Records that cannot be read are left out: without them a copy is believed that is not to be, as before any scrub.
   */
  async knownDamage(): Promise<DamageObject[]> {
    const found: DamageObject[] = [];
    for (const id of await this.listIds('damage')) {
      try {
        found.push(await this.readDamage(id));
      } catch (error) {
        if (!isFirnError(error)) throw error;
      }
    }
    return found;
  }

  /**
   * The generation's token; empty before the first collection. If it is damaged, a token that equals no other: who cannot tell whether it
   * moved must look whether packs went, which is always right.
   */
  async generation(): Promise<string> {
    const turn = this.#generationTurn.then(() => this.#readSeenGeneration());
    this.#generationTurn = turn.catch(() => {});
    try {
      return await turn;
    } catch (error) {
      if (isCode(error, 'ERR_CORRUPT_OBJECT')) return newId();
      throw error;
    }
  }

  async #readSeenGeneration(): Promise<string> {
    const token = await orIfMissing('', () => this.#readGeneration());
    await this.#memory?.seeGeneration(token);
    return token;
  }

  /** Moves the generation to a token never used before: packs have been deleted. */
  async moveGeneration(): Promise<void> {
    this.requireReader('collect');
    await this.#objects.replace(GENERATION_NAME, { type: 'generation', token: newId() });
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
    this.requireReader('collect');
    const id = newId();
    await this.#objects.putNew(`condemned/${id}`, { type: 'condemned', id, packs: [...packs] });
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
    const packs = files
      .map(packOfFile)
      .filter((pack) => pack !== undefined)
      .sort();
    if (this.#keyring !== undefined) await this.#learnRuns(this.#keyring, packs);
    return packs;
  }

  /** Names of the objects in a folder. */
  async listIds(folder: ObjectFolder): Promise<string[]> {
    return (await this.store.list(folder)).filter(isId).sort();
  }

  /**
   * Steps 1 to 4 of a writer, which are a reader's too: the generation, then the condemned sets, then index runs, and packs last. A pack
   * that is listed after the sets were read and is in none of them was not condemned when the work began. What is known of damage comes
   * after all of them. `onDamaged` as in condemnedPacks: a reader goes on without the set, as it does not rely on it.
   */
  async view(onDamaged?: OnDamaged): Promise<RepositoryView> {
    const generation = await this.generation();
    const condemned = [...(await this.condemnedPacks(onDamaged))].sort();
    const indexRuns = await this.indexRuns();
    const packs = await this.packs();
    const damaged = nativeDamage(await this.knownDamage());
    return { generation, native: { ...this.nativeBasis(), indexRuns, packs, condemned, damaged } };
  }

  /** What a native job needs of the repository besides the lists. */
  nativeBasis(): Pick<NativeRepository, 'root' | 'idKey' | 'chunking' | 'seal'> {
    const basis = { root: this.path, chunking: nativeChunking(this.config.chunking) };
    if (!this.isSealed) return { ...basis, idKey: this.idKey };
    // Stored bytes are checked without an id.
    if (this.#keyring === undefined) return { ...basis, idKey: '0'.repeat(64), seal: LOCKED_SEAL };
    return { ...basis, idKey: this.idKey, seal: this.#keyring.native() };
  }

  /** Names of all object files; the generation's also before there is one. */
  async objects(): Promise<string[]> {
    const names: string[] = [CONFIG_NAME, GENERATION_NAME];
    for (const folder of ['points', 'pending', 'condemned', 'checks', 'damage'] as const) {
      for (const id of await this.listIds(folder)) names.push(`${folder}/${id}`);
    }
    for (const label of await this.labels()) names.push(`labels/${label}`);
    for (const id of await this.listIds('keys')) names.push(`keys/${id}`);
    return names;
  }

  /** Reads an object file by its name and checks everything in it. ERR_CORRUPT_OBJECT; false if it is gone. */
  async checkObject(name: string): Promise<boolean> {
    const [folder = '', id = ''] = name.split('/');
    const check = {
      config: () => readConfig(this.path, this.store),
      keys: () => readKey(this.store, id),
      generation: () => this.#readGeneration(),
      points: () => this.readPoint(id),
      pending: () => this.readPending(id),
      condemned: () => this.#readCondemned(id),
      labels: () => this.readLabel(id),
      checks: () => this.readChecks(id),
      damage: () => this.readDamage(id),
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

  /** The keys of runs that write-only keys wrote, from the first pack of each that tells. */
  async #learnRuns(keyring: Keyring, packs: readonly string[]): Promise<void> {
    for (const pack of packs) {
      const { run } = writerOfPack(pack);
      if (!keyring.needsRun(run)) continue;
      const tail = await readPublicTail(joinPath(this.path, packFile(pack)), run);
      if (tail !== undefined) keyring.learnRun(run, tail);
    }
  }

  async #readGeneration(): Promise<string> {
    const content = await this.#objects.get(GENERATION_NAME);
    return withPath(GENERATION_NAME, () => parseGeneration(content).token);
  }

  async #readCondemned(id: string): Promise<string[]> {
    const name = `condemned/${id}`;
    const content = await this.#objects.get(name);
    return withPath(name, () => parseCondemned(content, id).packs);
  }

  async #readPointFrom(folder: 'points' | 'pending', id: string): Promise<PointObject> {
    const name = `${folder}/${id}`;
    try {
      // An id may come from a user: it must not lead out of the folder.
      if (!isId(id)) throw firnError('ERR_NOT_FOUND', `"${id}" is not the id of a point`);
      const content = await this.#objects.get(name);
      if (folder === 'points' && this.#memory?.hasForgotten(id) === true) {
        throw firnError('ERR_REPLAYED', `${name} was forgotten, and has been put back`, {
          path: name,
        });
      }
      return withPath(name, () => parsePoint(content, id));
    } catch (error) {
      if (!isCode(error, 'ERR_NOT_FOUND')) throw error;
      throw firnError('ERR_POINT_NOT_FOUND', `No point ${id}`, { cause: error });
    }
  }
}

function refuseLocked(): never {
  throw firnError('ERR_KEY_REQUIRED', 'The repository is sealed, and no passphrase was given');
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
