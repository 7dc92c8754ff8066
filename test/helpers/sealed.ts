import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { crc32c } from '../../src/crc32c.js';
import { RECORD_HEADER_BYTES } from '../../src/repository/format/record.js';
import { Repository } from '../../src/repository/repository.js';
import { temporaryFolder } from './folder.js';

/** scrypt so cheap that a test does not notice it. */
export const CHEAP = 2 ** 10;
export const PASSPHRASE = 'correct horse battery staple';

export function passphrase(text = PASSPHRASE): Buffer {
  return Buffer.from(text);
}

export async function newSealed(
  options: Parameters<typeof Repository.create>[1] = {},
): Promise<Repository> {
  const folder = path.join(await temporaryFolder(), 'repository');
  const sealing = { passphrase: passphrase(), scryptCost: CHEAP };
  return Repository.create(folder, { ...sealing, ...options });
}

export function openSealed({ path: folder }: Repository, text = PASSPHRASE): Promise<Repository> {
  return Repository.open(folder, undefined, { passphrase: passphrase(text) });
}

/** The same repository as a write-only key opens it. */
export async function openWriteOnly(repository: Repository): Promise<Repository> {
  await repository.addKey(passphrase('host'), { capability: 'write', cost: CHEAP });
  return openSealed(repository, 'host');
}

/** Changes a file of a repository. */
export async function change(
  repository: Repository,
  name: string,
  edit: (bytes: Buffer) => Buffer | undefined,
): Promise<void> {
  const file = path.join(repository.path, name);
  const bytes = await readFile(file);
  await writeFile(file, edit(bytes) ?? bytes);
}

/** Makes a record's checksums right again: what somebody does who changes it on purpose. */
export function mendChecksums(record: Buffer): Buffer {
  record.writeUInt32LE(crc32c(record.subarray(RECORD_HEADER_BYTES)), 56);
  record.writeUInt32LE(crc32c(record.subarray(0, 60)), 60);
  return record;
}
