/**
 * Key objects: a keyring wrapped so that a passphrase or a recovery key opens it. docs/repository-format.md section 12.
 *
 * A passphrase is made costly to guess by scrypt, whose parameters stand in the object. A recovery key is 256 random bits, which nobody
 * guesses, so it is used as it is. Either gives a key that wraps once and never again, as its salt is new each time.
 */

import { randomBytes, scrypt } from 'node:crypto';
import { firnError } from '../../errors.js';
import { openBytes, sealBytes } from '../format/aead.js';
import { blake3, deriveKeyFrom, KEY_BYTES } from '../format/keys.js';
import { FORMAT_VERSION } from '../format/members.js';
import { newId } from '../format/names.js';
import type { KeyObject } from '../format/objects.js';
import { type Capability, Keyring } from './keyring.js';
import { formatRecoveryKey, newRecoverySecret, parseRecoveryKey } from './recovery-key.js';

/** About a third of a second and 128 MiB for each guess. */
const SCRYPT_DEFAULT = { cost: 2 ** 17, blockSize: 8, parallelization: 1 };
const SALT_BYTES = 16;
const CHECK_BYTES = 8;

/** What opens a key: kept in a buffer so that it can be overwritten. */
export type Passphrase = Buffer;

export interface NewKeyOptions {
  capability: Capability;
  label?: string | undefined;
  /** scrypt's N, a power of two; for tests, and for machines with little memory. */
  cost?: number | undefined;
}

/** A key object that `passphrase` opens. ERR_INVALID_ARGUMENT for an empty passphrase. */
export async function wrapInPassphrase(
  keyring: Keyring,
  repositoryId: string,
  passphrase: Passphrase,
  { cost = SCRYPT_DEFAULT.cost, ...options }: NewKeyOptions,
): Promise<KeyObject> {
  if (passphrase.length === 0) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected a passphrase, and it is empty');
  }
  if (parseRecoveryKey(passphrase.toString('utf8')) !== undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', 'A recovery key cannot be a passphrase');
  }
  const parameters = { ...SCRYPT_DEFAULT, cost };
  const salt = randomBytes(SALT_BYTES);
  const wrapping = await stretch(passphrase, salt, parameters);
  return wrap(keyring, repositoryId, wrapping, {
    ...options,
    unlock: 'passphrase',
    salt: salt.toString('hex'),
    scrypt: parameters,
  });
}

/** A key object that a new recovery key opens, and that key's text, which is nowhere else. */
export function wrapInRecoveryKey(
  keyring: Keyring,
  repositoryId: string,
): { key: KeyObject; text: string } {
  const secret = newRecoverySecret();
  const salt = randomBytes(SALT_BYTES);
  const key = wrap(keyring, repositoryId, recoveryWrapping(secret, salt), {
    capability: 'full',
    unlock: 'recovery',
    salt: salt.toString('hex'),
  });
  const text = formatRecoveryKey(secret);
  secret.fill(0);
  return { key, text };
}

/**
 * The keyring that one of `keys` holds for this passphrase, and which. ERR_KEY_WRONG if none opens; ERR_TAMPERED if one is meant for it
 * and does not open.
 */
export async function unwrapAny(
  keys: readonly KeyObject[],
  repositoryId: string,
  configHash: Buffer,
  passphrase: Passphrase,
): Promise<{ keyring: Keyring; id: string }> {
  const recovery = parseRecoveryKey(passphrase.toString('utf8'));
  const unlock = recovery === undefined ? 'passphrase' : 'recovery';
  let isOfOther = false;
  for (const key of keys.filter((each) => each.unlock === unlock)) {
    const salt = Buffer.from(key.salt, 'hex');
    const wrapping =
      recovery === undefined
        ? await stretch(passphrase, salt, key.scrypt as typeof SCRYPT_DEFAULT)
        : recoveryWrapping(recovery, salt);
    const payload = unwrap(key, repositoryId, wrapping);
    if (payload === undefined) continue;
    const keyring = Keyring.read(payload);
    payload.fill(0);
    if (keyring.configHash.equals(configHash)) return { keyring, id: key.id };
    keyring.wipe();
    isOfOther = true;
  }
  if (isOfOther) {
    throw firnError('ERR_TAMPERED', 'The config is not the one that this key was made for', {
      path: 'config',
    });
  }
  const what = recovery === undefined ? 'passphrase' : 'recovery key';
  throw firnError('ERR_KEY_WRONG', `No key of this repository opens with the given ${what}`);
}

type Head = Omit<
  KeyObject,
  'type' | 'version' | 'id' | 'created' | 'check' | 'wrapped' | 'label'
> & {
  label?: string | undefined;
};

function wrap(
  keyring: Keyring,
  repositoryId: string,
  wrapping: Buffer,
  { label, ...head }: Head,
): KeyObject {
  const id = newId();
  const payload = keyring.payload(head.capability);
  const wrapped = sealBytes(wrapping, 0n, associatedOf(head, id, repositoryId), payload);
  payload.fill(0);
  const check = checkOf(wrapping);
  wrapping.fill(0);
  return {
    type: 'key',
    version: FORMAT_VERSION,
    id,
    created: new Date().toISOString(),
    ...head,
    ...(label !== undefined && { label }),
    check,
    wrapped: wrapped.toString('hex'),
  };
}

/** The payload, or undefined if the key is for another passphrase. */
function unwrap(key: KeyObject, repositoryId: string, wrapping: Buffer): Buffer | undefined {
  const isMeant = checkOf(wrapping) === key.check;
  const associated = associatedOf(key, key.id, repositoryId);
  const payload = openBytes(wrapping, 0n, associated, Buffer.from(key.wrapped, 'hex'));
  wrapping.fill(0);
  if (payload === undefined && isMeant) {
    const path = `keys/${key.id}`;
    throw firnError('ERR_TAMPERED', `${path} is not what was wrapped in this passphrase`, { path });
  }
  return payload;
}

function associatedOf(
  { capability, unlock }: Pick<KeyObject, 'capability' | 'unlock'>,
  id: string,
  repositoryId: string,
): Buffer {
  return Buffer.from(`firn key ${repositoryId} ${id} ${capability} ${unlock}`, 'utf8');
}

function checkOf(wrapping: Buffer): string {
  return blake3(Buffer.from('firn 2026-11 key check'), wrapping)
    .subarray(0, CHECK_BYTES)
    .toString('hex');
}

function recoveryWrapping(secret: Buffer, salt: Buffer): Buffer {
  return deriveKeyFrom('firn 2026-11 recovery key', Buffer.concat([secret, salt]));
}

function stretch(
  passphrase: Passphrase,
  salt: Buffer,
  { cost, blockSize, parallelization }: typeof SCRYPT_DEFAULT,
): Promise<Buffer> {
  const maxmem = 128 * blockSize * (cost + parallelization) + 2 ** 20;
  return new Promise((resolve, reject) => {
    scrypt(
      passphrase,
      salt,
      KEY_BYTES,
      { N: cost, r: blockSize, p: parallelization, maxmem },
      (error, key) => (error === null ? resolve(key) : reject(error)),
    );
  });
}
