/**
 * The command line without any backup: what it teaches, what it refuses, and with which exit code. Every test runs the real process.
 * None of these may load the addon, so each runs with an FIRN_ADDON that does not exist: loading it would fail.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createProgram } from '../../src/cli/program.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-usage-'));
const repository = join(folder, 'repository');
const env = { FIRN_ADDON: join(folder, 'no-addon.node') };
const run = (...parameters: string[]) => firn(parameters, { env });

beforeAll(async () => {
  const made = await run('init', repository);
  expect(made.stderr).toBe('');
  expect(made.status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

function allCommands(command: Command, path: string[] = []): [string, Command][] {
  return command.commands.flatMap((child): [string, Command][] => {
    const name = [...path, child.name()];
    return child.commands.length > 0 ? allCommands(child, name) : [[name.join(' '), child]];
  });
}

describe('help', () => {
  it('lists every command, how to begin, the environment and the exit codes', async () => {
    const { status, stdout, stderr } = await run('--help');
    expect(status).toBe(0);
    expect(stderr).toBe('');
    for (const word of [
      'init',
      'backup',
      'restore',
      'verify',
      'list',
      'show',
      'stats',
      'inspect',
    ]) {
      expect(stdout).toMatch(new RegExp(`^ {2}${word}\\b`, 'm'));
    }
    for (const word of [
      'copy',
      'repair',
      'rescue',
      'Quick start',
      'FIRN_REPOSITORY',
      '130 interrupted',
    ]) {
      expect(stdout).toContain(word);
    }
  });

  it('goes to standard error, with exit 2, when no command was given', async () => {
    for (const parameters of [[], ['repair'], ['rescue']]) {
      const { status, stdout, stderr } = await run(...parameters);
      expect(status).toBe(2);
      expect(stdout).toBe('');
      expect(stderr).toContain('Usage: firn');
    }
  });

  it('prints the version of the package', async () => {
    const { version } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    );
    expect((await run('--version')).stdout).toBe(`${version}\n`);
  });
});

describe('docs/cli.md', async () => {
  const text = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
  const program = await createProgram([], async () => {});

  it('has a section for each command with a row for each of its options', () => {
    const commands = allCommands(program);
    expect(commands.length).toBeGreaterThan(10);
    for (const [name, command] of commands) {
      const section = text
        .split(/^### /m)
        .find((part) => new RegExp(`^firn ${name}(?![a-z-])`).test(part));
      expect(section, name).toBeDefined();
      const missing = command.options.filter((option) => !section?.includes(`${option.long}`));
      expect(
        missing.map((option) => option.long),
        name,
      ).toEqual([]);
    }
  });

  it('has no section for a command that there is not', () => {
    const names = allCommands(program).map(([name]) => name);
    for (const [, heading = ''] of text.matchAll(/^### firn ((?: ?[a-z]+(?:-[a-z]+)*)+)/gm)) {
      expect(names).toContain(heading);
    }
  });

  it('has a row for each option of every command', () => {
    for (const option of program.options) expect(text).toContain(`\`${option.long}`);
  });
});

describe('a mistake', () => {
  it.each([
    [['bakup'], "unknown command 'bakup'\n(Did you mean backup?)"],
    [['backup', '--dsik', 'x'], "unknown option '--dsik'\n(Did you mean --disk?)"],
    [['restore', 'latest'], "required option '--to <path>' not specified"],
    [['restore', '--to', 'x'], "missing required argument 'point'"],
    [['list', '--progress', 'sometimes'], 'one of auto, always, never for --progress'],
    [['list', '--workers', '0'], 'an integer from 1 to 256 for --workers'],
    [
      ['list', '--memory', 'much'],
      'a size such as 64K, 1M or 2GiB for --memory but received "much"',
    ],
    [['backup', '--codec', 'gzip'], 'one of raw, lz4, zstd for --codec but received "gzip"'],
    [['init', '--chunking', 'fixed:5K', 'x'], 'a multiple of 4 KiB'],
    [['init', '--chunking', 'fixed:64K', '--min', '4K', 'x'], 'content together with --min'],
    [['init', '--chunking', 'gear', 'x'], 'content or fixed:SIZE for --chunking'],
    [['list'], 'No repository was given'],
    [['show', 'xyz', '-r', repository], 'the beginning of one, latest or latest:VM'],
  ])('firn %j says so, and ends with 2', async (parameters, text) => {
    const { status, stdout, stderr } = await run(...parameters);
    expect(stderr).toContain(text);
    expect(stderr).toContain('ERR_INVALID_ARGUMENT, exit 2');
    expect(status).toBe(2);
    expect(stdout).toBe('');
  });

  it('under --json is one exit_error line and nothing else', async () => {
    const finished = await run('bakup', '--json');
    expect(finished.status).toBe(2);
    expect(finished.stdout).toBe('');
    expect(finished.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(exitError(finished)).toMatchObject({
      message_type: 'exit_error',
      code: 2,
      error: { code: 'ERR_INVALID_ARGUMENT' },
    });
  });

  it('in the environment is told from one on the command line', async () => {
    const finished = await firn(['verify', '-r', repository, '--json'], {
      env: { ...env, FIRN_WORKERS: 'many' },
    });
    expect(finished.status).toBe(2);
    expect(exitError(finished).error).toMatchObject({ code: 'ERR_CONFIG_INVALID' });
  });
});

describe('an empty repository', () => {
  it('is listed without loading the addon, in words and as JSON', async () => {
    const text = await run('list', '-r', repository);
    expect([text.status, text.stdout, text.stderr]).toEqual([0, '', 'no points yet\n']);
    const json = await run('list', '-r', repository, '--json');
    expect(jsonLines(json)).toEqual([{ points: [], damaged: 0 }]);
    expect((await run('rescue', 'list', '-r', repository, '--json')).stdout).toBe(json.stdout);
  });

  it('is found through FIRN_REPOSITORY, and --repo is stronger', async () => {
    const elsewhere = { ...env, FIRN_REPOSITORY: join(folder, 'nowhere') };
    expect((await firn(['list'], { env: { ...env, FIRN_REPOSITORY: repository } })).status).toBe(0);
    expect((await firn(['list', '-r', repository], { env: elsewhere })).status).toBe(0);
    expect((await firn(['list'], { env: elsewhere })).status).toBe(10);
  });

  it('has no points to show', async () => {
    const finished = await run('show', '-r', repository, '--json');
    expect(finished.status).toBe(10);
    expect(exitError(finished).error).toMatchObject({ code: 'ERR_POINT_NOT_FOUND' });
  });

  it('cannot be made again, nor in a folder with other files', async () => {
    const again = await run('init', repository, '--json');
    expect([again.status, exitError(again).error.code]).toEqual([2, 'ERR_REPOSITORY_EXISTS']);
    writeFileSync(join(folder, 'file'), '');
    const occupied = await run('init', folder, '--json');
    expect([occupied.status, exitError(occupied).error.code]).toEqual([2, 'ERR_EXISTS']);
  });

  it('keeps how it was told to cut', async () => {
    const made = await run('init', join(folder, 'fixed'), '--chunking', 'fixed:64K', '--json');
    expect(jsonLines(made)[0]).toMatchObject({ chunking: { scheme: 'fixed', pages: 16 } });
    const sizes = ['--min', '16K', '--average', '32K', '--max', '1M'];
    const content = await run('init', join(folder, 'content'), ...sizes, '--json');
    expect(jsonLines(content)[0]).toMatchObject({
      chunking: { scheme: 'content', minPages: 4, averagePages: 8, maxPages: 256 },
    });
  });
});

describe('a missing engine', () => {
  it('is a page of help with exit 70, and a stack only with --debug', async () => {
    const { status, stderr } = await run('inspect', folder);
    expect(status).toBe(70);
    expect(stderr).toContain(env.FIRN_ADDON);
    expect(stderr).toContain('npm run build');
    expect(stderr).toContain('ERR_NATIVE_LOAD, exit 70');
    expect(stderr).not.toMatch(/^ +at /m);
    expect((await run('inspect', folder, '--debug')).stderr).toMatch(/^ +at /m);
  });
});
