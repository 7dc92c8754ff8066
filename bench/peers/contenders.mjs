/**
 * The tools that are compared, each as the commands it needs for the same work.
 *
 * Every tool runs with its own defaults except where the comparison needs it otherwise: a cache and
 * configuration folder of its own inside the scratch folder, and the codec. What other tools are
 * told stands in src/bench/peer-commands.ts, for `firn bench --peers` as well. A backup tool stores
 * the VHDX file; Firn stores the disk that is in it. Each restores what it stored.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  borg as borgProgram,
  cp,
  qemuImgConvert,
  restic as resticProgram,
} from '../../dist/bench/peer-commands.js';

/** What the disk under test is called at each backup, whatever its content is by then. */
export const DISK_NAME = 'disk.vhdx';

const FIRN_CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

/**
 * @typedef {{ program: string, args: string[], cwd?: string, env?: Record<string, string> }} Command
 * @typedef {{
 *   id: string, tool: string, label: string,
 *   init(repository: string): Command,
 *   backup(repository: string, disk: string, name: string): Command,
 *   restore(repository: string, name: string, folder: string):
 *     { command: Command, output: string, form: 'raw' | 'file' },
 * }} BackupContender
 * @typedef {{
 *   id: string, tool: string, label: string, form: 'raw' | 'file',
 *   copy(source: string, target: string): Command,
 * }} CopyContender
 */

function firnCommand(...args) {
  return { program: process.execPath, args: [FIRN_CLI, ...args] };
}

/** @returns {BackupContender} */
function firn(codec) {
  return {
    id: `firn-${codec}`,
    tool: 'firn',
    label: `Firn ${codec}`,
    init: (repository) => firnCommand('init', '--repo', repository),
    backup: (repository, disk) =>
      firnCommand('backup', '--disk', disk, '--repo', repository, '--codec', codec),
    restore(repository, _name, folder) {
      const output = join(folder, 'disk.raw');
      const to = ['--to', output, '--format', 'raw'];
      return {
        command: firnCommand('restore', 'latest', ...to, '--repo', repository),
        output,
        form: 'raw',
      };
    },
  };
}

/** @returns {BackupContender} */
function peer(id, tool, label, program) {
  return {
    id,
    tool,
    label,
    init: program.init,
    backup: program.backup,
    restore: (repository, name, folder) => ({
      command: program.restore(repository, name, folder),
      output: join(folder, DISK_NAME),
      form: 'file',
    }),
  };
}

/** @returns {BackupContender} */
function restic(scratch) {
  const home = join(scratch, 'restic-cache');
  return peer('restic', 'restic', 'restic', resticProgram(home));
}

/** @returns {BackupContender} */
function borg(codec, scratch) {
  const home = join(scratch, `borg-${codec}`);
  mkdirSync(home, { recursive: true });
  return peer(`borg-${codec}`, 'borg', `borg ${codec}`, borgProgram(home, codec));
}

/** Tools that keep a repository, Firn first. */
export function backupContenders(scratch) {
  return [firn('lz4'), firn('zstd'), restic(scratch), borg('lz4', scratch), borg('zstd', scratch)];
}

/** Tools that copy a disk; cp copies the file and is here as a yardstick. */
export function copyContenders() {
  /** @type {CopyContender[]} */
  const contenders = [
    {
      id: 'firn-copy',
      tool: 'firn',
      label: 'Firn copy',
      copy: (source, target) => firnCommand('copy', source, target),
      form: 'raw',
    },
    {
      id: 'qemu-img',
      tool: 'qemu-img',
      label: 'qemu-img convert',
      copy: qemuImgConvert,
      form: 'raw',
    },
    {
      id: 'cp',
      tool: 'cp',
      label: 'cp (the VHDX file)',
      copy: cp,
      form: 'file',
    },
  ];
  return contenders;
}

function firstLine(program, args) {
  const result = spawnSync(program, args, { encoding: 'utf8' });
  return result.error || result.status !== 0 ? undefined : result.stdout.split('\n')[0].trim();
}

/** What is installed: a line of version for each tool, undefined for one that is absent. */
export function toolVersions() {
  return {
    firn: existsSync(FIRN_CLI) ? firstLine(process.execPath, [FIRN_CLI, '--version']) : undefined,
    restic: firstLine('restic', ['version']),
    borg: firstLine('borg', ['--version']),
    'qemu-img': firstLine('qemu-img', ['--version']),
    cp: firstLine('cp', ['--version']),
    e2fsprogs: spawnSync('mke2fs', ['-V'], { encoding: 'utf8' }).stderr?.split('\n')[0],
  };
}
