/**
 * The log of a VHDX that QEMU left behind when it died, as far as a merge needs it settled (MS-VHDX 2.2.2 and 2.3).
 *
 * For each change of the tables QEMU puts a new log id into the headers, then writes one entry that bears it, makes that durable, and only then
 * changes the tables and takes the id away. If it dies before the entry is whole, the id stays with nothing to replay: no table
 * was changed yet, so the file is whole, and QEMU reads it without a word. But it never writes to the tables again, and `qemu-img check -r all`
 * does not mend that. The format has an id of zero for such a log; it is set here by the format's own rules for headers.
 */

import { randomBytes } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { crc32c } from '../../crc32c.js';
import { readExactly } from './read-exactly.js';

const FILE_SIGNATURE = 'vhdxfile';
const HEADER_OFFSETS = [64 * 1024, 128 * 1024] as const;
const HEADER_BYTES = 4096;
const SECTOR_BYTES = 4096;
/** QEMU makes logs of 1 MiB unless it is told otherwise. */
const LOG_BYTES_MAX = 64 * 1024 * 1024;
const SEQUENCE_MAX = 2n ** 64n - 1n;

interface Header {
  copy: 0 | 1;
  bytes: Buffer;
}

/** The id of the log that a VHDX's headers ask to replay, if they do. Undefined for what is no VHDX. Rejects with system errors. */
export async function replayId(file: string): Promise<string | undefined> {
  const handle = await open(file, 'r');
  try {
    const header = await currentHeader(handle);
    if (header === undefined || isZero(logId(header))) return undefined;
    return logId(header).toString('hex');
  } finally {
    await handle.close();
  }
}

/**
 * Takes the id of a log away that holds no more than an entry which was never finished. False, and nothing is changed, if it may hold
 * more than that. Only for a file that nobody has open, and after QEMU found nothing to replay in it. Rejects with system errors.
 */
export async function clearUnfinishedLog(file: string): Promise<boolean> {
  const handle = await open(file, 'r+');
  try {
    const header = await currentHeader(handle);
    if (header === undefined) return false;
    const log = await readLog(handle, header);
    if (log === undefined || !isUnfinished(log, logId(header))) return false;
    return await writeWithoutLog(handle, header);
  } finally {
    await handle.close();
  }
}

/** The intact header with the greater sequence number; undefined if there is none. */
async function currentHeader(handle: FileHandle): Promise<Header | undefined> {
  const signature = await readExactly(handle, 0, FILE_SIGNATURE.length);
  if (signature?.toString('latin1') !== FILE_SIGNATURE) return undefined;
  const [first, second] = [await readHeader(handle, 0), await readHeader(handle, 1)];
  if (first === undefined || second === undefined) return first ?? second;
  return sequenceOf(second) > sequenceOf(first) ? second : first;
}

async function readHeader(handle: FileHandle, copy: 0 | 1): Promise<Header | undefined> {
  const bytes = await readExactly(handle, HEADER_OFFSETS[copy], HEADER_BYTES);
  if (bytes?.toString('latin1', 0, 4) !== 'head') return undefined;
  return bytes.readUInt32LE(4) === checksumOf(bytes) ? { copy, bytes } : undefined;
}

async function readLog(handle: FileHandle, { bytes }: Header): Promise<Buffer | undefined> {
  const length = bytes.readUInt32LE(68);
  if (length > LOG_BYTES_MAX) return undefined;
  return readExactly(handle, Number(bytes.readBigUInt64LE(72)), length);
}

/** True for no entry of this id, or for one that is not whole: QEMU gives each entry an id of its own. */
function isUnfinished(log: Buffer, id: Buffer): boolean {
  const entries: number[] = [];
  for (let at = 0; at + SECTOR_BYTES <= log.length; at += SECTOR_BYTES) {
    const isEntry = log.toString('latin1', at, at + 4) === 'loge';
    if (isEntry && log.subarray(at + 32, at + 48).equals(id)) entries.push(at);
  }
  const [only] = entries;
  return only === undefined || (entries.length === 1 && !isWholeEntry(log, only));
}

function isWholeEntry(log: Buffer, at: number): boolean {
  const length = log.readUInt32LE(at + 8);
  if (length < SECTOR_BYTES || length > log.length) return false;
  // The log is a ring: an entry may go on at its start.
  const entry = Buffer.concat([log.subarray(at), log.subarray(0, at)], length);
  return entry.readUInt32LE(4) === checksumOf(entry);
}

/** Both headers anew, first the one that is not current: whenever this is cut short, one of them is intact. */
async function writeWithoutLog(handle: FileHandle, current: Header): Promise<boolean> {
  const sequence = sequenceOf(current);
  if (sequence > SEQUENCE_MAX - 2n) return false;
  const header = Buffer.from(current.bytes);
  // The file changes and what its disk holds does not: a new id for the one, the old id for the other.
  randomBytes(16).copy(header, 16);
  header.fill(0, 48, 64);
  const other = current.copy === 0 ? 1 : 0;
  for (const [step, copy] of ([other, current.copy] as const).entries()) {
    header.writeBigUInt64LE(sequence + BigInt(step) + 1n, 8);
    header.writeUInt32LE(checksumOf(header), 4);
    await handle.write(header, 0, HEADER_BYTES, HEADER_OFFSETS[copy]);
    await handle.sync();
  }
  return true;
}

/** Headers and log entries have their checksum at 4, and it counts as zero in itself. */
function checksumOf(structure: Buffer): number {
  const bytes = Buffer.from(structure);
  bytes.writeUInt32LE(0, 4);
  return crc32c(bytes);
}

function sequenceOf({ bytes }: Header): bigint {
  return bytes.readBigUInt64LE(8);
}

function logId({ bytes }: Header): Buffer {
  return bytes.subarray(48, 64);
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}
