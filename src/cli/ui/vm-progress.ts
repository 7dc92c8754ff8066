/**
 * Progress of a run over machines: a block of lines that is rewritten on a terminal, one for each machine under way with its step; lines as
 * steps end, and now and then, elsewhere; step and status messages with --json.
 *
 * Steps other than reading have nothing to count and still can take long (a merge, a guest that does not freeze), so a timer keeps their
 * clocks going. The block steps aside for every other line to standard error and comes back below it.
 */

import { refOf, type StepName, type VmRef } from '../../hosts/host.js';
import type { VmEvent } from '../../jobs/runs/types.js';
import { formatClock, formatSeconds } from './bytes.js';
import type { Output } from './output.js';
import {
  isBefore,
  lineOf,
  type ProgressMode,
  type ProgressStats,
  SmoothedRate,
  statusOf,
} from './progress.js';
import { displayWidth, printable } from './text.js';

const REDRAW_MS = 200;
const JSON_MS = 1000;
const LINE_MS = 30_000;
const NAME_COLUMNS_MAX = 24;

/** What is under way, as a person says it. */
export const STEP_WORDS: Readonly<Record<StepName, string>> = {
  freeze: 'freezing',
  checkpoint: 'making a checkpoint',
  thaw: 'thawing',
  'shadow-copy': 'making a shadow copy',
  changes: 'asking what changed',
  read: 'reading',
  seal: 'sealing',
  keep: 'keeping the reference',
  merge: 'merging',
  'drop-shadow-copy': 'dropping the shadow copy',
  confirm: 'looking whether all is gone',
};

/** One machine's line. Times are of performance.now(). */
interface Line {
  vm: VmRef;
  step: StepName;
  begunMs: number;
  shownMs: number;
  shownTenths: number;
  stats: ProgressStats | undefined;
  rate: SmoothedRate;
  bytesPerSecond: number;
}

export class VmProgress {
  readonly #output: Output;
  readonly #mode: ProgressMode;
  /** By the machine's id, in the order in which they were begun. */
  readonly #lines = new Map<string, Line>();
  readonly #timer: NodeJS.Timeout;
  readonly #signal: NodeJS.Signals | undefined;
  #nameColumns = 0;
  #drawnLines = 0;
  #drawnMs = Number.NEGATIVE_INFINITY;

  /** SIGUSR1 prints the lines at once, where there are such signals. */
  constructor(output: Output, mode: ProgressMode) {
    this.#output = output;
    this.#mode = mode;
    this.#signal = process.platform === 'win32' ? undefined : 'SIGUSR1';
    if (this.#signal !== undefined) process.on(this.#signal, this.#onSignal);
    output.beforeStderr = () => this.#clear();
    this.#timer = setInterval(() => this.#tick(), REDRAW_MS).unref();
  }

  handle(event: VmEvent): void {
    if (event.type === 'step') this.#step(event);
    else if (event.type === 'progress') this.#progress(event);
    else if (event.type === 'reading') this.#reading(event);
    else if (event.type === 'vm-done') this.#lines.delete(event.result.vm.id);
    this.#redraw();
  }

  /** Takes the lines away and lets go of timer and signal. To be called on every path; more than once does no harm. */
  close(): void {
    clearInterval(this.#timer);
    this.#clear();
    this.#lines.clear();
    this.#output.beforeStderr = () => {};
    if (this.#signal !== undefined) process.off(this.#signal, this.#onSignal);
  }

  get #isSilent(): boolean {
    return this.#mode === 'never' || this.#output.quiet;
  }

  /** Whether lines are rewritten in place. */
  get #isLive(): boolean {
    return this.#output.stderr.isTTY === true && !this.#output.json && !this.#isSilent;
  }

  #step(event: Extract<VmEvent, { type: 'step' }>): void {
    const { vm, step, state } = event;
    if (state === 'begun') {
      const nowMs = performance.now();
      this.#nameColumns = Math.max(this.#nameColumns, displayWidth(nameOf(vm)));
      this.#lines.set(vm.id, {
        vm,
        step,
        begunMs: nowMs,
        shownMs: nowMs,
        shownTenths: 0,
        stats: undefined,
        rate: new SmoothedRate(),
        bytesPerSecond: 0,
      });
    }
    if (this.#isSilent) return;
    const elapsedSeconds = state === 'begun' ? undefined : event.elapsedMs / 1000;
    this.#output.message('step', {
      vm: refOf(vm),
      step,
      state,
      elapsedSeconds,
      error: state === 'failed' ? event.error.toJSON() : undefined,
    });
    if (elapsedSeconds === undefined || this.#isLive) return;
    const word = state === 'failed' ? 'failed after' : 'took';
    this.#output.note(`${printable(vm.name)}: ${step} ${word} ${formatSeconds(elapsedSeconds)}`);
  }

  /** In text it is said with the results, where it does not scroll away. */
  #reading({ vm, disks }: Extract<VmEvent, { type: 'reading' }>): void {
    if (!this.#isSilent) this.#output.message('reading', { vm: refOf(vm), disks });
  }

  #progress({ vm, progress }: Extract<VmEvent, { type: 'progress' }>): void {
    const line = this.#lines.get(vm.id);
    if (line === undefined) return;
    // Each attempt is a session of its own and counts from zero; opening takes time in which no bytes are done.
    const isAgain = progress.elapsedSeconds < (line.stats?.elapsedSeconds ?? 0);
    if (isAgain) line.shownTenths = 0;
    if (isAgain || isBefore(progress)) {
      line.rate.begin(progress.doneBytes, progress.elapsedSeconds);
    }
    line.stats = progress;
    line.bytesPerSecond = line.rate.update(progress.doneBytes, progress.elapsedSeconds);
    if (this.#isSilent || this.#isLive) return;
    const nowMs = performance.now();
    if (this.#output.json) {
      if (nowMs - line.shownMs < JSON_MS) return;
      line.shownMs = nowMs;
      this.#output.message('status', { vm: refOf(vm), ...statusOf(progress, line.bytesPerSecond) });
    } else this.#printWhenDue(line, nowMs);
  }

  #tick(): void {
    if (this.#isLive) this.#redraw();
    else if (!this.#isSilent && !this.#output.json) {
      const nowMs = performance.now();
      for (const line of this.#lines.values()) this.#printWhenDue(line, nowMs);
    }
  }

  /** A line every 30 seconds, or tenth of what is to be read once that takes more than a second. */
  #printWhenDue(line: Line, nowMs: number): void {
    const { stats } = line;
    const share = stats && stats.totalBytes > 0 ? stats.doneBytes / stats.totalBytes : 0;
    const tenths = Math.min(9, Math.floor(10 * share));
    const isLong = nowMs - line.begunMs >= 1000;
    const isDue =
      nowMs - line.shownMs >= (this.#mode === 'always' ? JSON_MS : LINE_MS) ||
      (isLong && tenths > line.shownTenths);
    if (!isDue) return;
    line.shownMs = nowMs;
    line.shownTenths = tenths;
    this.#output.note(this.#text(line, Number.POSITIVE_INFINITY));
  }

  readonly #onSignal = () => {
    this.#clear();
    for (const line of this.#lines.values()) {
      this.#output.rawStderr(`${this.#text(line, Number.POSITIVE_INFINITY)}\n`);
    }
  };

  #text(line: Line, columns: number): string {
    const name = nameOf(line.vm);
    const padding = ' '.repeat(Math.max(0, this.#nameColumns - displayWidth(name)));
    const label = `${name}${padding}  ${STEP_WORDS[line.step]}`;
    if (line.step === 'read' && line.stats !== undefined) {
      return lineOf(label, line.stats, line.bytesPerSecond, columns);
    }
    const seconds = (performance.now() - line.begunMs) / 1000;
    return `[${formatClock(seconds)}]  ${label}`.slice(0, columns);
  }

  #redraw(): void {
    const nowMs = performance.now();
    // What was cleared for another line comes back at once.
    const isDue = nowMs - this.#drawnMs >= REDRAW_MS || this.#drawnLines === 0;
    if (!this.#isLive || !isDue) return;
    // One column and one row stay free: a full last one makes some terminals scroll.
    // A terminal that does not know its size says 0.
    const columns = this.#output.stderr.columns || 80;
    const rows = this.#output.stderr.rows || 24;
    const shown = [...this.#lines.values()].slice(0, Math.max(1, rows - 2));
    const texts = shown.map((line) => this.#text(line, Math.max(1, columns - 1)));
    const hidden = this.#lines.size - shown.length;
    if (hidden > 0) texts.push(`... and ${hidden} more`.slice(0, Math.max(1, columns - 1)));
    if (texts.length === 0 && this.#drawnLines === 0) return;
    const up = this.#drawnLines > 0 ? `\u001b[${this.#drawnLines}A` : '';
    const body = texts.map((text) => `\r${text}\u001b[K\n`).join('');
    this.#output.rawStderr(`${up}${body}\u001b[J`);
    this.#drawnLines = texts.length;
    this.#drawnMs = nowMs;
  }

  #clear(): void {
    if (this.#drawnLines === 0) return;
    this.#output.rawStderr(`\u001b[${this.#drawnLines}A\r\u001b[J`);
    this.#drawnLines = 0;
  }
}

/** A machine's name, made harmless and not too long for a line. */
function nameOf({ name }: VmRef): string {
  let short = '';
  for (const character of printable(name)) {
    if (displayWidth(short + character) > NAME_COLUMNS_MAX) break;
    short += character;
  }
  return short;
}
