/**
 * Goal: a store that fails costs the step that was at work, and nothing that is sealed. Method: a backup, a forget, a prune and a verification
 * over a real repository whose store fails at its n-th call, for every n: before the call or after it, as a full disk, as a failed
 * read, as a listing that comes late, or for good from then on. Afterwards the store works again: what was sealed restores, what failed
 * said with which code, and the same step then succeeds.
 */

import { cp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type ErrorCode, firnError, isFirnError } from '../../src/errors.js';
import { backup } from '../../src/jobs/backup.js';
import { forget } from '../../src/jobs/forget.js';
import { prune } from '../../src/jobs/prune.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { Repository } from '../../src/repository/repository.js';
import { DirectoryStore } from '../../src/repository/stores/directory.js';
import { rawDisk } from '../helpers/disks.js';
import { suiteFolder, temporaryFolder } from '../helpers/folder.js';
import { wrapStore } from '../helpers/memory-store.js';
import { makeContent, randomContent } from '../helpers/writer.js';

interface Fault {
  code: ErrorCode;
  /** The call is made, and its answer lost. */
  after?: boolean;
  /** All later calls fail, too. */
  forGood?: boolean;
}

const FAULTS: readonly Fault[] = [
  { code: 'ERR_DISK_FULL' },
  { code: 'ERR_WRITE', after: true },
  { code: 'ERR_READ', forGood: true },
];

/** A repository whose store fails at the n-th call; `fired` tells whether it came to that. */
class Failing {
  calls = 0;
  fired = false;
  constructor(
    readonly at: number,
    readonly fault: Fault,
  ) {}

  async open(root: string): Promise<Repository> {
    const store = wrapStore(new DirectoryStore(root), async (_, name, call) => {
      const turn = this.calls === this.at || (this.calls > this.at && this.fault.forGood === true);
      this.calls++;
      // What comes late must not matter: other calls go on meanwhile.
      if (this.calls % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      if (!turn) return call();
      this.fired = true;
      if (this.fault.after === true) await call();
      throw firnError(this.fault.code, 'the store fails on purpose', { path: name });
    });
    return Repository.open(root, store);
  }
}

const content = [makeContent(40, 1), makeContent(40, 2)];
const tuning = { workers: 1 };

const TEMPLATE = suiteFolder();
let template: Promise<{ root: string; ids: string[] }> | undefined;

/** A repository with two points: a copy, which is quicker than to make it. */
async function makeRepository(): Promise<{ root: string; ids: string[] }> {
  template ??= makeTemplate();
  const { root, ids } = await template;
  const copy = path.join(await temporaryFolder(), 'repository');
  await cp(root, copy, { recursive: true });
  return { root: copy, ids };
}

async function makeTemplate(): Promise<{ root: string; ids: string[] }> {
  const root = path.join(TEMPLATE, 'repository');
  const repository = await Repository.create(root);
  const ids: string[] = [];
  for (const bytes of content) {
    const { point } = await backup(repository, { disks: [await rawDisk(bytes)], vm: 'vm', tuning });
    ids.push(point?.id ?? '');
  }
  return { root, ids };
}

/** Every point is whole, and those of `ids` are there with their content. */
async function expectWhole(
  root: string,
  ids: readonly (string | undefined)[],
): Promise<Repository> {
  const repository = await Repository.open(root);
  const listed = (await repository.points()).map((point) => point.id);
  expect((await verify(repository, { readData: true })).problems).toEqual([]);
  for (const [index, id] of ids.entries()) {
    if (id === undefined) continue;
    expect(listed).toContain(id);
    const to = path.join(await temporaryFolder(), 'restored.raw');
    await restore(repository, { point: id, to });
    expect((await readFile(to)).equals(content[index] as Buffer)).toBe(true);
    await rm(to);
  }
  return repository;
}

let injected = 0;
afterAll(() => console.log(`${injected} faults were injected`));

type Step = (repository: Repository, ids: readonly string[]) => Promise<unknown>;

/** Lets the step fail at each of its calls to the store, until one is not reached; returns how often it failed. */
async function failEverywhere(
  fault: Fault,
  step: Step,
  check: (root: string, ids: string[], done: boolean) => Promise<void>,
): Promise<number> {
  for (let at = 1; at < 200; at++) {
    const { root, ids } = await makeRepository();
    const failing = new Failing(at, fault);
    const repository = await failing.open(root);
    let done = true;
    await step(repository, ids).catch((error: unknown) => {
      if (!isFirnError(error)) throw error;
      done = false;
      // What failed is said, with its place.
      expect(error.code).toBe(fault.code);
      expect(error.path).toMatch(/./);
    });
    if (failing.fired) injected++;
    await check(root, ids, done);
    await rm(root, { recursive: true });
    if (!failing.fired) {
      expect(done).toBe(true);
      return at - 1;
    }
  }
  throw new Error('the calls never end');
}

describe.each(FAULTS)(
  'a store that fails with $code (after: $after, for good: $forGood)',
  (fault) => {
    test('leaves what a backup found, and the next one works', async () => {
      const disk = await rawDisk(randomContent(200_000));
      const step: Step = async (repository) =>
        backup(repository, { disks: [disk], vm: 'new', tuning });
      const failures = await failEverywhere(fault, step, async (root, ids) => {
        const repository = await expectWhole(root, ids);
        await backup(repository, { disks: [disk], vm: 'again', tuning });
        await expectWhole(root, ids);
      });
      expect(failures).toBeGreaterThan(8);
    }, 300_000);

    test('leaves a forget done or not done, and it can be done again', async () => {
      const failures = await failEverywhere(
        fault,
        async (repository, ids) => forget(repository, { points: [ids[0] ?? ''] }),
        async (root, ids) => {
          const repository = await expectWhole(root, [undefined, ids[1]]);
          const left = (await repository.points()).map((point) => point.id);
          if (left.includes(ids[0] ?? '')) await forget(repository, { points: [ids[0] ?? ''] });
          expect((await repository.points()).map((point) => point.id)).toEqual([ids[1]]);
        },
      );
      expect(failures).toBeGreaterThan(2);
    }, 300_000);

    test('leaves every point whole under a prune, and the next one goes on', async () => {
      const failures = await failEverywhere(
        fault,
        async (repository, ids) => {
          await forget(await Repository.open(repository.path), { points: [ids[0] ?? ''] });
          return prune(repository, { maxWaste: 0, tuning });
        },
        async (root, ids) => {
          const repository = await expectWhole(root, [undefined, ids[1]]);
          await prune(repository, { maxWaste: 0, recover: true, tuning });
          const after = await expectWhole(root, [undefined, ids[1]]);
          expect((await after.points()).map((point) => point.id)).toEqual([ids[1]]);
        },
      );
      expect(failures).toBeGreaterThan(8);
    }, 300_000);

    test('is told by a verification, which never calls a point whole that it could not read', async () => {
      const failures = await failEverywhere(
        fault,
        async (repository) => {
          const { problems } = await verify(repository, { readData: true });
          if (problems[0] !== undefined) throw firnError(fault.code, 'found', { path: 'problem' });
        },
        async (root, ids) => {
          await expectWhole(root, ids);
        },
      );
      expect(failures).toBeGreaterThan(4);
    }, 300_000);
  },
);
