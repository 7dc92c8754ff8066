/**
 * The object files of an open repository, as records: their ids checked, and in a sealed repository opened and sealed.
 *
 * What is inside them is the business of format/objects.ts.
 */

import { firnError, isFirnError } from '../errors.js';
import type { RepositoryKeys } from './format/keys.js';
import { encodeObject } from './format/objects.js';
import { decodeRecord, encodeRecord } from './format/record.js';
import { kindOf, withoutPlace, withPath } from './seal/access.js';
import type { Keyring } from './seal/keyring.js';
import { DirectoryStore } from './stores/directory.js';
import type { Store } from './stores/store.js';

export type ObjectContent = Parameters<typeof encodeObject>[0];

export class ObjectFiles {
  readonly #store: Store;
  readonly #keys: RepositoryKeys | undefined;
  readonly #keyring: Keyring | undefined;

  /** Without keys, which only a sealed repository can be opened without, everything is ERR_KEY_REQUIRED. */
  constructor(store: Store, keys: RepositoryKeys | undefined, keyring: Keyring | undefined) {
    this.#store = store;
    this.#keys = keys;
    this.#keyring = keyring;
  }

  /** The content of an object. ERR_NOT_FOUND, ERR_CORRUPT_OBJECT, ERR_TAMPERED, ERR_SWAPPED, ERR_KEY_WRITE_ONLY. */
  async get(name: string): Promise<Buffer> {
    const key = this.#idKey();
    const record = await this.#store.get(name);
    return withPath(name, () => {
      const opener = this.#keyring?.objectOpener(kindOf(name));
      const { content } = decodeRecord(record, 'object', key, opener);
      return opener === undefined ? content : withoutPlace(name, content);
    });
  }

  async putNew(name: string, object: ObjectContent): Promise<void> {
    await this.#store.putNew(name, this.#encode(name, object));
  }

  /** The same in a folder that is younger than format version 1. */
  async putNewIn(
    folder: 'labels' | 'checks' | 'damage',
    file: string,
    object: ObjectContent,
  ): Promise<void> {
    const name = `${folder}/${file}`;
    try {
      await this.putNew(name, object);
    } catch (error) {
      const isMissing = isFirnError(error) && error.code === 'ERR_NOT_FOUND';
      if (!isMissing || !(this.#store instanceof DirectoryStore)) throw error;
      await this.#store.prepare([folder]);
      await this.putNew(name, object);
    }
  }

  async replace(name: string, object: ObjectContent): Promise<void> {
    await this.#store.replace(name, this.#encode(name, object));
  }

  #encode(name: string, object: ObjectContent): Buffer {
    const key = this.#idKey();
    if (this.#keyring === undefined) return encodeRecord('object', key, encodeObject(object));
    const content = encodeObject(Object.assign({}, object, { at: name }));
    return encodeRecord('object', key, content, this.#keyring.objectSealer(kindOf(name)));
  }

  #idKey(): Uint8Array {
    if (this.#keys !== undefined) return this.#keys.object;
    throw firnError('ERR_KEY_REQUIRED', 'The repository is sealed, and no passphrase was given');
  }
}
