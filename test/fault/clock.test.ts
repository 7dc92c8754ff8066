/**
 * Goal: the whole program works on a computer whose clock jumps by years all the time. Method: every look at the time of day is answered a
 * year ahead or behind (clock.c), under real command lines from the first backup to the last restore; and nothing they say is negative.
 */

import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { firn, jsonLines } from '../helpers/firn.js';
import { suiteFolder } from '../helpers/folder.js';
import { randomContent } from '../helpers/writer.js';

const folder = suiteFolder();
const library = path.join(folder, 'clock.so');
const source = fileURLToPath(new URL('clock.c', import.meta.url));
const compiled = spawnSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, source]);
const canJump = process.platform === 'linux' && compiled.status === 0;

/** Every number anywhere in what a command printed. */
function numbersIn(value: unknown): number[] {
  if (typeof value === 'number') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(numbersIn) : [];
}

describe('a clock that jumps by a year at each look', () => {
  test('loses no point, and makes no rate or duration negative', async ({ skip }) => {
    if (!canJump) skip('clocks are answered for by a library on Linux, made with a C compiler');
    const repository = path.join(folder, 'repository');
    const disk = path.join(folder, 'disk.raw');
    const run = async (...parameters: string[]) => {
      const finished = await firn([...parameters, '--repo', repository, '--json'], {
        env: {
          LD_PRELOAD: library,
          FIRN_PROGRESS: 'always',
          FIRN_STATE: path.join(folder, 'state'),
        },
      });
      expect([parameters[0], finished.status, finished.stderr]).toEqual([parameters[0], 0, '']);
      const lines = jsonLines(finished);
      expect(Math.min(0, ...numbersIn(lines))).toBe(0);
      return lines;
    };
    const clocks = spawnSync(process.execPath, ['-p', '[1,2,3].map(() => Date.now()).join()'], {
      encoding: 'utf8',
      env: { ...process.env, LD_PRELOAD: library },
    })
      .stdout.split(',')
      .map(Number) as [number, number, number];
    expect(Math.max(...clocks) - Math.min(...clocks)).toBeGreaterThan(86_400_000 * 364);

    await run('init');
    const contents = Array.from({ length: 4 }, () => randomContent(400_000));
    for (const content of contents) {
      await writeFile(disk, content);
      await run('backup', disk, '--vm', 'web');
    }
    const listed = await run('list');
    const restored = path.join(folder, 'restored.raw');
    await run('restore', 'latest', '--to', restored);
    expect((await readFile(restored)).subarray(0, 400_000).equals(contents[3] ?? Buffer.of())).toBe(
      true,
    );
    await run('forget', '--keep-last', '2');
    await run('prune');
    await run('verify', '--read-data');
    await run('verify', '--all');
    expect(JSON.stringify(listed).match(/"created"/g)).toHaveLength(4);
    await run('restore', 'latest', '--to', path.join(folder, 'again.raw'));
  }, 300_000);
});
