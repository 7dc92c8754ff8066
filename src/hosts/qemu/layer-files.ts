/**
 * The files of a machine's layers on the host's disks: which there are, whether they hold anything, and their removal.
 *
 * Disks of several machines may lie in one folder, and one run's mark stands on the layers of all of them, so a name alone does not make a
 * file this machine's: its record must name it, or its header one of the machine's disks as what lies below.
 */

import { rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { firnError, fromFileSystem } from '../../errors.js';
import type { GraphDisk } from './graph.js';
import { type OverlayHeader, overlayMark, overlayPaths, readOverlayHeader } from './overlay.js';
import { fileNames, type RunRecord } from './record.js';

/** A file without a valid header is one that QEMU had just begun; a longer one is for a person to look at. */
const UNFINISHED_BYTES_MAX = 1024 * 1024;

/** All files of this machine's layers of the mark, in a chain or not. `disks` is empty for a machine that is off. */
export async function overlayFiles(
  folder: string,
  mark: string,
  disks: readonly GraphDisk[],
  record: RunRecord | undefined,
): Promise<string[]> {
  const recorded = record?.disks.map((disk) => disk.overlay) ?? [];
  const layers = [
    ...disks.flatMap((disk) => disk.layers.map((layer) => layer.file)),
    ...(record?.disks.map((disk) => disk.base) ?? []),
  ];
  const expected = new Set([
    ...recorded,
    ...layers.flatMap((file) => overlayPaths([{ name: '', path: file }], mark)),
  ]);
  const folders = new Set([folder, ...[...layers, ...recorded].map((file) => path.dirname(file))]);
  const found: string[] = [];
  for (const each of folders) {
    const names = (await fileNames(each)).filter((name) => overlayMark(name) === mark);
    for (const file of names.map((name) => path.join(each, name))) {
      const header = await headerOf(file);
      const isOnOurs =
        header === undefined ? expected.has(file) : layers.includes(header.backing ?? '');
      // Of a machine that is off and has no record, only its own folder says what is its.
      const isInOwn = disks.length === 0 && record === undefined && each === folder;
      if (isOnOurs || isInOwn || recorded.includes(file)) found.push(file);
    }
  }
  return found;
}

/** True if nothing was ever written to the layer: QEMU made it, or began to, and never used it. False when that is not sure. */
export async function holdsNothing(file: string): Promise<boolean> {
  try {
    const header = await readOverlayHeader(file);
    if (header !== undefined) return header.empty;
    return (await stat(file)).size < UNFINISHED_BYTES_MAX;
  } catch (error) {
    // Another release was faster.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
}

/** Removes a layer's file; its name must bear a mark, whatever led here. */
export async function removeOverlay(file: string): Promise<void> {
  if (overlayMark(file) === undefined) {
    throw firnError('ERR_INTERNAL', `${file} is no layer of Firn's and was to be removed`);
  }
  await rm(file, { force: true });
}

async function headerOf(file: string): Promise<OverlayHeader | undefined> {
  return readOverlayHeader(file).catch(() => undefined);
}
