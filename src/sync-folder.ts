/**
 * Makes the names in a folder durable: what was created, renamed or removed there is so after a power cut too.
 *
 * Windows has no such call: NTFS logs the changes of a folder by itself, which can't be opened there. Some network file systems refuse it: there
 * the server decides. A folder that is gone has no names to keep.
 */

import { closeSync, fsyncSync, openSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

const BORNE = new Set(['EINVAL', 'ENOTSUP', 'ENOENT']);

export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return;
  let handle: FileHandle | undefined;
  try {
    handle = await open(folder, 'r');
    await handle.sync();
  } catch (error) {
    throwUnlessBorne(error);
  } finally {
    await handle?.close();
  }
}

/** The same for those who must not let anything else happen meanwhile. */
export function syncFolderNow(folder: string): void {
  if (process.platform === 'win32') return;
  let handle: number | undefined;
  try {
    handle = openSync(folder, 'r');
    fsyncSync(handle);
  } catch (error) {
    throwUnlessBorne(error);
  } finally {
    if (handle !== undefined) closeSync(handle);
  }
}

function throwUnlessBorne(error: unknown): void {
  if (!BORNE.has((error as NodeJS.ErrnoException).code ?? '')) throw error;
}
