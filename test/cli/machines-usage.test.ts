/**
 * The commands for machines where no machine is touched: what they refuse, where they look for a host and for the journal, and how they show
 * a journal. The journal is a real one, written as a run writes it.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firnError } from '../../src/errors.js';
import type { Claim } from '../../src/jobs/runs/claim.js';
import { Journal } from '../../src/jobs/runs/journal.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-machines-'));
const at = (...names: string[]) => join(folder, ...names);
const env = { FIRN_STATE: at('state'), FIRN_REPOSITORY: at('repository') };
const run = (...parameters: string[]) => firn(parameters, { env });

beforeAll(async () => {
  expect((await run('init')).status).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('a mistake', () => {
  it.each([
    [['backup', '-d', 'x.vhdx', '--host', 'lab:x'], '--disk is for disks as files'],
    [['backup', '--all', '--dry-run'], '--dry-run is for disks as files'],
    [
      ['backup', 'x.vhdx', '--consistency', 'best'],
      '--consistency is for machines and needs --host',
    ],
    [['backup', 'x.vhdx', '--state', 'x'], '--state is for machines'],
    [['backup', '--host', 'lab:x'], 'No machines were given'],
    [['backup', '--host', 'lab:x', '--all', 'web'], 'either machines or --all, not both'],
    [['backup', '--all'], 'No host was given'],
    [['backup', '--host', 'esx:x', '--all'], 'Expected a host (lab:DIR'],
    [
      ['backup', '--consistency', 'good'],
      'application, filesystem, crash or best for --consistency',
    ],
    [
      ['backup', '--freeze-deadline', '60'],
      'a duration such as 500ms, 30s, 5m or 1h for --freeze-deadline',
    ],
    [
      ['backup', '--exclude-disk', 'web'],
      'VM/DISK, such as web/scsi-0-1 or */scratch* for --exclude-disk',
    ],
    [['backup', '--parallel-vms', '0'], 'an integer from 1 to 64 for --parallel-vms'],
    [['backup', '--churn', 'some'], 'a percentage such as 5% for --churn'],
    [['backup', '--map', 'x'], 'FROM=TO, such as D:\\VMs=/mnt/vms for --map'],
    [['vm', 'list'], 'No host was given'],
    [['vm', 'show', '--host', 'lab:x'], "missing required argument 'vm'"],
    [['reconcile', '--run', 'abc'], 'No host was given'],
    [['reconcile', '--run', 'abc', '--host', 'lab:x'], "Expected a run's id of 32 digits"],
    [['reconcile', '--every', 'now'], 'a duration such as 500ms'],
    [['runs', 'list', '--limit', '0'], 'an integer from 1 to 100000 for --limit'],
    [['lab', 'fault', 'x', 'fire'], 'one of freeze-hangs, '],
    [['lab', 'create', 'x', '--vss', 'some'], 'one of application, filesystem, none for --vss'],
    [
      ['lab', 'check', 'x', '--expect', 'best'],
      'one of application, filesystem, crash for --expect',
    ],
  ])('firn %j says so, and ends with 2', async (parameters, text) => {
    const { status, stdout, stderr } = await run(...parameters);
    expect(stderr).toContain(text);
    expect(stderr).toContain('ERR_INVALID_ARGUMENT, exit 2');
    expect([status, stdout]).toEqual([2, '']);
  });

  it('in a job file is told with its place, and nothing is done', async () => {
    writeFileSync(at('bad.yaml'), 'host: lab:x\nfreezeDeadline: 5\n');
    const finished = await run('backup', '--job', at('bad.yaml'), '--json');
    expect(finished.status).toBe(2);
    expect(exitError(finished).error).toMatchObject({ code: 'ERR_JOB_INVALID' });
    expect(exitError(finished).error.message).toContain('bad.yaml:2:17: Expected a duration');
  });
});

describe('the groups', () => {
  it('go to standard error with exit 2 when no command of theirs was given', async () => {
    for (const group of ['vm', 'runs', 'lab']) {
      const { status, stdout, stderr } = await run(group);
      expect([status, stdout]).toEqual([2, '']);
      expect(stderr).toContain(`Usage: firn ${group}`);
    }
  });
});

describe('what is to be backed up', () => {
  it('are files by themselves, machines once FIRN_HOST is set, and files again with --disk', async () => {
    const codeOf = async (more: Record<string, string>, ...parameters: string[]) =>
      exitError(await firn(['backup', ...parameters, '--json'], { env: { ...env, ...more } }))
        .error;
    const none = at('none.vhdx');
    expect(await codeOf({}, none)).toMatchObject({ code: 'ERR_NOT_FOUND', path: none });
    const host = { FIRN_HOST: 'esx:x' };
    expect((await codeOf(host, none)).message).toContain('Expected a host');
    expect(await codeOf(host, '-d', none)).toMatchObject({ code: 'ERR_NOT_FOUND', path: none });
  });

  it('comes from the command line, else from the job file, else from the environment', async () => {
    writeFileSync(at('job.yaml'), 'host: "file:job"\nall: true\n');
    const hostOf = async (...parameters: string[]) => {
      const both = { ...env, FIRN_HOST: 'env:x' };
      const finished = await firn(['backup', ...parameters, '--json'], { env: both });
      return /but received "(.*)"/.exec(String(exitError(finished).error.message))?.[1];
    };
    expect(await hostOf('--all')).toBe('env:x');
    expect(await hostOf('--job', at('job.yaml'))).toBe('file:job');
    expect(await hostOf('--job', at('job.yaml'), '--host', 'flag:x')).toBe('flag:x');
  });
});

describe('an empty journal', () => {
  it('has no runs, and nothing to finish', async () => {
    const list = await run('runs', 'list');
    expect([list.status, list.stdout, list.stderr]).toEqual([0, '', 'no runs yet\n']);
    expect(jsonLines(await run('runs', 'list', '--json'))).toEqual([{ runs: [] }]);
    expect((await run('runs', 'show')).status).toBe(10);
    const reconciled = await run('reconcile');
    expect([reconciled.status, reconciled.stdout]).toEqual([0, 'nothing to finish\n']);
    expect(jsonLines(await run('reconcile', '--json'))).toEqual([
      { message_type: 'summary', dryRun: false, hosts: [] },
    ]);
  });
});

describe('a journal', () => {
  const DEAD = `1${'0'.repeat(31)}`;
  const ACTIVE = `2${'0'.repeat(31)}`;
  const DONE = `3${'0'.repeat(31)}`;
  const [web, database] = [
    { id: 'id-1', name: 'web' },
    { id: 'id-2', name: 'data\u001b[2Jbase' },
  ];
  const state = at('journal');
  let journal: Journal;
  let claim: Claim;

  beforeAll(() => {
    journal = Journal.open(state);
    const common = { host: `lab:${at('nowhere')}`, repository: at('repository') };
    const dead = journal.begin({ ...common, id: DEAD, job: 'nightly', vms: [web, database] });
    journal.endStep(journal.beginStep(DEAD, web, 'freeze', false));
    journal.endStep(
      journal.beginStep(DEAD, web, 'checkpoint', false),
      firnError('ERR_CHECKPOINT_FAILED', 'no room'),
    );
    journal.beginStep(DEAD, database, 'merge', true);
    journal.setReleased(DEAD, web);
    dead.release(false);
    const vm = { id: 'id-3', name: 'files' };
    claim = journal.begin({ ...common, id: ACTIVE, vms: [vm] });
    const other = { id: 'id-4', name: 'mail' };
    const done = journal.begin({ ...common, id: DONE, vms: [other] });
    journal.setVm(DONE, other, 'sealed', 'ab'.repeat(16));
    journal.setReleased(DONE, other);
    journal.end(DONE, 'done');
    done.release(true);
  });
  afterAll(() => {
    claim.release(false);
    journal.close();
  });

  it('is listed newest first, with what became of each run', async () => {
    const { status, stdout } = await run('runs', 'list', '--state', state);
    expect(status).toBe(0);
    const [, ...rows] = stdout.trimEnd().split('\n');
    expect(rows).toHaveLength(3);
    expect(rows[0]).toMatch(/^30000000 .* done +1\/1 +mail +- +lab:/);
    expect(rows[1]).toMatch(/^20000000 .* active +0\/1 +files +- +lab:/);
    expect(rows[2]).toMatch(/^10000000 .* dead +0\/2 +web, data\\u001b\[2Jbase +nightly +lab:/);
    expect((await run('runs', 'list', '--limit', '1', '--state', state)).stdout).not.toMatch('web');
  });

  it('shows a run step by step, by the beginning of its id', async () => {
    const { stdout } = await run('runs', 'show', '10', '--state', state);
    expect(stdout).toMatch(/^run 10{31}$/m);
    expect(stdout).toMatch(/^ {2}state +dead: its process is gone/m);
    expect(stdout).toMatch(/ web +freeze +[\d.]+ s +done +run$/m);
    expect(stdout).toMatch(/ checkpoint +[\d.]+ s +failed +run +ERR_CHECKPOINT_FAILED no room$/m);
    expect(stdout).toMatch(/data\\u001b\[2Jbase +merge +- +begun +reconciler$/m);
    const [document] = jsonLines(await run('runs', 'show', '--json', '--state', state));
    expect(document).toMatchObject({ run: { id: DONE, state: 'done' }, steps: [] });
    expect((await run('runs', 'show', '9', '--state', state)).status).toBe(10);
  });

  it('is looked at by the doctor, who names what died and where', async () => {
    const { status, stdout } = await run('doctor', '--state', state);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ok +firn engine: version /m);
    expect(stdout).toMatch(/^ok +firn repository: 0 points in /m);
    expect(stdout).toMatch(
      /^warning +journal runs: 1 run died .* at data.*base, 1 run under way$/m,
    );
    expect(stdout).toContain('Run "firn reconcile"');
  });

  it('does not have a run taken up whose process lives', async () => {
    const finished = await run('reconcile', '--run', '2', '--state', state, '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([11, 'ERR_VM_BUSY']);
  });

  it('whose host is away is not reconciled, and that is no silence', async () => {
    const finished = await run('reconcile', '--state', state, '--json');
    expect(finished.status).not.toBe(0);
    expect(jsonLines(finished).at(-1)).toMatchObject({
      message_type: 'summary',
      hosts: [{ host: `lab:${at('nowhere')}`, runs: [], error: {} }],
    });
  });
});

describe('the doctor', () => {
  it('ends with 1 when something is broken, and looks at the rest nonetheless', async () => {
    writeFileSync(at('file'), '');
    const broken = { FIRN_STATE: at('file', 'state'), FIRN_REPOSITORY: at('none') };
    const finished = await firn(['doctor', '--json'], { env: broken });
    expect(finished.status).toBe(1);
    const [document] = jsonLines(finished) as [{ ok: boolean; checks: object[] }];
    expect(document.ok).toBe(false);
    expect(document.checks).toMatchObject([
      { name: 'engine', state: 'ok' },
      { name: 'repository', state: 'error', hint: expect.any(String) },
      { name: 'runs', state: 'error', message: expect.stringContaining('ERR_JOURNAL') },
    ]);
  });
});
