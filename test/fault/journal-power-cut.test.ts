/**
 * Goal: a power cut at any moment of a run leaves nothing at a machine that nobody knows of. Method: real runs over a machine of a lab are
 * recorded (recorder.c), as far as they write the journal, and die at a step or not at all. Then the states of the state folder that a file
 * system may be found in afterwards are written out: in each the journal opens, and has the run for unfinished from the moment at which
 * something may stand at the machine. From the worst of the states in which a run dies, `firn reconcile`, or the next run, cleans up.
 */

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runOfMark } from '../../src/hosts/host.js';
import { createLab, labStatus, setFault, startLab, stopLab } from '../../src/hosts/lab/lab.js';
import { Journal } from '../../src/jobs/runs/journal.js';
import {
  ALL,
  compileRecorder,
  FATES,
  type Fate,
  lookAtStates,
  type RecordedCall,
  RecordedFileSystem,
  readRecord,
  runRecorded,
  seededRandom,
} from '../helpers/crash-states.js';
import { firn } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const MIB = 2 ** 20;
const program = fileURLToPath(new URL('recorded-run.mjs', import.meta.url));

const folder = suiteFolder();
const lab = path.join(folder, 'lab');
const repository = path.join(folder, 'repository');
const recorder = compileRecorder(folder);

describe.skipIf(recorder === undefined)(
  'after a power cut, on a file system that keeps what it promised',
  () => {
    beforeAll(async () => {
      await createLab(lab, {
        vms: [{ name: 'web', sizeBytes: 64 * MIB, dataBytes: 4 * MIB, blockBytes: MIB }],
      });
      await startLab(lab);
      expect((await firn(['init', repository])).status).toBe(0);
    });
    afterAll(() => stopLab(lab));

    test('the journal opens at any moment, and has every run that may have left something', async () => {
      const { calls } = await record('whole');
      const { opened, unfinished, over } = await openStates(calls, 'whole');
      console.log(`journal: ${opened} states at ${calls.length} calls were opened`);
      expect(opened).toBeGreaterThan(100);
      expect(unfinished).toBeGreaterThan(10);
      expect(over).toBeGreaterThan(0);
    }, 300_000);

    test('the model takes away what is not synced: without syncs, runs would be lost', async () => {
      const { calls } = await record('unsynced');
      await expect(openStates(calls, 'unsynced', 'S')).rejects.toThrow(/^after call/);
      await expect(openStates(calls, 'unsynced', 'D')).rejects.toThrow(/^after call/);
    }, 300_000);

    // The checkpoint has been made; the point is about to be sealed; the merge is about to be done.
    test.each([4, 9, 11])(
      'when a run dies at entry %i, what it left goes',
      async (entry) => {
        await setFault(lab, { name: 'firn-dies', step: entry, once: true });
        const name = `dead-${entry}`;
        const { calls, signal } = await record(name);
        expect(signal).toBe('SIGKILL');
        expect(await marks()).not.toEqual([]);
        const files = new RecordedFileSystem(rootOf(name));
        for (const call of calls) files.take(call);
        const state = path.join(folder, `${name}-after`);
        await files.writeTo(state, 'lost', seededRandom(1));
        const common = ['--host', `lab:${lab}`, '--state', path.join(state, 'var/firn'), '--json'];
        const line =
          entry === 9
            ? ['backup', 'web', ...common, '-r', repository, '--min-free', '0']
            : ['reconcile', ...common];
        const finished = await firn(line);
        expect([finished.status, finished.stderr]).toEqual([0, '']);
        expect(await marks()).toEqual([]);
      },
      120_000,
    );
  },
);

function rootOf(name: string): string {
  return path.join(folder, name, 'root');
}

/** Names of checkpoints and layers of the machine that bear a mark of a run. */
async function marks(): Promise<string[]> {
  const { vms } = await labStatus(lab);
  return vms
    .flatMap(({ checkpoints, disks }) => [
      ...checkpoints.map((checkpoint) => checkpoint.name),
      ...disks.flatMap((disk) => disk.layers),
    ])
    .filter((name) => runOfMark(name) !== undefined);
}

/** A run into a new state folder, which is made two levels below the folder that is recorded, as /var/lib/firn may be. */
async function record(name: string) {
  const place = path.join(folder, name);
  await mkdir(path.join(place, 'marks'), { recursive: true });
  await mkdir(rootOf(name));
  const log = path.join(place, 'log');
  const state = path.join(rootOf(name), 'var/firn');
  const command = [program, place, state, lab, repository];
  const finished = runRecorded(recorder ?? '', rootOf(name), log, command);
  expect(finished.stderr).toBe('');
  return { calls: await readRecord(log), signal: finished.signal };
}

/** Opens the states at moments all over the record; rejects with the first that is not as promised. */
async function openStates(calls: readonly RecordedCall[], name: string, unsynced = '') {
  const counts = { opened: 0, unfinished: 0, over: 0 };
  const files = new RecordedFileSystem(rootOf(name));
  const random = seededRandom(40);
  const state = path.join(folder, `${name}-state${unsynced}`);
  let stands = false;
  let over = '';
  for (const [index, call] of calls.entries()) {
    if (call.kind === 'K') {
      const mark = call.first.toString('utf8');
      if (mark === 'step freeze') stands = true;
      // Nothing is left at the machine when this step has looked.
      if (mark === 'step confirm') stands = false;
      if (mark.startsWith('over ')) over = mark.slice('over '.length);
    }
    if (call.kind !== unsynced) files.take(call);
    const fates = ALL ? FATES : [FATES[index % FATES.length] as Fate];
    await lookAtStates(files, { call, index, fates }, { root: state, random }, () => {
      const found = look(path.join(state, 'var/firn'), over);
      if (stands) expect(found).toBe('unfinished');
      if (over !== '') expect(found).toBe('over');
      if (found === 'unfinished') counts.unfinished++;
      if (found === 'over') counts.over++;
      counts.opened++;
    });
  }
  return counts;
}

/** What a journal says of the only run that it may have. */
function look(state: string, run: string): 'nothing' | 'unfinished' | 'over' {
  const journal = Journal.open(state);
  try {
    const [known] = journal.runs();
    if (known === undefined) return 'nothing';
    if (run !== '') expect(known.id).toBe(run);
    // Its steps can be read too.
    journal.run(known.id);
    return journal.unfinished().length > 0 ? 'unfinished' : 'over';
  } finally {
    journal.close();
  }
}
