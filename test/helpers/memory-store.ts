import { firnError } from '../../src/errors.js';
import type { Store } from '../../src/repository/stores/store.js';

/** A store in memory, for tests that interleave steps or make them fail. Every call is one atomic step. */
export class MemoryStore implements Store {
  readonly objects = new Map<string, Buffer>();

  async get(name: string): Promise<Buffer> {
    const content = this.objects.get(name);
    if (content === undefined) throw firnError('ERR_NOT_FOUND', `no ${name}`);
    return content;
  }

  async putNew(name: string, content: Uint8Array): Promise<void> {
    if (this.objects.has(name)) throw firnError('ERR_EXISTS', `${name} exists`);
    this.objects.set(name, Buffer.from(content));
  }

  async replace(name: string, content: Uint8Array): Promise<void> {
    this.objects.set(name, Buffer.from(content));
  }

  async list(folder: string): Promise<string[]> {
    const prefix = `${folder}/`;
    return [...this.objects.keys()]
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length));
  }

  async delete(name: string): Promise<void> {
    this.objects.delete(name);
  }
}

/** What a wrapped store does around each call. */
export type Around = (
  method: keyof Store,
  name: string,
  call: () => Promise<unknown>,
) => Promise<unknown>;

/** The same store with `around` at each of its calls. */
export function wrapStore(store: Store, around: Around): Store {
  return {
    get: (name) => around('get', name, () => store.get(name)) as Promise<Buffer>,
    putNew: (name, content) =>
      around('putNew', name, () => store.putNew(name, content)) as Promise<void>,
    replace: (name, content) =>
      around('replace', name, () => store.replace(name, content)) as Promise<void>,
    list: (folder) => around('list', folder, () => store.list(folder)) as Promise<string[]>,
    delete: (name) => around('delete', name, () => store.delete(name)) as Promise<void>,
  };
}
