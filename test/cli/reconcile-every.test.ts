/** `firn reconcile --every` as a service: what it takes while it runs on and on. */

import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createLab } from '../../src/hosts/lab/lab.js';
import { finish, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const folder = suiteFolder();
const state = path.join(folder, 'state');
const lab = path.join(folder, 'lab');
const TIMEOUT_MS = 200_000;
let service: ChildProcess | undefined;
let rounds = 0;

function begin(): ChildProcess {
  const line = ['reconcile', '--every', '10ms', '--json', '--state', state];
  const child = start([...line, '--host', `lab:${lab}`]);
  service = child;
  rounds = 0;
  child.stdout?.on('data', (text: Buffer) => {
    rounds += text.toString().split('\n').length - 1;
  });
  return child;
}

/** A computer that does much else takes its time for a round. */
async function reachRound(number: number): Promise<void> {
  await expect
    .poll(() => rounds, { interval: 20, timeout: TIMEOUT_MS })
    .toBeGreaterThanOrEqual(number);
}

afterEach(() => {
  service?.kill('SIGKILL');
});

describe('a reconciler that runs on and on', { timeout: TIMEOUT_MS }, () => {
  test.skipIf(!existsSync('/proc/self/fd'))(
    'has as many files open after a hundred rounds as after five, and ends with 0',
    async () => {
      await createLab(lab, {
        vms: [{ name: 'web', sizeBytes: 64 * 2 ** 20, dataBytes: 2 ** 20, blockBytes: 2 ** 20 }],
      });
      const child = begin();
      const ended = finish(child);
      const handles = () => readdirSync(`/proc/${child.pid}/fd`).length;
      await reachRound(5);
      const early = handles();
      await reachRound(100);
      // Either look may fall into a round, which has some files open. One that stayed open each time would make 95.
      expect(handles()).toBeLessThan(early + 50);
      child.kill('SIGINT');
      expect((await ended).status).toBe(0);
    },
  );

  test.skipIf(process.platform === 'win32')(
    'makes a new journal when its folder was taken away under it',
    async () => {
      begin();
      await reachRound(3);
      // At once: a folder that is emptied file by file may get new ones meanwhile.
      renameSync(state, `${state}-away`);
      const file = path.join(state, 'journal.db');
      await expect.poll(() => existsSync(file), { interval: 20, timeout: TIMEOUT_MS }).toBe(true);
      await reachRound(rounds + 3);
    },
  );
});
