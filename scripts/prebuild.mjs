/**
 * Builds the addons that the package carries, so that whoever installs it needs no compiler: prebuilds/<platform>-<arch>/firn.node, each
 * with a firn.json that says what it was made of and what it needs.
 *
 *   node scripts/prebuild.mjs [build] [linux-x64] [win32-x64]    builds both, or one
 *   node scripts/prebuild.mjs check                              fails unless both are there and made of these very sources
 *
 * "npm run package" is both and then "npm pack", with the second as its prepack. Whether an addon is of these sources is told by a digest of them and not by times, which
 * a checkout changes. Neither addon takes anything of the machine that builds it but the version of its C library: what each is linked
 * against is read from the file that was built, and more than expected is an error.
 *
 * The one for Linux is built here by this machine's compiler, the one for Windows by mingw-w64 ("node scripts/setup.mjs package").
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, ROOT, run } from './native.mjs';

const MODULES = join(ROOT, 'node_modules');

/** What is built, how, and which libraries of the system it may need. */
const TARGETS = {
  'linux-x64': {
    cmake: [],
    strip: 'strip',
    needs: linuxNeeds,
    mayNeed: /^(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2)$/,
  },
  'win32-x64': {
    cmake: ['--toolchain', 'cmake/mingw-w64-x86_64.cmake', '-Wno-deprecated'],
    strip: 'x86_64-w64-mingw32-strip',
    needs: windowsNeeds,
    // node.exe is whatever program loads it (native/addon/windows/delay_load_hook.cc).
    mayNeed: /^(kernel32|advapi32|bcrypt|msvcrt|ole32|ws2_32|node)\.(dll|exe)$/i,
  },
};

/** The licences that ask to go along with what is linked in, by what they are for. BLAKE3's and the compiler's own do not. */
const NOTICES = {
  LZ4: join(MODULES, 'lmdb/dependencies/lz4/lib/LICENSE'),
  zstd: join(MODULES, 'zstd-napi/deps/zstd/LICENSE'),
  xxHash: join(MODULES, 'xxhash-addon/xxHash/xxhash.h'),
  'OpenSSL (Linux)': '/usr/share/doc/libssl-dev/copyright',
  'mingw-w64 (Windows)': '/usr/share/doc/mingw-w64-x86-64-dev/copyright',
};

function stop(message) {
  console.error(`prebuild: ${message}`);
  process.exit(1);
}

function outputOf(command, ...parameters) {
  const options = { encoding: 'utf8', maxBuffer: 1024 ** 3 };
  const { status, stdout, stderr, error } = spawnSync(command, parameters, options);
  if (status !== 0) stop(`"${command}" failed: ${error?.message ?? stderr}`);
  return stdout;
}

function digestOf(path) {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** The files below native/ that go into an addon: not the tests, nor what only tests use. */
function nativeSources() {
  return readdirSync(join(ROOT, 'native'), { recursive: true })
    .map((name) => `native/${name.replaceAll('\\', '/')}`)
    .filter((name) => /\.(cc|h)$/.test(name))
    .filter((name) => !/^native\/fuzz\/|_stand_in\/|_test(_util)?\.(cc|h)$/.test(name));
}

/** One digest of all that an addon is made of. The libraries in C count by their packages' versions. */
export function sourcesDigest() {
  const cmake = readdirSync(join(ROOT, 'cmake')).map((name) => `cmake/${name}`);
  const hash = createHash('sha256');
  for (const name of ['CMakeLists.txt', ...cmake, ...nativeSources()].sort()) {
    hash.update(`${name}\n${digestOf(join(ROOT, name))}\n`);
  }
  const versionOf = (file) => JSON.parse(readFileSync(file, 'utf8')).version;
  hash.update(versionOf(join(ROOT, 'package.json')));
  for (const name of ['@c4312/blake3-native', 'lmdb', 'zstd-napi', 'xxhash-addon']) {
    hash.update(versionOf(join(MODULES, name, 'package.json')));
  }
  return hash.digest('hex');
}

function linuxNeeds(path) {
  const dynamic = outputOf('readelf', '-d', path);
  const libraries = [...dynamic.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name);
  const versions = [...outputOf('readelf', '-V', path).matchAll(/GLIBC_([\d.]+)/g)];
  const order = (text) => text.split('.').map((part) => part.padStart(4, '0'));
  const sorted = versions
    .map(([, version]) => version)
    .sort((a, b) => (order(a).join('.') < order(b).join('.') ? -1 : 1));
  return { libraries, glibc: sorted.at(-1) };
}

function windowsNeeds(path) {
  const headers = outputOf('x86_64-w64-mingw32-objdump', '-p', path);
  return { libraries: [...headers.matchAll(/DLL Name: (\S+)/g)].map(([, name]) => name) };
}

function prebuild(target) {
  const { cmake, strip, needs, mayNeed } = TARGETS[target];
  if (target.startsWith('linux') && `${process.platform}-${process.arch}` !== target) {
    stop(`${target} is built on ${target}, and this is ${process.platform}-${process.arch}`);
  }
  const sources = sourcesDigest();
  const folder = join(ROOT, `build-prebuild-${target}`);
  const settings = ['-DCMAKE_BUILD_TYPE=Release', '-DFIRN_ADDON=ON', '-DFIRN_PORTABLE=ON'];
  settings.push('-DFIRN_NATIVE_TESTS=OFF', ...cmake);
  if (!build(folder, settings, 'firn')) stop(`${target} did not build`);
  if (sourcesDigest() !== sources) {
    // What was compiled while its source was written is newer than that, and would never be compiled again.
    rmSync(folder, { recursive: true });
    stop(`the sources changed while ${target} was built, and its build is removed: build again`);
  }
  const place = placeOf(target);
  mkdirSync(place, { recursive: true });
  const scratch = join(place, 'firn.node.partial');
  copyFileSync(join(folder, 'firn.node'), scratch);
  if (run(strip, '--strip-unneeded', scratch) !== 0) stop(`${strip} failed`);
  const found = needs(scratch);
  const surplus = found.libraries.filter((name) => !mayNeed.test(name));
  if (surplus.length > 0) stop(`${target} needs ${surplus.join(', ')}, which a user may not have`);
  renameSync(scratch, join(place, 'firn.node'));
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const digest = digestOf(join(place, 'firn.node'));
  const facts = { version, needs: found, sha256: digest, sourcesSha256: sources };
  writeFileSync(join(place, 'firn.json'), `${JSON.stringify(facts, null, 2)}\n`);
  const { size } = statSync(join(place, 'firn.node'));
  const libc = found.glibc === undefined ? '' : `, of glibc ${found.glibc} or later`;
  console.log(`prebuilds/${target}/firn.node: ${size} bytes, needs ${found.libraries}${libc}`);
}

function writeNotices() {
  const sections = Object.entries(NOTICES).map(([name, path]) => {
    if (!existsSync(path)) stop(`the licence of ${name} is not where it was: ${path}`);
    const text = readFileSync(path, 'utf8').trim();
    // A header has its licence in its first comment.
    const licence = path.endsWith('.h') ? text.slice(0, text.indexOf('*/') + 2) : text;
    return `${name}\n${'='.repeat(name.length)}\n\n${licence}\n`;
  });
  const head = 'The addons in this folder have these libraries linked into them.\n';
  writeFileSync(join(ROOT, 'prebuilds/NOTICE.txt'), [head, ...sections].join('\n\n'));
}

/** Where the addon for a platform lies. */
export function placeOf(target) {
  return join(ROOT, 'prebuilds', target);
}

/** Why the addon in a folder must not be packed, or undefined. */
export function whyUnfit(place, sources = sourcesDigest()) {
  const missing = ['firn.node', 'firn.json'].find((name) => !existsSync(join(place, name)));
  if (missing !== undefined) return `${join(place, missing)} is missing`;
  const facts = JSON.parse(readFileSync(join(place, 'firn.json'), 'utf8'));
  if (facts.sha256 !== digestOf(join(place, 'firn.node'))) {
    return `${join(place, 'firn.node')} is not the file that its firn.json describes`;
  }
  if (facts.sourcesSha256 !== sources) {
    return `${join(place, 'firn.node')} was built of other sources than these`;
  }
  return undefined;
}

function check() {
  const sources = sourcesDigest();
  const problems = Object.keys(TARGETS).map((target) => whyUnfit(placeOf(target), sources));
  if (!existsSync(join(ROOT, 'prebuilds/NOTICE.txt'))) problems.push('NOTICE.txt is missing');
  if (!existsSync(join(ROOT, 'dist/cli/main.js'))) problems.push('dist/ is missing');
  const found = problems.filter((problem) => problem !== undefined);
  if (found.length > 0) stop(`not fit to be packed: ${found.join('; ')}. Run "npm run prebuild".`);
}

const [command = 'build', ...rest] = process.argv.slice(2);
const isMain = process.argv[1] === fileURLToPath(import.meta.url);
if (isMain && command === 'check') check();
else if (isMain) {
  const named = command === 'build' ? rest : [command, ...rest];
  const unknown = named.find((name) => !Object.hasOwn(TARGETS, name));
  if (unknown !== undefined) stop(`expected ${Object.keys(TARGETS)} but received "${unknown}"`);
  for (const target of named.length > 0 ? named : Object.keys(TARGETS)) prebuild(target);
  writeNotices();
}
