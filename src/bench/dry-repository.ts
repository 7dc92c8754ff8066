/** A repository in memory that holds its own configuration and refuses everything else: for measuring backups that store nothing. */

import { firnError } from '../errors.js';
import { newId } from '../repository/format/names.js';
import { encodeObject } from '../repository/format/objects.js';
import { encodeRecord } from '../repository/format/record.js';
import { Repository } from '../repository/repository.js';
import type { Store } from '../repository/stores/store.js';

const CONFIG_NAME = 'config';
const PLACE = '(in memory)';

export async function dryRepository(): Promise<Repository> {
  const config = encodeRecord(
    'object',
    undefined,
    encodeObject({
      type: 'config',
      version: 1,
      repositoryId: newId(),
      created: new Date().toISOString(),
      idKey: '0'.repeat(64),
      chunking: { scheme: 'content', minPages: 8, averagePages: 16, maxPages: 64 },
    }),
  );
  return Repository.open(PLACE, new ConfigStore(config));
}

class ConfigStore implements Store {
  readonly #config: Buffer;

  constructor(config: Buffer) {
    this.#config = config;
  }

  async get(name: string): Promise<Buffer> {
    if (name === CONFIG_NAME) return this.#config;
    throw firnError('ERR_NOT_FOUND', `no ${name}`, { path: name });
  }

  async putNew(name: string): Promise<void> {
    throw refusal(name);
  }

  async replace(name: string): Promise<void> {
    throw refusal(name);
  }

  async list(): Promise<string[]> {
    return [];
  }

  async delete(name: string): Promise<void> {
    throw refusal(name);
  }
}

function refusal(name: string) {
  return firnError('ERR_INTERNAL', `A backup that stores nothing wrote ${name}`);
}
