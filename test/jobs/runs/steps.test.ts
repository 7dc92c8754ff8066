/** Steps: the record goes before the work and after it, deadlines hold, and giving up is told apart from failing. */

import { describe, expect, test } from 'vitest';
import { firnError } from '../../../src/errors.js';
import type { Host } from '../../../src/hosts/host.js';
import { Journal } from '../../../src/jobs/runs/journal.js';
import { JournaledSteps } from '../../../src/jobs/runs/steps.js';
import type { VmEvent } from '../../../src/jobs/runs/types.js';
import { newId } from '../../../src/repository/format/names.js';
import { temporaryFolder } from '../../helpers/folder.js';

const VM = { id: 'vm-1', name: 'web' };

async function setUp(signal?: AbortSignal) {
  const journal = Journal.open(await temporaryFolder());
  const run = newId();
  const claim = journal.begin({ id: run, host: 'lab:/lab', repository: '/r', vms: [VM] });
  const seen: string[] = [];
  // Steps ask nothing of a host but to observe.
  const host = { observe: ({ state }: { state: string }) => seen.push(state) } as unknown as Host;
  const events: VmEvent[] = [];
  const onEvent = (event: VmEvent) => events.push(event);
  const steps = new JournaledSteps({ run, journal, host, signal, reconciled: false, onEvent });
  const record = () => journal.run(run).steps;
  return { steps, record, seen, events, done: () => claim.release(true) };
}

describe('a step', () => {
  test('stands in the journal as begun while its work is done, and as done after it', async () => {
    const { steps, record, seen, events, done } = await setUp();
    const result = await steps.run(VM, 'freeze', { deadlineMs: 1000 }, async () => {
      expect(record()).toMatchObject([{ step: 'freeze', state: 'begun' }]);
      expect(seen).toEqual(['begun']);
      return 42;
    });
    expect(result).toBe(42);
    expect(record()).toMatchObject([{ step: 'freeze', state: 'done', vm: VM }]);
    expect(seen).toEqual(['begun', 'done']);
    expect(events.map((event) => event.type === 'step' && event.state)).toEqual(['begun', 'done']);
    expect(steps.times(VM)).toMatchObject([{ step: 'freeze' }]);
    done();
  });

  test('that fails is recorded with its code, and throws what its work threw', async () => {
    const { steps, record, done } = await setUp();
    const failure = firnError('ERR_CHECKPOINT_FAILED', 'no space beside the disks');
    await expect(steps.run(VM, 'checkpoint', {}, () => Promise.reject(failure))).rejects.toBe(
      failure,
    );
    expect(record()).toMatchObject([
      { state: 'failed', error: { code: 'ERR_CHECKPOINT_FAILED', message: failure.message } },
    ]);
    done();
  });

  test('that overruns its deadline is told so and fails with ERR_DEADLINE', async () => {
    const { steps, record, done } = await setUp();
    let told = false;
    const work = (signal: AbortSignal) =>
      new Promise<never>((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          told = true;
          reject(new Error('stopped'));
        });
      });
    await expect(steps.run(VM, 'freeze', { deadlineMs: 20 }, work)).rejects.toMatchObject({
      code: 'ERR_DEADLINE',
      message: expect.stringContaining('web') as string,
    });
    expect(told).toBe(true);
    expect(record()).toMatchObject([{ state: 'failed', error: { code: 'ERR_DEADLINE' } }]);
    done();
  });

  test('whose work is done although the signal fired has succeeded', async () => {
    const { steps, record, done } = await setUp();
    const work = (signal: AbortSignal) =>
      new Promise<string>((resolve) => {
        signal.addEventListener('abort', () => resolve('made it'));
      });
    expect(await steps.run(VM, 'checkpoint', { deadlineMs: 20 }, work)).toBe('made it');
    expect(record()).toMatchObject([{ state: 'done' }]);
    done();
  });

  test('of a run that is given up ends as aborted, and none is begun after that', async () => {
    const controller = new AbortController();
    const { steps, record, done } = await setUp(controller.signal);
    const work = (signal: AbortSignal) =>
      new Promise<never>((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(new Error('stopped')));
        controller.abort();
      });
    await expect(steps.run(VM, 'read', {}, work)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(steps.run(VM, 'seal', {}, async () => 1)).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect(record()).toHaveLength(1);
    done();
  });
});
