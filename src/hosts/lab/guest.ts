/**
 * The guest of a lab's machine: a program that moves money between accounts, in orders of several steps, rewrites records, and keeps a
 * counter across its disks; and its agent, which brings all this to rest when asked.
 *
 * Each step is done in one turn of the event loop, so a freeze always falls between steps. A file-system freeze empties the logs; an
 * application freeze completes the open order first. Frozen, it writes nothing, and thaws by itself at the deadline, as VSS does.
 */

import type { Consistency } from '../../consistency.js';
import { firnError, isFirnError } from '../../errors.js';
import {
  ACCOUNT_PAGES,
  ACCOUNTS_PER_PAGE,
  accountPage,
  type GuestState,
  readBalance,
  readEntry,
  readState,
  STATE_PAGE,
  tablePage,
  writeBalance,
  writeEntry,
  writeState,
} from './guest-layout.js';
import { type GuestDisk, GuestVolume, RecordFiller, type RecordMove } from './guest-volume.js';

const STEP_MS = 5;
const RETRY_MS = 100;
const ORDER_STEPS_MIN = 4;
const ORDER_STEPS_MAX = 12;
const RECORDS_PER_STEP_MAX = 16;

export interface GuestOptions {
  writesPerSecond: number;
  compressible: number;
}

export interface Frozen {
  level: Consistency;
  mark: string;
  /** ISO time. */
  since: string;
}

/** A record that was written to a free slot and awaits its transaction. */
interface NewRecord {
  record: number;
  slot: number;
  crc: number;
}

export class Guest {
  readonly #volumes: GuestVolume[];
  readonly #filler: RecordFiller;
  // For each disk.
  readonly #recordsPerMs: number;
  #timer: NodeJS.Timeout | undefined;
  #thawTimer: NodeJS.Timeout | undefined;
  #frozen: (Frozen & { sinceMs: number }) | undefined;
  #held = 0;
  #problem: Error | undefined;
  // Records that each disk is behind its rate by.
  readonly #recordsDue = new Map<GuestVolume, number>();
  #lastStep = 0;

  /** Mounts the disks, replaying logs where the last guest died. The first disk has the accounts. */
  constructor(disks: readonly GuestDisk[], options: GuestOptions) {
    this.#volumes = disks.map((disk) => new GuestVolume(disk));
    this.#filler = new RecordFiller(options.compressible);
    this.#recordsPerMs = options.writesPerSecond / 1000 / this.#volumes.length;
  }

  get generation(): number {
    return readState(this.#first.page(STATE_PAGE)).generation;
  }

  get frozen(): Frozen | undefined {
    return this.#frozen;
  }

  /** Why it makes no headway: its disk failed. It tries again all the time. */
  get problem(): Error | undefined {
    return this.#problem;
  }

  start(): void {
    this.#lastStep = performance.now();
    this.#timer = setTimeout(() => this.#turn(), STEP_MS);
  }

  /** Comes to rest for good, with everything in its place. */
  shutDown(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#thawTimer);
    this.#rest('application');
  }

  /** Comes to rest, until `thaw` or for `deadlineMs` at the most. A freeze for another mark takes the place of this one. */
  freeze(level: Consistency, mark: string, deadlineMs: number): Frozen {
    if (this.#held > 0) throw firnError('ERR_VM_BUSY', 'A checkpoint of the guest is being made');
    clearTimeout(this.#thawTimer);
    this.#rest(level);
    this.#frozen = { level, mark, since: new Date().toISOString(), sinceMs: performance.now() };
    this.#thawTimer = setTimeout(() => this.#goOn(), deadlineMs);
    return this.#frozen;
  }

  /** Goes on if it was frozen for this mark; gives how long it stood still. */
  thaw(mark: string): number | undefined {
    if (this.#frozen?.mark !== mark) return undefined;
    const frozenMs = performance.now() - this.#frozen.sinceMs;
    this.#goOn();
    return frozenMs;
  }

  /** Keeps the guest from writing while `work` runs: as when its hypervisor pauses it. */
  async hold<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#held++;
    try {
      return await work();
    } finally {
      this.#held--;
    }
  }

  get #first(): GuestVolume {
    const [volume] = this.#volumes;
    if (volume === undefined) throw new RangeError('A guest needs a disk');
    return volume;
  }

  #goOn(): void {
    clearTimeout(this.#thawTimer);
    this.#frozen = undefined;
  }

  #turn(): void {
    let wait = STEP_MS;
    const now = performance.now();
    if (this.#frozen === undefined && this.#held === 0) {
      this.#accrueRecords(now - this.#lastStep);
      try {
        this.#step();
        this.#problem = undefined;
      } catch (error) {
        if (!isFirnError(error)) throw error;
        this.#problem = error;
        wait = RETRY_MS;
      }
    }
    this.#lastStep = now;
    this.#timer = setTimeout(() => this.#turn(), wait);
  }

  // What it cannot keep up with is forgotten.
  #accrueRecords(elapsedMs: number): void {
    for (const volume of this.#volumes) {
      const due = (this.#recordsDue.get(volume) ?? 0) + elapsedMs * this.#recordsPerMs;
      this.#recordsDue.set(volume, Math.min(due, 4 * RECORDS_PER_STEP_MAX));
    }
  }

  #rest(level: Consistency): void {
    if (level === 'crash') return;
    if (level === 'application') {
      while (readState(this.#first.page(STATE_PAGE)).stepsLeft > 0) this.#step();
    }
    for (const volume of this.#volumes) volume.rest();
  }

  // One step: the other disks first, so that the counter on the first one is never ahead.
  #step(): void {
    const counter = readState(this.#first.page(STATE_PAGE)).counter + 1;
    for (const volume of this.#volumes.toReversed()) {
      // A step that failed for another disk is done again here; the counter is the same then.
      const state = readState(volume.page(STATE_PAGE));
      this.#commitTo(volume, { ...state, counter });
    }
  }

  #commitTo(volume: GuestVolume, state: GuestState): void {
    const pages = new Map<number, Buffer>();
    const edit = (number: number): Buffer => {
      const page = pages.get(number) ?? Buffer.from(volume.page(number));
      pages.set(number, page);
      return page;
    };
    const next = { ...state, generation: state.generation + 1 };
    if (volume === this.#first) this.#work(next, edit);
    writeState(edit(STATE_PAGE), next);
    const moves: RecordMove[] = [];
    for (const { record, slot, crc } of this.#writeRecords(volume)) {
      const page = edit(tablePage(record));
      moves.push({ from: readEntry(page, record).slot, to: slot });
      writeEntry(page, record, { slot, crc, generation: next.generation });
    }
    volume.commit(pages, moves);
  }

  // A step of an order: takes money from some account, or in the last step gives all that was taken to another.
  #work(state: GuestState, edit: (page: number) => Buffer): void {
    const account = Math.floor(Math.random() * ACCOUNT_PAGES * ACCOUNTS_PER_PAGE);
    const page = edit(accountPage(account));
    const balance = readBalance(page, account);
    if (state.stepsLeft === 0) {
      const range = ORDER_STEPS_MAX - ORDER_STEPS_MIN + 1;
      state.stepsLeft = ORDER_STEPS_MIN + Math.floor(Math.random() * range);
    }
    state.stepsLeft--;
    if (state.stepsLeft === 0) {
      writeBalance(page, account, balance + state.inFlight);
      state.inFlight = 0;
      return;
    }
    const amount = Math.floor(Math.random() * 100) + 1;
    writeBalance(page, account, balance - amount);
    state.inFlight += amount;
  }

  #writeRecords(volume: GuestVolume): NewRecord[] {
    const records = new Map<number, NewRecord>();
    const due = this.#recordsDue.get(volume) ?? 0;
    const count = Math.min(RECORDS_PER_STEP_MAX, Math.floor(due));
    try {
      for (let done = 0; done < count && volume.records > 0; done++) {
        const record = Math.floor(Math.random() * volume.records);
        if (records.has(record)) continue;
        const written = volume.writeRecord(this.#filler.make());
        if (written === undefined) break;
        records.set(record, { record, ...written });
      }
      if (records.size > 0) volume.flush();
    } catch (error) {
      for (const { slot } of records.values()) volume.freeSlot(slot);
      throw error;
    }
    this.#recordsDue.set(volume, due - count);
    return [...records.values()];
  }
}
