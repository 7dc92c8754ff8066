/**
 * One disk's file system as the guest uses it: transactions through a write-ahead log, records, and coming to rest.
 *
 * Synchronous, like the disk below it. A transaction is durable when `commit` returns; its pages go to their places later, a few at a
 * time, so that a copy without replay is of no use. A record's new content is durable before the transaction that points to it, and its
 * old slot is used again only after that: no record is ever half-written, whatever dies.
 */

import { randomFillSync } from 'node:crypto';
import { crc32 } from 'node:zlib';
import {
  ACCOUNT_PAGES,
  ACCOUNTS_PER_PAGE,
  currentSuperblock,
  encodeLogEntry,
  encodeSuperblock,
  FIRST_ACCOUNT_PAGE,
  FIRST_TABLE_PAGE,
  INITIAL_BALANCE,
  isSealed,
  LOG_BYTES,
  LOG_OFFSET,
  LOG_PAGES,
  META_BYTES,
  PAGE_BYTES,
  pageAt,
  RECORD_BYTES,
  RECORDS_MAX,
  readEntry,
  replayLog,
  STATE_PAGE,
  type Superblock,
  sealPage,
  slotOffset,
  tablePage,
  tablePages,
  writeBalance,
  writeEntry,
} from './guest-layout.js';

/** What a guest needs of its disk. Calls do not overlap. */
export interface GuestDisk {
  readonly sizeBytes: number;
  read(offset: number, length: number): Buffer;
  write(offset: number, bytes: Uint8Array): void;
  flush(): void;
}

/** How many pages go to their places with each transaction. */
const WRITE_BACK_PAGES = 2;
const RANDOM_POOL_BYTES = 1024 * 1024;
const TEXT = 'Firn is the snow that is turning into glacier ice, layer on layer. ';

export interface FormatOptions {
  /** 32 hexadecimal digits. */
  guest: string;
  disk: number;
  disks: number;
  dataBytes: number;
  compressible: number;
}

/** How many records and slots a disk of this size gets for so much data; throws what is wrong with the sizes. */
export function planVolume(
  sizeBytes: number,
  dataBytes: number,
): { records: number; slots: number } | string {
  const records = Math.ceil(dataBytes / RECORD_BYTES);
  const slots = records + Math.max(16, Math.ceil(records / 16));
  if (records > RECORDS_MAX) return `at most ${RECORDS_MAX * RECORD_BYTES} bytes of data`;
  const needed = slotOffset(slots);
  return needed > sizeBytes ? `a disk of at least ${needed} bytes` : { records, slots };
}

/** A record's way from its old slot to a new one. */
export interface RecordMove {
  from: number;
  to: number;
}

export class GuestVolume {
  readonly #disk: GuestDisk;
  #superblock: Superblock;
  // All pages before the log, as of the last transaction.
  readonly #front: Buffer;
  #sequence: number;
  #nextLogPage = 0;
  // Pages that are newer in memory and in the log than in their places.
  readonly #late = new Set<number>();
  readonly #freeSlots: number[] = [];
  // Slots that a transaction that failed may point to after a crash: not to be written until another has taken its place.
  readonly #doubtfulSlots: number[] = [];

  /** Makes the file system and its records; it is clean. */
  static format(disk: GuestDisk, options: FormatOptions): void {
    const plan = planVolume(disk.sizeBytes, options.dataBytes);
    if (typeof plan === 'string') throw new RangeError(`Expected ${plan}`);
    const front = Buffer.alloc((FIRST_TABLE_PAGE + tablePages(plan.records)) * PAGE_BYTES);
    if (options.disk === 0) {
      for (let page = 0; page < ACCOUNT_PAGES; page++) {
        const bytes = pageAt(front, FIRST_ACCOUNT_PAGE + page);
        for (let account = 0; account < ACCOUNTS_PER_PAGE; account++) {
          writeBalance(bytes, account, INITIAL_BALANCE);
        }
        sealPage(bytes, 0);
      }
    }
    const filler = new RecordFiller(options.compressible);
    for (let record = 0; record < plan.records; record++) {
      const bytes = filler.make();
      disk.write(slotOffset(record), bytes);
      const entry = { slot: record, crc: crc32(bytes), generation: 0 };
      writeEntry(pageAt(front, tablePage(record)), record, entry);
    }
    for (let page = 0; page < tablePages(plan.records); page++) {
      sealPage(pageAt(front, FIRST_TABLE_PAGE + page), 0);
    }
    sealPage(pageAt(front, STATE_PAGE), 0);
    const { guest, disk: index, disks } = options;
    const shape = { guest, disk: index, disks, ...plan };
    const superblock = { ...shape, revision: 0, epoch: 1, sequence: 0, clean: true };
    encodeSuperblock(superblock).copy(front, 0);
    disk.write(0, front);
    disk.flush();
  }

  /** Uses a file system, after replaying its log if it was not left clean. */
  constructor(disk: GuestDisk) {
    this.#disk = disk;
    this.#front = disk.read(0, META_BYTES);
    const superblock = currentSuperblock(this.#front);
    if (superblock === undefined) throw new Error('The disk holds no file system of the guest');
    this.#superblock = superblock;
    const log = disk.read(LOG_OFFSET, LOG_BYTES);
    const replayed = replayLog(this.#front, log, superblock);
    this.#sequence = replayed.sequence;
    this.#nextLogPage = replayed.nextPage;
    this.#findFreeSlots();
    if (replayed.entries > 0) {
      for (
        let page = STATE_PAGE;
        page < FIRST_TABLE_PAGE + tablePages(superblock.records);
        page++
      ) {
        if (isSealed(this.page(page))) this.#late.add(page);
      }
      this.#emptyLog(false);
    }
  }

  get records(): number {
    return this.#superblock.records;
  }

  /** A page as of the last transaction; not to be changed in place. */
  page(number: number): Buffer {
    return pageAt(this.#front, number);
  }

  /**
   * Commits new contents of pages, all or none, and the moves of records that they tell of. The pages are sealed here. After a failure
   * it is not known whether the transaction would survive a crash; the next commit takes its place.
   */
  commit(pages: ReadonlyMap<number, Buffer>, moves: readonly RecordMove[]): void {
    try {
      this.#log(pages);
    } catch (error) {
      for (const { to } of moves) this.#doubtfulSlots.push(to);
      throw error;
    }
    this.#freeSlots.push(...this.#doubtfulSlots.splice(0), ...moves.map(({ from }) => from));
    try {
      this.#writeBack(WRITE_BACK_PAGES);
    } catch {
      // It is in the log, and goes to its place before that is emptied: what stands in the way will show then.
    }
  }

  #log(pages: ReadonlyMap<number, Buffer>): void {
    this.#leaveRest();
    if (this.#nextLogPage + 1 + pages.size > LOG_PAGES) this.#emptyLog(false);
    const sequence = this.#sequence + 1;
    const entry = {
      epoch: this.#superblock.epoch,
      sequence,
      pages: [...pages].map(([number, bytes]) => ({ number, bytes })),
    };
    for (const { bytes } of entry.pages) sealPage(bytes, sequence);
    this.#disk.write(LOG_OFFSET + this.#nextLogPage * PAGE_BYTES, encodeLogEntry(entry));
    this.#disk.flush();
    this.#sequence = sequence;
    this.#nextLogPage += 1 + pages.size;
    for (const { number, bytes } of entry.pages) {
      bytes.copy(this.#front, number * PAGE_BYTES);
      this.#late.add(number);
    }
  }

  /**
   * Writes a record anew into a free slot, durably once `flush` has been called; undefined if there is none. Gives what the table's entry
   * is to say.
   */
  writeRecord(bytes: Buffer): { slot: number; crc: number } | undefined {
    const [slot] = this.#freeSlots;
    if (slot === undefined) return undefined;
    this.#leaveRest();
    this.#disk.write(slotOffset(slot), bytes);
    this.#freeSlots.shift();
    return { slot, crc: crc32(bytes) };
  }

  /** Gives a slot back that no transaction has told of. */
  freeSlot(slot: number): void {
    this.#freeSlots.push(slot);
  }

  flush(): void {
    this.#disk.flush();
  }

  /** Brings everything to its place and empties the log; it is clean until the next write. */
  rest(): void {
    if (!this.#superblock.clean) this.#emptyLog(true);
  }

  // The superblock says so before anything else is written.
  #leaveRest(): void {
    if (!this.#superblock.clean) return;
    this.#writeSuperblock({ ...this.#superblock, clean: false });
  }

  #emptyLog(clean: boolean): void {
    this.#writeBack(this.#late.size);
    this.#disk.flush();
    const epoch = this.#superblock.epoch + 1;
    this.#writeSuperblock({ ...this.#superblock, epoch, sequence: this.#sequence, clean });
    this.#nextLogPage = 0;
  }

  #writeBack(count: number): void {
    for (const number of [...this.#late].slice(0, count)) {
      this.#disk.write(number * PAGE_BYTES, this.page(number));
      this.#late.delete(number);
    }
  }

  #writeSuperblock(superblock: Superblock): void {
    const next = { ...superblock, revision: this.#superblock.revision + 1 };
    this.#disk.write((next.revision % 2) * PAGE_BYTES, encodeSuperblock(next));
    this.#disk.flush();
    this.#superblock = next;
  }

  #findFreeSlots(): void {
    const used = new Set<number>();
    for (let record = 0; record < this.records; record++) {
      used.add(readEntry(this.page(tablePage(record)), record).slot);
    }
    for (let slot = 0; slot < this.#superblock.slots; slot++) {
      if (!used.has(slot)) this.#freeSlots.push(slot);
    }
  }
}

/** Makes records: of each page a part is random and the rest a text, so that compressing and deduplicating have their work. */
export class RecordFiller {
  readonly #pool = Buffer.alloc(RANDOM_POOL_BYTES);
  readonly #text = Buffer.alloc(PAGE_BYTES, TEXT);
  readonly #textBytes: number;
  #used = RANDOM_POOL_BYTES;

  constructor(compressible: number) {
    this.#textBytes = Math.round((PAGE_BYTES - 8) * compressible);
  }

  make(): Buffer {
    const record = Buffer.allocUnsafe(RECORD_BYTES);
    for (let at = 0; at < RECORD_BYTES; at += PAGE_BYTES) {
      this.#text.copy(record, at, 0, this.#textBytes);
      this.#copyRandom(record, at + this.#textBytes, PAGE_BYTES - this.#textBytes);
    }
    return record;
  }

  #copyRandom(target: Buffer, at: number, length: number): void {
    if (this.#used + length > RANDOM_POOL_BYTES) {
      randomFillSync(this.#pool);
      this.#used = 0;
    }
    this.#pool.copy(target, at, this.#used, this.#used + length);
    this.#used += length;
  }
}
