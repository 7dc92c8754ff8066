/**
 * The checks that JSON objects of a repository are made of: each takes what was read from JSON and says whether it may be what it should be.
 * What an object consists of stands in objects.ts.
 */

import { type FirnError, firnError } from '../../errors.js';
import { isId, isPackName } from './names.js';

export const FORMAT_VERSION = 1;
const TEXT_LENGTH_MAX = 4096;
const REQUIRES_MAX = 64;

/** An object as JSON gives it. */
export type Members = Record<string, unknown>;

export function parseObject(content: Buffer, type: string): Members {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content));
  } catch (error) {
    throw corrupt(`its content is not JSON in UTF-8 (${(error as Error).message})`);
  }
  if (!isMembers(value)) throw corrupt('its content is not a JSON object');
  need(value, 'type', (found) => found === type);
  return value;
}

export function checkVersion(object: Members, what: string): void {
  need(object, 'version', isInteger(1, Number.MAX_SAFE_INTEGER));
  if ((object.version as number) > FORMAT_VERSION) {
    throw firnError(
      'ERR_VERSION',
      `The ${what} has format version ${object.version}; this Firn reads up to ${FORMAT_VERSION}`,
    );
  }
  checkRequires(object, what);
}

/** What has to be known to read an object, besides its version. Nothing has a name yet, so whatever is named here is unknown. */
function checkRequires(object: Members, what: string): void {
  allow(object, 'requires', isArrayOf(isText, REQUIRES_MAX));
  const requires = (object.requires ?? []) as string[];
  if (requires.length === 0) return;
  const names = requires.map((name) => JSON.stringify(name.slice(0, 64))).join(', ');
  throw firnError('ERR_VERSION', `The ${what} needs what this Firn does not know: ${names}`);
}

export type Check = (value: unknown) => boolean;

export function need(object: Members, name: string, check: Check): void {
  if (!Object.hasOwn(object, name)) throw corrupt(`it has no "${name}"`);
  if (!check(object[name])) throw corrupt(`its "${name}" is not what the format allows`);
}

export function allow(object: Members, name: string, check: Check): void {
  if (Object.hasOwn(object, name)) need(object, name, check);
}

export function has(
  value: unknown,
  checks: Record<string, Check>,
  optional: Record<string, Check> = {},
) {
  if (!isMembers(value)) return false;
  return (
    Object.entries(checks).every(
      ([name, check]) => Object.hasOwn(value, name) && check(value[name]),
    ) &&
    Object.entries(optional).every(
      ([name, check]) => !Object.hasOwn(value, name) || check(value[name]),
    )
  );
}

export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** True for a text of the length that objects may have: 1 to 4096 UTF-16 units. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= TEXT_LENGTH_MAX;
}

export function isTime(value: unknown): boolean {
  return (
    typeof value === 'string' &&
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(value) &&
    !Number.isNaN(Date.parse(value))
  );
}

export function isHex(digits: 32 | 64): Check {
  return (value) =>
    typeof value === 'string' && (digits === 32 ? isId(value) : /^[0-9a-f]{64}$/.test(value));
}

export function isInteger(min: number, max: number): Check {
  return (value) => Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max;
}

export function isOneOf(...values: string[]): Check {
  return (value) => values.includes(value as string);
}

export function isPack(value: unknown): boolean {
  return typeof value === 'string' && isPackName(value);
}

export function isArrayOf(check: Check, lengthMax: number): Check {
  return (value) => Array.isArray(value) && value.length <= lengthMax && value.every(check);
}

export function corrupt(what: string): FirnError {
  return firnError('ERR_CORRUPT_OBJECT', `Corrupt object: ${what}`);
}
