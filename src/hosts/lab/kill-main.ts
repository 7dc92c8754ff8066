/**
 * Kills all machines of a lab: `node kill-main.js FOLDER`. A program of its own because the fault "host-dies" goes off where nothing can be
 * waited for but a process. Each process is asked for its id, so that none but a machine's is hit.
 */

import process from 'node:process';
import { vmFolders } from './vm-file.js';
import { statusOf } from './vm-status.js';

const [, , lab] = process.argv;
if (lab === undefined) throw new Error('Expected the folder of a lab');
await Promise.all(
  vmFolders(lab).map(async (folder) => {
    const status = await statusOf(folder);
    if (status !== undefined) process.kill(status.pid, 'SIGKILL');
  }),
);
