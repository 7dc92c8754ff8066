/**
 * A run in a process of its own that can be killed: captures or releases one machine with the compiled host, and tells each step on
 * standard output. `node child.mjs '{"root", "action", "mark", "dieAt"}'`; at "freeze:begun", "merge:done" and so on it kills itself, or
 * stands still with "stopAt". With "since", a capture tracks; with "copyTo", a capture is followed by copies of the frozen disks into that folder, over and over.
 */

import path from 'node:path';
import { QemuHost } from '../../../dist/hosts/qemu/qemu-host.js';
import { referenceName } from '../../../dist/hosts/tracking.js';
import { copyDisk } from '../../../dist/jobs/copy.js';

const {
  root,
  action,
  mark,
  dieAt,
  stopAt,
  copyTo,
  since,
  freezeDeadlineMs = 60_000,
} = JSON.parse(process.argv[2]);

function tell(moment) {
  process.stdout.write(`${moment}\n`);
  if (moment === dieAt) process.kill(process.pid, 'SIGKILL');
  if (moment === stopAt) process.kill(process.pid, 'SIGSTOP');
}

const steps = {
  async run(_vm, step, { deadlineMs }, work) {
    tell(`${step}:begun`);
    const signal =
      deadlineMs === undefined ? new AbortController().signal : AbortSignal.timeout(deadlineMs);
    const result = await work(signal);
    tell(`${step}:done`);
    return result;
  },
};

async function copyAll(outcomes, round) {
  for (const disk of outcomes.flatMap(({ capture }) => capture?.disks ?? [])) {
    const target = path.join(copyTo, `${disk.name}.raw`);
    await copyDisk(disk.layers[0], target, { force: true });
    if (round === 0) tell(`copied ${disk.name}`);
  }
}

const host = new QemuHost(root);
const vms = await host.listVms();
if (action === 'capture') {
  const policy = { wanted: 'application', required: 'crash' };
  const tracking = since && {
    mode: 'auto',
    name: referenceName('0'.repeat(32), mark.slice(-32)),
    since,
  };
  const requests = vms.map((vm) => ({
    vm,
    policy,
    excludedDisks: [],
    freezeDeadlineMs,
    tracking,
  }));
  const outcomes = await host.capture(requests, mark, steps);
  const told = outcomes.map(({ error, capture }) => error?.message ?? capture.consistency);
  tell(`captured ${told}`);
  // Until it is killed.
  for (let round = 0; copyTo !== undefined; round++) await copyAll(outcomes, round);
  setInterval(() => undefined, 1000);
} else {
  const outcomes = await host.release(vms, mark, 60_000, steps);
  tell(`released ${JSON.stringify(outcomes.map(({ error }) => error?.message))}`);
}
