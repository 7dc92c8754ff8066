/** A failed load explains itself: what this process is, what was looked for, why it failed, what to do. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { candidates, type Host, loadBinding, thisHost, whyNot } from '../../src/engine/loader.js';
import { isFirnError } from '../../src/errors.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-loader-'));
afterAll(() => rmSync(folder, { recursive: true }));

const good: Host = {
  platform: 'linux',
  arch: 'x64',
  nodeVersion: '20.20.2',
  nodeApi: 9,
  addonPath: undefined,
  packageRoot: '/package/',
};

function pageOf(host: Host): string {
  try {
    loadBinding(host);
  } catch (error) {
    if (isFirnError(error) && error.code === 'ERR_NATIVE_LOAD') return error.message;
    throw error;
  }
  throw new Error('it loaded');
}

describe('the loader', () => {
  it('prefers a debug build to a release build and both to a prebuilt', () => {
    expect(candidates(good)).toEqual([
      '/package/build/Debug/firn.node',
      '/package/build/Release/firn.node',
      '/package/prebuilds/linux-x64/firn.node',
    ]);
  });

  it('looks nowhere else when FIRN_ADDON names a file', () => {
    expect(candidates({ ...good, addonPath: '/a/firn.node' })).toEqual(['/a/firn.node']);
    expect(pageOf({ ...good, addonPath: '/nowhere/firn.node' })).toMatch(/unset it/);
  });

  it('refuses a process that cannot hold the addon before it touches any file', () => {
    expect(whyNot(good)).toBeUndefined();
    expect(pageOf({ ...good, platform: 'sunos' })).toMatch(/Linux and Windows, and this is sunos/);
    expect(pageOf({ ...good, arch: 'ia32' })).toMatch(/this Node is for ia32/);
    expect(pageOf({ ...good, nodeVersion: '18.20.0' })).toMatch(/Node 20 or later/);
    expect(pageOf({ ...good, nodeApi: 7 })).toMatch(/Node-API 8.* has 7/);
  });

  it('is satisfied with the process that runs the tests', () => {
    expect(whyNot(thisHost())).toBeUndefined();
  });

  it('lists every place it looked at, and how to build', () => {
    const page = pageOf({ ...good, packageRoot: `${folder}/` });
    for (const path of candidates({ ...good, packageRoot: `${folder}/` })) {
      expect(page).toContain(`${path}\n      not there`);
    }
    expect(page).toContain('npm run build');
    expect(page).toContain('firn rescue');
  });

  it('says what the operating system said about a file that does not load', () => {
    const path = join(folder, 'broken.node');
    writeFileSync(path, 'this is no library'.repeat(100));
    const page = pageOf({ ...good, addonPath: path });
    expect(page).toContain(path);
    expect(page).toMatch(/invalid ELF header|not a valid/i);
    expect(page).toMatch(/built for another platform or processor/);
  });

  it('tells who has musl that what does not load there is for glibc', () => {
    const path = join(folder, 'foreign.node');
    writeFileSync(path, 'this is no library'.repeat(100));
    const page = pageOf({ ...good, addonPath: path, libc: () => 'musl' });
    expect(page).toContain('linux-x64, musl');
    expect(page).toMatch(/runs on musl .* is for glibc/);
  });

  it('names the platforms that the package has an engine for when it has none for this one', () => {
    const root = join(folder, 'package');
    mkdirSync(join(root, 'prebuilds/win32-x64'), { recursive: true });
    writeFileSync(join(root, 'prebuilds/win32-x64/firn.node'), '');
    const page = pageOf({ ...good, packageRoot: `${root}/` });
    expect(page).toContain('The package carries: win32-x64\n');
    expect(page).toContain('in a clone of Firn');
    expect(page).toContain('FIRN_ADDON');
  });

  it('names the glibc that this process runs on', () => {
    const libc = thisHost().libc?.();
    if (process.platform === 'linux') expect(libc).toMatch(/^(glibc [\d.]+|musl)$/);
    else expect(libc).toBeUndefined();
  });
});
