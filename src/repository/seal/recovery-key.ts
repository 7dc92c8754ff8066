/**
 * Recovery keys: 256 random bits as text that a person can write down and type again.
 *
 * "FIRN" and 14 groups of four from an alphabet without I, L, O and U (Crockford's base 32; case, spaces and dashes do not matter). The
 * last digits are a check, so that a slip of the pen is told from a wrong key.
 */

import { randomBytes } from 'node:crypto';
import { firnError } from '../../errors.js';
import { blake3 } from '../format/keys.js';

const SECRET_BYTES = 32;
const CHECK_BYTES = 3;
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const MARK = 'FIRN';
const GROUP = 4;

export function newRecoverySecret(): Buffer {
  return randomBytes(SECRET_BYTES);
}

/** The text of a recovery key. */
export function formatRecoveryKey(secret: Buffer): string {
  const bytes = Buffer.concat([secret, checkOf(secret)]);
  const digits = encode(bytes);
  const groups = digits.match(new RegExp(`.{${GROUP}}`, 'g')) as string[];
  return [MARK, ...groups].join('-');
}

/** The secret of a recovery key's text; undefined if the text is no recovery key at all. ERR_KEY_WRONG if it has a typing mistake. */
export function parseRecoveryKey(text: string): Buffer | undefined {
  const digits = text.toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1');
  // After the replacements the mark has a 1 in it.
  const mark = MARK.replace('I', '1');
  const length = ((SECRET_BYTES + CHECK_BYTES) * 8) / 5;
  if (!digits.startsWith(mark) || digits.length !== mark.length + length) return undefined;
  const bytes = decode(digits.slice(mark.length));
  const secret = bytes?.subarray(0, SECRET_BYTES);
  if (secret === undefined || !checkOf(secret).equals(bytes?.subarray(SECRET_BYTES) as Buffer)) {
    throw firnError('ERR_KEY_WRONG', 'The recovery key has a typing mistake');
  }
  return secret;
}

function checkOf(secret: Buffer): Buffer {
  return blake3(secret).subarray(0, CHECK_BYTES);
}

function encode(bytes: Buffer): string {
  let digits = '';
  let bits = 0;
  let value = 0;
  for (const byte of bytes) {
    value = (value << 8) | byte;
    bits += 8;
    for (; bits >= 5; bits -= 5) digits += ALPHABET[(value >>> (bits - 5)) & 31];
    value &= (1 << bits) - 1;
  }
  return digits;
}

function decode(digits: string): Buffer | undefined {
  const bytes: number[] = [];
  let bits = 0;
  let value = 0;
  for (const digit of digits) {
    const five = ALPHABET.indexOf(digit);
    if (five < 0) return undefined;
    value = (value << 5) | five;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >>> bits) & 255);
      value &= (1 << bits) - 1;
    }
  }
  return Buffer.from(bytes);
}
