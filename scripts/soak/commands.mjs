/**
 * Runs the firn command as processes, kills a part of them, and keeps count of how they ended.
 *
 * Every process bears FIRN_SOAK in its environment, as do those that it starts: so whatever one of them leaves running is found.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
/** A command that takes longer hangs; no job here is large. */
const DEADLINE_MS = 180_000;
/** What a command is taken to last as long as none of its kind has ended. */
const FIRST_GUESS_MS = 600;

export class Commands {
  #environment;
  #mark;
  #averageMs = new Map();
  #living = new Set();
  /** By kind of action: how often, and how the processes ended: an exit code, a signal, or the code of an error. */
  counts = {};
  killed = 0;
  interrupted = 0;
  hung = 0;

  #log;

  /** `log` takes a line for each process that has ended. */
  constructor({ mark, state, temporary, log }) {
    this.#log = log;
    this.#mark = `FIRN_SOAK=${mark}`;
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('FIRN_'));
    this.#environment = {
      ...Object.fromEntries(inherited),
      ...(process.env.FIRN_ADDON && { FIRN_ADDON: process.env.FIRN_ADDON }),
      FIRN_SOAK: mark,
      FIRN_STATE: state,
      TMPDIR: temporary,
      NO_COLOR: '1',
    };
  }

  /**
   * Runs one command with --json to its end.
   *
   * `kind` is what it is counted as. `endAt` is when it is ended from outside, as a share of the time that this kind usually takes, with
   * `signal` (SIGKILL by default).
   *
   * @returns {Promise<{status: number | null, signal: string | null, messages: object[], stderr: string, codes: string[],
   *   wasEnded: boolean, line: string}>} `codes` are the error codes of all that failed in it
   */
  async run(kind, parameters, { endAt, signal = 'SIGKILL' } = {}) {
    const beganMs = performance.now();
    const child = this.#start([...parameters, '--json'], ['ignore', 'pipe', 'pipe']);
    const output = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr']) {
      child[name].setEncoding('utf8').on('data', (text) => {
        output[name] += text;
      });
    }
    let wasEnded = false;
    let hangs = false;
    const timers = [
      setTimeout(() => {
        hangs = true;
        child.kill('SIGKILL');
      }, DEADLINE_MS),
    ];
    if (endAt !== undefined) {
      const afterMs = endAt * (this.#averageMs.get(kind) ?? FIRST_GUESS_MS);
      timers.push(setTimeout(() => (wasEnded = child.kill(signal)), afterMs));
    }
    const ended = once(child, 'close');
    const [status, endSignal] = await ended;
    for (const timer of timers) clearTimeout(timer);
    const tookMs = performance.now() - beganMs;
    if (status === 0) {
      const before = this.#averageMs.get(kind) ?? tookMs;
      this.#averageMs.set(kind, before * 0.7 + tookMs * 0.3);
    }
    if (wasEnded && endSignal === 'SIGKILL') this.killed++;
    if (wasEnded && status === 130) this.interrupted++;
    if (hangs) this.hung++;
    const result = {
      status,
      signal: hangs ? 'hangs' : endSignal,
      messages: jsonLines(output.stdout),
      stderr: output.stderr,
      wasEnded: wasEnded && !hangs,
      line: `firn ${parameters.join(' ')}`,
    };
    result.codes = errorCodes(result);
    this.#count(kind, result);
    const end = [
      result.signal ?? status,
      ...(wasEnded ? ['ended by the soak'] : []),
      ...result.codes,
    ];
    this.#log(`${tookMs.toFixed(0)} ms ${result.line}: ${end.join(' ')}`);
    return result;
  }

  /** Starts one that goes on until it is stopped; what it says goes to a file. */
  startLasting(parameters, logFile) {
    const log = openSync(logFile, 'a');
    return this.#start(parameters, ['ignore', log, log]);
  }

  #start(parameters, stdio) {
    const child = spawn(process.execPath, [MAIN, ...parameters], {
      stdio,
      env: this.#environment,
    });
    this.#living.add(child);
    child.once('exit', () => this.#living.delete(child));
    return child;
  }

  #count(kind, { status, signal, codes }) {
    this.counts[kind] ??= { runs: 0, ends: {} };
    const count = this.counts[kind];
    const end = String(signal ?? status);
    count.runs++;
    count.ends[end] = (count.ends[end] ?? 0) + 1;
    for (const code of new Set(codes)) {
      count.codes ??= {};
      count.codes[code] = (count.codes[code] ?? 0) + 1;
    }
  }

  /** Kills what runs still, when the soak itself has to end. */
  killAll() {
    for (const child of this.#living) child.kill('SIGKILL');
  }

  /**
   * All processes that descend from commands of this soak and live: their ids and command lines. Undefined where the system does not
   * tell (there is no /proc).
   */
  processes() {
    let entries;
    try {
      entries = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    } catch {
      return undefined;
    }
    return entries.flatMap((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
        if (!environment.includes(this.#mark)) return [];
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
        return line === '' ? [] : [{ pid: Number(pid), line }];
      } catch {
        return []; // it has ended meanwhile, or is another user's
      }
    });
  }
}

function jsonLines(text) {
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line)];
    } catch {
      return []; // what a killed process wrote last
    }
  });
}

/** The codes of what the command ended with and of what failed in it, wherever they stand. */
function errorCodes({ messages, stderr }) {
  const codes = [];
  const walk = (value) => {
    if (typeof value !== 'object' || value === null) return;
    if (typeof value.code === 'string' && value.code.startsWith('ERR_')) codes.push(value.code);
    for (const member of Object.values(value)) walk(member);
  };
  walk([...messages, ...jsonLines(stderr)]);
  return codes;
}

/** The last message of a kind; jobs end with a "summary". */
export function lastMessage(result, type = 'summary') {
  return result.messages.findLast((message) => message.message_type === type);
}
