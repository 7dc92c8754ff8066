/**
 * Goal: a passphrase can be typed, and nobody sees it. Method: the program runs on a real terminal (a pseudo terminal, test/helpers/terminal.c), a
 * person's keys are typed when it asks, and everything that it shows is looked at, with what the terminal is left as.
 */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { Repository } from '../../src/repository/repository.js';
import { firn, MAIN } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';
import { CHEAP } from '../helpers/sealed.js';

const PASSPHRASE = 'Größe otter lantern';
const SANE = 'echo=1 canonical=1 signals=1]';
const folder = suiteFolder();
const terminal = path.join(folder, 'terminal');
const source = fileURLToPath(new URL('../helpers/terminal.c', import.meta.url));
const compiled = spawnSync('cc', ['-O1', '-o', terminal, source, '-lutil']);
const repository = path.join(folder, 'repository');

type Keys = readonly (readonly [question: string, keys: string])[];

function typed(parameters: readonly string[], keys: Keys) {
  return typedTo([process.execPath, MAIN, ...parameters], keys);
}

/** Types each of `keys` when the question before it has been shown. Gives all that was shown, and the last line by itself. */
async function typedTo(
  command: readonly string[],
  keys: Keys,
): Promise<{ shown: string; end: string }> {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('FIRN_'));
  const child = spawn(terminal, command, {
    env: { ...Object.fromEntries(inherited), FIRN_STATE: path.join(folder, 'state') },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let shown = '';
  let from = 0;
  const waiting = [...keys];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    shown += text;
    const [next] = waiting;
    const place = next === undefined ? -1 : shown.indexOf(next[0], from);
    if (next === undefined || place < 0) return;
    from = place + next[0].length;
    waiting.shift();
    child.stdin.write(next[1]);
  });
  await once(child, 'close');
  expect(waiting).toEqual([]);
  const end = shown.trimEnd().split('\n').at(-1) ?? '';
  return { shown, end };
}

describe.skipIf(compiled.status !== 0)('on a terminal', () => {
  beforeAll(async () => {
    await firn(['--version']);
    const passphrase = Buffer.from(PASSPHRASE);
    await Repository.create(repository, { passphrase, scryptCost: CHEAP });
  });

  test('a new passphrase is asked for twice, is not shown, and opens the repository', async () => {
    const made = path.join(folder, 'made');
    const { shown, end } = await typed(
      ['init', made, '--sealed'],
      [
        ['New passphrase: ', `${PASSPHRASE}\r`],
        ['The same again: ', `${PASSPHRASE}\r`],
      ],
    );
    expect(end).toBe(`[exit 0 ${SANE}`);
    for (const word of PASSPHRASE.split(' ')) expect(shown).not.toContain(word);
    const opened = await Repository.open(made, undefined, { passphrase: Buffer.from(PASSPHRASE) });
    expect(opened.isSealed).toBe(true);
  });

  test('two that differ make no repository', async () => {
    const made = path.join(folder, 'differ');
    const { shown, end } = await typed(
      ['init', made, '--sealed'],
      [
        ['New passphrase: ', `${PASSPHRASE}\r`],
        ['The same again: ', 'another\r'],
      ],
    );
    expect(end).toBe(`[exit 2 ${SANE}`);
    expect(shown).toContain('The two passphrases differ');
    await expect(Repository.open(made)).rejects.toMatchObject({ code: 'ERR_REPOSITORY_NOT_FOUND' });
  });

  test('it is asked for once when it opens one, and typing may be mended, also over whole characters', async () => {
    const keys = `x\u007f${PASSPHRASE.replace('ß', 'ßü\u007f')}\r`;
    const { shown, end } = await typed(['list', '-r', repository], [['Passphrase: ', keys]]);
    expect(end).toBe(`[exit 0 ${SANE}`);
    expect(shown.match(/assphrase/g)).toHaveLength(1);
    expect(shown).not.toContain('otter');
  });

  test('a wrong one is called that, and is not shown either', async () => {
    const keys = [['Passphrase: ', 'heron velvet\r']] as const;
    const { shown, end } = await typed(['list', '-r', repository], keys);
    expect(end).toBe(`[exit 12 ${SANE}`);
    expect(shown).toContain('ERR_KEY_WRONG');
    expect(shown).not.toContain('velvet');
  });

  test('Ctrl-C at the question ends it, and the terminal is as it was', async () => {
    const { shown, end } = await typed(
      ['list', '-r', repository],
      [['Passphrase: ', 'hero\u0003']],
    );
    expect(end).toMatch(/^\[exit (?!0)\d+ echo=1 canonical=1 signals=1\]$/);
    expect(shown).not.toContain('hero');
  });

  test('what is asked for goes to the terminal and not into the output', async () => {
    const output = path.join(folder, 'output');
    const line = 'exec "$0" "$1" list --json -r "$2" > "$3"';
    const command = ['sh', '-c', line, process.execPath, MAIN, repository, output];
    const { shown } = await typedTo(command, [['Passphrase: ', `${PASSPHRASE}\r`]]);
    expect(shown).not.toContain('points');
    expect(JSON.parse(await readFile(output, 'utf8'))).toBeDefined();
  });
});
