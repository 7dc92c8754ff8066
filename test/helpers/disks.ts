import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { DiskIdentity } from '../../src/engine/binding.js';
import { loadEngine } from '../../src/engine/engine.js';
import { copyDisk } from '../../src/jobs/copy.js';
import { openDisk } from '../../src/jobs/disk.js';
import { Repository } from '../../src/repository/repository.js';
import { temporaryFolder } from './folder.js';

const MIB = 1024 * 1024;

export async function newRepository(
  options: Parameters<typeof Repository.create>[1] = {},
): Promise<Repository> {
  return Repository.create(path.join(await temporaryFolder(), 'repository'), options);
}

/** Writes a raw image; returns its path. */
export async function rawDisk(content: Buffer, name = 'disk.raw'): Promise<string> {
  const file = path.join(await temporaryFolder(), name);
  await writeFile(file, content);
  return file;
}

/** All bytes of an image as its guest sees them, through the engine. */
export async function diskContent(file: string, parents: string[] = []): Promise<Buffer> {
  await using disk = await openDisk(file, { parents });
  const parts: Uint8Array[] = [];
  for await (const part of disk.readable()) parts.push(part);
  return Buffer.concat(parts);
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A VHDX or VHD of this content and identity. */
export async function imageOf(
  content: Buffer,
  name: string,
  identity: Partial<DiskIdentity> = {},
): Promise<string> {
  const source = await rawDisk(content, 'source.raw');
  const target = path.join(await temporaryFolder(), name);
  if (Object.keys(identity).length === 0) {
    await copyDisk(source, target);
    return target;
  }
  const session = loadEngine().startCopy({
    tuning: { workers: 2, memoryBytes: 160 * MIB, io: 'auto', backend: 'auto', bytesPerSecond: 0 },
    source: { path: source, open: { parentFolders: [], parents: [], format: 'raw' } },
    target: {
      path: target,
      identity: {
        format: 'vhdx',
        kind: 'dynamic',
        sizeBytes: content.length,
        blockBytes: 2 * MIB,
        logicalSectorBytes: 512,
        physicalSectorBytes: 4096,
        diskId: '12345678-9abc-4def-8123-456789abcdef',
        ...identity,
      },
      parentPath: '',
    },
    overwrite: false,
  });
  await session.done;
  return target;
}

/** Every file of a repository, as paths relative to it. */
export async function filesOf(repository: Repository): Promise<string[]> {
  const names = [];
  for (const folder of [
    'packs',
    'index',
    'points',
    'pending',
    'condemned',
    'labels',
    'checks',
    'damage',
  ]) {
    for (const name of await repository.store.list(folder)) names.push(`${folder}/${name}`);
  }
  return ['config', ...names];
}

export async function flipBit(
  file: string,
  place: number,
  bit: number,
): Promise<() => Promise<void>> {
  const whole = await readFile(file);
  const damaged = Buffer.from(whole);
  const at = place % damaged.length;
  damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << bit), at);
  await writeFile(file, damaged);
  return () => writeFile(file, whole);
}
