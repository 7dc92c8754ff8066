/**
 * Goal: a checkpoint or a merge that dies between any two of its system calls leaves a machine that the next owner puts right. Method: a real
 * machine on files; in a loop, the nth call that changes a file fails, and so does every later one, as if the process had been killed
 * there; then the machine is opened again, its disks are read by the engine and checked, and the work is done once more.
 */

import fs, { cpSync, readdirSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { loadEngine } from '../../../src/engine/engine.js';
import { Guest } from '../../../src/hosts/lab/guest.js';
import { checkGuestImages } from '../../../src/hosts/lab/lab.js';
import { findChanges, TRACKING_METHOD } from '../../../src/hosts/lab/lab-tracking.js';
import { Machine } from '../../../src/hosts/lab/machine.js';
import { layerPaths, markedFiles, readVmFile } from '../../../src/hosts/lab/vm-file.js';
import { referenceName } from '../../../src/hosts/tracking.js';
import { newMark } from '../../conformance/host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { expectSound, MIB } from './images.js';
import { makeLab } from './lab-fixture.js';

const hold = <Result>(work: () => Promise<Result>) => work();
const never = new AbortController().signal;
const mark = newMark();

// Every way in which the machine's code changes a file.
const CHANGES = [
  'writeSync',
  'writeFileSync',
  'ftruncateSync',
  'fsyncSync',
  'fdatasyncSync',
  'renameSync',
  'rmSync',
] as const;

class Death extends Error {}

/** Runs `work` in which the changes of files from the `count`th on fail. True if it died. */
async function dyingAt(count: number, work: () => Promise<unknown>): Promise<boolean> {
  let left = count;
  const real = new Map<string, unknown>();
  const table = fs as unknown as Record<string, unknown>;
  for (const name of CHANGES) {
    const original = fs[name] as (...parameters: unknown[]) => unknown;
    real.set(name, original);
    table[name] = (...parameters: unknown[]) => {
      left--;
      if (left < 0) throw new Death(`dead before ${name}`);
      return original(...parameters);
    };
  }
  syncBuiltinESMExports();
  try {
    await work();
    return false;
  } catch (error) {
    if (left >= 0) throw error;
    return true;
  } finally {
    for (const [name, original] of real) table[name] = original;
    syncBuiltinESMExports();
  }
}

function tinyGuest(machine: Machine): Guest {
  return new Guest(machine.chains, { writesPerSecond: 5000, compressible: 0.5 });
}

// The guest works for a moment, and is left as a power cut leaves it.
async function work(machine: Machine): Promise<void> {
  const guest = tinyGuest(machine);
  guest.start();
  const goal = guest.generation + 4;
  while (guest.generation < goal) await new Promise((resolve) => setTimeout(resolve, 5));
  // It stands still from here on, and was not brought to rest.
  guest.freeze('crash', 'end', 2 ** 30);
  for (const chain of machine.chains) chain.flush();
}

async function contentHolds(folder: string): Promise<number> {
  const vm = readVmFile(folder);
  const images = vm.disks.map((disk) => layerPaths(folder, disk)[0] ?? '');
  for (const image of images) await expectSound(image);
  const verdict = await checkGuestImages(images);
  expect(verdict.problems).toEqual([]);
  return verdict.generation;
}

/** What a capture would be told now of each disk; the machine is left as it was. */
async function changedSince(
  folder: string,
  reference: string,
  disks: Readonly<Record<string, { linkage: string }>>,
): Promise<[number, number][][]> {
  const machine = Machine.open(folder);
  try {
    const made = await machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
    const since = [{ name: reference, method: TRACKING_METHOD, disks }];
    const request = { mode: 'auto', name: '', since } as const;
    const { changes } = findChanges(machine.vm, made, request);
    const found: [number, number][][] = [];
    for (const { name, layers } of made.disks) {
      const answer = changes.get(name);
      if (answer?.changes?.kind !== 'layers') throw new Error(`${name}: ${answer?.fullReason}`);
      const { count, baseLinkage } = answer.changes;
      const [top = '', ...parents] = layers;
      const open = { parentFolders: [], parents, format: '' as const };
      found.push((await loadEngine().layerChanges(top, open, count, baseLinkage)).ranges);
    }
    return found;
  } finally {
    await machine.merge(mark, never);
    machine.close();
  }
}

describe('a machine with two disks', { timeout: 300_000 }, () => {
  let template: string;
  beforeAll(async () => {
    const { lab, remove } = await makeLab(
      [{ name: 'vm', disks: 2, sizeBytes: 16 * MIB, dataBytes: MIB, blockBytes: MIB }],
      { start: false },
    );
    template = path.join(lab, 'vm');
    return remove;
  });

  /** A fresh copy of the machine, after `prepare`. */
  async function prepared(prepare: (machine: Machine) => Promise<void>): Promise<string> {
    const folder = path.join(await temporaryFolder(), 'prepared');
    cpSync(template, folder, { recursive: true });
    const machine = Machine.open(folder);
    await prepare(machine);
    machine.close();
    return folder;
  }

  /** Lets `work` die at each of its changes in turn, on a copy of the folder each time, and hands the copy to `after`. */
  async function everyDeath(
    source: string,
    task: (machine: Machine) => Promise<unknown>,
    after: (folder: string, died: boolean) => Promise<void>,
    stride: number,
  ): Promise<number> {
    const folder = path.join(path.dirname(source), 'copy');
    let died = true;
    let count = Math.floor(Math.random() * stride);
    let deaths = 0;
    for (; died; count += stride) {
      cpSync(source, folder, { recursive: true });
      const machine = Machine.open(folder);
      died = await dyingAt(count, () => task(machine));
      machine.close();
      await after(folder, died);
      rmSync(folder, { recursive: true });
      if (died) deaths++;
    }
    return deaths;
  }

  test('a checkpoint that dies at any moment is there wholly or not at all', async () => {
    const source = await prepared(work);
    const generation = await contentHolds(source);
    const deaths = await everyDeath(
      source,
      (machine) => machine.checkpoint({ name: mark, kind: 'recovery' }, hold),
      async (folder, died) => {
        const machine = Machine.open(folder);
        const depths = machine.chains.map((chain) => chain.paths.length);
        expect(new Set(depths).size).toBe(1);
        const made = machine.vm.checkpoints.length === 1;
        if (!died) expect(made).toBe(true);
        expect(depths[0]).toBe(made ? 2 : 1);
        expect(markedFiles(folder)).toHaveLength(made ? 3 : 0);
        expect(await machine.merge(mark, never)).toBe(made);
        machine.close();
        expect(markedFiles(folder)).toEqual([]);
        Machine.open(folder).close();
        expect(readdirSync(folder).sort()).toEqual(['scsi-0-0.vhdx', 'scsi-0-1.vhdx', 'vm.json']);
        expect(await contentHolds(folder)).toBe(generation);
      },
      1,
    );
    expect(deaths).toBeGreaterThan(10);
  });

  test.each(['top', 'middle'])(
    'a merge of a %s layer that dies at any moment is completed by the next',
    async (where) => {
      const source = await prepared(async (machine) => {
        await work(machine);
        await machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
        await work(machine);
        if (where === 'top') return;
        await machine.checkpoint({ name: 'of a user', kind: 'user' }, hold);
        await work(machine);
      });
      const generation = await contentHolds(source);
      const depth = where === 'top' ? 1 : 2;
      const deaths = await everyDeath(
        source,
        (machine) => machine.merge(mark, never),
        async (folder) => {
          expect(await contentHolds(folder)).toBe(generation);
          const machine = Machine.open(folder);
          await machine.merge(mark, never);
          expect(machine.chains.map((chain) => chain.paths.length)).toEqual([depth, depth]);
          expect(markedFiles(folder)).toEqual([]);
          await work(machine);
          machine.close();
          expect(await contentHolds(folder)).toBeGreaterThan(generation);
        },
        5,
      );
      expect(deaths).toBeGreaterThan(3);
    },
  );

  test("a checkpoint whose keeping dies at any moment is the run's still, or is kept", async () => {
    const reference = referenceName('0'.repeat(32), '1'.repeat(32));
    const source = await prepared(async (machine) => {
      await work(machine);
      await machine.checkpoint({ name: mark, kind: 'recovery', reference }, hold);
    });
    const deaths = await everyDeath(
      source,
      (machine) => machine.keep(mark, reference),
      async (folder, died) => {
        const machine = Machine.open(folder);
        const [{ name, kind } = { name: '', kind: '' }] = machine.vm.checkpoints;
        expect([name, kind]).toEqual(
          name === mark && died ? [mark, 'recovery'] : [reference, 'reference'],
        );
        expect(await machine.keep(mark, reference)).toBe(true);
        expect(await machine.keep(mark, reference)).toBe(true);
        machine.close();
        expect(markedFiles(folder)).toEqual([]);
      },
      1,
    );
    expect(deaths).toBeGreaterThan(3);
  });

  test('a reference tells what changed through every death of a merge below it', async () => {
    const [older, newer] = ['1', '2'].map((run) => referenceName('0'.repeat(32), run.repeat(32)));
    if (older === undefined || newer === undefined) throw new Error('two names were made');
    const linkages: Record<string, { linkage: string }> = {};
    const source = await prepared(async (machine) => {
      for (const reference of [older, newer]) {
        await work(machine);
        const made = await machine.checkpoint({ name: mark, kind: 'recovery', reference }, hold);
        for (const { name, linkage } of made.disks) linkages[name] = { linkage };
        await machine.keep(mark, reference);
      }
      await work(machine);
    });
    const before = await changedSince(source, newer, linkages);
    expect(before.flat().length).toBeGreaterThan(0);
    const deaths = await everyDeath(
      source,
      (machine) => machine.merge(older, never),
      async (folder) => {
        expect(await changedSince(folder, newer, linkages)).toEqual(before);
        const machine = Machine.open(folder);
        await machine.merge(older, never);
        expect(machine.chains.map((chain) => chain.paths.length)).toEqual([2, 2]);
        machine.close();
        expect(await changedSince(folder, newer, linkages)).toEqual(before);
      },
      5,
    );
    expect(deaths).toBeGreaterThan(3);
  });

  test('a checkpoint that fails for one disk is undone for all, and the guest goes on', async () => {
    const folder = await prepared(work);
    const machine = Machine.open(folder);
    const lastLook = () => {
      throw new Error('at the last moment');
    };
    const request = { name: mark, kind: 'recovery' } as const;
    await expect(machine.checkpoint(request, hold, lastLook)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_FAILED',
    });
    expect(markedFiles(folder)).toEqual([]);
    await work(machine);
    machine.close();
    await contentHolds(folder);
  });

  test('a checkpoint whose record cannot be written is undone on the open disks too', async () => {
    const folder = await prepared(work);
    const machine = Machine.open(folder);
    const { renameSync } = fs;
    let left = 3; // the record with the names, the configuration, and the record that switches
    fs.renameSync = (from, to) => {
      left--;
      if (left === 0) throw Object.assign(new Error('no room'), { code: 'ENOSPC' });
      renameSync(from, to);
    };
    syncBuiltinESMExports();
    try {
      const checkpoint = machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
      await expect(checkpoint).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    } finally {
      fs.renameSync = renameSync;
      syncBuiltinESMExports();
    }
    expect(left).toBeLessThan(0);
    expect(machine.chains.map((chain) => chain.paths.length)).toEqual([1, 1]);
    expect(markedFiles(folder)).toEqual([]);
    await work(machine);
    machine.close();
    await contentHolds(folder);
  });

  test('a merge below the checkpoint of another run is refused until that is merged', async () => {
    const folder = await prepared(work);
    const machine = Machine.open(folder);
    const other = newMark();
    await machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
    await machine.checkpoint({ name: other, kind: 'recovery' }, hold);
    await expect(machine.merge(mark, never)).rejects.toMatchObject({ code: 'ERR_VM_BUSY' });
    expect(await machine.merge(other, never)).toBe(true);
    expect(await machine.merge(mark, never)).toBe(true);
    machine.close();
    await contentHolds(folder);
  });

  test('a merge is given up only when everyone who waits for it has', async () => {
    const folder = await prepared(async (machine) => {
      await machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
      await work(machine);
    });
    const machine = Machine.open(folder);
    const [impatient, patient] = [new AbortController(), new AbortController()];
    const merges = [machine.merge(mark, impatient.signal), machine.merge(mark, patient.signal)];
    impatient.abort();
    expect(await Promise.all(merges)).toEqual([true, true]);
    await machine.checkpoint({ name: mark, kind: 'recovery' }, hold);
    await work(machine);
    const alone = new AbortController();
    const merge = machine.merge(mark, alone.signal);
    alone.abort();
    // Who comes while it is being given up is not given up with it.
    const next = machine.merge(mark, never);
    await expect(merge).rejects.toMatchObject({ code: 'ERR_MERGE_FAILED' });
    expect(await next).toBe(true);
    machine.close();
    await contentHolds(folder);
  });
});
