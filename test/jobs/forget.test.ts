/**
 * Forgetting as a whole, on real repositories that the second writer of the format makes: what goes, what is refused, and what it is said to
 * free, which is held against a count of all records by hand.
 */

import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { forget } from '../../src/jobs/forget.js';
import { freedBy } from '../../src/jobs/freed.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { changeTags, forgetPoint, holdPoint } from '../../src/repository/labels.js';
import type { Repository } from '../../src/repository/repository.js';
import { newRepository } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { type EncodedDisk, makeContent, pointFor, writePoint } from '../helpers/writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
const MIB = 2 ** 20;

async function sealed(
  repository: Repository,
  name: string,
  day: number,
  tags?: string[],
  id?: string,
) {
  const created = `2024-11-${String(day).padStart(2, '0')}T12:00:00Z`;
  const more = { created, vm: { name, ...(id && { id }) }, ...(tags && { tags }) };
  const point = pointFor(NO_DISK, 0, more);
  await repository.seal(point);
  return point;
}

async function history() {
  const repository = await newRepository();
  const web = [];
  for (const day of [1, 2, 3, 4]) web.push(await sealed(repository, 'web', day));
  const db = [await sealed(repository, 'db', 1, ['release']), await sealed(repository, 'db', 2)];
  return { repository, web, db };
}

const idsOf = (points: readonly PointObject[]) => points.map(({ id }) => id);
const left = async (repository: Repository) => idsOf(await repository.points()).sort();

describe('forgetting by a policy', () => {
  test('removes what no rule keeps, of each machine, and says why the others stay', async () => {
    const { repository, web, db } = await history();
    const result = await forget(repository, { policy: { last: 1, tags: ['release'] } });
    expect(idsOf(result.forgotten)).toEqual(idsOf([web[2], web[1], web[0]] as PointObject[]));
    expect(await left(repository)).toEqual(idsOf([...db, web[3] as PointObject]).sort());
    expect(result.vms.map(({ vm, verdicts }) => [vm.name, verdicts.map((v) => v.reasons)])).toEqual(
      [
        ['db', [['last 1'], ['tag release']]],
        ['web', [['last 1'], [], [], []]],
      ],
    );
    const again = await forget(repository, { policy: { last: 1, tags: ['release'] } });
    expect(again.forgotten).toEqual([]);
    expect(await repository.labels()).toEqual([]);
  });

  test('changes nothing in a dry run, and finds the same', async () => {
    const { repository } = await history();
    const before = await repository.objects();
    const dry = await forget(repository, { policy: { last: 1 }, dryRun: true });
    expect(await repository.objects()).toEqual(before);
    const real = await forget(repository, { policy: { last: 1 } });
    expect(idsOf(real.forgotten)).toEqual(idsOf(dry.forgotten));
    expect(real.forgotten).toHaveLength(4);
  });

  test('looks only at the machines and tags that it is told to', async () => {
    const { repository, web, db } = await history();
    await forget(repository, { policy: { last: 1 }, vms: ['db'] });
    expect(await left(repository)).toEqual(idsOf([...web, db[1] as PointObject]).sort());
    await changeTags(repository, web[0] as PointObject, { add: ['old'] });
    await changeTags(repository, web[1] as PointObject, { add: ['old'] });
    const { forgotten } = await forget(repository, { policy: { last: 1 }, tags: ['old'] });
    expect(idsOf(forgotten)).toEqual(idsOf([web[0] as PointObject]));
  });

  test('takes the id of a machine for that machine alone, in any case, whatever others are called', async () => {
    const repository = await newRepository();
    const id = 'ABCDEF01-2345-4678-9abc-def012345678';
    const ofVm = (vm: PointObject['vm'], day: number) =>
      sealed(repository, vm.name, day, [], vm.id);
    const old = await ofVm({ name: 'web', id }, 1);
    const kept = [
      await ofVm({ name: 'renamed', id: id.toLowerCase() }, 2),
      await ofVm({ name: id }, 1),
      await ofVm({ name: id }, 2),
      await ofVm({ name: 'web' }, 1),
      await ofVm({ name: 'web' }, 2),
    ];
    const { forgotten } = await forget(repository, { policy: { last: 1 }, vms: [id] });
    expect(idsOf(forgotten)).toEqual([old.id]);
    expect(await left(repository)).toEqual(idsOf(kept).sort());
  });

  test('keeps the points that it is told to, whatever the rules say, and then a machine is not without any', async () => {
    const { repository, web } = await history();
    const [first, second] = web as [PointObject, PointObject];
    const only = { vms: ['web'], keep: [first.id] };
    await forget(repository, { policy: { last: 2 }, ...only });
    expect(await left(repository)).not.toContain(second.id);
    const { vms } = await forget(repository, { policy: { tags: ['none'] }, ...only });
    expect(vms[0]?.verdicts.map(({ reasons }) => reasons)).toEqual([[], [], ['new']]);
    expect(await left(repository)).toContain(first.id);
    const named = { points: [first.id], keep: [first.id] };
    expect(await codeOf(() => forget(repository, named))).toBe('ERR_INVALID_ARGUMENT');
  });

  test('never takes a held point, and refuses to be forced to', async () => {
    const { repository, web } = await history();
    await holdPoint(repository, web[0] as PointObject, 'audit');
    const policy = { last: 1 };
    expect(await codeOf(() => forget(repository, { policy, force: true }))).toBe(
      'ERR_INVALID_ARGUMENT',
    );
    const { vms } = await forget(repository, { policy });
    expect(await left(repository)).toContain(web[0]?.id);
    expect(vms[1]?.verdicts.at(-1)?.reasons).toEqual(['held: audit']);
  });

  test('is refused as a whole where it would keep no point of a machine, unless forced', async () => {
    const { repository, db } = await history();
    const before = await left(repository);
    const tags = { policy: { tags: ['release'] } };
    expect(await codeOf(() => forget(repository, tags))).toBe('ERR_INVALID_ARGUMENT');
    expect(await left(repository)).toEqual(before);
    await forget(repository, { ...tags, forceEmpty: true });
    expect(await left(repository)).toEqual([db[0]?.id]);
  });

  test('without a rule needs both force and a machine or a tag', async () => {
    const { repository, web } = await history();
    for (const options of [
      {},
      { forceEmpty: true },
      { vms: ['db'] },
      { policy: { last: 0 }, forceEmpty: true },
    ]) {
      expect(await codeOf(() => forget(repository, options))).toBe('ERR_INVALID_ARGUMENT');
    }
    await forget(repository, { vms: ['db'], forceEmpty: true });
    expect(await left(repository)).toEqual(idsOf(web).sort());
  });

  test('neither counts nor removes what cannot be read, and hands it over', async () => {
    const { repository, web } = await history();
    const bad = web[3] as PointObject;
    await writeFile(path.join(repository.path, 'points', bad.id), 'rubbish');
    const result = await forget(repository, { policy: { last: 1 }, vms: ['web'] });
    expect(idsOf(result.forgotten)).toEqual(idsOf([web[1], web[0]] as PointObject[]));
    expect(result.damaged).toMatchObject([
      { point: bad.id, error: { code: 'ERR_CORRUPT_OBJECT' } },
    ]);
    expect(await repository.listIds('points')).toContain(bad.id);
  });

  test('ends between two points when it is told to, and the next one does the rest', async () => {
    const { repository, web } = await history();
    const aborter = new AbortController();
    const { store } = repository;
    const remove = store.delete.bind(store);
    store.delete = async (name) => {
      await remove(name);
      if (name.startsWith('points/')) aborter.abort();
    };
    const options = { policy: { last: 1 }, vms: ['web'], signal: aborter.signal };
    expect(await codeOf(() => forget(repository, options))).toBe('ERR_ABORTED');
    expect((await left(repository)).length).toBe(5);
    const { forgotten } = await forget(repository, { policy: { last: 1 }, vms: ['web'] });
    expect(idsOf(forgotten)).toEqual(idsOf([web[1], web[0]] as PointObject[]));
  });
});

describe('forgetting by name', () => {
  test('removes those points, the last of a machine too', async () => {
    const { repository, db, web } = await history();
    const selectors = [db[0]?.id ?? '', 'latest:db', 'latest:db'];
    const { forgotten } = await forget(repository, { points: selectors });
    expect(idsOf(forgotten)).toEqual([db[1]?.id, db[0]?.id]);
    expect(await left(repository)).toEqual(idsOf(web).sort());
  });

  test('does nothing at all if one of them is held, or is not there, or a policy is given too', async () => {
    const { repository, db, web } = await history();
    const before = await left(repository);
    await holdPoint(repository, web[0] as PointObject);
    const held = { points: [db[0]?.id ?? '', web[0]?.id ?? ''] };
    expect(await codeOf(() => forget(repository, held))).toBe('ERR_POINT_HELD');
    const wrong = { points: [db[0]?.id ?? '', 'latest:mail'] };
    expect(await codeOf(() => forget(repository, wrong))).toBe('ERR_POINT_NOT_FOUND');
    const both = { points: ['latest'], policy: { last: 1 } };
    expect(await codeOf(() => forget(repository, both))).toBe('ERR_INVALID_ARGUMENT');
    expect(await left(repository)).toEqual(before);
    expect((await forget(repository, { ...held, force: true })).forgotten).toHaveLength(2);
    expect(await repository.labels()).toEqual([]);
  });

  test('spares a point that somebody holds while others go', async () => {
    const { repository, web } = await history();
    const { store } = repository;
    const remove = store.delete.bind(store);
    let once = true;
    store.delete = async (name) => {
      if (once && name.startsWith('points/')) {
        once = false;
        await holdPoint(repository, web[0] as PointObject);
      }
      await remove(name);
    };
    const points = idsOf(web.slice(0, 3));
    const { forgotten, spared } = await forget(repository, { points });
    expect(idsOf(spared)).toEqual([web[0]?.id]);
    expect(forgotten).toHaveLength(2);
    expect(await left(repository)).toContain(web[0]?.id);
  });
});

describe('what it frees', () => {
  /** Three states of a disk, of which each shares with the one before, and a disk of another machine that shares with the first. */
  async function states() {
    const repository = await newRepository();
    const first = makeContent(6000, 1);
    const second = Buffer.from(first);
    makeContent(300, 2).copy(second, 9 * MIB);
    const third = Buffer.from(second);
    makeContent(300, 3).copy(third, 17 * MIB);
    const other = Buffer.concat([makeContent(2000, 4), first.subarray(0, 5 * MIB)]);
    const written: { point: PointObject; disk: EncodedDisk }[] = [];
    for (const content of [first, second, third, other]) {
      written.push(await writePoint(repository, content));
    }
    return { repository, written };
  }

  /** The records that only these points' disks have. The writer stores each disk whole, so every one of them is counted as often as it lies there. */
  function byHand(written: readonly { disk: EncodedDisk }[], doomed: readonly number[]) {
    const recordsOf = ({ disk }: { disk: EncodedDisk }) => [...disk.chunks, ...disk.maps];
    const hex = ({ id }: { id: Buffer }) => id.toString('hex');
    const live = new Set(
      written
        .filter((_, index) => !doomed.includes(index))
        .flatMap((each) => recordsOf(each).map(hex)),
    );
    const dying = doomed
      .flatMap((index) => recordsOf(written[index] as (typeof written)[0]))
      .filter((record) => !live.has(hex(record)));
    return {
      storedBytes: dying.reduce((sum, { bytes }) => sum + bytes.length, 0),
      chunks: new Set(dying.filter(({ recordClass }) => recordClass === 'chunk').map(hex)).size,
      unreadable: 0,
    };
  }

  test.each([[[0]], [[1]], [[2]], [[0, 1]], [[1, 2]], [[0, 1, 2]], [[3]], [[0, 1, 2, 3]]])(
    'by points %j is exactly what no other point needs',
    async (doomed) => {
      const { repository, written } = await states();
      const ids = new Set(doomed.map((index) => written[index]?.point.id ?? ''));
      const freed = await freedBy(repository, ids);
      expect(freed).toEqual(byHand(written, doomed));
      expect(freed.storedBytes).toBeGreaterThan(0);
    },
    120_000,
  );

  test('by none, or by one that another point equals, is nothing', async () => {
    const { repository, written } = await states();
    expect(await freedBy(repository, new Set())).toEqual({
      storedBytes: 0,
      chunks: 0,
      unreadable: 0,
    });
    const [{ point, disk }] = written as [(typeof written)[0]];
    await repository.seal(pointFor(disk, point.disks[0]?.sizeBytes ?? 0));
    expect((await freedBy(repository, new Set([point.id]))).storedBytes).toBe(0);
  });

  test('leaves out what a point that is about to be sealed needs', async () => {
    const { repository, written } = await states();
    const [{ point, disk }] = written as [(typeof written)[0]];
    await repository.writePending(pointFor(disk, point.disks[0]?.sizeBytes ?? 0));
    expect((await freedBy(repository, new Set([point.id]))).storedBytes).toBe(0);
  });

  test('counts what an earlier, forgotten point stored and only this one still needs', async () => {
    const { repository, written } = await states();
    await forgetPoint(repository, written[0]?.point.id ?? '');
    const others = written.slice(1);
    const freed = await freedBy(repository, new Set(others.map(({ point }) => point.id)));
    // Everything goes but what the forgotten point alone needed, which is garbage already.
    expect(freed.chunks).toBe(byHand(others, [0, 1, 2]).chunks);
  });

  test('is said not to be exact when something cannot be read', async () => {
    const { repository, written } = await states();
    const [pack] = await repository.packs();
    await rm(path.join(repository.path, 'packs', `${pack}.pack`));
    await writeFile(path.join(repository.path, 'packs', `${pack}.pack`), 'rubbish');
    const freed = await freedBy(repository, new Set([written[1]?.point.id ?? '']));
    expect(freed.unreadable).toBeGreaterThan(0);
  });
});
