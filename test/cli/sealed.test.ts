/**
 * Sealed repositories as a user runs them: where the passphrase may come from, what the commands print, and that it is seen nowhere: not
 * in what they print, not in their errors, and not in the list of processes.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { Repository } from '../../src/repository/repository.js';
import { exitError, type Finished, finish, firn, jsonLines, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';
import { CHEAP, passphrase } from '../helpers/sealed.js';
import { makeContent } from '../helpers/writer.js';

const folder = suiteFolder();
const file = (name: string) => path.join(folder, name);
const SECRETS = ['first passphrase of all', 'a second one', 'for the host alone'];
const [FIRST, SECOND, HOST] = SECRETS as [string, string, string];
const FILES = { first: file('first'), second: file('second'), host: file('host') };
const everything: string[] = [];
let repository: Repository;

/** Runs a command; what it prints is kept, to be searched for secrets at the end. */
async function run(parameters: string[], env: Record<string, string> = {}): Promise<Finished> {
  const settings = { FIRN_REPOSITORY: repository.path, FIRN_STATE: file('state'), ...env };
  const finished = await firn(parameters, { env: settings });
  everything.push(finished.stdout, finished.stderr);
  return finished;
}

const withFile = (name: string) => ({ FIRN_PASSWORD_FILE: name });

beforeAll(async () => {
  await writeFile(FILES.first, `${FIRST}\n`, { mode: 0o600 });
  await writeFile(FILES.second, `${SECOND}\r\nand a second line\n`);
  await writeFile(FILES.host, HOST);
  await writeFile(file('disk.raw'), makeContent(800, 1));
  const options = { passphrase: passphrase(FIRST), scryptCost: CHEAP };
  repository = await Repository.create(file('repository'), options);
  for (const [text, capability] of [
    [SECOND, 'full'],
    [HOST, 'write'],
  ] as const) {
    await repository.addKey(passphrase(text), { capability, cost: CHEAP });
  }
});

describe('a passphrase', () => {
  test('comes from a file, a variable that names one, or a command', async () => {
    const backup = ['backup', '--vm', 'web', file('disk.raw')];
    expect((await run([...backup, '--password-file', FILES.first])).status).toBe(0);
    expect((await run(['list'], withFile(FILES.second))).stdout).toContain('web');
    const printing = `cat ${FILES.first}`;
    expect((await run(['list', '--password-command', printing])).stdout).toContain('web');
  });

  test('is asked for by name when nothing gives it, and refused when it is wrong', async () => {
    expect(exitError(await run(['list', '--json'])).error.code).toBe('ERR_KEY_REQUIRED');
    const wrong = await run(['list', '--json'], withFile(file('disk.raw')));
    expect(wrong.status).not.toBe(0);
    await writeFile(file('other'), 'something else\n');
    const other = await run(['list', '--json'], withFile(file('other')));
    expect(exitError(other).error.code).toBe('ERR_KEY_WRONG');
    expect(other.status).toBe(12);
  });

  test('that is empty, or of a command that fails, is refused', async () => {
    await writeFile(file('empty'), '\n');
    const empty = await run(['list', '--json', '--password-file', file('empty')]);
    expect(exitError(empty).error.code).toBe('ERR_CONFIG_INVALID');
    const failed = await run(['list', '--json', '--password-command', 'exit 3']);
    expect(exitError(failed).error.code).toBe('ERR_READ');
    const both = ['--password-file', FILES.first, '--password-command', 'true'];
    expect(exitError(await run(['list', '--json', ...both])).code).toBe(2);
  });

  test('for a repository that is not sealed stops the command', async () => {
    const plain = await Repository.create(file('plain'));
    const refused = await run(['list', '--json', '-r', plain.path], withFile(FILES.first));
    expect(exitError(refused).error.code).toBe('ERR_NOT_SEALED');
  });
});

describe('the commands', () => {
  test('restore, rescue and verify a sealed repository', async () => {
    const first = withFile(FILES.first);
    const content = await readFile(file('disk.raw'));
    expect((await run(['restore', 'latest', '--to', file('restored.raw')], first)).status).toBe(0);
    expect((await readFile(file('restored.raw'))).equals(content)).toBe(true);
    const rescued = await run(['rescue', 'restore', 'latest', '--to', file('rescued.raw')], first);
    expect(rescued.status).toBe(0);
    expect((await readFile(file('rescued.raw'))).equals(content)).toBe(true);
    expect((await run(['verify', '--read-data'], first)).stdout).toContain('no defects');
    expect((await run(['verify', '--packs-only'])).stdout).toContain('no defects');
    expect((await run(['stats', '--json'], first)).status).toBe(0);
  });

  test('refuse what a write-only key may not do', async () => {
    const host = withFile(FILES.host);
    expect((await run(['backup', '--vm', 'db', file('disk.raw')], host)).status).toBe(0);
    for (const parameters of [['list'], ['prune'], ['forget', 'latest'], ['key', 'recovery']]) {
      const refused = await run([...parameters, '--json'], host);
      expect(exitError(refused).error.code, parameters.join(' ')).toBe('ERR_KEY_WRITE_ONLY');
    }
    expect((await run(['list'], withFile(FILES.first))).stdout).toContain('db');
  });

  test('send a stream only when told that it is not sealed', async () => {
    const first = withFile(FILES.first);
    const refused = await run(['send', '--all', '-o', file('stream'), '--json'], first);
    expect(exitError(refused).error.code).toBe('ERR_UNSUPPORTED');
    const sent = await run(['send', '--all', '--unsealed', '-o', file('stream'), '--force'], first);
    expect(sent.stderr).toBe('');
    expect(sent.status).toBe(0);
  });

  test('init --sealed prints a recovery key once, which opens the repository', async () => {
    const target = file('new');
    const made = await run(['init', target, '--sealed', '--json'], withFile(FILES.first));
    const { recoveryKey, sealed } = jsonLines(made)[0] as { recoveryKey: string; sealed: boolean };
    expect(sealed).toBe(true);
    await writeFile(file('recovery'), `${recoveryKey}\n`);
    const opened = await run(['list', '-r', target], withFile(file('recovery')));
    expect(opened.status).toBe(0);
    expect(opened.stdout + opened.stderr).not.toContain(recoveryKey);
    const keys = jsonLines(await run(['key', 'list', '-r', target, '--json']))[0];
    expect(keys).toMatchObject([{ unlock: 'passphrase' }, { unlock: 'recovery' }]);
  });

  test('add, rotate and remove keys', async () => {
    const first = withFile(FILES.first);
    await writeFile(file('third'), 'the third\n');
    await writeFile(file('fourth'), 'the fourth\n');
    const add = ['key', 'add', '--label', 'night shift', '--json'];
    const [added] = jsonLines(await run([...add, '--new-password-file', file('third')], first));
    expect(added).toMatchObject({ capability: 'full', label: 'night shift' });
    const rotate = ['key', 'rotate', '--json', '--new-password-file', file('fourth')];
    const [rotated] = jsonLines(await run(rotate, withFile(file('third'))));
    expect(rotated).toMatchObject({ removed: { id: added?.id }, added: { label: 'night shift' } });
    expect((await run(['list'], withFile(file('third')))).status).toBe(12);
    const { id } = (rotated as { added: { id: string } }).added;
    expect((await run(['key', 'remove', id.slice(0, 10)], first)).status).toBe(0);
    expect((await run(['list'], withFile(file('fourth')))).status).toBe(12);
    const listed = (await run(['key', 'list'])).stdout;
    expect(listed).not.toContain('night shift');
    expect(listed).toContain('writes only');
  });
});

describe('secrets', () => {
  test.skipIf(process.platform !== 'linux')('are in no command line of any process', async () => {
    await writeFile(file('large.raw'), makeContent(2000, 2));
    const settings = { FIRN_REPOSITORY: repository.path, FIRN_STATE: file('state') };
    // It takes a while, so that there is something to see.
    const slow = ['--limit', '1M', '--debug'];
    const child = start(['backup', '--vm', 'big', file('large.raw'), ...slow], {
      env: { ...settings, FIRN_PASSWORD_FILE: FILES.first },
    });
    const seen: string[] = [];
    const finished = finish(child);
    let isDone = false;
    void finished.then(() => {
      isDone = true;
    });
    while (!isDone) {
      for (const id of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
        for (const what of ['cmdline', 'environ']) {
          try {
            seen.push(readFileSync(`/proc/${id}/${what}`, 'latin1'));
          } catch {
            // It has ended, or is another user's.
          }
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const { status, stdout, stderr } = await finished;
    expect(status).toBe(0);
    everything.push(stdout, stderr);
    const text = seen.join('\n');
    expect(text).toContain(FILES.first);
    expect(SECRETS.filter((secret) => text.includes(secret))).toEqual([]);
  });

  test('are in nothing that any of these commands printed, nor in what they remember', () => {
    const remembered = readdirSync(file('state/sealed')).map((name) =>
      readFileSync(path.join(file('state/sealed'), name), 'utf8'),
    );
    const text = [...everything, ...remembered].join('\n');
    expect(text.length).toBeGreaterThan(2000);
    const { idKey } = repository;
    expect([...SECRETS, idKey].filter((secret) => text.includes(secret))).toEqual([]);
  });
});
