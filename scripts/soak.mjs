/**
 * The soak: machines that write without pause are backed up, killed, restarted and restored, into two repositories that are pruned,
 * copied and verified meanwhile, at random, for as long as is wanted. Now and then, and at the end, everything comes to rest and is
 * looked at from outside: every sealed point verifies, every checkpoint is gone, nothing leaks.
 *
 *   node scripts/soak.mjs [--minutes N] [--seed S] [--check-every N] [--work DIR] [--report FILE] [--keep]
 *
 * Firn runs as a command only. Four lanes work at once: one on each lab, one on the repositories, one that disturbs the machines. The
 * seed gives the choices of each lane's n-th action (what, on which, and when in its course it is killed); how the lanes' actions fall
 * together is the machine's. Exit code 1 with findings; then the work folder stays.
 */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { stopLab } from '../dist/hosts/lab/lab.js';
import { checkAll, checkAtEnd } from './soak/checks.mjs';
import { Commands } from './soak/commands.mjs';
import { disturbanceAction, machineAction } from './soak/machine-actions.mjs';
import { Random } from './soak/random.mjs';
import { storeAction } from './soak/store-actions.mjs';
import { machineText, sharedMemoryNames } from './soak/system.mjs';
import { Watch } from './soak/watch.mjs';
import { World } from './soak/world.mjs';

const MINUTE_MS = 60_000;

const { values: flags } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 1e9)) },
    'check-every': { type: 'string', default: '100' },
    work: { type: 'string' },
    report: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const minutes = positive('minutes');
const checkEvery = positive('check-every');
const work = flags.work === undefined ? mkdtempSync(join(tmpdir(), 'firn-soak-')) : newFolder();
const commands = new Commands({
  mark: `${process.pid}-${flags.seed}`,
  state: join(work, 'state'),
  temporary: join(work, 'temporary'),
  log: (line) => world.log(line),
});
const world = new World(work, commands);
const say = (text) => process.stdout.write(`${text}\n`);

function positive(name) {
  const value = Number(flags[name]);
  if (!(value > 0)) throw new Error(`--${name} takes a number above 0`);
  return value;
}

function newFolder() {
  const folder = resolve(flags.work);
  mkdirSync(folder);
  return folder;
}

/** Told to stop, it leaves nothing running either. */
async function endAtOnce() {
  commands.killAll();
  for (const lab of world.labs) await stopLab(lab.folder).catch(() => {});
  say(`ended at once; kept: ${work}`);
  process.exit(130);
}
process.once('SIGINT', endAtOnce);
process.once('SIGTERM', endAtOnce);

/** Lets actions through, and stops them all when something has to be looked at in peace. */
class Gate {
  #open = true;
  #running = 0;
  actions = 0;

  /** Runs one action as soon as the gate is open. */
  async pass(action) {
    while (!this.#open) await delay(20);
    this.#running++;
    try {
      await action();
    } finally {
      this.#running--;
      this.actions++;
    }
  }

  /** Runs `work` with no action under way. */
  async closed(work) {
    this.#open = false;
    while (this.#running > 0) await delay(20);
    try {
      await work();
    } finally {
      this.#open = true;
    }
  }
}

function lanes() {
  const all = {
    repositories: (random) => storeAction(world, random),
    disturbances: (random) => disturbanceAction(world, random),
  };
  for (const lab of world.labs) all[lab.name] = (random) => machineAction(world, lab, random);
  return Object.entries(all);
}

async function runLane(gate, name, action, endMs) {
  for (let number = 1; performance.now() < endMs; number++) {
    await gate.pass(async () => {
      world.log(`${name} #${number}`);
      try {
        await action(new Random(flags.seed, name, number));
      } catch (error) {
        world.find('the soak itself stumbled', { lane: name, number, error: String(error.stack) });
      }
    });
  }
}

/** Now and then brings everything to rest and looks at it. */
async function runChecks(gate, daemons, endMs) {
  let looked = 0;
  while (performance.now() < endMs) {
    await delay(200);
    if (gate.actions < looked + checkEvery) continue;
    await gate.closed(() =>
      checkAll(world, new Random(flags.seed, 'check', gate.actions), daemons),
    );
    looked = gate.actions;
    const left = Math.max(0, (endMs - performance.now()) / MINUTE_MS).toFixed(1);
    say(
      `  ${looked} actions, ${commands.killed} killed, ${world.findings.length} findings; ${left} min left`,
    );
  }
}

function startDaemons() {
  const lasting = (name, parameters) =>
    commands.startLasting(parameters, join(work, `${name}.log`));
  return {
    'reconcile --every': lasting('daemon-1', ['reconcile', '--every', '1s', ...world.key]),
    'reconcile --every --host': lasting('daemon-2', [
      ...['reconcile', '--every', '2s', '--host', world.labs[1].host],
    ]),
  };
}

async function soak(daemons) {
  const gate = new Gate();
  const endMs = performance.now() + minutes * MINUTE_MS;
  await Promise.all([
    ...lanes().map(([name, action]) => runLane(gate, name, action, endMs)),
    runChecks(gate, daemons, endMs),
  ]);
  return gate.actions;
}

function reportOf({ begun, beganMs, actions, watch }) {
  return {
    seed: flags.seed,
    minutes: Number(((performance.now() - beganMs) / MINUTE_MS).toFixed(1)),
    begun,
    machine: `${cpus().length} cores of ${machineText()}`,
    actions,
    checksAtRest: world.checks,
    commands: Object.values(commands.counts).reduce((sum, { runs }) => sum + runs, 0),
    killed: commands.killed,
    killedByFaults: world.killedByFaults,
    interrupted: commands.interrupted,
    hung: commands.hung,
    faults: world.faults,
    disturbances: world.worldActions,
    runs: world.runs,
    points: Object.fromEntries(world.stores.map(({ name, seen }) => [name, seen.size])),
    restoredAtEnd: world.restoredAtEnd,
    verifiedBytes: world.verifiedBytes,
    compared: world.compared,
    lasting: watch?.report() ?? {},
    repositories: Object.fromEntries(
      world.stores.map(({ name, sizes, end }) => [name, { sizes, end }]),
    ),
    byCommand: commands.counts,
    findings: world.findings,
  };
}

function tell(report) {
  say('');
  for (const [kind, { runs, ends, codes }] of Object.entries(report.byCommand).sort()) {
    const how = Object.entries(ends).map(([end, count]) => `${end}: ${count}`);
    const why = Object.entries(codes ?? {}).map(([code, count]) => `${code} ${count}`);
    say(`  ${kind.padEnd(20)} ${String(runs).padStart(6)}   ${[...how, ...why].join(', ')}`);
  }
  say('');
  for (const [what, count] of Object.entries(report.compared).sort())
    say(`  ${String(count).padStart(6)}  ${what}`);
  say(
    `\n  ${JSON.stringify({ ...report, byCommand: undefined, compared: undefined, findings: report.findings.length })}`,
  );
}

async function main() {
  const begun = new Date().toISOString();
  const beganMs = performance.now();
  say(`Firn: a soak of ${minutes} minutes with --seed ${flags.seed}, in ${work}`);
  const shared = new Set(sharedMemoryNames());
  let watch;
  let actions = 0;
  try {
    await world.create();
    const daemons = startDaemons();
    watch = new Watch(daemons);
    actions = await soak(daemons);
    const random = new Random(flags.seed, 'end');
    await checkAtEnd(world, random, daemons);
    for (const leak of watch.leaks()) world.find('something leaks', { leak });
    const fresh = sharedMemoryNames().filter((name) => !shared.has(name) && /firn/i.test(name));
    world.expect('no shared memory is left over', fresh.length === 0, { fresh });
  } catch (error) {
    world.find('the soak itself stumbled', { error: String(error.stack) });
  } finally {
    watch?.stop();
    commands.killAll();
    for (const lab of world.labs) await stopLab(lab.folder).catch(() => {});
  }
  const report = reportOf({ begun, beganMs, actions, watch });
  tell(report);
  writeFileSync(
    resolve(flags.report ?? join(work, 'report.json')),
    JSON.stringify(report, null, 2),
  );
  const isWell = report.findings.length === 0;
  if (isWell && !flags.keep) rmSync(work, { recursive: true, force: true });
  else say(`\nKept: ${work}`);
  for (const { at, what } of report.findings) say(`FOUND ${at} ${what}`);
  say(isWell ? '\nThe soak found nothing.' : `\nThe soak found ${report.findings.length} things.`);
  process.exitCode = isWell ? 0 : 1;
}

await main();
