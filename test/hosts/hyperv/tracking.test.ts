/**
 * Goal: what reference points are trusted for, and that every doubt is a full read. Method: the scripts in a real PowerShell against the
 * stand-in, whose tracking is read from the layers that it merges; whole runs are proved by a full read of what they froze.
 */

import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Capture, Steps } from '../../../src/hosts/host.js';
import type { HypervHost } from '../../../src/hosts/hyperv/hyperv-host.js';
import { RCT_CODES } from '../../../src/hosts/hyperv/rct-codes.js';
import { type Reference, referenceName } from '../../../src/hosts/tracking.js';
import { captureOf, LEAST, newMark } from '../../conformance/host-bench.js';
import { expectFull, expectIncremental, WitnessedRuns } from '../../helpers/witnessed-run.js';
import { BUILD, describeWithPowerShell, Lane, PLAIN_STEPS } from './lane.js';
import { endCheckpoint, makeCheckpoint } from './standin/machines.js';
import { makePoint } from './standin/tracking.js';

const VM = 'app';
const OWNER = 'fedcba9876543210fedcba9876543210';

describeWithPowerShell('reference points', () => {
  let lane: Lane;
  let host: HypervHost;
  beforeAll(async () => {
    lane = await Lane.open(BUILD.server2016, [{ name: VM, disks: 2 }]);
    host = lane.host();
  });
  afterEach(async () => {
    const { hypervisor } = lane;
    Object.assign(hypervisor.faults, {
      convertFails: undefined,
      convertForgets: false,
      changesFail: undefined,
      cmdletHangs: undefined,
    });
    await hypervisor.settle();
    const machine = hypervisor.machine(VM);
    machine.version = '8.0';
    for (const checkpoint of [...machine.checkpoints]) await endCheckpoint(machine, checkpoint);
    machine.points.length = 0;
    for (const { trackings } of machine.disks) trackings.clear();
    await rm(path.join(hypervisor.folder, 'ProgramData', 'Firn'), { recursive: true, force: true });
    hypervisor.converted.length = 0;
    hypervisor.destroyed.length = 0;
  });
  afterAll(() => lane.close());

  /** The guest writes a page on each disk: into a layer of somebody's checkpoint that is merged at once. */
  async function write() {
    const machine = lane.hypervisor.machine(VM);
    await endCheckpoint(machine, await makeCheckpoint(machine, 'Realized', 'passing'));
  }

  async function captureTracked(since: readonly Reference[] = []) {
    const mark = newMark();
    const [vm] = await host.listVms();
    if (vm === undefined) throw new Error('the host lists no machine');
    const tracking = { mode: 'auto' as const, name: referenceName(OWNER, mark.slice(-32)), since };
    const request = { vm, policy: LEAST, excludedDisks: [], freezeDeadlineMs: 5000, tracking };
    const [outcome] = await host.capture([request], mark, PLAIN_STEPS);
    const captured: Capture = captureOf(outcome);
    const release = async (sealed: boolean, steps: Steps = PLAIN_STEPS) => {
      const { reference } = captured;
      const advance = sealed && reference !== undefined ? { advance: reference } : {};
      const [released] = await host.release(
        [{ id: vm.id, name: vm.name, ...advance }],
        mark,
        60_000,
        steps,
      );
      return released?.error;
    };
    return { mark, captured, release };
  }

  async function sealed(since: readonly Reference[] = []): Promise<Reference> {
    const { captured, release } = await captureTracked(since);
    expect(await release(true)).toBeUndefined();
    if (captured.reference === undefined) throw new Error('the capture gave no reference');
    return captured.reference;
  }

  async function reasons(since: readonly Reference[]) {
    const { captured, release } = await captureTracked(since);
    expect(await release(false)).toBeUndefined();
    return captured.disks.map(({ changes, fullReason }) => changes?.kind ?? fullReason);
  }

  const kept = async () => (await host.tracking.references()).map(({ name }) => name);
  const points = () => lane.hypervisor.machine(VM).points.length;

  test('let a run read what changed alone, and stand for one run each', async () => {
    const runs = await WitnessedRuns.open(host);
    const first = await runs.run();
    expectFull(first, /no earlier point/);
    expect(lane.hypervisor.converted).toHaveLength(1);
    await write();
    const second = await runs.run();
    expectIncremental(second, first.point);
    expect(second.readings.map(({ base }) => base?.changedBytes)).not.toContain(0);
    const third = await runs.run();
    expectIncremental(third, second.point);
    expect(points()).toBe(1);
    expect(lane.hypervisor.destroyed).toEqual([]);
    // A run that does not track leaves what is kept, and is a point that nobody counts from.
    const plain = await runs.run('none');
    expect(plain.point.capture?.reference).toBeUndefined();
    await write();
    expectIncremental(await runs.run(), third.point);
    expect(points()).toBe(1);
  });

  test('are not made of a machine of an older version, which is told', async () => {
    lane.hypervisor.machine(VM).version = '5.0';
    const runs = await WitnessedRuns.open(host);
    const run = await runs.run();
    expectFull(run, /has version 5\.0, and change tracking takes 8\.0/);
    expect(run.point.capture?.reference).toBeUndefined();
    expect(lane.hypervisor.destroyed).toHaveLength(1);
    expect(lane.hypervisor.converted).toEqual([]);
    expect((await host.check()).map(({ message }) => message)).toContainEqual(
      expect.stringContaining('has version 5.0'),
    );
  });

  describe('mean a full read, with the reason', () => {
    test.each(Object.entries(RCT_CODES))('when the host answers %s', async (code, sentence) => {
      const first = await sealed();
      lane.hypervisor.faults.changesFail = `Der Vorgang ist fehlgeschlagen (${code}).`;
      const reason = `${sentence} (${code})`;
      expect(await reasons([first])).toEqual([reason, reason]);
    });

    test('when the host answers what nobody knows', async () => {
      const first = await sealed();
      lane.hypervisor.faults.changesFail = 'Unbekannter Fehler.';
      for (const reason of await reasons([first])) expect(reason).toContain('Unbekannter Fehler.');
    });

    test('when another program has ended the reference point', async () => {
      const first = await sealed();
      lane.hypervisor.machine(VM).points.length = 0;
      expect(await kept()).toEqual([]);
      for (const reason of await reasons([first])) expect(reason).toContain('gone from this host');
      const second = await sealed([first]);
      expect(await kept()).toEqual([second.name]);
      // The name that stood for nothing any more is gone with it.
      const [folder = ''] = await readdir(referencesFolder());
      expect(await readdir(path.join(referencesFolder(), folder))).toEqual([`${second.name}.json`]);
    });

    test('when the user has made a checkpoint since', async () => {
      const first = await sealed();
      await lane.hypervisor.userCheckpoint(VM);
      for (const reason of await reasons([first])) expect(reason).toContain('in another file');
    });

    test('when the tracking of one disk does not know the id, and of that disk alone', async () => {
      const first = await sealed();
      lane.hypervisor.machine(VM).disks[1]?.trackings.clear();
      expect(await reasons([first])).toEqual([
        'ranges',
        expect.stringContaining('does not know the reference point any more (0xC03A0029)'),
      ]);
    });

    test('when a disk of the reference point was not tracked, as then none can be told from the others', async () => {
      const first = await sealed();
      const [point] = lane.hypervisor.machine(VM).points;
      const [disk] = lane.hypervisor.machine(VM).disks;
      if (point === undefined || disk === undefined) throw new Error('there is a point');
      point.trackings.set(disk, '');
      const none = 'the reference point has no tracking id for it';
      expect(await reasons([first])).toEqual([none, none]);
    });

    test('when a disk had another size', async () => {
      const first = await sealed();
      const disks = JSON.parse(JSON.stringify(first.disks)) as Record<
        string,
        { sizeBytes: number }
      >;
      for (const disk of Object.values(disks)) disk.sizeBytes += 512;
      for (const reason of await reasons([{ ...first, disks }]))
        expect(reason).toMatch(/bytes then/);
    });
  });

  test('of others are neither counted from nor ended, and the doctor names them if they are many', async () => {
    const machine = lane.hypervisor.machine(VM);
    for (let made = 0; made < 4; made++) makePoint(machine);
    const theirs = [...machine.points];
    const first = await sealed();
    const second = await sealed([first]);
    expect(await kept()).toEqual([second.name]);
    expect(machine.points).toEqual(expect.arrayContaining(theirs));
    expect(points()).toBe(5);
    expect((await host.check()).map(({ message }) => message)).toContainEqual(
      expect.stringContaining("4 reference points that are not known as Firn's"),
    );
  });

  test('that cannot be made keep no machine from being merged, and the older one stays', async () => {
    const first = await sealed();
    lane.hypervisor.faults.convertFails = VM;
    const { captured, release } = await captureTracked([first]);
    const error = await release(true);
    expect(error?.message).toContain('0x80070020');
    expect(lane.hypervisor.depth(VM)).toBe(1);
    expect(await host.leftovers()).toEqual([]);
    expect(await kept()).toEqual([first.name]);
    expect(await release(true)).toBeUndefined();
    lane.hypervisor.faults.convertFails = undefined;
    await write();
    const since = [captured.reference, first].filter((each) => each !== undefined);
    expect(await reasons(since)).toEqual(['ranges', 'ranges']);
  });

  test('are known again by their job when PowerShell was killed before it wrote down the name', async () => {
    const first = await sealed();
    const { hypervisor } = lane;
    const { captured, release } = await captureTracked([first]);
    hypervisor.faults.cmdletHangs = 'Get-CimAssociatedInstance';
    const [before, asked] = [points(), hypervisor.unanswered];
    const killing: Steps = {
      async run(_vm, step, _options, work) {
        if (step !== 'keep') return work(new AbortController().signal);
        const kill = new AbortController();
        const result = work(kill.signal);
        // It has noted the job, and asks what the job has made.
        while (hypervisor.unanswered === asked) await sleep(10);
        expect(points()).toBe(before + 1);
        kill.abort();
        hypervisor.faults.cmdletHangs = undefined;
        return result;
      },
    };
    expect((await release(true, killing))?.code).toBe('ERR_ABORTED');
    expect(await kept()).toEqual([captured.reference?.name]);
    expect(points()).toBe(1);
    expect(hypervisor.depth(VM)).toBe(1);
  });

  test('that nobody can tell from others are left alone, and the older one stays', async () => {
    const first = await sealed();
    lane.hypervisor.faults.convertForgets = true;
    const { release } = await captureTracked([first]);
    expect(await release(true)).toBeUndefined();
    expect(await kept()).toEqual([first.name]);
    expect(points()).toBe(2);
    expect(await reasons([first])).toEqual(['ranges', 'ranges']);
  });

  test('are dropped by name, and nothing else that lies beside the names', async () => {
    const { name } = await sealed();
    const [folder = ''] = await readdir(referencesFolder());
    await mkdir(path.join(referencesFolder(), folder, 'notes.json'));
    const [vm] = await host.listVms();
    if (vm === undefined) throw new Error('the host lists no machine');
    for (const wrong of ['notes', '../x', '', `${name}x`]) {
      await expect(host.tracking.drop(vm, wrong, 60_000)).rejects.toMatchObject({
        code: 'ERR_NOT_FOUND',
      });
    }
    await host.tracking.drop(vm, name, 60_000);
    expect(points()).toBe(0);
    expect(await kept()).toEqual([]);
  });

  function referencesFolder(): string {
    return path.join(lane.hypervisor.folder, 'ProgramData', 'Firn', 'references');
  }
});

describeWithPowerShell('Windows Server 2012 R2', () => {
  test('tracks nothing, and says so', async () => {
    const lane = await Lane.open(BUILD.server2012R2, [{ name: VM }]);
    try {
      const runs = await WitnessedRuns.open(lane.host());
      for (const mode of ['auto', 'checkpoint'] as const) {
        const run = await runs.run(mode);
        expectFull(run, /2012 R2 does not track/);
        expect(run.point.capture?.reference).toBeUndefined();
      }
      expect(await lane.host().tracking.references()).toEqual([]);
    } finally {
      await lane.close();
    }
  });
});
