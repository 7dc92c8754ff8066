/**
 * Small files that are replaced as a whole: after a crash a file is the old one or the new one. Synchronous, because a machine's process
 * must not do anything else between deciding and having written.
 */

import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { platform } from 'node:process';
import { fromFileSystem } from '../../errors.js';
import { syncFolderNow } from '../../sync-folder.js';

const RENAME_TRIES = 20;
const RENAME_WAIT_MS = 10;

/** Puts `text` in the place of the file, durably. ERR_WRITE, ERR_DISK_FULL. */
export function replaceFile(path: string, text: string): void {
  const temporary = join(dirname(path), `.${basename(path)}.tmp-${process.pid}`);
  try {
    const file = openSync(temporary, 'w', 0o600);
    try {
      writeFileSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameOver(temporary, path);
    syncFolderNow(dirname(path));
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fromFileSystem(error, 'write', 'ERR_WRITE');
  }
}

/** Removes files, durably; those that are not there are passed over. */
export function removeFiles(paths: readonly string[]): void {
  try {
    for (const path of paths) rmSync(path, { force: true });
    for (const folder of new Set(paths.map((path) => dirname(path)))) syncFolderNow(folder);
  } catch (error) {
    throw fromFileSystem(error, 'delete', 'ERR_WRITE');
  }
}

/** The file's text, or undefined if it is not there. */
export function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
}

// Windows refuses to replace a file while another process reads it.
function renameOver(from: string, to: string): void {
  for (let attempt = 1; ; attempt++) {
    try {
      renameSync(from, to);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const busy = platform === 'win32' && (code === 'EPERM' || code === 'EACCES');
      if (!busy || attempt === RENAME_TRIES) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RENAME_WAIT_MS);
    }
  }
}
