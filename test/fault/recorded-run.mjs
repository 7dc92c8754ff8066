/**
 * What is recorded under recorder.c: a run over the machines of a lab, into a state folder that is new. Each file that it makes in `marks`
 * says what is about to happen at a machine, or that nothing of the run is left there.
 *
 *   node recorded-run.mjs FOLDER STATE LAB REPOSITORY     marks go to FOLDER/marks
 */

import { writeFileSync } from 'node:fs';
import path from 'node:path';

const { Journal, Repository, VM_BACKUP_DEFAULTS, backupVms, openHost } = await import(
  new URL('../../dist/index.js', import.meta.url).href
);
const [folder, state, lab, root] = process.argv.slice(2);
const mark = (text) => writeFileSync(path.join(folder, 'marks', text), '');

const journal = Journal.open(state);
const repository = await Repository.open(root);
const host = await openHost(`lab:${lab}`);
const { run } = await backupVms(repository, host, journal, {
  ...VM_BACKUP_DEFAULTS,
  tracking: 'none',
  vms: undefined,
  excludedDisks: [],
  map: [],
  tuning: { workers: 2, backend: 'threads' },
  space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
  onEvent: ({ type, step, state: stage }) => {
    if (type === 'step' && stage === 'begun') mark(`step ${step}`);
  },
});
mark(`over ${run}`);
