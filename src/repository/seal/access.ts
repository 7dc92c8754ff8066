/**
 * How a repository is opened: its config, its key objects, and what must not pass for what.
 *
 * These read objects that are not sealed, as there is nothing yet to open them with.
 */

import { type FirnError, firnError, isFirnError } from '../../errors.js';
import { blake3 } from '../format/keys.js';
import { CONFIG_NAME, isId } from '../format/names.js';
import {
  type ConfigObject,
  encodeObject,
  type KeyObject,
  parseConfig,
  parseKey,
} from '../format/objects.js';
import { decodeRecord, encodeRecord } from '../format/record.js';
import type { Store } from '../stores/store.js';
import { type Passphrase, unwrapAny } from './key-objects.js';
import type { Keyring, ObjectKind } from './keyring.js';
import { RepositoryMemory } from './memory.js';

/** How a sealed repository is opened. */
export interface Access {
  /**
   * The passphrase, or a recovery key. A function is asked only if the repository is sealed. A passphrase that is given for a repository
   * that is not sealed is ERR_NOT_SEALED.
   */
  passphrase?: Passphrase | (() => Promise<Passphrase | undefined>) | undefined;
  /** The folder where this computer remembers what it saw of sealed repositories (memory.ts). */
  memory?: string | undefined;
}

/** The config and the hash of its content. ERR_REPOSITORY_NOT_FOUND, ERR_VERSION, ERR_CORRUPT_OBJECT. */
export async function readConfig(
  path: string,
  store: Store,
): Promise<{ config: ConfigObject; hash: Buffer }> {
  let record: Buffer;
  try {
    record = await store.get(CONFIG_NAME);
  } catch (error) {
    if (!isFirnError(error) || error.code !== 'ERR_NOT_FOUND') throw error;
    throw firnError('ERR_REPOSITORY_NOT_FOUND', `${path} holds no repository`, {
      path,
      cause: error,
    });
  }
  return withPath(CONFIG_NAME, () => {
    const { content } = decodeRecord(record, 'object', undefined);
    return { config: parseConfig(content), hash: blake3(content) };
  });
}

/** Opens a sealed repository, or makes sure that the other kind is meant: then there is nothing to open it with. */
export async function unlock(
  root: string,
  store: Store,
  { config, hash }: { config: ConfigObject; hash: Buffer },
  { passphrase: given, memory: folder }: Access,
): Promise<{ keyring?: Keyring; keyId?: string; memory?: RepositoryMemory }> {
  if (config.sealed !== true) {
    if (given !== undefined && typeof given !== 'function') throw notSealed(root);
    if (folder !== undefined) await refuseForgery(root, folder);
    return {};
  }
  const passphrase = typeof given === 'function' ? await given() : given;
  if (passphrase === undefined) {
    throw firnError('ERR_KEY_REQUIRED', `${root} is sealed, and no passphrase was given`, {
      path: root,
    });
  }
  const { keyring, id: keyId } = await unwrapAny(
    await readKeys(store),
    config.repositoryId,
    hash,
    passphrase,
  );
  if (folder === undefined) return { keyring, keyId };
  return { keyring, keyId, memory: await RepositoryMemory.of(folder, root, config.repositoryId) };
}

/** A repository that is not sealed must not pass for one that is: what is meant for it would be stored for all to read. */
async function refuseForgery(root: string, folder: string): Promise<void> {
  const file = await RepositoryMemory.wasSealed(folder, root);
  if (file === undefined) return;
  throw firnError('ERR_TAMPERED', `${root} was sealed, and its config says now that it is not`, {
    path: CONFIG_NAME,
    hint: `If you made a new repository there yourself, remove ${file}.`,
  });
}

export function notSealed(path: string): FirnError {
  return firnError('ERR_NOT_SEALED', `${path} is not sealed, and a passphrase was given`, { path });
}

export async function readKey(store: Store, id: string): Promise<KeyObject> {
  const name = `keys/${id}`;
  const record = await store.get(name);
  return withPath(name, () => parseKey(decodeRecord(record, 'object', undefined).content, id));
}

/** All key objects, oldest first. One that is damaged is left out if there is another: any of them opens the repository. */
export async function readKeys(store: Store): Promise<KeyObject[]> {
  const keys: KeyObject[] = [];
  let failure: FirnError | undefined;
  for (const id of (await store.list('keys')).filter(isId).sort()) {
    try {
      keys.push(await readKey(store, id));
    } catch (error) {
      if (!isFirnError(error)) throw error;
      failure ??= error;
    }
  }
  if (keys.length === 0 && failure !== undefined) throw failure;
  return keys.sort((a, b) => Date.parse(a.created) - Date.parse(b.created));
}

export async function writeKey(store: Store, key: KeyObject): Promise<void> {
  await store.putNew(`keys/${key.id}`, encodeRecord('object', undefined, encodeObject(key)));
}

/** Who may read an object of a sealed repository: every writer, or only who reads what is stored. */
export function kindOf(name: string): ObjectKind {
  return /^(points|pending|labels)\//.test(name) ? 'content' : 'state';
}

/** The content of a sealed object without the name that it was written under, which must be the one that it was found under. */
export function withoutPlace(name: string, content: Buffer): Buffer {
  const { at, ...object } = JSON.parse(content.toString('utf8')) as { at?: unknown };
  if (at === name) return Buffer.from(JSON.stringify(object), 'utf8');
  throw firnError('ERR_SWAPPED', `It is the object ${String(at)}, put in the place of another`);
}

/** Runs a check of an object's content, and says in its failure which object that is. */
export function withPath<Result>(name: string, check: () => Result): Result {
  try {
    return check();
  } catch (error) {
    if (!isFirnError(error) || error.path !== undefined) throw error;
    throw firnError(error.code, `${name}: ${error.message}`, { path: name, cause: error });
  }
}
