/**
 * Goal: a small file costs little, whatever it claims: under a GiB of memory and under a minute. Method: files of at most a few MiB that claim as
 * much as their formats allow, or say the same block thousands of times, go through the very commands, whose peak memory the system tells.
 */

import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { crc32c } from '../../src/crc32c.js';
import { makeImages } from '../fuzz/mutants.js';
import { finish, firn, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const TIB = 2n ** 40n;
const MEMORY_MAX = 1024 * MIB;
const SECONDS_MAX = 60;
const folder = suiteFolder();
const repository = path.join(folder, 'repository');
const images = new Map<string, Buffer>();
/** Has a process leave at its end, in the file PEAK, what the system tells of it: nobody who looks from outside sees that for sure. */
const witness = path.join(folder, 'witness.mjs');
const WITNESS = `
  import { readFileSync, writeFileSync } from 'node:fs';
  process.on('exit', () => writeFileSync(process.env.PEAK, readFileSync('/proc/self/status')));`;

beforeAll(async () => {
  await writeFile(witness, WITNESS);
  const made = await makeImages(folder, Buffer.alloc(4 * MIB, 'page of a disk '));
  for (const { name, bytes } of made) images.set(name, bytes);
  expect((await firn(['init', repository])).status).toBe(0);
});

function imageOf(name: string): Buffer {
  const bytes = images.get(name);
  if (bytes === undefined) throw new Error(`there is no image ${name}`);
  return Buffer.from(bytes);
}

/** Where the region with this beginning of its GUID is described. */
function regionAt(bytes: Buffer, guid: string): number {
  const found = [192 * KIB + 16, 192 * KIB + 48].find(
    (at) => bytes.toString('hex', at, at + 4) === guid,
  );
  if (found === undefined) throw new Error('there is no such region');
  return found;
}

const mendRegions = (bytes: Buffer) => {
  for (const place of [192 * KIB, 256 * KIB]) {
    if (place !== 192 * KIB) bytes.copy(bytes, place, 192 * KIB, 256 * KIB);
    bytes.writeUInt32LE(0, place + 4);
    bytes.writeUInt32LE(crc32c(bytes.subarray(place, place + 64 * KIB)), place + 4);
  }
};

/** A disk that claims this size; `bat` changes what is said of the table, and perhaps the table. */
function vhdxOf(sizeBytes: bigint, bat: (bytes: Buffer, region: number) => Buffer): Buffer {
  const bytes = imageOf('vhdx');
  const metadata = Number(bytes.readBigUInt64LE(regionAt(bytes, '06a27c8b') + 16));
  // The item "virtual disk size": 2fa54224.
  for (let at = metadata + 32; at < metadata + 64 * KIB; at += 32) {
    if (bytes.toString('hex', at, at + 4) !== '2442a52f') continue;
    bytes.writeBigUInt64LE(sizeBytes, metadata + bytes.readUInt32LE(at + 16));
  }
  const changed = bat(bytes, regionAt(bytes, '6677c22d'));
  mendRegions(changed);
  return changed;
}

function vhdSum(bytes: Buffer, place: number, length: number, at: number): void {
  bytes.writeUInt32BE(0, place + at);
  let total = 0;
  for (const byte of bytes.subarray(place, place + length)) total += byte;
  bytes.writeUInt32BE(~total >>> 0, place + at);
}

/** A disk of so many blocks, all of which are the same one. */
function vhdOf(blockBytes: number, entries: number, place: number): Buffer {
  const footer = imageOf('vhd').subarray(-512);
  const header = imageOf('vhd').subarray(512, 1536);
  const size = BigInt(entries) * BigInt(blockBytes);
  for (const at of [40, 48]) footer.writeBigUInt64BE(size, at);
  header.writeBigUInt64BE(1536n, 16);
  header.writeUInt32BE(entries, 28);
  header.writeUInt32BE(blockBytes, 32);
  const table = Buffer.alloc(Math.ceil((entries * 4) / 512) * 512, 0xff);
  for (let entry = 0; entry < entries; entry++) table.writeUInt32BE(place, entry * 4);
  const block = Buffer.alloc(Math.min(512 + blockBytes, MIB), 0xff);
  const bytes = Buffer.concat([footer, header, table, block, footer]);
  vhdSum(bytes, 0, 512, 64);
  vhdSum(bytes, 512, 1024, 36);
  vhdSum(bytes, bytes.length - 512, 512, 64);
  return bytes;
}

/** A protective MBR and a GPT whose header claims as many and as large entries as there can be. */
function gptOf(entries: number, entryBytes: number): Buffer {
  const bytes = Buffer.alloc(MIB);
  bytes.writeUInt16LE(0xaa55, 510);
  bytes.writeUInt8(0xee, 446 + 4);
  bytes.writeUInt32LE(1, 446 + 8);
  bytes.writeUInt32LE(0xffffffff, 446 + 12);
  bytes.write('EFI PART', 512, 'latin1');
  bytes.writeUInt32LE(0x10000, 512 + 8);
  bytes.writeUInt32LE(92, 512 + 12);
  bytes.writeBigUInt64LE(1n, 512 + 24);
  bytes.writeBigUInt64LE(2047n, 512 + 32);
  bytes.writeBigUInt64LE(34n, 512 + 40);
  bytes.writeBigUInt64LE(2000n, 512 + 48);
  bytes.writeBigUInt64LE(2n, 512 + 72);
  bytes.writeUInt32LE(entries, 512 + 80);
  bytes.writeUInt32LE(entryBytes, 512 + 84);
  return bytes;
}

const HOSTILE: Record<string, () => Buffer> = {
  'a VHDX whose table is a GiB long': () =>
    vhdxOf(64n * TIB, (bytes, region) => {
      bytes.writeUInt32LE(0x40000000, region + 24);
      return bytes;
    }),
  'a VHDX of 64 TiB with a table of one entry': () => vhdxOf(64n * TIB, (bytes) => bytes),
  'a VHDX that has one block a hundred thousand times': () =>
    vhdxOf(120n * 1024n * BigInt(MIB), (bytes, region) => {
      // A table behind all else: each entry says that it has the block after it.
      const place = Math.ceil(bytes.length / MIB) * MIB;
      bytes.writeBigUInt64LE(BigInt(place), region + 16);
      bytes.writeUInt32LE(MIB, region + 24);
      const table = Buffer.alloc(MIB);
      for (let at = 0; at < table.length; at += 8) {
        table.writeBigUInt64LE((BigInt(place / MIB + 1) << 20n) | 6n, at);
      }
      const padding = Buffer.alloc(place - bytes.length);
      return Buffer.concat([bytes, padding, table, Buffer.alloc(MIB, 'x')]);
    }),
  'a VHD with blocks of 2 GiB that it does not have': () => vhdOf(2 ** 31, 1000, 2),
  'a VHD that has one block a hundred thousand times': () => vhdOf(512 * KIB, 131_072, 3 + 1024),
  'a VHD with the smallest blocks': () => vhdOf(4096, 200_000, 3 + 1563),
  'a GPT of four thousand million entries': () => gptOf(0xffffffff, 128),
  'a GPT of entries of two GiB': () => gptOf(128, 2 ** 31),
};

describe.skipIf(process.platform !== 'linux')('a small hostile image', () => {
  test.each(Object.keys(HOSTILE))('%s costs little to inspect and to back up', async (name) => {
    const file = path.join(folder, 'hostile');
    await writeFile(file, (HOSTILE[name] as () => Buffer)());
    expect((await stat(file)).size).toBeLessThanOrEqual(10 * MIB);
    for (const line of [
      ['inspect', '--unused', file, '--json'],
      ['backup', file, '--vm', 'hostile', '--skip-unused', '-r', repository, '--json'],
    ]) {
      const begun = performance.now();
      const told = path.join(folder, 'peak');
      const env = {
        FIRN_STATE: path.join(folder, 'state'),
        NODE_OPTIONS: `--import=${pathToFileURL(witness).href}`,
        PEAK: told,
      };
      const child = start(line, { env });
      const giveUp = setTimeout(() => child.kill('SIGKILL'), SECONDS_MAX * 1000);
      const finished = await finish(child);
      clearTimeout(giveUp);
      const seconds = (performance.now() - begun) / 1000;
      const kib = /^VmHWM:\s+(\d+)/m.exec(await readFile(told, 'utf8').catch(() => ''));
      const peak = Number(kib?.[1] ?? 0) * KIB;
      await rm(told, { force: true });
      const about = `${line[0]}: ${finished.status} ${finished.signal} in ${seconds.toFixed(1)} s, ${(peak / MIB).toFixed(0)} MiB: ${finished.stderr.slice(0, 300)}`;
      expect(finished.signal, about).toBeNull();
      expect([0, 30, 10, 31, 1], about).toContain(finished.status);
      expect(peak, about).toBeGreaterThan(0);
      expect(peak, about).toBeLessThan(MEMORY_MAX);
    }
  });

  test('is made of one that is sound', async () => {
    for (const name of ['vhdx.vhdx', 'vhd.vhd']) {
      expect((await firn(['inspect', path.join(folder, name), '--json'])).status).toBe(0);
    }
  });
});
