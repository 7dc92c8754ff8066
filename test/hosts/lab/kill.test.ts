/**
 * Goal: whatever process dies, and whenever, one release by a new process leaves every machine on one layer, with a guest that is whole. Method:
 * real processes that are killed: the machine's while it writes and while it merges, the run's at each of its journal entries, and both at
 * once, as when the host dies.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import {
  checkGuestImages,
  clearFaults,
  type GuestVerdict,
  killVm,
  labStatus,
  labVm,
  setFault,
  startLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { captureOf, newMark, recordSteps } from '../../conformance/host.js';
import { expectSound } from './images.js';
import { isWriting, makeLab, temporaryLab, until } from './lab-fixture.js';

/** The verdict on a machine that is off, whose images the engine finds sound. */
async function verdictOn(lab: string, vm: string): Promise<GuestVerdict> {
  const { disks } = await labVm(lab, vm);
  const tops = disks.map((disk) => disk.layers[0] ?? '');
  for (const top of tops) await expectSound(top);
  return checkGuestImages(tops);
}

async function depthsOf(lab: string): Promise<number[]> {
  const { vms } = await labStatus(lab);
  return vms.flatMap((vm) => vm.disks.map((disk) => disk.layers.length));
}

async function captureAll(lab: string, mark: string): Promise<void> {
  const host = new LabHost(lab);
  for (const vm of await host.listVms()) {
    const policy = { wanted: 'application', required: 'crash' } as const;
    const request = { vm, policy, excludedDisks: [], freezeDeadlineMs: 3000 };
    captureOf((await host.capture([request], mark, recordSteps()))[0]);
  }
}

async function releaseAll(lab: string, mark: string, deadlineMs = 20_000) {
  const host = new LabHost(lab);
  const outcomes = await host.release(await host.listVms(), mark, deadlineMs, recordSteps());
  return outcomes.map((outcome) => outcome.error).filter((error) => error !== undefined);
}

describe('a machine whose process is killed', () => {
  test('while it writes has lost nothing that counts, and its guest goes on after a replay', async () => {
    const lab = await temporaryLab([{ name: 'vm', disks: 2, writesPerSecond: 300 }]);
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
  });

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
  });
});

// --- Runs that die ---

const RUN_MAIN = fileURLToPath(new URL('./run-main.mjs', import.meta.url));

async function runAndDie(
  lab: string,
  mark: string,
): Promise<{ signal: NodeJS.Signals | null; output: string }> {
  const child = spawn(process.execPath, [RUN_MAIN, lab, mark], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await once(child, 'close');
  return { signal: child.signalCode, output };
}

test('a run that is killed at any journal entry leaves what one release puts right', async () => {
  const { lab, remove } = await makeLab([{ name: 'vm', disks: 2 }]);
  try {
    let deaths = 0;
    for (let step = 1; ; step++) {
      const mark = newMark();
      await setFault(lab, { name: 'firn-dies', step, once: true });
      const { signal, output } = await runAndDie(lab, mark);
      if (signal === null) {
        expect(output).toContain('released');
        break;
      }
      deaths++;
      expect(signal).toBe('SIGKILL');
      expect(await releaseAll(lab, mark)).toEqual([]);
      expect(await depthsOf(lab)).toEqual([1, 1]);
      expect(await new LabHost(lab).leftovers()).toEqual([]);
      expect(await isWriting(lab, 'vm')).toBe(true);
    }
    // Freeze, checkpoint, thaw, merge, confirm: each begun and done.
    expect(deaths).toBe(10);
  } finally {
    await remove();
  }
});

test('a host that dies at any journal entry comes up with machines that one release puts right', async () => {
  const { lab, remove } = await makeLab([{ name: 'first' }, { name: 'second', disks: 2 }]);
  try {
    for (const step of [2, 3, 4, 7, 10, 14, 17]) {
      const mark = newMark();
      await setFault(lab, { name: 'host-dies', step, once: true });
      const { signal, output } = await runAndDie(lab, mark);
      expect(signal, output).toBe('SIGKILL');
      const dead = (await labStatus(lab)).vms;
      expect(dead.map((vm) => [vm.state, vm.unclean])).toEqual([
        ['off', true],
        ['off', true],
      ]);
      // Some are put right while they are off, some after they have been started.
      const early = step % 2 === 0;
      if (!early) await startLab(lab);
      expect(await releaseAll(lab, mark)).toEqual([]);
      expect(await depthsOf(lab)).toEqual([1, 1, 1]);
      expect(await new LabHost(lab).leftovers()).toEqual([]);
      if (early) {
        for (const name of ['first', 'second']) {
          expect((await verdictOn(lab, name)).problems).toEqual([]);
        }
      }
      await startLab(lab);
      expect(await isWriting(lab, 'first')).toBe(true);
      expect(await isWriting(lab, 'second')).toBe(true);
    }
  } finally {
    await remove();
  }
});
