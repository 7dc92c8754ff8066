/**
 * Goal: a passphrase and a recovery key are nowhere but where their owner put them. Method: a machine of a lab is backed up, copied, restored and
 * so on into sealed repositories, by every command that takes a secret, right and wrong; then all that the processes printed, what the system
 * showed of them and of those they started, and all that they left in files is searched, as text, in hex and in base64. And a process that
 * crashes with the keys in its memory leaves no core file, although the limit allows one.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { createLab, startLab, stopLab } from '../../src/hosts/lab/lab.js';
import { Repository } from '../../src/repository/repository.js';
import { type Finished, finish, firn, jsonLines, MAIN, said, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';
import { CHEAP } from '../helpers/sealed.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;
const folder = suiteFolder();
const at = (...names: string[]) => path.join(folder, ...names);
const PASSPHRASE = 'Vf4-otter-quartz-lantern';
const OTHER = 'Kq9-heron-velvet-anchor';
const WRONG = 'Zw7-badger-copper-meadow';
const isLinux = process.platform === 'linux';

/** What the system shows of a process and of those that it started, looked at while it runs. */
async function watched(child: ChildProcess, seen: string[]): Promise<Finished> {
  let isOver = false;
  const finished = finish(child).finally(() => {
    isOver = true;
  });
  while (!isOver && isLinux) {
    for (const id of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      for (const what of ['cmdline', 'environ', 'comm']) {
        try {
          seen.push(readFileSync(`/proc/${id}/${what}`, 'latin1'));
        } catch {
          // It has ended, or is another user's.
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return finished;
}

/** Every form in which a secret might be somewhere. */
function formsOf(secret: string): Buffer[] {
  const bytes = Buffer.from(secret);
  const forms = [secret, bytes.toString('hex'), bytes.toString('base64').replace(/=+$/, '')];
  // A JavaScript text with a wide character somewhere in it.
  return [...forms.map((form) => Buffer.from(form)), Buffer.from(secret, 'utf16le')];
}

async function filesBelow(place: string): Promise<string[]> {
  const entries = await readdir(place, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
}

describe('a passphrase and a recovery key', () => {
  test('are in no output, error, journal, repository, temporary file, command line or environment', async () => {
    await mkdir(at('secrets'));
    for (const [name, text] of Object.entries({ first: PASSPHRASE, other: OTHER, wrong: WRONG })) {
      await writeFile(at('secrets', name), `${text}\n`, { mode: 0o600 });
    }
    await mkdir(at('tmp'));
    await writeFile(at('disk.raw'), makeContent(1500, 1));
    await createLab(at('lab'), {
      vms: [{ name: 'web', sizeBytes: 64 * MIB, dataBytes: 4 * MIB, blockBytes: MIB }],
    });
    const seen: string[] = [];
    const printed: string[] = [];
    const secret = (name: string) => ['--password-file', at('secrets', name)];
    const run = async (...parameters: string[]) => {
      const env = { FIRN_REPOSITORY: at('repository'), FIRN_STATE: at('state'), TMPDIR: at('tmp') };
      const finished = await watched(start([...parameters, '--debug'], { env }), seen);
      printed.push(finished.stdout, finished.stderr);
      return finished;
    };
    const ok = async (...parameters: string[]) => {
      const finished = await run(...parameters);
      expect([parameters[0], finished.status, finished.stderr]).toEqual([parameters[0], 0, '']);
      return finished;
    };

    // Made cheap to open; what "init" itself prints comes with the sibling.
    const passphrase = Buffer.from(PASSPHRASE);
    await Repository.create(at('repository'), { passphrase, scryptCost: CHEAP });
    const made = await ok('key', 'recovery', '--json', ...secret('first'));
    // This once it is printed, on purpose.
    const { recoveryKey } = jsonLines(made)[0] as { recoveryKey: string };
    expect(recoveryKey).toMatch(/^FIRN/);
    printed.length = 0;
    await writeFile(at('secrets', 'recovery'), `${recoveryKey}\n`, { mode: 0o600 });
    await startLab(at('lab'));
    try {
      const host = ['--host', `lab:${at('lab')}`];
      await ok('backup', 'web', ...host, '--min-free', '0', '--json', ...secret('first'));
      await ok('reconcile', ...host, '--json', ...secret('first'));
    } finally {
      await stopLab(at('lab'));
    }
    await ok('backup', at('disk.raw'), '--vm', 'disk', ...secret('recovery'));
    await ok('list', '--json', '--password-command', `cat ${at('secrets', 'first')}`);
    await ok('key', 'add', '--new-password-file', at('secrets', 'other'), ...secret('first'));
    await ok('key', 'list');
    await ok('show', 'latest', ...secret('first'));
    await ok('restore', 'latest:disk', '--to', at('restored.raw'), ...secret('recovery'));
    await ok('rescue', 'restore', 'latest:disk', '--to', at('rescued.raw'), ...secret('first'));
    await ok('verify', '--all', '--json', ...secret('first'));
    await ok('hold', 'latest', '--reason', 'audit', ...secret('first'));
    await ok('stats', ...secret('first'));
    await ok(
      'init',
      at('sibling'),
      '--sealed',
      '--like',
      at('repository'),
      '--json',
      ...secret('first'),
    );
    printed.pop();
    printed.pop();
    await ok('copy-points', '--all', '--to', at('sibling'), ...secret('first'));
    await ok('prune', '--json', ...secret('first'));
    for (const parameters of [
      ['list', ...secret('wrong')],
      ['list', '--json', ...secret('wrong')],
      ['restore', 'latest', '--to', at('never'), ...secret('wrong')],
      ['list', '--password-command', `cat ${at('secrets', 'wrong')}; exit 1`],
      ['list', '-r', at('lab'), ...secret('first')],
    ]) {
      expect((await run(...parameters)).status).not.toBe(0);
    }

    await ok('key', 'rotate', '--new-password-file', at('secrets', 'other'), ...secret('first'));
    const left = (await filesBelow(folder)).filter((file) => !file.startsWith(at('secrets')));
    expect(left.some((file) => file.startsWith(at('state', 'journal.db')))).toBe(true);
    const places: [string, Buffer][] = [
      ['output', Buffer.from(printed.join('\n'))],
      ['processes', Buffer.from(seen.join('\n'), 'latin1')],
    ];
    for (const file of left) places.push([file, await readFile(file)]);
    // The search finds what is there.
    if (isLinux) expect(seen.join('\n')).toContain(at('secrets', 'first'));
    for (const each of [PASSPHRASE, OTHER, WRONG, recoveryKey, recoveryKey.replaceAll('-', '')]) {
      for (const form of formsOf(each)) {
        const found = places.filter(([, bytes]) => bytes.includes(form)).map(([name]) => name);
        expect(found).toEqual([]);
      }
    }
  }, 300_000);
});

describe.skipIf(!isLinux)('a process that crashes', () => {
  test('leaves no core file if it had a passphrase, though the limit allows one', async ({
    skip,
  }) => {
    const pattern = await readFile('/proc/sys/kernel/core_pattern', 'utf8');
    if (!/^[^|/]/.test(pattern)) skip('core files go elsewhere than into the folder here');
    const work = at('crash');
    await mkdir(work);
    await writeFile(path.join(work, 'pass'), `${PASSPHRASE}\n`);
    await writeFile(path.join(work, 'disk.raw'), randomContent(32 * MIB));
    const quick = { FIRN_STATE: path.join(work, 'state'), FIRN_PROGRESS: 'always' };
    const cores = async () => (await readdir(work)).filter((name) => name.startsWith('core'));

    /** Sends it what a failed assertion sends, in the middle of a backup. */
    const crash = async (repository: string, ...more: string[]) => {
      // So slow that it is far from its end then.
      const slow = ['--limit', '1M'];
      const line = [MAIN, 'backup', 'disk.raw', '-r', repository, '--json', ...slow, ...more];
      const child = spawn(
        'sh',
        ['-c', 'ulimit -c unlimited || exit 77; exec "$@"', 'sh', process.execPath, ...line],
        {
          cwd: work,
          env: { ...process.env, ...quick },
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      );
      await said(child, '"message_type":"status"');
      const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
      child.kill('SIGABRT');
      const [, signal] = (await once(child, 'close')) as [number | null, string | null];
      expect(signal).toBe('SIGABRT');
      return status;
    };
    const sealed = path.join(work, 'sealed');
    const secret = ['--password-file', 'pass'];
    expect((await firn(['init', sealed, '--sealed', ...secret], { cwd: work })).status).toBe(0);
    expect((await firn(['init', path.join(work, 'plain')], { cwd: work })).status).toBe(0);
    await crash(path.join(work, 'plain'));
    const made = await cores();
    if (made.length === 0) skip('this system makes no core files at all');
    for (const name of made) expect((await stat(path.join(work, name))).size).toBeGreaterThan(0);
    await crash(sealed, ...secret);
    expect(await cores()).toEqual(made);
  }, 300_000);
});
