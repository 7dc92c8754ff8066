/**
 * Goal: a backup that dies at any moment leaves the repository whole. Method: the real command line in a process of its own, killed without
 * warning at moments spread over its whole run, again and again into one repository; after each death every sealed point is verified
 * down to the last byte, and at last a backup runs with no repair before it.
 */

import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { Repository } from '../../src/repository/repository.js';
import { firn, start } from '../helpers/firn.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 1024 * 1024;
const ROUNDS = 14;
/** No run is over in less than two seconds, however fast the machine: so most of the moments come before its end. */
const LIMIT = ['--limit', '46M'];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'firn-kill-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('a backup that is killed', () => {
  test('at any moment leaves every sealed point whole, and the next one needs no repair', async () => {
    const repositoryPath = path.join(folder, 'repository');
    const repository = await Repository.create(repositoryPath);
    const disk = path.join(folder, 'disk.raw');
    // Half of it stays as it is, so that later runs rely on what earlier, dead ones have stored.
    const still = randomContent(60 * MIB);
    let content = Buffer.concat([still, makeContent(8000, 1)]);
    await writeFile(disk, content);
    const whole = await firn(['backup', disk, '--repo', repositoryPath, '--vm', 'first']);
    expect(whole.stderr).toBe('');
    expect(whole.status).toBe(0);
    const first = content;

    const startedMs = performance.now();
    await writeFile(disk, Buffer.concat([still, randomContent(31 * MIB)]));
    await firn(['backup', disk, '--repo', repositoryPath, '--vm', 'timing', ...LIMIT]);
    const runMs = performance.now() - startedMs;

    let killed = 0;
    for (let round = 0; round < ROUNDS; round++) {
      content = Buffer.concat([still, randomContent(30 * MIB), makeContent(500, round + 2)]);
      await writeFile(disk, content);
      const vm = `round ${round}`;
      const child = start(['backup', disk, '--repo', repositoryPath, '--vm', vm, ...LIMIT]);
      const exited = once(child, 'exit');
      // Over the whole length of a run, the start of the process included, and a little longer.
      const timer = setTimeout(() => child.kill('SIGKILL'), (runMs * 1.1 * (round + 1)) / ROUNDS);
      await exited;
      clearTimeout(timer);
      if (child.signalCode === 'SIGKILL') killed++;
      const sealed = (await repository.points()).filter((point) => point.vm.name === vm);
      expect(sealed.length).toBeLessThanOrEqual(1);
      const result = await verify(repository, { readData: true });
      expect(result.problems, `round ${round}`).toEqual([]);
    }
    expect(killed).toBeGreaterThan(2);

    await backup(repository, { disks: [disk], vm: 'after' });
    for (const [vm, expected] of [
      ['first', first],
      ['after', content],
    ] as const) {
      const to = path.join(folder, 'back.raw');
      await restore(repository, { point: `latest:${vm}`, to, force: true });
      expect((await readFile(to)).equals(expected)).toBe(true);
    }
    // What the dead have left is not part of the repository, or garbage that no point names.
    for (const name of await readdir(path.join(repositoryPath, 'points'))) {
      if (!name.startsWith('.tmp-')) await repository.readPoint(name);
    }
  }, 240_000);
});
