/**
 * Firn for Windows, on another system: built by mingw-w64, run in Wine. The last line of a test is the sum:
 *
 *   N passed, N failed, N skipped
 *
 *   node scripts/windows.mjs test             builds, then runs the native tests, test/windows and test/package
 *   node scripts/windows.mjs build            the addon for Windows alone, into build-windows/firn.node
 *   node scripts/windows.mjs native [REGEX]   the native tests alone, or those whose names match
 *   node scripts/windows.mjs node ARGS...     node.exe
 *
 * The system packages come from "node scripts/setup.mjs windows"; the rest is made when it is missing (scripts/windows-tools.mjs).
 */

import { spawnSync } from 'node:child_process';
import { build, ctest, ROOT, Sum } from './native.mjs';
import {
  BUILD,
  ensureWindows,
  installLibraries,
  keepServer,
  keepTemporaryFilesInMemory,
  windowsNode,
  wineEnvironment,
} from './windows-tools.mjs';

/**
 * Whose tests are built for Windows. The others compute, which they do alike wherever they run (chunk, bench), or take their referees
 * from programs that Wine has none of (used).
 */
const TEST_FOLDERS = ['core', 'io', 'disk', 'codec', 'pack', 'index', 'pipeline', 'stream'];
/** What is not run in Wine, as regular expressions of test names, each with the reason. */
const LEFT_OUT = [
  // Wine can't be asked for the holes of a file. So these read gigabytes of them, or count what should not have been read.
  'BackupRestoreTest\\.(HugeSparseDisks|LittleMemory)',
  'VhdxWriter\\.MakesASmallFileOfAnEmpty64TiBDisk',
  '^UnusedTest\\.Wh',
  '^ScrubJobTest\\.(ATraceOfALost|Cancelling)',
  // They remove files that they have mapped, whose names Windows keeps until they are closed.
  '^CollectTest\\.(MergedRuns|AMergedRun)',
  '^SealedTest\\.CollectionSeals',
  // Each goes through hundreds of cases with files that are made, synced and renamed: minutes at Wine's pace.
  '^HostileTest\\.',
  'EveryFlippedBit',
  '^VerifyJobTest\\.NoBitOf',
  '^PackWriterTest\\.WhereverItFails',
  'IncrementalTest\\.',
  'HistoryTest\\.',
  'MovingMaskTest\\.',
  '^CancelTest\\.',
  'FaultTest\\.',
  '^CollectTest\\.ARescueThatFails',
];
/** What holds where the system's own virtdisk.dll is that of Wine: run by itself, without the stand-in for it. */
const WITHOUT_STAND_IN = '^VirtDiskWithoutDriverTest\\.';
/** A test's limit in seconds. On a busy machine the longest takes ten times what it takes alone. */
const SECONDS_MAX = 300;

/** Debug, as that keeps the assertions; lightly optimised, as Wine is slow enough. */
const SETTINGS = [
  '--toolchain',
  'cmake/mingw-w64-x86_64.cmake',
  '-Wno-deprecated',
  '-DCMAKE_BUILD_TYPE=Debug',
  '-DCMAKE_CXX_FLAGS_DEBUG=-O1',
  '-DFIRN_ADDON=ON',
  `-DFIRN_TEST_FOLDERS=${TEST_FOLDERS.join(';')}`,
];

const sum = new Sum();

function native(regex) {
  if (!build(BUILD, SETTINGS, 'firn_tests', 'virtdisk_stand_in'))
    return sum.couldNot('the native tests did not build');
  installLibraries();
  if (regex !== undefined) return runNative(['-R', regex], wineEnvironment());
  runNative(['-E', [...LEFT_OUT, WITHOUT_STAND_IN].join('|')], wineEnvironment());
  runNative(['-R', WITHOUT_STAND_IN], wineEnvironment({ standIn: false }));
}

function runNative(chosen, env) {
  ctest(sum, BUILD, ['--timeout', String(SECONDS_MAX), ...chosen], env);
}

/** The TypeScript tests of this system that drive Windows' Node, and hold what both make against each other. */
function across() {
  if (!build(BUILD, SETTINGS, 'firn')) return sum.couldNot('the addon did not build');
  const { status, stdout } = spawnSync(
    process.execPath,
    ['scripts/test.mjs', 'js', 'test/windows', 'test/package'],
    {
      cwd: ROOT,
      encoding: 'utf8',
      env: { ...process.env, FIRN_WINDOWS: '1' },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  process.stdout.write(stdout ?? '');
  const counts = /^(\d+) passed, (\d+) failed, (\d+) skipped$/m.exec(stdout ?? '');
  if (counts === null) return sum.couldNot('the tests of node.exe did not run');
  sum.passed += Number(counts[1]);
  sum.failed += Number(counts[2]);
  sum.skipped += Number(counts[3]);
  if (status !== 0 && Number(counts[2]) === 0)
    sum.couldNot(`the tests of node.exe ended with ${status}`);
}

const [command = 'test', ...rest] = process.argv.slice(2);
const commands = ['test', 'build', 'native', 'node'];
if (!commands.includes(command)) {
  console.error(`windows: expected one of ${commands.join(', ')} but received "${command}"`);
  process.exit(2);
}
if (command === 'build') process.exit(build(BUILD, SETTINGS, 'firn') ? 0 : 1);
ensureWindows();
if (command === 'node') {
  const { status, stdout, stderr } = windowsNode(rest);
  process.stdout.write(stdout);
  process.stderr.write(stderr);
  process.exit(status ?? 1);
}
const temporaryFiles = keepTemporaryFilesInMemory();
const server = keepServer();
try {
  native(command === 'native' ? rest[0] : undefined);
  if (command === 'test') across();
} finally {
  server.stop();
  temporaryFiles.remove();
}
sum.end();
