/**
 * Goal: whatever dies, the disks end as one layer with all that was written to them, and nothing that was written is ever lost or undone.
 * Method: QEMU's own block layer with content that is known, runs that are processes of their own and are killed, and the daemon killed
 * in the middle of its work; what the disk holds is read by qemu-img.
 */

import { execFile } from 'node:child_process';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { QemuHost } from '../../../src/hosts/qemu/qemu-host.js';
import { newMark } from '../../conformance/host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { capture, plainSteps, release, startRun } from './runs.js';
import { type Setting, setStage, setting } from './setting.js';
import { contentOf, exists, StorageDaemon, waitFor, whyNoDaemon } from './storage-daemon.js';

const run = promisify(execFile);

/** Begins the merge as a run does, so slowly that it does not end before it is told to hurry. */
async function beginSlowMerge({ machine, mark }: Setting): Promise<void> {
  await machine.qmp((qmp) =>
    qmp.execute('block-commit', {
      'job-id': `${mark}.disk0`,
      device: `firn-${mark.slice(5, 25)}-0`,
      'auto-dismiss': false,
      speed: 64 * 1024,
    }),
  );
}

async function hurry({ machine, mark }: Setting): Promise<void> {
  await machine.qmp((qmp) =>
    qmp.execute('block-job-set-speed', { device: `${mark}.disk0`, speed: 0 }),
  );
}

async function jobOf({ machine }: Setting) {
  const jobs = await machine.qmp((qmp) => qmp.execute('query-jobs'));
  return (jobs as { status: string; 'current-progress': number }[])[0];
}

async function jobStatus(here: Setting): Promise<string | undefined> {
  return (await jobOf(here))?.status;
}

/** What a disk holds to which the same writes were made in one go. */
async function contentAfter(...writes: [pattern: number, offset: number, mib: number][]) {
  const file = path.join(await temporaryFolder(), 'expected.raw');
  await run('truncate', ['-s', '64M', file]);
  const commands = writes.flatMap(([pattern, offset, mib]) => [
    '-c',
    `write -P ${pattern} ${offset}M ${mib}M`,
  ]);
  await run('qemu-io', ['-f', 'raw', ...commands, file]);
  return contentOf(file, 'raw');
}

describe.skipIf(whyNoDaemon !== undefined)('a release', () => {
  test('goes on with a merge that a killed run had begun', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(7, 0, 12);
    await beginSlowMerge(here);
    const child = startRun({ root: here.root, action: 'release', mark: here.mark });
    await child.until('merge:begun');
    await sleep(100);
    await child.killed();

    expect(await jobStatus(here)).toBe('running');
    await hurry(here);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.machine.chainDepth()).toBe(1);
    expect(await here.files()).toEqual(['d0.vhdx']);
    await here.machine.stop();
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([7, 0, 12]));
  });

  test('ends well whenever the run that merges is killed', async () => {
    const here = await setting(['d0', 'd1']);
    for (let round = 0; round < 8; round++) {
      const mark = newMark();
      await capture(here.root, mark);
      await here.machine.write(round + 1, round, 20);
      const child = startRun({ root: here.root, action: 'release', mark });
      await child.until('merge:begun');
      await sleep(round * 8);
      await child.killed();
      expect(await release(here.root, mark), `round ${round}`).toBeUndefined();
      expect(await here.machine.chainDepth()).toBe(1);
      expect(await here.files()).toEqual(['d0.vhdx', 'd1.vhdx']);
    }
    await here.machine.stop();
    const writes = Array.from({ length: 8 }, (_, round): [number, number, number] => [
      round + 1,
      round,
      20,
    ]);
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter(...writes));
  }, 300_000);

  test.each(['checkpoint:begun', 'checkpoint:done'])(
    'cleans up after a capture that was killed at %s',
    async (dieAt) => {
      const here = await setting(['d0', 'd1']);
      const child = startRun({ root: here.root, action: 'capture', mark: here.mark, dieAt });
      await child.killed();
      expect(await release(here.root, here.mark)).toBeUndefined();
      expect(await here.machine.chainDepth()).toBe(1);
      expect(await here.files()).toEqual(['d0.vhdx', 'd1.vhdx']);
      expect(await new QemuHost(here.root).leftovers()).toEqual([]);
    },
  );

  test('begins again when somebody cancels the merge', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(9, 3, 8);
    await beginSlowMerge(here);
    const releasing = release(here.root, here.mark);
    await sleep(100);
    await here.machine.qmp((qmp) => qmp.execute('job-cancel', { id: `${here.mark}.disk0` }));
    expect(await releasing).toBeUndefined();
    expect(await here.files()).toEqual(['d0.vhdx']);
    await here.machine.stop();
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([9, 3, 8]));
  });

  test("merges below a layer that somebody has put on Firn's, and keeps that one", async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(1, 0, 4);
    const theirs = path.join(here.machine.folder, 'theirs.qcow2');
    await here.machine.qmp((qmp) =>
      qmp.execute('blockdev-snapshot-sync', {
        'node-name': `firn-${here.mark.slice(5, 25)}-0`,
        'snapshot-file': theirs,
        'snapshot-node-name': 'theirs',
      }),
    );
    await here.machine.write(2, 8, 4);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.machine.chainDepth()).toBe(2);
    expect(await here.files()).toEqual(['d0.vhdx', 'theirs.qcow2']);
    const vms = await new QemuHost(here.root).listVms();
    expect(vms[0]?.disks[0]?.unsupported).toContain('qcow2');
    await here.machine.stop();
    expect(await contentOf(theirs, 'qcow2')).toBe(await contentAfter([1, 0, 4], [2, 8, 4]));
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([1, 0, 4]));
  });

  test("leaves another machine's layer of the same run alone, in one folder with its own", async () => {
    const root = await temporaryFolder();
    const mark = newMark();
    const machines = [];
    for (const name of ['one', 'two']) {
      const machine = await StorageDaemon.create(path.join(root, name));
      await machine.stop();
      const disk = path.join(root, `${name}.vhdx`);
      await run('mv', [path.join(machine.folder, 'd0.vhdx'), disk]);
      await machine.start([disk]);
      onTestFinished(() => machine.stop());
      machines.push(machine);
    }
    const host = new QemuHost(root);
    const vms = await host.listVms();
    expect(vms.map((vm) => vm.name)).toEqual(['one', 'two']);
    for (const vm of vms) await captureOne(host, vm, mark);
    const [one] = vms;
    if (one === undefined) throw new Error('no machine');
    expect(await host.release([one], mark, 60_000, plainSteps)).toEqual([{ vm: one }]);
    expect(await Promise.all(machines.map((machine) => machine.chainDepth()))).toEqual([1, 2]);
    const left = await host.leftovers();
    expect(left.map((each) => [each.vm?.name, each.mark])).toEqual([['two', mark]]);
    expect(await release(root, mark)).toBeUndefined();
    expect((await readdir(root)).sort()).toEqual(['one', 'one.vhdx', 'two', 'two.vhdx']);
  });
});

async function captureOne(
  host: QemuHost,
  vm: Awaited<ReturnType<QemuHost['listVms']>>[number],
  mark: string,
): Promise<void> {
  const [outcome] = await host.capture(
    [
      {
        vm,
        policy: { wanted: 'crash', required: 'crash' },
        excludedDisks: [],
        freezeDeadlineMs: 60_000,
      },
    ],
    mark,
    plainSteps,
  );
  expect(outcome?.error).toBeUndefined();
}

describe.skipIf(whyNoDaemon !== undefined)('a release of a machine that is off', () => {
  test('merges what was written above the checkpoint', async () => {
    const here = await setting();
    await here.machine.write(1, 0, 2);
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 6);
    await here.machine.kill();
    expect((await new QemuHost(here.root).listVms()).map((vm) => vm.state)).toEqual(['off']);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.files()).toEqual(['d0.vhdx']);
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([1, 0, 2], [5, 1, 6]));
  });

  test('merges again what was merged half when it died', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 20);
    await beginSlowMerge(here);
    await setStage(here, 'merging');
    // So much is copied at once, and then nothing for minutes. dirty-log.test.ts has what is left when it dies sooner.
    await waitFor(async () => ((await jobOf(here))?.['current-progress'] ?? 0) >= 16 * 2 ** 20);
    expect(await jobStatus(here)).toBe('running');
    await here.machine.kill();
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([5, 1, 20]));
  });

  test('has nothing to merge when nothing was written', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.kill();
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.files()).toEqual(['d0.vhdx']);
  });

  test('does not undo what was written after a merge whose end nobody saw', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 4);
    await finishMergeUnseen(here);
    await here.machine.write(6, 2, 4);
    await here.machine.stop();
    const before = await contentOf(here.disk, 'vhdx');
    expect(await release(here.root, here.mark)).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      message: expect.stringContaining('out of date'),
    });
    expect(await contentOf(here.disk, 'vhdx')).toBe(before);
    expect(await exists(here.overlay)).toBe(true);
  });

  test('finds by comparing that such a merge had ended', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 4);
    await finishMergeUnseen(here);
    // The same content again: the disk is newer than the layer and yet no different.
    await here.machine.write(5, 1, 4);
    await here.machine.stop();
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.files()).toEqual(['d0.vhdx']);
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([5, 1, 4]));
  });

  test('does not merge into a disk that was used without the layer', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 4);
    await here.machine.kill();
    await here.machine.start();
    await here.machine.write(6, 2, 4);
    expect(await release(here.root, here.mark)).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      message: expect.stringContaining('runs without the layer'),
    });
    await here.machine.stop();
    const before = await contentOf(here.disk, 'vhdx');
    expect(await release(here.root, here.mark)).toMatchObject({ code: 'ERR_MERGE_FAILED' });
    expect(await contentOf(here.disk, 'vhdx')).toBe(before);
    expect(await exists(here.overlay)).toBe(true);
  });

  test('merges live once the machine was started on its layer again', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 4);
    await here.machine.kill();
    await here.machine.start([here.overlay]);
    await here.machine.write(6, 2, 4);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.machine.chainDepth()).toBe(1);
    await here.machine.stop();
    expect(await contentOf(here.disk, 'vhdx')).toBe(await contentAfter([5, 1, 4], [6, 2, 4]));
  });

  test('names the command when there is no qemu-img', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    await here.machine.write(5, 1, 4);
    await here.machine.kill();
    const { PATH } = process.env;
    process.env.PATH = '/nowhere';
    try {
      expect(await release(here.root, here.mark)).toMatchObject({
        code: 'ERR_MERGE_FAILED',
        hint: expect.stringContaining(`qemu-img commit -q -f qcow2 ${here.overlay}`),
      });
    } finally {
      process.env.PATH = PATH;
    }
    expect(await release(here.root, here.mark)).toBeUndefined();
  });

  /** The merge ends, and the run died before it saw that. */
  async function finishMergeUnseen(here: Setting): Promise<void> {
    await beginSlowMerge(here);
    await hurry(here);
    const id = `${here.mark}.disk0`;
    await waitFor(async () => (await jobStatus(here)) === 'ready');
    await setStage(here, 'completing');
    await here.machine.qmp((qmp) => qmp.execute('job-complete', { id }));
    await waitFor(async () => (await jobStatus(here)) === 'concluded');
    expect(await here.machine.chainDepth()).toBe(1);
  }
});

describe.skipIf(whyNoDaemon !== undefined)('a capture', () => {
  test('that QEMU refuses leaves no file', async () => {
    const here = await setting(['d0']);
    await here.machine.stop();
    const folder = await temporaryFolder();
    await run('cp', [here.disk, path.join(folder, 'e.vhdx')]);
    await here.machine.start([here.disk, path.join(folder, 'e.vhdx')]);
    await rm(folder, { recursive: true });
    await expect(capture(here.root, here.mark)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_FAILED',
    });
    expect(await exists(here.overlay)).toBe(false);
    expect(await here.machine.chainDepth()).toBe(1);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await here.files()).toEqual(['d0.vhdx']);
  });

  test('is not begun while the layer of another run lies on a disk', async () => {
    const here = await setting();
    await capture(here.root, here.mark);
    const other = newMark();
    await expect(capture(here.root, other)).rejects.toMatchObject({ code: 'ERR_VM_BUSY' });
    expect(await release(here.root, other)).toBeUndefined();
    expect(await here.machine.chainDepth()).toBe(2);
    expect(await release(here.root, here.mark)).toBeUndefined();
  });

  test('of a machine that is off says so', async () => {
    const here = await setting();
    await here.machine.kill();
    await expect(capture(here.root, here.mark)).rejects.toMatchObject({
      code: 'ERR_HOST_UNREACHABLE',
    });
  });

  test('leaves out a disk that Firn cannot read, and says why', async () => {
    const here = await setting(['d0']);
    await here.machine.stop();
    const folder = here.machine.folder;
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', path.join(folder, 'x.qcow2'), '8M']);
    await here.machine.start([here.disk, path.join(folder, 'x.qcow2')]);
    const [vm] = await new QemuHost(here.root).listVms();
    expect(vm?.disks.map((disk) => disk.unsupported)).toEqual([
      undefined,
      expect.stringContaining('qcow2'),
    ]);
    const captured = await capture(here.root, here.mark);
    expect(captured.disks).toEqual([{ name: 'disk0', layers: [here.disk] }]);
    expect(captured.consistency).toBe('crash');
    expect(await release(here.root, here.mark)).toBeUndefined();
  });

  test('takes a raw disk whose name says that it is one, and no other', async () => {
    const here = await setting(['d0']);
    await here.machine.stop();
    const raw = path.join(here.machine.folder, 'plain.raw');
    const unnamed = path.join(here.machine.folder, 'plain.disk');
    for (const file of [raw, unnamed]) await run('truncate', ['-s', '16M', file]);
    await here.machine.start([here.disk, raw, unnamed]);
    const [vm] = await new QemuHost(here.root).listVms();
    expect(vm?.disks.map((disk) => disk.unsupported)).toEqual([
      undefined,
      undefined,
      expect.stringContaining('does not end in .raw'),
    ]);
    const captured = await capture(here.root, here.mark);
    expect(captured.disks.map((disk) => disk.layers)).toEqual([[here.disk], [raw]]);
    const frozen = await contentOf(raw, 'raw');
    await here.machine.write(3, 2, 4, 1);
    expect(await contentOf(raw, 'raw')).toBe(frozen);
    expect(await release(here.root, here.mark)).toBeUndefined();
    await here.machine.stop();
    expect(await contentOf(raw, 'raw')).not.toBe(frozen);
  });
});
