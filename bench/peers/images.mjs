/**
 * Makes the disk images that the benchmarks run on, from the files of the machine it runs on:
 *
 *   base.vhdx     a 16 GiB virtual disk with about 1.05 GiB of a distribution's root on ext4
 *   churned.vhdx  the same disk some weeks later: about 10 % of its data deleted, added or
 *                 rewritten in place
 *   other.vhdx    another machine of the same distribution: half the packages in common, installed
 *                 in another order
 *
 *   node bench/peers/images.mjs --out DIR [--data-mib 1075] [--virtual-gib 16]
 *
 * Needs e2fsprogs and qemu-img. The content is the same on every run on one machine (the VHDX
 * files' own ids are not). Prints what it made as one JSON document, and leaves that beside the
 * images as images.json.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import {
  changeFiles,
  checkFileSystem,
  emptyFolders,
  locateBlocks,
  makeFileSystem,
  overwriteBlocks,
} from './image-ext4.mjs';
import { choosePackages, installOrder, randomNumbers } from './image-selection.mjs';

const MIB = 2 ** 20;
const DESCRIPTION_FILE = 'images.json';
const BASE_UUID = '6f1d2a54-2b6b-4c3e-9b7e-0a4f5c1d8e01';
const OTHER_UUID = 'c2b7f9de-71a0-4f53-8d1c-5e9a3b6c7f02';
/** Hyper-V's own default block size for a dynamic VHDX. */
const VHDX_BLOCK_BYTES = 32 * MIB;
const REMOVED_SHARE = 0.03;
const ADDED_SHARE = 0.04;
const REWRITTEN_SHARE = 0.035;
const SCATTERED_SHARE = 0.015;
/** A scattered overwrite touches one block in this many. */
const SCATTERED_BLOCK_STRIDE = 13;

function run(program, args) {
  const result = spawnSync(program, args, { encoding: 'utf8' });
  if (result.error) throw new Error(`${program}: ${result.error.message}`);
  if (result.status !== 0)
    throw new Error(`${program} ended with ${result.status}: ${result.stderr}`);
}

function convertToVhdx(raw, vhdx) {
  const options = `subformat=dynamic,block_size=${VHDX_BLOCK_BYTES}`;
  run('qemu-img', ['convert', '-f', 'raw', '-O', 'vhdx', '-o', options, raw, vhdx]);
}

function allocatedBytes(path) {
  return statSync(path).blocks * 512;
}

function entriesOf(packages) {
  return packages.flatMap((item) => item.entries);
}

/**
 * Takes entries from the front of a shuffled list until they hold `bytes`; the rest stays in the
 * list.
 */
function take(list, bytes) {
  const taken = [];
  for (let sum = 0; sum < bytes && list.length > 0; ) {
    const entry = list.shift();
    taken.push(entry);
    sum += entry.bytes;
  }
  return taken;
}

function shuffle(entries, next) {
  const list = [...entries];
  for (let i = list.length - 1; i > 0; --i) {
    const j = next() % (i + 1);
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
}

function sumBytes(entries) {
  return entries.reduce((sum, entry) => sum + entry.bytes, 0);
}

/** Overwrites the given files in place with bytes of files that no image holds. */
function overwriteFiles(raw, entries, donors, next, strideBlocks) {
  const places = locateBlocks(raw, entries);
  let bytes = 0;
  for (const offsets of places) {
    const donor = donors[next() % donors.length];
    const phase = next() % strideBlocks;
    const picks = (index) => index % strideBlocks === phase;
    bytes += overwriteBlocks(raw, offsets, donor.source, picks);
  }
  return bytes;
}

/** Ages the base disk: what weeks of updates and use do to it. Returns what was done, in bytes. */
function churn(raw, installed, spare, folders) {
  const next = randomNumbers(20250315);
  const files = shuffle(
    installed.filter((entry) => entry.target === undefined && entry.bytes > 0),
    next,
  );
  const fresh = shuffle(
    spare.filter((entry) => entry.target === undefined && entry.bytes > 0),
    next,
  );
  const dataBytes = sumBytes(files);
  const remove = take(files, dataBytes * REMOVED_SHARE);
  const add = take(fresh, dataBytes * ADDED_SHARE);
  const donors = fresh.filter((entry) => entry.bytes >= 64 * 1024);
  if (donors.length === 0) throw new Error('no files are left over to take new content from');
  const rewritten = take(files, dataBytes * REWRITTEN_SHARE);
  const scattered = take(files, dataBytes * SCATTERED_SHARE * SCATTERED_BLOCK_STRIDE);
  const rewrittenBytes = overwriteFiles(raw, rewritten, donors, next, 1);
  const scatteredBytes = overwriteFiles(raw, scattered, donors, next, SCATTERED_BLOCK_STRIDE);
  changeFiles(raw, { remove, add, folders, daysLater: 74 });
  return {
    removedBytes: sumBytes(remove),
    addedBytes: sumBytes(add),
    rewrittenInPlaceBytes: rewrittenBytes,
    scatteredInPlaceBytes: scatteredBytes,
    changedShare: (sumBytes(add) + rewrittenBytes + scatteredBytes) / dataBytes,
  };
}

function install(raw, diskBytes, uuid, packages, salt) {
  makeFileSystem(raw, diskBytes, uuid);
  const folders = emptyFolders();
  const entries = entriesOf(installOrder(packages, salt));
  changeFiles(raw, { add: entries, folders, daysLater: 0 });
  checkFileSystem(raw);
  return { entries, folders };
}

/** Seals one image: checks the file system, converts, and says what came out. */
function finish(raw, vhdx, details) {
  checkFileSystem(raw);
  convertToVhdx(raw, vhdx);
  return {
    fileBytes: statSync(vhdx).size,
    allocatedBytes: allocatedBytes(vhdx),
    ...details,
  };
}

/**
 * Makes the three images in `folder`.
 *
 * @param {{ folder: string, dataMib?: number, virtualGib?: number }} options
 */
export function makeImages({ folder, dataMib = 1075, virtualGib = 16 }) {
  mkdirSync(folder, { recursive: true });
  const raw = join(folder, 'work.raw');
  const generatedFolder = join(folder, 'generated');
  const diskBytes = virtualGib * 1024 * MIB;
  try {
    const shares = choosePackages(dataMib * MIB, generatedFolder);
    const spare = entriesOf(shares.spare);
    const first = install(raw, diskBytes, BASE_UUID, [...shares.common, ...shares.first], 'first');
    const base = finish(raw, join(folder, 'base.vhdx'), {
      files: first.entries.length,
      dataBytes: sumBytes(first.entries),
    });
    const changes = churn(raw, first.entries, spare, first.folders);
    const churned = finish(raw, join(folder, 'churned.vhdx'), changes);
    rmSync(raw);
    const second = install(
      raw,
      diskBytes,
      OTHER_UUID,
      [...shares.common, ...shares.second],
      'second',
    );
    const other = finish(raw, join(folder, 'other.vhdx'), {
      files: second.entries.length,
      dataBytes: sumBytes(second.entries),
      commonBytes: sumBytes(entriesOf(shares.common)),
    });
    const { generatedBytes } = shares;
    const made = { virtualBytes: diskBytes, generatedBytes, base, churned, other };
    writeFileSync(join(folder, DESCRIPTION_FILE), `${JSON.stringify(made, null, 2)}\n`);
    return made;
  } finally {
    rmSync(raw, { force: true });
    rmSync(generatedFolder, { recursive: true, force: true });
  }
}

/** What makeImages said of the images in a folder; throws when they are not there. */
export function describeImages(folder) {
  return JSON.parse(readFileSync(join(folder, DESCRIPTION_FILE), 'utf8'));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: {
      out: { type: 'string' },
      'data-mib': { type: 'string', default: '1075' },
      'virtual-gib': { type: 'string', default: '16' },
    },
  });
  if (values.out === undefined) {
    console.error('usage: node bench/peers/images.mjs --out DIR [--data-mib N] [--virtual-gib N]');
    process.exit(2);
  }
  const made = makeImages({
    folder: values.out,
    dataMib: Number(values['data-mib']),
    virtualGib: Number(values['virtual-gib']),
  });
  if (made.generatedBytes > 0) {
    console.error(
      `this machine has too few files: ${(made.generatedBytes / MIB).toFixed(0)} MiB were generated`,
    );
  }
  console.log(JSON.stringify(made, null, 2));
}
