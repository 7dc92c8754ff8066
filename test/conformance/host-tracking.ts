/**
 * What a host that tells what changed must hold. Skipped, with the reason, for a host whose fixture names no mode.
 *
 * The truth is what the frozen disks read as, at one capture and at the next one: every page that differs must be among the changes.
 */

import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, type TestContext, test } from 'vitest';
import type { NativeOpenDisk } from '../../src/engine/binding.js';
import { loadEngine } from '../../src/engine/engine.js';
import { isFirnError } from '../../src/errors.js';
import type { Capture, FrozenDisk, Host } from '../../src/hosts/host.js';
import {
  type HostTracking,
  type Reference,
  referenceName,
  type TrackingRequest,
} from '../../src/hosts/tracking.js';
import { type Bench, captureOf, recordSteps } from './host-bench.js';

const PAGE_BYTES = 4096;
const READ_BYTES = 1024 * 1024;
/** Reading page by page in a test takes its time. */
const SIZE_BYTES_MAX = 256 * 1024 * 1024;

const newOwner = () => randomBytes(16).toString('hex');

interface Tracked {
  mark: string;
  capture: Capture;
  reference: Reference;
}

/** The calls of a run that tracks, on the bench's first machine. */
class Tracker {
  readonly host: Host;
  readonly tracking: HostTracking;
  readonly #bench: Bench;
  readonly #mode: TrackingRequest['mode'];

  static async open(bench: Bench, context: TestContext): Promise<Tracker> {
    const host = await bench.host();
    const { tracking } = host;
    const mode = bench.fixture.tracking;
    if (tracking === undefined || mode === undefined) {
      return context.skip('this host cannot say what changed');
    }
    return new Tracker(bench, host, tracking, mode);
  }

  private constructor(
    bench: Bench,
    host: Host,
    tracking: HostTracking,
    mode: TrackingRequest['mode'],
  ) {
    this.#bench = bench;
    this.host = host;
    this.tracking = tracking;
    this.#mode = mode;
  }

  /** As a run into the repository `owner` captures that has points with these references, the newest first. */
  async capture(owner: string, since: readonly Reference[] = []): Promise<Tracked> {
    const mark = this.#bench.mark();
    const vm = await this.#bench.vm(this.host);
    const name = referenceName(owner, mark.slice(-32));
    const tracking = { mode: this.#mode, name, since };
    const request = this.#bench.request(vm, { tracking });
    const [outcome] = await this.host.capture([request], mark, recordSteps());
    const capture = captureOf(outcome);
    if (capture.reference === undefined) throw new Error('the capture gave no reference');
    // What comes back later has been JSON in between.
    const reference = JSON.parse(JSON.stringify(capture.reference)) as Reference;
    expect(reference.name).toBe(name);
    return { mark, capture, reference };
  }

  async release({ mark, reference }: Tracked, sealed: boolean, steps = recordSteps()) {
    const vm = await this.#bench.vm(this.host);
    const advance = sealed ? { advance: reference } : {};
    const { mergeDeadlineMs = 60_000 } = this.#bench.fixture;
    const released = { id: vm.id, name: vm.name, ...advance };
    const [outcome] = await this.host.release([released], mark, mergeDeadlineMs, steps);
    return outcome?.error;
  }

  /** A whole run: capture, seal, release. */
  async run(owner: string, since: readonly Reference[] = []): Promise<Tracked> {
    const tracked = await this.capture(owner, since);
    expect(await this.release(tracked, true)).toBeUndefined();
    return tracked;
  }

  /** The names of what is kept at the machine, sorted. */
  async kept(): Promise<string[]> {
    const vm = await this.#bench.vm(this.host);
    const all = await this.tracking.references();
    return all
      .filter((reference) => reference.vm.id === vm.id)
      .map(({ name }) => name)
      .sort();
  }
}

const sorted = (...tracked: Tracked[]) => tracked.map(({ reference }) => reference.name).sort();

async function pagesOf(disk: FrozenDisk): Promise<string[]> {
  const [top = '', ...parents] = disk.layers;
  const opened = await loadEngine().openDisk(top, { parentFolders: [], parents, format: '' });
  const pages: string[] = [];
  try {
    const { sizeBytes } = opened.identity;
    for (let offset = 0; offset < sizeBytes; offset += READ_BYTES) {
      const bytes = await opened.read(offset, Math.min(READ_BYTES, sizeBytes - offset));
      for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
        pages.push(
          createHash('sha1')
            .update(bytes.subarray(at, at + PAGE_BYTES))
            .digest('hex'),
        );
      }
    }
  } finally {
    opened.close();
  }
  return pages;
}

async function changedPages(disk: FrozenDisk, count: number): Promise<boolean[]> {
  if (disk.changes === undefined) throw new Error(`no changes: ${disk.fullReason}`);
  const [top = '', ...parents] = disk.layers;
  const open: NativeOpenDisk = { parentFolders: [], parents, format: '' };
  const ranges =
    disk.changes.kind === 'ranges'
      ? disk.changes.ranges
      : (await loadEngine().layerChanges(top, open, disk.changes.count, disk.changes.baseLinkage))
          .ranges;
  const changed = new Array<boolean>(count).fill(false);
  for (const [offset, length] of ranges) {
    const end = Math.min(count, Math.ceil((offset + length) / PAGE_BYTES));
    changed.fill(true, Math.floor(offset / PAGE_BYTES), end);
  }
  return changed;
}

export function describeTracking(use: () => Bench): void {
  describe('telling what changed', () => {
    describeReferences(use);
    describeChanges(use);
    describeDoubts(use);
    describeAdvanceDeaths(use);
  });
}

function describeReferences(use: () => Bench): void {
  test('keeps nothing unless it was asked to track', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const mark = use().mark();
    const capture = await use().capture(tracker.host, mark);
    expect(capture.reference).toBeUndefined();
    expect(capture.disks.every(({ changes }) => changes === undefined)).toBe(true);
    await use().release(tracker.host, mark);
    expect(await tracker.kept()).toEqual([]);
  });

  test('drops the new reference with all else of a run that has no point', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const depth = await use().depth();
    const tracked = await tracker.capture(newOwner());
    for (const { changes, fullReason } of tracked.capture.disks) {
      expect(changes).toBeUndefined();
      expect(fullReason).toBeTruthy();
    }
    expect(await tracker.release(tracked, false)).toBeUndefined();
    expect(await tracker.kept()).toEqual([]);
    expect(await use().depth()).toBe(depth);
  });

  test('keeps it once the point is sealed, without the mark, until it is dropped', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const depth = await use().depth();
    const tracked = await tracker.run(newOwner());
    expect(await tracker.kept()).toEqual(sorted(tracked));
    expect(await use().marksLeft(tracker.host)).toEqual([]);
    const names = (await tracker.host.leftovers()).map(({ name }) => name);
    expect(names.filter((name) => name.includes(tracked.reference.name))).toEqual([]);
    // What has been kept stays, whatever is released later.
    expect(await tracker.release(tracked, false)).toBeUndefined();
    expect(await tracker.release(tracked, true)).toBeUndefined();
    expect(await tracker.kept()).toEqual(sorted(tracked));
    expect(await use().fixture.isWriting(use().first())).toBe(true);
    const vm = await use().vm(tracker.host);
    await tracker.tracking.drop(vm, tracked.reference.name, 60_000);
    expect(await tracker.kept()).toEqual([]);
    expect(await use().depth()).toBe(depth);
    await expect(tracker.tracking.drop(vm, tracked.reference.name, 60_000)).rejects.toSatisfy(
      (error) => isFirnError(error) && error.code === 'ERR_NOT_FOUND',
    );
  });

  test('has one reference for a repository, however many runs there were', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const owner = newOwner();
    const first = await tracker.run(owner);
    const depth = await use().depth();
    const second = await tracker.run(owner, [first.reference]);
    expect(await tracker.kept()).toEqual(sorted(second));
    const third = await tracker.run(owner, [second.reference, first.reference]);
    expect(await tracker.kept()).toEqual(sorted(third));
    expect(await use().depth()).toBe(depth);
  });

  test("leaves another repository's reference as good as it was", async (context) => {
    const tracker = await Tracker.open(use(), context);
    const [mine, others] = [newOwner(), newOwner()];
    const theirs = await tracker.run(others);
    const first = await tracker.run(mine);
    const second = await tracker.run(mine, [first.reference]);
    expect(await tracker.kept()).toEqual(sorted(theirs, second));
    const later = await tracker.capture(others, [theirs.reference]);
    expect(later.capture.since).toBe(theirs.reference.name);
    for (const { changes } of later.capture.disks) expect(changes).toBeDefined();
    expect(await tracker.release(later, true)).toBeUndefined();
    expect(await tracker.kept()).toEqual(sorted(later, second));
  });
}

function describeChanges(use: () => Bench): void {
  test('names every page that differs from the capture of the reference, and not all there are', async (context) => {
    const tracker = await Tracker.open(use(), context);
    if (use().fixture.fingerprint !== undefined) context.skip('its files are not on this machine');
    const { disks: all } = await use().vm(tracker.host);
    if (all.some(({ sizeBytes }) => sizeBytes > SIZE_BYTES_MAX)) {
      context.skip('its disks are too large to be compared page by page');
    }
    const [mine, others] = [newOwner(), newOwner()];
    let last = await tracker.capture(mine);
    let before = await Promise.all(last.capture.disks.map(pagesOf));
    let differences = 0;
    for (let round = 0; round < 3; round++) {
      expect(await tracker.release(last, true)).toBeUndefined();
      expect(await use().fixture.isWriting(use().first())).toBe(true);
      // Somebody else's run in between takes nothing away.
      if (round === 1) await tracker.run(others);
      const next = await tracker.capture(mine, [last.reference]);
      expect(next.capture.since).toBe(last.reference.name);
      const after = await Promise.all(next.capture.disks.map(pagesOf));
      for (const [index, disk] of next.capture.disks.entries()) {
        const pages = after[index] ?? [];
        const changed = await changedPages(disk, pages.length);
        const differs = pages.map((page, at) => page !== before[index]?.[at]);
        const missed = differs.flatMap((is, at) => (is && !changed[at] ? [at] : []));
        expect(missed, `${disk.name}, round ${round}`).toEqual([]);
        expect(changed.filter((is) => is).length).toBeLessThan(pages.length);
        differences += differs.filter((is) => is).length;
      }
      [last, before] = [next, after];
    }
    expect(differences).toBeGreaterThan(0);
    expect(await tracker.release(last, true)).toBeUndefined();
  });
}

function describeDoubts(use: () => Bench): void {
  test('counts from the newest reference that it still has', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const owner = newOwner();
    const first = await tracker.run(owner);
    const gone = { ...first.reference, name: referenceName(owner, newOwner()) };
    const next = await tracker.capture(owner, [gone, first.reference]);
    expect(next.capture.since).toBe(first.reference.name);
    expect(await tracker.release(next, true)).toBeUndefined();
  });

  test('claims nothing from a reference that is gone, or that it never made', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const owner = newOwner();
    const first = await tracker.run(owner);
    const vm = await use().vm(tracker.host);
    await tracker.tracking.drop(vm, first.reference.name, 60_000);
    const foreign: Reference[] = [
      first.reference,
      { name: '../../../etc/passwd', method: 'rct', disks: {} },
      { name: '', method: '', disks: { [vm.disks[0]?.name ?? '']: null } },
    ];
    const next = await tracker.capture(owner, foreign);
    for (const { changes, fullReason } of next.capture.disks) {
      expect(changes).toBeUndefined();
      expect(fullReason).toBeTruthy();
    }
    expect(await tracker.release(next, false)).toBeUndefined();
  });

  test('claims nothing of a disk that the reference says nothing true of', async (context) => {
    const tracker = await Tracker.open(use(), context);
    const owner = newOwner();
    const first = await tracker.run(owner);
    for (const disks of [{}, forged(first.reference)]) {
      const next = await tracker.capture(owner, [{ ...first.reference, disks }]);
      for (const { changes, fullReason } of next.capture.disks) {
        expect(changes).toBeUndefined();
        expect(fullReason).toBeTruthy();
      }
      expect(await tracker.release(next, false)).toBeUndefined();
    }
    expect(await tracker.kept()).toEqual(sorted(first));
  });
}

/** The reference's disks with every text in them made another one. */
function forged({ disks }: Reference): Record<string, unknown> {
  return JSON.parse(JSON.stringify(disks), (_key, value: unknown) =>
    typeof value === 'string' ? `${value.slice(0, -1)}${value.endsWith('0') ? '1' : '0'}` : value,
  ) as Record<string, unknown>;
}

function describeAdvanceDeaths(use: () => Bench): void {
  for (const step of ['keep', 'merge'] as const) {
    for (const when of ['before', 'after'] as const) {
      test(`has one good reference after a death ${when} "${step}", whoever finishes it`, async (context) => {
        const tracker = await Tracker.open(use(), context);
        const owner = newOwner();
        const first = await tracker.run(owner);
        const next = await tracker.capture(owner, [first.reference]);
        const dying = recordSteps({ step, afterwards: when === 'after' });
        await tracker.release(next, true, dying);
        if (dying.entries.every((entry) => entry.step !== step)) {
          context.skip('this host has no such step');
        }
        // One that cannot know of the point leaves what is kept and may drop what is not yet.
        expect(await tracker.release(next, false)).toBeUndefined();
        expect((await tracker.kept()).length).toBeGreaterThan(0);
        expect(await tracker.release(next, true)).toBeUndefined();
        const kept = await tracker.kept();
        expect(kept).toHaveLength(1);
        expect([...sorted(first), ...sorted(next)]).toEqual(expect.arrayContaining(kept));
        const since = [next.reference, first.reference];
        const later = await tracker.capture(owner, since);
        expect(later.capture.since).toBe(kept[0]);
        for (const { changes } of later.capture.disks) expect(changes).toBeDefined();
        expect(await tracker.release(later, true)).toBeUndefined();
        expect(await tracker.kept()).toEqual(sorted(later));
      });
    }
  }
}
