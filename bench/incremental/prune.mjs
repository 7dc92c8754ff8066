/**
 * Prune after forgetting every other one of many points, against restic's prune of the same history.
 *
 * Both tools back up the same disk after the same churn, point by point, and forget the same points.
 * The churn is in clusters, which suits both: scattered writes would fill the peer's repository with its
 * much larger chunks. Then the two repositories are copied for each round and pruned in turns, each as it comes: firn leaves
 * up to 20 % waste in a pack, restic up to 5 % in all.
 */
import { cpSync, existsSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backup, forget, Repository } from '../../dist/index.js';
import { folderBytes, measure, runQuietly } from '../peers/measure.mjs';
import { clusteredWrites, makeDataDisk, overwrite } from './disks.mjs';
import { inMib, MIB, median, newRepository, row, times } from './measured.mjs';

const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const CHURN_SHARE = 0.02;

class Restic {
  constructor(scratch, repository) {
    this.repository = repository;
    this.env = {
      RESTIC_PASSWORD: 'benchmark',
      RESTIC_CACHE_DIR: join(scratch, 'restic-cache'),
    };
  }
  command(repository, ...args) {
    return { program: 'restic', args: ['--repo', repository, '--quiet', ...args], env: this.env };
  }
  run(...args) {
    const { program, args: all, env } = this.command(this.repository, ...args);
    return runQuietly(program, all, { env: { ...process.env, ...env }, cwd: this.cwd });
  }
}

/** Makes the history in both repositories; returns the ids of the points that go. */
async function makeHistory({ disk, folder, restic, points, dataMib, log }) {
  const diskBytes = dataMib * MIB;
  await makeDataDisk(disk, diskBytes, 3);
  await newRepository(folder);
  restic?.run('init');
  let last;
  const made = [];
  for (let point = 0; point < points; ++point) {
    const ranges = clusteredWrites(diskBytes, CHURN_SHARE, 5000 + point);
    if (point > 0) overwrite(disk, ranges);
    const base = last && { point: last.id, root: last.disks[0].root, skipsUnused: false, ranges };
    const repository = await Repository.open(folder);
    ({ point: last } = await backup(repository, { disks: [{ path: disk, base }], vm: 'bench' }));
    made.push(last.id);
    restic?.run('backup', '--tag', point % 2 === 0 ? 'goes' : 'stays', basename(disk));
    if (point % 20 === 19) log(`prune: ${point + 1} points made`);
  }
  return made.filter((_, index) => index % 2 === 0);
}

export async function measurePrune({ scratch, rounds, points, pruneMib, log }) {
  const disk = join(scratch, 'history.raw');
  const folder = join(scratch, 'history-firn');
  const resticFolder = join(scratch, 'history-restic');
  const restic = existsSync('/usr/bin/restic') ? new Restic(scratch, resticFolder) : undefined;
  if (restic !== undefined) restic.cwd = dirname(disk);
  const doomed = await makeHistory({ disk, folder, restic, points, dataMib: pruneMib, log });
  await forget(await Repository.open(folder), { points: doomed });
  restic?.run('forget', '--tag', 'goes', '--keep-tag', 'none');
  const before = folderBytes(folder);
  const samples = [];
  for (let round = 0; round < rounds; ++round) {
    const copy = join(scratch, 'prune-copy');
    const turns = {
      firn: {
        from: folder,
        command: (path) => ({ program: process.execPath, args: [CLI, 'prune', '--repo', path] }),
      },
      ...(restic && {
        restic: { from: resticFolder, command: (path) => restic.command(path, 'prune') },
      }),
    };
    const sample = {};
    const order = Object.entries(turns);
    if (round % 2 === 1) order.reverse();
    for (const [tool, { from, command }] of order) {
      cpSync(from, copy, { recursive: true });
      const cost = await measure(command(copy), scratch);
      sample[tool] = { ...cost, bytes: folderBytes(copy) };
      if (tool === 'firn' && round === 0) {
        runQuietly(process.execPath, [CLI, 'verify', '--all', '--repo', copy]);
      }
      rmSync(copy, { recursive: true });
      log(
        `prune, round ${round + 1}: ${tool} ${cost.seconds.toFixed(2)} s, ${inMib(cost.peakBytes)}, leaves ${inMib(sample[tool].bytes)}`,
      );
    }
    samples.push(sample);
  }
  return {
    rows: pruneRows(samples, points),
    notes: [pruneNote(samples, { points, pruneMib, before })],
  };
}

function pruneRows(samples, points) {
  const rows = [];
  const work = `prune after forgetting half of ${points} points`;
  if (samples[0].restic !== undefined) {
    rows.push(
      row({
        work: `${work}: time, against restic`,
        asked: '<= 1x',
        values: samples.map(({ firn, restic }) => firn.seconds / restic.seconds),
        show: times,
        most: 1,
      }),
    );
  }
  rows.push(
    row({
      work: `${work}: peak memory`,
      asked: '<= 256 MiB',
      values: samples.map(({ firn }) => firn.peakBytes),
      show: inMib,
      most: 256 * MIB,
    }),
  );
  return rows;
}

function pruneNote(samples, { points, pruneMib, before }) {
  const of = (tool, key) => median(samples.map((one) => one[tool][key]));
  const side = (tool) =>
    `${of(tool, 'seconds').toFixed(2)} s and ${inMib(of(tool, 'peakBytes'))}, to ${inMib(of(tool, 'bytes'))}`;
  const peer = samples[0].restic === undefined ? 'restic is absent' : `restic ${side('restic')}`;
  return `Prune: ${points} points of a disk of ${pruneMib} MiB of which 2 % change from point to point, in clusters, ${inMib(before)} in Firn's repository; firn ${side('firn')}; ${peer}.`;
}
