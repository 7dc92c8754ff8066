/**
 * Copy: one disk image becomes another, in the same format or a different one, with no repository between.
 */

import { stat } from 'node:fs/promises';
import path from 'node:path';
import type { DiskIdentity, NativeStats } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import {
  type OpenDiskOptions,
  oneOf,
  resolveOpenDisk,
  resolveTuning,
  type TuningOptions,
} from '../engine/options.js';
import { firnError } from '../errors.js';
import { type JobOptions, type Run, startRun } from './run.js';
import {
  formatOfPath,
  originalFormat,
  TARGET_FORMATS,
  type TargetFormat,
  targetIdentity,
} from './target.js';

export interface CopyOptions extends JobOptions {
  /** How to open the source: its format, its parents. */
  source?: OpenDiskOptions | undefined;
  /** The target's extension decides when not given, and then the source's format. */
  format?: TargetFormat | undefined;
  /** Replaces an image that exists. */
  force?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface CopyResult {
  path: string;
  identity: DiskIdentity;
  stats: NativeStats;
}

/**
 * Copies a disk image with all of its chain into one new file that is the same disk to its guest. ERR_EXISTS if the target exists and
 * `force` is not set; ERR_INVALID_ARGUMENT if it is the source.
 */
export function copyDisk(
  source: string,
  target: string,
  options: CopyOptions = {},
): Run<CopyResult> {
  return startRun(options, (session) => runCopy(source, target, options, session));
}

async function runCopy(
  source: string,
  target: string,
  options: CopyOptions,
  session: RunSessionOptions,
): Promise<CopyResult> {
  if (options.format !== undefined) oneOf('format', options.format, TARGET_FORMATS);
  const tuning = resolveTuning(options.tuning);
  const open = resolveOpenDisk(options.source);
  const sourcePath = path.resolve(source);
  const targetPath = path.resolve(target);
  const existing = await fileIdentity(targetPath);
  if (existing !== undefined && existing === (await fileIdentity(sourcePath))) {
    throw firnError('ERR_INVALID_ARGUMENT', `Expected a target that is not the source itself`, {
      path: targetPath,
    });
  }
  const overwrite = options.force === true;
  if (existing !== undefined && !overwrite) {
    throw firnError('ERR_EXISTS', `${targetPath} exists`, { path: targetPath });
  }
  const engine = loadEngine();
  const disk = await engine.openDisk(sourcePath, open);
  const original = disk.identity;
  disk.close();
  const format = options.format ?? formatOfPath(targetPath) ?? originalFormat(original);
  const identity = targetIdentity(original, format);
  const { stats } = await runSession(
    engine.startCopy({
      tuning,
      source: { path: sourcePath, open },
      target: { path: targetPath, identity, parentPath: '' },
      overwrite,
    }),
    session,
  );
  return { path: targetPath, identity, stats };
}

async function fileIdentity(file: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(file, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    // What cannot be looked at is opened next, with an error that says why.
    return undefined;
  }
}
