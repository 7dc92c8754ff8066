/**
 * File systems half of whose files were deleted: what a backup reads that leaves out what they do not use.
 *
 * The images are fixed disks, written in full, so that whatever is used is also there to be read. What a
 * file system uses is what its own tools say.
 */

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runQuietly } from '../peers/measure.mjs';
import { inMib, MIB, newRepository, row, timedBackup, times } from './measured.mjs';

const FILE_SIZES_KIB = [3, 20, 60, 400, 2000, 9000];
const FILE_SYSTEM_ENV = {
  ...process.env,
  PATH: `${process.env.PATH}:/usr/sbin:/sbin`,
  LC_ALL: 'C',
};

const run = (program, ...args) => runQuietly(program, args, { env: FILE_SYSTEM_ENV });

function makeFiles(folder, bytes) {
  mkdirSync(folder);
  for (let written = 0, index = 0; written < bytes; ++index) {
    const size = FILE_SIZES_KIB[index % FILE_SIZES_KIB.length] * 1024 - 7;
    writeFileSync(join(folder, `file-${index}`), randomBytes(size));
    written += size;
  }
  return readdirSync(folder);
}

/** Zeros all over, as blocks and not as holes. */
function makeFixedDisk(path, bytes) {
  run(
    'dd',
    'if=/dev/zero',
    `of=${path}`,
    'bs=1M',
    `count=${bytes / MIB}`,
    'conv=fsync',
    'status=none',
  );
}

function makeExt4(image, tree, doomed) {
  run('mke2fs', '-q', '-F', '-t', 'ext4', '-b', '4096', '-E', 'nodiscard', '-d', tree, image);
  const script = `${image}.debugfs`;
  writeFileSync(script, doomed.map((name) => `rm /${name}\n`).join(''));
  run('debugfs', '-w', '-f', script, image);
  // debugfs leaves the counts of the groups to the checker, which says so with an exit code of 1.
  spawnSync('e2fsck', ['-f', '-y', image], { env: FILE_SYSTEM_ENV });
  run('e2fsck', '-f', '-n', image);
  const text = run('dumpe2fs', '-h', image);
  const number = (name) => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)[1]);
  return (number('Block count') - number('Free blocks')) * number('Block size');
}

function makeNtfs(image, tree, doomed) {
  run('mkntfs', '-F', '-Q', '-q', '-p', '2048', '-H', '255', '-S', '63', '-s', '512', image);
  const mount = `${image}.mount`;
  mkdirSync(mount);
  run('ntfs-3g', image, mount);
  try {
    run('cp', '-r', `${tree}/.`, mount);
    run('sync', '-f', mount);
    for (const name of doomed) rmSync(join(mount, name));
  } finally {
    run('umount', mount);
  }
  const text = run('ntfsinfo', '-m', image);
  const number = (name) => Number(new RegExp(`${name}: +(\\d+)`).exec(text)[1]);
  return (number('Volume Size in Clusters') - number('Free Clusters')) * number('Cluster Size');
}

const KINDS = [
  { name: 'ext4', make: makeExt4, programs: ['mke2fs', 'debugfs', 'e2fsck', 'dumpe2fs'] },
  { name: 'NTFS', make: makeNtfs, programs: ['mkntfs', 'ntfs-3g', 'ntfsinfo'] },
];

function missing(programs) {
  return programs.filter(
    (name) => spawnSync('which', [name], { env: FILE_SYSTEM_ENV }).status !== 0,
  );
}

export async function measureUnused({ scratch, unusedMib, log }) {
  const tree = join(scratch, 'tree');
  const names = makeFiles(tree, unusedMib * MIB * 0.75);
  const doomed = names.filter((_, index) => index % 2 === 0);
  const rows = [];
  const notes = [];
  for (const { name, make, programs } of KINDS) {
    const absent = missing(programs);
    if (absent.length > 0) {
      notes.push(`Used blocks of ${name} were not measured: ${absent.join(', ')} not installed.`);
      continue;
    }
    const image = join(scratch, `${name}.raw`);
    makeFixedDisk(image, unusedMib * MIB);
    const usedBytes = make(image, tree, doomed);
    if (statSync(image).size !== unusedMib * MIB) truncateSync(image, unusedMib * MIB);
    const folder = join(scratch, `unused-${name}`);
    await newRepository(folder);
    const { result } = await timedBackup(folder, image, { unused: 'skip' });
    const { readBytes, skippedBytes } = result.summary;
    const reason = result.disks[0].unused?.partitions[0]?.reason;
    if (reason !== undefined) throw new Error(`${name} was copied whole: ${reason}`);
    rows.push(
      row({
        work: `used blocks of ${name}, half of the data deleted: bytes read, against those used`,
        asked: '<= 1.05x',
        values: [readBytes / usedBytes],
        show: times,
        most: 1.05,
      }),
    );
    notes.push(
      `${name}: a fixed disk of ${unusedMib} MiB, ${inMib(usedBytes)} used by its own account, ${inMib(readBytes)} read, ${inMib(skippedBytes)} left out.`,
    );
    log(notes.at(-1));
    rmSync(image);
    rmSync(folder, { recursive: true });
  }
  rmSync(tree, { recursive: true });
  return { rows, notes };
}
