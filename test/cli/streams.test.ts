/** `firn send`, `firn receive` and `firn copy-points` as processes: pipes, kills, and what they print. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { Repository } from '../../src/repository/repository.js';
import { newRepository } from '../helpers/disks.js';
import { exitError, finish, firn, jsonLines, MAIN, start } from '../helpers/firn.js';
import { temporaryFolder } from '../helpers/folder.js';
import { randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;

async function repositoryWith(content: Buffer) {
  const repository = await newRepository();
  await addTo(repository, content);
  return repository;
}

async function addTo(repository: Repository, content: Buffer) {
  const disk = path.join(await temporaryFolder(), 'web.raw');
  await writeFile(disk, content);
  const made = await firn(['backup', disk, '--vm', 'web', '-r', repository.path]);
  expect(made.status, made.stderr).toBe(0);
}

async function newPath(name = 'sibling'): Promise<string> {
  return path.join(await temporaryFolder(), name);
}

/** How many files are in a folder and those in it. */
async function filesBelow(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isFile()).length;
}

/** Starts firn with a file or another process as its standard input, which stays open for more with `end: false`. */
function startWith(
  input: NodeJS.ReadableStream,
  parameters: readonly string[],
  options?: { end: boolean },
): ChildProcess {
  const child = spawn(process.execPath, [MAIN, ...parameters], {
    env: { ...process.env, NO_COLOR: '1' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stdin?.on('error', () => {
    // It ended before it had read everything; its exit code says why.
  });
  input.pipe(child.stdin as NodeJS.WritableStream, options);
  return child;
}

async function expectLatestIs(folder: string, content: Buffer): Promise<void> {
  const repository = await Repository.open(folder);
  expect((await verify(repository, { readData: true })).problems).toEqual([]);
  const file = await newPath('back.raw');
  await restore(repository, { point: 'latest', to: file });
  expect((await readFile(file)).equals(content)).toBe(true);
}

describe('firn send | firn receive', () => {
  test('brings a point through a pipe between two processes into a repository that it makes', async () => {
    const content = randomContent(6 * MIB);
    const source = await repositoryWith(content);
    const target = await newPath();
    const sender = start(['send', 'latest:web', '-r', source.path]);
    const receiver = startWith(sender.stdout as NodeJS.ReadableStream, [
      'receive',
      '--init',
      '-r',
      target,
    ]);
    const received = finish(receiver);
    const [status] = await once(sender, 'exit');
    expect(status).toBe(0);
    const { status: receivedStatus, stdout, stderr } = await received;
    expect(receivedStatus, stderr).toBe(0);
    expect(stdout).toMatch(/^received 1 point, stored 6\.\d+ MiB\n/);
    await expectLatestIs(target, content);
  });

  test('through a shell, with what the other side has left out', async () => {
    const content = randomContent(6 * MIB);
    const source = await repositoryWith(content);
    const target = await newPath();
    const shell = async (line: string) => {
      const child = spawn('sh', ['-c', line], {
        env: { ...process.env, FIRN: `${process.execPath} ${MAIN}`, A: source.path, B: target },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      const finished = await finish(child);
      expect(finished.status, finished.stderr).toBe(0);
      return finished;
    };
    await shell('$FIRN send --all -r "$A" | $FIRN receive --init -r "$B"');
    content.fill(3, 2 * MIB, 2 * MIB + 8192);
    await addTo(source, content);
    const second = await shell(
      '$FIRN receive --list-have -r "$B" > "$B.have" && $FIRN send --all --have "$B.have" -r "$A" | $FIRN receive -r "$B"',
    );
    expect(second.stdout).toMatch(/^received 1 point, stored [\d.]+ KiB\n/);
    expect(second.stderr).toContain('1 point that it has');
    await expectLatestIs(target, content);
  });

  test('ends the sender when the receiver has gone away', async () => {
    const source = await repositoryWith(randomContent(4 * MIB));
    const child = spawn(
      'sh',
      ['-c', '$FIRN send --all -r "$A" 2>"$A.log"; echo $? >"$A.status" | true'],
      {
        env: { ...process.env, FIRN: `${process.execPath} ${MAIN}`, A: source.path },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    child.stdout?.destroy();
    await once(child, 'exit');
    expect((await readFile(`${source.path}.status`, 'utf8')).trim()).toBe('20');
    expect(await readFile(`${source.path}.log`, 'utf8')).toContain('reader has gone away');
  });

  test('goes on after the receiver was killed at any moment', { timeout: 120_000 }, async () => {
    const content = randomContent(70 * MIB);
    const source = await repositoryWith(content);
    const file = await newPath('stream');
    const sent = await firn(['send', '--all', '-o', file, '-r', source.path]);
    expect(sent.status, sent.stderr).toBe(0);
    const target = await newPath();
    const made = await firn(['init', '--like', source.path, target]);
    expect(made.status, made.stderr).toBe(0);
    const { size } = await stat(file);
    // The end of the stream is kept from it, so it is never through before it dies.
    for (const [share, delay] of [
      [0.3, 0],
      [0.6, 0],
      [0.6, 10],
      [0.9, 30],
    ] as const) {
      const before = await filesBelow(path.join(target, 'packs'));
      const part = createReadStream(file, { end: Math.floor(size * share) });
      const receive = ['receive', '--workers', '2', '-r', target];
      const child = startWith(part, receive, { end: false });
      const finished = finish(child);
      // Counted from when the first of what it stores is there, so that it is not too early on any machine.
      while ((await filesBelow(path.join(target, 'packs'))) === before) await pause(1);
      await pause(delay);
      child.kill('SIGKILL');
      expect((await finished).signal).toBe('SIGKILL');
      part.destroy();
      expect(await (await Repository.open(target)).points()).toEqual([]);
    }
    const done = await firn(['receive', file, '-r', target]);
    expect(done.status, done.stderr).toBe(0);
    expect(await (await Repository.open(target)).points()).toHaveLength(1);
    await expectLatestIs(target, content);
  });

  test('ends in order on Ctrl-C, and keeps what has arrived', async () => {
    const source = await repositoryWith(randomContent(24 * MIB));
    const target = await newPath();
    const sender = start(['send', '--all', '--limit', '1M', '-r', source.path]);
    const sent = once(sender, 'exit');
    const receiver = startWith(sender.stdout as NodeJS.ReadableStream, [
      ...['receive', '--init', '--workers', '2', '-r', target],
    ]);
    const received = finish(receiver);
    await expect.poll(() => filesBelow(path.join(target, 'packs')), { interval: 100 }).not.toBe(0);
    receiver.kill('SIGINT');
    expect((await received).status).toBe(130);
    sender.stdout?.destroy();
    await sent;
    const repository = await Repository.open(target);
    expect(await repository.points()).toEqual([]);
    expect((await repository.packs()).length).toBeGreaterThan(0);
    expect((await repository.indexRuns()).length).toBeGreaterThan(0);
  });

  test('of a broken file fails with a code that says so', async () => {
    const source = await repositoryWith(randomContent(MIB));
    const file = await newPath('stream');
    await firn(['send', '--all', '-o', file, '-r', source.path]);
    const target = await newPath();
    await firn(['init', '--like', source.path, target]);
    const { size } = await stat(file);
    const half = createReadStream(file, { end: Math.floor(size / 2) });
    const cut = await finish(startWith(half, ['receive', '--json', '-r', target]));
    expect(cut.status).toBe(20);
    expect(exitError(cut).error).toMatchObject({
      code: 'ERR_STREAM_TRUNCATED',
      retryable: true,
    });
  });
});

describe('firn send', () => {
  test('has no room for JSON beside the stream, and writes no file over another', async () => {
    const source = await repositoryWith(randomContent(64 * 1024));
    const refused = await firn(['send', '--all', '--json', '-r', source.path]);
    expect(refused.status).toBe(2);
    expect(refused.stdout).toBe('');
    const file = await newPath('stream');
    const sent = await firn(['send', '--all', '--json', '-o', file, '-r', source.path]);
    const summary = jsonLines(sent).find(({ message_type }) => message_type === 'summary');
    expect(summary).toMatchObject({ output: file, left: [], streamBytes: (await stat(file)).size });
    const again = await firn(['send', '--all', '-o', file, '-r', source.path]);
    expect(again.status).toBe(2);
    expect(again.stderr).toContain('ERR_EXISTS');
    expect((await firn(['send', '--all', '-f', '-o', file, '-r', source.path])).status).toBe(0);
  });

  test('says with --dry-run how much it would be', async () => {
    const source = await repositoryWith(randomContent(2 * MIB));
    const dry = await firn(['send', '--all', '-n', '-r', source.path]);
    expect(dry.stdout).toMatch(/^would send 1 point, 2\.\d+ MiB\n/);
  });
});

describe('firn copy-points', () => {
  test('copies to a sibling what it lacks, says what it did, and then that there is nothing', async () => {
    const content = randomContent(3 * MIB);
    const source = await repositoryWith(content);
    const target = await newPath();
    await firn(['init', '--like', source.path, target]);
    const line = ['copy-points', '--all', '--from', source.path, '--to', target];
    const dry = await firn([...line, '--dry-run']);
    expect(dry.stdout).toMatch(/^would copy 1 point, 3\.\d+ MiB\n/);
    const done = await firn(line);
    expect(done.status, done.stderr).toBe(0);
    expect(done.stdout).toMatch(/^copied 1 point, 3\.\d+ MiB\n/);
    const again = await firn([...line, '--json']);
    const summary = jsonLines(again).find(({ message_type }) => message_type === 'summary');
    expect(summary).toMatchObject({ points: [], copies: [], bytes: 0, storedBytes: 0 });
    await expectLatestIs(target, content);
  });

  test('refuses a repository that is no sibling, and tells how to make one', async () => {
    const source = await repositoryWith(randomContent(64 * 1024));
    const target = await newRepository();
    const line = ['copy-points', '--all', '--from', source.path, '--to', target.path];
    const refused = await firn(line);
    expect(refused.status).toBe(2);
    expect(refused.stderr).toContain('ERR_STREAM_MISMATCH');
    expect(refused.stderr).toContain('firn init --like');
  });
});
