/**
 * Progress of one job: a rewritten line on a terminal, now and then a line elsewhere, status messages with --json.
 *
 * The estimate comes from bytes to process (what is allocated), not from the disk's size, and from a rate smoothed over some seconds, so
 * that holes and single slow reads do not make it jump. A terminal's line is redrawn at most five times a second and never longer
 * than the terminal is wide: fields go in order of what is missed least. On a file or a pipe a line comes every 10 % or 30 seconds.
 */

import type { NativeStats } from '../../engine/binding.js';
import { formatBytes, formatClock, formatRate, formatShare } from './bytes.js';
import type { Output } from './output.js';
import { displayWidth } from './text.js';

/** What is shown of a job. Native jobs' counters have all of it; new and stored bytes are those of a backup. */
export type ProgressStats = Pick<
  NativeStats,
  'phase' | 'elapsedSeconds' | 'totalBytes' | 'doneBytes'
> &
  Partial<Pick<NativeStats, 'newBytes' | 'storedBytes' | 'bottleneck'>>;

export type ProgressMode = 'auto' | 'always' | 'never';

const REDRAW_SECONDS = 0.2;
const JSON_SECONDS = 1;
const LINE_SECONDS = 30;
/** In so many seconds the weight of what was before halves. */
const RATE_HALF_LIFE_SECONDS = 4;
/** No estimate before this: the first reads say little. */
const ESTIMATE_AFTER_SECONDS = 2;

/**
 * A rate that forgets: weighted by time, so that it does not depend on how often it is fed, and divided by the weights so far, so that
 * it is right from the first update on.
 */
export class SmoothedRate {
  #bytes = 0;
  #seconds = 0;
  #weighted = 0;
  #weights = 0;

  /** What was done before is not counted: the rate begins here. */
  begin(bytes: number, seconds: number): void {
    this.#bytes = bytes;
    this.#seconds = seconds;
    this.#weighted = 0;
    this.#weights = 0;
  }

  /** Feeds the totals so far; gives bytes per second. */
  update(bytes: number, seconds: number): number {
    const elapsed = seconds - this.#seconds;
    if (elapsed > 0) {
      const current = Math.max(0, bytes - this.#bytes) / elapsed;
      const kept = 0.5 ** (elapsed / RATE_HALF_LIFE_SECONDS);
      this.#weighted = this.#weighted * kept + current * (1 - kept);
      this.#weights = this.#weights * kept + (1 - kept);
      this.#bytes = bytes;
      this.#seconds = seconds;
    }
    return this.#weights > 0 ? this.#weighted / this.#weights : 0;
  }
}

export class Progress {
  readonly #output: Output;
  readonly #mode: ProgressMode;
  readonly #label: string;
  readonly #rate = new SmoothedRate();
  readonly #signal: NodeJS.Signals | undefined;
  #stats: ProgressStats | undefined;
  #shownSeconds = Number.NEGATIVE_INFINITY;
  #shownTenths = 0;
  #lineWidth = 0;

  /** `label` is the verb, "backup". SIGUSR1 prints a line at once, where there are such signals. */
  constructor(output: Output, mode: ProgressMode, label: string) {
    this.#output = output;
    this.#mode = mode;
    this.#label = label;
    this.#signal = process.platform === 'win32' ? undefined : 'SIGUSR1';
    if (this.#signal !== undefined) process.on(this.#signal, this.#onSignal);
    output.beforeStderr = () => this.#clear();
  }

  /** Takes the newest counters, and shows them when it is time. */
  update(stats: ProgressStats): void {
    if (stats.elapsedSeconds < (this.#stats?.elapsedSeconds ?? 0)) this.#startAgain();
    this.#stats = stats;
    // Opening and scanning take time in which no bytes are done; the rate is that of the work after it.
    if (isBefore(stats)) this.#rate.begin(stats.doneBytes, stats.elapsedSeconds);
    const rate = this.#rate.update(stats.doneBytes, stats.elapsedSeconds);
    if (this.#mode === 'never' || this.#output.quiet) return;
    const since = stats.elapsedSeconds - this.#shownSeconds;
    if (this.#output.json) {
      if (since >= JSON_SECONDS)
        this.#show(stats, () => this.#output.message('status', statusOf(stats, rate)));
    } else if (this.#output.stderr.isTTY) {
      if (since >= REDRAW_SECONDS) this.#show(stats, () => this.#redraw(stats, rate));
    } else {
      // A short job on a pipe says nothing but its summary, unless it was asked to.
      const due =
        stats.elapsedSeconds - Math.max(0, this.#shownSeconds) >= LINE_SECONDS ||
        (tenthsOf(stats) > this.#shownTenths && tenthsOf(stats) < 10 && stats.elapsedSeconds >= 1);
      if (due || (this.#mode === 'always' && since >= JSON_SECONDS)) this.#printLine(stats, rate);
    }
  }

  /** Takes the line away and lets go of the signal. To be called on every path; more than once does no harm. */
  close(): void {
    this.#clear();
    this.#output.beforeStderr = () => {};
    if (this.#signal !== undefined) process.off(this.#signal, this.#onSignal);
  }

  readonly #onSignal = () => {
    const stats = this.#stats;
    if (stats === undefined) return;
    this.#clear();
    this.#output.rawStderr(
      `${lineOf(this.#label, stats, this.#rate.update(stats.doneBytes, stats.elapsedSeconds))}\n`,
    );
  };

  /** Some jobs are several native sessions, one after the other, and each counts from zero. */
  #startAgain(): void {
    this.#rate.begin(0, 0);
    this.#shownSeconds = Number.NEGATIVE_INFINITY;
    this.#shownTenths = 0;
  }

  #show(stats: ProgressStats, show: () => void): void {
    this.#shownSeconds = stats.elapsedSeconds;
    show();
  }

  #printLine(stats: ProgressStats, rate: number): void {
    this.#shownSeconds = stats.elapsedSeconds;
    this.#shownTenths = tenthsOf(stats);
    this.#output.rawStderr(`${lineOf(this.#label, stats, rate)}\n`);
  }

  #redraw(stats: ProgressStats, rate: number): void {
    // One column stays free: a full last column wraps on some terminals.
    const columns = Math.max(1, (this.#output.stderr.columns || 80) - 1);
    const line = lineOf(this.#label, stats, rate, columns);
    const width = displayWidth(line);
    this.#output.rawStderr(
      `\r${line}${' '.repeat(Math.max(0, Math.min(this.#lineWidth, columns) - width))}`,
    );
    this.#lineWidth = width;
  }

  #clear(): void {
    if (this.#lineWidth === 0) return;
    this.#lineWidth = 0;
    this.#output.rawStderr('\r\u001b[K');
  }
}

/** True while nothing is copied yet. */
export function isBefore({ phase }: ProgressStats): boolean {
  return phase === 'open' || phase === 'search';
}

function shareOf(stats: ProgressStats): number {
  return stats.totalBytes > 0 ? Math.min(1, stats.doneBytes / stats.totalBytes) : 0;
}

function tenthsOf(stats: ProgressStats): number {
  return Math.floor(10 * shareOf(stats));
}

/** Seconds to go, or undefined while nobody can know. */
export function secondsRemaining(stats: ProgressStats, rate: number): number | undefined {
  if (stats.phase !== 'copy' || rate <= 0 || stats.elapsedSeconds < ESTIMATE_AFTER_SECONDS)
    return undefined;
  return Math.max(0, stats.totalBytes - stats.doneBytes) / rate;
}

/** The progress line, of at most `columns` columns. */
export function lineOf(
  label: string,
  stats: ProgressStats,
  rate: number,
  columns = Number.POSITIVE_INFINITY,
): string {
  const remaining = secondsRemaining(stats, rate);
  // The rank says which field goes first when the line is too long: the highest.
  const parts: { rank: number; text: string }[] = [
    { rank: 2, text: `[${formatClock(stats.elapsedSeconds)}]` },
    { rank: 1, text: stats.phase === 'copy' ? label : `${label}: ${PHASES[stats.phase]}` },
    { rank: 0, text: formatShare(Math.min(stats.doneBytes, stats.totalBytes), stats.totalBytes) },
    { rank: 5, text: `${formatBytes(stats.doneBytes)} of ${formatBytes(stats.totalBytes)}` },
    { rank: 3, text: formatRate(rate, 1) },
  ];
  if (stats.newBytes) parts.push({ rank: 6, text: `new ${formatBytes(stats.newBytes)}` });
  if (remaining !== undefined) parts.push({ rank: 4, text: `ETA ${formatClock(remaining)}` });
  const join = () => parts.map(({ text }) => text).join('  ');
  while (parts.length > 1 && displayWidth(join()) > columns) {
    const worst = Math.max(...parts.map(({ rank }) => rank));
    parts.splice(
      parts.findIndex(({ rank }) => rank === worst),
      1,
    );
  }
  return join().slice(0, columns);
}

const PHASES: Readonly<Record<ProgressStats['phase'], string>> = {
  open: 'opening',
  search: 'looking for unused blocks',
  copy: 'copying',
  finish: 'finishing',
  done: 'done',
};

/** The members of a status message; the names are those of NativeStats. */
export function statusOf(stats: ProgressStats, rate: number): Record<string, unknown> {
  return {
    phase: stats.phase,
    elapsedSeconds: stats.elapsedSeconds,
    remainingSeconds: secondsRemaining(stats, rate) ?? null,
    percentDone: 100 * shareOf(stats),
    totalBytes: stats.totalBytes,
    doneBytes: stats.doneBytes,
    bytesPerSecond: Math.round(rate),
    newBytes: stats.newBytes,
    storedBytes: stats.storedBytes,
    bottleneck: stats.bottleneck,
  };
}
