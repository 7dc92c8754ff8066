/** Recovery checkpoints, from Windows Server 2016 on: what is promised, what goes wrong, and what is found again after a death. */

import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import {
  type CaptureOutcome,
  type ConsistencyPolicy,
  runOfMark,
  type Steps,
} from '../../../src/hosts/host.js';
import type { HypervHost } from '../../../src/hosts/hyperv/hyperv-host.js';
import { captureOf, newMark } from '../../conformance/host-bench.js';
import { diskContent } from '../../helpers/disks.js';
import { BUILD, describeWithPowerShell, Lane, PLAIN_STEPS } from './lane.js';
import { contentOf, topOf } from './standin/layers.js';
import { endCheckpoint, STATUS } from './standin/machines.js';

/** A promise, and what fulfils it. */
function gate(): { opened: Promise<void>; open: () => void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

const LEAST: ConsistencyPolicy = { wanted: 'application', required: 'crash' };
const MOST: ConsistencyPolicy = { wanted: 'application', required: 'application' };

describeWithPowerShell('recovery checkpoints', () => {
  let lane: Lane;
  let host: HypervHost;
  beforeAll(async () => {
    lane = await Lane.open(BUILD.server2016, [
      { name: 'app' },
      { name: 'bare', guest: 'none' },
      { name: 'off', state: 'Off', guest: 'none' },
    ]);
    host = lane.host();
  });
  afterEach(async () => {
    const { hypervisor } = lane;
    Object.assign(hypervisor.faults, {
      guestVssFails: undefined,
      checkpointFails: undefined,
      jobWarns: undefined,
      mergeStalls: undefined,
      mergeFails: undefined,
      renameFails: false,
      slowJobMs: undefined,
      mergeLateMs: undefined,
      jobHeld: undefined,
      answerHeld: undefined,
      settingsListed: undefined,
      mergeEvents: [],
    });
    hypervisor.faults.cmdletFails.clear();
    hypervisor.faults.cmdletCalled.clear();
    await hypervisor.settle();
    for (const machine of hypervisor.machines) {
      for (const checkpoint of [...machine.checkpoints]) await endCheckpoint(machine, checkpoint);
    }
    await rm(capturesFolder(), { recursive: true, force: true });
    hypervisor.asked.length = 0;
    hypervisor.destroyed.length = 0;
  });
  afterAll(() => lane.close());

  async function capture(
    name: string,
    { policy = LEAST, mark = newMark(), steps = PLAIN_STEPS, freezeDeadlineMs = 5000 } = {},
  ): Promise<CaptureOutcome> {
    const vm = (await host.listVms()).find((candidate) => candidate.name === name);
    if (vm === undefined) throw new Error(`the host does not list ${name}`);
    const request = { vm, policy, excludedDisks: [], freezeDeadlineMs };
    const [outcome] = await host.capture([request], mark, steps);
    if (outcome === undefined) throw new Error('there is no outcome');
    return outcome;
  }

  async function release(name: string, mark: string, deadlineMs = 60_000, from = host) {
    const { id } = lane.hypervisor.machine(name);
    const [outcome] = await from.release([{ id, name }], mark, deadlineMs, PLAIN_STEPS);
    return outcome?.error;
  }

  function capturesFolder(): string {
    return path.join(lane.hypervisor.folder, 'ProgramData', 'Firn', 'captures');
  }

  const claims = () => readdir(capturesFolder()).catch(() => []);

  /** Ends the machine's first checkpoint by another hand than Firn's. */
  async function endFirstCheckpoint(): Promise<void> {
    const machine = lane.hypervisor.machine('app');
    const [checkpoint] = machine.checkpoints;
    if (checkpoint === undefined) throw new Error('it has a checkpoint');
    await endCheckpoint(machine, checkpoint);
  }

  test('freeze the content of the disks, and give it back with what was written since', async () => {
    const [disk] = lane.hypervisor.machine('app').disks;
    if (disk === undefined) throw new Error('it has a disk');
    const before = contentOf(disk, topOf(disk));
    const mark = newMark();
    const { disks } = captureOf(await capture('app', { mark }));
    const [top = '', ...parents] = disks[0]?.layers ?? [];
    expect((await diskContent(top, parents)).equals(before)).toBe(true);
    const written = contentOf(disk, topOf(disk));
    expect(written.equals(before)).toBe(false);
    expect(await release('app', mark)).toBeUndefined();
    expect((await diskContent(disk.chain[0]?.path ?? '')).equals(written)).toBe(true);
    expect(await claims()).toEqual([]);
  });

  test('give the whole chain when the user has checkpoints', async () => {
    await lane.hypervisor.userCheckpoint('app');
    await lane.hypervisor.userCheckpoint('app');
    const [disk] = lane.hypervisor.machine('app').disks;
    if (disk === undefined) throw new Error('it has a disk');
    const before = contentOf(disk, topOf(disk));
    const mark = newMark();
    const { disks } = captureOf(await capture('app', { mark }));
    const [top = '', ...parents] = disks[0]?.layers ?? [];
    expect(parents).toHaveLength(2);
    expect((await diskContent(top, parents)).equals(before)).toBe(true);
    expect(await release('app', mark)).toBeUndefined();
    expect(lane.hypervisor.depth('app')).toBe(3);
  });

  describe('what they promise', () => {
    test('is what the guest promised', async () => {
      const { consistency, consistencyReason } = captureOf(await capture('app'));
      expect([consistency, consistencyReason]).toEqual(['application', undefined]);
      expect(lane.hypervisor.asked.map(({ level }) => level)).toEqual([1]);
    });

    test('is crash consistency when guest VSS fails and the policy allows, with the reason', async () => {
      lane.hypervisor.faults.guestVssFails = 'app';
      const mark = newMark();
      const outcome = captureOf(await capture('app', { mark }));
      expect(outcome.consistency).toBe('crash');
      expect(outcome.consistencyReason).toContain('VSS im Gast (0x80070539)');
      expect(lane.hypervisor.asked.map(({ level }) => level)).toEqual([1, 2]);
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(1);
      expect(await release('app', mark)).toBeUndefined();
    });

    test('is nothing when guest VSS fails and the policy does not allow less', async () => {
      lane.hypervisor.faults.guestVssFails = 'app';
      const outcome = await capture('app', { policy: MOST });
      expect(outcome.error?.code).toBe('ERR_FREEZE_FAILED');
      expect(outcome.error?.message).toContain('VSS im Gast');
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(0);
    });

    test('is less when the job ends with warnings', async () => {
      lane.hypervisor.faults.jobWarns = 'app';
      const mark = newMark();
      const outcome = captureOf(await capture('app', { mark }));
      expect(outcome.consistency).toBe('crash');
      expect(outcome.consistencyReason).toContain('Ein Datenträger wurde ausgelassen.');
      await release('app', mark);
      const refused = await capture('app', { policy: MOST, mark });
      expect(refused.error?.code).toBe('ERR_CONSISTENCY');
      expect(await release('app', mark)).toBeUndefined();
    });

    test('is everything for a machine that is off, without asking a guest', async () => {
      const { consistency } = captureOf(await capture('off', { policy: MOST }));
      expect(consistency).toBe('application');
      expect(lane.hypervisor.asked.map(({ level }) => level)).toEqual([2]);
    });

    test('is nothing for a machine that was switched on between the list and the checkpoint', async () => {
      const machine = lane.hypervisor.machine('off');
      const steps: Steps = {
        run: (vm, step, options, work) => {
          machine.state = 'Running';
          return PLAIN_STEPS.run(vm, step, options, work);
        },
      };
      try {
        const outcome = await capture('off', { policy: MOST, steps });
        expect(outcome.error?.code).toBe('ERR_CONSISTENCY');
      } finally {
        machine.state = 'Off';
      }
    });

    test('is nothing, and nothing is tried, when the guest has no backup service and more is required', async () => {
      const outcome = await capture('bare', { policy: MOST });
      expect(outcome.error?.code).toBe('ERR_CONSISTENCY');
      expect(outcome.error?.message).toContain('integration service');
      expect(lane.hypervisor.asked).toEqual([]);
    });
  });

  describe('of others', () => {
    test('stop a capture, are named, and stay', async () => {
      await lane.hypervisor.userCheckpoint('app', 'Recovery');
      const mark = newMark();
      const outcome = await capture('app', { mark });
      expect(outcome.error?.code).toBe('ERR_VM_BUSY');
      expect(outcome.error?.message).toContain('OtherBackup 17');
      expect(await release('app', mark)).toBeUndefined();
      expect(lane.hypervisor.machine('app').checkpoints.map(({ name }) => name)).toEqual([
        'OtherBackup 17',
      ]);
      const [leftover] = await host.leftovers();
      expect(leftover).toMatchObject({ kind: 'checkpoint', name: 'OtherBackup 17' });
      expect(leftover?.mark).toBeUndefined();
      expect(lane.hypervisor.destroyed).toEqual([]);
    });
  });

  describe('after a death', () => {
    test('are found without their mark: PowerShell died before it could name them', async () => {
      const held = gate();
      lane.hypervisor.faults.jobHeld = held.opened;
      const mark = newMark();
      const controller = new AbortController();
      const steps: Steps = { run: (_vm, _step, _options, work) => work(controller.signal) };
      const dying = capture('app', { mark, steps });
      while (lane.hypervisor.asked.length === 0) await sleep(10);
      // The job runs on in the host; its claim may or may not have the job's id by now.
      controller.abort();
      expect((await dying).error?.code).toBe('ERR_ABORTED');
      const other = lane.host();
      const left = await other.leftovers();
      expect(left.map(({ mark: found, vm }) => [found, vm?.name])).toEqual([[mark, 'app']]);
      const releasing = release('app', mark, 60_000, other);
      // Mostly long enough for a look at a job that runs.
      await sleep(300);
      held.open();
      expect(await releasing).toBeUndefined();
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(0);
      expect(lane.hypervisor.depth('app')).toBe(1);
      expect(lane.hypervisor.destroyed).toEqual(['app - Sicherung']);
      expect(await claims()).toEqual([]);
    });

    test('leave no half-written claim behind', async () => {
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      const { id } = lane.hypervisor.machine('app');
      await writeFile(path.join(capturesFolder(), mark, `${id}.json.4711.tmp`), '{"mark":');
      expect(await release('app', mark)).toBeUndefined();
      expect(await claims()).toEqual([]);
    });

    test('are ended when they could not be named', async () => {
      lane.hypervisor.faults.renameFails = true;
      const mark = newMark();
      const outcome = await capture('app', { mark, policy: MOST });
      expect(outcome.error).toBeDefined();
      expect(await release('app', mark)).toBeUndefined();
      expect(lane.hypervisor.depth('app')).toBe(1);
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(0);
    });

    test('are found when their job ends between two looks at the machine', async () => {
      const { faults, asked, destroyed } = lane.hypervisor;
      const [job, answer] = [gate(), gate()];
      faults.jobHeld = job.opened;
      // PowerShell dies before it can note the job.
      faults.answerHeld = answer.opened;
      const mark = newMark();
      const controller = new AbortController();
      const steps: Steps = { run: (_vm, _step, _options, work) => work(controller.signal) };
      const dying = capture('app', { mark, steps });
      while (asked.length === 0) await sleep(10);
      controller.abort();
      expect((await dying).error?.code).toBe('ERR_ABORTED');
      answer.open();
      const machine = lane.hypervisor.machine('app');
      faults.settingsListed = async () => {
        job.open();
        while (machine.status !== undefined) await sleep(5);
        faults.settingsListed = undefined;
      };
      expect(await release('app', mark)).toBeUndefined();
      expect(machine.checkpoints).toHaveLength(0);
      expect(destroyed).toEqual(['app - Sicherung']);
    });

    test('are waited for when PowerShell died before the host had answered', async () => {
      const { faults } = lane.hypervisor;
      const mark = newMark();
      // Made where the release is about to read it: not much time passes until its first look.
      faults.cmdletCalled.set('Get-VM', () => {
        faults.cmdletCalled.clear();
        return claim(mark, new Date(), [], { answered: false });
      });
      // The first look does not see the checkpoint yet, and sees a machine that is not busy.
      faults.settingsListed = async () => {
        faults.settingsListed = undefined;
        await lane.hypervisor.userCheckpoint('app', 'Recovery');
      };
      const patient = lane.host({ answerMs: 60_000 });
      expect(await release('app', mark, 60_000, patient)).toBeUndefined();
      expect(lane.hypervisor.destroyed).toEqual(['OtherBackup 17']);
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(0);
      expect(await claims()).toEqual([]);
    });

    test('are waited for while a layer goes away between two looks at it', async () => {
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      const { cmdletFails } = lane.hypervisor.faults;
      cmdletFails.set('Get-VHD', 'Die Datei wurde nicht gefunden (0x80070002).');
      const releasing = release('app', mark);
      while (lane.hypervisor.depth('app') > 1) await sleep(20);
      // Mostly long enough for several looks.
      await sleep(1500);
      cmdletFails.clear();
      expect(await releasing).toBeUndefined();
      expect(await claims()).toEqual([]);
    });

    test('are not called merged when their layers cannot be read to the end', async () => {
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      const { cmdletFails } = lane.hypervisor.faults;
      cmdletFails.set('Get-VHD', 'Die Datei wurde nicht gefunden (0x80070002).');
      await endFirstCheckpoint();
      const error = await release('app', mark, 500);
      cmdletFails.clear();
      expect(error?.code).toBe('ERR_MERGE_FAILED');
      expect(error?.message).toContain('Die Datei wurde nicht gefunden');
      expect(await release('app', mark)).toBeUndefined();
      expect(await claims()).toEqual([]);
    });

    test('are merged when the release ends, though who made them died before it noted the layers', async () => {
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      await claim(mark, new Date());
      lane.hypervisor.faults.mergeLateMs = 500;
      expect(await release('app', mark)).toBeUndefined();
      expect(lane.hypervisor.depth('app')).toBe(1);
    });

    test('are merged when the release ends, though another hand ended them between two looks', async () => {
      const { faults } = lane.hypervisor;
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      await claim(mark, new Date());
      const machine = lane.hypervisor.machine('app');
      const [checkpoint] = machine.checkpoints;
      if (checkpoint === undefined) throw new Error('it has a checkpoint');
      let looks = 0;
      let isReleased = false;
      const merging = async () => {
        while (looks < 20 && !isReleased) await sleep(5);
      };
      let isReleasedBeforeTheMerge: boolean | undefined;
      faults.cmdletCalled.set('Get-CimInstance', async ({ ClassName }) => {
        looks += 1;
        if (ClassName !== 'Msvm_VirtualSystemSettingData' || machine.checkpoints.length === 0)
          return;
        void endCheckpoint(machine, checkpoint, merging).then(() => {
          isReleasedBeforeTheMerge = isReleased;
        });
        while (machine.status !== STATUS.merging) await sleep(1);
      });
      expect(await release('app', mark)).toBeUndefined();
      isReleased = true;
      await expect.poll(() => isReleasedBeforeTheMerge).toBe(false);
    });

    test("are nobody else's in the list of leftovers, whenever they appear", async () => {
      const { faults } = lane.hypervisor;
      await claim(newMark(), new Date());
      let lists = 0;
      faults.cmdletCalled.set('Get-CimInstance', async ({ ClassName }) => {
        if (ClassName !== 'Msvm_VirtualSystemSettingData') return;
        lists += 1;
        if (lists === 2) await lane.hypervisor.userCheckpoint('app', 'Recovery');
      });
      const left = await host.leftovers();
      expect(left).toHaveLength(1);
      expect(left[0]?.mark).toBeDefined();
    });

    async function claim(
      mark: string,
      begun: Date,
      before: string[] = [],
      more: { answered?: boolean } = {},
    ): Promise<void> {
      const { id } = lane.hypervisor.machine('app');
      const folder = path.join(capturesFolder(), mark);
      await mkdir(folder, { recursive: true });
      const document = {
        mark,
        vm: id,
        begun,
        windowMs: 60_000,
        before,
        layers: [],
        active: [],
        ...more,
      };
      await writeFile(path.join(folder, `${id}.json`), JSON.stringify(document));
    }

    test('are not taken for ours when they were there before, or were made at another time', async () => {
      const { id } = await lane.hypervisor.userCheckpoint('app', 'Recovery');
      const known = newMark();
      await claim(known, new Date(), [`Microsoft:${id}`]);
      expect(await release('app', known)).toBeUndefined();
      const later = newMark();
      await claim(later, new Date(Date.now() + 30_000));
      expect(await release('app', later)).toBeUndefined();
      const earlier = newMark();
      await claim(earlier, new Date(Date.now() - 120_000));
      expect(await release('app', earlier)).toBeUndefined();
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(1);
      expect(lane.hypervisor.destroyed).toEqual([]);
    });

    test('all stay when two could be ours', async () => {
      const begun = new Date();
      await lane.hypervisor.userCheckpoint('app', 'Recovery');
      await lane.hypervisor.userCheckpoint('app', 'Recovery');
      const mark = newMark();
      await claim(mark, begun);
      const error = await release('app', mark);
      expect(error?.code).toBe('ERR_HOST_FAILED');
      expect(error?.message).toContain('OtherBackup 17, OtherBackup 17');
      expect(lane.hypervisor.destroyed).toEqual([]);
      await endFirstCheckpoint();
      // Who cleans up by hand ends the doubt, and what remains fits alone.
      expect(await release('app', mark)).toBeUndefined();
    });

    test('are ended by the mark in their name alone when the claim is lost', async () => {
      const mark = newMark();
      const checkpoint = await lane.hypervisor.userCheckpoint('app', 'Recovery');
      checkpoint.name = mark;
      expect(await release('app', newMark())).toBeUndefined();
      expect(lane.hypervisor.machine('app').checkpoints).toHaveLength(1);
      expect(await release('app', mark)).toBeUndefined();
      expect(lane.hypervisor.depth('app')).toBe(1);
    });
  });

  describe('that do not merge', () => {
    test('are an error at the deadline, with what the event log says, and go on', async () => {
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      const machine = lane.hypervisor.machine('app');
      lane.hypervisor.faults.mergeStalls = 'app';
      // At this deadline the merge has hardly begun.
      expect((await release('app', mark, 1))?.code).toBe('ERR_MERGE_FAILED');
      await expect.poll(() => machine.status).toBe(STATUS.merging);
      lane.hypervisor.faults.mergeEvents = [
        'Hintergrundzusammenführung abgebrochen (fremde Maschine)',
        `Hintergrundzusammenführung abgebrochen: 0x80070020. (${machine.id.toUpperCase()})`,
      ];
      const error = await release('app', mark, 400);
      expect(error?.code).toBe('ERR_MERGE_FAILED');
      expect(error?.message).toContain('layers are being merged');
      expect(error?.message).toContain('0x80070020');
      expect(error?.message).not.toContain('fremde');
      const marks = (await host.leftovers()).map(({ name }) => runOfMark(name));
      expect(marks).toEqual([runOfMark(mark)]);
      lane.hypervisor.faults.mergeStalls = undefined;
      expect(await release('app', mark)).toBeUndefined();
      expect(lane.hypervisor.depth('app')).toBe(1);
    });

    test('are tried again, and name the error if that goes on', async () => {
      const { faults, destroyed } = lane.hypervisor;
      const machine = lane.hypervisor.machine('app');
      const mark = newMark();
      captureOf(await capture('app', { mark }));
      faults.mergeFails = 'app';
      expect((await release('app', mark, 1))?.code).toBe('ERR_MERGE_FAILED');
      await expect.poll(() => machine.status).toBeUndefined();
      // Its first look finds what became of that.
      const error = await release('app', mark, 1);
      expect(error?.code).toBe('ERR_MERGE_FAILED');
      expect(error?.message).toContain('Die Datei wird von einem anderen Prozess verwendet');
      const tries = destroyed.length;
      const releasing = release('app', mark);
      await expect.poll(() => destroyed.length).toBeGreaterThan(tries + 1);
      faults.mergeFails = undefined;
      expect(await releasing).toBeUndefined();
      expect(lane.hypervisor.depth('app')).toBe(1);
    });
  });

  test('ask for a copy backup where the host knows that, and only there', async () => {
    captureOf(await capture('app'));
    expect(lane.hypervisor.asked[0]?.settings).toEqual({
      ConsistencyLevel: '1',
      IgnoreNonSnapshottableDisks: 'TRUE',
    });
    const newer = await Lane.open(BUILD.server2019, [{ name: 'vm' }]);
    try {
      const [vm] = await newer.host().listVms();
      if (vm === undefined) throw new Error('it has a machine');
      const request = { vm, policy: MOST, excludedDisks: [], freezeDeadlineMs: 5000 };
      const [outcome] = await newer.host().capture([request], newMark(), PLAIN_STEPS);
      captureOf(outcome);
      expect(newer.hypervisor.asked[0]?.settings.GuestBackupType).toBe('2');
    } finally {
      await newer.close();
    }
  });

  test('say what disks they leave out, and why', async () => {
    const machine = lane.hypervisor.machine('app');
    const drive = {
      ControllerType: 'SCSI',
      ControllerNumber: 0,
      SupportPersistentReservations: false,
    };
    machine.extraDrives.push(
      { ...drive, ControllerLocation: 5, DiskNumber: 3, Path: 'Disk 3' },
      { ...drive, ControllerLocation: 6, DiskNumber: null, Path: '/share/a.vhds' },
      { ...drive, ControllerLocation: 7, DiskNumber: null, Path: '/no/such/file.vhdx' },
    );
    try {
      const vm = (await host.listVms()).find(({ name }) => name === 'app');
      const reasons = vm?.disks.map((disk) => [disk.name, disk.unsupported?.slice(0, 26)]);
      expect(reasons).toEqual([
        ['scsi-0-0', undefined],
        ['scsi-0-5', 'it is a pass-through disk'],
        ['scsi-0-6', 'it is a VHD Set, shared be'],
        ['scsi-0-7', 'its layers cannot be read:'],
      ]);
      const warnings = (await host.check()).filter(({ name }) => name === 'machine app');
      expect(warnings).toHaveLength(3);
    } finally {
      machine.extraDrives.length = 0;
    }
  });
});
