/**
 * Makes a fresh clone ready: npm packages, system packages, the compiled TypeScript and the addon, each only when it is missing or older
 * than its sources. Runs on plain Node with nothing installed.
 *
 *   node scripts/setup.mjs [none | demo | test | peers | fuzz | windows | package | ci]     what the system packages are for
 *
 * On Debian, as root, missing system packages are installed, and it says so first. Elsewhere the exact command is printed; what
 * cannot be done without ends the setup, what only some tests need is left out and they are skipped.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync, utimesSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NODE_MIN = [20, 17];

/** A tool, how to see that it is there, and whether the setup can go on without it. */
const TOOLS = {
  compiler: { packages: ['g++'], present: () => onPath('g++', 'clang++'), required: true },
  cmake: { packages: ['cmake'], present: () => onPath('cmake'), required: true },
  generator: { packages: ['ninja-build'], present: () => onPath('ninja', 'make'), required: true },
  openssl: {
    packages: ['libssl-dev'],
    present: () => existsAny('/usr/include/openssl/evp.h', '/usr/local/include/openssl/evp.h'),
    required: process.platform !== 'win32',
  },
  gtest: {
    packages: ['libgtest-dev'],
    present: () => existsAny('/usr/include/gtest/gtest.h', '/usr/local/include/gtest/gtest.h'),
    required: true,
  },
  qemu: { packages: ['qemu-utils'], present: () => onPath('qemu-img') },
  storageDaemon: {
    packages: ['qemu-system-common'],
    present: () => onPath('qemu-storage-daemon'),
  },
  nbdinfo: { packages: ['libnbd-bin'], present: () => onPath('nbdinfo') },
  sevenZip: { packages: ['7zip'], present: () => onPath('7zz', '7z') },
  vhdi: { packages: ['libvhdi-utils'], present: () => onPath('vhdiinfo') },
  pyvhdi: {
    packages: ['python3-libvhdi'],
    present: () => succeeds('/usr/bin/python3', '-c', 'import pyvhdi'),
  },
  ext4: { packages: ['e2fsprogs'], present: () => onPath('mke2fs') && onPath('debugfs') },
  ntfs: {
    packages: ['ntfs-3g'],
    present: () => onPath('mkntfs') && onPath('ntfs-3g') && onPath('ntfscat'),
  },
  bzip2: { packages: ['bzip2'], present: () => onPath('bzip2') },
  restic: { packages: ['restic'], present: () => onPath('restic') },
  borg: { packages: ['borgbackup'], present: () => onPath('borg') },
  clang: { packages: ['clang'], present: () => onPath('clang++') },
  clangFormat: { packages: ['clang-format'], present: () => onPath('clang-format') },
  mingw: {
    packages: ['g++-mingw-w64-x86-64-posix'],
    present: () => onPath('x86_64-w64-mingw32-g++-posix'),
  },
  wine: { packages: ['wine64'], present: () => existsAny('/usr/lib/wine/wine64') },
};

const BUILD = ['compiler', 'cmake', 'generator', 'openssl'];
const TEST = [
  ...BUILD,
  'gtest',
  'qemu',
  'storageDaemon',
  'nbdinfo',
  'sevenZip',
  'vhdi',
  'pyvhdi',
  'ext4',
  'ntfs',
  'bzip2',
];
const MODES = {
  none: BUILD,
  demo: BUILD,
  test: TEST,
  peers: [...BUILD, 'restic', 'borg', 'qemu', 'ext4'],
  fuzz: [...TEST, 'clang'],
  windows: [...TEST, 'mingw', 'wine'],
  package: [...BUILD, 'mingw'],
  ci: [...TEST, 'clang', 'clangFormat'],
};

function onPath(...names) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return names.some((name) => folders.some((folder) => existsSync(join(folder, name))));
}

function existsAny(...paths) {
  return paths.some((path) => existsSync(path));
}

function succeeds(command, ...parameters) {
  return spawnSync(command, parameters, { stdio: 'ignore' }).status === 0;
}

function say(line) {
  process.stderr.write(`setup: ${line}\n`);
}

function stop(...lines) {
  for (const line of lines) say(line);
  process.exit(1);
}

/** Runs a step with its output shown; ends the setup when it fails. */
function run(command, ...parameters) {
  const { status, error } = spawnSync(command, parameters, {
    cwd: ROOT,
    // What a build prints is no result of the command that asked for the setup.
    stdio: ['ignore', process.stderr, process.stderr],
    shell: process.platform === 'win32',
  });
  if (status !== 0)
    stop(`"${[command, ...parameters].join(' ')}" failed${error ? `: ${error.message}` : ''}`);
}

function checkNode() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const [majorMin, minorMin] = NODE_MIN;
  if (major < majorMin || (major === majorMin && minor < minorMin)) {
    stop(`Firn needs Node ${NODE_MIN.join('.')} or later, and this is ${process.versions.node}`);
  }
}

function ensureSystemPackages(names) {
  const missing = names.filter((name) => !TOOLS[name].present());
  if (missing.length === 0) return;
  const packages = missing.flatMap((name) => TOOLS[name].packages);
  const debian = onPath('apt-get') && existsSync('/etc/debian_version');
  if (debian && process.getuid?.() === 0) {
    say(`installing system packages: ${packages.join(' ')}`);
    const apt = ['-o', 'DPkg::Lock::Timeout=300', '-q', '-y'];
    process.env.DEBIAN_FRONTEND = 'noninteractive';
    run('apt-get', ...apt, 'update');
    run('apt-get', ...apt, 'install', '--no-install-recommends', ...packages);
    return;
  }
  const how = debian
    ? `sudo apt-get install ${packages.join(' ')}`
    : `install ${packages.join(', ')} (Debian names)`;
  if (missing.some((name) => TOOLS[name].required)) {
    stop('these tools are missing, and nothing can be built without them:', `  ${how}`);
  }
  say('some tools are missing; what needs them is left out or skipped. To have it all:');
  say(`  ${how}`);
}

function ensureNodeModules() {
  const installed = modified(join(ROOT, 'node_modules/.package-lock.json'));
  if (installed >= modified(join(ROOT, 'package-lock.json'))) return;
  say('installing npm packages');
  run('npm', 'ci', '--no-audit', '--no-fund');
}

function modified(path) {
  return existsSync(path) ? statSync(path).mtimeMs : 0;
}

/** The newest modification of the files below some paths. */
function newest(...paths) {
  let time = 0;
  for (const path of paths.map((each) => join(ROOT, each))) {
    if (!existsSync(path)) continue;
    if (!statSync(path).isDirectory()) {
      time = Math.max(time, modified(path));
      continue;
    }
    for (const entry of readdirSync(path, { recursive: true, withFileTypes: true })) {
      // A folder's own time moves when a file in it is removed.
      time = Math.max(time, modified(join(entry.parentPath ?? entry.path, entry.name)));
    }
  }
  return time;
}

/** Builds a target when it is older than its sources, and marks it as new: a build that had nothing to do leaves it as it was. */
function ensureBuilt(target, script, sources) {
  const path = join(ROOT, target);
  if (modified(path) >= newest(...sources)) return;
  say(`building ${target}`);
  run('npm', 'run', '--silent', script);
  const now = new Date();
  utimesSync(path, now, now);
}

/** Removes from dist/ what has no source any more. Not the whole folder first: somebody may be running it. */
function removeOrphans() {
  for (const entry of readdirSync(join(ROOT, 'dist'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = relative(join(ROOT, 'dist'), path);
    const stem = name.replace(/\.(d\.ts|js|js\.map)$/, '');
    // What is not compiled was copied under its own name.
    if (!existsAny(join(ROOT, 'src', `${stem}.ts`), join(ROOT, 'src', name))) rmSync(path);
  }
}

const mode = process.argv[2] ?? 'none';
if (!Object.hasOwn(MODES, mode)) {
  stop(`expected one of ${Object.keys(MODES).join(', ')} but received "${mode}"`);
}
checkNode();
ensureSystemPackages(MODES[mode]);
ensureNodeModules();
ensureBuilt('dist/cli/main.js', 'build:ts', ['src', 'package-lock.json', 'tsconfig.json']);
removeOrphans();
ensureBuilt('build/Release/firn.node', 'build:native', [
  'native',
  'cmake',
  'CMakeLists.txt',
  'package-lock.json',
]);
