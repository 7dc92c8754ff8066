/** Disks with real file systems, made and read by the programs that every Linux has for them. */

import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const MIB = 2 ** 20;
const SECTOR = 512;
// System programs may lie where an ordinary user's path does not lead.
const FOLDERS = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin', '/sbin'];

/** Why a test that needs these programs cannot run here; undefined if it can. */
export function missingPrograms(...names: string[]): string | undefined {
  const missing = names.filter(
    (name) => !FOLDERS.some((folder) => existsSync(`${folder}/${name}`)),
  );
  return missing.length > 0 ? `not installed: ${missing.join(', ')}` : undefined;
}

export async function run(program: string, ...parameters: string[]): Promise<string> {
  const env = { ...process.env, PATH: FOLDERS.join(path.delimiter) };
  const options = { env, encoding: 'latin1', maxBuffer: 256 * MIB } as const;
  return (await promisify(execFile)(program, parameters, options)).stdout;
}

/** A folder with files of many sizes and random content, `bytes` in all. */
export async function makeTree(folder: string, bytes: number): Promise<string[]> {
  const names: string[] = [];
  for (let written = 0, i = 0; written < bytes; i += 1) {
    const size = 1 + ((i * 7919 * 131) % (i % 4 === 0 ? 2 * MIB : 60_000));
    const inner = `d${i % 5}`;
    await mkdir(path.join(folder, inner), { recursive: true });
    names.push(`${inner}/f${i}`);
    await writeFile(path.join(folder, inner, `f${i}`), randomBytes(size));
    written += size;
  }
  return names;
}

/** An ext4 in a file with blocks of 4 KiB, holding what the folder holds. */
export async function makeExt4(file: string, sizeBytes: number, folder: string): Promise<void> {
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  await run('mke2fs', '-F', '-q', '-t', 'ext4', '-b', '4096', '-d', folder, file);
}

/** Does something in it with debugfs, a request a line. */
export async function inExt4(file: string, ...requests: string[]): Promise<void> {
  const script = `${file}.requests`;
  await writeFile(script, `${requests.join('\n')}\n`);
  await run('debugfs', '-w', '-f', script, file);
  await rm(script);
}

/** Throws unless e2fsck finds nothing to mend. */
export async function checkExt4(file: string): Promise<void> {
  await run('e2fsck', '-f', '-n', file);
}

/** Names and digests of all files, as debugfs reads them. */
export async function ext4Content(file: string): Promise<string[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'firn-dump-'));
  try {
    await run('debugfs', '-R', `rdump / ${folder}`, file);
    const entries = await readdir(folder, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile());
    return await Promise.all(
      files
        .map((entry) => path.join(entry.parentPath, entry.name))
        .sort()
        .map(async (name) => `${path.relative(folder, name)} ${digest(await readFile(name))}`),
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

export interface Ext4Use {
  freeBytes: number;
  usedBytes: number;
}

/** What it says of itself. */
export async function ext4Use(file: string): Promise<Ext4Use> {
  const text = await run('dumpe2fs', '-h', file);
  const number = (name: string) => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)?.[1]);
  const free = number('Free blocks');
  const [blocks, bytes] = [number('Block count'), number('Block size')];
  return { freeBytes: free * bytes, usedBytes: (blocks - free) * bytes };
}

/** An NTFS in a file, holding these files in its root, put there without a mount. */
export async function makeNtfs(
  file: string,
  sizeBytes: number,
  sources: readonly string[],
): Promise<void> {
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  await run('mkntfs', '-F', '-Q', '-q', '-p', '2048', '-H', '255', '-S', '63', '-s', '512', file);
  for (const source of sources) await run('ntfscp', file, source, path.basename(source));
}

/** Names and digests of the files in its root. */
export async function ntfsContent(file: string): Promise<string[]> {
  const names = (await run('ntfsls', file)).split('\n').filter((name) => name !== '');
  const contents = [];
  for (const name of names.sort()) {
    contents.push(`${name} ${digest(Buffer.from(await run('ntfscat', file, name), 'latin1'))}`);
  }
  return contents;
}

function digest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export interface TestPartition {
  /** Of the MBR: 0x83, 0x07. */
  type: number;
  /** An image of it. */
  file: string;
}

/** A disk with an MBR and these partitions, a MiB before the first. Gives where each begins, in bytes. */
export async function makePartitionedDisk(
  file: string,
  partitions: readonly TestPartition[],
): Promise<number[]> {
  const record = Buffer.alloc(SECTOR);
  const starts: number[] = [];
  const disk = await open(file, 'w');
  try {
    let at = MIB;
    for (const [index, { type, file: image }] of partitions.entries()) {
      const content = await readFile(image);
      const entry = 446 + index * 16;
      record.writeUInt8(type, entry + 4);
      record.writeUInt32LE(at / SECTOR, entry + 8);
      record.writeUInt32LE(content.length / SECTOR, entry + 12);
      await disk.write(content, 0, content.length, at);
      starts.push(at);
      at += content.length;
    }
    record.writeUInt16LE(0xaa55, 510);
    await disk.write(record, 0, SECTOR, 0);
    await disk.truncate(at + MIB);
  } finally {
    await disk.close();
  }
  return starts;
}

/** Copies a part of a disk into a file of its own. */
export async function cutOut(
  disk: string,
  offset: number,
  length: number,
  to: string,
): Promise<void> {
  const file = await open(disk);
  try {
    const bytes = Buffer.alloc(length);
    await file.read(bytes, 0, length, offset);
    await writeFile(to, bytes);
  } finally {
    await file.close();
  }
}
