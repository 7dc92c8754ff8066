/**
 * Goal: a clock that jumps costs no point and hides none. Method: whole backups, and what comes after them, with this process's clock put
 * forward and back by hours and years between the steps and in the middle of one.
 */

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { copyPoints } from '../../src/jobs/copy-points.js';
import { forget } from '../../src/jobs/forget.js';
import { prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { Journal } from '../../src/jobs/runs/journal.js';
import { scrub } from '../../src/jobs/scrub.js';
import { verify } from '../../src/jobs/verify.js';
import { parseSpan } from '../../src/repository/calendar.js';
import { readCheckTimes } from '../../src/repository/checks.js';
import { byOrder, lastOrders, orderAfter, orderMs } from '../../src/repository/point-order.js';
import type { Repository } from '../../src/repository/repository.js';
import { applyPolicy } from '../../src/repository/retention.js';
import { newRepository, rawDisk } from '../helpers/disks.js';
import { temporaryFolder } from '../helpers/folder.js';
import { newSealed, openWriteOnly } from '../helpers/sealed.js';
import { makeContent, pointFor } from '../helpers/writer.js';

const HOUR = 3_600_000;
const MONTH = parseSpan('30d', 'within');
const YEAR = 365 * 24 * HOUR;
const NOW = Date.parse('2026-11-22T12:00:00Z');
/** Back over years, to before there were computers that have this, and far ahead. */
const JUMPS = [0, HOUR, YEAR, 2 * HOUR, -NOW, 3 * HOUR, 50 * YEAR, 4 * HOUR];

afterEach(() => void vi.useRealTimers());

/** Only what tells the time of day jumps: timers and performance.now() are monotonic. */
function setClock(ms: number): void {
  vi.useFakeTimers({ toFake: ['Date'], now: ms });
}

async function pointAt(repository: Repository, ms: number, seed: number): Promise<string> {
  setClock(ms);
  const disk = { path: await rawDisk(makeContent(20, seed)), name: 'disk' };
  const { point, summary } = await backup(repository, { disks: [disk], vm: 'web' });
  expect(summary.elapsedSeconds).toBeGreaterThan(0);
  expect(summary.bytesPerSecond).toBeGreaterThan(0);
  return point?.id ?? '';
}

describe('points that are made while the clock jumps', () => {
  test('stand in the order in which they were made, and latest is the last one', async () => {
    const repository = await newRepository();
    const ids: string[] = [];
    for (const [seed, jump] of JUMPS.entries()) {
      ids.push(await pointAt(repository, NOW + jump, seed));
      expect((await repository.resolvePoint('latest')).id).toBe(ids.at(-1));
    }
    const points = await repository.points();
    expect(points.map(({ id }) => id)).toEqual(ids);
    // The time is the clock's, whatever it said.
    expect(points.map(({ created }) => Date.parse(created))).toEqual(JUMPS.map((j) => NOW + j));
    expect(points[0]).not.toHaveProperty('order');
    expect(points[1]).not.toHaveProperty('order');

    const to = path.join(await temporaryFolder(), 'disk.raw');
    await restore(repository, { point: 'latest:web', to });
    expect((await readFile(to)).equals(makeContent(20, JUMPS.length - 1))).toBe(true);
    // A copy in another repository stands where the point stands.
    const sibling = await newRepository({ like: repository.config });
    await copyPoints(repository, sibling, { all: true });
    const origins = (await sibling.points()).map(({ origin }) => origin?.point);
    expect(origins).toEqual(ids);
  });

  test('lose nothing to a policy that they would not lose with a clock that is right', async () => {
    const repository = await newRepository();
    const before = await pointAt(repository, NOW, 1);
    const ahead = await pointAt(repository, NOW + YEAR, 2);
    const after = await pointAt(repository, NOW + HOUR, 3);
    const last = await pointAt(repository, NOW + 2 * HOUR, 4);
    for (const policy of [{ within: MONTH }, { hourly: 3 }, { last: 3 }]) {
      const { forgotten } = await forget(repository, { policy: policy });
      expect(forgotten).toEqual([]);
    }
    const { forgotten, vms } = await forget(repository, { policy: { last: 2 } });
    expect(forgotten.map(({ id }) => id)).toEqual([before]);
    expect(vms[0]?.verdicts.map(({ point, reasons }) => [point.id, reasons])).toEqual([
      [last, ['last 1']],
      [after, ['last 2']],
      [ahead, ['ahead of the clock']],
      [before, []],
    ]);
    // With the clock back at the beginning of time, all is ahead of it.
    setClock(HOUR);
    expect((await forget(repository, { policy: { last: 1 } })).forgotten).toEqual([]);
    for (const now of [HOUR, NOW + 50 * YEAR, NOW]) {
      setClock(now);
      await prune(repository, { maxWaste: 0 });
      expect((await verify(repository, { readData: true })).problems).toEqual([]);
    }
    expect((await repository.points()).map(({ id }) => id)).toEqual([ahead, after, last]);
  });

  test('that a write-only key makes have their clock alone, and cost the others nothing', async () => {
    const repository = await newSealed();
    const host = await openWriteOnly(repository);
    const ahead = await pointAt(host, NOW + YEAR, 1);
    const right = await pointAt(host, NOW, 2);
    expect((await repository.points()).map(({ id }) => id)).toEqual([right, ahead]);
    const { forgotten } = await forget(repository, { policy: { within: MONTH } });
    expect(forgotten).toEqual([]);
  });
});

test('an order is after every point of the machine and of no other one', () => {
  const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
  const time = fc.date({
    min: new Date(0),
    max: new Date('9999-12-31T23:59:59.998Z'),
    noInvalidDate: true,
  });
  fc.assert(
    fc.property(fc.array(fc.tuple(time, fc.boolean()), { maxLength: 20 }), (made) => {
      const points: ReturnType<typeof pointFor>[] = [];
      for (const [created, isWeb] of made) {
        const vm = { name: isWeb ? 'web' : 'db' };
        const about = { vm, created: created.toISOString() };
        const point = { ...pointFor(NO_DISK, 0, about), ...orderAfter(lastOrders(points), about) };
        const mine = points.filter((other) => other.vm.name === vm.name);
        for (const other of mine)
          if (orderMs(other) < orderMs(point)) expect(byOrder(other, point)).toBeLessThan(0);
        if (mine.length === 0) expect(point.order).toBeUndefined();
        if (orderMs(point) < Date.parse('9999-12-31T00:00:00Z')) {
          expect(mine.every((other) => byOrder(other, point) < 0)).toBe(true);
        }
        expect(new Date(point.order ?? 0).getUTCFullYear()).toBeLessThan(10_000);
        points.push(point);
      }
    }),
  );
});

test('what is ahead of the clock goes by an empty policy, which means all', () => {
  const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
  const point = pointFor(NO_DISK, 0, { created: new Date(NOW + YEAR).toISOString() });
  const each = { point, tags: [], held: undefined };
  expect(applyPolicy([each], {}, 'UTC', NOW)[0]?.verdicts[0]?.reasons).toEqual([]);
});

describe('beside the points', () => {
  test('a scrub takes no pack for checked that was checked a year ahead', async () => {
    const repository = await newRepository();
    await pointAt(repository, NOW, 1);
    setClock(NOW + YEAR);
    const ahead = await scrub(repository);
    setClock(NOW);
    const back = await scrub(repository);
    expect(ahead.packs).toBeGreaterThan(0);
    expect(back.packs).toBe(ahead.packs);
    const times = await readCheckTimes(repository);
    for (const pack of await repository.packs()) expect(times.get(pack)).toBe(NOW);
  });

  test('the journal lists runs as they were begun', async () => {
    const journal = Journal.open(await temporaryFolder());
    try {
      const ids = [...'abcd'].map((digit) => digit.repeat(32));
      for (const [index, id] of ids.entries()) {
        setClock(NOW + (JUMPS[index] ?? 0) * (index % 2 === 0 ? 1 : -1));
        const claim = journal.begin({ id, host: 'lab:/x', repository: '/r', vms: [] });
        journal.end(id, 'done');
        claim.release(true);
      }
      expect(journal.runs().map(({ id }) => id)).toEqual(ids.toReversed());
    } finally {
      journal.close();
    }
  });
});
