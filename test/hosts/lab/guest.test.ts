/**
 * Goal: the guest's file system survives every death, and its checker tells good copies from bad ones. Method: guests on disks in memory, which
 * keep what a power cut would leave: everything flushed, and any of what was written since.
 */

import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { firnError } from '../../../src/errors.js';
import { Guest } from '../../../src/hosts/lab/guest.js';
import { checkGuest } from '../../../src/hosts/lab/guest-check.js';
import { LOG_OFFSET, PAGE_BYTES, SLOTS_OFFSET } from '../../../src/hosts/lab/guest-layout.js';
import { type GuestDisk, GuestVolume } from '../../../src/hosts/lab/guest-volume.js';
import type { GuestVerdict } from '../../../src/hosts/lab/types.js';
import { until } from './lab-fixture.js';

const MIB = 1024 * 1024;
const GUEST = '00112233445566778899aabbccddeeff';

/** A disk with a cache: `durable` has what was flushed. */
class MemoryDisk implements GuestDisk {
  readonly sizeBytes: number;
  readonly durable: Buffer;
  readonly cached: Buffer;
  unflushed: { offset: number; bytes: Buffer }[] = [];
  /** Called before each write and each flush; may throw. */
  onAccess: () => void = () => {};

  constructor(content: Buffer) {
    this.sizeBytes = content.length;
    this.durable = content;
    this.cached = Buffer.from(content);
  }

  read(offset: number, length: number): Buffer {
    return Buffer.from(this.cached.subarray(offset, offset + length));
  }

  write(offset: number, bytes: Uint8Array): void {
    this.onAccess();
    this.cached.set(bytes, offset);
    this.unflushed.push({ offset, bytes: Buffer.from(bytes) });
  }

  flush(): void {
    this.onAccess();
    for (const { offset, bytes } of this.unflushed) bytes.copy(this.durable, offset);
    this.unflushed = [];
  }

  /** The disk as a power cut leaves it: of the writes since the flush some are there, some are not, and of some a part is. */
  afterPowerCut(): Buffer {
    const content = Buffer.from(this.durable);
    for (const { offset, bytes } of this.unflushed) {
      const survival = Math.random() < 0.4 ? 1 : Math.random() * 2 - 1;
      for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
        if (Math.random() < survival) bytes.copy(content, offset + at, at, at + PAGE_BYTES);
      }
    }
    return content;
  }
}

function formatted(disks: number): Buffer[] {
  return Array.from({ length: disks }, (_value, disk) => {
    const memory = new MemoryDisk(Buffer.alloc(12 * MIB));
    const dataBytes = MIB;
    GuestVolume.format(memory, { guest: GUEST, disk, disks, dataBytes, compressible: 0.5 });
    return memory.cached;
  });
}

function check(contents: readonly Buffer[]): Promise<GuestVerdict> {
  return checkGuest(
    contents.map((content) => ({
      sizeBytes: content.length,
      read: async (offset, length) => content.subarray(offset, offset + length),
    })),
  );
}

/** A running guest on disks in memory; it ends with the test. */
function run(contents: readonly Buffer[]): { guest: Guest; disks: MemoryDisk[] } {
  const disks = contents.map((content) => new MemoryDisk(Buffer.from(content)));
  const guest = new Guest(disks, { writesPerSecond: 400, compressible: 0.5 });
  guest.start();
  onTestFinished(() => guest.shutDown());
  return { guest, disks };
}

async function runFor(guest: Guest, transactions: number): Promise<void> {
  const goal = guest.generation + transactions;
  await until(() => guest.generation >= goal);
}

test('a new file system is clean and whole', async () => {
  expect(await check(formatted(2))).toEqual({
    recoveryNeeded: false,
    applicationClean: true,
    invariantHolds: true,
    generation: 0,
    records: 32,
    missingDisks: 0,
    problems: [],
  });
});

test('what a power cut leaves at any moment adds up once the log is replayed', async () => {
  const { disks } = run(formatted(2));
  let copy: Buffer[] | undefined;
  for (const disk of disks) {
    disk.onAccess = () => {
      if (Math.random() < 0.1) copy ??= disks.map((each) => each.afterPowerCut());
    };
  }
  for (let checked = 0; checked < 80; checked++) {
    await until(() => copy !== undefined);
    expect((await check(copy ?? [])).problems).toEqual([]);
    copy = undefined;
  }
}, 300_000);

test('after a power cut a guest goes on from there', async () => {
  let contents = formatted(2);
  let generation = 0;
  // How far it gets in a round is chance, and less when it has many records to write at once.
  for (let round = 0; round < 8 || generation <= 20; round++) {
    const { guest, disks } = run(contents);
    let accessesLeft = 5 + Math.floor(Math.random() * 200);
    const dead = new Promise<void>((resolve) => {
      for (const disk of disks) {
        disk.onAccess = () => {
          accessesLeft--;
          if (accessesLeft >= 0) return;
          resolve();
          throw firnError('ERR_WRITE', 'The power is gone');
        };
      }
    });
    await dead;
    contents = disks.map((disk) => disk.afterPowerCut());
    const verdict = await check(contents);
    expect(verdict.problems).toEqual([]);
    expect(verdict.generation).toBeGreaterThanOrEqual(generation);
    generation = verdict.generation;
    for (const disk of disks) disk.onAccess = () => {};
    guest.shutDown();
  }
  expect(generation).toBeGreaterThan(20);
});

test('a guest that lost its disk for a while goes on where it was', async () => {
  const { guest, disks } = run(formatted(2));
  await runFor(guest, 5);
  const copies: Buffer[][] = [];
  for (const disk of disks) {
    disk.onAccess = () => {
      if (Math.random() < 0.8) return;
      // Should the power go too, now that something has failed.
      copies.push(disks.map((each) => each.afterPowerCut()));
      throw firnError('ERR_DISK_FULL', 'There is no room');
    };
  }
  await until(() => copies.length > 30);
  for (const disk of disks) disk.onAccess = () => {};
  await runFor(guest, 5);
  expect(guest.problem).toBeUndefined();
  guest.shutDown();
  for (const copy of [...copies, disks.map((disk) => disk.cached)]) {
    expect((await check(copy)).problems).toEqual([]);
  }
});

test('a frozen guest writes nothing, thaws for its own mark only, and goes on', async () => {
  const { guest, disks } = run(formatted(1));
  await runFor(guest, 5);
  guest.freeze('application', 'mine', 60_000);
  const before = disks.map((disk) => Buffer.from(disk.cached));
  expect(guest.thaw('another')).toBeUndefined();
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(disks.every((disk, index) => disk.cached.equals(before[index] ?? Buffer.alloc(0)))).toBe(
    true,
  );
  expect(guest.thaw('mine')).toBeGreaterThan(50);
  await runFor(guest, 1);
});

test('a frozen guest goes on by itself at its deadline', async () => {
  const { guest } = run(formatted(1));
  await runFor(guest, 2);
  guest.freeze('filesystem', 'mine', 40);
  const { generation } = guest;
  await until(() => guest.generation > generation);
  expect(guest.frozen).toBeUndefined();
  expect(guest.thaw('mine')).toBeUndefined();
});

test('a freeze gives what its level promises, and the next write takes it back', async () => {
  const { guest, disks } = run(formatted(2));
  const look = () => check(disks.map((disk) => Buffer.from(disk.cached)));
  let sawOpenOrder = false;
  for (let round = 0; round < 30 && !sawOpenOrder; round++) {
    await runFor(guest, 3);
    guest.freeze('filesystem', 'mark', 60_000);
    const verdict = await look();
    expect(verdict).toMatchObject({ recoveryNeeded: false, problems: [] });
    sawOpenOrder = !verdict.applicationClean;
    guest.thaw('mark');
  }
  expect(sawOpenOrder).toBe(true);
  for (let round = 0; round < 10; round++) {
    await runFor(guest, 3);
    guest.freeze('application', 'mark', 60_000);
    const clean = { recoveryNeeded: false, applicationClean: true, problems: [] };
    expect(await look()).toMatchObject(clean);
    guest.thaw('mark');
  }
  await runFor(guest, 2);
  expect(await look()).toMatchObject({ recoveryNeeded: true, problems: [] });
});

// --- Bad copies ---

test('a copy whose parts are of different moments is found out', async () => {
  const { guest, disks } = run(formatted(1));
  await runFor(guest, 60);
  const [disk] = disks;
  const early = Buffer.from(disk?.cached ?? '');
  await runFor(guest, 300);
  const late = Buffer.from(disk?.cached ?? '');
  expect((await check([early])).problems).toEqual([]);
  expect((await check([late])).problems).toEqual([]);
  const parts = {
    'accounts and tables late, log early': [0, LOG_OFFSET],
    'log late': [LOG_OFFSET, SLOTS_OFFSET],
    'records late': [SLOTS_OFFSET, late.length],
  } as const;
  for (const [what, [start, end]] of Object.entries(parts)) {
    const mixed = Buffer.from(early);
    late.copy(mixed, start, start, end);
    expect((await check([mixed])).invariantHolds, what).toBe(false);
  }
});

test('disks of different moments are found out', async () => {
  const { guest, disks } = run(formatted(2));
  const copies = () => disks.map((disk) => Buffer.from(disk.cached)) as [Buffer, Buffer];
  await runFor(guest, 20);
  const early = copies();
  await runFor(guest, 20);
  const late = copies();
  for (const mixed of [
    [early[0], late[1]],
    [late[0], early[1]],
  ]) {
    const { problems } = await check(mixed);
    expect(problems.join()).toContain('not of one moment');
  }
});

test('a flipped bit in anything that counts is found out', async () => {
  const { guest, disks } = run(formatted(1));
  await runFor(guest, 40);
  guest.shutDown();
  const good = Buffer.from(disks[0]?.cached ?? '');
  const pages = fc.sample(fc.constantFrom(2, 16, 40, 79, 128), 15);
  for (const page of pages) {
    const bad = Buffer.from(good);
    const at = page * PAGE_BYTES + Math.floor(Math.random() * 14);
    bad.writeUInt8(bad.readUInt8(at) ^ 4, at);
    expect((await check([bad])).invariantHolds, `page ${page}, byte ${at}`).toBe(false);
  }
  expect((await check([good])).invariantHolds).toBe(true);
});

test('what is no disk of a guest, one disk twice, and disks of two guests are found out', async () => {
  const [first, second] = formatted(2) as [Buffer, Buffer];
  expect((await check([Buffer.alloc(12 * MIB)])).invariantHolds).toBe(false);
  expect((await check([Buffer.alloc(4096)])).invariantHolds).toBe(false);
  expect((await check([first, first])).invariantHolds).toBe(false);
  const other = new MemoryDisk(Buffer.alloc(12 * MIB));
  GuestVolume.format(other, {
    guest: GUEST.split('').toReversed().join(''),
    disk: 1,
    disks: 2,
    dataBytes: MIB,
    compressible: 0,
  });
  expect((await check([first, other.cached])).invariantHolds).toBe(false);
  expect(await check([second, first])).toMatchObject({ invariantHolds: true, missingDisks: 0 });
  expect(await check([first])).toMatchObject({ invariantHolds: true, missingDisks: 1 });
});
