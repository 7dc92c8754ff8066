/**
 * The host's volumes: where a layer above a checkpoint grows. A volume's name is the folder at which it is mounted.
 */

import { stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import type { Volume } from '../host.js';

/** The mount point of the volume that holds `file`, which may be gone; its folder is what counts. */
export async function volumeOf(file: string): Promise<string> {
  let folder = path.dirname(file);
  const device = await deviceOf(folder);
  for (;;) {
    const above = path.dirname(folder);
    if (above === folder || (await deviceOf(above)) !== device) return folder;
    folder = above;
  }
}

export async function readVolume(name: string): Promise<Volume> {
  const { bsize, blocks, bavail } = await statfs(name);
  return { name, sizeBytes: blocks * bsize, freeBytes: bavail * bsize };
}

async function deviceOf(folder: string): Promise<number | undefined> {
  return stat(folder).then(
    ({ dev }) => dev,
    () => undefined,
  );
}
