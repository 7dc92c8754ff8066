/**
 * Where a measurement was made, as far as it matters to the figures, and what about it makes them doubtful. Nothing in it names the computer
 * or its user: a report is for sending to others.
 */

import { readFile, statfs } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { loadEngine } from '../engine/engine.js';

export interface Environment {
  os: string;
  cpu: string;
  cores: number;
  cpuFeatures: string[];
  memoryBytes: number;
  /** Processes that wanted to run, over the last minute, when it began; 0 on Windows, which does not count them. */
  loadAverage: number;
  firn: string;
  node: string;
  io: string;
  /** Of the folder or file that was measured. */
  fileSystem?: string;
  governor?: string;
}

const LINUX_TYPES: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  26985: 'nfs',
  4283649346: 'smb',
  801189825: 'zfs',
  2035054128: 'overlay',
};

export async function describeEnvironment(place?: string): Promise<Environment> {
  const engine = loadEngine();
  const { cores, features, uring } = engine.cpu();
  const governor = await firstLine('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor');
  const fileSystem = place === undefined ? undefined : await fileSystemOf(place);
  return {
    os: `${os.type()} ${os.release()} ${os.arch()}`,
    cpu: os.cpus()[0]?.model.trim() || 'unknown',
    cores,
    cpuFeatures: features,
    memoryBytes: os.totalmem(),
    loadAverage: os.loadavg()[0] ?? 0,
    firn: engine.version(),
    node: process.versions.node,
    io: process.platform === 'win32' ? 'completion port' : uring ? 'io_uring' : 'threads',
    ...(fileSystem !== undefined && { fileSystem }),
    ...(governor !== undefined && { governor }),
  };
}

async function fileSystemOf(place: string): Promise<string | undefined> {
  try {
    const { type } = await statfs(path.resolve(place));
    return LINUX_TYPES[type] ?? `type 0x${type.toString(16)}`;
  } catch {
    // Not every system tells, and nothing depends on it.
    return undefined;
  }
}

async function firstLine(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).split('\n')[0];
  } catch {
    return undefined;
  }
}

/** Sentences about what makes figures from here doubtful. */
export function environmentWarnings(environment: Environment): string[] {
  const { loadAverage, cores, governor } = environment;
  const warnings: string[] = [];
  if (loadAverage > cores / 2) {
    warnings.push(
      `Other programs were at work (load ${loadAverage.toFixed(1)} on ${cores} cores): figures are those of a busy machine.`,
    );
  }
  if (governor !== undefined && governor !== 'performance') {
    warnings.push(`The processors' governor is "${governor}": clock rates may move.`);
  }
  return warnings;
}
