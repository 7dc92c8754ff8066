/**
 * The commands that need no engine, on a repository that a second writer made: list, show and rescue. The addon that they are given does
 * not exist, so loading it would fail.
 */

import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { packFile } from '../../src/repository/format/names.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { Repository } from '../../src/repository/repository.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';
import { makeContent, writePoint } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-rescue-'));
const root = join(folder, 'repository');
const env = { FIRN_REPOSITORY: root, FIRN_ADDON: join(folder, 'no-addon.node') };
const run = (...parameters: string[]) => firn(parameters, { env });
const content = makeContent(3000, 7, 512);
let web: PointObject;
let database: PointObject;
let databasePacks: string[];

beforeAll(async () => {
  const repository = await Repository.create(root);
  const created = (day: number) => new Date(Date.UTC(2026, 10, day)).toISOString();
  ({ point: web } = await writePoint(repository, content, { created: created(1) }));
  ({ point: database, packs: databasePacks } = await writePoint(repository, makeContent(800, 8), {
    created: created(2),
    vm: { name: 'db\u001b[31m' },
    stats: { dataBytes: 3 * 2 ** 20, storedBytes: 2 ** 20, newBytes: 'not a number' },
  }));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('firn list', () => {
  it('has a line for each point, oldest first, and shows odd names harmlessly', async () => {
    const { status, stdout, stderr } = await run('list');
    expect([status, stderr]).toEqual([0, '']);
    const [title, first, second, ...rest] = stdout.trimEnd().split('\n');
    expect(title).toMatch(/^POINT +TIME +VM +DISKS +SIZE +DATA +ADDED +CONSISTENCY$/);
    expect(first).toMatch(new RegExp(`^${web.id.slice(0, 8)} .* web .* 11.7 MiB +- +- +crash$`));
    expect(second).toContain('db\\u001b[31m');
    expect(second).toMatch(/3\.00 MiB +1\.00 MiB +crash$/);
    expect(rest).toEqual([]);
  });

  it('can be of one VM', async () => {
    const [document] = jsonLines(await run('list', '--vm', 'web', '--json'));
    expect(document).toMatchObject({ points: [{ id: web.id, vm: { name: 'web' } }], damaged: 0 });
  });

  it('goes on after a damaged point, names it, and ends with 3', async () => {
    const damaged = join(root, 'points', 'f'.repeat(32));
    writeFileSync(damaged, 'damage');
    const finished = await run('list');
    rmSync(damaged);
    expect(finished.status).toBe(3);
    expect(finished.stderr).toContain(`point ${'f'.repeat(32)}`);
    expect(finished.stdout).toContain(web.id.slice(0, 8));
  });
});

describe('firn show', () => {
  it('shows the latest point by default, and any by the beginning of its id', async () => {
    const labels = { tags: [], held: false, holds: [] };
    const [latest] = jsonLines(await run('show', '--json'));
    expect(latest).toEqual({ ...database, ...labels });
    const [named] = jsonLines(await run('show', web.id.slice(0, 12), '--json'));
    expect(named).toEqual({ ...web, ...labels });
    const { stdout } = await run('show', 'latest:web');
    expect(stdout).toContain(`point ${web.id}`);
    expect(stdout).toContain(web.disks[0]?.root);
    expect(stdout).toContain('11.7 MiB (12288512 bytes)');
  });

  it('knows no VM by the beginning of its name', async () => {
    expect((await run('show', 'latest:we')).status).toBe(10);
  });
});

describe('firn rescue restore', () => {
  it('writes the disk byte for byte, without the engine', async () => {
    const target = join(folder, 'web.raw');
    const finished = await run('rescue', 'restore', 'latest:web', '--to', target);
    expect([finished.status, finished.stderr]).toEqual([0, '']);
    expect(finished.stdout).toContain(`rescued point ${web.id} of web`);
    expect(readFileSync(target).equals(content)).toBe(true);
  });

  it('writes into a folder under the name of the disk', async () => {
    const target = join(folder, 'new', 'folder');
    const finished = await run('rescue', 'restore', web.id, '--to', target, '--json');
    expect(finished.status).toBe(0);
    const summary = jsonLines(finished).at(-1);
    expect(summary).toMatchObject({ message_type: 'summary', point: web.id, lostBytes: 0 });
    expect(readFileSync(join(target, 'system.raw')).equals(content)).toBe(true);
  });

  it('replaces nothing unless forced', async () => {
    const target = join(folder, 'mine.raw');
    writeFileSync(target, 'mine');
    const refused = await run('rescue', 'restore', 'latest:web', '--to', target, '--json');
    expect([refused.status, exitError(refused).error.code]).toEqual([2, 'ERR_EXISTS']);
    expect(readFileSync(target, 'utf8')).toBe('mine');
    expect((await run('rescue', 'restore', 'latest:web', '--to', target, '--force')).status).toBe(
      0,
    );
    expect(statSync(target).size).toBe(content.length);
  });

  it('knows the disks of a point', async () => {
    const finished = await run(
      'rescue',
      'restore',
      'latest:web',
      '--to',
      folder,
      '--disk',
      'no',
      '--json',
    );
    expect([finished.status, exitError(finished).error.code]).toEqual([10, 'ERR_NOT_FOUND']);
  });

  it('stops at the first loss, or says with --skip-damaged what is lost and ends with 3', async () => {
    const pack = join(root, packFile(databasePacks[0] ?? ''));
    const bytes = readFileSync(pack);
    const damaged = Buffer.from(bytes);
    damaged.fill(0xee, 4096, 4096 + 64);
    writeFileSync(pack, damaged);
    try {
      const target = join(folder, 'db.raw');
      const stopped = await run('rescue', 'restore', 'latest', '--to', target, '--json');
      expect(stopped.status).toBe(30);
      const skipping = ['rescue', 'restore', 'latest', '--to', target, '--skip-damaged', '--json'];
      const skipped = await run(...skipping);
      expect([skipped.status, exitError(skipped).error.code]).toEqual([3, 'ERR_INCOMPLETE']);
      const messages = jsonLines(skipped);
      const errors = messages.filter((message) => message.message_type === 'error');
      expect(errors.length).toBeGreaterThan(0);
      expect(messages.at(-1)).toMatchObject({ message_type: 'summary' });
      expect(messages.at(-1)?.lostBytes).toBeGreaterThan(0);
      expect(statSync(target).size).toBe(800 * 4096);
    } finally {
      writeFileSync(pack, bytes);
    }
  });
});
