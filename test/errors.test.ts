/**
 * The error table, docs/errors.md and native/core/status.cc are three views of one taxonomy. The method is to read the other two as text
 * and to compare: a code added to one and forgotten in another fails here.
 */

import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  AbortError,
  ERROR_CODES,
  type ErrorCode,
  FirnError,
  firnError,
  fromFileSystem,
  fromNative,
  IoError,
  isErrorCode,
  isFirnError,
} from '../src/errors.js';

const ROOT = new URL('../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, ROOT), 'utf8');
const codes = Object.keys(ERROR_CODES) as ErrorCode[];

/** The section of docs/errors.md below a code's heading. */
function sections(): Map<string, string> {
  const parts = read('docs/errors.md').split(/^### /m).slice(1);
  return new Map(parts.map((part) => [part.slice(0, part.indexOf('\n')).trim(), part]));
}

describe('the error table', () => {
  it('has every code that the native side can name', () => {
    const source = read('native/core/status.cc');
    const body = source.slice(source.indexOf('const char* CodeName'));
    const native = [...body.matchAll(/return "(ERR_[A-Z_]+)"/g)].map((match) => match[1] ?? '');
    expect(native.length).toBeGreaterThan(20);
    expect(native.filter((code) => !isErrorCode(code))).toEqual([]);
  });

  it('has one heading in docs/errors.md for each code, and the other way round', () => {
    expect([...sections().keys()].sort()).toEqual([...codes].sort());
  });

  it('agrees with docs/errors.md on the exit code, on what may be retried and on data loss', () => {
    const groups = read('docs/errors.md').split(/^## /m);
    for (const code of codes) {
      const { exit, retryable, dataLoss } = ERROR_CODES[code];
      const group = groups.find((text) => text.includes(`### ${code}\n`)) ?? '';
      expect(group, code).toMatch(new RegExp(`^.*\\(exit ${exit}\\)`));
      const section = (sections().get(code) ?? '').replaceAll('\n', ' ');
      expect(section, code).toContain('*Next:*');
      // "when the error says so" stands for codes whose errors carry the flag one by one.
      expect(section, code).toMatch(
        retryable ? /\*Retryable:\* yes/ : /\*Retryable:\* (no|when the error says so)/,
      );
      expect(/\*Data loss:\* yes/.test(section), code).toBe(dataLoss === true);
    }
  });

  it('lists in the exit code table of docs/errors.md each class with its exit code', () => {
    const table = read('docs/errors.md');
    for (const code of codes) {
      const { kind, exit } = ERROR_CODES[code];
      if (code === 'ERR_INCOMPLETE') continue; // exit 3 is the one that has no class of its own
      expect(table, code).toContain(`| ${exit} | \`${kind}\` |`);
    }
  });
});

describe('a FirnError', () => {
  it('has the class, name and exit code that the table gives its code', () => {
    for (const code of codes) {
      const error = firnError(code, 'text');
      expect(error.name).toBe(ERROR_CODES[code].kind);
      expect(error.constructor.name).toBe(ERROR_CODES[code].kind);
      expect(error.exitCode).toBe(ERROR_CODES[code].exit);
      expect(error).toBeInstanceOf(FirnError);
      expect(isFirnError(error)).toBe(true);
    }
  });

  it('is told from other errors and from look-alikes', () => {
    expect(isFirnError(new Error('text'))).toBe(false);
    expect(isFirnError({ code: 'ERR_READ', message: 'text' })).toBe(false);
    expect(isFirnError(undefined)).toBe(false);
  });

  it('has a stack that begins where firnError was called', () => {
    function here() {
      return firnError('ERR_READ', 'text');
    }
    expect(here().stack?.split('\n')[1]).toContain('here');
  });

  it('goes into JSON with its fields and without a stack', () => {
    const error = firnError('ERR_READ', 'text', { path: '/a', offset: 0, osCode: 5 });
    expect(JSON.parse(JSON.stringify(error))).toEqual({
      name: 'IoError',
      code: 'ERR_READ',
      message: 'text',
      path: '/a',
      offset: 0,
      osCode: 5,
      retryable: false,
      dataLoss: false,
      hint: ERROR_CODES.ERR_READ.hint,
    });
  });
});

describe('fromNative', () => {
  const failure = Object.assign(new Error('No space left on device'), {
    code: 'ERR_DISK_FULL',
    op: 'write',
    path: '/mnt/a.pack',
    offset: 4096,
    osCode: 28,
    retryable: true,
    dataLoss: false,
  });

  it('keeps every field and says the place in the message', () => {
    const error = fromNative(failure);
    expect(error).toBeInstanceOf(IoError);
    expect(error).toMatchObject({
      code: 'ERR_DISK_FULL',
      op: 'write',
      path: '/mnt/a.pack',
      offset: 4096,
      osCode: 28,
      retryable: true,
    });
    expect(error.message).toBe('write /mnt/a.pack at 4096: No space left on device');
  });

  it('takes the stack of the call site', () => {
    const site: { stack?: string } = {};
    function caller() {
      Error.captureStackTrace(site);
    }
    caller();
    expect(fromNative(failure, site).stack).toMatch(/^IoError: write .*\n +at caller/);
  });

  it('turns what has no code of ours into ERR_INTERNAL and keeps it as the cause', () => {
    for (const odd of [new Error('odd'), 'text', Object.assign(new Error('x'), { code: 'EIO' })]) {
      const error = fromNative(odd);
      expect(error.code).toBe('ERR_INTERNAL');
      expect(error.cause).toBe(odd);
    }
  });

  it('leaves a FirnError as it is', () => {
    const error = firnError('ERR_ABORTED', 'text');
    expect(error).toBeInstanceOf(AbortError);
    expect(fromNative(error)).toBe(error);
  });
});

describe('fromFileSystem', () => {
  it('gives errno the meaning that the native side gives it', () => {
    let failure: unknown;
    try {
      readFileSync(new URL('no-such-file', ROOT));
    } catch (error) {
      failure = error;
    }
    const error = fromFileSystem(failure, 'open', 'ERR_READ');
    expect(error).toMatchObject({ code: 'ERR_NOT_FOUND', op: 'open', osCode: 2 });
    expect(error.path).toContain('no-such-file');
    expect(error.cause).toBe(failure);
  });

  it('uses the fallback for an errno that says nothing more exact', () => {
    const failure = Object.assign(new Error('EIO: i/o error'), { code: 'EIO', errno: -5 });
    expect(fromFileSystem(failure, 'read', 'ERR_READ')).toMatchObject({
      code: 'ERR_READ',
      osCode: 5,
    });
  });
});
