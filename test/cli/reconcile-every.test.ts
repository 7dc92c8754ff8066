/** `firn reconcile --every` as a service: what it takes while it runs on and on. */

import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { createLab } from '../../src/hosts/lab/lab.js';
import { finish, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const folder = suiteFolder();
const state = path.join(folder, 'state');
const lab = path.join(folder, 'lab');
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

async function reachRound(number: number): Promise<void> {
  await expect.poll(() => rounds, { interval: 20 }).toBeGreaterThanOrEqual(number);
}

afterEach(() => {
  service?.kill('SIGKILL');
});

describe('a reconciler that runs on and on', () => {
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
      expect(handles()).toBeLessThanOrEqual(early + 4);
      child.kill('SIGINT');
      expect((await ended).status).toBe(0);
    },
  );

  test.skipIf(process.platform === 'win32')(
    'makes a new journal when its folder was taken away under it',
    async () => {
      begin();
      await reachRound(3);
      rmSync(state, { recursive: true });
      const file = path.join(state, 'journal.db');
      await expect.poll(() => existsSync(file), { interval: 20 }).toBe(true);
      await reachRound(rounds + 3);
    },
  );
});
