/**
 * How a lab's guest lays out a disk: its own small file system, made so that a copy can be told good from bad.
 *
 * | page | what |
 * |---|---|
 * | 0, 1 | superblock, two copies in turn: whether the log is empty and everything in place, the log's epoch |
 * | 2 | state: generation, the counter across disks, the application's open order |
 * | 16..79 | accounts (first disk only): their balances and what the open order holds add up to a constant |
 * | 128..1023 | table of records: slot, checksum and generation of each |
 * | 1024..1279 | write-ahead log |
 * | 2048.. | slots of 64 KiB; a record is rewritten into a free one, then the table is changed through the log |
 *
 * All pages but the slots' begin with a head: magic, CRC-32 of the rest, number of the transaction that wrote it. So it shows if a
 * page is torn, or from after the moment that the rest of the copy is from. Integers are little-endian; numbers of transactions have 48
 * bits.
 */

import { crc32 } from 'node:zlib';

export const PAGE_BYTES = 4096;
export const RECORD_BYTES = 64 * 1024;

export const STATE_PAGE = 2;
export const FIRST_ACCOUNT_PAGE = 16;
export const ACCOUNT_PAGES = 64;
export const ACCOUNTS_PER_PAGE = 1000;
export const INITIAL_BALANCE = 1000;
export const FIRST_TABLE_PAGE = 128;
export const FIRST_LOG_PAGE = 1024;
export const LOG_PAGES = 256;
/** What is held in memory of a disk: all pages before the log. */
export const META_BYTES = FIRST_LOG_PAGE * PAGE_BYTES;
export const LOG_OFFSET = FIRST_LOG_PAGE * PAGE_BYTES;
export const LOG_BYTES = LOG_PAGES * PAGE_BYTES;
export const SLOTS_OFFSET = 2048 * PAGE_BYTES;
export const ENTRIES_PER_PAGE = 250;
export const RECORDS_MAX = (FIRST_LOG_PAGE - FIRST_TABLE_PAGE) * ENTRIES_PER_PAGE;
/** Pages of one transaction, at the most. */
export const TRANSACTION_PAGES_MAX = 64;

const HEAD_BYTES = 32;
const ENTRY_BYTES = 16;
const SUPERBLOCK_MAGIC = 0x31534c46; // "FLS1"
const PAGE_MAGIC = 0x31504c46;
const LOG_MAGIC = 0x314c4c46;

// --- Pages in general ---

/** The transaction that wrote the page. */
export function sequenceOf(page: Buffer): number {
  return page.readUIntLE(8, 6);
}

/** Makes the page valid, as of a transaction. */
export function sealPage(page: Buffer, sequence: number): void {
  seal(page, PAGE_MAGIC, sequence);
}

export function isSealed(page: Buffer): boolean {
  return isIntact(page, PAGE_MAGIC);
}

function seal(bytes: Buffer, magic: number, sequence: number): void {
  bytes.writeUInt32LE(magic, 0);
  bytes.writeUIntLE(sequence, 8, 6);
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
}

function isIntact(bytes: Buffer, magic: number): boolean {
  return bytes.readUInt32LE(0) === magic && bytes.readUInt32LE(4) === crc32(bytes.subarray(8));
}

// --- Superblock ---

export interface Superblock {
  /** 32 hexadecimal digits, the same on all disks of a guest. */
  guest: string;
  /** Which of the guest's disks this is, from 0. */
  disk: number;
  disks: number;
  records: number;
  slots: number;
  /** Grows with every superblock written; the copy with the greater one holds. */
  revision: number;
  /** Log entries of other epochs are of the past. */
  epoch: number;
  /** All transactions up to this one are in place. */
  sequence: number;
  /** The log is empty and nothing has been written since. */
  clean: boolean;
}

export function encodeSuperblock(superblock: Superblock): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  page.write(superblock.guest, 32, 'hex');
  page.writeUInt32LE(superblock.disk, 48);
  page.writeUInt32LE(superblock.disks, 52);
  page.writeUInt32LE(superblock.records, 56);
  page.writeUInt32LE(superblock.slots, 60);
  page.writeUIntLE(superblock.revision, 64, 6);
  page.writeUIntLE(superblock.epoch, 72, 6);
  page.writeUInt8(superblock.clean ? 1 : 0, 80);
  seal(page, SUPERBLOCK_MAGIC, superblock.sequence);
  return page;
}

/** The superblock that holds, of the two copies at the start of `front`; undefined if there is none. */
export function currentSuperblock(front: Buffer): Superblock | undefined {
  const copies = [0, 1]
    .map((page) => decodeSuperblock(pageAt(front, page)))
    .filter((copy) => copy !== undefined);
  return copies.sort((a, b) => b.revision - a.revision)[0];
}

function decodeSuperblock(page: Buffer): Superblock | undefined {
  if (!isIntact(page, SUPERBLOCK_MAGIC)) return undefined;
  const superblock = {
    guest: page.toString('hex', 32, 48),
    disk: page.readUInt32LE(48),
    disks: page.readUInt32LE(52),
    records: page.readUInt32LE(56),
    slots: page.readUInt32LE(60),
    revision: page.readUIntLE(64, 6),
    epoch: page.readUIntLE(72, 6),
    sequence: sequenceOf(page),
    clean: page.readUInt8(80) === 1,
  };
  const possible =
    superblock.disk < superblock.disks &&
    superblock.records <= RECORDS_MAX &&
    superblock.records <= superblock.slots;
  return possible ? superblock : undefined;
}

export function pageAt(bytes: Buffer, page: number): Buffer {
  return bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
}

// --- State ---

export interface GuestState {
  /** How many transactions the application has committed. */
  generation: number;
  /** The counter across disks: never behind the first disk's, and at the most one ahead. */
  counter: number;
  /** Steps of the open order that are still to come; 0 when none is open. */
  stepsLeft: number;
  /** What the open order has taken from accounts and not yet given to another. */
  inFlight: number;
}

export function readState(page: Buffer): GuestState {
  return {
    generation: page.readUIntLE(32, 6),
    counter: page.readUIntLE(40, 6),
    stepsLeft: page.readUInt32LE(48),
    inFlight: page.readInt32LE(52),
  };
}

export function writeState(page: Buffer, state: GuestState): void {
  page.writeUIntLE(state.generation, 32, 6);
  page.writeUIntLE(state.counter, 40, 6);
  page.writeUInt32LE(state.stepsLeft, 48);
  page.writeInt32LE(state.inFlight, 52);
}

// --- Accounts ---

export function accountPage(account: number): number {
  return FIRST_ACCOUNT_PAGE + Math.floor(account / ACCOUNTS_PER_PAGE);
}

export function readBalance(page: Buffer, account: number): number {
  return page.readInt32LE(HEAD_BYTES + 4 * (account % ACCOUNTS_PER_PAGE));
}

export function writeBalance(page: Buffer, account: number, balance: number): void {
  page.writeInt32LE(balance, HEAD_BYTES + 4 * (account % ACCOUNTS_PER_PAGE));
}

/** The sum of a page's balances. */
export function sumBalances(page: Buffer): number {
  let sum = 0;
  for (let index = 0; index < ACCOUNTS_PER_PAGE; index++) sum += readBalance(page, index);
  return sum;
}

export const BALANCE_TOTAL = ACCOUNT_PAGES * ACCOUNTS_PER_PAGE * INITIAL_BALANCE;

// --- Table of records ---

export interface RecordEntry {
  slot: number;
  crc: number;
  generation: number;
}

export function tablePage(record: number): number {
  return FIRST_TABLE_PAGE + Math.floor(record / ENTRIES_PER_PAGE);
}

export function tablePages(records: number): number {
  return Math.ceil(records / ENTRIES_PER_PAGE);
}

export function readEntry(page: Buffer, record: number): RecordEntry {
  const at = HEAD_BYTES + ENTRY_BYTES * (record % ENTRIES_PER_PAGE);
  return {
    slot: page.readUInt32LE(at),
    crc: page.readUInt32LE(at + 4),
    generation: page.readUIntLE(at + 8, 6),
  };
}

export function writeEntry(page: Buffer, record: number, entry: RecordEntry): void {
  const at = HEAD_BYTES + ENTRY_BYTES * (record % ENTRIES_PER_PAGE);
  page.writeUInt32LE(entry.slot, at);
  page.writeUInt32LE(entry.crc, at + 4);
  page.writeUIntLE(entry.generation, at + 8, 6);
}

export function slotOffset(slot: number): number {
  return SLOTS_OFFSET + slot * RECORD_BYTES;
}

// --- Log ---

export interface LogEntry {
  epoch: number;
  sequence: number;
  pages: { number: number; bytes: Buffer }[];
}

/** An entry as it stands in the log: a page that describes it, and the pages' new content. */
export function encodeLogEntry(entry: LogEntry): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES * (1 + entry.pages.length));
  bytes.writeUIntLE(entry.epoch, 16, 6);
  bytes.writeUInt32LE(entry.pages.length, 24);
  for (const [index, page] of entry.pages.entries()) {
    bytes.writeUInt32LE(page.number, 64 + 4 * index);
    page.bytes.copy(bytes, PAGE_BYTES * (1 + index));
  }
  seal(bytes, LOG_MAGIC, entry.sequence);
  return bytes;
}

/** The whole entry at this page of the log, or undefined. */
export function decodeLogEntry(log: Buffer, page: number): LogEntry | undefined {
  const at = page * PAGE_BYTES;
  if (at + PAGE_BYTES > log.length || log.readUInt32LE(at) !== LOG_MAGIC) return undefined;
  const count = log.readUInt32LE(at + 24);
  if (count > TRANSACTION_PAGES_MAX || at + PAGE_BYTES * (1 + count) > log.length) return undefined;
  const bytes = log.subarray(at, at + PAGE_BYTES * (1 + count));
  if (!isIntact(bytes, LOG_MAGIC)) return undefined;
  const pages = [];
  for (let index = 0; index < count; index++) {
    const number = bytes.readUInt32LE(64 + 4 * index);
    if (number < STATE_PAGE || number >= FIRST_LOG_PAGE) return undefined;
    pages.push({ number, bytes: pageAt(bytes, 1 + index) });
  }
  return { epoch: bytes.readUIntLE(16, 6), sequence: sequenceOf(bytes), pages };
}

/**
 * Brings the pages in `front` up to date from the log, as a mount does. Gives the last transaction, where the next entry goes, and whether
 * whole entries of this epoch stand behind one that is missing, which no crash leaves.
 */
export function replayLog(
  front: Buffer,
  log: Buffer,
  superblock: Superblock,
): { sequence: number; nextPage: number; entries: number; gap: boolean } {
  let { sequence } = superblock;
  let page = 0;
  let entries = 0;
  const here = (at: number) => {
    const entry = decodeLogEntry(log, at);
    return entry?.epoch === superblock.epoch ? entry : undefined;
  };
  for (let entry = here(0); entry?.sequence === sequence + 1; entry = here(page)) {
    for (const { number, bytes } of entry.pages) bytes.copy(front, number * PAGE_BYTES);
    sequence = entry.sequence;
    page += 1 + entry.pages.length;
    entries++;
  }
  let gap = false;
  for (let at = page; at < LOG_PAGES && !gap; at++) {
    const stray = here(at);
    gap = stray !== undefined && stray.sequence > sequence;
  }
  return { sequence, nextPage: page, entries, gap };
}
