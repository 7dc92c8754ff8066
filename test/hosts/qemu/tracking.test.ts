/**
 * Goal: what QEMU's bitmaps are trusted for, and what they are not. Method: QEMU's storage daemon, its disks written to through NBD; whole
 * runs are proved by a full read of what they froze. What a live guest adds is in test/live.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { markOf } from '../../../src/hosts/host.js';
import { readBitmaps } from '../../../src/hosts/qemu/bitmaps.js';
import { QemuHost } from '../../../src/hosts/qemu/qemu-host.js';
import { type Reference, referenceName } from '../../../src/hosts/tracking.js';
import { newMark } from '../../conformance/host.js';
import { expectFull, expectIncremental, WitnessedRuns } from '../../helpers/witnessed-run.js';
import { capture, plainSteps } from './runs.js';
import { StorageDaemon, whyNoDaemon } from './storage-daemon.js';
import { onPath } from './tools.js';

const whyNot =
  whyNoDaemon ?? (onPath('nbdinfo') ? undefined : 'nbdinfo is not installed (Debian: libnbd-bin)');
const OWNER = '0123456789abcdef0123456789abcdef';

describe.skipIf(whyNot !== undefined)('dirty bitmaps', () => {
  let root: string;
  let machine: StorageDaemon;
  let host: QemuHost;
  beforeEach(async () => {
    root = await mkdtemp(path.join(tmpdir(), 'firn bitmaps & '));
    machine = await StorageDaemon.create(path.join(root, 'one'), ['system', 'data']);
    host = new QemuHost(root);
    await machine.write(1, 0, 8);
    await machine.write(2, 20, 3, 1);
  });
  afterEach(async () => {
    await machine.stop();
    await rm(root, { recursive: true, force: true });
  });

  const bitmaps = () => machine.qmp(readBitmaps);
  const names = async () => [...new Set((await bitmaps()).map(({ name }) => name))].sort();

  /** A capture as a run's into the repository that the tests are; then its release, sealed or not. */
  async function captureTracked(since: readonly Reference[] = []) {
    const mark = newMark();
    const name = referenceName(OWNER, mark.slice(-32));
    const captured = await capture(root, mark, { tracking: { mode: 'auto', name, since } });
    const { reference } = captured;
    if (reference === undefined) throw new Error('the capture gave no reference');
    const release = async (sealed: boolean) => {
      const [vm] = await host.listVms();
      if (vm === undefined) throw new Error('the machine is gone');
      const released = { id: vm.id, name: vm.name, ...(sealed && { advance: reference }) };
      const [outcome] = await host.release([released], mark, 60_000, plainSteps);
      return outcome?.error;
    };
    return { mark, captured, reference, release };
  }

  async function sealed(since: readonly Reference[] = []): Promise<Reference> {
    const { reference, release } = await captureTracked(since);
    expect(await release(true)).toBeUndefined();
    return reference;
  }

  const reasons = async (since: readonly Reference[]) => {
    const { captured, release } = await captureTracked(since);
    expect(await release(false)).toBeUndefined();
    return captured.disks.map(({ changes, fullReason }) => changes ?? fullReason);
  };

  test('let a run read what changed alone, while the guest writes and when it has written nothing', async () => {
    const runs = await WitnessedRuns.open(host);
    const first = await runs.run();
    expectFull(first, /no earlier point/);
    await machine.write(3, 4, 1);
    await machine.write(4, 40, 2, 1);
    const second = await runs.run();
    expectIncremental(second, first.point);
    await machine.startWriting();
    const third = await runs.run();
    expectIncremental(third, second.point);
    const fourth = await runs.run();
    expectIncremental(fourth, third.point);
    await machine.stopWriting();
    const fifth = await runs.run();
    const sixth = await runs.run();
    expectIncremental(sixth, fifth.point);
    expect(sixth.readings.map(({ base }) => base?.changedBytes)).toEqual([0, 0]);
    expect(await names()).toHaveLength(1);
  });

  test('hold what was written while the layer stood, which the merge brings below', async () => {
    const first = await captureTracked();
    await machine.write(7, 50, 1);
    expect(await first.release(true)).toBeUndefined();
    const next = await captureTracked([first.reference]);
    expect(next.captured.disks[0]?.changes).toEqual({
      kind: 'ranges',
      ranges: [[50 * 2 ** 20, 2 ** 20]],
    });
    expect(next.captured.disks[1]?.changes).toEqual({ kind: 'ranges', ranges: [] });
    expect(await next.release(false)).toBeUndefined();
  });

  test('go on from the last sealed point over runs that sealed none', async () => {
    const first = await sealed();
    for (const place of [10, 20, 30]) {
      await machine.write(5, place, 1);
      const failed = await captureTracked([first]);
      await machine.write(6, place + 5, 1);
      expect(await failed.release(false)).toBeUndefined();
    }
    const next = await captureTracked([first]);
    expect(next.captured.disks[0]?.changes).toEqual({
      kind: 'ranges',
      ranges: [10, 15, 20, 25, 30, 35].map((place) => [place * 2 ** 20, 2 ** 20]),
    });
    expect(await next.release(true)).toBeUndefined();
    expect(await names()).toEqual([next.reference.name]);
  });

  test("end with QEMU's process, and the disks are read as a whole then", async () => {
    const runs = await WitnessedRuns.open(host);
    await runs.run();
    await machine.stop();
    await machine.start();
    const second = await runs.run();
    expectFull(second, /end with the QEMU process/);
    expectIncremental(await runs.run(), second.point);
  });

  test('are of no use after they were removed, switched off, or held by somebody, on that disk alone', async () => {
    const first = await sealed();
    const whole = { kind: 'ranges', ranges: [] };
    const bitmap = { node: 'n0', name: first.name };
    await machine.qmp((qmp) => qmp.execute('block-dirty-bitmap-disable', bitmap));
    expect(await reasons([first])).toEqual(['its bitmap was switched off', whole]);
    await machine.qmp((qmp) => qmp.execute('block-dirty-bitmap-remove', bitmap));
    expect(await reasons([first])).toEqual(['its bitmap is gone', whole]);
    const second = await sealed([first]);
    await machine.qmp((qmp) =>
      qmp.execute('block-export-add', {
        type: 'nbd',
        id: 'theirs',
        name: 'theirs',
        'node-name': 'n0',
        writable: true,
        bitmaps: [second.name],
      }),
    );
    const [vm] = await host.listVms();
    await expect(
      host.tracking.drop(vm ?? { id: '', name: '' }, second.name, 1000),
    ).rejects.toMatchObject({ code: 'ERR_VM_BUSY' });
  });

  test('say nothing about a disk that had another size, or was another file', async () => {
    const first = await sealed();
    const disks = JSON.parse(JSON.stringify(first.disks)) as Record<
      string,
      { file: string; sizeBytes: number }
    >;
    if (disks.disk0 === undefined || disks.disk1 === undefined) throw new Error('two disks');
    disks.disk0.sizeBytes -= 512;
    disks.disk1.file = path.join(root, 'other.vhdx');
    expect(await reasons([{ ...first, disks }])).toEqual([
      `it had ${64 * 2 ** 20 - 512} bytes then, and has ${64 * 2 ** 20} now`,
      'the reference is of another file',
    ]);
  });

  test("of others are neither used nor touched, whatever Firn's own come to", async () => {
    const theirs = ['backup-7', 'firn', markOf('f'.repeat(32)).slice(0, -1)];
    await machine.qmp(async (qmp) => {
      for (const name of theirs) {
        await qmp.execute('block-dirty-bitmap-add', { node: 'n0', name, granularity: 512 });
      }
    });
    const first = await sealed();
    expect(await names()).toEqual([...theirs, first.name].sort());
    const second = await sealed([first]);
    const forged = { ...second, name: 'backup-7' };
    expect((await reasons([forged])).map(String)).toEqual([
      expect.stringContaining('are gone'),
      expect.stringContaining('are gone'),
    ]);
    expect(await names()).toEqual([...theirs, second.name].sort());
    const [vm] = await host.listVms();
    await expect(
      host.tracking.drop(vm ?? { id: '', name: '' }, 'backup-7', 1000),
    ).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' });
  });

  test('of a dead run show as left over and go with its mark, its exports too', async () => {
    const first = await sealed();
    const { mark, release } = await captureTracked([first]);
    await machine.qmp((qmp) =>
      qmp.execute('block-export-add', {
        type: 'nbd',
        id: `${mark}.disk0`,
        name: `${mark}.disk0`,
        'node-name': 'n0',
        writable: false,
        bitmaps: [first.name],
      }),
    );
    const left = (await host.leftovers()).filter(({ kind }) => kind === 'bitmap');
    expect(left.map((each) => [each.name, each.mark])).toEqual([
      [mark, mark],
      [mark, mark],
    ]);
    // Its export is no disk of the machine's.
    expect((await host.listVms())[0]?.disks.map(({ name }) => name)).toEqual(['disk0', 'disk1']);
    expect(await release(false)).toBeUndefined();
    expect(await names()).toEqual([first.name]);
    expect(await host.leftovers()).toEqual([]);
  });

  test('are made, and not read, where nbdinfo is missing: the capture stands and says so', async () => {
    const first = await sealed();
    const { PATH } = process.env;
    process.env.PATH = root;
    try {
      const { captured, release } = await captureTracked([first]);
      process.env.PATH = PATH;
      for (const { changes, fullReason } of captured.disks) {
        expect(changes).toBeUndefined();
        expect(fullReason).toContain('libnbd-bin');
      }
      expect(await release(true)).toBeUndefined();
    } finally {
      process.env.PATH = PATH;
    }
    expect(await names()).toHaveLength(1);
  });
});

if (whyNot !== undefined) test('dirty bitmaps are tested', ({ skip }) => skip(whyNot));
