/**
 * Where the objects of a repository lie: names with "/" between folder and file, whole contents, no partial reads.
 *
 * The control plane reads and writes its small objects through this; packs and index runs are written and read natively, and only
 * listed and deleted here. A store promises what the commit protocol needs and nothing more: a read and a listing show every
 * write that was acknowledged before they began, and nothing appears under its name before it is whole and durable. There are no
 * locks and no compare-and-swap. Every method is safe to call at the same time from any number of processes.
 *
 * Any method may also fail with ERR_ACCESS_DENIED, ERR_READ or ERR_WRITE.
 */
export interface Store {
  /** The whole content. ERR_NOT_FOUND if there is none; ERR_CORRUPT_OBJECT if it is longer than an object can be. */
  get(name: string): Promise<Buffer>;

  /**
   * Writes a new object, durable when it resolves. ERR_EXISTS if the name is taken: nothing is ever overwritten. After any other failure
   * (ERR_DISK_FULL, ERR_WRITE) the name is free, or holds the whole content; never a part of it.
   */
  putNew(name: string, content: Uint8Array): Promise<void>;

  /** Replaces an object at once, for "generation" alone. After a failure it holds the old content or the new. */
  replace(name: string, content: Uint8Array): Promise<void>;

  /**
   * Names of all files below a folder, relative to it, in no particular order; files that are still being written are left out. A folder
   * that is not there is empty.
   */
  list(folder: string): Promise<string[]>;

  /** Deletes an object; one that is not there is deleted already. */
  delete(name: string): Promise<void>;
}
