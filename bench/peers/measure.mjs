/**
 * Runs one command and says what it cost: wall time, CPU time, peak memory.
 *
 * Wall time is taken here, around the child. CPU time and peak resident memory come from GNU time
 * where it is installed (the kernel's own figures, nothing missed), and from watching /proc as
 * well, because GNU time reports the largest process only while a tool may spread its memory over
 * several; the larger of the two figures counts. What a command leaves dirty in the page cache is
 * written back before the next one starts, and timed on its own, so that nobody pays for another's
 * writes.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';

const GNU_TIME = '/usr/bin/time';
const WATCH_INTERVAL_MS = 20;
const OUTPUT_TAIL_CHARACTERS = 4000;
const KIB = 1024;

/** Runs a helper command to its end without measuring; throws with its words when it fails. */
export function runQuietly(program, args, options = {}) {
  const result = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 2 ** 28, ...options });
  if (result.error) throw new Error(`${program}: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Error(`${program} ${args.join(' ')} ended with ${result.status}: ${result.stderr}`);
  }
  return result.stdout;
}

/** The process and all its descendants, as far as /proc shows them at this moment. */
function processTree(pid) {
  const tree = [pid];
  for (const parent of tree) {
    try {
      for (const thread of readdirSync(`/proc/${parent}/task`)) {
        const children = readFileSync(`/proc/${parent}/task/${thread}/children`, 'utf8');
        tree.push(...children.split(' ').filter(Boolean).map(Number));
      }
    } catch {
      // The process ended between two looks.
    }
  }
  return tree;
}

/** Peak resident bytes that the kernel remembers of a process; 0 once it is gone. */
function peakResidentBytes(pid) {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return line === null ? 0 : Number(line[1]) * KIB;
  } catch {
    return 0;
  }
}

/**
 * Watches a process tree until stopped; the sum of the peaks of processes that were seen alive
 * together.
 *
 * @param {boolean} skipRoot the root is only a wrapper
 */
function watchMemory(pid, skipRoot) {
  let peakBytes = 0;
  const look = () => {
    const members = processTree(pid).slice(skipRoot ? 1 : 0);
    const sum = members.reduce((bytes, member) => bytes + peakResidentBytes(member), 0);
    peakBytes = Math.max(peakBytes, sum);
  };
  const timer = setInterval(look, WATCH_INTERVAL_MS);
  return {
    stop() {
      clearInterval(timer);
      return peakBytes;
    },
  };
}

function readTimeFile(path) {
  if (!existsSync(path)) return undefined;
  const line = readFileSync(path, 'utf8').trim().split('\n').at(-1);
  rmSync(path);
  const [userSeconds, systemSeconds, peakKib] = line.split(' ').map(Number);
  return { cpuSeconds: userSeconds + systemSeconds, peakBytes: peakKib * KIB };
}

function waitFor(child) {
  let tail = '';
  const keep = (text) => {
    tail = (tail + text).slice(-OUTPUT_TAIL_CHARACTERS);
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status: status ?? signal, tail }));
  });
}

function endProcessGroup(leader) {
  try {
    process.kill(-leader);
  } catch {
    // It has ended by itself.
  }
}

/**
 * Runs a command and measures it.
 *
 * @param {{ program: string, args: string[], cwd?: string, env?: Record<string, string> }} command
 * @param {string} scratch a folder on the file system under test
 * @returns {Promise<{ seconds: number, settleSeconds: number, cpuSeconds?: number, peakBytes: number }>}
 *   `settleSeconds` is what writing back took after the command had ended.
 * @throws when the command does not end with 0
 */
export async function measure({ program, args, cwd, env }, scratch) {
  const timeFile = join(scratch, 'time.txt');
  const hasGnuTime = existsSync(GNU_TIME);
  const wrapped = hasGnuTime
    ? [GNU_TIME, '-o', timeFile, '-f', '%U %S %M', program, ...args]
    : [program, ...args];
  settle(scratch);
  const start = process.hrtime.bigint();
  const child = spawn(wrapped[0], wrapped.slice(1), {
    cwd: cwd ?? scratch,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A process group of its own, so that all of it can be ended when this process is.
    detached: true,
  });
  const endGroup = () => endProcessGroup(child.pid);
  process.on('exit', endGroup);
  const watch = watchMemory(child.pid, hasGnuTime);
  const { status, tail } = await waitFor(child).finally(() => process.off('exit', endGroup));
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const watchedBytes = watch.stop();
  const kernel = readTimeFile(timeFile);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}: ${tail}`);
  const settleSeconds = settle(scratch);
  return {
    seconds,
    settleSeconds,
    cpuSeconds: kernel?.cpuSeconds,
    peakBytes: Math.max(kernel?.peakBytes ?? 0, watchedBytes),
  };
}

/** Waits until the file system has nothing dirty; returns the seconds that took. */
export function settle(folder) {
  const start = process.hrtime.bigint();
  runQuietly('sync', ['-f', folder]);
  return Number(process.hrtime.bigint() - start) / 1e9;
}

function* filesUnder(path) {
  if (!statSync(path).isDirectory()) {
    yield path;
    return;
  }
  for (const child of readdirSync(path, { withFileTypes: true })) {
    const full = join(path, child.name);
    if (child.isDirectory()) yield* filesUnder(full);
    else if (child.isFile()) yield full;
  }
}

/** The sum of the lengths of all files under a folder. */
export function folderBytes(folder) {
  let sum = 0;
  for (const file of filesUnder(folder)) sum += statSync(file).size;
  return sum;
}

/**
 * Brings a file, or all files of a folder, into the page cache, or drops them from it.
 *
 * @param {'warm' | 'cold'} state
 */
export function prepareCache(path, state) {
  for (const file of filesUnder(path)) {
    // With a count of 0, dd does nothing but advise the kernel to forget the whole file.
    const args =
      state === 'cold'
        ? [`if=${file}`, 'iflag=nocache', 'count=0']
        : [`if=${file}`, 'of=/dev/null', 'bs=1M'];
    runQuietly('dd', ['status=none', ...args]);
  }
}
