/**
 * A machine's configuration files on their way into a point.
 *
 * A point stores them like disks, in chunks, so they are copied first: padded to whole pages, under the state folder, where the copies of a
 * dead run are found and removed. Copying also means that they are read once, at the capture.
 */

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { firnError, fromFileSystem } from '../../errors.js';
import { withoutMark } from '../../hosts/host.js';
import { isDiskName } from '../../repository/format/names.js';
import type { DiskSource } from '../backup.js';

const PAGE_BYTES = 4096;
/** A saved memory state may lie beside the configuration; that is not what a restore needs. */
const FILE_BYTES_MAX = 64 * 2 ** 20;

/** Copies files into the run's folder and gives them as sources of a backup. ERR_READ and others of the file system. */
export async function stageConfiguration(
  stateFolder: string,
  run: string,
  vmId: string,
  files: readonly string[],
): Promise<DiskSource[]> {
  const folder = path.join(stagingOf(stateFolder, run), Buffer.from(vmId).toString('hex'));
  const sources: DiskSource[] = [];
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const [index, file] of files.entries()) {
      const content = await readFile(file);
      if (content.length > FILE_BYTES_MAX) {
        throw firnError('ERR_UNSUPPORTED', `${file} is too long for a configuration file`);
      }
      const plain = withoutMark(baseName(file));
      const name = sources.some((source) => source.name === plain) ? `${index}-${plain}` : plain;
      if (!isDiskName(name)) throw firnError('ERR_UNSUPPORTED', `${file} cannot be named so`);
      const padded = Buffer.alloc(Math.max(1, Math.ceil(content.length / PAGE_BYTES)) * PAGE_BYTES);
      content.copy(padded);
      const staged = path.join(folder, `${index}.raw`);
      await writeFile(staged, padded, { mode: 0o600 });
      sources.push({ path: staged, name, format: 'raw', fileBytes: content.length });
    }
  } catch (error) {
    throw fromFileSystem(error, 'copy', 'ERR_READ');
  }
  return sources;
}

/** Removes what a run has staged. */
export async function unstageConfiguration(stateFolder: string, run: string): Promise<void> {
  await rm(stagingOf(stateFolder, run), { recursive: true, force: true });
}

function stagingOf(stateFolder: string, run: string): string {
  return path.join(stateFolder, 'staging', run);
}

// Of the host's path, which may be a Windows one here or not.
function baseName(file: string): string {
  return file.split(/[\\/]/).at(-1) ?? file;
}
