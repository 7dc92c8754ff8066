/**
 * The demo: two virtual machines made of this computer's own files are backed up, changed, backed up again, verified and restored, and
 * every claim on the way is checked by comparing bytes. Needs no hypervisor and no root; cleans up after itself.
 *
 *   node scripts/demo.mjs [--size MIB] [--keep]      160 MiB of files by default
 *
 * The disks are real ext4 file systems, made by mke2fs and changed by debugfs; where those are missing they are the same files laid out
 * at page boundaries. Whatever is printed after "$" is a command that was run just so.
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  createReadStream,
  ftruncateSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';

const FIRN = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const MIB = 1024 * 1024;
const DISK_BYTES = 512 * MIB;
/** Where files come from, and how large the ones are that are taken: none that fills the disk alone, and not ten thousand of a line. */
const SOURCES = ['/usr/share', '/usr/lib', '/usr/include', '/usr/bin', dirname(process.execPath)];
const FILE_BYTES_MIN = 8 * 1024;
const FILE_BYTES_MAX = 16 * MIB;
const PAGE_BYTES = 4096;

const colour = process.stdout.isTTY && !process.env.NO_COLOR;
const bold = (text) => (colour ? `\u001b[1m${text}\u001b[22m` : text);
const dim = (text) => (colour ? `\u001b[2m${text}\u001b[22m` : text);
const say = (text = '') => process.stdout.write(`${text}\n`);
const heading = (text) => say(`\n${bold(text)}`);

const sizeArgument = process.argv.indexOf('--size');
const dataBytes = (sizeArgument > 0 ? Number(process.argv[sizeArgument + 1]) : 160) * MIB;
if (!(dataBytes > 0 && dataBytes <= DISK_BYTES * 0.6)) throw new Error('--size takes 1 to 300 MiB');
const keep = process.argv.includes('--keep');
const work = mkdtempSync(join(tmpdir(), 'firn-demo-'));
const at = (...names) => join(work, ...names);
const table = [];
const checks = [];

/** Runs a tool; its output is shown only when it fails. */
function tool(command, ...parameters) {
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  const { status, error, stderr } = spawnSync(command, parameters, {
    env: { ...process.env, PATH: path },
    encoding: 'utf8',
  });
  if (error?.code === 'ENOENT') return false;
  if (status !== 0)
    throw new Error(`${command} ${parameters.join(' ')} failed: ${stderr || error}`);
  return true;
}

/** Runs firn and shows the command and what it says. Gives the seconds it took. */
function firn(...parameters) {
  say(dim(`$ firn ${parameters.join(' ').replaceAll(`${work}/`, '').replaceAll(' --quiet', '')}`));
  const begin = performance.now();
  const { status, signal } = spawnSync(process.execPath, [FIRN, ...parameters], {
    stdio: ['ignore', 'inherit', 'inherit'],
    cwd: work,
    env: { ...process.env, FIRN_REPOSITORY: at('repository') },
  });
  if (status !== 0) throw new Error(`firn ${parameters[0]} ended with ${status ?? signal}`);
  return (performance.now() - begin) / 1000;
}

function firnJson(...parameters) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [FIRN, ...parameters, '--json'], {
    encoding: 'utf8',
    env: { ...process.env, FIRN_REPOSITORY: at('repository') },
  });
  if (status !== 0) throw new Error(`firn ${parameters.join(' ')} failed: ${stderr}`);
  return JSON.parse(stdout);
}

/** Regular files of this machine, up to a number of bytes, after skipping some: the same ones at each call. */
function gatherFiles(bytes, skip = 0) {
  const files = [];
  let passed = 0;
  let taken = 0;
  const walk = (folder) => {
    let entries;
    try {
      entries = readdirSync(folder, { withFileTypes: true });
    } catch {
      return; // what may not be read is left out
    }
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const entry of entries) {
      if (taken >= bytes) return;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) walk(path);
      else if (entry.isFile()) take(path);
    }
  };
  const take = (path) => {
    const size = sizeOfReadable(path);
    if (size < FILE_BYTES_MIN || size > FILE_BYTES_MAX) return;
    passed += size;
    if (passed <= skip) return;
    taken += size;
    files.push(path);
  };
  for (const folder of SOURCES) walk(folder);
  if (taken === 0) throw new Error(`no readable files in ${SOURCES.join(', ')}`);
  return files;
}

function sizeOfReadable(path) {
  try {
    closeSync(openSync(path, 'r'));
    return statSync(path).size;
  } catch {
    return 0;
  }
}

function stage(files, folder) {
  for (const file of files) {
    const target = join(folder, file);
    mkdirSync(dirname(target), { recursive: true });
    try {
      linkSync(file, target); // half a second instead of ten, where it is allowed
    } catch {
      copyFileSync(file, target);
    }
  }
}

/** A raw disk that holds files: ext4, or without its tools the bare files. */
function makeDisk(raw, files) {
  const staging = at('staging');
  stage(files, staging);
  const made = tool('mke2fs', '-q', '-F', '-t', 'ext4', '-d', staging, raw, `${DISK_BYTES / MIB}M`);
  rmSync(staging, { recursive: true });
  if (!made) layOut(raw, files, 0, 'w');
  return made;
}

function layOut(raw, files, from, flags) {
  const disk = openSync(raw, flags);
  let offset = from;
  for (const file of files) {
    const content = readFileSync(file);
    writeSync(disk, content, 0, content.length, offset);
    offset += Math.ceil(content.length / PAGE_BYTES) * PAGE_BYTES;
  }
  ftruncateSync(disk, DISK_BYTES);
  closeSync(disk);
}

/** A day of work inside the machine: some files come, some go. */
function changeDisk(raw, isExt4, removed, added) {
  if (!isExt4) {
    layOut(raw, added, DISK_BYTES * 0.75, 'r+');
    return;
  }
  const commands = [
    ...removed.map((file) => `rm "${file}"`),
    'mkdir /new',
    ...added.map(
      (file, index) => `write "${file}" /new/${index}-${basename(file).replaceAll(/["\s]/g, '_')}`,
    ),
  ];
  writeFileSync(at('changes'), `${commands.join('\n')}\n`);
  tool('debugfs', '-w', '-f', at('changes'), raw);
}

async function hashOf(path) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: MIB }), hash);
  return hash.digest('hex');
}

async function check(claim, path, expected) {
  const same = (await hashOf(path)) === expected;
  checks.push(same);
  say(`  ${same ? 'yes' : 'NO '}  ${claim}`);
}

function row(step, bytes, seconds, note = '') {
  table.push({ step, bytes, seconds, note });
}

const mib = (bytes) => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`;

function printTable() {
  const lines = table.map(({ step, bytes, seconds, note }) => [
    step,
    mib(bytes),
    `${seconds.toFixed(2)} s`,
    `${(bytes / MIB / seconds).toFixed(0)} MiB/s`,
    note,
  ]);
  const all = [['', 'data', 'time', 'rate', ''], ...lines];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...all.map((line) => line[column].length)));
  for (const line of all) {
    const [step, ...figures] = line
      .slice(0, 4)
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0]) : cell.padStart(widths[column]),
      );
    say(`  ${step}  ${figures.join('  ')}  ${line[4]}`.trimEnd());
  }
}

/** One backup, with its line in the closing table from the point's own account. */
function backup(step, vm) {
  firn('backup', '--vm', vm, '--disk', at(`${vm}.vhdx`));
  const { points } = firnJson('list', '--vm', vm);
  const { stats } = points.at(-1);
  row(
    step,
    stats.dataBytes,
    stats.elapsedSeconds,
    `${mib(stats.newBytes)} new, stored as ${mib(stats.storedBytes)}`,
  );
  return points.at(-1);
}

async function main() {
  heading('1. Two machines');
  const webFiles = gatherFiles(dataBytes);
  const isExt4 = makeDisk(at('web.raw'), webFiles);
  say(
    `  web: ${webFiles.length} files of this computer, on ${isExt4 ? 'a real ext4 file system' : 'a bare disk (no mke2fs here)'}`,
  );
  // The second has three quarters of the first one's files, and some of its own, laid out by a file system of its own.
  makeDisk(at('db.raw'), gatherFiles(dataBytes, dataBytes / 4));
  say('  db:  another file system, with most of the same files');
  say('  Hyper-V keeps disks as VHDX, so they become that:');
  const copySeconds = firn('copy', at('web.raw'), at('web.vhdx'));
  firn('copy', at('db.raw'), at('db.vhdx'), '--quiet');
  const monday = await hashOf(at('web.raw'));

  heading('2. The first backups');
  firn('init');
  const first = backup('first backup of web', 'web');
  // Only now is it known how much of the disk is data.
  table.unshift({
    step: 'copy raw to VHDX',
    bytes: first.stats.dataBytes,
    seconds: copySeconds,
    note: '',
  });
  backup('first backup of db', 'db');
  say('  What the two have in common was stored once.');

  heading('3. A day later');
  const added = gatherFiles(dataBytes / 16, dataBytes * 1.25);
  const removed = webFiles.filter((_, index) => index % 40 === 0);
  changeDisk(at('web.raw'), isExt4, removed, added);
  say(`  In web, ${isExt4 ? removed.length : 0} files went and ${added.length} came.`);
  firn('copy', at('web.raw'), at('web.vhdx'), '--force', '--quiet');
  const tuesday = await hashOf(at('web.raw'));
  backup('second backup of web', 'web');
  firn('list');

  heading('4. Is it all there?');
  const verifySeconds = firn('verify', '--read-data');
  const stats = firnJson('stats');
  row('verify every stored byte', stats.fileBytes, verifySeconds);
  say('  The content id of a point proves that it holds what the disk holds:');
  firn('verify', 'latest:web', '--source', at('web.vhdx'), '--quiet');

  heading('5. Back again');
  const restoreSeconds = firn('restore', 'latest:web', '--to', at('tuesday.raw'));
  row('restore web', first.stats.dataBytes, restoreSeconds);
  await check(
    'the restored disk is, byte for byte, the disk of the second day',
    at('tuesday.raw'),
    tuesday,
  );
  rmSync(at('tuesday.raw'));
  firn('restore', first.id, '--to', at('back'), '--quiet');
  firn('copy', at('back', 'web.vhdx'), at('monday.raw'), '--quiet');
  await check('the first day is there as well, as a VHDX', at('monday.raw'), monday);
  rmSync(at('monday.raw'));

  heading('6. Without the engine');
  say('  A second reader, in TypeScript alone, gets the data out where nothing can be compiled:');
  const rescueSeconds = firn('rescue', 'restore', 'latest:web', '--to', at('rescued.raw'));
  row('rescue web', first.stats.dataBytes, rescueSeconds);
  await check('the rescued disk is the same', at('rescued.raw'), tuesday);

  heading('In short');
  printTable();
  say();
  say(
    `  ${mib(stats.dataBytes)} of data in ${stats.points} points takes ${mib(stats.fileBytes)} in the repository.`,
  );
  say(
    '  Times are whole commands, start of Node included, and the files had just been written: most',
  );
  say('  reads came from memory. This shows the engine more than the disk under it.');
}

let failure;
const begin = performance.now();
try {
  say(bold('Firn: two virtual machines, three backups, and everything back'));
  say(dim(`in ${work}`));
  await main();
} catch (error) {
  failure = error;
} finally {
  if (keep) say(`\nKept: ${work}`);
  else rmSync(work, { recursive: true, force: true });
}
const seconds = ((performance.now() - begin) / 1000).toFixed(0);
if (failure !== undefined) {
  say(`\nThe demo failed after ${seconds} s: ${failure.message}`);
  process.exitCode = 1;
} else if (checks.includes(false)) {
  say(`\nThe demo took ${seconds} s, and something is not as it should be: see NO above.`);
  process.exitCode = 1;
} else {
  say(`\nThe demo took ${seconds} s; all ${checks.length} comparisons of bytes agree.`);
}
