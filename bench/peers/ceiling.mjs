/**
 * Builds native programs of bench/native, in a build folder of their own, with the compiler that is
 * there. Installs nothing.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runQuietly } from './measure.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BUILD_FOLDER = join(ROOT, 'build-bench');

/**
 * Brings a program up to date and returns its path, or undefined (with the reason in the log) when
 * it cannot be built.
 *
 * @param {'firn_ceiling' | 'firn_index'} target
 * @param {(line: string) => void} log
 */
export function buildNative(target, log) {
  const options = [
    '-DCMAKE_BUILD_TYPE=Release',
    '-DFIRN_NATIVE_BENCH=ON',
    '-DFIRN_NATIVE_TESTS=OFF',
    '-DFIRN_ADDON=OFF',
  ];
  try {
    log(`building ${target} ...`);
    if (!existsSync(join(BUILD_FOLDER, 'CMakeCache.txt'))) {
      runQuietly('cmake', ['-S', ROOT, '-B', BUILD_FOLDER, ...options]);
    }
    runQuietly('cmake', ['--build', BUILD_FOLDER, '--target', target, '--parallel', '2']);
    return join(BUILD_FOLDER, 'bench/native', target);
  } catch (error) {
    log(`${target} is left out: ${error.message}`);
    return undefined;
  }
}
