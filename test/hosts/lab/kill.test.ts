/**
 * Goal: a machine whose process dies, whenever that is, is whole afterwards, and one release leaves it on one layer. Method: real processes that
 * are killed while they write and while they merge.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  clearFaults,
  killVm,
  labVm,
  setFault,
  startLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { newMark } from '../../conformance/host.js';
import {
  captureAll,
  depthsOf,
  isWriting,
  releaseAll,
  temporaryLab,
  until,
  verdictOn,
} from './lab-fixture.js';

describe('a machine whose process is killed', () => {
  test('while it writes has lost nothing that counts, and its guest goes on after a replay', async () => {
    const lab = await temporaryLab([{ name: 'vm', disks: 2, writesPerSecond: 300 }]);
    // Before its first write there is nothing to replay.
    expect(await isWriting(lab, 'vm')).toBe(true);
    let generation = 0;
    for (let round = 0; round < 6; round++) {
      if (round === 2) await userCheckpoint(lab, 'vm', { name: 'of a user' });
      await sleep(Math.random() * 120);
      const reached = (await labVm(lab, 'vm')).generation ?? 0;
      await killVm(lab, 'vm');
      expect(await labVm(lab, 'vm')).toMatchObject({ state: 'off', unclean: true });
      const verdict = await verdictOn(lab, 'vm');
      expect(verdict).toMatchObject({ recoveryNeeded: true, problems: [], missingDisks: 0 });
      expect(verdict.generation).toBeGreaterThanOrEqual(Math.max(reached, generation));
      generation = verdict.generation;
      expect(await startLab(lab)).toEqual([{ name: 'vm' }]);
      expect(await isWriting(lab, 'vm')).toBe(true);
    }
    expect((await labVm(lab, 'vm')).checkpoints.map(({ name }) => name)).toEqual(['of a user']);
  }, 300_000);

  test('is captured for what it is worth then', async () => {
    const lab = await temporaryLab([{ name: 'vm' }]);
    await killVm(lab, 'vm');
    const host = new LabHost(lab);
    const [vm] = await host.listVms();
    expect(vm).toMatchObject({ state: 'off', reachable: 'crash' });
    expect(vm?.reachableReason).toContain('died');
  });

  test('while it merges: the release goes on with its files, and so does the guest', async () => {
    const lab = await temporaryLab([{ name: 'vm', disks: 2, writesPerSecond: 400 }]);
    for (let round = 0; round < 4; round++) {
      const mark = newMark();
      await captureAll(lab, mark);
      await sleep(300);
      // Even rounds are killed in the middle for certain, odd ones at any moment.
      if (round % 2 === 0) await setFault(lab, { name: 'merge-stalls' });
      const released = releaseAll(lab, mark);
      if (round % 2 === 0) await until(async () => (await labVm(lab, 'vm')).merging === mark);
      await sleep(Math.random() * 60);
      await killVm(lab, 'vm');
      await clearFaults(lab);
      expect(await released).toEqual([]);
      expect(await depthsOf(lab)).toEqual([1, 1]);
      expect((await verdictOn(lab, 'vm')).problems).toEqual([]);
      await startLab(lab);
      expect(await isWriting(lab, 'vm')).toBe(true);
      expect(await new LabHost(lab).leftovers()).toEqual([]);
    }
  }, 300_000);
});
