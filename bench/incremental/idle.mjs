/**
 * A disk of 1 TiB with 1 GiB of data on which nothing happened: with change tracking and without.
 *
 * With tracking it is a machine of a lab that is off, backed up by the run that a job makes; the time is
 * from its start to the seal. Without, it is the backup of the same image, held against reading what the
 * image holds with O_DIRECT in the same round.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createLab, labVm } from '../../dist/hosts/lab/lab.js';
import {
  backup,
  backupVms,
  Journal,
  openHost,
  Repository,
  VM_BACKUP_DEFAULTS,
} from '../../dist/index.js';
import { prepareCache, settle } from '../peers/measure.mjs';
import { inSeconds, newRepository, readUnbuffered, row, timedBackup, times } from './measured.mjs';

const GIB = 2 ** 30;

/** A run over the lab's only machine: seconds to the seal and to the end, and how the disk was read. */
async function run(repositoryFolder, lab, journal) {
  settle(repositoryFolder);
  const start = performance.now();
  let sealed;
  const onEvent = (event) => {
    if (event.type === 'step' && event.step === 'seal' && event.state === 'done') {
      sealed = (performance.now() - start) / 1000;
    }
  };
  const repository = await Repository.open(repositoryFolder);
  const { vms } = await backupVms(repository, await openHost(`lab:${lab}`), journal, {
    ...VM_BACKUP_DEFAULTS,
    vms: undefined,
    excludedDisks: [],
    map: [],
    space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
    tracking: 'checkpoint',
    onEvent,
  });
  const [{ error, releaseError, readings, point }] = vms;
  if (error ?? releaseError) throw error ?? releaseError;
  return { sealed, ended: (performance.now() - start) / 1000, readings, point };
}

export async function measureIdle({ scratch, rounds, virtualGib, idleDataMib, log }) {
  const lab = join(scratch, 'lab');
  const tracked = join(scratch, 'idle-tracked');
  const untracked = join(scratch, 'idle-untracked');
  const state = join(scratch, 'state');
  mkdirSync(state);
  await createLab(lab, {
    vms: [{ name: 'idle', sizeBytes: virtualGib * GIB, dataBytes: idleDataMib * 2 ** 20 }],
  });
  const [disk] = (await labVm(lab, 'idle')).disks;
  const image = disk.layers.at(-1);
  await newRepository(untracked);
  await backup(await Repository.open(untracked), { disks: [image], vm: 'bench' });
  await newRepository(tracked);
  const journal = Journal.open(state);
  const samples = [];
  try {
    await run(tracked, lab, journal);
    for (let round = -1; round < rounds; ++round) {
      const quick = await run(tracked, lab, journal);
      if (quick.readings.some(({ base }) => base?.changedBytes !== 0)) {
        throw new Error(`the idle disk was read: ${JSON.stringify(quick.readings)}`);
      }
      prepareCache(image, 'cold');
      const read = await readUnbuffered(image);
      prepareCache(image, 'cold');
      const { seconds, result } = await timedBackup(untracked, image);
      if (result.summary.newBytes !== 0) throw new Error('the idle disk was not known');
      if (round < 0) continue; // the warm-up
      samples.push({
        sealed: quick.sealed,
        ended: quick.ended,
        seconds,
        readSeconds: read.seconds,
        readBytes: read.bytes,
      });
      log(
        `idle, round ${round + 1}: tracked ${quick.sealed.toFixed(2)} s to the seal (${quick.ended.toFixed(2)} s to the end), ` +
          `read as a whole ${seconds.toFixed(2)} s, O_DIRECT ${read.seconds.toFixed(2)} s`,
      );
    }
  } finally {
    journal.close();
  }
  return { rows: idleRows(samples), notes: [idleNote(samples[0], virtualGib)] };
}

function idleRows(samples) {
  return [
    row({
      work: 'nothing changed, tracked: start to seal',
      asked: '< 0.5 s',
      values: samples.map((one) => one.sealed),
      show: inSeconds,
      most: 0.5,
    }),
    row({
      work: 'nothing changed, not tracked: time, against an O_DIRECT read',
      asked: '<= 1.2x',
      values: samples.map((one) => one.seconds / one.readSeconds),
      show: times,
      most: 1.2,
    }),
  ];
}

function idleNote({ sealed, ended, seconds, readSeconds, readBytes }, virtualGib) {
  return (
    `Nothing changed: a disk of ${virtualGib} GiB of which ${(readBytes / 2 ** 20).toFixed(0)} MiB are there. First round: tracked ${sealed.toFixed(2)} s ` +
    `to the seal and ${ended.toFixed(2)} s to the end of the merge; read as a whole ${seconds.toFixed(2)} s; O_DIRECT read of the same ${readSeconds.toFixed(2)} s ` +
    '(16 requests of 1 MiB). Both began with nothing of the disk in the page cache.'
  );
}
