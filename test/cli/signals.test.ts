/**
 * Signals and broken pipes, on real processes: nothing else shows whether a process ends, and how. The backup that is interrupted is slow on
 * purpose (random data, the slowest compression, one worker), and the signal is sent when its first status message has come, so
 * nothing here depends on the machine's speed.
 */

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exitError, finish, firn, jsonLines, start } from '../helpers/firn.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-signals-'));
const env = { FIRN_REPOSITORY: join(folder, 'repository') };
const disk = join(folder, 'slow.raw');
const SLOW = ['backup', disk, '--codec', 'zstd', '--level', '19', '--workers', '1'];
const isWindows = process.platform === 'win32';

beforeAll(async () => {
  writeFileSync(disk, Buffer.concat(Array.from({ length: 4 }, () => randomContent(48 * 2 ** 20))));
  writeFileSync(join(folder, 'small.raw'), makeContent(200, 3));
  expect((await firn(['init'], { env })).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Waits for the first word of a job; one that ends before it fails the test. */
async function statusMessage(child: ChildProcess): Promise<void> {
  if (child.stdout === null) throw new Error('no pipe');
  const ended = once(child, 'exit').then(([status]) => {
    throw new Error(`it ended with ${status} before it said anything`);
  });
  await Promise.race([once(child.stdout, 'data'), ended]);
}

async function points(): Promise<unknown[]> {
  return jsonLines(await firn(['list', '--json'], { env }))[0]?.points as unknown[];
}

it.skipIf(isWindows)(
  'Ctrl-C once ends in order with 130, seals nothing and leaves the repository whole',
  async () => {
    const child = start([...SLOW, '--json', '--progress', 'always'], { env });
    const finished = finish(child);
    await statusMessage(child);
    child.kill('SIGINT');
    const { status, signal, stdout, stderr } = await finished;
    expect([status, signal]).toEqual([130, null]);
    expect(exitError({ status, signal, stdout, stderr })).toMatchObject({
      code: 130,
      error: { name: 'AbortError', code: 'ERR_ABORTED' },
    });
    expect(await points()).toEqual([]);
    expect((await firn(['verify', '--read-data'], { env })).status).toBe(0);
  },
);

it.skipIf(isWindows)('Ctrl-C twice ends the process by the signal itself', async () => {
  const child = start([...SLOW, '--json', '--progress', 'always'], { env });
  const finished = finish(child);
  await statusMessage(child);
  // Sent until it is gone: two signals that come together are one to the system.
  const timer = setInterval(() => child.kill('SIGINT'), 20);
  const { signal, status } = await finished;
  clearInterval(timer);
  // Ending in order would take until the segment under way is compressed, which is far longer.
  expect([status, signal]).toEqual([null, 'SIGINT']);
  expect((await firn(['verify'], { env })).status).toBe(0);
});

it.skipIf(isWindows)('SIGUSR1 prints a line of progress', async () => {
  const child = start([...SLOW, '--progress', 'never'], { env });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const finished = finish(child);
  const timer = setInterval(() => {
    // Sent before it is listened for, the signal would start Node's debugger; its line tells the two apart.
    if (!/backup/.test(stderr)) child.kill('SIGUSR1');
  }, 500);
  await expect
    .poll(() => stderr, { timeout: 20_000 })
    .toMatch(/^\[\d+:\d\d\] {2}backup.* of .*MiB/m);
  clearInterval(timer);
  child.kill('SIGINT');
  expect((await finished).status).toBe(130);
});

it('a reader that goes away does not end the work', async () => {
  const child = start(['backup', '--vm', 'piped', join(folder, 'small.raw')], { env });
  const finished = finish(child);
  child.stdout?.destroy();
  child.stderr?.destroy();
  expect((await finished).status).toBe(0);
  expect(await points()).toMatchObject([{ vm: { name: 'piped' } }]);
});
