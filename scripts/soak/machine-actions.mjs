/**
 * What is done with machines: backups that nothing disturbs and must succeed; backups that are killed, interrupted or meet faults; and the
 * faults, power cuts and restarts themselves.
 *
 * An action that must succeed has its lab to itself, so that nobody switches a fault on meanwhile; only the collection and the
 * reconcilers that never stop may still come between. All others take what comes.
 */

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { killVm } from '../../dist/hosts/lab/lab.js';
import { lastMessage } from './commands.mjs';
import { sha256OfFile } from './world.mjs';

/** What a disturbed backup may end with: done, done in part, busy, not readable or writable, or a host or guest that failed. */
const FINE_WHEN_DISTURBED = [0, 3, 11, 20, 25];
/** A collection took away what the run relied on: it may be run again. A reconciler was at the machine. */
const OVERTAKEN = ['ERR_REPOSITORY_CHANGED', 'ERR_VM_BUSY'];
const TRIES = 5;
const MERGE_SEEN_MS = 30_000;
const ENTRIES_OF_RUN = 16;

function backupLine(random, lab, store, machines) {
  const codec = random.weighted({ lz4: 5, zstd: 1, raw: 1 });
  return [
    ...['backup', ...machines, '--host', lab.host, ...store.options, '--codec', codec],
    ...['--freeze-deadline', '3s', '--min-free', '64M'],
  ];
}

function someMachines(random, lab) {
  return random.chance(0.5) ? ['--all'] : [random.pick(lab.vms)];
}

function pickStore(random, world) {
  const [open, sealed] = world.stores;
  return random.chance(0.7) ? open : sealed;
}

/** Brings all machines of the lab up, without faults and without what dead runs left. */
export async function bringToRest(world, lab) {
  await world.must('lab fault', ['lab', 'fault', lab.folder, '--clear']);
  await world.must('lab start', ['lab', 'start', lab.folder]);
  await world.must('reconcile at rest', ['reconcile', '--host', lab.host, ...world.key]);
}

/** What a backup says of points holds at once, also if it is killed right after. */
function promisePoints(world, store, { messages }) {
  const done = messages.filter((message) => message.message_type === 'vm');
  const points = done.map(({ point, vm }) => [point, vm.name]);
  world.promise(store, points);
}

/** Runs a backup that nothing disturbs until it is done; gives its summary. */
async function calmBackup(world, kind, store, line) {
  for (let attempt = 1; ; attempt++) {
    const result = await world.commands.run(kind, line);
    const isOvertaken =
      result.status !== 0 &&
      result.codes.every((code) => OVERTAKEN.includes(code) || code === 'ERR_INCOMPLETE');
    if (isOvertaken && result.signal === null && attempt < TRIES) {
      world.log(`${kind} is overtaken: ${result.codes.join(' ')}`);
      continue;
    }
    world.judge(kind, result, [0]);
    promisePoints(world, store, result);
    return lastMessage(result);
  }
}

function checkSummary(world, lab, summary, count) {
  if (summary === undefined) return;
  world.expect('a calm backup has a point of each machine', summary.points.length === count, {
    run: summary.run,
    points: summary.points,
  });
  for (const { vm, point, consistency } of summary.vms) {
    if (point === null) continue;
    world.expect('a calm backup is as consistent as its guest', consistency === lab.consistency, {
      run: summary.run,
      vm: vm.name,
      consistency,
    });
  }
}

async function calm(world, lab, random) {
  await lab.alone(async () => {
    await bringToRest(world, lab);
    const machines = someMachines(random, lab);
    const tracking = random.weighted({ auto: 2, checkpoint: 2, none: 1 });
    const store = pickStore(random, world);
    const line = [...backupLine(random, lab, store, machines), '--tracking', tracking];
    const summary = await calmBackup(world, 'backup, calm', store, line);
    checkSummary(world, lab, summary, machines[0] === '--all' ? lab.vms.length : 1);
  });
}

/** A backup whose frozen disks are read by another process beside it, while its merge is held up. */
async function witnessed(world, lab, random) {
  await lab.alone(async () => {
    await bringToRest(world, lab);
    const vm = random.pick(lab.vms);
    const store = pickStore(random, world);
    await world.must('lab fault', ['lab', 'fault', lab.folder, 'merge-stalls', '--vm', vm]);
    const line = [...backupLine(random, lab, store, [vm]), '--tracking', 'none'];
    let over = false;
    const running = calmBackup(world, 'backup, witnessed', store, line).finally(() => {
      over = true;
    });
    const frozen = await frozenHashes(world, lab, vm, () => over).finally(() =>
      world.must('lab fault', ['lab', 'fault', lab.folder, '--clear']),
    );
    const summary = await running;
    const id = summary?.points[0];
    // The merge that was held up may have been another one, of a run that died: then the disks stood frozen at another time.
    const isOfThisRun = frozen?.merging.includes(summary?.run) === true;
    if (!isOfThisRun || id === undefined || id === null) return;
    const { hashes } = frozen;
    const shown = await world.must('show', ['show', id, ...store.options]);
    for (const { name, root } of shown.messages[0]?.disks ?? []) {
      if (hashes.has(name)) world.noteContent(root, hashes.get(name), 'what was frozen');
    }
  });
}

/** SHA-256 of each frozen disk by name, from a copy that another process makes of its layers, and the checkpoint that is being merged. */
async function frozenHashes(world, lab, vm, isOver) {
  const until = performance.now() + MERGE_SEEN_MS;
  let machine = await lab.machine(vm);
  while (machine.merging === undefined || machine.disks.some((disk) => disk.layers.length < 2)) {
    if (isOver() || performance.now() > until) return undefined;
    await delay(20);
    machine = await lab.machine(vm);
  }
  return world.withFolder(async (folder) => {
    const hashes = new Map();
    for (const { name, layers } of machine.disks) {
      const copy = join(folder, `${name}.raw`);
      const { status } = await world.must('copy', ['copy', layers[1], copy]);
      if (status === 0) hashes.set(name, await sha256OfFile(copy));
    }
    return isOver() ? undefined : { merging: machine.merging, hashes };
  });
}

/** With its guest at rest, a machine's incremental backup has the same content ids as one that reads all. */
async function proof(world, lab, random) {
  await lab.alone(async () => {
    await bringToRest(world, lab);
    const vm = random.pick(lab.vms);
    const store = pickStore(random, world);
    const first = [...backupLine(random, lab, store, [vm]), '--tracking', 'checkpoint'];
    await calmBackup(world, 'backup, calm', store, first);
    await delay(random.integer(0, 1500));
    await world.must('lab stop', ['lab', 'stop', lab.folder, vm]);
    const roots = [];
    for (const tracking of ['checkpoint', 'none']) {
      const line = [...backupLine(random, lab, store, [vm]), '--tracking', tracking];
      const id = (await calmBackup(world, 'backup, proof', store, line))?.points[0];
      if (id === undefined || id === null) return;
      const shown = await world.must('show', ['show', id, ...store.options]);
      const disks = shown.messages[0]?.disks.filter(({ fileBytes }) => fileBytes === undefined);
      roots.push(disks?.map(({ root }) => root).join(' '));
    }
    world.expect('an incremental backup has the content ids of a full one', roots[0] === roots[1], {
      vm,
      roots,
    });
  });
}

async function killed(world, lab, random) {
  const store = pickStore(random, world);
  const line = backupLine(random, lab, store, someMachines(random, lab));
  const tracking = random.weighted({ auto: 2, checkpoint: 2, none: 1 });
  const isInterrupt = random.chance(0.25);
  const kind = isInterrupt ? 'backup, interrupted' : 'backup, killed';
  const result = await world.commands.run(kind, [...line, '--tracking', tracking], {
    endAt: random.fraction() * 1.4,
    signal: isInterrupt ? 'SIGINT' : 'SIGKILL',
  });
  promisePoints(world, store, result);
  judgeDisturbed(world, kind, result);
}

async function disturbed(world, lab, random) {
  const store = pickStore(random, world);
  const line = backupLine(random, lab, store, someMachines(random, lab));
  const tracking = random.weighted({ auto: 1, checkpoint: 2 });
  const parameters = [...line, '--tracking', tracking, '--merge-deadline', '3s'];
  if (random.chance(0.7)) await setFault(world, lab, random);
  const result = await world.commands.run('backup, disturbed', parameters);
  promisePoints(world, store, result);
  judgeDisturbed(world, 'backup, disturbed', result);
}

/** A fault that kills Firn may have been on. */
function judgeDisturbed(world, kind, result) {
  if (result.signal === 'SIGKILL') {
    // Not by the soak, so by a fault at an entry of the journal.
    if (!result.wasEnded) world.killedByFaults++;
    return;
  }
  world.judge(kind, result, FINE_WHEN_DISTURBED);
}

/** Everything that may be switched on; what does not end by itself is cleared by a later action. */
async function setFault(world, lab, random) {
  const fault = random.weighted({
    'freeze-hangs': 1,
    'freeze-refuses': 1,
    'freeze-slow': 1,
    'checkpoint-fails': 1,
    'merge-fails': 1,
    'merge-stalls': 1,
    'volume-full': 1,
    'host-dies': 2,
    'firn-dies': 3,
  });
  const parameters = ['lab', 'fault', lab.folder, fault];
  if (random.chance(0.6)) parameters.push('--vm', random.pick(lab.vms));
  if (!['merge-stalls', 'volume-full'].includes(fault)) parameters.push('--once');
  if (fault === 'freeze-slow') parameters.push('--ms', String(random.integer(100, 4000)));
  if (fault.endsWith('-dies')) {
    parameters.push('--step', String(random.integer(1, ENTRIES_OF_RUN)));
  }
  world.faults[fault] = (world.faults[fault] ?? 0) + 1;
  await world.must('lab fault', parameters);
}

async function reconcile(world, lab, random) {
  const endAt = random.chance(0.5) ? random.fraction() * 1.2 : undefined;
  // Without the sealed repository's key the machines are released all the same, and the run waits for somebody who has it.
  const key = random.chance(0.5) ? world.key : [];
  const parameters = ['reconcile', '--host', lab.host, '--merge-deadline', '3s', ...key];
  const result = await world.commands.run('reconcile', parameters, { endAt });
  judgeDisturbed(world, 'reconcile', result);
}

async function untrack(world, lab, random) {
  await lab.alone(async () => {
    await bringToRest(world, lab);
    const vm = random.pick(lab.vms);
    await world.must('vm untrack', ['vm', 'untrack', vm, '--host', lab.host]);
    const left = (await lab.machine(vm)).checkpoints.filter(({ kind }) => kind === 'reference');
    world.expect('untracked, a machine keeps no reference', left.length === 0, { vm, left });
  });
}

const BACKUPS = { calm, witnessed, proof, killed, disturbed, reconcile, untrack };
const BACKUP_WEIGHTS = {
  calm: 4,
  witnessed: 2,
  proof: 1,
  killed: 5,
  disturbed: 5,
  reconcile: 1,
  untrack: 0.5,
};

/** One action of those that back a lab's machines up. */
export async function machineAction(world, lab, random) {
  await BACKUPS[random.weighted(BACKUP_WEIGHTS)](world, lab, random);
}

/** One action of those that happen to the machines; none while an action has the lab to itself. */
export async function disturbanceAction(world, random) {
  const lab = random.pick(world.labs);
  const what = random.weighted({ fault: 2, clear: 3, start: 4, stop: 1, kill: 1 });
  const vm = random.pick(lab.vms);
  await delay(random.integer(300, 2500));
  if (lab.isBusy) return;
  world.worldActions[what] = (world.worldActions[what] ?? 0) + 1;
  await lab.alone(async () => {
    if (what === 'fault') await setFault(world, lab, random);
    else if (what === 'clear')
      await world.must('lab fault', ['lab', 'fault', lab.folder, '--clear']);
    else if (what === 'kill') await killVm(lab.folder, vm);
    else
      await world.must(`lab ${what}`, ['lab', what, lab.folder, ...(what === 'stop' ? [vm] : [])]);
  });
}
