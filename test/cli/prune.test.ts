/** `firn prune` as a process: what it prints, for people and for programs, and its exit codes. */

import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { newId } from '../../src/repository/format/names.js';
import { newRepository } from '../helpers/disks.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';
import { temporaryFolder } from '../helpers/folder.js';
import { pointFor, randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;

async function withGarbage() {
  const repository = await newRepository();
  const disk = path.join(await temporaryFolder(), 'web.raw');
  for (const vm of ['old', 'web']) {
    await writeFile(disk, randomContent(2 * MIB));
    const made = await firn(['backup', disk, '--vm', vm, '--codec', 'raw', '-r', repository.path]);
    expect(made.status, made.stderr).toBe(0);
  }
  const forgot = await firn(['forget', 'latest:old', '-r', repository.path]);
  expect(forgot.status, forgot.stderr).toBe(0);
  return repository;
}

describe('firn prune', () => {
  test('says what would go, then what it freed, and then that there is nothing', async () => {
    const repository = await withGarbage();
    const dry = await firn(['prune', '-n', '-r', repository.path]);
    expect(dry.stdout).toMatch(/^would free about 2\.\d+ MiB\n/);
    expect(await repository.packs()).toHaveLength(4);
    const done = await firn(['prune', '-r', repository.path]);
    expect(done.status).toBe(0);
    expect(done.stdout).toMatch(/^freed 2\.\d+ MiB\n/);
    expect(done.stdout).toContain('deleted        2 packs');
    expect(await repository.packs()).toHaveLength(2);
    const again = await firn(['prune', '-q', '-r', repository.path]);
    expect(again.stdout).toBe('freed 0 B\n');
  });

  test('gives programs a summary with every number', async () => {
    const repository = await withGarbage();
    const done = await firn(['prune', '--json', '-r', repository.path]);
    const summary = jsonLines(done).find(({ message_type }) => message_type === 'summary');
    expect(summary).toMatchObject({
      dryRun: false,
      packsBefore: 4,
      packsAfter: 2,
      deleted: 2,
      rescuedBytes: 0,
      spared: 0,
      damaged: 0,
      indexRunsBefore: 2,
      indexRunsAfter: 1,
      pending: [],
    });
    expect(summary?.deletedBytes).toBeGreaterThan(2 * MIB);
  });

  test('tells of pending points, and with --recover discards what is lost', async () => {
    const repository = await withGarbage();
    const lost = { root: 'ab'.repeat(32), dataPages: 0, chunks: [], maps: [] };
    const point = pointFor(lost, 0, { id: newId() });
    await repository.writePending(point);
    const told = await firn(['prune', '-r', repository.path]);
    expect(told.stderr).toContain(`pending: ${point.id.slice(0, 8)} of web`);
    const recovered = await firn(['prune', '--recover', '-r', repository.path]);
    expect(recovered.stderr).toContain(`discarded: ${point.id.slice(0, 8)} of web`);
    expect(await repository.listIds('pending')).toEqual([]);
  });

  test('refuses a waste that is no percentage, and a repository with a point that is not whole', async () => {
    const repository = await withGarbage();
    const usage = await firn(['prune', '--max-waste', '120%', '-r', repository.path]);
    expect(usage.status).toBe(2);
    await repository.seal(
      pointFor({ root: 'cd'.repeat(32), dataPages: 0, chunks: [], maps: [] }, 0),
    );
    const broken = await firn(['prune', '--json', '-r', repository.path]);
    expect(broken.status).toBe(30);
    expect(exitError(broken).error.code).toBe('ERR_CHUNK_MISSING');
    expect(await repository.packs()).toHaveLength(4);
  });
});
