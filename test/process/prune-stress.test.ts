/**
 * Goal: backups, forgets and prunes may run on one repository at the same time, and any of them may be killed at any moment. Method: the
 * real command line, several processes of each kind at once on a real folder, a part of them killed without warning; then every byte
 * is verified, no point that was reported is missing, and one last prune leaves nothing that no point needs.
 */

import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { filesOf, newRepository } from '../helpers/disks.js';
import { type Finished, finish, jsonLines, start } from '../helpers/firn.js';
import { temporaryFolder } from '../helpers/folder.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const SECONDS = Number(process.env.FIRN_STRESS_SECONDS ?? 15);
const MIB = 2 ** 20;
/** Of so many processes one is killed. */
const KILLED_OF = 3;
const KILL_WITHIN_MS = 700;
/** 11: others were in the way each time, and it may be tried again. */
const FINE = [0, 3, 11];

describe('backups, forgets and prunes at one time, some of them killed', () => {
  test(
    'leave every point whole, lose no seal, and the last prune leaves no garbage',
    async () => {
      const repository = await newRepository();
      const folder = await temporaryFolder();
      const end = performance.now() + SECONDS * 1000;
      /** It goes on until it was a race indeed. */
      const isOver = () => {
        const { backups, forgets, prunes, killed } = counts;
        return performance.now() >= end && Math.min(backups, forgets, prunes, killed) > 2;
      };
      const shared = randomContent(3 * MIB);
      const failures: string[] = [];
      const counts = { backups: 0, forgets: 0, prunes: 0, killed: 0, overtaken: 0 };
      const mustStay: string[] = [];

      async function run(parameters: string[]): Promise<Finished | undefined> {
        const child = start([...parameters, '--repo', repository.path, '--json']);
        const finished = finish(child);
        const isKilled = Math.random() < 1 / KILLED_OF;
        const timer = isKilled
          ? setTimeout(() => child.kill('SIGKILL'), Math.random() * KILL_WITHIN_MS)
          : undefined;
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
        clearTimeout(timer);
        const result = await finished;
        if (result.signal === 'SIGKILL') {
          counts.killed++;
          return undefined;
        }
        if (result.status === 11) counts.overtaken++;
        if (!FINE.includes(result.status ?? -1))
          failures.push(`${parameters[0]}: ${result.stderr}`);
        return result;
      }

      async function backups(vm: string): Promise<void> {
        const disk = path.join(folder, `${vm}.raw`);
        while (!isOver()) {
          // What is shared comes and goes, so that packs become wasteful and are relied on again.
          const at = Math.floor(Math.random() * 2) * MIB;
          const seed = 1 + Math.floor(Math.random() * 6);
          const parts = [
            shared.subarray(at, at + MIB),
            makeContent(400, seed),
            randomContent(MIB / 2),
          ];
          await writeFile(disk, Buffer.concat(parts));
          const result = await run(['backup', disk, '--vm', vm]);
          if (result?.status !== 0) continue;
          counts.backups++;
          const summary = jsonLines(result).find(({ message_type }) => message_type === 'summary');
          if (vm === 'kept') mustStay.push(String(summary?.point));
        }
      }
      async function forgets(): Promise<void> {
        while (!isOver()) {
          const result = await run(['forget', '--vm', 'one', '--vm', 'two', '--keep-last', '1']);
          if (result?.status === 0) counts.forgets++;
        }
      }
      async function prunes(): Promise<void> {
        while (!isOver()) {
          const result = await run(['prune', '--max-waste', `${Math.floor(Math.random() * 40)}%`]);
          if (result?.status === 0) counts.prunes++;
        }
      }
      await Promise.all([
        backups('one'),
        backups('two'),
        backups('kept'),
        forgets(),
        prunes(),
        prunes(),
      ]);
      expect(failures).toEqual([]);
      console.info(JSON.stringify(counts));

      const points = (await repository.points()).map(({ id }) => id);
      expect(mustStay.filter((id) => !points.includes(id))).toEqual([]);
      expect((await verify(repository, { readData: true })).problems).toEqual([]);

      await prune(repository, { recover: true, maxWaste: 0 });
      expect((await verify(repository, { readData: true })).problems).toEqual([]);
      expect(await prune(repository, { dryRun: true, maxWaste: 0 })).toMatchObject({
        deleted: 0,
        rescuedBytes: 0,
        indexRunsReplaced: 0,
        pending: [],
      });
      const left = (await filesOf(repository)).filter((name) =>
        /^(condemned|pending)\//.test(name),
      );
      expect(left).toEqual([]);
      const to = path.join(folder, 'back.raw');
      for (const point of points) await restore(repository, { point, to, force: true });
    },
    240_000 + SECONDS * 1000,
  );
});
