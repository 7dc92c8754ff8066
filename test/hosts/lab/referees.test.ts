/**
 * Goal: a chain that live layers have written is a chain to other programs too. Method: 7-Zip and libvhdi read it, where they are installed, and
 * have to find what the model says. Both take differencing disks; QEMU does not, so it is asked for a disk after its chain was merged.
 */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LiveChain } from '../../../src/hosts/lab/live-chain.js';
import { temporaryFolder } from '../../helpers/folder.js';
import {
  applyTo,
  arbitraryWrite,
  bytesOf,
  createBase,
  createChild,
  MIB,
  type Shape,
} from './images.js';

const run = promisify(execFile);
const PYTHON = '/usr/bin/python3';

/** The first of these commands that runs, or undefined. */
async function firstOf(...commands: [string, ...string[]][]): Promise<string | undefined> {
  for (const [command, ...parameters] of commands) {
    try {
      await run(command, parameters);
      return command;
    } catch {
      // It is not installed, or lacks its module.
    }
  }
  return undefined;
}

const sevenZip = await firstOf(['7zz', 'i'], ['7z', 'i']);
const pyvhdi = await firstOf([PYTHON, '-c', 'import pyvhdi']);
const qemu = await firstOf(['qemu-img', '--version']);

interface Written {
  /** From the top to the base. */
  paths: string[];
  model: Buffer;
  chain: LiveChain;
}

/** Three layers, each written while it was the top one, the two upper ones with blocks of their own size. */
async function writtenChain(): Promise<Written> {
  const folder = await temporaryFolder();
  const shape: Shape = { sizeBytes: 12 * MIB, blockBytes: 2 * MIB, sectorBytes: 512 };
  const base = path.join(folder, 'base.vhdx');
  await createBase(base, shape);
  const model = Buffer.alloc(shape.sizeBytes);
  const chain = LiveChain.open([base]);
  onTestFinished(() => chain.close());
  for (const blockBytes of [MIB, 4 * MIB, 0]) {
    for (const write of fc.sample(arbitraryWrite(shape), 12)) {
      chain.write(write.offset, bytesOf(write));
      applyTo(model, write);
    }
    chain.flush();
    if (blockBytes === 0) continue;
    const child = path.join(folder, `base_${blockBytes}.avhdx`);
    await createChild(child, chain.paths[0] ?? '', shape, blockBytes);
    chain.push(child);
  }
  return { paths: chain.paths, model, chain };
}

function mergeMiddle({ chain, paths }: Written): string[] {
  const merge = chain.beginMerge(paths[1] ?? '');
  while (!merge.copySome());
  chain.bypassMerged();
  chain.dropMerged();
  chain.flush();
  return chain.paths;
}

const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

async function sevenZipContent(top: string): Promise<Buffer> {
  const parameters = ['x', '-tvhdx', '-so', top];
  const options = { encoding: 'buffer', maxBuffer: 64 * MIB } as const;
  return (await run(sevenZip ?? '', parameters, options)).stdout;
}

const READ_CHAIN = `
import hashlib, sys, pyvhdi
files = []
for path in sys.argv[1:]:
    file = pyvhdi.file()
    file.open(path)
    files.append(file)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
print(hashlib.sha256(files[0].read_buffer(files[0].get_media_size())).hexdigest())
`;

async function pyvhdiHash(paths: readonly string[]): Promise<string> {
  return (await run(PYTHON, ['-c', READ_CHAIN, ...paths])).stdout.trim();
}

describe('what live layers have written', () => {
  test('7-Zip reads through the chain, also after a merge in its middle', async (context) => {
    if (sevenZip === undefined) return context.skip('7-Zip is not installed');
    const written = await writtenChain();
    const [top = ''] = written.paths;
    expect(sha256(await sevenZipContent(top))).toBe(sha256(written.model));
    mergeMiddle(written);
    expect(sha256(await sevenZipContent(top))).toBe(sha256(written.model));
  });

  test('libvhdi reads through the chain, also after a merge in its middle', async (context) => {
    if (pyvhdi === undefined) return context.skip('pyvhdi is not installed');
    const written = await writtenChain();
    expect(await pyvhdiHash(written.paths)).toBe(sha256(written.model));
    expect(await pyvhdiHash(mergeMiddle(written))).toBe(sha256(written.model));
  });

  test('QEMU finds nothing wrong with a base that all was merged into, and reads it', async (context) => {
    if (qemu === undefined) return context.skip('qemu-img is not installed');
    const { chain, model } = await writtenChain();
    for (const layer of chain.paths.slice(0, -1)) {
      const merge = chain.beginMerge(layer);
      while (!merge.copySome());
      chain.bypassMerged();
      chain.dropMerged();
    }
    chain.flush();
    const [base = ''] = chain.paths;
    await run(qemu, ['check', '-f', 'vhdx', base]);
    const raw = path.join(await temporaryFolder(), 'disk.raw');
    await run(qemu, ['convert', '-f', 'vhdx', '-O', 'raw', base, raw]);
    expect(sha256(await readFile(raw))).toBe(sha256(model));
  });
});
