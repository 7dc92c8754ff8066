/** VSS sets, on Windows Server 2012 R2: who is in them, what is done about each code, and how they end. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CaptureOutcome, ConsistencyPolicy, Vm } from '../../../src/hosts/host.js';
import { callLine, SCRIPTS } from '../../../src/hosts/hyperv/bridge.js';
import type { HypervHost } from '../../../src/hosts/hyperv/hyperv-host.js';
import { captureOf, newMark } from '../../conformance/host-bench.js';
import { diskContent } from '../../helpers/disks.js';
import { BUILD, describeWithPowerShell, Lane, PLAIN_STEPS, POWERSHELL } from './lane.js';
import { addLayer, contentOf, topOf } from './standin/layers.js';
import { mergeInto } from './standin/machines.js';

const LEAST: ConsistencyPolicy = { wanted: 'application', required: 'crash' };
const MOST: ConsistencyPolicy = { wanted: 'application', required: 'application' };

describeWithPowerShell('VSS sets', () => {
  let lane: Lane;
  let host: HypervHost;
  beforeAll(async () => {
    lane = await Lane.open(BUILD.server2012R2, [
      { name: 'one' },
      { name: 'two' },
      { name: 'three' },
      { name: 'bystander', guest: 'none' },
    ]);
    await lane.hypervisor.add({ name: 'elsewhere' }, 1);
    host = lane.host();
  });
  let marks: string[] = [];
  afterEach(async () => {
    const { faults, shadows, sets } = lane.hypervisor;
    Object.assign(faults, { vssCodes: [], guestVssFails: undefined, noAutoRecovery: false });
    faults.vssSpoiledBy.clear();
    const vms = await host.listVms();
    for (const mark of marks) await host.release(vms, mark, 60_000, PLAIN_STEPS);
    marks = [];
    sets.length = 0;
    shadows.commands.length = 0;
    await gone();
  });
  afterAll(() => lane.close());

  function mark(): string {
    const made = newMark();
    marks.push(made);
    return made;
  }

  async function find(...names: string[]): Promise<Vm[]> {
    const vms = await host.listVms();
    return names.map((name) => {
      const vm = vms.find((candidate) => candidate.name === name);
      if (vm === undefined) throw new Error(`the host does not list ${name}`);
      return vm;
    });
  }

  async function capture(
    names: string[],
    policy = LEAST,
    made = mark(),
    by = host,
  ): Promise<CaptureOutcome[]> {
    const requests = (await find(...names)).map((vm) => ({
      vm,
      policy,
      excludedDisks: [],
      freezeDeadlineMs: 5000,
    }));
    return by.capture(requests, made, PLAIN_STEPS);
  }

  const results = (outcomes: CaptureOutcome[]) =>
    outcomes.map(({ vm, capture: made, error }) => [vm.name, made?.consistency ?? error?.code]);

  test('hold what the guest brought to disk as it came to rest', async () => {
    const [disk] = lane.hypervisor.machine('one').disks;
    if (disk === undefined) throw new Error('it has a disk');
    const expected = contentOf(disk, topOf(disk));
    expected.fill(0x77, 777 * 4096, 778 * 4096);
    const [outcome] = await capture(['one'], MOST);
    const { disks, method } = captureOf(outcome);
    expect(method).toBe('VSS set');
    const [top = '', ...parents] = disks[0]?.layers ?? [];
    expect(path.basename(top)).toBe('disk 0-AutoRecovery.avhdx');
    expect((await diskContent(top, parents)).equals(expected)).toBe(true);
  });

  test('are made for machines that share a volume, and not for others', async () => {
    const vms = await find('one', 'elsewhere', 'two');
    const batches = host.batches(vms).map((batch) => batch.map(({ name }) => name));
    expect(batches).toEqual([['elsewhere'], ['one', 'two']]);
  });

  test('have no machines in them but those that were asked for', async () => {
    expect(results(await capture(['one', 'two'], MOST))).toEqual([
      ['one', 'application'],
      ['two', 'application'],
    ]);
    expect(lane.hypervisor.sets).toEqual([{ writers: true, vms: ['one', 'two'] }]);
    // A machine whose guest cannot be frozen would have been saved.
    expect(lane.hypervisor.machine('bystander').state).toBe('Running');
    expect(lane.hypervisor.shadows.commands).toContain('set context volatile');
  });

  test('are without writers for machines whose guests cannot come to rest', async () => {
    const outcomes = await capture(['bystander', 'one']);
    expect(results(outcomes)).toEqual([
      ['bystander', 'crash'],
      ['one', 'application'],
    ]);
    expect(captureOf(outcomes[0]).consistencyReason).toContain('integration service');
    expect(lane.hypervisor.sets.map(({ writers }) => writers)).toEqual([true, false]);
    expect(lane.hypervisor.machine('bystander').state).toBe('Running');
  });

  describe('that fail', () => {
    test('are halved until the machine that spoils them stands alone', async () => {
      lane.hypervisor.faults.vssSpoiledBy.set('two', '0x800423F4');
      const outcomes = await capture(['one', 'two', 'three']);
      expect(results(outcomes)).toEqual([
        ['one', 'application'],
        ['two', 'crash'],
        ['three', 'application'],
      ]);
      expect(captureOf(outcomes[1]).consistencyReason).toContain('0x800423F4');
      expect(lane.hypervisor.sets.map(({ vms }) => vms.join())).toEqual([
        'one,two,three',
        'one,two',
        'one',
        'two',
        '',
        'three',
      ]);
    });

    test('cost only the machine that spoils them when its policy allows no less', async () => {
      lane.hypervisor.faults.vssSpoiledBy.set('one', '0x800423F4');
      const outcomes = await capture(['one', 'two'], MOST);
      expect(results(outcomes)).toEqual([
        ['one', 'ERR_SHADOW_COPY_FAILED'],
        ['two', 'application'],
      ]);
      expect(outcomes[0]?.error?.message).toContain('VSS_E_WRITERERROR_NONRETRYABLE');
      expect(outcomes[0]?.error?.hint).toContain('vssadmin list writers');
    });

    const creates = () =>
      lane.hypervisor.shadows.commands.filter((command) => command === 'create').length;

    test('for a reason that may pass are tried again as they are', async () => {
      lane.hypervisor.faults.vssCodes = ['0x800423f3', '0x80042316', '0x80042314'];
      expect(results(await capture(['one', 'two'], MOST))).toEqual([
        ['one', 'application'],
        ['two', 'application'],
      ]);
      expect(creates()).toBe(4);
      expect(lane.hypervisor.sets.map(({ vms }) => vms.join())).toEqual(['one,two']);
    });

    test('for such a reason again and again are halved', async () => {
      lane.hypervisor.faults.vssCodes = ['0x800423F2', '0x800423F2', '0x800423F2'];
      expect(results(await capture(['one', 'two'], MOST))).toEqual([
        ['one', 'application'],
        ['two', 'application'],
      ]);
      expect(lane.hypervisor.sets.map(({ vms }) => vms.join())).toEqual(['one', 'two']);
    });

    test('for a reason that does not pass are reported at once, with what to do', async () => {
      lane.hypervisor.faults.vssCodes = ['0x8004231F'];
      const outcomes = await capture(['one', 'two']);
      expect(creates()).toBe(1);
      for (const { error } of outcomes) {
        expect(error?.code).toBe('ERR_SHADOW_COPY_FAILED');
        expect(error?.message).toContain('VSS_E_INSUFFICIENT_STORAGE, 0x8004231F');
        expect(error?.hint).toContain('shadowstorage');
      }
    });

    test('leave no DiskShadow and no folder behind', async () => {
      lane.hypervisor.faults.vssCodes = ['0x8004231F'];
      const made = mark();
      await capture(['one'], MOST, made);
      await gone();
      expect(lane.hypervisor.shadows.instances()).toEqual([]);
      await host.release(await find('one'), made, 60_000, PLAIN_STEPS);
      const folder = path.join(lane.hypervisor.folder, 'ProgramData', 'Firn', 'captures', made);
      await expect(access(folder)).rejects.toThrow('ENOENT');
    });
  });

  test('promise nothing without the layer that the freeze leaves', async () => {
    lane.hypervisor.faults.noAutoRecovery = true;
    const [least] = await capture(['one'], LEAST);
    expect(captureOf(least).consistency).toBe('crash');
    expect(captureOf(least).consistencyReason).toContain('no AutoRecovery layer for scsi-0-0');
    const [most] = await capture(['two'], MOST);
    expect(most?.error?.code).toBe('ERR_CONSISTENCY');
  });

  test('do not take a stale layer of another backup for that one', async () => {
    const stale = path.join(lane.hypervisor.machine('one').folder, 'disk 0-AutoRecovery.avhdx');
    await writeFile(stale, 'left by somebody');
    try {
      const left = await host.leftovers();
      expect(left.map(({ kind, name, mark: found }) => [kind, name, found])).toEqual([
        ['layer', stale, undefined],
      ]);
      const outcome = captureOf((await capture(['one']))[0]);
      expect(outcome.consistency).toBe('crash');
      expect(outcome.consistencyReason).toContain('stale');
      expect(outcome.disks[0]?.layers).toHaveLength(1);
    } finally {
      await rm(stale);
    }
  });

  async function gone(): Promise<void> {
    await expect.poll(() => lane.hypervisor.shadows.sessions).toBe(0);
  }

  describe('end', () => {
    test('with the object that made them', async () => {
      const other = lane.host();
      await capture(['one'], MOST, mark(), other);
      expect(lane.hypervisor.shadows.instances()).toHaveLength(1);
      await other.close();
      await gone();
      expect(lane.hypervisor.shadows.instances()).toEqual([]);
    });

    test('by the mark alone, also while the process that holds them lives', async () => {
      const made = mark();
      await capture(['one', 'two'], MOST, made, lane.host());
      const [left] = await lane.host().leftovers();
      expect(left).toMatchObject({ kind: 'shadow-copy', mark: made });
      const outcomes = await lane
        .host()
        .release(await find('one', 'two'), made, 60_000, PLAIN_STEPS);
      expect(outcomes.map(({ error }) => error)).toEqual([undefined, undefined]);
      await gone();
      expect(lane.hypervisor.shadows.instances()).toEqual([]);
      expect(lane.hypervisor.depth('one')).toBe(1);
    });

    test('with their merges, though who made them died before it noted the layers', async () => {
      const { disk, base } = await halfMadeSet();
      const machine = lane.hypervisor.machine('one');
      const { faults } = lane.hypervisor;
      let looks = 0;
      faults.cmdletCalled.set('Get-VM', async () => {
        looks += 1;
        if (looks === 4) await mergeInto(machine, disk, base);
      });
      const patient = lane.host({ answerMs: 60_000 });
      const [outcome] = await patient.release(
        await find('one'),
        marks[0] ?? '',
        60_000,
        PLAIN_STEPS,
      );
      faults.cmdletCalled.clear();
      expect(outcome?.error).toBeUndefined();
      expect(lane.hypervisor.depth('one')).toBe(1);
    });

    test('without waiting for ever for a new layer that is not theirs', async () => {
      const { disk, base } = await halfMadeSet();
      const [outcome] = await host.release(await find('one'), marks[0] ?? '', 60_000, PLAIN_STEPS);
      expect(outcome?.error).toBeUndefined();
      expect(lane.hypervisor.depth('one')).toBe(2);
      await mergeInto(lane.hypervisor.machine('one'), disk, base);
    });

    /** The claim of a set whose maker died, and a layer that may or may not be of the set. */
    async function halfMadeSet() {
      const made = mark();
      const machine = lane.hypervisor.machine('one');
      const [disk] = machine.disks;
      if (disk === undefined) throw new Error('it has a disk');
      const base = topOf(disk);
      const folder = path.join(lane.hypervisor.folder, 'ProgramData', 'Firn', 'captures', made);
      await mkdir(folder, { recursive: true });
      const started = new Date();
      const document = {
        mark: made,
        vm: machine.id,
        begun: started,
        set: '1',
        layers: [base.path],
        active: [],
        shadows: [],
        // No process has this number.
        holder: { process: 2 ** 31 - 1, started },
      };
      await writeFile(path.join(folder, `${machine.id}.json`), JSON.stringify(document));
      await addLayer(disk, new Map([[500, 0x55]]));
      return { disk, base };
    }

    test('when Firn dies: its PowerShell reads the end of its input', async () => {
      const [vm] = await find('one');
      const made = mark();
      const shell = spawn(POWERSHELL ?? '', ['-NoLogo', '-NoExit', '-Command', '-'], {
        env: { ...process.env, ...lane.hypervisor.environment(), FIRN_HYPERV_SCRIPTS: SCRIPTS },
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      try {
        const parameters = {
          mark: made,
          set: '1',
          vms: [vm?.id],
          writers: true,
          deadlineMs: 60_000,
          pollMs: 5,
        };
        const request = {
          id: 'x',
          target: { kind: 'local' as const },
          operation: 'make-set',
          parameters,
        };
        shell.stdin.write(`${callLine(request)}\n`);
        await once(shell.stdout, 'data');
        expect(lane.hypervisor.shadows.instances()).toHaveLength(1);
        shell.stdin.end();
        await once(shell, 'exit');
        await gone();
        expect(lane.hypervisor.shadows.instances()).toEqual([]);
      } finally {
        shell.kill('SIGKILL');
      }
    });
  });
});
