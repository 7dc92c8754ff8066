/**
 * Checks that all C++ is formatted as .clang-format says; with --write it formats.
 *
 * Without clang-format it says so and passes: who has none of it should still be able to check the rest.
 */

import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDERS = ['native', 'bench/native'];

const files = FOLDERS.flatMap((folder) => {
  try {
    return readdirSync(join(ROOT, folder), { recursive: true }).map((name) =>
      join(ROOT, folder, name),
    );
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
})
  .filter((path) => /\.(cc|h)$/.test(path))
  .map((path) => relative(ROOT, path))
  .sort();

const action = process.argv.includes('--write') ? ['-i'] : ['--dry-run', '-Werror'];
const { status, error } = spawnSync('clang-format', [...action, ...files], {
  cwd: ROOT,
  stdio: 'inherit',
});
if (error?.code === 'ENOENT') {
  console.log('clang-format is not installed: the format of the C++ files was not checked');
} else if (error !== undefined) {
  throw error;
} else {
  if (status === 0) console.log(`clang-format: ${files.length} files`);
  process.exitCode = status ?? 1;
}
