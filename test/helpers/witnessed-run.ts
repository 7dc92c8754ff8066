/**
 * Runs that track, each proved by a full read of the very disks that it froze: the roots of the point must be those of that read
 * (docs/architecture.md, invariant 1).
 */

import { expect, onTestFinished } from 'vitest';
import type { UnusedMode } from '../../src/engine/options.js';
import type { Capture, Host } from '../../src/hosts/host.js';
import type { TrackingMode } from '../../src/hosts/tracking.js';
import { backupMachine } from '../../src/jobs/backup.js';
import { Journal } from '../../src/jobs/runs/journal.js';
import { type DiskReading, VM_BACKUP_DEFAULTS, type VmResult } from '../../src/jobs/runs/types.js';
import { backupVms } from '../../src/jobs/runs/vm-backup.js';
import { disksOf, type PointObject } from '../../src/repository/format/objects.js';
import type { Repository } from '../../src/repository/repository.js';
import { newRepository } from './disks.js';
import { temporaryFolder } from './folder.js';

export interface WitnessedRun {
  point: PointObject;
  readings: DiskReading[];
  result: VmResult;
}

/** Runs of one host's only machine, or of the named one, into a repository of their own. */
export class WitnessedRuns {
  readonly repository: Repository;
  readonly #host: Host;
  readonly #journal: Journal;
  readonly #vms: string[] | undefined;
  #roots = new Map<string, string>();

  static async open(host: Host, vm?: string): Promise<WitnessedRuns> {
    const journal = Journal.open(await temporaryFolder());
    onTestFinished(() => journal.close());
    return new WitnessedRuns(host, await newRepository(), journal, vm);
  }

  private constructor(host: Host, repository: Repository, journal: Journal, vm?: string) {
    this.repository = repository;
    this.#journal = journal;
    this.#vms = vm === undefined ? undefined : [vm];
    this.#host = host;
  }

  /** A run that makes a point, which holds what a full read of the frozen disks gives. */
  async run(
    tracking: TrackingMode = 'auto',
    unused: UnusedMode = VM_BACKUP_DEFAULTS.unused,
  ): Promise<WitnessedRun> {
    const result = await this.#attempt(tracking, unused);
    expect([result.error, result.releaseError]).toEqual([undefined, undefined]);
    const { point, readings = [] } = result;
    if (point === undefined) throw new Error('the run made no point');
    expect(new Map(disksOf(point).map(({ name, root }) => [name, root]))).toEqual(this.#roots);
    return { point, readings, result };
  }

  async #attempt(tracking: TrackingMode, unused: UnusedMode): Promise<VmResult> {
    const capture = this.#host.capture;
    this.#host.capture = async (batch, mark, steps) => {
      const outcomes = await capture.call(this.#host, batch, mark, steps);
      for (const { capture: captured } of outcomes) {
        if (captured !== undefined) await this.#readInFull(captured, unused);
      }
      return outcomes;
    };
    try {
      const { vms } = await backupVms(this.repository, this.#host, this.#journal, {
        ...VM_BACKUP_DEFAULTS,
        tracking,
        unused,
        vms: this.#vms,
        excludedDisks: [],
        map: [],
        space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
      });
      const [result] = vms;
      if (result === undefined) throw new Error('the run has no result');
      return result;
    } finally {
      this.#host.capture = capture;
    }
  }

  async #readInFull({ disks, guestFroze }: Capture, unused: UnusedMode): Promise<void> {
    const sources = disks.map(({ name, layers: [top = '', ...parents] }) => {
      return { path: top, parents, name };
    });
    const read = await backupMachine(
      this.repository,
      { disks: sources, vm: 'witness', dryRun: true, unused },
      {
        guestFroze: guestFroze === true,
        describe: () => {
          throw new Error('a dry run makes no point');
        },
        aroundRead: (work) => work(new AbortController().signal),
        aroundSeal: (seal) => seal(),
      },
    );
    this.#roots = new Map(read.disks.map(({ name, root }) => [name, root]));
  }
}

/** Every disk was read on top of the point `from`, and not nearly all of it. */
export function expectIncremental({ readings, point }: WitnessedRun, from: PointObject): void {
  expect(readings.map(({ base, fullReason }) => [base?.point, fullReason])).toEqual(
    readings.map(() => [from.id, undefined]),
  );
  expect(readings.length).toBeGreaterThan(0);
  for (const [index, { sizeBytes, base }] of disksOf(point).entries()) {
    expect(base).toBe(from.id);
    expect(readings[index]?.base?.changedBytes).toBeLessThan(sizeBytes / 2);
  }
}

/** Every disk was read as a whole, for this reason. */
export function expectFull({ readings, point }: WitnessedRun, reason: RegExp): void {
  expect(readings.length).toBeGreaterThan(0);
  for (const { base, fullReason } of readings) {
    expect(base).toBeUndefined();
    expect(fullReason).toMatch(reason);
  }
  for (const { base } of disksOf(point)) expect(base).toBeUndefined();
}
