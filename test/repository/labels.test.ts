/**
 * Goal: a hold that was reported keeps its point, whatever else happens at the same time and wherever somebody dies; tags end as they were
 * asked for. Method: the real steps on a store in memory, interleaved in every order, and stopped after every one of their writes.
 */

import { describe, expect, test } from 'vitest';
import { isFirnError } from '../../src/errors.js';
import { newId } from '../../src/repository/format/names.js';
import {
  changeTags,
  clearLabels,
  forgetPoint,
  holdPoint,
  labelledPoints,
  readLabels,
  releasePoint,
  withLabels,
} from '../../src/repository/labels.js';
import { Repository } from '../../src/repository/repository.js';
import type { Store } from '../../src/repository/stores/store.js';
import { memoryRepository } from '../helpers/collector.js';
import { codeOf } from '../helpers/errors.js';
import { type MemoryStore, wrapStore } from '../helpers/memory-store.js';
import { pointFor } from '../helpers/writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };

async function withPoint(tags?: string[]) {
  const { memory, repository } = await memoryRepository();
  const point = pointFor(NO_DISK, 0, tags === undefined ? {} : { tags });
  await repository.seal(point);
  const look = async () => withLabels(point, await readLabels(repository));
  return { memory, repository, point, look };
}

const reopened = (memory: MemoryStore, wrapped: Store = memory) =>
  Repository.open('/nowhere', wrapped);

describe('a hold', () => {
  test('keeps its point until it is released, and says why', async () => {
    const { repository, point, look } = await withPoint();
    expect(await holdPoint(repository, point, 'audit')).toBe(true);
    expect((await look()).held).toBe('held: audit');
    expect(await forgetPoint(repository, point.id)).toBe(false);
    expect((await repository.points()).length).toBe(1);
    expect(await repository.labels()).toHaveLength(1);
    expect(await holdPoint(repository, point)).toBe(true);
    expect(await releasePoint(repository, point)).toBe(2);
    expect((await look()).held).toBeUndefined();
    expect(await forgetPoint(repository, point.id)).toBe(true);
    expect(await repository.points()).toEqual([]);
    expect(await repository.labels()).toEqual([]);
  });

  test('gives way to force, and goes with its point', async () => {
    const { repository, point } = await withPoint();
    await holdPoint(repository, point);
    expect(await forgetPoint(repository, point.id, { force: true })).toBe(true);
    expect(await repository.labels()).toEqual([]);
    expect(await codeOf(() => holdPoint(repository, point))).toBe('ERR_POINT_NOT_FOUND');
    expect(await repository.labels()).toEqual([]);
  });

  test('of a reason that no object may have is refused before anything is written', async () => {
    const { repository, point } = await withPoint();
    for (const reason of ['', 'x'.repeat(4097)]) {
      expect(await codeOf(() => holdPoint(repository, point, reason))).toBe('ERR_INVALID_ARGUMENT');
    }
    expect(await repository.labels()).toEqual([]);
  });

  test('is what a label is taken for that cannot be read, until it is released', async () => {
    const { memory, repository, point, look } = await withPoint();
    await changeTags(repository, point, { add: ['a'] });
    const [name = ''] = await repository.labels();
    memory.objects.set(`labels/${name}`, Buffer.from('rubbish'));
    expect((await look()).held).toContain('cannot be read');
    expect(await forgetPoint(repository, point.id)).toBe(false);
    const damaged: string[] = [];
    await labelledPoints(repository, (id) => damaged.push(id));
    expect(damaged).toEqual([point.id]);
    expect(await codeOf(() => repository.checkObject(`labels/${name}`))).toBe('ERR_CORRUPT_OBJECT');
    expect(await releasePoint(repository, point)).toBe(1);
    expect(await forgetPoint(repository, point.id)).toBe(true);
  });

  test('is said not to be sure while an announcement stands that nobody ends', async () => {
    const { memory, repository, point, look } = await withPoint();
    let isDead = false;
    const dying = wrapStore(memory, (method, _name, call) => {
      if (method === 'delete') isDead = true;
      return isDead ? Promise.reject(new Error('died')) : call();
    });
    await expect(forgetPoint(await reopened(memory, dying), point.id)).rejects.toThrow('died');
    expect(await holdPoint(repository, point)).toBe(false);
    expect((await look()).held).toBe('held');
    expect(await forgetPoint(repository, point.id)).toBe(false);
  });
});

describe('tags', () => {
  test('are those of the point, with what labels add and take away', async () => {
    const { repository, point, look } = await withPoint(['made', 'kept']);
    expect((await look()).tags).toEqual(['kept', 'made']);
    expect(await changeTags(repository, point, { add: ['new'], remove: ['made'] })).toEqual([
      'kept',
      'new',
    ]);
    expect((await look()).tags).toEqual(['kept', 'new']);
    await changeTags(repository, point, { add: ['made'], remove: ['new'] });
    expect((await look()).tags).toEqual(['kept', 'made']);
    expect(await repository.labels()).toEqual([]);
    expect(await repository.readPoint(point.id)).toEqual(point);
  });

  test('that are there already, or are not, change nothing', async () => {
    const { repository, point } = await withPoint(['a']);
    expect(await changeTags(repository, point, { add: ['a'], remove: ['b'] })).toEqual(['a']);
    expect(await repository.labels()).toEqual([]);
  });

  test.each([
    { add: [''] },
    { add: ['a,b'] },
    { add: [' a'] },
    { add: ['a\n'] },
    { add: ['x'.repeat(129)] },
    { add: ['a'], remove: ['a'] },
    { add: Array.from({ length: 65 }, (_, index) => `${index}`) },
  ])('of the form %j are refused', async (changes) => {
    const { repository, point } = await withPoint();
    expect(await codeOf(() => changeTags(repository, point, changes))).toBe('ERR_INVALID_ARGUMENT');
    expect(await repository.labels()).toEqual([]);
  });

  test('are the old or the new ones after a crash at any step, and the same command ends it', async () => {
    for (let step = 0; ; step++) {
      const { memory, repository, point, look } = await withPoint(['made']);
      await changeTags(repository, point, { add: ['x'], remove: ['made'] });
      let left = step;
      const dying = wrapStore(memory, (method, _name, call) => {
        const isWrite = method === 'putNew' || method === 'delete';
        return isWrite && left-- <= 0 ? Promise.reject(new Error('died')) : call();
      });
      const change = { add: ['made'] };
      const outcome = await changeTags(await reopened(memory, dying), point, change).then(
        () => 'done',
        () => 'died',
      );
      const { tags } = await look();
      expect([['x'], ['made', 'x']]).toContainEqual(tags);
      expect(await changeTags(repository, point, change)).toEqual(['made', 'x']);
      expect((await look()).tags).toEqual(['made', 'x']);
      if (outcome === 'done') return;
    }
  });
});

describe('forgetting', () => {
  test('that dies at any step leaves a whole point or none, and whoever forgets next clears up', async () => {
    for (let step = 0; ; step++) {
      const { memory, repository, point } = await withPoint();
      await changeTags(repository, point, { add: ['a', 'b'] });
      let left = step;
      const dying = wrapStore(memory, (method, _name, call) => {
        const isWrite = method === 'putNew' || method === 'delete';
        return isWrite && left-- <= 0 ? Promise.reject(new Error('died')) : call();
      });
      const outcome = await forgetPoint(await reopened(memory, dying), point.id).then(
        () => 'done',
        () => 'died',
      );
      const points = await repository.points();
      expect(points.length === 0 || points[0]?.id === point.id).toBe(true);
      await clearLabels(repository);
      if (points.length === 0) expect(await repository.labels()).toEqual([]);
      else expect(withLabels(point, await readLabels(repository)).tags).toEqual(['a', 'b']);
      expect(await forgetPoint(repository, point.id)).toBe(true);
      expect([await repository.points(), await repository.labels()]).toEqual([[], []]);
      if (outcome === 'done') return;
    }
  });

  test('clears the labels of no point that stands', async () => {
    const { repository, point } = await withPoint();
    await holdPoint(repository, point);
    await repository.writeLabel({
      type: 'label',
      version: 1,
      id: newId(),
      point: newId(),
      created: '2026-11-22T00:00:00Z',
      kind: 'hold',
    });
    expect(await clearLabels(repository)).toBe(1);
    expect(await repository.labels()).toHaveLength(1);
  });

  test('and holding at the same time, in every order of their steps: a sure hold keeps the point', async () => {
    const outcomes = new Set<string>();
    let schedules = 0;
    const explored = [''];
    // Depth first: a schedule says for each step who takes it; where it ends, forgetting goes on first.
    while (explored.length > 0) {
      const schedule = explored.pop() as string;
      const taken = await runInterleaved(schedule);
      schedules++;
      outcomes.add(taken.outcome);
      expect(taken.isSound, `${taken.steps}: ${taken.outcome}`).toBe(true);
      for (let at = schedule.length; at < Math.min(taken.choices.length, 14); at++) {
        if (taken.choices[at]) explored.push(`${taken.steps.slice(0, at)}h`);
      }
    }
    expect(schedules).toBeGreaterThan(100);
    expect([...outcomes].sort()).toEqual(['held, kept', 'no point, gone']);
  }, 120_000);
});

/** Runs a forget and a hold of one point, step by step: "f" lets the forget take one, "h" the hold. */
async function runInterleaved(schedule: string) {
  const { memory, point } = await withPoint();
  const waiting = new Map<string, () => void>();
  const gated = (who: string) =>
    wrapStore(memory, async (_method, _name, call) => {
      await new Promise<void>((resolve) => waiting.set(who, resolve));
      return call();
    });
  // Opening reads the store too, which is no step of the protocol.
  const open = async (who: string) => {
    const opened = reopened(memory, gated(who));
    await settle();
    waiting.get(who)?.();
    waiting.delete(who);
    return opened;
  };
  const [forgetter, holder] = [await open('f'), await open('h')];
  const running = new Set(['f', 'h']);
  const forgotten = forgetPoint(forgetter, point.id).finally(() => running.delete('f'));
  const held = holdPoint(holder, point)
    .then(
      (isSure) => (isSure ? 'held' : 'unsure'),
      (error) => {
        if (isFirnError(error) && error.code === 'ERR_POINT_NOT_FOUND') return 'no point';
        throw error;
      },
    )
    .finally(() => running.delete('h'));
  let steps = '';
  const choices: boolean[] = [];
  while (running.size > 0) {
    await settle();
    if (waiting.size === 0) {
      // The holder waits for a while before it looks again.
      await new Promise((resolve) => setTimeout(resolve, 5));
      continue;
    }
    const wanted = schedule[steps.length] ?? 'f';
    choices.push(waiting.size > 1 && wanted === 'f');
    const who = waiting.has(wanted) ? wanted : ([...waiting.keys()][0] as string);
    const go = waiting.get(who) as () => void;
    waiting.delete(who);
    steps += who;
    go();
  }
  const isGone = await forgotten;
  const said = await held;
  const isThere = memory.objects.has(`points/${point.id}`);
  const isSound = isThere === !isGone && (said !== 'held' || isThere) && said !== 'unsure';
  return { steps, choices, isSound, outcome: `${said}, ${isThere ? 'kept' : 'gone'}` };
}

/** Lets everything run that does not wait for a step or a timer. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}
