/**
 * Goal: what the QEMU host promises is true of a machine that is alive. Method: a real Linux guest (scripts/live-guest.mjs) that writes without
 * pause to ext4 and to a second disk; its frozen disks are read with the engine while it goes on, and the referees are e2fsprogs,
 * the checksums that the guest wrote, and qemu-img. Runs with FIRN_LIVE=1 only: it needs packages and about a minute.
 */

import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ensureLiveGuest,
  type LiveGuest,
  makeGuestDisks,
  startGuest,
} from '../../scripts/live-guest.mjs';
import type { Capture } from '../../src/hosts/host.js';
import { FrozenGuest } from '../../src/hosts/qemu/freeze.js';
import { QemuHost } from '../../src/hosts/qemu/qemu-host.js';
import { GuestAgent } from '../../src/hosts/qemu/qga.js';
import { withQmp } from '../../src/hosts/qemu/qmp.js';
import { copyDisk } from '../../src/jobs/copy.js';
import { describeHost, newMark } from '../conformance/host.js';
import { temporaryFolder } from '../helpers/folder.js';
import { expectFull, expectIncremental, WitnessedRuns } from '../helpers/witnessed-run.js';
import { capture, release, startRun } from '../hosts/qemu/runs.js';
import { waitFor } from '../hosts/qemu/storage-daemon.js';

const run = promisify(execFile);

interface LiveMachine {
  root: string;
  folder: string;
  disks: string[];
  guest: LiveGuest;
}

async function startMachine(name: string): Promise<LiveMachine> {
  const root = await mkdtemp(path.join(tmpdir(), 'firn-live-'));
  const folder = path.join(root, name);
  await mkdir(folder);
  const disks = makeGuestDisks(folder);
  const guest = await startGuest({ folder, disks });
  await waitFor(async () => guest.count() > 5, 60_000);
  return { root, folder, disks, guest };
}

async function dispose({ root, guest }: LiveMachine): Promise<void> {
  await guest.kill();
  await rm(root, { recursive: true, force: true });
}

/** True as soon as the guest has written something more; false if it does not for half a minute. */
async function isWriting(guest: LiveGuest): Promise<boolean> {
  const before = guest.count();
  return waitFor(async () => guest.count() > before, 30_000).then(
    () => true,
    () => false,
  );
}

/** True once nothing more has come from the guest for a second: what it said before it stood still may be on its way. */
async function standsStill(guest: LiveGuest): Promise<boolean> {
  for (let look = 0; look < 5; look++) {
    const before = guest.count();
    await sleep(1000);
    if (guest.count() === before) return true;
  }
  return false;
}

/** Layers of the longest chain, as QEMU counts them. */
async function chainDepth({ folder }: LiveMachine): Promise<number> {
  const blocks = (await withQmp(folder, (qmp) => qmp.execute('query-block'))) as {
    inserted: { backing_file_depth: number };
  }[];
  return 1 + Math.max(...blocks.map((block) => block.inserted.backing_file_depth));
}

/** Ends the process that guards this machine's freeze: the one of ours that was given its socket. */
async function killGuard(folder: string): Promise<void> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes('freeze-guard.js') && command.includes(folder)) {
      process.kill(Number(pid), 'SIGKILL');
      return;
    }
  }
  throw new Error('no guard is there');
}

interface FileSystem {
  /** True if its journal has to be replayed. */
  needsRecovery: boolean;
  /** e2fsck's exit code when it changes nothing. */
  check: number | null;
  /** And when it mends: 0 nothing to do, 1 something mended. */
  preen: number | null;
  checkAfter: number | null;
}

function referee(tool: string, ...parameters: string[]): { status: number | null; text: string } {
  const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
  const { status, stdout, stderr } = spawnSync(tool, parameters, {
    encoding: 'utf8',
    env: { ...process.env, PATH },
  });
  return { status, text: stdout + stderr };
}

function examine(image: string): FileSystem {
  return {
    needsRecovery: referee('dumpe2fs', '-h', image).text.includes('needs_recovery'),
    check: referee('e2fsck', '-fn', image).status,
    preen: referee('e2fsck', '-fp', image).status,
    checkAfter: referee('e2fsck', '-fn', image).status,
  };
}

/** The guest's counter and how many of its records are as their names say, read out of an image with debugfs. */
async function examineFiles(
  image: string,
): Promise<{ counter: number; good: number; bad: number }> {
  const folder = await temporaryFolder();
  referee('debugfs', '-R', `rdump /w ${folder}`, image);
  referee('debugfs', '-R', `dump /counter ${folder}/counter`, image);
  let [good, bad] = [0, 0];
  for (const name of await readdir(path.join(folder, 'w'))) {
    const sum = /^r\d+\.([0-9a-f]{64})$/.exec(name)?.[1];
    if (sum === undefined) continue;
    const { stdout } = await run('sha256sum', [path.join(folder, 'w', name)]);
    if (stdout.startsWith(sum)) good++;
    else bad++;
  }
  return { counter: Number(await readFile(path.join(folder, 'counter'), 'utf8')), good, bad };
}

async function dataCounter(image: string): Promise<number> {
  const handle = await open(image, 'r');
  try {
    const { buffer } = await handle.read(Buffer.alloc(16), 0, 16, 0);
    return Number(buffer.toString('latin1'));
  } finally {
    await handle.close();
  }
}

/** Copies the frozen disks with the engine, while the machine goes on. */
async function copyFrozen(captured: Capture): Promise<{ system: string; data: string }> {
  const folder = await temporaryFolder();
  const images = { system: path.join(folder, 'system.raw'), data: path.join(folder, 'data.raw') };
  const layerOf = (name: string) => {
    const [layer, ...parents] = captured.disks.find((disk) => disk.name === name)?.layers ?? [];
    return { layer: layer ?? '', parents };
  };
  for (const [name, target] of [
    ['vd0', images.system],
    ['vd1', images.data],
  ] as const) {
    const { layer, parents } = layerOf(name);
    await copyDisk(layer, target, { source: { parents }, format: 'raw' });
  }
  return images;
}

const whyNot = process.env.FIRN_LIVE === '1' ? undefined : 'FIRN_LIVE=1 is not set';

describe.skipIf(whyNot !== undefined)('a machine that is alive', () => {
  let machine: LiveMachine;
  beforeAll(async () => {
    ensureLiveGuest();
    machine = await startMachine('alive');
  }, 300_000);
  afterAll(() => dispose(machine));

  test('frozen, gives a file system that needs no journal replayed', async () => {
    const { root, guest } = machine;
    const mark = newMark();
    const before = guest.count();
    const captured = await capture(root, mark);
    expect(captured.consistency).toBe('filesystem');
    expect(captured.frozenMs).toBeGreaterThan(0);
    expect(captured.frozenMs).toBeLessThan(60_000);
    const images = await copyFrozen(captured);
    expect(await isWriting(guest)).toBe(true);
    expect(examine(images.system)).toEqual({
      needsRecovery: false,
      check: 0,
      preen: 0,
      checkAfter: 0,
    });
    const files = await examineFiles(images.system);
    expect(files.bad).toBe(0);
    expect(files.good).toBeGreaterThan(0);
    expect(files.counter).toBeGreaterThanOrEqual(before);
    // Both disks are of one moment: the guest writes the second number right after the first.
    expect(files.counter - (await dataCounter(images.data))).toBeOneOf([0, 1]);
    expect(await release(root, mark)).toBeUndefined();
    expect(await chainDepth(machine)).toBe(1);
  });

  test('not frozen, gives one whose journal is replayed, and says that it promises no more', async () => {
    const { root, guest } = machine;
    const mark = newMark();
    const captured = await capture(root, mark, { policy: { wanted: 'crash', required: 'crash' } });
    expect(captured.consistency).toBe('crash');
    expect(captured.frozenMs).toBeUndefined();
    const images = await copyFrozen(captured);
    const state = examine(images.system);
    expect(state.needsRecovery).toBe(true);
    expect(state.preen).toBe(1);
    expect(state.checkAfter).toBe(0);
    const files = await examineFiles(images.system);
    expect(files.bad).toBe(0);
    expect(files.counter - (await dataCounter(images.data))).toBeOneOf([0, 1]);
    expect(await release(root, mark)).toBeUndefined();
    expect(await isWriting(guest)).toBe(true);
  });

  test('keeps its configuration beside it for as long as the run lasts', async () => {
    const { root } = machine;
    const mark = newMark();
    const { configuration } = await capture(root, mark);
    const [file] = configuration;
    const described = JSON.parse(await readFile(file ?? '', 'utf8'));
    expect(described.machineType).toContain('q35');
    expect(described.memory['base-memory']).toBe(256 * 1024 * 1024);
    expect(described.cpus).toHaveLength(1);
    expect(described.disks.map((disk: { name: string }) => disk.name)).toEqual(['vd0', 'vd1']);
    expect(await release(root, mark)).toBeUndefined();
  });

  test.each(['freeze:done', 'checkpoint:done', 'thaw:begun'])(
    'goes on writing when the run is killed at %s, with nobody there to help',
    async (dieAt) => {
      const { root, folder, guest } = machine;
      const mark = newMark();
      await startRun({ root, action: 'capture', mark, dieAt }).killed();
      expect(await isWriting(guest)).toBe(true);
      const agent = await GuestAgent.connect(path.join(folder, 'qga.sock'));
      expect(await agent.isFrozen()).toBe(false);
      agent.close();
      expect(await release(root, mark)).toBeUndefined();
      expect(await chainDepth(machine)).toBe(1);
    },
  );

  test('goes on writing at its deadline when the run stands still, and what is captured then promises nothing', async () => {
    const { root, guest } = machine;
    const mark = newMark();
    const freezeDeadlineMs = 15_000;
    const child = startRun({
      root,
      action: 'capture',
      mark,
      stopAt: 'freeze:done',
      freezeDeadlineMs,
    });
    await child.until('freeze:done');
    expect(await standsStill(guest)).toBe(true);
    expect(await isWriting(guest)).toBe(true);
    child.process.kill('SIGCONT');
    expect(await child.until('captured')).toBe('captured crash');
    await child.killed();
    expect(await release(root, mark)).toBeUndefined();
    expect(await chainDepth(machine)).toBe(1);
  });

  test('is thawed by the run when the guard is killed', async () => {
    const { folder, guest } = machine;
    const frozen = await FrozenGuest.freeze(
      path.join(folder, 'qga.sock'),
      60_000,
      new AbortController().signal,
    );
    expect(await standsStill(guest)).toBe(true);
    await killGuard(folder);
    expect(await standsStill(guest)).toBe(true);
    expect(await frozen.thaw()).toMatchObject({ held: true });
    expect(await isWriting(guest)).toBe(true);
  });

  test('is thawed by the release when the run and the guard are both gone', async () => {
    const { root, folder, guest } = machine;
    const mark = newMark();
    // Frozen on the account of a run whose record says so, with nobody left who would thaw.
    const captured = await capture(root, mark);
    const record = path.join(folder, `${mark}.run.json`);
    const content = JSON.parse(await readFile(record, 'utf8'));
    await writeFile(record, JSON.stringify({ ...content, freeze: 'begun' }));
    const agent = await GuestAgent.connect(path.join(folder, 'qga.sock'));
    expect(await agent.freeze(60_000)).toBeGreaterThan(0);
    agent.close();
    expect(captured.consistency).toBe('filesystem');
    const left = await new QemuHost(root).leftovers();
    expect(left.find((each) => each.kind === 'frozen-guest')?.mark).toBe(mark);
    expect(await release(root, mark)).toBeUndefined();
    expect(await isWriting(guest)).toBe(true);
  });

  test("is not frozen by Firn, nor thawed, while it stands frozen by somebody else's hand", async () => {
    const { root, folder, guest } = machine;
    const agent = await GuestAgent.connect(path.join(folder, 'qga.sock'));
    await agent.freeze(60_000);
    agent.close();
    const mark = newMark();
    try {
      const policy = { wanted: 'application', required: 'filesystem' } as const;
      await expect(capture(root, mark, { policy })).rejects.toMatchObject({
        code: 'ERR_FREEZE_FAILED',
      });
      const captured = await capture(root, newMark());
      expect(captured.consistency).toBe('crash');
      expect(captured.consistencyReason).toContain('somebody else');
      for (const { mark: left } of await new QemuHost(root).leftovers()) {
        if (left !== undefined) expect(await release(root, left)).toBeUndefined();
      }
      expect(await standsStill(guest)).toBe(true);
    } finally {
      const again = await GuestAgent.connect(path.join(folder, 'qga.sock'));
      await again.thaw();
      again.close();
    }
    expect(await isWriting(guest)).toBe(true);
  });
});

describe.skipIf(whyNot !== undefined)('a machine whose run is killed', () => {
  test('in the middle of the copy and of the merge, ends on one clean layer with all that it wrote', async () => {
    ensureLiveGuest();
    const machine = await startMachine('killed');
    try {
      const { root, guest, disks } = machine;
      for (let round = 0; round < 3; round++) {
        const mark = newMark();
        const copyTo = await temporaryFolder();
        const copying = startRun({ root, action: 'capture', mark, copyTo });
        expect(await copying.until('captured')).toBe('captured filesystem');
        await copying.until('copied vd0');
        await sleep(round * 30);
        await copying.killed();
        expect(await chainDepth(machine)).toBe(2);
        const merging = startRun({ root, action: 'release', mark });
        await merging.until('merge:begun');
        await sleep(round * 15);
        await merging.killed();
        expect(await release(root, mark)).toBeUndefined();
        expect(await chainDepth(machine)).toBe(1);
        expect(await isWriting(guest)).toBe(true);
      }
      await guest.stop();
      const last = guest.count();
      for (const disk of disks) {
        expect(referee('qemu-img', 'check', disk)).toMatchObject({ status: 0 });
      }
      const image = path.join(await temporaryFolder(), 'system.raw');
      await copyDisk(disks[0] ?? '', image, { format: 'raw' });
      expect(examine(image)).toEqual({ needsRecovery: false, check: 0, preen: 0, checkAfter: 0 });
      const files = await examineFiles(image);
      expect(files.bad).toBe(0);
      expect(files.counter).toBeGreaterThanOrEqual(last);
      expect((await readdir(machine.folder)).filter((name) => name.includes('firn-'))).toEqual([]);
    } finally {
      await dispose(machine);
    }
  }, 300_000);
});

describe.skipIf(whyNot !== undefined)('a machine that is killed above a checkpoint', () => {
  test('has all that it wrote once its layers are merged, and goes on', async () => {
    const machine = await startMachine('dead');
    let { guest } = machine;
    try {
      const { root, folder, disks } = machine;
      const mark = newMark();
      await capture(root, mark);
      const atCheckpoint = guest.count();
      await waitFor(async () => guest.count() > atCheckpoint + 5);
      await guest.kill();
      const last = guest.count();
      expect(await release(root, mark)).toBeUndefined();
      expect((await readdir(folder)).filter((name) => name.includes('firn-'))).toEqual([]);

      guest = await startGuest({ folder, disks });
      await waitFor(async () => guest.count() > last, 60_000);
      await guest.stop();
      const image = path.join(await temporaryFolder(), 'system.raw');
      await copyDisk(disks[0] ?? '', image, { format: 'raw' });
      expect(examine(image)).toEqual({ needsRecovery: false, check: 0, preen: 0, checkAfter: 0 });
      expect((await examineFiles(image)).bad).toBe(0);
    } finally {
      await guest.kill();
      await dispose(machine);
    }
  }, 300_000);
});

describe.skipIf(whyNot !== undefined)('a machine whose writes are tracked', () => {
  test('is read on top of the last point while it writes, and as a whole after QEMU was started anew', async () => {
    ensureLiveGuest();
    const machine = await startMachine('tracked');
    let { guest } = machine;
    try {
      const { root, folder, disks } = machine;
      const runs = await WitnessedRuns.open(new QemuHost(root));
      let last = await runs.run();
      expectFull(last, /no earlier point/);
      for (let round = 0; round < 3; round++) {
        const before = guest.count();
        await waitFor(async () => guest.count() > before + 3);
        // What is left out changes nothing about what is read on top of what.
        const next = await runs.run('auto', round === 1 ? 'keep' : 'skip');
        expect(next.result.consistency).toBe('filesystem');
        expectIncremental(next, last.point);
        expect(next.readings.map(({ base }) => base?.changedBytes)).not.toContain(0);
        last = next;
      }
      expect(await chainDepth(machine)).toBe(1);
      expect((await readdir(folder)).filter((name) => name.includes('firn-'))).toEqual([]);
      expect(await new QemuHost(root).tracking.references()).toHaveLength(1);

      await guest.stop();
      guest = await startGuest({ folder, disks });
      await waitFor(async () => guest.count() > 5, 60_000);
      const whole = await runs.run();
      expectFull(whole, /end with the QEMU process/);
      expectIncremental(await runs.run(), whole.point);
    } finally {
      await guest.kill();
      await dispose(machine);
    }
  }, 300_000);

  test('keeps its last good reference when a run is killed, whoever finishes it', async () => {
    ensureLiveGuest();
    const machine = await startMachine('tracked-killed');
    try {
      const { root } = machine;
      const host = new QemuHost(root);
      const runs = await WitnessedRuns.open(host);
      const first = await runs.run();
      const kept = (await host.tracking.references()).map(({ name }) => name);
      const since = [first.point.capture?.reference];
      for (const dieAt of ['checkpoint:done', 'changes:begun', 'changes:done']) {
        const mark = newMark();
        await startRun({ root, action: 'capture', mark, dieAt, since }).killed();
        expect(await release(root, mark)).toBeUndefined();
        expect(await host.leftovers()).toEqual([]);
        expect((await host.tracking.references()).map(({ name }) => name)).toEqual(kept);
      }
      expectIncremental(await runs.run(), first.point);
      expect(await chainDepth(machine)).toBe(1);
    } finally {
      await dispose(machine);
    }
  }, 300_000);
});

if (whyNot === undefined) {
  describeHost('qemu (live guest)', async () => {
    ensureLiveGuest();
    const machine = await startMachine('guest');
    return {
      host: async () => new QemuHost(machine.root),
      vms: ['guest'],
      weakVm: 'guest',
      tracking: 'auto',
      isWriting: () => isWriting(machine.guest),
      chainDepth: () => chainDepth(machine),
      dispose: () => dispose(machine),
    };
  });
} else {
  test('a live guest is tested', ({ skip }) => skip(whyNot));
}
