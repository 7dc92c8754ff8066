/**
 * Runs every test: the native suite (without Node, in build-test), then the TypeScript suite. The last line is the sum:
 *
 *   N passed, N failed, N skipped
 *
 *   node scripts/test.mjs js [FILE...]          the TypeScript suite alone, or those files of it
 *   node scripts/test.mjs native [SANITIZERS [REGEX]]   the native suite alone, for example with address,undefined; or those tests of it
 *
 * The exit code is nonzero when a test failed, when a suite could not be built or started, or when there were no tests at all.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const [only, ...rest] = process.argv.slice(2);
const sanitizers = only === 'native' ? (rest[0] ?? '') : '';
const chosen = only === 'native' ? rest[1] : undefined;
const files = only === 'js' ? rest : [];
// Each set of sanitizers has a build of its own.
const BUILD = join(ROOT, `build-test${sanitizers && `-${sanitizers.replaceAll(',', '-')}`}`);
const reports = mkdtempSync(join(tmpdir(), 'firn-test-'));
const sum = { passed: 0, failed: 0, skipped: 0 };
const skipped = [];

function run(command, ...parameters) {
  return spawnSync(command, parameters, { cwd: ROOT, stdio: 'inherit' }).status ?? 1;
}

/** A suite that could not run counts as one failure: nothing may look green because nothing was tried. */
function couldNot(what) {
  console.error(`test: ${what}`);
  sum.failed += 1;
}

function buildNative() {
  const fresh = !existsSync(join(BUILD, 'CMakeCache.txt'));
  const ninja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0;
  const generator = fresh && ninja ? ['-G', 'Ninja'] : [];
  // Debug, as that keeps the assertions; lightly optimised, as some tests go through millions of cases.
  const flags = ['-DCMAKE_BUILD_TYPE=Debug', '-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1'];
  // The kernels in C have -O3 of their own, but not under a sanitizer.
  if (sanitizers) flags.push(`-DFIRN_SANITIZE=${sanitizers}`, '-DCMAKE_C_FLAGS_DEBUG=-O1');
  // What runs on one thread has nothing to tell there.
  if (sanitizers === 'thread')
    flags.push('-DFIRN_TEST_FOLDERS=bench;codec;index;io;pack;pipeline;stream');
  return (
    run('cmake', '-S', '.', '-B', BUILD, ...generator, ...flags, '-Wno-dev') === 0 &&
    run('cmake', '--build', BUILD, '--parallel', String(availableParallelism())) === 0
  );
}

/** On a terminal one line that is rewritten; elsewhere what failed, and the sum, without a line for each test that passed. */
function ctest(report) {
  const parameters = ['--test-dir', BUILD, '--parallel', String(availableParallelism())];
  parameters.push('--output-on-failure', '--output-junit', report);
  if (chosen !== undefined) parameters.push('-R', chosen);
  if (process.stdout.isTTY) return run('ctest', '--progress', ...parameters);
  const { status, stdout } = spawnSync('ctest', parameters, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1024 * 1024 * 1024,
  });
  const worth = (line) =>
    !/^ +Start +\d+: |^ *\d+\/\d+ Test +#\d+: .* Passed +[\d.]+ sec$/.test(line);
  process.stdout.write(`${(stdout ?? '').split('\n').filter(worth).join('\n')}\n`);
  return status ?? 1;
}

function native() {
  if (!buildNative()) return couldNot('the native tests did not build');
  const report = join(reports, 'native.xml');
  const status = ctest(report);
  const text = existsSync(report) ? readFileSync(report, 'utf8') : '';
  const suite = /<testsuite\b[^>]*>/.exec(text)?.[0] ?? '';
  const count = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
  const [tests, failed, missed] = [
    count('tests'),
    count('failures'),
    count('skipped') + count('disabled'),
  ];
  sum.passed += tests - failed - missed;
  sum.failed += failed;
  sum.skipped += missed;
  for (const [, name] of text.matchAll(
    /<testcase name="([^"]*)"[^>]*status="(?:notrun|disabled)"/g,
  )) {
    // GoogleTest adds the bytes of a test's parameter to its name.
    skipped.push(name.replace(/ +# GetParam.*/, ''));
  }
  if (tests === 0) couldNot('no native test ran');
  else if (status !== 0 && failed === 0) couldNot(`ctest ended with ${status}`);
}

function javascript() {
  const report = join(reports, 'vitest.json');
  const status = run(
    process.execPath,
    join(ROOT, 'node_modules/vitest/vitest.mjs'),
    'run',
    ...files,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  );
  if (!existsSync(report)) return couldNot('vitest made no report');
  const result = JSON.parse(readFileSync(report, 'utf8'));
  sum.passed += result.numPassedTests;
  sum.failed += result.numFailedTests;
  sum.skipped += result.numPendingTests + result.numTodoTests;
  for (const file of result.testResults) {
    // A file that fails outside of its tests (an import, a hook) has no failed test to count.
    const broken =
      file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed');
    if (broken) couldNot(`${file.name}: ${file.message}`);
    for (const test of file.assertionResults) {
      if (test.status !== 'passed' && test.status !== 'failed') skipped.push(test.fullName);
    }
  }
  const took = ({ startTime, endTime }) => Math.round((endTime - startTime) / 1000);
  const slowest = result.testResults.toSorted((a, b) => took(b) - took(a)).slice(0, 10);
  const name = (file) => relative(ROOT, file.name);
  console.log(`Slowest:\n${slowest.map((file) => `  ${took(file)} s  ${name(file)}`).join('\n')}`);
  if (result.numTotalTests === 0) couldNot('no TypeScript test ran');
  else if (status !== 0 && sum.failed === 0) couldNot(`vitest ended with ${status}`);
}

if (only === undefined || only === 'native') native();
if (only === undefined || only === 'js') javascript();
rmSync(reports, { recursive: true, force: true });
if (skipped.length > 0) console.log(`\nSkipped:\n${skipped.map((name) => `  ${name}`).join('\n')}`);
console.log(`\n${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`);
process.exitCode = sum.failed > 0 ? 1 : 0;
