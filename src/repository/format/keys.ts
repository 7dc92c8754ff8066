/**
 * BLAKE3 and the keys that a repository derives from its id key. docs/repository-format.md section 2.
 *
 * The only file that knows which BLAKE3 is used. It is not the addon's: rescue must work where no addon can be built, on any platform, and
 * a second implementation is a check of the first. This one is JavaScript that makes its own WebAssembly for long inputs, and has all
 * three modes; hash-wasm has no derive_key, and @noble/hashes has a tenth of the speed.
 */

import { createDeriveKey, createHasher, createKeyed, type Hasher, hash } from 'blake3-jit';
import { firnError } from '../../errors.js';

export const KEY_BYTES = 32;
export const ID_BYTES = 32;

/** What a record's id is made with, by its class, and what decides where chunks end. */
export interface RepositoryKeys {
  readonly chunk: Uint8Array;
  readonly map: Uint8Array;
  readonly object: Uint8Array;
  readonly cutSeed: bigint;
}

/** The keys of a repository. `idKey` is the config's, 32 bytes. */
export function deriveKeys(idKey: Uint8Array): RepositoryKeys {
  return {
    chunk: requireKey(idKey),
    map: deriveKey('firn 2026-11 map id', idKey),
    object: deriveKey('firn 2026-11 object id', idKey),
    cutSeed: deriveKey('firn 2026-11 cut seed', idKey).readBigUInt64LE(0),
  };
}

/** H(data), or with a key H_key(data): 32 bytes. */
export function blake3(data: Uint8Array, key?: Uint8Array): Buffer {
  return asBuffer(
    key === undefined ? hash(data) : createKeyed(requireKey(key)).update(data).finalize(),
  );
}

/** H of content that comes in pieces. */
export class Blake3 {
  readonly #hasher: Hasher = createHasher();

  update(piece: Uint8Array): void {
    this.#hasher.update(piece);
  }

  digest(): Buffer {
    return asBuffer(this.#hasher.finalize());
  }
}

/** KDF(context, key): 32 bytes. */
export function deriveKey(context: string, key: Uint8Array): Buffer {
  return deriveKeyFrom(context, requireKey(key));
}

/** KDF(context, material) for secrets of any length. */
export function deriveKeyFrom(context: string, material: Uint8Array): Buffer {
  return asBuffer(createDeriveKey(context).update(material).finalize());
}

function requireKey(key: Uint8Array): Uint8Array {
  if (key.length === KEY_BYTES) return key;
  throw firnError('ERR_INTERNAL', `A BLAKE3 key has 32 bytes, not ${key.length}`);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
