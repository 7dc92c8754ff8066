/**
 * Goal: Firn on Windows makes and reads the same repositories as Firn elsewhere. Method: the command line runs in node.exe under Wine with the
 * addon that mingw-w64 built (scripts/windows.mjs); what one system backs up the other restores, and the bytes are compared. Runs with
 * FIRN_WINDOWS=1 only: it needs Wine and the addon for Windows.
 */

import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  ADDON,
  SAMPLES,
  shareFolder,
  windowsNode,
  windowsPath,
} from '../../scripts/windows-tools.mjs';
import { copyDisk } from '../../src/jobs/copy.js';
import { diskContent, sha256 } from '../helpers/disks.js';
import { type Finished, firn, jsonLines, MAIN } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const MIB = 1024 * 1024;
const enabled = process.env.FIRN_WINDOWS === '1';

/** The command line on Windows. */
function firnThere(...parameters: string[]): Pick<Finished, 'status' | 'stdout' | 'stderr'> {
  return windowsNode([MAIN, ...parameters]);
}

/** Blocks of noise between holes, so that there is something of everything. */
function someContent(): Buffer {
  const content = Buffer.alloc(24 * MIB);
  for (let offset = 0, state = 1; offset < content.length; offset += 3 * MIB) {
    for (let i = 0; i < 300_000; i += 1) {
      state = (state * 1103515245 + 12345) & 0x7fffffff;
      content[offset + i] = state >> 16;
    }
  }
  return content;
}

describe.runIf(enabled)('Firn for Windows', { timeout: 300_000 }, () => {
  const folder = suiteFolder();
  const there = windowsPath(folder);
  const content = someContent();
  let image: string;

  beforeAll(async () => {
    expect(existsSync(ADDON), 'the addon for Windows is built').toBe(true);
    // A name that is neither ASCII nor short, below a folder like it.
    const deep = path.join(folder, 'Größe 日本', 'x'.repeat(200));
    await mkdir(deep, { recursive: true });
    image = path.join(deep, 'disk.vhdx');
    const raw = path.join(folder, 'disk.raw');
    await writeFile(raw, content);
    await copyDisk(raw, image);
  }, 120_000);

  test('the command line starts in node.exe', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8'));
    const finished = firnThere('--version');
    expect(finished.stderr).toBe('');
    expect(finished.stdout.trim()).toBe(version);
    expect(finished.status).toBe(0);
  });

  test('the addon loads in a program that is not named node.exe', async () => {
    const where = windowsNode(['-p', 'process.execPath']).stdout.trim();
    const script = `
      const { copyFileSync } = require('node:fs');
      const { execFileSync } = require('node:child_process');
      const host = ${JSON.stringify(`${there}\\host.exe`)};
      copyFileSync(process.execPath, host);
      process.stdout.write(execFileSync(host, ['-p', 'Object.keys(require(process.env.FIRN_ADDON)).length > 10'], { encoding: 'utf8' }));`;
    expect(where).toMatch(/node\.exe$/);
    const finished = windowsNode(['-e', script]);
    expect(finished.stderr).toBe('');
    expect(finished.stdout.trim()).toBe('true');
  });

  test('what Windows backs up, Windows and this system restore byte for byte', async () => {
    const repo = `${there}\\made-there`;
    expect(firnThere('init', repo)).toMatchObject({ status: 0 });
    const backup = firnThere(
      '-r',
      repo,
      '--json',
      'backup',
      '-d',
      windowsPath(image),
      '--vm',
      'vm',
    );
    expect(backup, backup.stderr).toMatchObject({ status: 0 });
    expect(backup.stdout).toContain('iocp');
    for (const format of ['vhdx', 'raw']) {
      const target = path.join(folder, `there.${format}`);
      const restore = firnThere(
        '-r',
        repo,
        'restore',
        'latest:vm',
        '--to',
        windowsPath(target),
        '--format',
        format,
      );
      expect(restore, restore.stderr).toMatchObject({ status: 0 });
      expect(sha256(await diskContent(target))).toBe(sha256(content));
    }
    const here = path.join(folder, 'here.raw');
    const restored = await firn([
      '-r',
      path.join(folder, 'made-there'),
      'restore',
      'latest:vm',
      '--to',
      here,
      '--format',
      'raw',
    ]);
    expect(restored, restored.stderr).toMatchObject({ status: 0 });
    expect(sha256(await readFile(here))).toBe(sha256(content));
    const verify = await firn(['-r', path.join(folder, 'made-there'), 'verify', '--read-data']);
    expect(verify, verify.stderr).toMatchObject({ status: 0 });
  });

  test('what this system backs up, Windows verifies, adds to and restores byte for byte', async () => {
    const repo = path.join(folder, 'made-here');
    const target = path.join(folder, 'from-here.vhdx');
    expect(await firn(['init', repo])).toMatchObject({ status: 0 });
    const first = await firn(['-r', repo, 'backup', '-d', image, '--vm', 'vm']);
    expect(first, first.stderr).toMatchObject({ status: 0 });
    const verify = firnThere('-r', windowsPath(repo), 'verify', '--read-data');
    expect(verify, verify.stderr).toMatchObject({ status: 0 });
    const restore = firnThere(
      '-r',
      windowsPath(repo),
      'restore',
      'latest:vm',
      '--to',
      windowsPath(target),
    );
    expect(restore, restore.stderr).toMatchObject({ status: 0 });
    expect(sha256(await diskContent(target))).toBe(sha256(content));
    // The same disk from the other system has the same content, and nothing of it is stored again.
    const again = firnThere(
      '-r',
      windowsPath(repo),
      '--json',
      'backup',
      '-d',
      windowsPath(image),
      '--vm',
      'vm',
    );
    expect(again, again.stderr).toMatchObject({ status: 0 });
    const [listed] = jsonLines(await firn(['-r', repo, '--json', 'list']));
    const points = listed?.points as { disks: { root: string }[] }[];
    const roots = points.flatMap((point) => point.disks.map((disk) => disk.root));
    expect(roots).toHaveLength(2);
    expect(new Set(roots).size).toBe(1);
  });

  test.runIf(existsSync(path.join(SAMPLES, 'vhdx-log-replay.vhdx')))(
    'a disk of Windows with a log to replay reads the same on both systems',
    async () => {
      const sample = path.join(SAMPLES, 'vhdx-log-replay.vhdx');
      const [a, b] = [path.join(folder, 'log-there.raw'), path.join(folder, 'log-here.raw')];
      const copied = firnThere('copy', windowsPath(sample), windowsPath(a));
      expect(copied, copied.stderr).toMatchObject({ status: 0 });
      expect(await firn(['copy', sample, b])).toMatchObject({ status: 0 });
      expect(sha256(await readFile(a))).toBe(sha256(await readFile(b)));
    },
  );

  test('a sealed repository is read and added to on the other system', async () => {
    const passwordFile = path.join(folder, 'passphrase');
    await writeFile(passwordFile, 'correct horse battery staple\n');
    const key = ['--password-file', passwordFile];
    const keyThere = ['--password-file', windowsPath(passwordFile)];
    const made = {
      here: path.join(folder, 'sealed-here'),
      there: path.join(folder, 'sealed-there'),
    };
    expect(await firn([...key, 'init', made.here, '--sealed'])).toMatchObject({ status: 0 });
    expect(firnThere(...keyThere, 'init', windowsPath(made.there), '--sealed')).toMatchObject({
      status: 0,
    });
    for (const repo of [made.here, made.there]) {
      // One system adds a point, the other finds all of it there and adds the next.
      const hereArguments = [...key, '-r', repo];
      const thereArguments = [...keyThere, '-r', windowsPath(repo)];
      const fromThere = firnThere(
        ...thereArguments,
        'backup',
        '-d',
        windowsPath(image),
        '--vm',
        'a',
      );
      expect(fromThere, fromThere.stderr).toMatchObject({ status: 0 });
      const fromHere = await firn([...hereArguments, 'backup', '-d', image, '--vm', 'b']);
      expect(fromHere, fromHere.stderr).toMatchObject({ status: 0 });
      const verify = firnThere(...thereArguments, 'verify', '--read-data');
      expect(verify, verify.stderr).toMatchObject({ status: 0 });
      const [a, b] = [`${repo}.a.raw`, `${repo}.b.raw`];
      expect(await firn([...hereArguments, 'restore', 'latest:a', '--to', a])).toMatchObject({
        status: 0,
      });
      const back = firnThere(...thereArguments, 'restore', 'latest:b', '--to', windowsPath(b));
      expect(back, back.stderr).toMatchObject({ status: 0 });
      for (const target of [a, b]) expect(sha256(await diskContent(target))).toBe(sha256(content));
    }
    const wrong = firnThere('-r', windowsPath(made.here), 'verify');
    expect(wrong.status).not.toBe(0);
    expect(wrong.stderr).toContain('ERR_KEY_REQUIRED');
  });

  test('a repository on a share, a disk in another case, and slashes of either kind are found', async () => {
    await mkdir(path.join(folder, 'share'));
    const share = shareFolder(path.join(folder, 'share'));
    try {
      const repo = `${share.path}\\repository`;
      expect(firnThere('init', repo)).toMatchObject({ status: 0 });
      const disk = windowsPath(image).replace('disk.vhdx', 'DISK.vhdX').replaceAll('\\', '/');
      const backup = firnThere(
        '-r',
        repo.replaceAll('\\', '/'),
        'backup',
        '-d',
        disk,
        '--vm',
        'vm',
      );
      expect(backup, backup.stderr).toMatchObject({ status: 0 });
      const target = path.join(folder, 'share', 'back.raw');
      const restore = firnThere(
        '-r',
        repo,
        'restore',
        'latest:vm',
        '--to',
        `${share.path}\\back.raw`,
      );
      expect(restore, restore.stderr).toMatchObject({ status: 0 });
      expect(sha256(await readFile(target))).toBe(sha256(content));
      const verify = await firn(['-r', path.join(folder, 'share', 'repository'), 'verify']);
      expect(verify, verify.stderr).toMatchObject({ status: 0 });
    } finally {
      share.remove();
    }
  });

  test('a disk that another program has for itself is in use, and worth another try', async () => {
    const repo = `${there}\\locks`;
    const locked = path.join(folder, 'locked.raw');
    await writeFile(locked, content.subarray(0, MIB));
    expect(firnThere('init', repo)).toMatchObject({ status: 0 });
    const backup = ['-r', repo, '--json', 'backup', '-d', windowsPath(locked), '--vm', 'vm'];
    // 0x10000000 is UV_FS_O_EXLOCK: opened without sharing, as Hyper-V has the disk that a machine writes to.
    const script = `
      const { openSync, closeSync, constants } = require('node:fs');
      const { spawnSync } = require('node:child_process');
      const file = openSync(${JSON.stringify(windowsPath(locked))}, constants.O_RDWR | 0x10000000);
      const { status, stderr } = spawnSync(process.execPath, ${JSON.stringify([MAIN, ...backup])}, { encoding: 'utf8' });
      closeSync(file);
      console.log(JSON.stringify({ status, stderr }));`;
    const { status, stderr } = JSON.parse(windowsNode(['-e', script]).stdout);
    expect(status).not.toBe(0);
    expect(stderr).toContain('ERR_FILE_IN_USE');
    expect(stderr).toMatch(/"retryable":\s*true/);
    expect(firnThere(...backup)).toMatchObject({ status: 0 });
  });

  // virtdisk.dll is the stand-in for it there (native/disk/virtdisk_stand_in), which reads what it says from a file beside the disk.
  test("the system's own driver for disks is asked through the engine and the command line", async () => {
    const disk = path.join(folder, 'frozen.avhdx');
    await writeFile(disk, content.subarray(0, MIB));
    const answers = `size ${MIB} sector 512 id rctX:7 range 8192 4096 range 65536 1`;
    await writeFile(`${disk}.stand-in`, answers);
    const inspect = (...flags: string[]) =>
      firnThere('--json', 'inspect', windowsPath(disk), '--driver', ...flags);
    const told = inspect('--changed-since', 'rctX:7');
    expect(told, told.stderr).toMatchObject({ status: 0 });
    expect(JSON.parse(told.stdout)).toMatchObject({
      identity: { format: 'vhdx', kind: 'differencing', sizeBytes: MIB },
      tracking: { enabled: true, newerChanges: true, mostRecentId: 'rctX:7' },
      changes: {
        since: 'rctX:7',
        ranges: [
          [8192, 4096],
          [65536, 4096],
        ],
      },
    });
    expect(inspect('--changed-since', 'rctX:1').stderr).toContain('ERR_SOURCE_CHANGED');
    const script = `
      const { createHash } = require('node:crypto');
      require(process.env.FIRN_ADDON).openDriverDisk(${JSON.stringify(windowsPath(disk))}).then(async (disk) => {
        console.log(createHash('sha256').update(await disk.read(0, ${MIB})).digest('hex'));
        disk.close();
      });`;
    const read = windowsNode(['-e', script]);
    expect(read.stdout.trim(), read.stderr).toBe(sha256(content.subarray(0, MIB)));
    const here = await firn(['inspect', disk, '--driver']);
    expect(here.stderr).toContain('ERR_UNSUPPORTED');
  });

  test('what is not there and what names a device is told with its code', async () => {
    const repo = `${there}\\codes`;
    expect(firnThere('init', repo)).toMatchObject({ status: 0 });
    const backup = (disk: string) =>
      firnThere('-r', repo, '--json', 'backup', '-d', disk, '--vm', 'vm').stderr;
    expect(backup(`${there}\\none.vhdx`)).toContain('ERR_NOT_FOUND');
    await writeFile(path.join(folder, 'empty.vhdx'), '');
    expect(backup(`${there}\\empty.vhdx`)).toContain('ERR_DISK_INVALID');
    expect(backup(`${there}\\nul.vhdx`)).toContain('ERR_INVALID_ARGUMENT');
  });
});

test.skipIf(enabled)('Firn for Windows is tried with FIRN_WINDOWS=1', ({ skip }) => {
  skip(`it needs Wine (${path.relative('.', fileURLToPath(import.meta.url))})`);
});
