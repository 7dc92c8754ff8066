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
import { ADDON, SAMPLES, windowsNode, windowsPath } from '../../scripts/windows-tools.mjs';
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
