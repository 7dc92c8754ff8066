/**
 * Runs over machines that are killed: at each entry of the journal, alone or with the whole host, and at any moment between. After each
 * death a new process reconciles, and what holds is looked at from outside: in the machines' folders, in the guests, in the repository.
 *
 * The lab kills: a fault counts the journal's entries and sends SIGKILL when the entry is durable and before the step goes on.
 */

import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runOfMark } from '../../src/hosts/host.js';
import {
  checkGuestImages,
  clearFaults,
  createLab,
  labStatus,
  mergeCheckpoint,
  setFault,
  startLab,
  stopLab,
  userCheckpoint,
} from '../../src/hosts/lab/lab.js';
import { verify } from '../../src/jobs/verify.js';
import { disksOf } from '../../src/repository/format/objects.js';
import { Repository } from '../../src/repository/repository.js';
import { finish, firn, jsonLines, said, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const VM = 'we & b';
/** freeze, checkpoint, thaw, read, seal, merge and confirm, begun and done. */
const ENTRIES = 14;
/** The same with "keep" before the merge. */
const TRACKED_ENTRIES = 16;
/** Entries at which a run dies with its guest frozen, which then stands still until the deadline. */
const FROZEN_ENTRIES = [2, 3, 4, 5];

const folder = suiteFolder();
const lab = path.join(folder, 'lab');
const repository = path.join(folder, 'repository');
const state = path.join(folder, 'state');
const host = `lab:${lab}`;
const common = ['--host', host, '--state', state, '--json'];
const backupLine = ['backup', VM, ...common, '-r', repository, '--min-free', '0'];

const trackedLine = [...backupLine, '--tracking', 'checkpoint'];

/** Where the test does not wait for the deadline, no run on a busy computer is to meet it either. */
function freezeDeadline(entry: number): string[] {
  return ['--freeze-deadline', FROZEN_ENTRIES.includes(entry) ? '6s' : '60s'];
}

let foreign = '';

beforeAll(async () => {
  await createLab(lab, {
    vms: [{ name: VM, sizeBytes: 64 * 2 ** 20, dataBytes: 8 * 2 ** 20, blockBytes: 2 ** 20 }],
  });
  await startLab(lab);
  foreign = await userCheckpoint(lab, VM, { name: 'before the update' });
  expect((await firn(['init', repository])).status).toBe(0);
});
afterAll(() => stopLab(lab));

async function machine() {
  const vm = (await labStatus(lab)).vms[0];
  if (vm === undefined) throw new Error('The lab has lost its machine');
  return vm;
}

/** Names of files and checkpoints of the machine that bear a mark of Firn's. */
async function marks(): Promise<string[]> {
  const vm = await machine();
  const names = [
    ...(await readdir(vm.folder)),
    ...vm.checkpoints.map((checkpoint) => checkpoint.name),
    ...vm.disks.flatMap((disk) => disk.layers),
  ];
  return names.filter((name) => runOfMark(name) !== undefined);
}

/** Names of the references that are kept at the machine. */
async function references(): Promise<string[]> {
  const { checkpoints } = await machine();
  return checkpoints.filter(({ kind }) => kind === 'reference').map(({ name }) => name);
}

/** The newest point and the reference that it has. */
async function newestReference(): Promise<string | undefined> {
  const points = await (await Repository.open(repository)).points();
  return points.at(-1)?.capture?.reference?.name;
}

/** A guest that lives writes many times a second, on a computer that is not busy. */
const HEADWAY_MS = 30_000;

async function expectHeadway(): Promise<void> {
  const { generation = 0, folder: place } = await machine();
  let now = await machine();
  const isAhead = async () => {
    now = await machine();
    return (now.generation ?? 0) > generation;
  };
  const end = performance.now() + HEADWAY_MS;
  while (!(await isAhead()) && performance.now() < end) await delay(20);
  const log = await readFile(path.join(place, 'vm.log'), 'utf8');
  expect(now.generation ?? 0, `${JSON.stringify(now)}\n${log}`).toBeGreaterThan(generation);
}

/** What must hold when a reconciler has been there. */
async function expectClean(kept = 0): Promise<void> {
  expect(await marks()).toEqual([]);
  const vm = await machine();
  const others = vm.checkpoints.filter(({ kind }) => kind !== 'reference');
  expect(others.map((checkpoint) => checkpoint.name)).toEqual([foreign]);
  expect(await references()).toHaveLength(kept);
  expect(vm.disks.map((disk) => disk.layers.length)).toEqual([2 + kept]);
  expect(vm.frozen).toBeUndefined();
  await expectHeadway();
  const opened = await Repository.open(repository);
  expect(await opened.listIds('pending')).toEqual([]);
  expect(await readdir(path.join(state, 'staging')).catch(() => [])).toEqual([]);
}

async function reconcile() {
  const finished = await firn(['reconcile', ...common]);
  expect(finished.stderr).toBe('');
  expect(finished.status).toBe(0);
}

async function pointCount(): Promise<number> {
  return (await (await Repository.open(repository)).listIds('points')).length;
}

describe.each(['firn-dies', 'host-dies'] as const)('when %s at a step', (fault) => {
  test.each(Array.from({ length: ENTRIES }, (_, index) => index + 1))(
    'at entry %i, the reconciler leaves nothing of the run and the machine goes on',
    async (entry) => {
      const before = await pointCount();
      await setFault(lab, { name: fault, step: entry, once: true });
      const backup = await firn([...backupLine, ...freezeDeadline(entry)]);
      expect(backup.signal).toBe('SIGKILL');
      // A guest that Firn left frozen thaws by itself.
      await expect.poll(async () => (await machine()).frozen).toBeUndefined();
      if (fault === 'host-dies') {
        expect((await machine()).unclean).toBe(true);
        await startLab(lab);
      }
      await expectHeadway();
      await reconcile();
      await expectClean();
      // The seal is durable before its entry "done": from the tenth entry on the point is there.
      const sealed = (await pointCount()) - before;
      if (entry < 9) expect(sealed).toBe(0);
      else if (entry > 9) expect(sealed).toBe(1);
    },
  );
});

describe('when Firn dies at a step of a run that tracks', () => {
  beforeAll(async () => {
    expect((await firn(trackedLine)).status).toBe(0);
  });
  afterAll(async () => {
    const finished = await firn(['vm', 'untrack', VM, '--host', host]);
    expect(finished.status).toBe(0);
    await expectClean();
  });

  test.each(
    Array.from({ length: TRACKED_ENTRIES }, (_, index) => index + 1).flatMap((entry) =>
      // The host's death differs where it changes something.
      entry >= 9 && entry <= 14
        ? [['firn-dies', entry] as const, ['host-dies', entry] as const]
        : [['firn-dies', entry] as const],
    ),
  )(
    '%s at entry %i: the reference moves on if there is a point, and stays if there is none',
    async (fault, entry) => {
      const before = await pointCount();
      const [old] = await references();
      await setFault(lab, { name: fault, step: entry, once: true });
      const backup = await firn([...trackedLine, ...freezeDeadline(entry)]);
      expect(backup.signal).toBe('SIGKILL');
      // Until the seal nothing that was kept has gone.
      if (entry <= 10) expect(await references()).toEqual([old]);
      await expect.poll(async () => (await machine()).frozen).toBeUndefined();
      if (fault === 'host-dies') await startLab(lab);
      await reconcile();
      await expectClean(1);
      const sealed = (await pointCount()) - before;
      if (entry < 9) expect(sealed).toBe(0);
      else if (entry > 9) expect(sealed).toBe(1);
      expect(await references()).toEqual([sealed === 1 ? await newestReference() : old]);
    },
  );

  test('and after all that the next run is incremental, and proven by a full one that has the same roots', async () => {
    const finished = await firn(trackedLine);
    const summary = jsonLines(finished).at(-1) as {
      vms: { readings: { base?: { point: string }; fullReason?: string }[] }[];
    };
    const readings = summary.vms.flatMap((vm) => vm.readings);
    expect(readings.map(({ fullReason }) => fullReason)).toEqual([undefined]);
    expect(readings.map(({ base }) => base?.point)).toEqual([expect.any(String)]);
    await stopLab(lab);
    try {
      const line = (mode: string) => [...backupLine, '--tracking', mode];
      expect((await firn(line('checkpoint'))).status).toBe(0);
      expect((await firn(line('none'))).status).toBe(0);
      const points = (await (await Repository.open(repository)).points()).slice(-2);
      const [tracked, full] = points.map((point) => disksOf(point));
      expect(tracked?.map(({ base }) => base)).toEqual([expect.any(String)]);
      expect(full?.map(({ base }) => base)).toEqual([undefined]);
      expect(tracked?.map(({ root }) => root)).toEqual(full?.map(({ root }) => root));
    } finally {
      await startLab(lab);
    }
  });
});

test('after all that a run goes through, each point verifies, and the last one holds what the guest promised', async () => {
  await clearFaults(lab);
  const backup = await firn(backupLine);
  expect(backup.stderr).toBe('');
  await expectClean();
  const opened = await Repository.open(repository);
  const { problems, points } = await verify(opened, { readData: true });
  expect(problems).toEqual([]);
  expect(points).toBe(await pointCount());
  const restored = path.join(folder, 'restored');
  expect((await firn(['restore', 'latest', '-r', repository, '--to', restored])).status).toBe(0);
  const images = (await readdir(restored)).filter((name) => name.endsWith('.vhdx'));
  const verdict = await checkGuestImages(images.map((name) => path.join(restored, name)));
  expect(verdict).toMatchObject({
    recoveryNeeded: false,
    applicationClean: true,
    invariantHolds: true,
    problems: [],
  });
  expect(jsonLines(await firn(['runs', 'list', '--state', state, '--json']))).toBeDefined();
});

test('killed at any moment, a run leaves nothing that the next run does not finish by itself', async () => {
  for (let round = 0; round < 8; round++) {
    const child = start(backupLine);
    const ended = finish(child);
    await delay(120 + Math.random() * 400);
    child.kill('SIGKILL');
    await ended;
  }
  const backup = await firn(backupLine);
  expect(backup.status).toBe(0);
  await expectClean();
});

test('interrupted, a run merges before it ends, and says so with 130', async () => {
  await setFault(lab, { name: 'freeze-slow', ms: 1500, once: true });
  const child = start([...backupLine, '--limit', '100K']);
  const ended = finish(child);
  // Its first step has begun as soon as it speaks of it, and the slow freeze keeps it there; the limit lets none get through.
  await said(child, '"freeze"');
  child.kill('SIGINT');
  const finished = await ended;
  expect(finished.status).toBe(130);
  await expectClean();
  await mergeCheckpoint(lab, VM, foreign);
});
