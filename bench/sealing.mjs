/**
 * What sealing costs: full backups of one image into a sealed and an unsealed repository, in turns, each into a new one.
 *
 *   node bench/sealing.mjs [--image FILE] [--rounds N] [--folder DIR]
 *
 * Without an image it makes one of 1 GiB, of which a quarter does not compress, a half compresses to about a third, and the rest is zero.
 * Times are of the whole job, from listing to the sealed point, in this process; the passphrase is read before. On a machine that others use
 * too, compare the smallest times and the medians: both are printed, with all of them.
 */

import { randomFillSync } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { backup } from '../dist/jobs/backup.js';
import { restore } from '../dist/jobs/restore.js';
import { Repository } from '../dist/repository/repository.js';

const MIB = 1024 * 1024;

const { values } = parseArgs({
  options: {
    image: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    folder: { type: 'string', default: tmpdir() },
  },
});
const rounds = Number(values.rounds);
const folder = mkdtempSync(join(values.folder, 'firn-sealing-'));

function makeImage(path) {
  const file = openSync(path, 'w');
  const bytes = Buffer.alloc(MIB);
  for (let mib = 0; mib < 1024; mib++) {
    bytes.fill(0);
    const kind = mib % 4;
    if (kind === 0) randomFillSync(bytes);
    if (kind === 1 || kind === 2) {
      for (let at = 0; at < MIB; at += 4096) randomFillSync(bytes, at, 1300);
    }
    writeSync(file, bytes);
  }
  closeSync(file);
  return path;
}

async function once(image, sealed) {
  const path = join(folder, 'repository');
  const passphrase = sealed ? Buffer.from('a passphrase for measuring') : undefined;
  const repository = await Repository.create(path, { passphrase, scryptCost: 1024 });
  let begin = performance.now();
  const { point } = await backup(repository, { disks: [image] });
  const backupSeconds = (performance.now() - begin) / 1000;
  begin = performance.now();
  await restore(repository, { point: point.id, to: join(folder, 'restored.raw'), force: true });
  const restoreSeconds = (performance.now() - begin) / 1000;
  rmSync(path, { recursive: true });
  return { backup: backupSeconds, restore: restoreSeconds };
}

function median(times) {
  const sorted = times.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

try {
  const image = values.image ?? makeImage(join(folder, 'image.raw'));
  await once(image, false); // the image comes into the cache, the engine is loaded
  const runs = { plain: [], sealed: [] };
  for (let round = 0; round < rounds; round++) {
    // Whoever goes first finds the device as the last one left it: they take turns at that too.
    const order = round % 2 === 0 ? ['plain', 'sealed'] : ['sealed', 'plain'];
    for (const kind of order) runs[kind].push(await once(image, kind === 'sealed'));
  }
  for (const work of ['backup', 'restore']) {
    const [plain, sealed] = ['plain', 'sealed'].map((kind) => runs[kind].map((run) => run[work]));
    for (const [kind, times] of [
      ['not sealed', plain],
      ['sealed', sealed],
    ]) {
      const all = times.map((time) => time.toFixed(2)).join(' ');
      console.log(
        `${work} ${kind}: least ${Math.min(...times).toFixed(2)} s, median ${median(times).toFixed(2)} s (${all})`,
      );
    }
    const percent = (ratio) => `${((ratio - 1) * 100).toFixed(1)} %`;
    console.log(
      `${work}: sealing costs ${percent(Math.min(...sealed) / Math.min(...plain))} by the least, ${percent(median(sealed) / median(plain))} by the median`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
