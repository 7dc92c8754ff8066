/**
 * Tags and retention of jobs as a user meets them: on a lab whose machines are off, which have a history in the repository.
 */

import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { clearFaults, createLab, setFault } from '../../src/hosts/lab/lab.js';
import type { PointCapture } from '../../src/repository/format/objects.js';
import { holdPoint } from '../../src/repository/labels.js';
import { Repository } from '../../src/repository/repository.js';
import { exitError, type Finished, firn, jsonLines } from '../helpers/firn.js';
import { makeContent, pointFor } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-retention-'));
const at = (...names: string[]) => join(folder, ...names);
const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
const JOB = at('nightly.yaml');
let place: string;
let repository: Repository;
let vms: { id: string; name: string }[];
let count = 0;

const run = (...parameters: string[]) => firn(parameters, { env: { FIRN_REPOSITORY: place } });

interface Listed {
  id: string;
  vm: { name: string };
  tags: string[];
  held: boolean;
}

async function listed(...parameters: string[]): Promise<Listed[]> {
  return jsonLines(await run('list', ...parameters, '--json'))[0]?.points as Listed[];
}

const idsOf = async (vm: string) => (await listed('--vm', vm)).map(({ id }) => id);

/** A job over both machines that keeps the newest point, and whatever is added. */
function writeJob(...more: string[]): void {
  const lines = ['host: lab:lab', `repository: ${place}`, 'state: state', 'minimumFree: 1M'];
  writeFileSync(JOB, [...lines, ...more, ''].join('\n'));
}

/** Points of a machine from the first days of a month. */
async function history(vm: { name: string; id?: string }, days: number, job?: string) {
  const points = [];
  for (let day = 1; day <= days; day++) {
    const created = `2024-01-0${day}T12:00:00Z`;
    const capture: PointCapture = {
      ...(job !== undefined && { job }),
      run: 'ab'.repeat(16),
      wanted: 'crash',
      required: 'crash',
      frozenAt: created,
      hostKind: 'lab',
      hostVersion: '1',
      steps: [],
    };
    const point = pointFor(NO_DISK, 0, { vm, created, capture });
    await repository.seal(point);
    points.push(point);
  }
  return points;
}

beforeAll(async () => {
  const size = { sizeBytes: 16 * 2 ** 20, dataBytes: 2 ** 20, blockBytes: 2 ** 20 };
  const lab = await createLab(at('lab'), {
    vms: [
      { name: 'web', ...size },
      { name: 'db', ...size },
    ],
  });
  vms = lab.vms.map(({ id, name }) => ({ id, name }));
});
beforeEach(async () => {
  await clearFaults(at('lab'));
  place = at(`repository-${count++}`);
  repository = await Repository.create(place);
});
afterAll(() => rmSync(folder, { recursive: true }));

const vm = (name: string) => vms.find((each) => each.name === name) ?? { name, id: '' };
const summaryOf = (finished: Finished) => jsonLines(finished).at(-1) as { vms: RunVm[] };
interface RunVm {
  vm: { name: string };
  point: string | null;
  retention?: { forgotten: string[]; kept: string[]; spared: string[]; damaged: number };
  retentionError?: { code: string };
}

describe('a job with retention', () => {
  it('forgets what the policy does not keep, and says what went and what stayed', async () => {
    const web = await history(vm('web'), 3);
    const other = await history({ name: 'web' }, 2);
    await holdPoint(repository, web[0] as (typeof web)[0], 'audit');
    writeJob('vms: [web]', 'tags: [nightly]', 'retention: { last: 2 }');
    const finished = await run('backup', '--job', JOB);
    expect(finished.status).toBe(0);
    expect(finished.stdout).toMatch(/^retention: forgot 1 point, 3 kept$/m);
    expect(finished.stdout).toMatch(/ MERGE +FORGOT +KEPT$/m);
    expect(finished.stdout).toMatch(/^web +[0-9a-f]{8} .* 1 +3$/m);
    const left = await listed('--tag', 'nightly');
    expect(left).toMatchObject([{ vm: { name: 'web' }, tags: ['nightly'], held: false }]);
    // Disks that were given as files, under the machine's name, are not the machine's.
    const expected = [web[0], web[2], left[0], ...other].map((point) => point?.id);
    expect((await idsOf('web')).sort()).toEqual(expected.sort());
  });

  it('tells programs which points went, which stayed and why', async () => {
    const web = await history(vm('web'), 2);
    writeJob('vms: [web]', 'retention: { last: 1 }');
    const finished = await run('backup', '--job', JOB, '--tag', 'a', '--tag', 'b', '--json');
    expect([finished.status, finished.stderr]).toEqual([0, '']);
    const [result] = summaryOf(finished).vms;
    expect(result?.retention).toMatchObject({
      forgotten: [web[1]?.id, web[0]?.id],
      kept: [result?.point],
      spared: [],
      damaged: 0,
      points: [
        { id: result?.point, tags: ['a', 'b'], keep: true, reasons: ['last 1', 'new'] },
        { id: web[1]?.id, keep: false, reasons: [] },
        { id: web[0]?.id, keep: false, reasons: [] },
      ],
    });
  });

  it('takes nothing from a machine that has no new point', async () => {
    const web = await history(vm('web'), 2);
    const db = await history(vm('db'), 2);
    await setFault(at('lab'), { name: 'checkpoint-fails', vm: 'db' });
    writeJob('all: true', 'retention: { last: 1 }');
    const finished = await run('backup', '--job', JOB, '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([3, 'ERR_INCOMPLETE']);
    expect(exitError(finished).error.message).toBe('1 of 2 machines have no new point');
    expect(await idsOf('db')).toEqual(db.map(({ id }) => id));
    const left = await idsOf('web');
    expect(left).toHaveLength(1);
    expect(web.map(({ id }) => id)).not.toContain(left[0]);
  });

  it('has its points also when forgetting fails, warns, and ends with 3', async () => {
    const web = await history(vm('web'), 2);
    writeJob('vms: [web]', 'retention: { last: 1 }');
    renameSync(join(place, 'labels'), join(place, 'was-labels'));
    writeFileSync(join(place, 'labels'), 'not a folder');
    const finished = await run('backup', '--job', JOB);
    expect(finished.status).toBe(3);
    expect(finished.stderr).toMatch(/^warning: web: retention failed: /m);
    expect(finished.stderr).toMatch(/^firn: retention failed for 1 machine$/m);
    expect(finished.stdout).toMatch(/^run \w+: 1 of 1 machine backed up /m);
    expect(finished.stdout).toMatch(/ - +- +retention: ERR_\w+$/m);
    rmSync(join(place, 'labels'));
    expect((await repository.points()).map(({ id }) => id).slice(0, 2)).toEqual(
      web.map(({ id }) => id),
    );
    expect(await repository.points()).toHaveLength(3);
  });
});

describe('firn forget --job', () => {
  it('goes by the policy and the machines of the job, and the command line is stronger', async () => {
    const web = await history(vm('web'), 3);
    const db = await history(vm('db'), 3);
    writeJob('vms: [web]', 'retention: { last: 2 }');
    const forget = async (...parameters: string[]) => {
      const finished = await firn(['forget', '--job', JOB, ...parameters, '--json']);
      expect([finished.status, finished.stderr]).toEqual([0, '']);
      return jsonLines(finished).at(-1)?.forgotten;
    };
    expect(await forget('--dry-run')).toEqual([web[0]?.id]);
    expect(await forget('--vm', 'db')).toEqual([db[0]?.id]);
    expect(await forget('--keep-last', '1')).toEqual([web[1]?.id, web[0]?.id]);
    expect(await idsOf('db')).toHaveLength(2);
  });

  it('looks, with all machines, at those that the job has made points of', async () => {
    const web = await history(vm('web'), 2, 'nightly');
    const db = await history(vm('db'), 2, 'weekly');
    writeJob('all: true', 'retention: { last: 1 }');
    expect((await run('forget', '--job', JOB)).stdout).toMatch(/^forgot 1 point, 1 point kept$/m);
    expect((await repository.points()).map(({ id }) => id).sort()).toEqual(
      [web[1], ...db].map((point) => point?.id).sort(),
    );
  });

  it.each([
    [['vms: [web]'], [], 'nightly.yaml has no retention'],
    [['vms: [web]'], ['--force-empty'], 'nightly.yaml has no retention'],
    [['retention: { last: 1 }'], [], 'nightly.yaml names no machines'],
    [['all: true', 'retention: { last: 1 }'], ['latest'], 'points or --job, not both'],
    [
      ['all: true', 'retention: { lost: 1 }'],
      [],
      '6:14: Unknown member "lost"; did you mean "last"?',
    ],
  ])('with %j and %j is refused and removes nothing', async (members, parameters, text) => {
    const web = await history(vm('web'), 2);
    writeJob(...members);
    const { status, stderr } = await run('forget', '--job', JOB, ...parameters);
    expect(stderr).toContain(text);
    expect(status).toBe(2);
    expect(await repository.points()).toHaveLength(web.length);
  });
});

describe('tags', () => {
  it('are those that disks are backed up with', async () => {
    writeFileSync(at('disk.raw'), makeContent(10, 1));
    const tags = ['--tag', 'b', '--tag', 'a', '--tag', 'b'];
    expect((await run('backup', '--disk', at('disk.raw'), ...tags)).status).toBe(0);
    expect(await listed()).toMatchObject([{ tags: ['a', 'b'], held: false }]);
    expect((await repository.points())[0]?.tags).toEqual(['b', 'a']);
  });

  it.each([
    [['--tag', 'a,b'], 'a tag of 1 to 128 characters without commas for --tag'],
    [['--tag', '\u001b[2J'], 'a tag of 1 to 128 characters without commas for --tag'],
    [['--tag', 'x'.repeat(129)], 'a tag of 1 to 128 characters without commas for --tag'],
    [Array.from({ length: 130 }, (_, i) => (i % 2 ? `${i}` : '--tag')), 'at most 64 tags for tags'],
  ])('that a point may not have are refused before anything is read', async (tags, text) => {
    for (const what of [
      ['--disk', at('disk.raw')],
      ['--host', `lab:${at('lab')}`, '--state', at('state'), '--all'],
    ]) {
      const { status, stderr } = await run('backup', ...what, ...tags);
      expect(stderr).toContain(text);
      expect(stderr).not.toContain('\u001b');
      expect(status).toBe(2);
    }
    expect(await repository.points()).toEqual([]);
  });
});

describe('firn list and firn show', () => {
  it('say nothing of tags and holds where there are none', async () => {
    await history({ name: 'web' }, 1);
    expect((await run('list')).stdout).not.toMatch(/TAGS|HELD/);
    expect((await run('show')).stdout).not.toMatch(/^ {2}(tags|held) /m);
    expect(jsonLines(await run('show', '--json'))).toMatchObject([
      { tags: [], held: false, holds: [] },
    ]);
    expect((await run('list', '--tag', 'gold')).stderr).toBe('no points with tag gold\n');
    expect((await run('list', '--tag', 'a,b')).status).toBe(2);
  });

  it('say which tags a point has by now, and what holds it and why', async () => {
    const [first, second, third] = await history({ name: 'web' }, 3);
    if (!first || !second || !third) throw new Error('no points');
    const short = (point: { id: string }) => point.id.slice(0, 8);
    await run('tag', short(first), '--add', 'gold');
    await run('tag', short(second), '--add', 'gold', '--add', 'old');
    await run('hold', short(second), '--reason', 'audit \u001b[31m');
    await run('hold', short(second));
    const { stdout } = await run('list');
    expect(stdout).toMatch(/ CONSISTENCY +TAGS +HELD$/m);
    expect(stdout).toMatch(new RegExp(`^${short(first)} .* crash +gold$`, 'm'));
    expect(stdout).toMatch(new RegExp(`^${short(second)} .* crash +gold, old +held$`, 'm'));
    expect(stdout).toMatch(new RegExp(`^${short(third)} .* crash$`, 'm'));
    expect(await listed('--tag', 'old', '--tag', 'none')).toMatchObject([
      { id: second.id, tags: ['gold', 'old'], held: true },
    ]);

    const shown = (await run('show', short(second))).stdout;
    expect(shown).toMatch(/^ {2}tags +gold, old$/m);
    expect(shown).toMatch(/^ {2}held +audit \\u001b\[31m, since \d{4}-\S+ \S+ by .+$/m);
    expect(shown).toMatch(/^ {2}held +since \d{4}/m);
    const [document] = jsonLines(await run('show', short(second), '--json'));
    expect(document).toMatchObject({ tags: ['gold', 'old'], held: true });
    expect(document?.holds).toMatchObject([
      { reason: 'audit \u001b[31m' },
      { host: expect.any(String) },
    ]);
  });

  it('take a label that cannot be read for a hold, and end with 3', async () => {
    const [point] = await history({ name: 'web' }, 1);
    writeFileSync(join(place, 'labels', `${point?.id}-${'f'.repeat(32)}`), 'rubbish');
    const shown = await run('show');
    expect(shown.status).toBe(3);
    expect(shown.stdout).toMatch(/^ {2}held +by a label that cannot be read: /m);
    const list = await run('list', '--json');
    expect(list.status).toBe(3);
    expect(jsonLines(list).at(-1)).toMatchObject({ points: [{ held: true }], damaged: 1 });
  });
});
