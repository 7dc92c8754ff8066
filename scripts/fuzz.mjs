/**
 * Fuzzes what Firn reads of others: builds the libFuzzer targets of native/fuzz with Clang, AddressSanitizer and
 * UndefinedBehaviorSanitizer, makes their seeds, and gives each target the same time, as many at once as there are processors. The last line
 * is the sum over all targets:
 *
 *   N passed, N failed, N skipped
 *
 *   node scripts/fuzz.mjs [--seconds N] [TARGET...]     by default 12 seconds for each of all targets
 *
 * A crash, an allocation of more than 256 MiB, more than 1 GiB in use, or an input that takes longer than 20 seconds is a finding: its
 * input lies in build-fuzz/findings/TARGET, and the exit code is nonzero. What was learnt stays in build-fuzz/corpus, where the next
 * run goes on. Findings become tests by a copy into native/fuzz/findings/TARGET (native/fuzz/findings_test.cc).
 */

import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { build, ROOT, run } from './native.mjs';

const BUILD = process.env.FIRN_FUZZ_BUILD ?? join(ROOT, 'build-fuzz');
const SAMPLES = process.env.FIRN_SAMPLES ?? join(ROOT, '../shared/data/vhdx');
const STDERR_MAX = 2 ** 20;
const LIMITS = ['-rss_limit_mb=1024', '-malloc_limit_mb=256', '-timeout=20', '-max_len=65536'];

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '12' } },
  allowPositionals: true,
});
const seconds = Number(values.seconds);
if (!Number.isInteger(seconds) || seconds < 1) {
  console.error(`fuzz: --seconds takes a whole number from 1 but received "${values.seconds}"`);
  process.exit(2);
}

function allTargets() {
  const text = readFileSync(join(ROOT, 'native/fuzz/CMakeLists.txt'), 'utf8');
  return /set\(FIRN_FUZZ_TARGETS ([^)]*)\)/.exec(text)[1].trim().split(/\s+/);
}

/** Nothing was fuzzed, which counts as one failure. */
function stop(why) {
  console.error(`fuzz: ${why}`);
  console.log('0 passed, 1 failed, 0 skipped');
  process.exit(1);
}

function buildTargets() {
  const settings = ['-DCMAKE_BUILD_TYPE=Debug', '-DCMAKE_C_FLAGS_DEBUG=-O1'];
  settings.push('-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1', '-DFIRN_SANITIZE=address,undefined');
  settings.push('-DCMAKE_C_COMPILER=clang', '-DCMAKE_CXX_COMPILER=clang++');
  settings.push('-DFIRN_FUZZ=ON', '-DFIRN_NATIVE_TESTS=OFF');
  if (!build(BUILD, settings)) stop('the targets did not build');
}

/** Seeds from the tests' builders and the samples, and those in the repository. */
function seed(targets) {
  const samples = existsSync(SAMPLES)
    ? readdirSync(SAMPLES).filter((name) => /\.vhdx?\.(gz|bz2)$/.test(name))
    : [];
  const seeds = join(BUILD, 'seeds');
  const images = samples.map((name) => join(SAMPLES, name));
  if (run(join(BUILD, 'native/fuzz/fuzz_seeds'), seeds, ...images) !== 0)
    stop('no seeds were made');
  for (const kind of ['seeds', 'findings']) {
    for (const target of targets) {
      const committed = join(ROOT, 'native/fuzz', kind, target);
      if (existsSync(committed)) cpSync(committed, join(seeds, target), { recursive: true });
    }
  }
}

/** The exit code of a program, and the end of what it said on standard error. */
function outcomeOf(command, parameters) {
  return new Promise((resolve) => {
    let stderr = '';
    const child = spawn(command, parameters, { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr = (stderr + text).slice(-STDERR_MAX);
    });
    child.on('error', (error) => resolve({ status: null, stderr: String(error) }));
    child.on('close', (status) => resolve({ status, stderr }));
  });
}

/** Runs a target for its time and resolves with what it did: executions, coverage, and whether nothing was found. */
async function fuzz(target) {
  const corpus = join(BUILD, 'corpus', target);
  const findings = join(BUILD, 'findings', target);
  for (const folder of [corpus, findings]) mkdirSync(folder, { recursive: true });
  const folders = [corpus, join(BUILD, 'seeds', target)].filter((folder) => existsSync(folder));
  const { status, stderr } = await outcomeOf('nice', [
    '-n',
    '10',
    join(BUILD, `native/fuzz/fuzz_${target}`),
    `-max_total_time=${seconds}`,
    ...LIMITS,
    '-print_final_stats=1',
    `-artifact_prefix=${findings}/`,
    ...folders,
  ]);
  const number = (pattern) => Number([...stderr.matchAll(pattern)].at(-1)?.[1] ?? 0);
  const executions = number(/^stat::number_of_executed_units: +(\d+)$/gm);
  const edges = number(/\bcov: (\d+)/g);
  const peak = number(/^stat::peak_rss_mb: +(\d+)$/gm);
  const ok = status === 0 && executions > 0;
  if (!ok) console.log(stderr.split('\n').slice(-60).join('\n'));
  return { target, executions, edges, peak, ok };
}

const targets = positionals.length > 0 ? positionals : allTargets();
const unknown = targets.filter((target) => !allTargets().includes(target));
if (unknown.length > 0) {
  console.error(
    `fuzz: no target is named ${unknown.join(', ')}; there are ${allTargets().join(', ')}`,
  );
  process.exit(2);
}
if (spawnSync('clang++', ['--version'], { stdio: 'ignore' }).status !== 0) {
  console.log('Clang, which libFuzzer comes with, is not installed: nothing is fuzzed');
  console.log(`0 passed, 0 failed, ${targets.length} skipped`);
  process.exit(0);
}
buildTargets();
seed(targets);
const results = [];
const waiting = [...targets];
async function fuzzWaiting() {
  for (let target = waiting.shift(); target !== undefined; target = waiting.shift()) {
    const result = await fuzz(target);
    const count = result.executions.toLocaleString('en');
    console.log(
      `${result.ok ? 'ok  ' : 'FAIL'} ${target.padEnd(8)} ${count.padStart(12)} executions, ${result.edges} edges, ${result.peak} MiB at most`,
    );
    results.push(result);
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, fuzzWaiting));
const executed = results.reduce((sum, result) => sum + result.executions, 0);
const failed = results.filter((result) => !result.ok).length;
console.log(
  `\n${executed.toLocaleString('en')} executions in ${results.length} targets of ${seconds} s`,
);
console.log(`${results.length - failed} passed, ${failed} failed, 0 skipped`);
process.exitCode = failed > 0 ? 1 : 0;
