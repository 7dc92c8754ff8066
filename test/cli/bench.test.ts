/**
 * `firn bench` as a process, on small files: that each suite runs, says what it should, and leaves nothing behind. Figures are not judged
 * here; test machines are busy.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { BenchReport } from '../../src/bench/report.js';
import { exitError, type Finished, finish, firn, jsonLines, start } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const QUICK = ['--rounds', '2', '--seconds', '0.05', '--warm-up', '0', '--size', '16M'];
const isWindows = process.platform === 'win32';

const folder = suiteFolder();
const image = join(folder, 'disk.raw');
writeFileSync(image, readFileSync(process.execPath).subarray(0, 24 * 2 ** 20));

function place(name: string): string {
  const made = join(folder, name);
  mkdirSync(made);
  return made;
}

function reportOf(finished: Finished): BenchReport {
  expect(finished.stderr).toBe('');
  expect(finished.status).toBe(0);
  return jsonLines(finished)[0] as unknown as BenchReport;
}

it('read makes its own file in a folder, measures all points and takes it away', async () => {
  const target = place('read');
  const report = reportOf(
    await firn([
      'bench',
      'read',
      target,
      ...QUICK,
      '--block-size',
      '64K,1M',
      '--queue-depth',
      '1,4',
      '--json',
    ]),
  );
  const ids = report.measurements.map(({ id }) => id);
  expect(ids.slice(0, 4)).toEqual(
    ['64K/1', '64K/4', '1M/1', '1M/4'].map((each) => `read/file/direct/${each}`),
  );
  expect(ids[4]).toMatch(/^read\/file\/cold\//);
  for (const { rounds, latency, summary } of report.measurements) {
    expect(rounds).toHaveLength(2);
    expect(Math.min(...rounds)).toBeGreaterThan(0);
    expect(summary.low).toBeLessThanOrEqual(summary.high);
    expect(latency?.p50Ns).toBeLessThanOrEqual(latency?.p999Ns ?? 0);
  }
  expect(report.paste[0]).toMatch(/^--io (direct|buffered|auto) --workers \d+ --memory \d+M$/);
  expect(readdirSync(target)).toEqual([]);
});

it('read leaves an image as it is', async () => {
  const before = readFileSync(image);
  reportOf(
    await firn([
      'bench',
      'read',
      image,
      ...QUICK,
      '--block-size',
      '1M',
      '--queue-depth',
      '2',
      '--json',
    ]),
  );
  expect(readFileSync(image).equals(before)).toBe(true);
});

it('write measures until durable and leaves nothing', async () => {
  const target = place('write');
  const report = reportOf(
    await firn([
      'bench',
      'write',
      target,
      ...QUICK,
      '--block-size',
      '1M',
      '--queue-depth',
      '4',
      '--json',
    ]),
  );
  expect(report.measurements.map(({ id }) => id)).toEqual([
    'write/direct/1M/4',
    'write/buffered/1M/4',
  ]);
  expect(readdirSync(target)).toEqual([]);
});

it('a limit is kept to', async () => {
  const report = reportOf(
    await firn([
      'bench',
      'read',
      image,
      // Of three rounds one may stand still.
      '--rounds',
      '3',
      '--seconds',
      '0.5',
      '--warm-up',
      '0',
      '--block-size',
      '64K',
      '--queue-depth',
      '4',
      '--cache',
      'direct',
      '--limit',
      '8M',
      '--json',
    ]),
  );
  expect(report.measurements[0]?.summary.median).toBeLessThan(12 * 2 ** 20);
});

it('a limit holds for whole jobs too, and is named as the bottleneck', async () => {
  // So slow that the limit, and nothing else that a busy computer does, is what takes the time.
  const slow = ['--rounds', '1', '--limit', '6M', '--workers', '2'];
  const limited = reportOf(await firn(['bench', 'backup', image, ...QUICK, ...slow, '--json']));
  expect(limited.pipeline?.bottleneck).toBe('limit');
  // A tenth of a second's worth may be made up for, and the last request is not waited for.
  expect(limited.pipeline?.bytesPerSecond).toBeLessThan(7 * 2 ** 20);
  expect(limited.pipeline?.stages.limited).toBeGreaterThan(0.3);
  const both = await firn(['bench', 'copy', image, folder, '--limit', '1M', '--peers', '--json']);
  expect(exitError(both).error.code).toBe('ERR_INVALID_ARGUMENT');
});

it('kernels cover each instruction set of BLAKE3, all codecs, and other libraries', async () => {
  const report = reportOf(
    await firn([
      'bench',
      'kernels',
      '--rounds',
      '1',
      '--seconds',
      '0.01',
      '--warm-up',
      '0',
      '--json',
    ]),
  );
  const labels = report.measurements.map(({ label }) => label);
  for (const label of [
    'memcpy',
    'zero-scan',
    'cut',
    'lz4 1',
    'zstd 3',
    'aes-256-gcm',
    'lz4-napi',
  ]) {
    expect(labels).toContain(label);
  }
  expect(labels.filter((label) => label.startsWith('blake3 ')).length).toBeGreaterThan(0);
  const lz4 = report.measurements.find(({ label }) => label === 'lz4 1');
  expect(lz4?.ratio).toBeGreaterThan(1.3);
  expect(lz4?.ratio).toBeLessThan(2);
});

it('backup measures the stages alone and together, and stores only where --repo says', async () => {
  const target = place('backup');
  const dry = reportOf(
    await firn(['bench', 'backup', image, ...QUICK, '--json'], {
      env: { FIRN_REPOSITORY: target },
    }),
  );
  expect(dry.pipeline?.ceilings.map(({ name }) => name).sort()).toEqual(['compute', 'read']);
  expect(readdirSync(target)).toEqual([]);
  const stored = reportOf(
    await firn(['bench', 'backup', image, ...QUICK, '--repo', target, '--json']),
  );
  expect(stored.pipeline?.ceilings.map(({ name }) => name).sort()).toEqual([
    'compute',
    'read',
    'write',
  ]);
  const { share, storedShare, bytesPerSecond } = stored.pipeline ?? {};
  expect(share).toBeGreaterThan(0);
  expect(storedShare).toBeGreaterThan(0.1);
  expect(bytesPerSecond).toBeGreaterThan(0);
  expect(readdirSync(target)).toEqual([]);
});

it('copy and scale run, and leave nothing', async () => {
  const target = place('copy');
  const copied = reportOf(await firn(['bench', 'copy', image, target, ...QUICK, '--json']));
  expect(copied.measurements.map(({ id }) => id)).toEqual(['copy/raw']);
  const scaled = reportOf(
    await firn(['bench', 'scale', image, image, ...QUICK, '--workers', '2', '--json']),
  );
  expect(scaled.measurements.map(({ id }) => id)).toEqual([
    'scale/1-workers/1-disks',
    'scale/2-workers/1-disks',
    'scale/2-workers/2-disks',
  ]);
  expect(readdirSync(target)).toEqual([]);
});

it('host ends with a page, in all its forms, and compare finds no regression against itself', async () => {
  const target = place('host');
  const [json, html, csv] = ['r.json', 'r.html', 'r.csv'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const finished = await firn([
    'bench',
    'host',
    target,
    '--time',
    '4s',
    '--size',
    '16M',
    '--estimate',
    '2T',
    '--churn',
    '10',
    '--save',
    json,
    '--html',
    html,
    '--csv',
    csv,
  ]);
  expect(finished.status).toBe(0);
  expect(finished.stdout).toMatch(/change first/);
  expect(finished.stdout).toMatch(/first backup of 2T/);
  const saved = JSON.parse(readFileSync(json, 'utf8')) as BenchReport;
  const { fullSeconds = 0, trackedSeconds = 0, untrackedSeconds = 0 } = saved.host?.window ?? {};
  expect(trackedSeconds).toBeCloseTo(fullSeconds / 10, 3);
  expect(untrackedSeconds).toBeGreaterThan(trackedSeconds);
  expect(untrackedSeconds).toBeLessThanOrEqual(fullSeconds * 1.001);
  expect(readFileSync(html, 'utf8')).toContain('</html>');
  expect(readFileSync(csv, 'utf8').split('\r\n').length).toBeGreaterThan(30);
  expect(readdirSync(target)).toEqual([]);

  expect((await firn(['bench', 'compare', json, json])).status).toBe(0);
  const slower = structuredClone(saved);
  for (const each of slower.measurements) each.rounds = each.rounds.map((rate) => rate / 1000);
  const worse = join(folder, 'worse.json');
  writeFileSync(worse, JSON.stringify(slower));
  const compared = await firn(['bench', 'compare', json, worse, '--json']);
  expect(compared.status).toBe(1);
  expect(jsonLines(compared)[0]?.regressions).toBeGreaterThan(0);
  expect((await firn(['bench', 'compare', worse, json])).status).toBe(0);
}, 300_000);

it('nothing is written into a repository, into what is no folder, or without room', async () => {
  const repository = join(folder, 'repository');
  expect((await firn(['init', repository])).status).toBe(0);
  const before = readdirSync(repository).sort();
  const refused = await firn(['bench', 'write', repository, ...QUICK, '--json']);
  expect(exitError(refused).error.code).toBe('ERR_INVALID_ARGUMENT');
  expect(readdirSync(repository).sort()).toEqual(before);
  expect(exitError(await firn(['bench', 'write', image, '--json'])).error.code).toBe(
    'ERR_INVALID_ARGUMENT',
  );
  const full = await firn(['bench', 'write', folder, '--size', '900T', '--json']);
  expect(exitError(full).error.code).toBe('ERR_DISK_FULL');
});

it.skipIf(isWindows).each([
  [1, 130, null],
  [2, null, 'SIGINT'],
])('Ctrl-C %d times takes the test files away', async (times, status, signal) => {
  const target = place(`interrupted-${times}`);
  const child = start(['bench', 'read', target, '--seconds', '30', '--size', '64M', '--json']);
  const finished = finish(child);
  // It is at work, and answers for its folder, as soon as it has made its data there.
  const hasData = () =>
    readdirSync(target).some((name) => existsSync(join(target, name, 'data.raw')));
  while (!hasData()) await sleep(20);
  for (let sent = 0; sent < times; sent++) {
    child.kill('SIGINT');
    // Signals that are sent at once arrive as one.
    if (sent + 1 < times) await sleep(2);
  }
  const ended = await finished;
  expect(readdirSync(target)).toEqual([]);
  // The first one may be enough to end it before the second arrives.
  if (times === 1 || ended.signal !== null)
    expect([ended.status, ended.signal]).toEqual([status, signal]);
});

it('what a killed benchmark leaves is removed by the next one there, and nothing else is', async () => {
  const target = place('killed');
  const parameters = ['bench', 'read', target, '--seconds', '30', '--size', '64M', '--json'];
  const mine = (names: readonly string[]) => names.filter((name) => name.startsWith('firn-bench-'));
  const begin = async () => {
    const before = readdirSync(target);
    const child = start(parameters);
    const ended = finish(child);
    // It has claimed its folder as soon as it has made its data.
    const made = () => readdirSync(target).find((name) => !before.includes(name));
    while (!existsSync(join(target, made() ?? 'none', 'data.raw'))) await sleep(20);
    return { child, ended, name: made() as string };
  };
  const killed = await begin();
  const living = await begin();
  killed.child.kill('SIGKILL');
  await killed.ended;
  expect(mine(readdirSync(target)).sort()).toEqual([killed.name, living.name].sort());

  // Of another computer, of somebody who has chosen such a name, and one that was only just made.
  const others = [
    'firn-bench-elsewhere-abc123',
    'firn-bench-results',
    killed.name.replace(/.{6}$/, 'abc123'),
  ];
  for (const name of others) mkdirSync(join(target, name));
  mkdirSync(join(target, 'firn-bench-elsewhere-abc123', 'claims'));
  writeFileSync(join(target, 'firn-bench-elsewhere-abc123', 'claims', 'bench.lock'), '');

  const quick = ['--block-size', '1M', '--queue-depth', '2'];
  reportOf(await firn(['bench', 'write', target, ...QUICK, ...quick, '--json']));
  expect(mine(readdirSync(target)).sort()).toEqual([...others, living.name].sort());
  living.child.kill('SIGINT');
  await living.ended;
});
