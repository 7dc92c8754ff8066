/**
 * What must hold when everything has come to rest: looked at from outside, in the machines' folders, the journal, the repositories' files
 * and the list of processes.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { lastMessage } from './commands.mjs';
import { bringToRest } from './machine-actions.mjs';
import { checkRestored } from './store-actions.mjs';
import { entriesOf, sizeOf } from './system.mjs';

/** A mark of a run's, in whatever name. References begin with firn-ref- and have none. */
const MARK = /firn-(?!ref-)[0-9a-f]{32}/;
/** How much of a reference's name says of which repository it is. */
const REFERENCE_OF_REPOSITORY = 'firn-ref-'.length + 16;
const HEADWAY_MS = 10_000;
const GONE_MS = 10_000;
const RUNS_LISTED = '100000';
/** Beside the stored records: headers, footers, the last stripe of each pack, points and index runs. */
const SPARE_SHARE = 0.1;
const SPARE_BYTES = 4 * 2 ** 20;

/** Everything, with all lanes at rest. Leaves machines running and repositories whole. */
export async function checkAll(world, random, daemons) {
  for (const lab of world.labs) {
    await bringToRest(world, lab);
    await checkLab(world, lab);
  }
  await checkJournal(world);
  for (const store of world.stores) await checkStore(world, store, random);
  await checkLiveDisks(world, random);
  await checkProcesses(world, daemons);
  world.checks++;
}

async function checkLab(world, lab) {
  const before = await lab.status();
  for (const vm of before) checkMachine(world, lab, vm);
  await checkHeadway(world, lab, before);
}

function checkMachine(world, lab, vm) {
  const about = { lab: lab.name, vm: vm.name, checkpoints: vm.checkpoints };
  const layers = vm.disks.flatMap((disk) => disk.layers);
  const inFolder = readdirSync(vm.folder);
  const names = [...vm.checkpoints.map(({ name }) => name), ...layers, ...inFolder];
  const marked = names.filter((name) => MARK.test(name));
  world.expect('no mark of a run is left at a machine', marked.length === 0, { ...about, marked });
  const references = vm.checkpoints.filter(({ kind }) => kind === 'reference');
  const places = new Set(references.map(({ name }) => name.slice(0, REFERENCE_OF_REPOSITORY)));
  world.expect(
    'a repository keeps one reference at a machine',
    places.size === references.length,
    about,
  );
  const own = lab.userCheckpoints.has(vm.name) ? [lab.userCheckpoints.get(vm.name)] : [];
  const others = vm.checkpoints.filter(({ kind }) => kind !== 'reference');
  world.expect(
    "a user's checkpoint stays, and no other one",
    others.map(({ name }) => name).join() === own.join(),
    about,
  );
  const depth = 1 + own.length + references.length;
  world.expect(
    'a chain has the layers of its checkpoints, and no other one',
    vm.disks.every((disk) => disk.layers.length === depth),
    { ...about, layers },
  );
  const images = inFolder.filter((name) => /\.a?vhdx?$/i.test(name));
  world.expect('a machine has no image that is in no chain', images.length === layers.length, {
    ...about,
    images,
    layers,
  });
  world.expect('no guest stands frozen', vm.frozen === undefined, about);
  world.expect('no merge is under way', vm.merging === undefined, about);
}

async function checkHeadway(world, lab, before) {
  const generations = new Map(before.map(({ name, generation = 0 }) => [name, generation]));
  const until = performance.now() + HEADWAY_MS;
  let standing = before;
  while (standing.length > 0 && performance.now() < until) {
    await delay(100);
    standing = (await lab.status()).filter(
      ({ name, generation = 0 }) => generation <= generations.get(name),
    );
  }
  world.expect('every guest writes on', standing.length === 0, {
    lab: lab.name,
    standing: standing.map(({ name, state }) => `${name} ${state}`),
  });
}

async function checkJournal(world) {
  const { messages } = await world.must('runs list', ['runs', 'list', '--limit', RUNS_LISTED]);
  const open = (messages[0]?.runs ?? []).filter(
    ({ state }) => state === 'active' || state === 'dead',
  );
  world.runs = messages[0]?.runs.length;
  world.expect('the journal has no run that is not finished', open.length === 0, { open });
  const staging = entriesOf(join(world.state, 'staging'));
  world.expect('the state folder has no staged file', staging.length === 0, { staging });
}

async function checkStore(world, store, random) {
  await world.list(store);
  await world.must('prune --recover', ['prune', '--recover', ...store.options]);
  if (random.chance(0.3)) {
    const repair = ['repair', 'index', ...store.options];
    if (random.chance(0.5)) {
      await world.must('repair index', repair, { endAt: random.fraction() });
    }
    await world.must('repair index', repair);
  }
  const points = await world.list(store);
  store.sizes.push({ points: points.length, bytes: sizeOf(store.path).bytes });
  const verified = await world.must('verify at rest', ['verify', '--read-data', ...store.options]);
  world.verifiedBytes += sizeOf(join(store.path, 'packs')).bytes;
  world.expect('all sealed points verify', verified.status === 0, { store: store.name });
  const left = sizeOf(store.path).files.filter((name) =>
    /(^|\/)\.tmp-|\.partial$|^(pending|condemned)\//.test(name),
  );
  world.expect('a repository has no file of a dead run', left.length === 0, { left });
}

/** Shuts one machine of each lab down and reads its disks, with no backup between. */
async function checkLiveDisks(world, random) {
  for (const lab of world.labs) {
    const name = random.pick(lab.vms);
    await world.must('lab stop', ['lab', 'stop', lab.folder, name]);
    await checkDisksOf(world, lab, name);
    await world.must('lab start', ['lab', 'start', lab.folder, name]);
  }
}

async function checkDisksOf(world, lab, name) {
  const { disks } = await lab.machine(name);
  const images = disks.map(({ layers }) => layers[0]);
  const checked = await world.must('lab check', ['lab', 'check', ...images]);
  world.expect("a machine's own disks add up", checked.status === 0, { lab: lab.name, name });
}

/** Only the watched processes and the machines live. */
async function checkProcesses(world, daemons) {
  for (const [name, child] of Object.entries(daemons)) {
    world.expect('a reconciler that never stops lives', child.exitCode === null, { name });
  }
  const machines = (await Promise.all(world.labs.map((lab) => lab.status()))).flat();
  const known = new Set([
    ...machines.map(({ pid }) => pid),
    ...Object.values(daemons).map(({ pid }) => pid),
  ]);
  const others = await processesLeft(world, known);
  world.expect('no process is left over', others.length === 0, { others });
}

/** Those that do not go by themselves within some seconds; none where the system does not tell. */
async function processesLeft(world, known) {
  const left = () => (world.commands.processes() ?? []).filter(({ pid }) => !known.has(pid));
  const until = performance.now() + GONE_MS;
  let others = left();
  while (others.length > 0 && performance.now() < until) {
    await delay(200);
    others = left();
  }
  return others;
}

/** The end: every point of every repository comes back, everything is shut down, and what is left is looked at. */
export async function checkAtEnd(world, random, daemons) {
  await checkAll(world, random, daemons);
  for (const store of world.stores) {
    for (const point of await world.list(store)) {
      await world.withFolder(async (folder) => {
        const line = ['restore', point.id, ...store.options, '--to', folder, '--format', 'raw'];
        const { status } = await world.must('restore', line);
        if (status === 0) await checkRestored(world, point, folder, 'a disk restored at the end');
        world.restoredAtEnd++;
      });
    }
  }
  await untrackAll(world);
  for (const child of Object.values(daemons)) await endDaemon(world, child);
  for (const lab of world.labs) {
    await world.must('lab stop', ['lab', 'stop', lab.folder]);
    for (const vm of lab.vms) await checkDisksOf(world, lab, vm);
  }
  for (const store of world.stores) await checkSpace(world, store);
  const others = await processesLeft(world, new Set());
  world.expect('no process is left over', others.length === 0, { others });
  const temporary = entriesOf(world.temporary);
  world.expect('no temporary file is left over', temporary.length === 0, { temporary });
}

async function untrackAll(world) {
  for (const lab of world.labs) {
    for (const vm of lab.vms) {
      await world.must('vm untrack', ['vm', 'untrack', vm, '--host', lab.host]);
      const { checkpoints } = await lab.machine(vm);
      const own = lab.userCheckpoints.has(vm) ? 1 : 0;
      world.expect(
        "untracked, a machine has its user's checkpoints alone",
        checkpoints.length === own,
        {
          vm,
          checkpoints,
        },
      );
    }
  }
}

async function endDaemon(world, child) {
  const ended = new Promise((resolve) => child.once('exit', resolve));
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGINT');
  const status = await ended;
  world.expect('a reconciler that never stops ends when it is told to', status === 0, { status });
}

/** When all but the newest point of each machine is forgotten, the repository is as large as what is left of it. */
async function checkSpace(world, store) {
  for (const { id, held } of await world.list(store)) {
    if (held) await world.must('release', ['release', id, ...store.options]);
  }
  const line = ['forget', ...store.options, '--keep-last', '1'];
  const forgotten = lastMessage(await world.must('forget', line))?.forgotten ?? [];
  await world.list(store, new Set(forgotten));
  await world.must('prune', ['prune', '--recover', '--max-waste', '0%', ...store.options]);
  const again = ['prune', '--dry-run', '--max-waste', '0%', ...store.options];
  const summary = lastMessage(await world.must('prune --dry-run', again));
  if (summary === undefined) return;
  const { bytes, files } = sizeOf(store.path);
  world.expect('a prune leaves nothing that no point needs', summary.deleted === 0, { summary });
  const allowed = summary.liveBytes * (1 + SPARE_SHARE) + SPARE_BYTES;
  world.expect('a repository is as large as what its points need', bytes <= allowed, {
    bytes,
    liveBytes: summary.liveBytes,
  });
  store.end = {
    points: store.points.size,
    bytes,
    liveBytes: summary.liveBytes,
    files: files.length,
  };
  await world.must('verify at rest', ['verify', '--read-data', ...store.options]);
}
