/**
 * The layers that a checkpoint puts on a machine's disks: their names, and what the header of such a file says.
 *
 * A layer is a qcow2 file beside the disk that it lies on: <disk's stem>_<mark>.qcow2. The mark stands in the file's name alone, as node names
 * are too short for it and end with the QEMU process. Firn does not read qcow2; it looks at a header only to know which file lies
 * below, and whether anything was ever written: a first-level table of zeros has no data.
 */

import { open } from 'node:fs/promises';
import path from 'node:path';
import { runOfMark } from '../host.js';
import { readExactly } from './read-exactly.js';

const MAGIC = 0x514649fb; // "QFI\xfb"
const HEADER_BYTES = 72; // version 2; version 3 only adds to it
const BACKING_NAME_BYTES_MAX = 1023;
const L1_ENTRIES_MAX = 4 * 1024 * 1024; // QEMU's own limit
const L1_OFFSET_MASK = 0x00fffffffffffe00n;
/** Node names end at 31 bytes. */
const RUN_DIGITS_IN_NODE = 20;

export interface NamedDisk {
  name: string;
  path: string;
}

/** The path of the layer to be put on each disk; two disks of one stem in one folder are told apart by their names. */
export function overlayPaths(disks: readonly NamedDisk[], mark: string): string[] {
  const plain = disks.map((disk) => overlayPath(disk.path, mark, ''));
  return disks.map((disk, index) => {
    const first = plain[index] ?? '';
    const unique = plain.filter((other) => other === first).length === 1;
    return unique ? first : overlayPath(disk.path, mark, `-${disk.name}`);
  });
}

function overlayPath(disk: string, mark: string, suffix: string): string {
  const { dir, name } = path.parse(disk);
  return path.join(dir, `${name}${suffix}_${mark}.qcow2`);
}

export function nodeName(mark: string, index: number): string {
  return `firn-${(runOfMark(mark) ?? '').slice(0, RUN_DIGITS_IN_NODE)}-${index}`;
}

/** The job that merges the layer of a disk. It is found again by this, in whichever process. */
export function jobId(mark: string, diskName: string): string {
  return `${mark}.${diskName}`;
}

/** The mark in a file's own name, if it is a layer of Firn's. */
export function overlayMark(file: string): string | undefined {
  const name = path.basename(file);
  const run = name.endsWith('.qcow2') ? runOfMark(name) : undefined;
  return run === undefined ? undefined : `firn-${run}`;
}

export interface OverlayHeader {
  /** The file below, absolute. */
  backing: string | undefined;
  /** True if nothing was ever written to the layer. */
  empty: boolean;
}

/** The header of a layer's file, or undefined if it has none that is valid: QEMU never finished it. Rejects with system errors. */
export async function readOverlayHeader(file: string): Promise<OverlayHeader | undefined> {
  const handle = await open(file, 'r');
  try {
    const header = await readExactly(handle, 0, HEADER_BYTES);
    if (header === undefined || header.readUInt32BE(0) !== MAGIC) return undefined;
    const nameBytes = header.readUInt32BE(16);
    const nameOffset = Number(header.readBigUInt64BE(8));
    const entries = header.readUInt32BE(36);
    const tableOffset = Number(header.readBigUInt64BE(40));
    if (nameBytes > BACKING_NAME_BYTES_MAX || entries > L1_ENTRIES_MAX) return undefined;
    const name = await readExactly(handle, nameOffset, nameBytes);
    const table = await readExactly(handle, tableOffset, entries * 8);
    if (name === undefined || table === undefined) return undefined;
    return { backing: backingPath(file, name.toString('utf8')), empty: isUnused(table) };
  } finally {
    await handle.close();
  }
}

/** The path in QEMU's name for a file: the path itself, or "json:{...}" with the path somewhere below. */
export function fileOfName(name: string): string | undefined {
  if (!name.startsWith('json:')) return name.startsWith('file:') ? name.slice(5) : name;
  try {
    let node: unknown = JSON.parse(name.slice(5));
    for (let depth = 0; depth < 10 && typeof node === 'object' && node !== null; depth++) {
      const { filename, file } = node as { filename?: unknown; file?: unknown };
      if (typeof filename === 'string') return filename;
      node = file;
    }
  } catch {
    // Not JSON after all: then nothing is known.
  }
  return undefined;
}

function backingPath(file: string, name: string): string | undefined {
  const target = name === '' ? undefined : fileOfName(name);
  return target === undefined ? undefined : path.resolve(path.dirname(file), target);
}

function isUnused(table: Buffer): boolean {
  for (let offset = 0; offset < table.length; offset += 8) {
    if ((table.readBigUInt64BE(offset) & L1_OFFSET_MASK) !== 0n) return false;
  }
  return true;
}
