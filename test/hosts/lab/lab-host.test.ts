/**
 * Goal: a lab's captures are worth what they say, and its faults do what their names say. Method: real machines with their processes; what was
 * captured is judged by the guest's own checker, which reads the frozen layers through the engine.
 */

import { mkdir, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Consistency } from '../../../src/consistency.js';
import type { Capture, ConsistencyPolicy, Vm } from '../../../src/hosts/host.js';
import { callMachine } from '../../../src/hosts/lab/control.js';
import {
  checkGuestImages,
  clearFaults,
  type GuestVerdict,
  type LabFault,
  labVm,
  mergeCheckpoint,
  setFault,
  startLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { captureOf, newMark, recordSteps } from '../../conformance/host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { isWriting, makeLab, stopInPeace, temporaryLab, until } from './lab-fixture.js';

const FREEZE_DEADLINE_MS = 60_000;

async function vmOf(lab: string, name: string): Promise<Vm> {
  const vm = (await new LabHost(lab).listVms()).find((candidate) => candidate.name === name);
  if (vm === undefined) throw new Error(`there is no machine ${name}`);
  return vm;
}

async function capture(
  lab: string,
  name: string,
  {
    wanted = 'application',
    required = 'crash',
    mark = newMark(),
    freezeDeadlineMs = FREEZE_DEADLINE_MS,
  }: Partial<ConsistencyPolicy> & { mark?: string; freezeDeadlineMs?: number } = {},
): Promise<Capture & { mark: string }> {
  const vm = await vmOf(lab, name);
  const policy = { wanted, required };
  const request = { vm, policy, excludedDisks: [], freezeDeadlineMs };
  const [outcome] = await new LabHost(lab).capture([request], mark, recordSteps());
  return { ...captureOf(outcome), mark };
}

async function release(lab: string, name: string, mark: string, deadlineMs = 60_000) {
  const vm = await vmOf(lab, name);
  const [outcome] = await new LabHost(lab).release([vm], mark, deadlineMs, recordSteps());
  return outcome?.error;
}

function judge({ disks }: Capture): Promise<GuestVerdict> {
  return checkGuestImages(
    disks.map(({ layers: [top = '', ...parents] }) => ({ path: top, parents })),
  );
}

describe('a lab of one machine of each kind', () => {
  let lab: string;
  let remove: () => Promise<void>;
  beforeAll(async () => {
    ({ lab, remove } = await makeLab([
      { name: 'application', disks: 2 },
      { name: 'filesystem', disks: 2, vss: 'filesystem' },
      { name: 'none', disks: 2, vss: 'none' },
    ]));
  });
  afterAll(() => remove());
  afterEach(() => clearFaults(lab));

  async function faulty(fault: LabFault): Promise<void> {
    await setFault(lab, fault);
  }

  test.each([
    ['application', 'application', { recoveryNeeded: false, applicationClean: true }],
    ['filesystem', 'filesystem', { recoveryNeeded: false }],
    ['none', 'crash', { recoveryNeeded: true }],
  ] as const)(
    'a guest with an agent for "%s" gives a copy of %s consistency',
    async (name, level, verdict) => {
      const captured = await capture(lab, name);
      expect(captured.consistency).toBe(level);
      expect(captured.consistencyReason === undefined).toBe(level === 'application');
      expect(await isWriting(lab, name)).toBe(true);
      expect(await judge(captured)).toMatchObject({
        ...verdict,
        invariantHolds: true,
        missingDisks: 0,
        records: 128,
      });
      expect(await release(lab, name, captured.mark)).toBeUndefined();
      expect(await isWriting(lab, name)).toBe(true);
    },
  );

  test('no more is frozen than is wanted', async () => {
    const { consistency, consistencyReason, mark, ...captured } = await capture(
      lab,
      'application',
      {
        wanted: 'crash',
      },
    );
    expect(consistency).toBe('crash');
    expect(consistencyReason).toBeUndefined();
    expect(captured.frozenMs).toBeUndefined();
    expect((await judge({ ...captured, consistency })).recoveryNeeded).toBe(true);
    await release(lab, 'application', mark);
  });

  test('the configuration is the record as it was before the checkpoint', async () => {
    const before = await vmOf(lab, 'application');
    const { configuration, mark } = await capture(lab, 'application');
    const record = JSON.parse(await readFile(configuration[0] ?? '', 'utf8'));
    expect(record).toMatchObject({ id: before.id, name: 'application', checkpoints: [] });
    expect(record.disks.map((disk: { layers: string[] }) => disk.layers.length)).toEqual([1, 1]);
    expect(configuration[0]).toContain(mark);
    await release(lab, 'application', mark);
  });

  // A copy that takes its time, in no order, is what no backup may be.
  test('a slow copy of the live files, in random order, is found out or cannot be read', async () => {
    const folder = await temporaryFolder();
    const before = (await labVm(lab, 'application')).generation ?? 0;
    const { disks } = await labVm(lab, 'application');
    const images: string[] = [];
    // As slow as it takes the guest to write meanwhile.
    const pause = async () => {
      const { generation = 0 } = await labVm(lab, 'application');
      await until(async () => ((await labVm(lab, 'application')).generation ?? 0) > generation);
    };
    for (const disk of disks) {
      const image = path.join(folder, `${disk.name}.vhdx`);
      await slowCopy(disk.layers[0] ?? '', image, pause);
      images.push(image);
    }
    expect((await labVm(lab, 'application')).generation).toBeGreaterThan(before + 20);
    const verdict = await checkGuestImages(images).catch(() => undefined);
    expect(verdict?.invariantHolds ?? false).toBe(false);
  });

  // --- Faults ---

  test('freeze-hangs: less is recorded if the policy allows it, and else there is nothing', async () => {
    await faulty({ name: 'freeze-hangs', vm: 'application' });
    const captured = await capture(lab, 'application', { freezeDeadlineMs: 200 });
    expect(captured.consistency).toBe('crash');
    expect(captured.consistencyReason).toMatch(/froze|freeze|longer/);
    expect(await judge(captured)).toMatchObject({ invariantHolds: true, recoveryNeeded: true });
    await release(lab, 'application', captured.mark);
    await expect(
      capture(lab, 'application', { freezeDeadlineMs: 200, required: 'filesystem' }),
    ).rejects.toMatchObject({ code: expect.stringMatching(/ERR_(FREEZE_FAILED|DEADLINE)/) });
    expect(await isWriting(lab, 'application')).toBe(true);
    expect((await vmOf(lab, 'application')).disks[0]?.layers).toBe(1);
  });

  test('freeze-refuses, once: the next less is tried, and the time after all is well', async () => {
    await faulty({ name: 'freeze-refuses', vm: 'application', once: true });
    const first = await capture(lab, 'application');
    expect(first.consistency).toBe('filesystem');
    expect(first.consistencyReason).toContain('refused');
    await release(lab, 'application', first.mark);
    const second = await capture(lab, 'application', { required: 'application' });
    expect(second.consistency).toBe('application');
    await release(lab, 'application', second.mark);
  });

  test('freeze-refuses, for good: what the policy requires is not to be had', async () => {
    await faulty({ name: 'freeze-refuses' });
    await expect(capture(lab, 'application', { required: 'filesystem' })).rejects.toMatchObject({
      code: 'ERR_FREEZE_FAILED',
    });
  });

  test('freeze-slow: the guest writes on until it freezes, and stands no longer for it', async () => {
    await faulty({ name: 'freeze-slow', vm: 'application', ms: 300, once: true });
    const begun = performance.now();
    const captured = await capture(lab, 'application');
    const elapsedMs = performance.now() - begun;
    expect(captured.consistency).toBe('application');
    // A timer may go off a moment early.
    expect(elapsedMs - (captured.frozenMs ?? elapsedMs)).toBeGreaterThan(295);
    await release(lab, 'application', captured.mark);
  });

  test('checkpoint-fails: the guest goes on at once, and nothing is left', async () => {
    await faulty({ name: 'checkpoint-fails', vm: 'application' });
    await expect(capture(lab, 'application')).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_FAILED',
    });
    expect((await labVm(lab, 'application')).frozen).toBeUndefined();
    expect(await isWriting(lab, 'application')).toBe(true);
    expect(await new LabHost(lab).leftovers()).toEqual([]);
  });

  test('merge-fails: the checkpoint stays and the guest writes on, until a release succeeds', async () => {
    const { mark } = await capture(lab, 'application');
    await faulty({ name: 'merge-fails', vm: 'application', once: true });
    expect(await release(lab, 'application', mark)).toMatchObject({ code: 'ERR_MERGE_FAILED' });
    expect((await vmOf(lab, 'application')).disks[0]?.layers).toBe(2);
    expect(await isWriting(lab, 'application')).toBe(true);
    expect(await release(lab, 'application', mark)).toBeUndefined();
    expect((await vmOf(lab, 'application')).disks[0]?.layers).toBe(1);
  });

  test('merge-stalls: the release runs into its deadline, and the guest writes on', async () => {
    const { mark } = await capture(lab, 'application');
    await faulty({ name: 'merge-stalls', vm: 'application' });
    const error = await release(lab, 'application', mark, 300);
    expect(error?.code).toMatch(/ERR_(DEADLINE|MERGE_FAILED)/);
    expect(await isWriting(lab, 'application')).toBe(true);
    await clearFaults(lab);
    expect(await release(lab, 'application', mark)).toBeUndefined();
  });

  test('merge-stalls, once: the next release merges', async () => {
    const { mark } = await capture(lab, 'application');
    await faulty({ name: 'merge-stalls', vm: 'application', once: true });
    const { folder } = await labVm(lab, 'application');
    // Straight to the machine: only its own time runs, and that from when it has begun to stall.
    const merge = callMachine(folder, 'merge', { name: mark, deadlineMs: 300 });
    await expect(merge).rejects.toMatchObject({ code: 'ERR_MERGE_FAILED' });
    expect(await release(lab, 'application', mark)).toBeUndefined();
  });

  test('volume-full: there is no room, the guest stops at its next block, and goes on when there is', async () => {
    const host = new LabHost(lab);
    const { mark } = await capture(lab, 'application');
    await faulty({ name: 'volume-full', vm: 'application' });
    expect((await host.volumes())[0]?.freeBytes).toBeLessThan(1024 * 1024);
    await until(async () => (await vmOf(lab, 'application')).state === 'critical');
    expect(await isWriting(lab, 'application', 1)).toBe(false);
    const errors = (await host.check()).filter((check) => check.state === 'error');
    expect(errors.map((check) => check.name)).toEqual(['machine application']);
    await clearFaults(lab);
    await until(async () => (await vmOf(lab, 'application')).state === 'running');
    expect(await isWriting(lab, 'application')).toBe(true);
    expect((await host.volumes())[0]?.freeBytes).toBeGreaterThan(1024 * 1024);
    expect(await release(lab, 'application', mark)).toBeUndefined();
  });

  test('faults that are on are shown, and found by the check', async () => {
    await faulty({ name: 'freeze-slow', ms: 5 });
    await faulty({ name: 'merge-fails', vm: 'none', once: true });
    const faults = (await labVm(lab, 'none')).faults;
    expect(faults).toEqual([
      { name: 'merge-fails', vm: 'none', once: true },
      { name: 'freeze-slow', ms: 5, once: false },
    ]);
    const warnings = (await new LabHost(lab).check()).filter((check) => check.state === 'warning');
    expect(warnings.map((check) => check.message).join()).toContain('"merge-fails"');
    await clearFaults(lab, { name: 'freeze-slow' });
    expect((await labVm(lab, 'none')).faults.map((fault) => fault.name)).toEqual(['merge-fails']);
  });

  // --- What a dead run leaves ---

  test('a guest whose run died while it was frozen goes on by itself, and shows until then', async () => {
    const { folder } = await labVm(lab, 'application');
    const mark = newMark();
    const level: Consistency = 'application';
    await callMachine(folder, 'freeze', { level, mark, deadlineMs: 60_000 });
    const left = await new LabHost(lab).leftovers();
    expect(left).toMatchObject([{ kind: 'frozen-guest', mark, vm: { name: 'application' } }]);
    // Its deadline is near now.
    await callMachine(folder, 'freeze', { level, mark, deadlineMs: 500 });
    await until(async () => (await labVm(lab, 'application')).frozen === undefined);
    expect(await isWriting(lab, 'application')).toBe(true);
  });

  test('a release thaws a guest that stands frozen for its mark, and no other', async () => {
    const { folder } = await labVm(lab, 'application');
    const mark = newMark();
    await callMachine(folder, 'freeze', { level: 'filesystem', mark, deadlineMs: 60_000 });
    expect(await release(lab, 'application', newMark())).toBeUndefined();
    expect((await labVm(lab, 'application')).frozen).toMatchObject({ mark });
    expect(await release(lab, 'application', mark)).toBeUndefined();
    expect(await isWriting(lab, 'application')).toBe(true);
  });

  test("another product's checkpoint is named and left alone, a user's is not even named", async () => {
    const foreign = await userCheckpoint(lab, 'none', { name: 'Other Backup', recovery: true });
    await userCheckpoint(lab, 'filesystem', { name: 'before the update' });
    const host = new LabHost(lab);
    const left = await host.leftovers();
    expect(left).toMatchObject([{ kind: 'checkpoint', name: foreign, vm: { name: 'none' } }]);
    expect(left[0]?.mark).toBeUndefined();
    const mark = newMark();
    await capture(lab, 'none', { mark });
    expect(await release(lab, 'none', mark)).toBeUndefined();
    expect((await labVm(lab, 'none')).checkpoints.map(({ name }) => name)).toEqual([foreign]);
  });

  test("a checkpoint's name is never taken for a path", async () => {
    const { folder } = await labVm(lab, 'application');
    const name = `../../${newMark()}`;
    const victim = path.join(folder, `configuration_${name}.json`);
    const before = (await readdir(folder)).sort();
    await userCheckpoint(lab, 'application', { name, recovery: true });
    expect((await readdir(folder)).length).toBe(before.length + 2);
    await mkdir(path.join(folder, 'configuration_..'));
    await writeFile(victim, 'stays');
    await mergeCheckpoint(lab, 'application', name);
    expect(await readFile(victim, 'utf8')).toBe('stays');
    await rm(victim);
    await rm(path.join(folder, 'configuration_..'), { recursive: true });
    expect((await readdir(folder)).sort()).toEqual(before);
  });

  test('a file of a mark that no chain uses is named, and goes with the release', async () => {
    const { folder } = await labVm(lab, 'application');
    const mark = newMark();
    await writeFile(path.join(folder, `configuration_${mark}.json`), '{}');
    await writeFile(path.join(folder, `scsi-0-0_${mark}.avhdx`), 'brought back');
    expect(await new LabHost(lab).leftovers()).toContainEqual(
      expect.objectContaining({ kind: 'layer', mark }),
    );
    expect(await release(lab, 'application', mark)).toBeUndefined();
    expect((await readdir(folder)).filter((name) => name.includes(mark))).toEqual([]);
  });
});

async function slowCopy(from: string, to: string, pause: () => Promise<void>): Promise<void> {
  const piece = 64 * 1024;
  const [source, target] = [await open(from, 'r'), await open(to, 'w')];
  try {
    const { size } = await source.stat();
    const places = Array.from(
      { length: Math.ceil(size / piece) },
      (_value, index) => index * piece,
    );
    const shuffled = places
      .map((place) => ({ place, key: Math.random() }))
      .sort((a, b) => a.key - b.key);
    await target.truncate(size);
    for (const [index, { place }] of shuffled.entries()) {
      const { buffer, bytesRead } = await source.read(Buffer.alloc(piece), 0, piece, place);
      await target.write(buffer, 0, bytesRead, place);
      if (index % 8 === 0) await pause();
    }
  } finally {
    await source.close();
    await target.close();
  }
}

// --- Machines that are off ---

test('a machine that is off is captured as it was left, and may be started meanwhile', async () => {
  const lab = await temporaryLab([{ name: 'vm', disks: 2 }], { start: false });
  const captured = await capture(lab, 'vm');
  expect(captured.consistency).toBe('application');
  expect(await startLab(lab)).toEqual([{ name: 'vm' }]);
  expect(await isWriting(lab, 'vm')).toBe(true);
  expect(await judge(captured)).toMatchObject({
    recoveryNeeded: false,
    applicationClean: true,
    invariantHolds: true,
    generation: 0,
  });
  await stopInPeace(lab);
  expect(await release(lab, 'vm', captured.mark)).toBeUndefined();
  const { disks } = await labVm(lab, 'vm');
  expect(disks.map((disk) => disk.layers.length)).toEqual([1, 1]);
  const verdict = await checkGuestImages(disks.map((disk) => disk.layers[0] ?? ''));
  expect(verdict).toMatchObject({ recoveryNeeded: false, applicationClean: true, problems: [] });
  expect(verdict.generation).toBeGreaterThan(0);
});

test('a record that is damaged is an error of its machine, and hides no other', async () => {
  const lab = await temporaryLab([{ name: 'good' }, { name: 'bad' }], { start: false });
  await writeFile(path.join(lab, 'bad', 'vm.json'), '{"version": 1, "name": "bad"');
  const host = new LabHost(lab);
  expect((await host.listVms()).map((vm) => vm.name)).toEqual(['good']);
  const errors = (await host.check()).filter((check) => check.state === 'error');
  expect(errors.map((check) => check.name)).toEqual(['machine bad']);
  await writeFile(path.join(lab, 'bad', 'vm.json'), '{"version":1,"disks":[{"layers":["../x"]}]}');
  expect((await host.check()).filter((check) => check.state === 'error')).toHaveLength(1);
});

test('a lab that is not there is said to be unreachable', async () => {
  const host = new LabHost(path.join(await temporaryFolder(), 'nowhere'));
  await expect(host.listVms()).rejects.toMatchObject({ code: 'ERR_HOST_UNREACHABLE' });
  await expect(host.info()).rejects.toMatchObject({ code: 'ERR_HOST_UNREACHABLE' });
  expect(await host.check()).toMatchObject([{ state: 'error' }]);
});
