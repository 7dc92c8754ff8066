/**
 * Makes and changes ext4 file systems inside raw image files, with e2fsprogs alone: no mount, no
 * loop device, no root.
 *
 * Everything goes through debugfs scripts instead of `mke2fs -d`, because a script fixes the order
 * in which files are allocated (mke2fs takes what readdir gives), and because a later script
 * changes the same file system and leaves unchanged blocks where they are, as a running machine
 * does. Times, ids and hash seeds are fixed, so the same input gives the same image.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { posix } from 'node:path';

const BLOCK_BYTES = 4096;
const PARTITION_OFFSET_BYTES = 2 ** 20;
const SECTOR_BYTES = 512;
/** 2025-01-01; every inode of the first installation carries it. */
const INSTALL_TIME_SECONDS = 1735689600;
const OUTPUT_BYTES_MAX = 2 ** 30;

function run(program, args, env = {}) {
  const result = spawnSync(program, args, {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: OUTPUT_BYTES_MAX,
  });
  if (result.error) throw new Error(`${program}: ${result.error.message}`);
  if (result.status !== 0) {
    throw new Error(`${program} ${args.join(' ')} ended with ${result.status}: ${result.stderr}`);
  }
  return result;
}

/** A partition table of one Linux partition from 1 MiB to the end. */
function writePartitionTable(file, diskBytes, signature) {
  const sector = Buffer.alloc(SECTOR_BYTES);
  const firstSector = PARTITION_OFFSET_BYTES / SECTOR_BYTES;
  sector.writeUInt32LE(signature, 440);
  sector.writeUInt8(0x80, 446);
  sector.write('feffff', 447, 'hex');
  sector.writeUInt8(0x83, 450);
  sector.write('feffff', 451, 'hex');
  sector.writeUInt32LE(firstSector, 454);
  sector.writeUInt32LE(diskBytes / SECTOR_BYTES - firstSector, 458);
  sector.writeUInt16LE(0xaa55, 510);
  writeSync(file, sector, 0, SECTOR_BYTES, 0);
}

/** Makes a sparse raw disk of `diskBytes` with one partition and an empty ext4 in it. */
export function makeFileSystem(image, diskBytes, uuid) {
  const file = openSync(image, 'w');
  ftruncateSync(file, diskBytes);
  writePartitionTable(file, diskBytes, Number.parseInt(uuid.slice(0, 8), 16));
  closeSync(file);
  const blocks = (diskBytes - PARTITION_OFFSET_BYTES) / BLOCK_BYTES;
  const extended = `offset=${PARTITION_OFFSET_BYTES},hash_seed=${uuid},root_owner=0:0,nodiscard`;
  run(
    'mke2fs',
    [
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      `${BLOCK_BYTES}`,
      '-U',
      uuid,
      '-E',
      extended,
      image,
      `${blocks}`,
    ],
    { E2FSPROGS_FAKE_TIME: `${INSTALL_TIME_SECONDS}` },
  );
}

/** Runs debugfs commands on the image's file system; returns what they printed. */
function runScript(image, commands, { writable }) {
  const script = `${image}.debugfs`;
  writeFileSync(script, `${commands.join('\n')}\n`);
  try {
    const mode = writable ? ['-w'] : [];
    const target = `${image}?offset=${PARTITION_OFFSET_BYTES}`;
    const { stdout, stderr } = run('debugfs', [...mode, '-f', script, target]);
    const complaints = stderr
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('debugfs '));
    if (complaints.length > 0)
      throw new Error(`debugfs on ${image}: ${complaints.slice(0, 3).join('; ')}`);
    return stdout;
  } finally {
    unlinkSync(script);
  }
}

function timeCommand(daysLater) {
  const time = new Date((INSTALL_TIME_SECONDS + daysLater * 86400) * 1000);
  return `set_current_time ${time.toISOString().replace(/[-:T]/g, '').slice(0, 14)}`;
}

/**
 * Remembers which folders a file system has, so that each is made once and the working folder
 * changes rarely.
 */
class FolderScript {
  #known;
  #current = '/';
  commands = [];

  constructor(known) {
    this.#known = known;
  }

  #make(folder) {
    if (this.#known.has(folder)) return;
    this.#make(posix.dirname(folder));
    this.commands.push(`mkdir "${folder}"`);
    this.#known.add(folder);
  }

  enter(folder) {
    this.#make(folder);
    if (folder !== this.#current) this.commands.push(`cd "${folder}"`);
    this.#current = folder;
  }

  add(entry) {
    this.enter(posix.dirname(entry.path));
    const name = posix.basename(entry.path);
    this.commands.push(
      entry.target === undefined
        ? `write "${entry.source}" "${name}"`
        : `symlink "${name}" "${entry.target}"`,
    );
  }

  remove(entry) {
    this.enter(posix.dirname(entry.path));
    this.commands.push(`rm "${posix.basename(entry.path)}"`);
  }
}

/**
 * Installs entries into the file system, after removing others.
 *
 * @param {Set<string>} folders what exists already; grows with what is made
 */
export function changeFiles(image, { remove = [], add = [], folders, daysLater }) {
  const script = new FolderScript(folders);
  script.commands.push(timeCommand(daysLater));
  for (const entry of remove) script.remove(entry);
  for (const entry of add) script.add(entry);
  runScript(image, script.commands, { writable: true });
}

/** The folders of an empty file system. */
export function emptyFolders() {
  return new Set(['/']);
}

/** Where each file's blocks lie: byte offsets in the image, in file order, one for each block. */
export function locateBlocks(image, entries) {
  const commands = entries.map(({ path }) => `blocks "${path}"`);
  const lines = runScript(image, commands, { writable: false }).split('\n');
  // Each command is echoed on a line of its own, and the blocks follow on the next.
  const answers = lines.filter((line) => line !== '' && !line.startsWith('debugfs:'));
  if (answers.length !== entries.length) {
    throw new Error(`debugfs answered ${answers.length} times for ${entries.length} files`);
  }
  return answers.map((line) =>
    line
      .trim()
      .split(/\s+/)
      .map(Number)
      .filter((block) => block > 0)
      .map((block) => PARTITION_OFFSET_BYTES + block * BLOCK_BYTES),
  );
}

/**
 * Overwrites blocks of one file where they lie, with bytes of another file, as a database or an
 * update in place does.
 *
 * @param {number[]} offsets from locateBlocks
 * @param {(blockIndex: number) => boolean} picks which blocks to overwrite
 * @returns {number} bytes overwritten
 */
export function overwriteBlocks(image, offsets, donorPath, picks) {
  const donor = readFileSync(donorPath);
  if (donor.length < BLOCK_BYTES) return 0;
  const donorBlocks = Math.floor(donor.length / BLOCK_BYTES);
  const file = openSync(image, 'r+');
  let written = 0;
  try {
    for (const [index, offset] of offsets.entries()) {
      if (!picks(index)) continue;
      writeSync(file, donor, (index % donorBlocks) * BLOCK_BYTES, BLOCK_BYTES, offset);
      written += BLOCK_BYTES;
    }
  } finally {
    closeSync(file);
  }
  return written;
}

/** Has e2fsck say that the file system is whole; throws with its words when it is not. */
export function checkFileSystem(image) {
  run('e2fsck', ['-f', '-n', `${image}?offset=${PARTITION_OFFSET_BYTES}`]);
}
