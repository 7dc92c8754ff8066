/** Unused blocks as a user meets them: what a backup leaves out and says of it, show, inspect and verify after it. */

import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { copyDisk } from '../../src/jobs/copy.js';
import { inExt4, makeExt4, makeTree, missingPrograms } from '../helpers/file-systems.js';
import { exitError, firn, jsonLines } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';

const MIB = 2 ** 20;
const missing = missingPrograms('mke2fs', 'debugfs');
const folder = suiteFolder();
const at = (name: string) => path.join(folder, name);
const env = { FIRN_REPOSITORY: at('repository') };
const run = (...parameters: string[]) => firn(parameters, { env });

async function ok(...parameters: string[]): Promise<string> {
  const finished = await run(...parameters);
  expect(finished.stderr).toBe('');
  expect(finished.status).toBe(0);
  return finished.stdout;
}

beforeAll(async () => {
  if (missing !== undefined) return;
  await mkdir(at('tree'));
  await makeTree(at('tree'), 4 * MIB);
  await makeExt4(at('clean.raw'), 32 * MIB, at('tree'));
  await copyDisk(at('clean.raw'), at('dirty.raw'));
  await inExt4(at('dirty.raw'), 'feature needs_recovery');
  await ok('init');
});

describe.skipIf(missing !== undefined)(`unused blocks (${missing ?? 'programs are here'})`, () => {
  it('are shown by inspect before anybody trusts it', async () => {
    const text = await ok('inspect', at('clean.raw'), '--unused');
    expect(text).toMatch(/unused {2}\d[\d.]* MiB left out; only what was unmounted cleanly/);
    expect(text).toMatch(/1 +ext4 +32(\.0)? MiB +\d/);
    const dirty = await ok('inspect', at('dirty.raw'), '--unused');
    expect(dirty).toMatch(/copied whole: .*journal.*\(dirty\)/);
    const [document] = jsonLines(await run('inspect', at('clean.raw'), '--unused', '--json'));
    expect(document).toMatchObject({ unused: { partitions: [{ fileSystem: 'ext4' }] } });
    const [plain] = jsonLines(await run('inspect', at('clean.raw'), '--json'));
    expect(plain).not.toHaveProperty('unused');
  });

  it('are left out when that is asked for, and a dry run says so too', async () => {
    for (const dry of [['--dry-run'], []]) {
      const text = await ok('backup', '--disk', at('clean.raw'), '--skip-unused', ...dry);
      expect(text).toMatch(/unused blocks of clean: \d[\d.]* MiB left out/);
      expect(text).toMatch(/1 +ext4/);
    }
    const dirty = await ok('backup', '--disk', at('dirty.raw'), '--skip-unused', '--dry-run');
    expect(dirty).toMatch(/unused blocks of dirty: 0 B left out/);
    expect(dirty).toMatch(/copied whole: .*\(dirty\)/);
    const messages = jsonLines(
      await run('backup', '--disk', at('clean.raw'), '--skip-unused', '-n', '--json'),
    );
    const { skippedBytes, disks } = messages.at(-1) as {
      skippedBytes: number;
      disks: { unused: { skippedBytes: number } }[];
    };
    expect(skippedBytes).toBeGreaterThan(16 * MIB);
    expect(disks[0]?.unused.skippedBytes).toBe(skippedBytes);
  });

  it('are named by show, and verify compares without them', async () => {
    const text = await ok('show', 'latest:clean');
    expect(text).toMatch(/unused +\d[\d.]* MiB left out/);
    expect(text).toMatch(/1 +ext4/);
    const verified = await ok('verify', 'latest:clean', '--source', at('clean.raw'));
    expect(verified).toMatch(/holds what its source holds, but for \d[\d.]* MiB of unused blocks/);
  });

  it('are copied by default', async () => {
    const text = await ok('backup', '--disk', at('clean.raw'), '--vm', 'whole');
    expect(text).not.toContain('unused');
    expect(await ok('show', 'latest:whole')).not.toContain('unused');
    const verified = await ok('verify', 'latest:whole', '--source', at('clean.raw'));
    expect(verified).toContain('holds what its source holds\n');
  });

  it('cannot be both skipped and kept, and shadow copies are given up only where blocks are', async () => {
    for (const options of [
      ['backup', '--disk', at('clean.raw'), '--skip-unused', '--keep-unused'],
      ['backup', '--disk', at('clean.raw'), '--drop-guest-shadow-copies'],
      ['inspect', at('clean.raw'), '--drop-guest-shadow-copies'],
    ]) {
      const finished = await run(...options, '--json');
      expect(finished.status).toBe(2);
      expect(exitError(finished).error.code).toBe('ERR_INVALID_ARGUMENT');
    }
  });
});
