/**
 * The demo: a lab of three machines under write load is backed up, by a run that dies and by one that does not; what the dead one left is
 * cleaned up, and what comes back is compared with what was frozen. Needs no hypervisor and no root; cleans up after itself.
 *
 *   node scripts/demo.mjs [--size MIB] [--keep]      96 MiB of data a machine by default
 *
 * The machines are processes that write to real VHDX disks through real differencing chains. Whatever is printed after "$" is a command
 * that was run just so.
 */

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { clearFaults, createLab, labStatus, stopLab } from '../dist/hosts/lab/lab.js';
import { openDisk } from '../dist/index.js';

const FIRN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const MIB = 2 ** 20;
const DISK_BYTES = 1024 * MIB;
/** freeze, checkpoint and thaw, begun and done; the seventh entry in the journal is that reading begins. */
const ENTRY_OF_READ = 7;

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const bold = (text) => (colour ? `\u001b[1m${text}\u001b[22m` : text);
const dim = (text) => (colour ? `\u001b[2m${text}\u001b[22m` : text);
const say = (text = '') => process.stdout.write(`${text}\n`);
const heading = (text) => say(`\n${bold(text)}`);

const sizeArgument = process.argv.indexOf('--size');
const dataBytes = (sizeArgument > 0 ? Number(process.argv[sizeArgument + 1]) : 96) * MIB;
if (!(dataBytes >= MIB && dataBytes <= DISK_BYTES / 2))
  throw new Error('--size takes 1 to 512 MiB');
const keep = process.argv.includes('--keep');
const work = mkdtempSync(join(tmpdir(), 'firn-demo-'));
const at = (...names) => join(work, ...names);
const lab = at('lab');
const environment = {
  ...process.env,
  FIRN_REPOSITORY: at('repository'),
  FIRN_STATE: at('state'),
  FIRN_HOST: `lab:${lab}`,
};
const table = [];
const checks = [];

/** Starts firn and shows the command. */
function begin(parameters) {
  say(dim(`$ firn ${parameters.join(' ').replaceAll(`${work}/`, '')}`));
  const stdio = ['ignore', 'inherit', 'inherit'];
  return spawn(process.execPath, [FIRN, ...parameters], { stdio, cwd: work, env: environment });
}

/** Runs firn to its end. Gives the seconds it took; `expected` is the exit code or the signal. */
async function firn(parameters, expected = 0) {
  const startMs = performance.now();
  const [status, signal] = await once(begin(parameters), 'exit');
  if ((status ?? signal) !== expected)
    throw new Error(`firn ${parameters[0]} ended with ${status ?? signal}`);
  return (performance.now() - startMs) / 1000;
}

function firnJson(...parameters) {
  const options = { encoding: 'utf8', env: environment, cwd: work };
  const { stdout, stderr } = spawnSync(process.execPath, [FIRN, ...parameters, '--json'], options);
  try {
    return JSON.parse(stdout);
  } catch {
    throw new Error(`firn ${parameters.join(' ')} failed: ${stderr}`);
  }
}

function check(claim, holds) {
  checks.push(holds);
  say(`  ${holds ? 'yes' : 'NO '}  ${claim}`);
}

async function machine(name) {
  const vm = (await labStatus(lab)).vms.find((each) => each.name === name);
  if (vm === undefined) throw new Error(`the lab has no ${name}`);
  return vm;
}

async function chainDepths() {
  return (await labStatus(lab)).vms.flatMap((vm) => vm.disks.map((disk) => disk.layers.length));
}

async function generations() {
  return (await labStatus(lab)).vms.map((vm) => vm.generation ?? 0);
}

/** True if every guest has committed something meanwhile. */
async function allMakeHeadway() {
  const before = await generations();
  await delay(300);
  return (await generations()).every((generation, index) => generation > before[index]);
}

/** SHA-256 of the content of a disk, whatever its format. */
async function hashOfDisk(path) {
  const disk = await openDisk(path);
  const hash = createHash('sha256');
  try {
    await pipeline(disk.readable(), hash);
  } finally {
    disk.close();
  }
  return hash.digest('hex');
}

async function hashOfFile(path) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: MIB }), hash);
  return hash.digest('hex');
}

const mib = (bytes) => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`;

function row(step, bytes, seconds, note = '') {
  table.push([
    step,
    mib(bytes),
    `${seconds.toFixed(2)} s`,
    `${(bytes / MIB / seconds).toFixed(0)} MiB/s`,
    note,
  ]);
}

/** The lines of a run's points in the closing table. */
function rowsOfRun(title, points) {
  for (const { vm, stats, consistency, capture } of points) {
    const frozen = `${consistency}, guest stood still ${((capture.frozenMs ?? 0) / 1000).toFixed(2)} s`;
    row(
      `${title} of ${vm.name}`,
      stats.readBytes,
      stats.elapsedSeconds,
      `${mib(stats.newBytes)} new, stored as ${mib(stats.storedBytes)}; ${frozen}`,
    );
  }
}

function printTable() {
  const all = [['', 'read', 'time', 'rate', ''], ...table];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...all.map((line) => line[column].length)));
  for (const [step, ...rest] of all) {
    const figures = rest.slice(0, 3).map((cell, index) => cell.padStart(widths[index + 1]));
    say(`  ${step.padEnd(widths[0])}  ${figures.join('  ')}  ${rest[3]}`.trimEnd());
  }
}

function pointsOfRun(count) {
  return firnJson('list').points.slice(-count);
}

async function makeMachines() {
  heading('1. Three machines that write all the time');
  await createLab(lab, {
    vms: [
      { name: 'web', sizeBytes: DISK_BYTES, dataBytes, writesPerSecond: 60 },
      {
        name: 'db',
        sizeBytes: DISK_BYTES,
        dataBytes,
        disks: 2,
        writesPerSecond: 60,
        freezeMs: 1500,
      },
      { name: 'files', sizeBytes: DISK_BYTES, dataBytes, writesPerSecond: 60, vss: 'none' },
    ],
  });
  say(
    '  web is an ordinary one; db has two disks and takes its time to freeze; files has no guest VSS.',
  );
  await firn(['lab', 'start', lab]);
  await firn(['init']);
  await firn(['vm', 'list']);
}

async function dyingRun() {
  heading('2. A run that dies halfway');
  say('  Firn is to be killed the moment it begins to read web, with checkpoints standing:');
  await firn([
    'lab',
    'fault',
    lab,
    'firn-dies',
    '--vm',
    'web',
    '--step',
    String(ENTRY_OF_READ),
    '--once',
    '--quiet',
  ]);
  await firn(['backup', '--all'], 'SIGKILL');
  say('  It is gone. What it left:');
  await firn(['lab', 'status', lab]);
  check(
    'a checkpoint was left standing',
    (await chainDepths()).some((depth) => depth > 1),
  );
  check('every guest writes on', await allMakeHeadway());
  await firn(['reconcile']);
  check(
    'no checkpoint is left',
    (await chainDepths()).every((depth) => depth === 1),
  );
  check('every guest writes on', await allMakeHeadway());
  await firn(['runs', 'list']);
}

/** Backs everything up, and learns what the frozen disk of web holds while the checkpoint stands. */
async function wholeRun() {
  heading('3. The run again');
  say('  The merge of web is held up, so that its frozen disk can be hashed beside Firn:');
  await firn(['lab', 'fault', lab, 'merge-stalls', '--vm', 'web', '--quiet']);
  const startMs = performance.now();
  const backup = begin(['backup', '--all']);
  const ended = once(backup, 'exit');
  const frozen = await frozenHash(ended);
  await clearFaults(lab);
  const [status] = await ended;
  if (status !== 0) throw new Error(`firn backup ended with ${status}`);
  const seconds = (performance.now() - startMs) / 1000;
  check(
    'no checkpoint is left',
    (await chainDepths()).every((depth) => depth === 1),
  );
  const points = pointsOfRun(3);
  rowsOfRun('first backup', points);
  return { frozen, points, seconds };
}

async function frozenHash(ended) {
  let over = false;
  void ended.then(() => {
    over = true;
  });
  while (!over) {
    const vm = await machine('web');
    const layers = vm.disks[0].layers;
    if (vm.merging !== undefined && layers.length > 1) return hashOfDisk(layers[1]);
    await delay(20);
  }
  throw new Error('the run ended before its merge was seen');
}

async function secondRun() {
  heading('4. A little later');
  await delay(2000);
  await firn(['backup', '--all']);
  rowsOfRun('second backup', pointsOfRun(3));
  await firn(['list']);
}

async function comeBack({ frozen, points }) {
  heading('5. Is it all there?');
  const seconds = await firn(['verify', '--read-data']);
  const stats = firnJson('stats');
  row('verify every stored byte', stats.fileBytes, seconds);

  heading('6. Back again');
  const web = points.find((point) => point.vm.name === 'web');
  const restoreSeconds = await firn(['restore', web.id, '--to', at('web.raw')]);
  row('restore web', web.stats.dataBytes, restoreSeconds);
  check(
    'the restored disk is, byte for byte, the one that was frozen',
    (await hashOfFile(at('web.raw'))) === frozen,
  );
  rmSync(at('web.raw'));
  const promises = { web: 'application', db: 'application', files: 'crash' };
  for (const [name, promise] of Object.entries(promises)) {
    await firn(['restore', `latest:${name}`, '--to', at('restored', name), '--quiet']);
    const verdict = firnJson('lab', 'check', at('restored', name));
    check(
      `${name} came back as ${promise}-consistent, and its ${verdict.records} records, balances and counters add up`,
      verdict.worth === promise,
    );
  }
  check(
    'its configuration came back beside its disks',
    readdirSync(at('restored', 'web')).some((name) => name.endsWith('.json')),
  );
  return stats;
}

async function main() {
  await makeMachines();
  await dyingRun();
  const run = await wholeRun();
  await secondRun();
  const stats = await comeBack(run);
  check('every guest writes on', await allMakeHeadway());
  await stopLab(lab);

  heading('In short');
  printTable();
  say();
  say(
    `  ${mib(stats.dataBytes)} of data in ${stats.points} points takes ${mib(stats.fileBytes)} in the repository.`,
  );
  say(
    '  Rates are of what was read, the machines wrote meanwhile, and their files had just been written: most reads came from',
  );
  say('  memory. This shows the process more than the disk under it.');
}

let failure;
const beginMs = performance.now();
try {
  say(
    bold(
      'Firn: three machines under load, a run that dies, one that does not, and everything back',
    ),
  );
  say(dim(`in ${work}`));
  await main();
} catch (error) {
  failure = error;
} finally {
  await stopLab(lab).catch(() => {});
  if (keep) say(`\nKept: ${work}`);
  else rmSync(work, { recursive: true, force: true });
}
const seconds = ((performance.now() - beginMs) / 1000).toFixed(0);
if (failure !== undefined) {
  say(`\nThe demo failed after ${seconds} s: ${failure.message}`);
  process.exitCode = 1;
} else if (checks.includes(false)) {
  say(`\nThe demo took ${seconds} s, and something is not as it should be: see NO above.`);
  process.exitCode = 1;
} else {
  say(`\nThe demo took ${seconds} s; all ${checks.length} checks hold.`);
}
