/**
 * AES-256-GCM as the format uses it: docs/repository-format.md section 12. The only file of the control plane that knows the cipher.
 *
 * That no nonce is used twice with a key is the caller's part: every key here but a writer's is made for one message alone.
 */

import { createCipheriv, createDecipheriv } from 'node:crypto';

export const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const CIPHER = 'aes-256-gcm';

/** The encrypted bytes with the tag behind them. `counter` is 0 for a key that seals one message. */
export function sealBytes(
  key: Uint8Array,
  counter: bigint,
  associated: Uint8Array,
  plain: Uint8Array,
): Buffer {
  const cipher = createCipheriv(CIPHER, key, nonceOf(counter));
  cipher.setAAD(associated);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** What sealBytes was given, or undefined if anything of it is different now, the key included. */
export function openBytes(
  key: Uint8Array,
  counter: bigint,
  associated: Uint8Array,
  sealed: Uint8Array,
): Buffer | undefined {
  const end = sealed.length - TAG_BYTES;
  if (end < 0) return undefined;
  const decipher = createDecipheriv(CIPHER, key, nonceOf(counter), { authTagLength: TAG_BYTES });
  decipher.setAAD(associated);
  decipher.setAuthTag(sealed.subarray(end));
  const plain = decipher.update(sealed.subarray(0, end));
  try {
    return Buffer.concat([plain, decipher.final()]);
  } catch {
    // Node says so by throwing, and says no more.
    return undefined;
  }
}

function nonceOf(counter: bigint): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeBigUInt64LE(counter, 4);
  return nonce;
}
