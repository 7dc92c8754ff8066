/**
 * Signals and broken pipes, on real processes: nothing else shows whether a process ends, and how. The backup that is interrupted would take
 * minutes under its limit, and the signal is sent when a status message has come, so nothing here depends on the machine's speed.
 */

import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { exitError, finish, firn, jsonLines, said, start } from '../helpers/firn.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-signals-'));
const env = { FIRN_REPOSITORY: join(folder, 'repository') };
const disk = join(folder, 'slow.raw');
const SLOW = ['backup', disk, '--limit', '100K', '--json', '--progress', 'always'];
const isWindows = process.platform === 'win32';

beforeAll(async () => {
  writeFileSync(disk, randomContent(24 * 2 ** 20));
  writeFileSync(join(folder, 'small.raw'), makeContent(200, 3));
  expect((await firn(['init'], { env })).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Waits until a job says that it is at its data; one that ends before it fails the test. */
function atItsData(child: ChildProcess): Promise<void> {
  return said(child, '"phase":"copy"');
}

async function points(): Promise<unknown[]> {
  return jsonLines(await firn(['list', '--json'], { env }))[0]?.points as unknown[];
}

it.skipIf(isWindows)(
  'Ctrl-C once ends in order with 130, seals nothing and leaves the repository whole',
  async () => {
    const child = start(SLOW, { env });
    const finished = finish(child);
    await atItsData(child);
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

it.skipIf(isWindows)('a second signal ends the process by the signal itself', async () => {
  const child = start(SLOW, { env });
  const finished = finish(child);
  await atItsData(child);
  // Both wait for it while it stands still, so it can't end in order between them. Two of one name would be one to the system.
  for (const name of ['SIGSTOP', 'SIGINT', 'SIGTERM', 'SIGCONT'] as const) child.kill(name);
  const { signal, status } = await finished;
  expect(status).toBeNull();
  expect(['SIGINT', 'SIGTERM']).toContain(signal);
  expect((await firn(['verify'], { env })).status).toBe(0);
});

it.skipIf(isWindows)('SIGUSR1 prints a line of progress', async () => {
  const child = start(SLOW, { env });
  const finished = finish(child);
  // Who counts its work also listens for the signal, which else would start Node's debugger.
  await atItsData(child);
  child.kill('SIGUSR1');
  await said(child, ' of ');
  child.kill('SIGINT');
  const { status, stderr } = await finished;
  expect(stderr).toMatch(/^\[\d+:\d\d\] {2}backup.* of .*MiB/m);
  expect(status).toBe(130);
});

it('a reader that goes away does not end the work', async () => {
  const child = start(['backup', '--vm', 'piped', join(folder, 'small.raw')], { env });
  const finished = finish(child);
  child.stdout?.destroy();
  child.stderr?.destroy();
  expect((await finished).status).toBe(0);
  expect(await points()).toMatchObject([{ vm: { name: 'piped' } }]);
});
