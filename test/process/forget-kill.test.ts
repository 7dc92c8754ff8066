/**
 * Goal: a forget that dies at any moment leaves a consistent repository. Method: the real command line in a process of its own, killed without
 * warning at one of its calls to the file system, before it is done or after; after each death all objects are read, what must stay is
 * there, and at last one more forget does the rest and the data of what stayed is verified byte by byte.
 */

import { describe, expect, test } from 'vitest';
import { repairIndex } from '../../src/jobs/repair.js';
import { verify } from '../../src/jobs/verify.js';
import { newId } from '../../src/repository/format/names.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { changeTags, holdPoint } from '../../src/repository/labels.js';
import { newRepository } from '../helpers/disks.js';
import { firn } from '../helpers/firn.js';
import { makeContent, writePoint } from '../helpers/writer.js';

const POINTS = 120;
const ROUNDS = 10;
const KEPT = 5;

/**
 * Node's options for a process that dies by SIGKILL at a call to the file system, with it done or not. Calls are counted from the eighth removal
 * on: one is that of a point by then, as a point goes with a label that announces it and at most two others.
 */
function diesAt(call: number, isDone: boolean): string {
  const script = `
    import fs from 'node:fs/promises';
    import { syncBuiltinESMExports } from 'node:module';
    let removals = 0;
    let calls = 0;
    for (const name of ['link', 'open', 'readdir', 'rename', 'rm']) {
      const original = fs[name];
      fs[name] = async (...parameters) => {
        if (name === 'rm') removals += 1;
        if (removals >= 8) calls += 1;
        if (calls !== ${call}) return original(...parameters);
        if (${isDone}) await original(...parameters);
        process.kill(process.pid, 'SIGKILL');
      };
    }
    syncBuiltinESMExports();`;
  return `--import=data:text/javascript,${encodeURIComponent(script)}`;
}

describe('a forget that is killed', () => {
  test('at any moment leaves points that are whole or gone, and the next one does the rest', async () => {
    const repository = await newRepository();
    const { point: first } = await writePoint(repository, makeContent(800, 1));
    const points: PointObject[] = [];
    for (let number = 0; number < POINTS; number++) {
      const created = new Date(Date.UTC(2024, 0, 1 + number)).toISOString();
      const point = { ...first, id: newId(), created, vm: { name: 'many' } };
      await repository.seal(point);
      points.push(point);
    }
    // Labels make it more to do, and more to do in part; the held point lies in the middle of those that go.
    for (const point of points.slice(0, 40)) {
      await changeTags(repository, point, { add: ['old', 'older'] });
    }
    const held = points[POINTS / 2] as PointObject;
    await holdPoint(repository, held);
    const mustStay = [first, held, ...points.slice(-KEPT)].map(({ id }) => id);
    const parameters = ['forget', '--vm', 'many', '--keep-last', String(KEPT)];

    let before = POINTS + 1;
    for (let round = 0; round < ROUNDS; round++) {
      // Over the steps in which a point goes.
      const env = { NODE_OPTIONS: diesAt(1 + 2 * round, round % 4 < 2) };
      const killed = await firn([...parameters, '--repo', repository.path], { env });
      expect(killed.signal).toBe('SIGKILL');
      for (const name of await repository.objects()) {
        if (name !== 'generation') expect(await repository.checkObject(name), name).toBe(true);
      }
      const ids = (await repository.points()).map(({ id }) => id);
      for (const id of mustStay) expect(ids).toContain(id);
      expect(ids.length).toBeLessThan(before);
      before = ids.length;
    }

    const finished = await firn([...parameters, '--repo', repository.path]);
    expect([finished.status, finished.stderr]).toEqual([0, '']);
    const ids = (await repository.points()).map(({ id }) => id);
    expect(ids.sort()).toEqual(mustStay.sort());
    // Of all labels the hold alone is left.
    expect(await repository.labels()).toHaveLength(1);
    await repairIndex(repository);
    expect((await verify(repository, { readData: true })).problems).toEqual([]);
  }, 240_000);
});
