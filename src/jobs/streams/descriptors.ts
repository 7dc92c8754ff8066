/** Files and standard streams as the descriptors that native jobs read and write. Bytes of a stream do not pass through here. */

import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { firnError, fromFileSystem } from '../../errors.js';

/** Calls `read` with a descriptor of the file. */
export async function withInput<Result>(
  path: string,
  read: (fd: number) => Promise<Result>,
): Promise<Result> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw fromFileSystem(error, 'open', 'ERR_READ');
  }
  try {
    return await read(file.fd);
  } finally {
    await file.close();
  }
}

/**
 * Calls `write` with a descriptor of a new file, which gets its name when it is whole and durable: one of that name with ".partial" goes
 * if `write` fails. A pipe or a device that is there is written to as it is. ERR_EXISTS unless `force` is set.
 */
export async function withOutput<Result>(
  path: string,
  { force = false }: { force?: boolean | undefined },
  write: (fd: number) => Promise<Result>,
): Promise<Result> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined && !found.isFile()) return writeTo(path, 'w', write);
  if (found !== undefined && !force) {
    throw firnError('ERR_EXISTS', `${path} exists`, { path });
  }
  const partial = `${path}.partial`;
  try {
    const result = await writeTo(partial, 'w', write);
    await rename(partial, path);
    return result;
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {});
    throw fromFileSystem(error, 'write', 'ERR_WRITE');
  }
}

async function writeTo<Result>(
  path: string,
  flags: string,
  write: (fd: number) => Promise<Result>,
): Promise<Result> {
  let file: FileHandle;
  try {
    file = await open(path, flags);
  } catch (error) {
    throw fromFileSystem(error, 'open', 'ERR_WRITE');
  }
  try {
    const result = await write(file.fd);
    if ((await file.stat()).isFile()) await file.sync();
    return result;
  } finally {
    await file.close();
  }
}
