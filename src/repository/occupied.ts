/** Where a repository may be made: in a folder that is not there, is empty, or has what an init that died has left. */

import { readdir } from 'node:fs/promises';
import { type FirnError, firnError, fromFileSystem } from '../errors.js';
import { CONFIG_NAME, FOLDERS, isId, isUnfinished } from './format/names.js';
import { DirectoryStore } from './stores/directory.js';

/** ERR_REPOSITORY_EXISTS if there is one, ERR_EXISTS if the folder holds anything else. Changes nothing. */
export async function refuseOccupied(root: string): Promise<void> {
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
    const files = isOurs ? await store.list(name) : [name];
    // So is a key, written before the config: it stays, as it opens no config but that one.
    if (files.some((file) => name !== 'keys' || !isId(file))) {
      throw firnError('ERR_EXISTS', `${root} is not empty: it holds "${name}"`, { path: root });
    }
  }
}

export function repositoryExists(root: string): FirnError {
  return firnError('ERR_REPOSITORY_EXISTS', `${root} is a repository already`, { path: root });
}
