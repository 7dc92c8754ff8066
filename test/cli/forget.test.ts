/**
 * `firn forget`, `hold`, `release` and `tag` as a user runs them, on points that the second writer of the format made. None may load the addon,
 * so each runs with an FIRN_ADDON that does not exist.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import type { PointObject } from '../../src/repository/format/objects.js';
import { Repository } from '../../src/repository/repository.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';
import { makeContent, writePoint } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-forget-'));
let repository: Repository;
let points: PointObject[];
let count = 0;

const run = (...parameters: string[]) =>
  firn(parameters, {
    env: {
      FIRN_ADDON: join(folder, 'no-addon.node'),
      FIRN_REPOSITORY: repository.path,
      TZ: 'Europe/Berlin',
    },
  });
const short = (index: number) => points[index]?.id.slice(0, 8) ?? '';
const left = async () => (await repository.points()).map(({ id }) => id);

async function summary(...parameters: string[]) {
  const finished = await run(...parameters, '--json');
  expect(finished.stderr).toBe('');
  expect(finished.status).toBe(0);
  const [last = {}] = jsonLines(finished);
  expect(last.message_type).toBe('summary');
  return last;
}

beforeEach(async () => {
  repository = await Repository.create(join(folder, `repository-${count++}`));
  points = [];
  const times = ['20T11:00:00', '20T22:30:00', '20T23:30:00', '21T22:30:00'];
  for (const [index, time] of times.entries()) {
    const more = {
      created: `2024-11-${time}Z`,
      ...(index === 0 && { tags: ['release'] }),
    };
    points.push((await writePoint(repository, makeContent(50 + index, index + 1), more)).point);
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('firn forget', () => {
  it('shows in a dry run what would become of each point, and what it frees', async () => {
    const { status, stdout, stderr } = await run('forget', '--keep-daily', '1', '-n');
    expect([status, stderr]).toEqual([0, '']);
    const lines = stdout.split('\n');
    expect(lines[0]).toBe('web');
    expect(lines[1]).toMatch(/^ {2}POINT +TIME +TAGS$/);
    // The day of the third and of the last point is one in this zone.
    expect(lines[2]).toBe(`  ${short(3)}  2024-11-21 23:30:00           keep: daily 2024-11-21`);
    expect(lines[3]).toBe(`  ${short(2)}  2024-11-21 00:30:00           forget`);
    expect(lines[5]).toBe(`  ${short(0)}  2024-11-20 12:00:00  release  forget`);
    expect(stdout).toMatch(/^would forget 3 points, 1 point kept$/m);
    expect(stdout).toMatch(/^ {2}frees [\d.]+ KiB in \d+ chunks that no other point needs$/m);
    expect(await left()).toHaveLength(4);
  });

  it('removes them, and says as JSON which and why', async () => {
    const dry = await summary('forget', '--keep-daily', '1', '--keep-tag', 'release', '--dry-run');
    expect(dry).toMatchObject({ dryRun: true, freed: { unreadable: 0 } });
    expect((dry.freed as { storedBytes: number }).storedBytes).toBeGreaterThan(0);
    const done = await summary('forget', '--keep-daily', '1', '--keep-tag', 'release');
    expect(done).toMatchObject({
      dryRun: false,
      freed: null,
      forgotten: [points[2]?.id, points[1]?.id],
      spared: [],
      damaged: 0,
      vms: [
        {
          vm: { name: 'web' },
          points: [
            { id: points[3]?.id, keep: true, reasons: ['daily 2024-11-21'] },
            { id: points[2]?.id, keep: false, reasons: [], held: false },
            { id: points[1]?.id, keep: false },
            { id: points[0]?.id, keep: true, reasons: ['tag release'], tags: ['release'] },
          ],
        },
      ],
    });
    expect(await left()).toEqual([points[0]?.id, points[3]?.id]);
  });

  it('removes one point by the beginning of its id', async () => {
    const { status, stdout } = await run('forget', short(1), '--quiet');
    expect([status, stdout]).toEqual([0, 'forgot 1 point\n']);
    expect(await left()).not.toContain(points[1]?.id);
  });

  it.each([
    [[], 'Expected points to forget, or a rule'],
    [['--keep-last', '0'], 'Expected points to forget, or a rule'],
    [['--force-empty'], 'Expected points to forget, or a rule'],
    [['--keep-tag', 'nothing'], 'The policy would keep no point of web'],
    [['--keep-tag', 'a,b'], 'a tag of 1 to 128 characters without commas for --keep-tag'],
    [['--keep-last', 'all'], 'an integer from 0 to 1000000 for --keep-last'],
    [['--keep-within', '30'], 'a time such as 12h, 30d, 2w, 6mo or 1y for --keep-within'],
    [['--keep-last', '1', '--force'], 'force is for points that are named'],
    [['latest', '--keep-last', '1'], 'Expected points or a policy, not both'],
    [['latest', '--vm', 'web'], 'Expected points or a policy, not both'],
  ])('with %j is refused and removes nothing', async (parameters, text) => {
    const { status, stderr } = await run('forget', ...parameters);
    expect(stderr).toContain(text);
    expect(status).toBe(2);
    expect(await left()).toHaveLength(4);
  });

  it('forgets a whole machine only when it is named and forced', async () => {
    const other = await run('forget', '--vm', 'db', '--force-empty');
    expect([other.status, other.stdout]).toEqual([0, 'forgot 0 points\n']);
    expect((await run('forget', '--vm', 'web', '--force-empty')).status).toBe(0);
    expect(await left()).toEqual([]);
  });
});

describe('firn hold and firn release', () => {
  it('keep a point from being forgotten, until it is released', async () => {
    expect((await run('hold')).stderr).toBe('no points are held\n');
    const held = await run('hold', short(0), short(1), '--reason', 'audit 2026');
    expect([held.status, held.stderr]).toEqual([0, '']);
    expect(held.stdout).toBe(`held ${short(0)} of web\nheld ${short(1)} of web\n`);
    const { stdout } = await run('hold');
    expect(stdout).toMatch(
      new RegExp(`^${short(0)} +2024-11-20 12:00:00 +web +held: audit 2026$`, 'm'),
    );

    const refused = await run('forget', short(0), '--json');
    expect([refused.status, exitError(refused).error.code]).toEqual([2, 'ERR_POINT_HELD']);
    const kept = await summary('forget', '--keep-last', '1');
    expect(kept.forgotten).toEqual([points[2]?.id]);
    expect((await run('forget', '--force', short(1))).status).toBe(0);
    expect((await run('release', short(0))).stdout).toBe(`${short(0)} of web: released (1 hold)\n`);
    expect((await run('release', short(0))).stdout).toBe(`${short(0)} of web: was not held\n`);
    expect((await summary('forget', '--keep-last', '1')).forgotten).toEqual([points[0]?.id]);
  });

  it('print JSON: a document of what is held, or a summary of what was done', async () => {
    expect(await summary('hold', 'latest')).toMatchObject({ held: [points[3]?.id], unsure: 0 });
    const [document] = jsonLines(await run('hold', '--json'));
    expect(document).toMatchObject({ points: [{ id: points[3]?.id, held: 'held' }], damaged: 0 });
    expect(await summary('release', 'latest')).toMatchObject({ holds: 1 });
  });

  it('change nothing if one of the points is not there', async () => {
    const finished = await run('hold', short(0), 'latest:mail', '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([10, 'ERR_POINT_NOT_FOUND']);
    expect(await repository.labels()).toEqual([]);
  });
});

describe('firn tag', () => {
  it('shows tags, adds some and takes others away, which a policy then sees', async () => {
    expect((await run('tag', short(0))).stdout).toBe(`${short(0)} of web: release\n`);
    const changed = await run('tag', short(0), short(1), '--add', 'gold', '--remove', 'release');
    expect(changed.stdout).toBe(`${short(0)} of web: gold\n${short(1)} of web: gold\n`);
    const [document] = jsonLines(await run('tag', 'latest', '--json'));
    expect(document).toEqual({ points: [{ id: points[3]?.id, vm: { name: 'web' }, tags: [] }] });
    const kept = await summary('forget', '--keep-tag', 'gold');
    expect(kept.forgotten).toEqual([points[3]?.id, points[2]?.id]);
  });

  it('refuses what is no tag', async () => {
    const { status, stderr } = await run('tag', 'latest', '--add', 'a,b');
    expect(stderr).toContain('a tag of 1 to 128 characters without commas for --add');
    expect(status).toBe(2);
  });
});
