/**
 * What image a restore or a copy makes: the identity that the new file gets, from the original's and the format asked for.
 *
 * A disk that comes back is to be the same disk to its guest: id, sector sizes, block size and size stay wherever the format can say them.
 */

import { randomUUID } from 'node:crypto';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { DiskIdentity } from '../engine/binding.js';
import { firnError, fromFileSystem } from '../errors.js';

/** 'vhdx-fixed' makes a fixed VHDX; the others are fixed if the original was, and dynamic otherwise. */
export const TARGET_FORMATS = ['raw', 'vhd', 'vhdx', 'vhdx-fixed'] as const;
export type TargetFormat = (typeof TARGET_FORMATS)[number];

const MIB = 1024 * 1024;
const VHDX_BLOCK_BYTES_DEFAULT = 32 * MIB;
const VHD_BLOCK_BYTES = 2 * MIB;
const VHD_SIZE_BYTES_MAX = 2040 * 1024 * MIB;
const NO_ID = /^[0-]*$/;

/** The format that an original comes back as when nothing else is asked for: its own. */
export function originalFormat(original: DiskIdentity): TargetFormat {
  return original.format;
}

/** The format that a file's extension means, or undefined. */
export function formatOfPath(file: string): TargetFormat | undefined {
  switch (path.extname(file).toLowerCase()) {
    case '.vhdx':
      return 'vhdx';
    case '.vhd':
      return 'vhd';
    case '.raw':
    case '.img':
      return 'raw';
    default:
      return undefined;
  }
}

/** The extension for a file of a format, with its dot. */
export function extensionOf(format: TargetFormat): string {
  return format === 'vhdx-fixed' ? '.vhdx' : `.${format}`;
}

/** The identity of the new image. ERR_UNSUPPORTED if the format cannot hold the disk. */
export function targetIdentity(original: DiskIdentity, format: TargetFormat): DiskIdentity {
  // A restored differencing disk has all of its chain's content, and needs no parent.
  const kind = original.kind === 'fixed' ? 'fixed' : 'dynamic';
  const diskId = NO_ID.test(original.diskId) ? randomUUID() : original.diskId;
  const { sizeBytes, logicalSectorBytes } = original;
  if (format !== 'raw' && (sizeBytes === 0 || sizeBytes % logicalSectorBytes !== 0)) {
    throw firnError(
      'ERR_UNSUPPORTED',
      `A ${format} cannot hold a disk of ${sizeBytes} bytes, which are not whole sectors: choose raw`,
    );
  }
  switch (format) {
    case 'raw':
      return { ...original, format: 'raw', kind: 'fixed', blockBytes: 0 };
    case 'vhd':
      if (logicalSectorBytes !== 512 || sizeBytes > VHD_SIZE_BYTES_MAX) {
        throw firnError(
          'ERR_UNSUPPORTED',
          'A VHD holds at most 2040 GiB in sectors of 512 bytes: choose vhdx or raw',
        );
      }
      return {
        ...original,
        format,
        kind: original.format === 'raw' ? 'dynamic' : kind,
        blockBytes: original.format === 'vhd' ? original.blockBytes : VHD_BLOCK_BYTES,
        diskId,
      };
    case 'vhdx':
    case 'vhdx-fixed':
      return {
        ...original,
        format: 'vhdx',
        kind: format === 'vhdx-fixed' ? 'fixed' : original.format === 'raw' ? 'dynamic' : kind,
        blockBytes:
          original.format === 'vhdx' && original.blockBytes > 0
            ? original.blockBytes
            : VHDX_BLOCK_BYTES_DEFAULT,
        diskId,
      };
  }
}

/** True if `to` means one image, false if it means a folder: by what is there, else by its name. */
export async function meansFile(to: string): Promise<boolean> {
  const existing = await statOf(to);
  if (existing !== undefined) return !existing.isDirectory();
  return !/[/\\]$/.test(to) && formatOfPath(to) !== undefined;
}

/** What is at a path, or undefined if nothing is. */
export async function statOf(file: string) {
  try {
    return await stat(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') return undefined;
    throw fromFileSystem(error, 'stat', 'ERR_READ');
  }
}
