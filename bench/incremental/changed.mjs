/**
 * A disk of which a part changed: random 8 KiB writes to 1 % of its pages, then clusters of 10 %.
 *
 * Each round makes a full backup into an empty repository and, on top of it, both incremental ones. The
 * ranges given are exactly those that were written, as a tracker would give them at its best. In the
 * first round a full read of the same disk must find the same root.
 */
import { join } from 'node:path';
import { backup, Repository, Rescue } from '../../dist/index.js';
import {
  decodeLeaf,
  decodeNode,
  decodeRoot,
  NODE_BYTES,
  SEGMENT_BYTES,
} from '../../dist/rescue/map.js';
import { prepareCache } from '../peers/measure.mjs';
import {
  clusteredWrites,
  makeDataDisk,
  overwrite,
  PAGE_BYTES,
  randomWrites,
  sumBytes,
} from './disks.mjs';
import { finely, median, newRepository, percent, row, timedBackup } from './measured.mjs';

const RANDOM_SHARE = 0.01;
const CLUSTERED_SHARE = 0.1;

/** [begin, end) of the chunks of a point's only disk that hold a byte of these ranges, and of what is written where no chunk is. */
async function touchedChunks(folder, root, ranges) {
  const rescue = await Rescue.open(folder);
  const touched = [];
  let next = 0;
  const visit = ({ begin, end, isChunk }) => {
    let isTouched = false;
    while (next < ranges.length && ranges[next][0] < end) {
      const [offset, length] = ranges[next];
      isTouched = true;
      if (!isChunk) touched.push([Math.max(begin, offset), Math.min(end, offset + length)]);
      if (offset + length > end) break;
      next += 1;
    }
    if (isChunk && isTouched) touched.push([begin, end]);
  };
  try {
    for await (const run of runsOf(rescue, root)) visit(run);
  } finally {
    await rescue.close();
  }
  return touched;
}

/** Bytes that at least one of the ranges has. */
function unionBytes(ranges) {
  let bytes = 0;
  let last = 0;
  for (const [begin, end] of ranges.toSorted((a, b) => a[0] - b[0])) {
    bytes += Math.max(0, end - Math.max(begin, last));
    last = Math.max(last, end);
  }
  return bytes;
}

/** The chunks and holes of a map, in the disk's order. */
async function* runsOf(rescue, root) {
  const map = (id) => rescue.content('map', id);
  for (const node of decodeRoot(await map(Buffer.from(root, 'hex'))).nodes) {
    for (const { index, id } of decodeNode(await map(node.id))) {
      let begin = node.index * NODE_BYTES + index * SEGMENT_BYTES;
      for (const run of decodeLeaf(await map(id), rescue.repository.config.chunking)) {
        const end = begin + run.pages * PAGE_BYTES;
        yield { begin, end, isChunk: run.id !== undefined };
        begin = end;
      }
    }
  }
}

async function incremental(folder, disk, point, ranges) {
  const [{ root }] = point.disks;
  const base = { point: point.id, root, skipsUnused: false, ranges };
  const { seconds, result } = await timedBackup(folder, { path: disk, base });
  const refused = result.disks[0].baseRefused;
  if (refused !== undefined) throw new Error(`the base was refused: ${refused}`);
  return { seconds, point: result.point, readBytes: result.summary.readBytes };
}

async function proveRoot(folder, disk, { disks: [{ root }] }) {
  const full = await backup(await Repository.open(folder), { disks: [disk], dryRun: true });
  if (full.disks[0].root !== root) throw new Error('an incremental map is not that of a full read');
}

/** @returns {Promise<{ rows: object[], notes: string[] }>} */
export async function measureChanged({ scratch, rounds, dataMib, log }) {
  const disk = join(scratch, 'changing.raw');
  const folder = join(scratch, 'changing-repository');
  const diskBytes = dataMib * 2 ** 20;
  await makeDataDisk(disk, diskBytes, 1);
  const samples = [];
  for (let round = -1; round < rounds; ++round) {
    await newRepository(folder);
    prepareCache(disk, 'warm');
    const full = await timedBackup(folder, disk);
    const few = randomWrites(diskBytes, RANDOM_SHARE, 100 + round);
    const before = await touchedChunks(folder, full.result.point.disks[0].root, few);
    overwrite(disk, few);
    const random = await incremental(folder, disk, full.result.point, few);
    // A write also touches the chunk that it makes: if it takes a cut away, that one holds the next chunk's bytes.
    const after = await touchedChunks(folder, random.point.disks[0].root, few);
    const many = clusteredWrites(diskBytes, CLUSTERED_SHARE, 200 + round);
    overwrite(disk, many);
    const clustered = await incremental(folder, disk, random.point, many);
    if (round < 0) {
      await proveRoot(folder, disk, clustered.point);
      continue; // the warm-up
    }
    const sample = {
      fullSeconds: full.seconds,
      randomSeconds: random.seconds,
      clusteredSeconds: clustered.seconds,
      randomRead: random.readBytes / unionBytes([...before, ...after]),
      randomReadOfBefore: random.readBytes / unionBytes(before),
      clusteredRead: clustered.readBytes / sumBytes(many),
    };
    samples.push(sample);
    log(
      `changed, round ${round + 1}: full ${full.seconds.toFixed(2)} s, random ${random.seconds.toFixed(2)} s ` +
        `(read ${finely(sample.randomRead)}), clustered ${clustered.seconds.toFixed(2)} s (read ${finely(sample.clusteredRead)})`,
    );
  }
  return { rows: changedRows(samples), notes: [changedNote(samples, dataMib)] };
}

function changedRows(samples) {
  const random = '1 % of pages changed, random 8 KiB';
  const clustered = 'clustered churn of 10 %';
  return [
    row({
      work: `${random}: time, against the full backup`,
      asked: '< 20 %',
      values: samples.map((one) => one.randomSeconds / one.fullSeconds),
      show: percent,
      most: 0.2,
    }),
    row({
      work: `${random}: bytes read, against the chunks touched, before or after`,
      asked: '<= 1.1x',
      values: samples.map((one) => one.randomRead),
      show: finely,
      most: 1.1,
    }),
    row({
      work: `${clustered}: time, against the full backup`,
      asked: '< 15 %',
      values: samples.map((one) => one.clusteredSeconds / one.fullSeconds),
      show: percent,
      most: 0.15,
    }),
    row({
      work: `${clustered}: bytes read, against those changed`,
      asked: '<= 1.05x',
      values: samples.map((one) => one.clusteredRead),
      show: finely,
      most: 1.05,
    }),
  ];
}

function changedNote(samples, dataMib) {
  const [first] = samples;
  return (
    `Changed: a raw disk of ${dataMib} MiB, all of it data; the full backup took ${first.fullSeconds.toFixed(2)} s in the first round, ` +
    `the random churn ${first.randomSeconds.toFixed(2)} s, the clustered ${first.clusteredSeconds.toFixed(2)} s. ` +
    `Clusters are of 1 to 16 MiB. The source was in the page cache. Against the chunks that held a changed byte before alone, ` +
    `the random churn's bytes read are ${finely(median(samples.map((one) => one.randomReadOfBefore)))}.`
  );
}
