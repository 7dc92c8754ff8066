/**
 * Builds the native program that measures the hardware ceiling (bench/native/ceiling.cc), in a
 * build folder of its own, with the compiler that is there. Installs nothing.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runQuietly } from './measure.mjs';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BUILD_FOLDER = join(ROOT, 'build-bench');
const PROGRAM = join(BUILD_FOLDER, 'bench/native/firn_ceiling');

/**
 * Brings the program up to date and returns its path, or undefined (with the reason in the log)
 * when it cannot be built.
 *
 * @param {(line: string) => void} log
 */
export function buildCeiling(log) {
  const options = [
    '-DCMAKE_BUILD_TYPE=Release',
    '-DFIRN_NATIVE_BENCH=ON',
    '-DFIRN_NATIVE_TESTS=OFF',
    '-DFIRN_ADDON=OFF',
  ];
  try {
    log('building firn_ceiling ...');
    if (!existsSync(join(BUILD_FOLDER, 'CMakeCache.txt'))) {
      runQuietly('cmake', ['-S', ROOT, '-B', BUILD_FOLDER, ...options]);
    }
    runQuietly('cmake', ['--build', BUILD_FOLDER, '--target', 'firn_ceiling', '--parallel', '2']);
    return PROGRAM;
  } catch (error) {
    log(`the ceiling is left out: ${error.message}`);
    return undefined;
  }
}
