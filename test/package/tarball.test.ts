/**
 * Goal: who installs the package needs neither a compiler nor a clone. Method: the package is packed, the tarball installed into an empty
 * folder with nothing on the PATH but Node and a shell, and a disk backed up, verified and restored there, byte for byte; under Wine too
 * where FIRN_WINDOWS=1 says that it is there (scripts/windows.mjs).
 *
 * The addons are those of prebuilds/ where they are of these sources, and else those that were built for tests: making release builds of
 * both takes minutes. The dependencies come from npm's cache, or its registry; without both the tests are skipped.
 */

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { placeOf, whyUnfit } from '../../scripts/prebuild.mjs';
import { ADDON, windowsNode, windowsPath, wineEnvironment } from '../../scripts/windows-tools.mjs';
import { copyDisk } from '../../src/jobs/copy.js';
import { suiteFolder, temporaryFolder } from '../helpers/folder.js';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const MIB = 1024 * 1024;
const onWindows = process.env.FIRN_WINDOWS === '1';
/** npm itself, as no shell is asked for it. */
const NPM = realpathSync(
  process.env.npm_execpath ??
    spawnSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).stdout.trim(),
);

/** How npm says that it did not get something from a registry, for now or at all. */
const UNREACHABLE =
  /\b(ENOTCACHED|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT|E429|E5\d\d)\b/;

interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** What whoever runs the tests has set up for npm stays, what Firn and the npm that runs the tests set does not. */
function environment(bin: string): NodeJS.ProcessEnv {
  const foreign = /^(FIRN_|npm_(package|lifecycle|config_(local_prefix|ignore_scripts)))/;
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  return { ...Object.fromEntries(kept), PATH: bin };
}

function run(command: string, parameters: readonly string[], bin: string, cwd: string): Finished {
  const options = { cwd, encoding: 'utf8', env: environment(bin), timeout: 280_000 } as const;
  const { status, stdout, stderr } = spawnSync(command, parameters, options);
  return { status, stdout, stderr };
}

/** Gives Wine a library that Windows has and Wine 8 has not: two of the dependencies, written in Rust, need it. */
function mendWine(): void {
  const source = path.join(ROOT, 'test/package/wine/bcryptprimitives');
  const system = path.join(String(wineEnvironment().WINEPREFIX), 'drive_c/windows/system32');
  const compiler = 'x86_64-w64-mingw32-gcc';
  const library = path.join(system, 'bcryptprimitives.dll');
  const parameters = ['-shared', '-O2', '-s', '-static', `${source}.c`, `${source}.def`];
  const made = spawnSync(compiler, [...parameters, '-o', library, '-ladvapi32']);
  expect(made, String(made.stderr)).toMatchObject({ status: 0 });
}

/** The addon for a platform: the prebuilt, or the one that tests use. */
function addonFor(target: string, built: string): string {
  return whyUnfit(placeOf(target)) === undefined ? `${placeOf(target)}/firn.node` : built;
}

/** Commands from the repository to the restored disk. `at` names a file in the folder of the installation as that system does. */
function life(at: (name: string) => string, image: string): string[][] {
  // Sealed, as the cipher is what each platform has from elsewhere.
  const sealed = ['-r', at('repo'), '--password-file', at('password')];
  return [
    ['init', at('repo'), '--sealed', '--password-file', at('password')],
    [...sealed, 'backup', '--vm', 'vm', '-d', image],
    [...sealed, 'verify', '--read-data'],
    [...sealed, 'restore', 'latest:vm', '--to', at('back.raw'), '--format', 'raw'],
    // The two that load a dependency's own addon: the journal's database, and the LZ4 of the reader without the engine.
    ['runs', 'list', '--state', at('state')],
    [...sealed, 'rescue', 'restore', 'latest:vm', '--to', at('rescued.raw')],
  ];
}

describe('the packed tarball', { timeout: 600_000 }, () => {
  const folder = suiteFolder();
  const bin = path.join(folder, 'bin');
  // What compresses, what does not, and a hole.
  const content = Buffer.concat([
    randomBytes(3 * MIB),
    Buffer.alloc(2 * MIB, 'the same again '),
    Buffer.alloc(4 * MIB),
  ]);
  const image = path.join(folder, 'disk.vhdx');
  let tarball: string;

  const npm = (parameters: readonly string[], cwd: string) =>
    run(process.execPath, [NPM, ...parameters], bin, cwd);

  /** Installs the tarball into a new folder, or skips the test where its dependencies can't be had. */
  async function install(context: TestContext, name: string, ...options: string[]) {
    const place = path.join(folder, name);
    await mkdir(place);
    await writeFile(path.join(place, 'package.json'), '{"private":true}');
    await writeFile(path.join(place, 'password'), 'as white as Firn\n', { mode: 0o600 });
    const quiet = ['--prefer-offline', '--no-audit', '--no-fund', '--fetch-retries=0'];
    const { status, stderr } = npm(['install', ...quiet, ...options, tarball], place);
    if (status !== 0 && UNREACHABLE.test(stderr)) {
      context.skip(
        'the dependencies are neither in the cache of npm nor to be had from a registry',
      );
    }
    expect(status, stderr).toBe(0);
    return path.join(place, 'node_modules');
  }

  beforeAll(async () => {
    await mkdir(bin);
    await symlink(process.execPath, path.join(bin, 'node'));
    await symlink('/bin/sh', path.join(bin, 'sh'));
    const raw = path.join(folder, 'disk.raw');
    await writeFile(raw, content);
    await copyDisk(raw, image);

    const stage = path.join(folder, 'stage');
    for (const name of ['package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'dist', 'docs']) {
      await cp(path.join(ROOT, name), path.join(stage, name), { recursive: true });
    }
    const addons = { 'linux-x64': addonFor('linux-x64', `${ROOT}build/Release/firn.node`) };
    if (onWindows) {
      mendWine();
      Object.assign(addons, { 'win32-x64': addonFor('win32-x64', ADDON) });
    }
    for (const [target, addon] of Object.entries(addons)) {
      expect(existsSync(addon), `the addon for ${target} is built`).toBe(true);
      await mkdir(path.join(stage, 'prebuilds', target), { recursive: true });
      await cp(addon, path.join(stage, 'prebuilds', target, 'firn.node'));
    }
    const packed = npm(['pack', '--json', '--ignore-scripts', '--pack-destination', folder], stage);
    expect(packed, packed.stderr).toMatchObject({ status: 0 });
    tarball = path.join(folder, (JSON.parse(packed.stdout) as [{ filename: string }])[0].filename);
  }, 300_000);

  test.runIf(process.platform === 'linux' && process.arch === 'x64')(
    'backs up, verifies and restores in an empty folder without a compiler',
    async (context) => {
      const modules = await install(context, 'linux', '--ignore-scripts=false');
      const place = path.dirname(modules);
      const firn = (...parameters: string[]) =>
        run(path.join(modules, '.bin/firn'), parameters, bin, place);
      const version = firn('--version');
      const { version: expected } = JSON.parse(await readFile(`${ROOT}package.json`, 'utf8'));
      expect(version, version.stderr).toMatchObject({ status: 0, stdout: `${expected}\n` });
      for (const command of life((name) => path.join(place, name), image)) {
        const finished = firn(...command);
        expect(finished, finished.stderr).toMatchObject({ status: 0 });
      }
      for (const name of ['back.raw', 'rescued.raw']) {
        expect(content.equals(await readFile(path.join(place, name))), name).toBe(true);
      }
      // As a library too.
      const library = 'import("firn-backup").then((it) => console.log(typeof it.backup))';
      const used = run(process.execPath, ['-e', library], bin, place);
      expect(used, used.stderr).toMatchObject({ status: 0, stdout: 'function\n' });
    },
  );

  test.runIf(onWindows)('does the same in node.exe under Wine', async (context) => {
    const modules = await install(
      context,
      'windows',
      '--os=win32',
      '--cpu=x64',
      '--ignore-scripts',
    );
    const place = path.dirname(modules);
    const there = (name: string) => windowsPath(path.join(place, name));
    const main = windowsPath(path.join(modules, 'firn-backup/dist/cli/main.js'));
    const firn = (...parameters: string[]) =>
      windowsNode([main, ...parameters], { env: { FIRN_ADDON: '' } });
    for (const command of [['--version'], ...life(there, windowsPath(image))]) {
      const finished = firn(...command);
      expect(finished, finished.stderr).toMatchObject({ status: 0 });
    }
    for (const name of ['back.raw', 'rescued.raw']) {
      expect(content.equals(await readFile(path.join(place, name))), name).toBe(true);
    }
  });

  test('has what a user needs and nothing that only a builder does', () => {
    const packed = npm(['pack', '--dry-run', '--json', '--ignore-scripts'], ROOT);
    const [{ files }] = JSON.parse(packed.stdout) as [{ files: { path: string }[] }];
    const names = files.map((file) => file.path);
    for (const name of [
      'LICENSE',
      'README.md',
      'dist/cli/main.js',
      'dist/index.d.ts',
      'dist/hosts/hyperv/scripts/host.ps1',
      'docs/errors.md',
    ]) {
      expect(names).toContain(name);
    }
    const kinds = /^(dist|docs|prebuilds)\/|^(LICENSE|README\.md|CHANGELOG\.md|package\.json)$/;
    expect(names.filter((name) => !kinds.test(name) || name.endsWith('.map'))).toEqual([]);
  });

  test('runs nothing when it is installed', async () => {
    const { scripts } = JSON.parse(await readFile(`${ROOT}package.json`, 'utf8'));
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
      expect(scripts).not.toHaveProperty(name);
    }
  });
});

describe('an addon that is to be packed', () => {
  test('must be there, be the file that was built, and be built of these sources', async () => {
    const place = await temporaryFolder();
    expect(whyUnfit(place, 'these')).toMatch(/firn\.node is missing/);
    await writeFile(path.join(place, 'firn.node'), 'hello\n');
    expect(whyUnfit(place, 'these')).toMatch(/firn\.json is missing/);
    const facts = (sha256: string, sourcesSha256: string) =>
      writeFile(path.join(place, 'firn.json'), JSON.stringify({ sha256, sourcesSha256 }));
    const sha256 = '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03';
    await facts(sha256, 'these');
    expect(whyUnfit(place, 'these')).toBeUndefined();
    await facts(sha256, 'others');
    expect(whyUnfit(place, 'these')).toMatch(/other sources/);
    await facts(sha256.replace('5', '6'), 'these');
    expect(whyUnfit(place, 'these')).toMatch(/not the file that its firn\.json describes/);
  });
});
