/**
 * What a run does with the points that machines had before: on real repositories, with results as a run has them. test/cli/retention.test.ts
 * has whole runs.
 */

import { describe, expect, test } from 'vitest';
import { applyRetention } from '../../../src/jobs/runs/retention.js';
import {
  VM_BACKUP_DEFAULTS,
  type VmBackupOptions,
  type VmEvent,
  type VmResult,
} from '../../../src/jobs/runs/types.js';
import { holdPoint } from '../../../src/repository/labels.js';
import { Repository } from '../../../src/repository/repository.js';
import { memoryRepository } from '../../helpers/collector.js';
import { wrapStore } from '../../helpers/memory-store.js';
import { pointFor } from '../../helpers/writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
const WEB = { id: '5b1f3c9e-5d2a-4a53-9f0e-2f4f9d0c7a11', name: 'web' };
const DB = { id: '6c2f3c9e-5d2a-4a53-9f0e-2f4f9d0c7a22', name: 'db' };

async function withHistory() {
  const { memory, repository } = await memoryRepository();
  const points = [];
  for (const vm of [WEB, DB]) {
    for (const day of [1, 2, 3]) {
      const point = pointFor(NO_DISK, 0, { vm, created: `2024-11-0${day}T12:00:00Z` });
      await repository.seal(point);
      points.push(point);
    }
  }
  const [web1, web2, web3, db1, db2, db3] = points as [P, P, P, P, P, P];
  const left = async () => (await repository.points()).map(({ id }) => id).sort();
  return { memory, repository, web: [web1, web2, web3], db: [db1, db2, db3], left } as const;
}
type P = ReturnType<typeof pointFor>;

const optionsOf = (more: Partial<VmBackupOptions>): VmBackupOptions => ({
  ...VM_BACKUP_DEFAULTS,
  vms: undefined,
  excludedDisks: [],
  map: [],
  retention: { last: 1 },
  ...more,
});
const resultOf = (vm: VmResult['vm'], point?: P): VmResult => ({
  vm,
  steps: [],
  ...(point && { point }),
});
const idsOf = (...points: P[]) => points.map(({ id }) => id).sort();

describe('retention after a run', () => {
  test('looks at the machines alone that got a new point', async () => {
    const { repository, web, db, left } = await withHistory();
    const results = [resultOf(WEB, web[2]), resultOf(DB)];
    expect(await applyRetention(repository, results, optionsOf({}))).toEqual([]);
    expect(await left()).toEqual(idsOf(web[2], ...db));
    expect(results[0]?.retention?.forgotten.map(({ id }) => id)).toEqual([web[1].id, web[0].id]);
    expect(results[1]).toEqual(resultOf(DB));
  });

  test('does nothing without a policy', async () => {
    const { repository, web, db, left } = await withHistory();
    const results = [resultOf(WEB, web[2])];
    await applyRetention(repository, results, optionsOf({ retention: undefined }));
    expect(await left()).toEqual(idsOf(...web, ...db));
    expect(results).toEqual([resultOf(WEB, web[2])]);
  });

  test('never takes the new point, also where a wrong clock made it the oldest, nor a held one', async () => {
    const { repository, web, db, left } = await withHistory();
    await holdPoint(repository, web[1]);
    const results = [resultOf(WEB, web[0]), resultOf(DB, db[0])];
    await applyRetention(repository, results, optionsOf({}));
    expect(await left()).toEqual(idsOf(...web, db[0], db[2]));
    const tagged = optionsOf({ retention: { tags: ['none'] } });
    await applyRetention(repository, results, tagged);
    expect(results[1]?.retentionError).toBeUndefined();
    expect(await left()).toEqual(idsOf(web[0], web[1], db[0]));
  });

  test('that fails for one machine warns, takes its result no point, and goes on with the next', async () => {
    const { memory, web, db, left } = await withHistory();
    const failing = wrapStore(memory, (method, name, call) =>
      method === 'delete' && name.includes(web[1].id) ? Promise.reject(new Error('no!')) : call(),
    );
    const events: VmEvent[] = [];
    const results = [resultOf(WEB, web[2]), resultOf(DB, db[2])];
    const options = optionsOf({ onEvent: (event) => events.push(event) });
    const warnings = await applyRetention(
      await Repository.open('/nowhere', failing),
      results,
      options,
    );
    expect(warnings).toEqual(['web: retention failed: no!']);
    expect(events).toEqual([{ type: 'warning', vm: WEB, message: 'retention failed: no!' }]);
    expect(results[0]).toMatchObject({ point: web[2], retentionError: { message: 'no!' } });
    expect(results[1]?.retention?.forgotten).toHaveLength(2);
    expect(await left()).toEqual(idsOf(...web, db[2]));
  });

  test('warns once of what cannot be read, and leaves it alone', async () => {
    const { memory, repository, web, db } = await withHistory();
    memory.objects.set(`points/${web[0].id}`, Buffer.from('rubbish'));
    const results = [resultOf(WEB, web[2]), resultOf(DB, db[2])];
    const warnings = await applyRetention(repository, results, optionsOf({}));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`point ${web[0].id} is left alone`);
    expect(results.map(({ retention }) => retention?.forgotten.length)).toEqual([1, 2]);
    expect(memory.objects.has(`points/${web[0].id}`)).toBe(true);
  });

  test('is not begun when the run was given up', async () => {
    const { repository, web, db, left } = await withHistory();
    const results = [resultOf(WEB, web[2])];
    await applyRetention(repository, results, optionsOf({ signal: AbortSignal.abort() }));
    expect(results[0]?.retentionError?.code).toBe('ERR_ABORTED');
    expect(await left()).toEqual(idsOf(...web, ...db));
  });
});
