/**
 * Restore: the disks of a point become images again, as they were or in another format.
 *
 * Every chunk is checked against its id on its way. Nothing that exists is replaced unless that was asked for, and all targets are looked at
 * before the first is written.
 */

import { mkdir, truncate } from 'node:fs/promises';
import path from 'node:path';
import type { DiskIdentity, NativeRepository, NativeStats } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { oneOf, resolveTuning, type TuningOptions } from '../engine/options.js';
import { firnError, fromFileSystem } from '../errors.js';
import { readSteadily } from '../repository/commit.js';
import { restoredName } from '../repository/format/names.js';
import {
  disksOf,
  filesOf,
  type PointDisk,
  type PointObject,
} from '../repository/format/objects.js';
import type { Repository } from '../repository/repository.js';
import { type JobOptions, type Run, startRun } from './run.js';
import {
  extensionOf,
  formatOfPath,
  meansFile,
  originalFormat,
  statOf,
  TARGET_FORMATS,
  type TargetFormat,
  targetIdentity,
} from './target.js';

export interface RestoreOptions extends JobOptions {
  /** A point's id or the beginning of one, "latest", or "latest:VM". */
  point: string;
  /** The name of the one disk to restore; all disks of the point when not given. */
  disk?: string | undefined;
  /**
   * A folder, which is made if need be, or for one disk a file. What does not exist yet is a file if its extension is that of an image
   * (.vhdx, .vhd, .raw, .img), and a folder otherwise.
   */
  to: string;
  /** The file's extension decides when not given, and for a folder each disk's original format. */
  format?: TargetFormat | undefined;
  /** Replaces images that exist. */
  force?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface RestoredDisk {
  name: string;
  path: string;
  root: string;
  identity: DiskIdentity;
}

export interface RestoreResult {
  point: PointObject;
  disks: RestoredDisk[];
  /** Files of the machine's configuration, when all of a point was restored into a folder. */
  files: { name: string; path: string }[];
  stats: NativeStats;
}

/** Restores the disks of a point. ERR_EXISTS if a target exists and `force` is not set. */
export function restore(repository: Repository, options: RestoreOptions): Run<RestoreResult> {
  return startRun(options, (session) => runRestore(repository, options, session));
}

async function runRestore(
  repository: Repository,
  options: RestoreOptions,
  session: RunSessionOptions,
): Promise<RestoreResult> {
  if (options.format !== undefined) oneOf('format', options.format, TARGET_FORMATS);
  const tuning = resolveTuning(options.tuning);
  const point = await repository.resolvePoint(options.point);
  const chosen = chooseDisks(point, options.disk);
  const disks = await planTargets(chosen, options);
  const withFiles = options.disk === undefined && (await isFolder(options.to));
  const files = withFiles ? planFiles(point, options.to) : [];
  refuseClashes([...disks, ...files]);
  if (options.force !== true) await refuseExisting([...disks, ...files]);
  const engine = loadEngine();
  const targets = [...disks, ...files].map(({ root, path: file, identity }) => ({
    root,
    path: file,
    identity,
  }));
  let overwrite = options.force === true;
  const { stats } = await readSteadily(repository, async (view) => {
    for (const disk of [...disks, ...files]) await checkSize(view, disk);
    const started = engine.startRestore({ repository: view, tuning, disks: targets, overwrite });
    // A second round meets what the first one left.
    overwrite = true;
    return runSession(started, session);
  });
  for (const file of files) await cutToLength(file);
  return {
    point,
    disks,
    files: files.map(({ name, path: file }) => ({ name, path: file })),
    stats,
  };
}

/** The machine's configuration files, beside its disks, under the names that they had. */
function planFiles(point: PointObject, to: string): (RestoredDisk & { fileBytes: number })[] {
  return filesOf(point).map(({ name, root, identity, sizeBytes, fileBytes }) => ({
    name,
    path: path.join(path.resolve(to), restoredName(name)),
    root,
    identity: targetIdentity({ ...identity, sizeBytes }, 'raw'),
    fileBytes,
  }));
}

/** A file was stored padded to whole pages. */
async function cutToLength(file: { path: string; fileBytes: number }): Promise<void> {
  try {
    await truncate(file.path, file.fileBytes);
  } catch (error) {
    throw fromFileSystem(error, 'truncate', 'ERR_WRITE');
  }
}

async function isFolder(file: string): Promise<boolean> {
  return (await statOf(path.resolve(file)))?.isDirectory() === true;
}

/** A point and its map have the same size to say; if not, one of them is not what was written. */
async function checkSize(repository: NativeRepository, disk: RestoredDisk): Promise<void> {
  const map = await loadEngine().openMap(repository, disk.root);
  map.close();
  if (map.identity.sizeBytes === disk.identity.sizeBytes) return;
  throw firnError(
    'ERR_CORRUPT_OBJECT',
    `The map of disk "${disk.name}" is of ${map.identity.sizeBytes} bytes, its point says ${disk.identity.sizeBytes}`,
  );
}

/** The disks of a point, or the one of that name. ERR_NOT_FOUND if it has none such. */
export function chooseDisks(point: PointObject, name: string | undefined): PointDisk[] {
  if (name === undefined) return disksOf(point);
  const disk = point.disks.find((each) => each.name === name);
  if (disk !== undefined) return [disk];
  throw firnError(
    'ERR_NOT_FOUND',
    `Point ${point.id} has no disk "${name}"; it has ${point.disks.map((each) => `"${each.name}"`).join(', ')}`,
  );
}

async function planTargets(
  disks: readonly PointDisk[],
  { to, format }: RestoreOptions,
): Promise<RestoredDisk[]> {
  const target = path.resolve(to);
  const isFile = await meansFile(to);
  if (isFile && disks.length !== 1) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected a folder for ${disks.length} disks, or the name of one disk, but received the file "${to}"`,
    );
  }
  if (!isFile) {
    try {
      await mkdir(target, { recursive: true });
    } catch (error) {
      throw fromFileSystem(error, 'create', 'ERR_WRITE');
    }
  }
  return disks.map((disk) => {
    const original: DiskIdentity = { ...disk.identity, sizeBytes: disk.sizeBytes };
    const chosen =
      format ?? (isFile ? formatOfPath(target) : undefined) ?? originalFormat(original);
    return {
      name: disk.name,
      path: isFile ? target : path.join(target, restoredName(disk.name) + extensionOf(chosen)),
      root: disk.root,
      identity: targetIdentity(original, chosen),
    };
  });
}

/** A disk "web" and a file "web.raw" have different names, and the same one as a raw image: neither may take the other's place. */
function refuseClashes(disks: readonly RestoredDisk[]): void {
  const taken = new Set<string>();
  for (const { name, path: file } of disks) {
    const key = file.toLowerCase();
    if (taken.has(key)) {
      throw firnError('ERR_EXISTS', `"${name}" would take the place of another: ${file}`, {
        path: file,
      });
    }
    taken.add(key);
  }
}

async function refuseExisting(disks: readonly RestoredDisk[]): Promise<void> {
  for (const disk of disks) {
    if ((await statOf(disk.path)) !== undefined) {
      throw firnError('ERR_EXISTS', `${disk.path} exists`, { path: disk.path });
    }
  }
}
