/** The journal and the claims: what is durable, who is alive, who may take up what. Other processes are real ones. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { firnError } from '../../../src/errors.js';
import { Claim, isClaimed } from '../../../src/jobs/runs/claim.js';
import { Journal } from '../../../src/jobs/runs/journal.js';
import { newId } from '../../../src/repository/format/names.js';
import { temporaryFolder } from '../../helpers/folder.js';

const CLAIM_MODULE = new URL('../../../dist/jobs/runs/claim.js', import.meta.url).href;
const VM = { id: 'vm-1', name: 'web' };
const OTHER_VM = { id: 'vm-2', name: 'db' };
const children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

async function openJournal() {
  const folder = await temporaryFolder();
  return { folder, journal: Journal.open(folder) };
}

function beginRun(journal: Journal, vms = [VM], host = 'lab:/lab') {
  const id = newId();
  return { id, claim: journal.begin({ id, host, repository: '/backups', job: 'nightly', vms }) };
}

/** A process that holds the claim until it is killed. */
async function claimElsewhere(folder: string, run: string): Promise<ChildProcess> {
  const program = `
    const { Claim } = await import(${JSON.stringify(CLAIM_MODULE)});
    const claim = Claim.take(${JSON.stringify(folder)}, ${JSON.stringify(run)});
    process.stdout.write(claim === undefined ? 'refused' : 'taken');
    setInterval(() => claim, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: fileURLToPath(new URL('../../..', import.meta.url)),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [answer] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(answer.toString()).toBe('taken');
  return child;
}

async function killed(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

describe('a claim', () => {
  test('is held by one at a time, also within one process', async () => {
    const folder = await temporaryFolder();
    const run = newId();
    const claim = Claim.take(folder, run);
    expect(Claim.take(folder, run)).toBeUndefined();
    claim?.release(false);
    const again = Claim.take(folder, run);
    expect(again).toBeDefined();
    again?.release(true);
    expect(isClaimed(folder, run)).toBe(false);
  });

  test('ends with the process that holds it, however that dies', async () => {
    const folder = await temporaryFolder();
    const run = newId();
    const child = await claimElsewhere(folder, run);
    expect(isClaimed(folder, run)).toBe(true);
    await killed(child);
    expect(isClaimed(folder, run)).toBe(false);
  });
});

describe('the journal', () => {
  test('gives back what was written, also to a process that opens it later', async () => {
    const { folder, journal } = await openJournal();
    const { id, claim } = beginRun(journal, [VM, OTHER_VM]);
    const step = journal.beginStep(id, VM, 'freeze', false);
    journal.endStep(step);
    journal.endStep(
      journal.beginStep(id, OTHER_VM, 'freeze', false),
      firnError('ERR_FREEZE_FAILED', 'the guest refused'),
    );
    journal.beginStep(id, VM, 'read', false);
    journal.setVm(id, VM, 'sealed', 'a'.repeat(32));
    journal.close();

    const later = Journal.open(folder);
    const { run, steps } = later.run(id.slice(0, 8));
    expect(run).toMatchObject({ id, state: 'active', host: 'lab:/lab', job: 'nightly' });
    expect(run.vms).toEqual([
      { ...VM, state: 'sealed', point: 'a'.repeat(32) },
      { ...OTHER_VM, state: 'waiting' },
    ]);
    expect(steps.map(({ vm, step: name, state }) => [vm.id, name, state])).toEqual([
      ['vm-1', 'freeze', 'done'],
      ['vm-2', 'freeze', 'failed'],
      ['vm-1', 'read', 'begun'],
    ]);
    expect(steps[1]?.error).toEqual({ code: 'ERR_FREEZE_FAILED', message: 'the guest refused' });
    claim.release(false);
    later.close();
  });

  test('calls a run dead when its process is gone and something may be left', async () => {
    const { journal } = await openJournal();
    const { id, claim } = beginRun(journal);
    claim.release(false);
    expect(journal.run(id).run.state).toBe('dead');
    expect(journal.unfinished().map((run) => run.id)).toEqual([id]);
    expect(journal.unfinishedHosts()).toEqual(['lab:/lab']);
    journal.setReleased(id, VM);
    journal.end(id, 'reconciled');
    expect(journal.run(id).run.state).toBe('reconciled');
    expect(journal.unfinished()).toEqual([]);
    journal.close();
  });

  test('keeps a run unfinished that ended with a machine not released', async () => {
    const { journal } = await openJournal();
    const { id, claim } = beginRun(journal);
    journal.end(id, 'partial');
    claim.release(false);
    expect(journal.unfinished().map((run) => run.id)).toEqual([id]);
    expect(journal.run(id).run.state).toBe('dead');
    journal.close();
  });

  test('refuses a run for a machine that another run is at, and names that run', async () => {
    const { journal } = await openJournal();
    const first = beginRun(journal, [VM]);
    expect(() => beginRun(journal, [OTHER_VM, VM])).toThrowError(
      expect.objectContaining({
        code: 'ERR_VM_BUSY',
        message: expect.stringContaining(first.id) as string,
      }),
    );
    // A refused run leaves nothing, and machines of other hosts and other machines are free.
    beginRun(journal, [OTHER_VM]).claim.release(false);
    beginRun(journal, [VM], 'lab:/other').claim.release(false);
    expect(journal.runs()).toHaveLength(3);
    first.claim.release(false);
    journal.close();
  });

  test('refuses a machine at which a dead run left something, until it is released', async () => {
    const { journal } = await openJournal();
    const dead = beginRun(journal);
    dead.claim.release(false);
    expect(() => beginRun(journal)).toThrowError(expect.objectContaining({ code: 'ERR_VM_BUSY' }));
    journal.setReleased(dead.id, VM);
    beginRun(journal).claim.release(false);
    journal.close();
  });

  test('knows no run by a text that is none or that several begin with', async () => {
    const { journal } = await openJournal();
    for (const text of ['0'.repeat(32), 'x', '', "' OR 1=1 --", '%']) {
      expect(() => journal.run(text), text).toThrowError(
        expect.objectContaining({ code: 'ERR_RUN_NOT_FOUND' }),
      );
    }
    journal.close();
  });

  test('says ERR_JOURNAL with the folder when it cannot be opened', async () => {
    const folder = await temporaryFolder();
    const journal = Journal.open(folder);
    journal.close();
    expect(() => Journal.open(`${folder}/journal.db/below`)).toThrowError(
      expect.objectContaining({ code: 'ERR_JOURNAL', path: `${folder}/journal.db/below` }),
    );
  });

  test('lists the newest runs first', async () => {
    const { journal } = await openJournal();
    const ids = [VM, OTHER_VM].map((vm) => {
      const { id, claim } = beginRun(journal, [vm]);
      claim.release(false);
      return id;
    });
    expect(journal.runs().map((run) => run.id)).toEqual(ids.reverse());
    expect(journal.runs(1)).toHaveLength(1);
    journal.close();
  });
});
