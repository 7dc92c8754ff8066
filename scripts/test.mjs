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

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { build, ctest, ROOT, run, Sum } from './native.mjs';

const [only, ...rest] = process.argv.slice(2);
const sum = new Sum();

function native(sanitizers = '', chosen = undefined) {
  // Each set of sanitizers has a build of its own.
  const folder = join(ROOT, `build-test${sanitizers && `-${sanitizers.replaceAll(',', '-')}`}`);
  // Debug, as that keeps the assertions; lightly optimised, as some tests go through millions of cases.
  const settings = ['-DCMAKE_BUILD_TYPE=Debug', '-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1'];
  // The kernels in C have -O3 of their own, but not under a sanitizer.
  if (sanitizers) settings.push(`-DFIRN_SANITIZE=${sanitizers}`, '-DCMAKE_C_FLAGS_DEBUG=-O1');
  // What runs on one thread has nothing to tell there.
  if (sanitizers === 'thread')
    settings.push('-DFIRN_TEST_FOLDERS=bench;codec;index;io;pack;pipeline;stream');
  if (!build(folder, settings)) return sum.couldNot('the native tests did not build');
  ctest(sum, folder, chosen === undefined ? [] : ['-R', chosen]);
}

function javascript(files) {
  const reports = mkdtempSync(join(tmpdir(), 'firn-test-'));
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
  const result = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : undefined;
  rmSync(reports, { recursive: true });
  if (result === undefined) return sum.couldNot('vitest made no report');
  sum.passed += result.numPassedTests;
  sum.failed += result.numFailedTests;
  sum.skipped += result.numPendingTests + result.numTodoTests;
  for (const file of result.testResults) {
    // A file that fails outside of its tests (an import, a hook) has no failed test to count.
    const broken =
      file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed');
    if (broken) sum.couldNot(`${file.name}: ${file.message}`);
    for (const test of file.assertionResults) {
      if (test.status !== 'passed' && test.status !== 'failed') sum.names.push(test.fullName);
    }
  }
  const took = ({ startTime, endTime }) => Math.round((endTime - startTime) / 1000);
  const slowest = result.testResults.toSorted((a, b) => took(b) - took(a)).slice(0, 10);
  const name = (file) => relative(ROOT, file.name);
  console.log(`Slowest:\n${slowest.map((file) => `  ${took(file)} s  ${name(file)}`).join('\n')}`);
  if (result.numTotalTests === 0) sum.couldNot('no TypeScript test ran');
  else if (status !== 0 && sum.failed === 0) sum.couldNot(`vitest ended with ${status}`);
}

if (only === undefined || only === 'native') native(...(only === 'native' ? rest : []));
if (only === undefined || only === 'js') javascript(only === 'js' ? rest : []);
sum.end();
