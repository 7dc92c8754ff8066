/**
 * Says what a copy of a guest's disks is worth, from the copy alone.
 *
 * It does what a mount would do, in memory: replays the logs, and then looks at everything. A copy of one moment, frozen or as after a
 * power cut, holds all of it. One that was put together over time while the guest wrote does not: pages are torn or newer than the last
 * transaction, entries of a log are missing in its middle, balances do not add up, records do not match their table, counters of
 * several disks are apart.
 */

import { crc32 } from 'node:zlib';
import {
  ACCOUNT_PAGES,
  BALANCE_TOTAL,
  currentSuperblock,
  FIRST_ACCOUNT_PAGE,
  FIRST_TABLE_PAGE,
  type GuestState,
  isSealed,
  LOG_BYTES,
  LOG_OFFSET,
  META_BYTES,
  pageAt,
  RECORD_BYTES,
  readEntry,
  readState,
  replayLog,
  STATE_PAGE,
  type Superblock,
  sequenceOf,
  slotOffset,
  sumBalances,
  tablePage,
  tablePages,
} from './guest-layout.js';
import type { GuestVerdict } from './types.js';

const PROBLEMS_MAX = 50;
const PARALLEL_READS = 4;

/** A disk of the copy. */
export interface GuestReader {
  readonly sizeBytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

interface CheckedDisk {
  superblock: Superblock;
  state: GuestState;
  records: number;
}

/** Checks a guest's disks, given in any order. Rejects only with what a reader throws. */
export async function checkGuest(readers: readonly GuestReader[]): Promise<GuestVerdict> {
  const problems: string[] = [];
  const disks: CheckedDisk[] = [];
  for (const [index, reader] of readers.entries()) {
    const report = (problem: string) => problems.push(`disk ${index + 1}: ${problem}`);
    const disk = await new DiskCheck(reader, report).run();
    if (disk !== undefined) disks.push(disk);
  }
  checkTogether(disks, (problem) => problems.push(problem));
  const first = disks.find(({ superblock }) => superblock.disk === 0);
  const expected = disks[0]?.superblock.disks ?? readers.length;
  return {
    recoveryNeeded: disks.some(({ superblock }) => !superblock.clean),
    applicationClean: first !== undefined && first.state.stepsLeft === 0,
    invariantHolds: problems.length === 0,
    generation: first?.state.generation ?? 0,
    records: disks.reduce((sum, disk) => sum + disk.records, 0),
    missingDisks: Math.max(0, expected - disks.length),
    problems: problems.slice(0, PROBLEMS_MAX),
  };
}

function checkTogether(disks: readonly CheckedDisk[], report: (problem: string) => void): void {
  const guests = new Set(disks.map(({ superblock }) => superblock.guest));
  const places = new Set(disks.map(({ superblock }) => superblock.disk));
  if (guests.size > 1) report('the disks are of different guests');
  if (places.size < disks.length) report('a disk was given twice');
  const first = disks.find(({ superblock }) => superblock.disk === 0);
  if (first === undefined) return;
  for (const { superblock, state } of disks) {
    const ahead = state.counter - first.state.counter;
    if (ahead < 0 || ahead > 1) {
      report(
        `the counter on disk ${superblock.disk} of the guest is ${state.counter}, that on disk 0 is ` +
          `${first.state.counter}: the disks are not of one moment`,
      );
    }
  }
}

class DiskCheck {
  readonly #reader: GuestReader;
  readonly #report: (problem: string) => void;

  constructor(reader: GuestReader, report: (problem: string) => void) {
    this.#reader = reader;
    this.#report = report;
  }

  async run(): Promise<CheckedDisk | undefined> {
    if (this.#reader.sizeBytes < LOG_OFFSET + LOG_BYTES) {
      this.#report('it is too small to hold the guest');
      return undefined;
    }
    const front = Buffer.from(await this.#reader.read(0, META_BYTES));
    const log = Buffer.from(await this.#reader.read(LOG_OFFSET, LOG_BYTES));
    const superblock = currentSuperblock(front);
    if (superblock === undefined || slotOffset(superblock.slots) > this.#reader.sizeBytes) {
      this.#report('it holds no file system of the guest');
      return undefined;
    }
    const { sequence, entries, gap } = replayLog(front, log, superblock);
    if (superblock.clean && entries > 0) {
      this.#report('it says that it is at rest, and there are transactions in its log');
    }
    if (gap) this.#report('an entry is missing in the middle of its log');
    this.#checkPages(front, superblock, sequence);
    const state = readState(pageAt(front, STATE_PAGE));
    if (superblock.disk === 0) this.#checkBalances(front, state);
    return { superblock, state, records: await this.#checkRecords(front, superblock, state) };
  }

  #checkPages(front: Buffer, superblock: Superblock, sequence: number): void {
    const pages = [STATE_PAGE];
    const accounts = superblock.disk === 0 ? ACCOUNT_PAGES : 0;
    for (let index = 0; index < accounts; index++) pages.push(FIRST_ACCOUNT_PAGE + index);
    for (let index = 0; index < tablePages(superblock.records); index++) {
      pages.push(FIRST_TABLE_PAGE + index);
    }
    for (const number of pages) {
      const page = pageAt(front, number);
      if (!isSealed(page)) this.#report(`page ${number} is torn`);
      else if (sequenceOf(page) > sequence) {
        this.#report(
          `page ${number} is of transaction ${sequenceOf(page)}, the rest of transaction ${sequence}`,
        );
      }
    }
  }

  #checkBalances(front: Buffer, state: GuestState): void {
    let sum = state.inFlight;
    for (let index = 0; index < ACCOUNT_PAGES; index++) {
      sum += sumBalances(pageAt(front, FIRST_ACCOUNT_PAGE + index));
    }
    if (sum !== BALANCE_TOTAL) {
      this.#report(`the balances add up to ${sum} instead of ${BALANCE_TOTAL}`);
    }
    if (state.stepsLeft === 0 && state.inFlight !== 0) {
      this.#report(`no order is open, and ${state.inFlight} are in flight`);
    }
  }

  async #checkRecords(front: Buffer, superblock: Superblock, state: GuestState): Promise<number> {
    const slots = new Set<number>();
    let next = 0;
    let good = 0;
    const work = async () => {
      while (next < superblock.records) {
        const record = next++;
        const entry = readEntry(pageAt(front, tablePage(record)), record);
        if (entry.slot >= superblock.slots || slots.has(entry.slot)) {
          this.#report(`record ${record} has no slot of its own`);
          continue;
        }
        slots.add(entry.slot);
        if (entry.generation > state.generation) this.#report(`record ${record} is too new`);
        const bytes = await this.#reader.read(slotOffset(entry.slot), RECORD_BYTES);
        if (crc32(bytes) === entry.crc) good++;
        else this.#report(`record ${record} is not what its table says`);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL_READS }, work));
    return good;
  }
}
