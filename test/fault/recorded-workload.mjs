/**
 * What is recorded under recorder.c: a repository's life in one process. Each file that it makes in `marks` says how far it is.
 *
 *   node recorded-workload.mjs FOLDER [PASSPHRASE]     uses FOLDER/repository, FOLDER/marks and FOLDER/disk-1.raw, disk-2.raw, ...
 *
 * With a passphrase, which is a test's, the repository is sealed.
 */

import { writeFileSync } from 'node:fs';
import path from 'node:path';

const { Repository, backup, forget, prune } = await import(
  new URL('../../dist/index.js', import.meta.url).href
);
const [folder, passphrase] = process.argv.slice(2);
const root = path.join(folder, 'repository');
const tuning = { workers: 2, backend: 'threads' };
const mark = (text) => writeFileSync(path.join(folder, 'marks', text), '');

const sealing = passphrase && { passphrase: Buffer.from(passphrase), scryptCost: 2 ** 10 };
const repository = await Repository.create(root, sealing || {});
mark('created');
const points = [];
for (const number of [1, 2]) {
  const disks = [{ path: path.join(folder, `disk-${number}.raw`), name: 'disk' }];
  const { point } = await backup(repository, { disks, vm: 'vm', tuning });
  mark(`sealed ${number} ${point.id}`);
  points.push(point.id);
}
mark(`forgetting 1 ${points[0]}`);
await forget(repository, { points: [points[0]] });
mark(`forgotten 1 ${points[0]}`);
for (let round = 0; round < 2; round++) {
  await prune(repository, { maxWaste: 0, tuning });
  mark(`pruned ${round}`);
}
const { point } = await backup(repository, {
  disks: [{ path: path.join(folder, 'disk-3.raw'), name: 'disk' }],
  vm: 'vm',
  tuning,
});
mark(`sealed 3 ${point.id}`);
