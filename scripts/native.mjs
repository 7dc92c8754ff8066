/**
 * What the scripts share: the native code built by CMake, its tests run by CTest, and the sum that a run of tests ends with.
 *
 * Nothing here throws for a build or a test that fails: each function says so, and the script decides what that means.
 */

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
const JOBS = ['--parallel', String(availableParallelism())];

/** The exit code of a program whose output is shown; 1 if it could not be started or was killed. */
export function run(command, ...parameters) {
  return spawnSync(command, parameters, { cwd: ROOT, stdio: 'inherit' }).status ?? 1;
}

/** Configures and builds in a folder: by Ninja where it is installed. Whether that worked. */
export function build(folder, settings, ...targets) {
  const fresh = !existsSync(join(folder, 'CMakeCache.txt'));
  const ninja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0;
  const generator = fresh && ninja ? ['-G', 'Ninja'] : [];
  const chosen = targets.length > 0 ? ['--target', ...targets] : [];
  return (
    run('cmake', '-S', '.', '-B', folder, ...generator, ...settings, '-Wno-dev') === 0 &&
    run('cmake', '--build', folder, ...JOBS, ...chosen) === 0
  );
}

/** The tests of a run, and the line that it ends with. */
export class Sum {
  passed = 0;
  failed = 0;
  skipped = 0;
  /** The names of what was skipped. */
  names = [];

  /** What could not run counts as one failure: nothing may look green because nothing was tried. */
  couldNot(what) {
    console.error(`failed: ${what}`);
    this.failed += 1;
  }

  /** Prints the last line, and makes it the exit code. */
  end() {
    if (this.names.length > 0)
      console.log(`\nSkipped:\n${this.names.map((name) => `  ${name}`).join('\n')}`);
    console.log(`\n${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped`);
    process.exitCode = this.failed > 0 ? 1 : 0;
  }
}

/**
 * Runs the native tests of a built folder and adds them to a sum. On a terminal one line is rewritten; elsewhere only what failed and
 * CTest's summary are shown.
 */
export function ctest(sum, folder, parameters = [], env = process.env) {
  const report = join(folder, 'ctest.xml');
  rmSync(report, { force: true });
  const all = ['--test-dir', folder, ...JOBS, '--output-on-failure', '--output-junit', report];
  const status = runCtest([...all, ...parameters], env);
  const text = existsSync(report) ? readFileSync(report, 'utf8') : '';
  const suite = /<testsuite\b[^>]*>/.exec(text)?.[0] ?? '';
  const count = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
  const failed = count('failures');
  const skipped = count('skipped') + count('disabled');
  sum.passed += count('tests') - failed - skipped;
  sum.failed += failed;
  sum.skipped += skipped;
  for (const [, name] of text.matchAll(
    /<testcase name="([^"]*)"[^>]*status="(?:notrun|disabled)"/g,
  )) {
    // GoogleTest adds the bytes of a test's parameter to its name.
    sum.names.push(name.replace(/ +# GetParam.*/, ''));
  }
  if (count('tests') === 0) sum.couldNot('no native test ran');
  else if (status !== 0 && failed === 0) sum.couldNot(`ctest ended with ${status}`);
}

function runCtest(parameters, env) {
  if (process.stdout.isTTY) {
    const options = { cwd: ROOT, env, stdio: 'inherit' };
    return spawnSync('ctest', ['--progress', ...parameters], options).status ?? 1;
  }
  const { status, stdout } = spawnSync('ctest', parameters, {
    cwd: ROOT,
    encoding: 'utf8',
    env,
    maxBuffer: 1024 ** 3,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const worth = (line) =>
    !/^ +Start +\d+: |^ *\d+\/\d+ Test +#\d+: .* Passed +[\d.]+ sec$/.test(line);
  process.stdout.write(`${(stdout ?? '').split('\n').filter(worth).join('\n')}\n`);
  return status ?? 1;
}
