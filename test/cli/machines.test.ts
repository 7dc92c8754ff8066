/**
 * The commands for machines, as a user runs them one after the other, on a lab whose guests write all the time. What is promised is looked at
 * from outside: in the restored disks by the guest's own books, on the host in the chains.
 */

import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { NativeStats } from '../../src/engine/binding.js';
import { exitError, type Finished, finish, firn, jsonLines, start } from '../helpers/firn.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-vms-'));
const at = (...names: string[]) => join(folder, ...names);
const LAB = at('lab');
const env = {
  FIRN_REPOSITORY: at('repository'),
  FIRN_STATE: at('state'),
  FIRN_HOST: `lab:${LAB}`,
};
const run = (...parameters: string[]) => firn(parameters, { env });
/** Temporary file systems of test machines are small. */
const SMALL = ['--min-free', '1M'];
const isWindows = process.platform === 'win32';

async function ok(...parameters: string[]): Promise<Finished> {
  const finished = await run(...parameters);
  expect([finished.status, finished.stderr]).toEqual([0, '']);
  return finished;
}

interface ListedVm {
  name: string;
  id: string;
  state: string;
  reachable: string;
  disks: { name: string; layers: number }[];
}

async function machines(): Promise<ListedVm[]> {
  return jsonLines(await ok('vm', 'list', '--json'))[0]?.vms as ListedVm[];
}

/** That nothing of a run is left: each disk is one file again. */
async function expectClean(): Promise<void> {
  for (const { disks } of await machines()) {
    expect(disks.map(({ layers }) => layers)).toEqual(disks.map(() => 1));
  }
}

/** What a reconciliation of the host finds. */
async function leftBehind(): Promise<{ foreign: unknown[] }> {
  const [summary] = jsonLines(await ok('reconcile', '--dry-run', '--json')).slice(-1);
  const { hosts } = summary as unknown as { hosts: { runs: unknown[]; foreign: unknown[] }[] };
  expect(hosts.flatMap(({ runs }) => runs)).toEqual([]);
  return { foreign: hosts.flatMap(({ foreign }) => foreign) };
}

beforeAll(async () => {
  await ok('init');
  const sizes = ['--size', '128M', '--data', '12M', '--writes', '50', '--disks', '2'];
  const made = await run('lab', 'create', LAB, '--vm', 'web', '--vm', 'the db', ...sizes);
  expect([made.status, made.stdout]).toEqual([0, `made a lab of 2 machines in ${LAB}\n`]);
  await ok('lab', 'start', LAB);
});
afterEach(async () => {
  await run('lab', 'fault', LAB, '--clear');
});
afterAll(async () => {
  try {
    await run('lab', 'stop', LAB);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('firn vm', () => {
  it('lists the machines with the most that each can promise', async () => {
    const { stdout } = await ok('vm', 'list');
    expect(stdout).toMatch(/^VM +ID +STATE +DISKS/);
    expect(stdout).toMatch(/^the db +[0-9a-fA-F-]{36} +running +2 +256 MiB .* application$/m);
    expect((await machines()).map(({ name }) => name).sort()).toEqual(['the db', 'web']);
  });

  it('shows one by name or id, with its disks', async () => {
    const { stdout } = await ok('vm', 'show', 'web');
    expect(stdout).toMatch(/^vm web$/m);
    expect(stdout).toMatch(/^ {2}reaches +application consistency$/m);
    expect(stdout.match(/^ {2}disk /gm)).toHaveLength(2);
    const id = (await machines()).find(({ name }) => name === 'web')?.id ?? '';
    expect(jsonLines(await ok('vm', 'show', id, '--json'))).toMatchObject([{ id, name: 'web' }]);
    const none = await run('vm', 'show', 'mail', '--json');
    expect([none.status, exitError(none).error.code]).toEqual([10, 'ERR_VM_NOT_FOUND']);
  });
});

describe('firn backup', () => {
  it('makes a point of every machine that comes back whole, and leaves nothing at the host', async () => {
    const finished = await run('backup', '--all', ...SMALL, '--progress', 'auto');
    expect(finished.status).toBe(0);
    expect(finished.stdout).toMatch(/^run [0-9a-f]{8}: 2 of 2 machines backed up in /m);
    expect(finished.stdout).toMatch(/^the db +[0-9a-f]{8} +application +[\d.]+ s +[\d.]+ MiB/m);
    expect(finished.stderr).toMatch(/^web: merge took /m);
    await expectClean();
    for (const vm of ['web', 'the db']) {
      const to = at('restored', vm);
      const restored = await ok('restore', `latest:${vm}`, '--to', to);
      const images = readdirSync(to).filter((name) => name.endsWith('.vhdx'));
      expect(images).toHaveLength(2);
      for (const [, file = ''] of restored.stdout.matchAll(/^ {2}file \S+ +(.*)$/gm)) {
        expect(existsSync(file)).toBe(true);
      }
      expect(readdirSync(to).length).toBeGreaterThan(2);
      const { stdout } = await ok('lab', 'check', to, '--expect', 'application');
      expect(stdout).toMatch(/^it adds up, as application-consistent$/m);
    }
  });

  it('tells programs of every step, of each machine and of the whole', async () => {
    const begunMs = performance.now();
    const messages = jsonLines(await ok('backup', 'web', ...SMALL, '--json'));
    const elapsedSeconds = (performance.now() - begunMs) / 1000;
    const steps = messages.filter(({ message_type }) => message_type === 'step');
    for (const step of ['freeze', 'checkpoint', 'thaw', 'read', 'seal', 'merge']) {
      const states = steps.filter((message) => message.step === step).map(({ state }) => state);
      expect(states, step).toEqual(['begun', 'done']);
    }
    const [vm] = messages.filter(({ message_type }) => message_type === 'vm');
    expect(vm).toMatchObject({ vm: { name: 'web' }, consistency: 'application' });
    expect(vm?.frozenSeconds).toBeLessThan(elapsedSeconds);
    const summary = messages.at(-1) ?? {};
    expect(summary).toMatchObject({ message_type: 'summary', host: { kind: 'lab' }, warnings: [] });
    expect(summary.points).toEqual([vm?.point]);
    const [point] = jsonLines(await ok('show', 'latest:web', '--json'));
    expect(point).toMatchObject({ id: vm?.point, capture: { run: summary.run } });
  });

  it('reads on top of the last point where a checkpoint is kept, names what it keeps, and drops it on request', async () => {
    const tracked = ['backup', 'web', ...SMALL, '--tracking', 'checkpoint'];
    const first = await run(...tracked);
    expect(first.status).toBe(0);
    expect(first.stdout).toMatch(
      /^web\/scsi-0-0: read as a whole: no earlier point of this machine has a reference$/m,
    );
    const messages = jsonLines(await ok(...tracked, '--json'));
    const reading = messages.find(({ message_type }) => message_type === 'reading');
    const summary = messages.at(-1) as unknown as { vms: { readings: unknown[] }[] };
    const [point] = jsonLines(await ok('show', 'latest:web', '--json')) as unknown as {
      capture: { reference: { name: string } };
      disks: { base?: string; name: string }[];
    }[];
    const base = point?.disks.find(({ name }) => name === 'scsi-0-0')?.base;
    expect(base).toMatch(/^[0-9a-f]{32}$/);
    const expected = [0, 1].map((disk) => ({ disk: `scsi-0-${disk}`, base: { point: base } }));
    expect(reading).toMatchObject({ vm: { name: 'web' }, disks: expected });
    expect(summary.vms[0]?.readings).toMatchObject(expected);
    const again = await run(...tracked);
    expect(again.stdout).toMatch(
      /^web\/scsi-0-1: incremental from [0-9a-f]{8}, [\d.]+ [KM]iB changed$/m,
    );

    const [shown] = jsonLines(await ok('vm', 'show', 'web', '--json')) as unknown as {
      references: { name: string; method: string; bytes: number }[];
    }[];
    expect(shown?.references).toMatchObject([{ method: 'retained checkpoint' }]);
    const name = shown?.references[0]?.name ?? '';
    expect((await ok('vm', 'show', 'web')).stdout).toContain(`reference ${name}`);
    expect((await ok('doctor')).stdout).toContain(`host reference: ${name} at web`);
    const { foreign } = await leftBehind();
    expect(foreign).toEqual([]);

    const unknown = await run('vm', 'untrack', 'web', `${name}0`, '--json');
    expect([unknown.status, exitError(unknown).error.code]).toEqual([10, 'ERR_NOT_FOUND']);
    const dropped = await run('vm', 'untrack', 'web');
    expect([dropped.status, dropped.stderr]).toEqual([0, `web: ${name} is dropped\n`]);
    await expectClean();
  });

  it('says loudly when a guest could promise less than was wanted, and the point says it too', async () => {
    await ok('lab', 'fault', LAB, 'freeze-refuses', '--vm', 'web');
    const finished = await run('backup', 'web', ...SMALL, '--quiet');
    expect(finished.status).toBe(0);
    expect(finished.stderr).toMatch(/^warning: web: reached crash consistency, not application: /m);
    const loud = await run('backup', 'web', ...SMALL);
    expect(loud.stdout).toMatch(/^web +[0-9a-f]{8} +CRASH, NOT APPLICATION /m);
    const [point] = jsonLines(await ok('show', 'latest:web', '--json'));
    expect(point).toMatchObject({ consistency: 'crash', capture: { wanted: 'application' } });
  });

  it('makes no point of a guest that cannot promise what is required, and that is its failure', async () => {
    await ok('lab', 'fault', LAB, 'freeze-refuses', '--vm', 'web');
    const required = [...SMALL, '--consistency', 'application', '--json'];
    const alone = await run('backup', 'web', ...required);
    expect(alone.status).toBe(25);
    expect(jsonLines(alone).at(-1)).toMatchObject({ message_type: 'summary', points: [] });
    const both = await run('backup', '--all', ...required);
    expect([both.status, exitError(both).error.code]).toEqual([3, 'ERR_INCOMPLETE']);
    expect(exitError(both).error.message).toContain('1 of 2 machines have no new point');
    expect(jsonLines(both).at(-1)).toMatchObject({ points: [expect.any(String)] });
    await expectClean();
  });

  it('leaves out the disks that it is told to', async () => {
    const name = (await machines())[0]?.disks[1]?.name ?? '';
    await ok('backup', 'web', ...SMALL, '--exclude-disk', `*/${name}`, '--json');
    const [point] = jsonLines(await ok('show', 'latest:web', '--json')) as [
      { disks: { name: string; fileBytes?: number }[] },
    ];
    const disks = point.disks.filter(({ fileBytes }) => fileBytes === undefined);
    expect(disks).toHaveLength(1);
    expect(disks[0]?.name).not.toBe(name);
  });

  it('does not begin where there is no room for a checkpoint', async () => {
    const finished = await run('backup', 'web', '--min-free', '1024T', '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([25, 'ERR_VOLUME_LOW']);
  });

  it('does what a job file says, and the command line is stronger', async () => {
    writeFileSync(
      at('nightly.yaml'),
      'host: lab:lab\nrepository: repository\nstate: state\nvms: [web]\nminimumFree: 1M\nconsistency: crash\n',
    );
    const bare = { cwd: tmpdir() };
    const byFile = await firn(['backup', '--job', at('nightly.yaml'), '--json'], bare);
    expect(byFile.status).toBe(0);
    expect(jsonLines(byFile).at(-1)).toMatchObject({
      vms: [{ vm: { name: 'web' }, consistency: 'crash' }],
    });
    const stronger = ['the db', '--consistency', 'filesystem'];
    const mixed = await firn(['backup', '--job', at('nightly.yaml'), ...stronger, '--json'], bare);
    expect(jsonLines(mixed).at(-1)).toMatchObject({
      vms: [
        { vm: { name: 'the db' }, consistency: expect.stringMatching(/filesystem|application/) },
      ],
    });
    const { stdout } = await ok('runs', 'list', '--limit', '1');
    expect(stdout).toMatch(/ done +1\/1 +the db +nightly +lab:/);
  });

  it("reads no faster than a job's limit allows, of which each of two machines has a half", async () => {
    // So slow that the limit, and nothing else that a busy computer does, is what takes the time.
    writeFileSync(at('gentle.yaml'), 'vms: [web]\nlimit: 10M\n');
    const gentle = ['backup', '--job', at('gentle.yaml'), '--keep-unused', '--tracking', 'none'];
    const finished = await run(...gentle, ...SMALL, '--json');
    expect(finished.status).toBe(0);
    const { vms } = jsonLines(finished).at(-1) as unknown as { vms: { stats: NativeStats }[] };
    const stats = vms[0]?.stats as NativeStats;
    expect(stats.bottleneck).toBe('limit');
    // The last request, of up to 1 MiB, is not waited for.
    const least = (stats.readBytes - 2 ** 20) / (5 * 2 ** 20);
    expect(least).toBeGreaterThan(3);
    expect(stats.elapsedSeconds).toBeGreaterThan(0.95 * least);
  });

  it.skipIf(isWindows)(
    'keeps others from its machine, and ends in order when it is interrupted: no point, nothing left',
    async () => {
      // Another repository, which has nothing of the machine yet.
      await ok('init', at('slow'));
      const slow = ['-r', at('slow'), '--limit', '200K', '--workers', '1'];
      const child = start(['backup', 'web', ...SMALL, ...slow, '--json'], { env });
      const finished = finish(child);
      let busy: Promise<Finished> | undefined;
      child.stdout?.on('data', (text: string) => {
        if (!/"step":"read","state":"begun"/.test(text)) return;
        busy = run('backup', 'web', ...SMALL, '--json').finally(() => child.kill('SIGINT'));
      });
      const ended = await finished;
      expect([ended.status, exitError(ended).error.code]).toEqual([130, 'ERR_ABORTED']);
      const other = (await busy) as Finished;
      expect([other.status, exitError(other).error.code]).toEqual([11, 'ERR_VM_BUSY']);
      await expectClean();
      expect(jsonLines(await ok('list', '-r', at('slow'), '--json'))[0]?.points).toEqual([]);
      expect((await ok('runs', 'list', '--limit', '1')).stdout).toMatch(/ aborted +0\/1 +web /);
    },
  );
});

describe.skipIf(isWindows)('a run that died', () => {
  it('is seen by the doctor, foretold by a dry run, and finished by firn reconcile', async () => {
    await ok('lab', 'fault', LAB, 'firn-dies', '--step', '8', '--once');
    expect((await run('backup', 'web', ...SMALL)).signal).toBe('SIGKILL');
    const doctor = await ok('doctor');
    expect(doctor.stdout).toMatch(/^warning +journal runs: 1 run died .* at web$/m);
    expect(doctor.stdout).toMatch(/^warning +host \S+: .* of a run that died/m);
    const id = /^([0-9a-f]{8}) .* dead /m.exec((await ok('runs', 'list')).stdout)?.[1] ?? '';

    expect((await ok('reconcile', '--dry-run')).stdout).toBe(`run ${id}: web would be released\n`);
    expect((await ok('runs', 'show', id)).stdout).toMatch(/^ {2}state +dead/m);
    const reconciled = await run('reconcile', '--run', id, '--quiet');
    expect([reconciled.status, reconciled.stderr]).toEqual([0, '']);
    expect(reconciled.stdout).toContain(`run ${id}: web is released\n`);
    await expectClean();
    expect((await ok('runs', 'show', id)).stdout).toMatch(/ merge .* done +reconciler$/m);
    expect((await ok('reconcile')).stdout).toBe('nothing to finish\n');
    expect((await ok('doctor')).stdout).not.toContain('warning  journal');
  });

  it('is finished by a reconciler on a timer, which ends with Ctrl-C and 0', {
    timeout: 200_000,
  }, async () => {
    const timer = start(['reconcile', '--every', '200ms', '--json'], { env });
    const finished = finish(timer);
    await ok('lab', 'fault', LAB, 'firn-dies', '--step', '8', '--once');
    expect((await run('backup', 'web', ...SMALL)).signal).toBe('SIGKILL');
    const newest = async () => jsonLines(await ok('runs', 'list', '--json'))[0]?.runs as unknown[];
    await expect
      .poll(async () => (await newest())[0], { timeout: 150_000, interval: 200 })
      .toMatchObject({ state: 'reconciled' });
    timer.kill('SIGINT');
    expect((await finished).status).toBe(0);
    await expectClean();
  });

  it('is taken up by its mark alone when its journal is lost', async () => {
    await ok('lab', 'fault', LAB, 'firn-dies', '--step', '8', '--once');
    const lost = ['--state', at('lost')];
    expect((await run('backup', 'web', ...SMALL, ...lost)).signal).toBe('SIGKILL');
    const named = (await run('reconcile', '--host', `lab:${LAB}`)).stdout;
    const id = /^left alone: .*firn-([0-9a-f]{32})/m.exec(named)?.[1] ?? '';
    expect(named).toMatch(/ at web, of a run that this journal does not know/);
    expect((await ok('doctor')).stdout).toContain(`firn reconcile --host SPEC --run ${id}`);
    expect((await run('reconcile', '--run', id)).stdout).toContain('web is released');
    await expectClean();
  });
});

describe('firn lab', () => {
  it('shows its machines and the faults that are on', async () => {
    const { stdout } = await ok('lab', 'fault', LAB, 'freeze-slow', '--ms', '10', '--vm', 'web');
    expect(stdout).toMatch(/^web +freeze-slow +stays$/m);
    const status = await ok('lab', 'status', LAB);
    expect(status.stdout).toMatch(/^web +[0-9a-fA-F-]{36} +running +application +[\d,]+ +2 +1 /m);
    expect(status.stdout).toMatch(/^web: fault freeze-slow$/m);
    expect((await run('lab', 'fault', LAB, '--clear')).stderr).toBe('no faults are on\n');
  });

  it('finds a copy that does not add up, and one that is worth less than expected', async () => {
    await ok('backup', 'web', ...SMALL, '--consistency', 'crash', '--json');
    const to = at('crashed');
    await ok('restore', 'latest:web', '--to', to);
    expect((await ok('lab', 'check', to)).stdout).toMatch(/^it adds up, as \w+-consistent$/m);
    const [first, second] = readdirSync(to).filter((name) => name.endsWith('.vhdx'));
    await ok('restore', 'latest:the db', '--to', at('other'));
    const mixed = await run(
      'lab',
      'check',
      join(to, first ?? ''),
      at('other', second ?? ''),
      '--json',
    );
    expect([mixed.status, exitError(mixed).error.code]).toEqual([30, 'ERR_VERIFY_MISMATCH']);
    const empty = await run('lab', 'check', at('state'), '--json');
    expect(empty.status).toBe(10);
  });

  it('stops its machines, which can be backed up when they are off too', async () => {
    await ok('lab', 'stop', LAB, 'web');
    expect((await machines()).find(({ name }) => name === 'web')?.state).toBe('off');
    expect((await run('backup', 'web', ...SMALL)).status).toBe(0);
    const { stdout } = await ok('lab', 'start', LAB);
    expect(stdout).toContain('web is started');
    await expectClean();
  });
});
