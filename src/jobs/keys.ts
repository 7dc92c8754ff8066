/**
 * The keys of a sealed repository: added, replaced and taken away.
 *
 * Each key wraps the same secrets, so who once had a full key and kept a copy of the secrets is not locked out by its removal; against that
 * helps a new repository alone (docs/security.md).
 */

import { firnError } from '../errors.js';
import type { KeyObject } from '../repository/format/objects.js';
import { Repository } from '../repository/repository.js';
import { readKey, writeKey } from '../repository/seal/access.js';
import {
  type NewKeyOptions,
  type Passphrase,
  wrapInRecoveryKey,
} from '../repository/seal/key-objects.js';

/** Adds a key that this passphrase opens. */
export async function addKey(
  repository: Repository,
  passphrase: Passphrase,
  options: NewKeyOptions,
): Promise<KeyObject> {
  repository.requireReader('make keys');
  return repository.addKey(passphrase, options);
}

/** Adds a recovery key. Its text is in the result, and nowhere else. */
export async function addRecoveryKey(
  repository: Repository,
): Promise<{ key: KeyObject; text: string }> {
  repository.requireReader('make keys');
  const made = wrapInRecoveryKey(repository.keyring, repository.id);
  await writeKey(repository.store, made.key);
  return made;
}

/** Takes a key away. `selector` is its id or the beginning of it. ERR_INVALID_ARGUMENT for the key that opened the repository. */
export async function removeKey(repository: Repository, selector: string): Promise<KeyObject> {
  repository.requireReader('remove keys');
  const keys = await repository.listKeys();
  const key = chooseKey(keys, selector);
  // So a key that opens the repository always stays.
  if (key.id === repository.openedWith) {
    throw firnError('ERR_INVALID_ARGUMENT', 'The key that is used cannot be removed', {
      hint: 'Open the repository with another key for that, or use "firn key rotate".',
    });
  }
  await repository.store.delete(`keys/${key.id}`);
  return key;
}

/**
 * Replaces the key that opened the repository by one of another passphrase. The old one goes after the new one has been seen to open it.
 */
export async function rotateKey(
  repository: Repository,
  passphrase: Passphrase,
  options: Pick<NewKeyOptions, 'cost'> = {},
): Promise<{ added: KeyObject; removed: KeyObject }> {
  const removed = await readKey(repository.store, repository.openedWith);
  const { capability, label } = removed;
  repository.requireReader('make keys');
  const added = await repository.addKey(passphrase, { capability, label, ...options });
  await Repository.open(repository.path, repository.store, { passphrase });
  await repository.store.delete(`keys/${removed.id}`);
  return { added, removed };
}

function chooseKey(keys: readonly KeyObject[], selector: string): KeyObject {
  const found = keys.filter(({ id }) => id.startsWith(selector.toLowerCase()));
  const [key] = found;
  if (key !== undefined && found.length === 1) return key;
  throw found.length > 1
    ? firnError('ERR_INVALID_ARGUMENT', `${found.length} keys begin with "${selector}"`)
    : firnError('ERR_NOT_FOUND', `No key ${selector}`, { hint: 'Run "firn key list".' });
}
