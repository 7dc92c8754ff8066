/**
 * What other programs are told to do the same work: for `firn bench --peers`, and for the comparison in bench/peers.
 *
 * Each runs with its own defaults, and with a cache and configuration folder of its own (`home`) so that nothing of the user's is read or
 * written. restic has no way to leave encryption out; borg is told to. A backup takes a file by its name from its folder.
 */

import path from 'node:path';
import type { Command } from './process.js';

/** A program that keeps a repository. `name` is the point's; restic knows its latest one by itself. */
export interface BackupProgram {
  init(repository: string): Command;
  backup(repository: string, file: string, name: string): Command;
  /** Into `folder`, which is there. */
  restore(repository: string, name: string, folder: string): Command;
}

export function restic(home: string): BackupProgram {
  const command = (repository: string, ...args: string[]): Command => ({
    program: 'restic',
    args: ['--quiet', '--repo', repository, ...args],
    env: { RESTIC_PASSWORD: 'benchmark', RESTIC_CACHE_DIR: home },
  });
  return {
    init: (repository) => command(repository, 'init'),
    backup: (repository, file) => ({
      ...command(repository, 'backup', path.basename(file)),
      cwd: path.dirname(file),
    }),
    restore: (repository, _name, folder) =>
      command(repository, 'restore', 'latest', '--target', folder),
  };
}

export function borg(home: string, codec: string): BackupProgram {
  const command = (...args: string[]): Command => ({
    program: 'borg',
    args,
    env: {
      BORG_BASE_DIR: home,
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes',
      BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
    },
  });
  return {
    init: (repository) => command('init', '-e', 'none', repository),
    backup: (repository, file, name) => ({
      ...command('create', '-C', codec, `${repository}::${name}`, path.basename(file)),
      cwd: path.dirname(file),
    }),
    restore: (repository, name, folder) => ({
      ...command('extract', '--sparse', `${repository}::${name}`),
      cwd: folder,
    }),
  };
}

/** Copies the disk in an image to a raw file. */
export function qemuImgConvert(source: string, target: string): Command {
  return {
    program: 'qemu-img',
    args: ['convert', '-W', '-m', '16', '-O', 'raw', source, target],
  };
}

/** Copies the file, holes as holes. A reflink would copy nothing. */
export function cp(source: string, target: string): Command {
  return { program: 'cp', args: ['--sparse=always', '--reflink=never', source, target] };
}
