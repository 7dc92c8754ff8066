/**
 * What is done with repositories, while backups go into them: restores that are held against what is known, forgets, prunes, verifies,
 * copies between siblings; a part of them killed.
 *
 * One lane does all of these, so that between two of them points only come and never go: a point that is missing then was lost.
 */

import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { lastMessage } from './commands.mjs';
import { sha256OfFile } from './world.mjs';

const KEPT_LEAST = 2;
const KEPT_MOST = 6;
/** Another collection, or a backup, was in the way; it may be tried again. */
const FINE_OR_BUSY = [0, 11];

function endAt(random, probability) {
  return random.chance(probability) ? random.fraction() * 1.2 : undefined;
}

/** Holds restored images against what is known of the point, and against the guest's own books. */
export async function checkRestored(world, point, folder, what) {
  for (const { name, root, fileBytes } of point.disks) {
    if (fileBytes !== undefined) continue;
    const file = [`${name}.raw`, name].map((each) => join(folder, each)).find(existsSync);
    if (file === undefined) world.find(`${what} lacks a disk`, { point: point.id, name });
    else world.noteContent(root, await sha256OfFile(file), what);
  }
  const line = ['lab', 'check', folder, '--expect', point.consistency];
  const checked = await world.must('lab check', line);
  world.expect(`the guest's books add up in ${what}`, checked.status === 0, {
    point: point.id,
    vm: point.vm.name,
  });
}

async function restore(world, store, random) {
  const point = random.pick(await world.list(store));
  if (point === undefined) return;
  await world.withFolder(async (folder) => {
    const options = ['--to', folder, '--format', 'raw', '--force'];
    const line = ['restore', point.id, ...store.options, ...options];
    // What a killed restore leaves is replaced by the next one.
    if (random.chance(0.25)) await world.must('restore', line, { endAt: random.fraction() });
    const { status } = await world.must('restore', line);
    if (status === 0) await checkRestored(world, point, folder, 'a restored disk');
  });
}

async function rescue(world, store, random) {
  const point = random.pick(await world.list(store));
  if (point === undefined) return;
  await world.withFolder(async (folder) => {
    const line = ['rescue', 'restore', point.id, ...store.options, '--to', folder];
    const { status } = await world.must('rescue restore', line);
    if (status === 0) await checkRestored(world, point, folder, 'a rescued disk');
  });
}

/** Forgets by a policy, of one machine or of all. As many as it keeps, and all that are held, must still be there. */
async function forget(world, store, random) {
  const before = await world.list(store);
  const all = [...new Set(before.map(({ vm }) => vm.name))].sort();
  if (all.length === 0) return;
  const vms = random.chance(0.5) ? [random.pick(all)] : all;
  const keep = random.integer(KEPT_LEAST, KEPT_MOST);
  const chosen = vms.flatMap((vm) => ['--vm', vm]);
  const line = ['forget', ...store.options, ...chosen, '--keep-last', String(keep)];
  const result = await world.commands.run('forget', line, { endAt: endAt(random, 0.25) });
  world.judge('forget', result, [0]);
  // Who was forgotten is known from what it said, if it lived to say it.
  const forgotten = lastMessage(result)?.forgotten;
  if (forgotten === undefined) doom(store, before, vms);
  const after = await world.list(store, new Set(forgotten));
  for (const vm of vms) checkKept(world, before, after, vm, keep);
}

/** All that a killed forget may have been about: what was there, and what has come meanwhile. */
function doom(store, before, vms) {
  const points = before.filter(({ vm, held }) => vms.includes(vm.name) && !held);
  const others = [...store.promised].filter(([, name]) => vms.includes(name));
  for (const id of [...points.map((point) => point.id), ...others.map(([each]) => each)]) {
    store.doomed.add(id);
  }
}

/** Points may have come meanwhile, and others be the newest by now; but never fewer. */
function checkKept(world, before, after, vm, keep) {
  const of = (points) => points.filter((point) => point.vm.name === vm);
  const least = Math.min(keep, of(before).length);
  world.expect('a forget keeps as many as its policy says', of(after).length >= least, {
    vm,
    keep,
    before: of(before).length,
    after: of(after).length,
  });
  const left = new Set(after.map(({ id }) => id));
  const gone = of(before).filter(({ id, held }) => held && !left.has(id));
  world.expect('a forget keeps what is held', gone.length === 0, { gone });
}

async function prune(world, store, random) {
  const line = ['prune', ...store.options, '--max-waste', `${random.integer(0, 40)}%`];
  const result = await world.commands.run('prune', line, { endAt: endAt(random, 0.4) });
  world.judge('prune', result, FINE_OR_BUSY);
  await world.list(store);
}

async function verify(world, store, random) {
  const how = random.weighted({ data: 3, scrub: 2, packs: 1 });
  const lines = {
    data: ['verify', ...store.options, '--read-data'],
    scrub: ['verify', ...store.options, '--all', '--for', '3s'],
    // The key is not needed for this, and not given.
    packs: ['verify', '-r', store.path, '--packs-only'],
  };
  await world.must(`verify, ${how}`, lines[how], { endAt: endAt(random, 0.2) });
}

async function copyPoints(world, _store, random) {
  const [open, sealed] = world.stores;
  const which = random.chance(0.7) ? ['--latest', String(random.integer(1, 2))] : ['--all'];
  const line = ['copy-points', ...which, '--from', open.path, '--to', sealed.path, ...sealed.key];
  const result = await world.commands.run('copy-points', line, { endAt: endAt(random, 0.35) });
  world.judge('copy-points', result, FINE_OR_BUSY);
  const copies = lastMessage(result)?.copies ?? [];
  world.promise(
    sealed,
    copies.map(({ point }) => [point, 'a copy']),
  );
  await world.list(sealed);
}

/** A stream into a file, and the file into the sibling. */
async function stream(world, _store, random) {
  const [open, sealed] = world.stores;
  const file = join(world.folder, 'stream');
  const send = ['send', '--latest', '1', ...open.options, '--output', file];
  try {
    const sent = await world.must('send', send, { endAt: endAt(random, 0.25) });
    if (sent.status !== 0) {
      world.expect('a send that was ended leaves no whole stream', !existsSync(file));
      return;
    }
    const receive = ['receive', file, ...sealed.options];
    const ended = await world.commands.run('receive', receive, { endAt: endAt(random, 0.35) });
    world.judge('receive', ended, FINE_OR_BUSY);
    if (ended.wasEnded)
      world.judge('receive', await world.commands.run('receive', receive), FINE_OR_BUSY);
  } finally {
    const mine = readdirSync(world.folder).filter((name) => name.includes('stream'));
    for (const name of mine) rmSync(join(world.folder, name), { force: true });
  }
  await world.list(sealed);
}

async function hold(world, store, random) {
  const points = await world.list(store);
  const held = points.filter((point) => point.held);
  if (held.length > 2) {
    await world.must('release', ['release', random.pick(held).id, ...store.options]);
  } else {
    const point = random.pick(points.filter(({ id }) => !store.doomed.has(id)));
    if (point === undefined) return;
    await world.must('hold', ['hold', point.id, ...store.options, '--reason', 'the soak']);
  }
  await world.list(store);
}

async function look(world, store, random) {
  const lab = random.pick(world.labs);
  const lines = {
    stats: ['stats', ...store.options],
    runs: ['runs', 'list'],
    'runs show': ['runs', 'show'],
    'prune --dry-run': ['prune', ...store.options, '--dry-run'],
    'vm list': ['vm', 'list', '--host', lab.host],
  };
  const which = random.pick(Object.keys(lines));
  await world.must(which, lines[which]);
}

const ACTIONS = { restore, rescue, forget, prune, verify, copyPoints, stream, hold, look };
const WEIGHTS = {
  restore: 4,
  rescue: 1,
  forget: 4,
  prune: 4,
  verify: 2,
  copyPoints: 2,
  stream: 1,
  hold: 1,
  look: 1,
};

/** One action on a repository. */
export async function storeAction(world, random) {
  const store = random.pick(world.stores);
  await ACTIONS[random.weighted(WEIGHTS)](world, store, random);
}
