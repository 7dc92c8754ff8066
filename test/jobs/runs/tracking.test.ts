/**
 * Runs that read only what changed, end to end on a lab whose guests write all the time. The proof of each incremental point is a full read
 * of the same frozen disks: its roots must be those of the point (docs/architecture.md, invariant 1).
 */

import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { Capture, CaptureOutcome, CaptureRequest, Steps } from '../../../src/hosts/host.js';
import {
  clearFaults,
  labVm,
  mergeCheckpoint,
  setFault,
  startLab,
  stopLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { LiveChain } from '../../../src/hosts/lab/live-chain.js';
import { LiveLayer } from '../../../src/hosts/lab/live-layer.js';
import type { TrackingMode } from '../../../src/hosts/tracking.js';
import { backup } from '../../../src/jobs/backup.js';
import { forget } from '../../../src/jobs/forget.js';
import { prune } from '../../../src/jobs/prune.js';
import { Journal } from '../../../src/jobs/runs/journal.js';
import { reconcile } from '../../../src/jobs/runs/reconcile.js';
import { planDisk } from '../../../src/jobs/runs/tracking.js';
import { VM_BACKUP_DEFAULTS, type VmResult } from '../../../src/jobs/runs/types.js';
import { backupVms } from '../../../src/jobs/runs/vm-backup.js';
import { verify } from '../../../src/jobs/verify.js';
import { disksOf, type PointObject } from '../../../src/repository/format/objects.js';
import { Repository } from '../../../src/repository/repository.js';
import { newRepository } from '../../helpers/disks.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { wrapStore } from '../../helpers/memory-store.js';
import { isWriting, temporaryLab } from '../../hosts/lab/lab-fixture.js';

const VM = 'web';

/** A lab that reads every frozen disk in full before it lets it go, and lets a test act while the disks are frozen. */
class WitnessLab extends LabHost {
  /** The roots of a full read of the last capture, by the disk's name. */
  roots = new Map<string, string>();
  whenCaptured: (capture: Capture) => Promise<void> = async () => {};
  repository: Repository | undefined;

  override async capture(
    batch: readonly CaptureRequest[],
    mark: string,
    steps: Steps,
  ): Promise<CaptureOutcome[]> {
    const outcomes = await super.capture(batch, mark, steps);
    for (const { capture } of outcomes) {
      if (capture === undefined) continue;
      await this.#readInFull(capture);
      await this.whenCaptured(capture);
    }
    return outcomes;
  }

  async #readInFull({ disks }: Capture): Promise<void> {
    if (this.repository === undefined) throw new Error('the witness has no repository');
    const sources = disks.map(({ name, layers: [top = '', ...parents] }) => {
      return { path: top, parents, name };
    });
    const read = await backup(this.repository, { disks: sources, vm: VM, dryRun: true });
    this.roots = new Map(read.disks.map(({ name, root }) => [name, root]));
  }
}

let lab = '';
let host: WitnessLab;
let journal: Journal;

beforeEach(async () => {
  // So little is written that it stays the smaller part of the disks where a run takes long.
  lab = await temporaryLab([{ name: VM, disks: 2, writesPerSecond: 4 }]);
  host = new WitnessLab(lab);
  journal = Journal.open(await temporaryFolder());
  onTestFinished(() => journal.close());
});

async function attempt(
  repository: Repository,
  tracking: TrackingMode = 'checkpoint',
): Promise<VmResult> {
  host.repository = repository;
  const { vms } = await backupVms(repository, host, journal, {
    ...VM_BACKUP_DEFAULTS,
    tracking,
    vms: undefined,
    excludedDisks: [],
    map: [],
    space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
  });
  const [result] = vms;
  if (result === undefined) throw new Error('the run has no result');
  return result;
}

/** A run that makes a point, which holds what a full read of the frozen disks gives. */
async function run(repository: Repository, tracking?: TrackingMode) {
  const result = await attempt(repository, tracking);
  expect([result.error, result.releaseError]).toEqual([undefined, undefined]);
  const { point, readings = [] } = result;
  if (point === undefined) throw new Error('the run made no point');
  expect(new Map(disksOf(point).map(({ name, root }) => [name, root]))).toEqual(host.roots);
  return { point, readings, result };
}

function expectIncremental(
  { readings, point }: Awaited<ReturnType<typeof run>>,
  from: PointObject,
) {
  expect(readings.map(({ base, fullReason }) => [base?.point, fullReason])).toEqual([
    [from.id, undefined],
    [from.id, undefined],
  ]);
  expect(disksOf(point).map(({ base }) => base)).toEqual([from.id, from.id]);
  for (const [index, { sizeBytes }] of disksOf(point).entries()) {
    expect(readings[index]?.base?.changedBytes).toBeLessThan(sizeBytes / 2);
  }
}

function expectFull({ readings, point }: Awaited<ReturnType<typeof run>>, reason: RegExp) {
  for (const { base, fullReason } of readings) {
    expect(base).toBeUndefined();
    expect(fullReason).toMatch(reason);
  }
  expect(disksOf(point).map(({ base }) => base)).toEqual([undefined, undefined]);
}

async function kept(): Promise<string[]> {
  return (await host.tracking.references()).map(({ name }) => name);
}

async function depths(): Promise<number[]> {
  return (await labVm(lab, VM)).disks.map(({ layers }) => layers.length);
}

async function expectWhole(repository: Repository): Promise<void> {
  expect((await verify(repository, { readData: true })).problems).toEqual([]);
}

describe('a run that tracks', () => {
  test('reads all once, and then what the guest has written since the last point', async () => {
    const repository = await newRepository();
    const first = await run(repository);
    expectFull(first, /no earlier point/);
    let last = first.point;
    for (let round = 0; round < 3; round++) {
      expect(await isWriting(lab, VM)).toBe(true);
      const next = await run(repository);
      expectIncremental(next, last);
      expect(next.result.summary?.readBytes).toBeLessThan(first.result.summary?.readBytes ?? 0);
      expect(await kept()).toEqual([next.point.capture?.reference?.name]);
      expect(await depths()).toEqual([2, 2]);
      last = next.point;
    }
    await expectWhole(repository);
  });

  test('goes on while the machine is off, is started and is off again', async () => {
    const repository = await newRepository();
    await stopLab(lab);
    const first = await run(repository);
    const nothing = await run(repository);
    expectIncremental(nothing, first.point);
    expect(nothing.readings.map(({ base }) => base?.changedBytes)).toEqual([0, 0]);
    await startLab(lab);
    expect(await isWriting(lab, VM)).toBe(true);
    await stopLab(lab);
    const last = await run(repository);
    expectIncremental(last, nothing.point);
    expect(last.readings[0]?.base?.changedBytes).toBeGreaterThan(0);
    await expectWhole(repository);
  });

  test('sees what a user did with checkpoints in between', async () => {
    const repository = await newRepository();
    const first = await run(repository);
    const above = await userCheckpoint(lab, VM);
    expect(await isWriting(lab, VM)).toBe(true);
    const second = await run(repository);
    expectIncremental(second, first.point);
    await mergeCheckpoint(lab, VM, above);
    expect(await isWriting(lab, VM)).toBe(true);
    expectIncremental(await run(repository), second.point);
    await expectWhole(repository);
  });

  test('has a reference for each repository', async () => {
    const [one, other] = [await newRepository(), await newRepository()];
    const first = await run(one);
    const strange = await run(other);
    expectFull(strange, /no earlier point/);
    const second = await run(one);
    expectIncremental(second, first.point);
    expectIncremental(await run(other), strange.point);
    expectIncremental(await run(one), second.point);
    expect(await kept()).toHaveLength(2);
    expect(await depths()).toEqual([3, 3]);
    await expectWhole(one);
    await expectWhole(other);
  });

  test('takes an older point where the newest has no reference', async () => {
    const repository = await newRepository();
    const first = await run(repository);
    const untracked = await run(repository, 'none');
    expect(untracked.point.capture?.reference).toBeUndefined();
    expect(untracked.readings.map(({ fullReason }) => fullReason)).toEqual([undefined, undefined]);
    expect(await kept()).toEqual([first.point.capture?.reference?.name]);
    expectIncremental(await run(repository), first.point);
  });

  test('uses what is kept with "auto" too, and keeps nothing new', async () => {
    const repository = await newRepository();
    expectFull(await run(repository, 'auto'), /none was asked for/);
    expect(await kept()).toEqual([]);
    const first = await run(repository);
    const second = await run(repository, 'auto');
    expectIncremental(second, first.point);
    expect(await kept()).toEqual([first.point.capture?.reference?.name]);
    expectIncremental(await run(repository), first.point);
  });
});

describe('every doubt is a full read that says why', () => {
  test('when the reference was dropped', async () => {
    const repository = await newRepository();
    await run(repository);
    for (const { vm, name } of await host.tracking.references()) {
      await host.tracking.drop(vm, name, 60_000);
    }
    expect(await depths()).toEqual([1, 1]);
    expectFull(await run(repository), /is gone/);
  });

  test('when the repository has lost the point', async () => {
    const repository = await newRepository();
    const { point } = await run(repository);
    await repository.removePoint(point.id);
    expectFull(await run(repository), /no earlier point/);
    expect(await kept()).toHaveLength(1);
  });

  test("when the repository has lost the point's map", async () => {
    const repository = await newRepository();
    await run(repository);
    for (const folder of await readdir(path.join(repository.path, 'packs'))) {
      await rm(path.join(repository.path, 'packs', folder), { recursive: true });
    }
    for (const name of await repository.indexRuns()) {
      await rm(path.join(repository.path, 'index', name));
    }
    const { readings, point } = await run(repository);
    for (const { base, fullReason } of readings) {
      expect(base).toBeUndefined();
      expect(fullReason).toBeTruthy();
    }
    expect(disksOf(point).map(({ base }) => base)).toEqual([undefined, undefined]);
  });

  test('when somebody wrote to a frozen layer and connected the chain anew', async () => {
    const repository = await newRepository();
    await run(repository);
    await stopLab(lab);
    const { disks } = await labVm(lab, VM);
    const [top = '', base = ''] = disks[0]?.layers ?? [];
    alterAndReconnect(top, base);
    const { readings } = await run(repository);
    expect(readings[0]?.base).toBeUndefined();
    expect(readings[0]?.fullReason).toMatch(/was altered, or is another file/);
    expect(readings[1]?.base).toBeDefined();
  });

  test('when the disk of that name is another one', async () => {
    const repository = await newRepository();
    const { point } = await run(repository);
    const other: PointObject = {
      ...point,
      disks: point.disks.map((disk) => ({
        ...disk,
        identity: { ...disk.identity, diskId: '01234567-89ab-cdef-0123-456789abcdef' },
      })),
    };
    let looked = 0;
    host.whenCaptured = async (capture) => {
      for (const disk of capture.disks) {
        const [top = '', ...parents] = disk.layers;
        const source = { path: top, parents };
        const same = await planDisk(capture, disk, source, [point]);
        expect([same.base?.point, same.fullReason]).toEqual([point.id, undefined]);
        const { base, fullReason } = await planDisk(capture, disk, source, [other]);
        expect([base, fullReason]).toEqual([
          undefined,
          `in point ${point.id} this was another disk`,
        ]);
        const missing = { ...point, disks: [] };
        expect(await planDisk(capture, disk, source, [missing])).toMatchObject({
          fullReason: `point ${point.id} does not have this disk`,
        });
        looked++;
      }
    };
    await run(repository);
    expect(looked).toBe(2);
  });
});

/** As a mount for writing does that is then forced to fit: the bytes change, and the child takes the new identity for its parent's. */
function alterAndReconnect(child: string, base: string): void {
  const changed = LiveChain.open([base]);
  changed.write(0, Buffer.alloc(512, 0xa5));
  changed.flush();
  const { dataWriteGuid } = changed;
  changed.close();
  const layer = LiveLayer.open(child, { write: true });
  layer.replaceLocator(
    new Map([...(layer.locator ?? []), ['parent_linkage', `{${dataWriteGuid}}`]]),
  );
  layer.close();
}

describe('the reference moves on only after the seal', () => {
  test('and a run without a point leaves the old one, from which the next run counts', async () => {
    const repository = await newRepository();
    const first = await run(repository);
    host.whenCaptured = () => Promise.reject(new Error('given up'));
    await attempt(repository);
    host.whenCaptured = async () => {};
    await reconcile(host, journal);
    expect(await kept()).toEqual([first.point.capture?.reference?.name]);
    expect(await isWriting(lab, VM)).toBe(true);
    expectIncremental(await run(repository), first.point);
  });

  test('and a merge that fails is finished later, with the new reference in place', async () => {
    const repository = await newRepository();
    await run(repository);
    await setFault(lab, { name: 'merge-fails', vm: VM });
    const { point, releaseError } = await attempt(repository);
    expect(releaseError?.code).toBe('ERR_MERGE_FAILED');
    expect(await kept()).toHaveLength(2);
    await clearFaults(lab);
    const { runs } = await reconcile(host, journal);
    expect(runs.flatMap(({ vms }) => vms.map(({ error }) => error))).toEqual([undefined]);
    expect(await kept()).toEqual([point?.capture?.reference?.name]);
    if (point === undefined) throw new Error('the run made no point');
    expectIncremental(await run(repository), point);
    await expectWhole(repository);
  });
});

test('a base point that is forgotten and collected between the reading and the seal does not hurt', async () => {
  const repository = await newRepository();
  const first = await run(repository);
  expect(await isWriting(lab, VM)).toBe(true);
  let collected = false;
  // The first thing that a writer does when all is stored.
  const watched = await Repository.open(
    repository.path,
    wrapStore(repository.store, async (method, name, call) => {
      if (method === 'putNew' && name.startsWith('pending/') && !collected) {
        collected = true;
        await forget(repository, { points: [first.point.id], force: true, forceEmpty: true });
        await prune(repository, { maxWaste: 0 });
      }
      return call();
    }),
  );
  const next = await run(watched);
  expect(collected).toBe(true);
  // What it relied on had gone: the work was done once more, without the base.
  expect(next.point.attempt).toBeGreaterThan(0);
  expect(next.readings.map(({ base }) => base)).toEqual([undefined, undefined]);
  expect(await repository.listIds('points')).toEqual([next.point.id]);
  await expectWhole(repository);
});

test('a base point that is forgotten and collected before the reading does not hurt', async () => {
  const repository = await newRepository();
  const first = await run(repository);
  expect(await isWriting(lab, VM)).toBe(true);
  host.whenCaptured = async () => {
    await forget(repository, { points: [first.point.id], force: true, forceEmpty: true });
    await prune(repository, { maxWaste: 0 });
  };
  await run(repository);
  expect(await repository.listIds('points')).toHaveLength(1);
  await expectWhole(repository);
});
