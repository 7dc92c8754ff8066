/** `firn verify --all` and what `firn stats` says of it, as processes. */

import { on } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { readCheckTimes, recordChecks } from '../../src/repository/checks.js';
import { packFile } from '../../src/repository/format/names.js';
import { isRecordHeader, RECORD_HEADER_BYTES } from '../../src/repository/format/record.js';
import type { Repository } from '../../src/repository/repository.js';
import { flipBit, newRepository } from '../helpers/disks.js';
import { exitError, finish, firn, jsonLines, start } from '../helpers/firn.js';
import { temporaryFolder } from '../helpers/folder.js';
import { randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;

async function withPoints(count: number) {
  const repository = await newRepository();
  const disk = path.join(await temporaryFolder(), 'web.raw');
  for (let i = 0; i < count; i++) {
    await writeFile(disk, randomContent(2 * MIB));
    const made = await firn([
      'backup',
      disk,
      '--vm',
      'web',
      '--codec',
      'raw',
      '-r',
      repository.path,
    ]);
    expect(made.status, made.stderr).toBe(0);
  }
  return { repository, disk };
}

/** Its pack with the most in it: the one with chunks. */
async function largestPack(repository: Repository) {
  const files = (await repository.packs()).map((pack) =>
    path.join(repository.path, packFile(pack)),
  );
  const contents = await Promise.all(files.map((file) => readFile(file)));
  const content = contents.reduce((a, b) => (b.length > a.length ? b : a));
  return { file: files[contents.indexOf(content)] as string, content };
}

/** A place in the content of the first record from `from` on. */
function insideRecord(pack: Buffer, from: number): number {
  const isHeader = (at: number) => isRecordHeader(pack.subarray(at, at + RECORD_HEADER_BYTES));
  let at = from;
  while (!isHeader(at)) at++;
  return at + RECORD_HEADER_BYTES + 1000;
}

describe('firn verify --all', () => {
  test('names damage with what it costs, says when it is healed, and stats counts it', async () => {
    const { repository, disk } = await withPoints(1);
    const before = await firn(['stats', '-r', repository.path]);
    expect(before.stdout).toMatch(/checked +2 never\n/);
    const sound = await firn(['verify', '--all', '--for', '10m', '-r', repository.path]);
    expect(sound.status, sound.stderr).toBe(0);
    expect(sound.stdout).toMatch(/^no defects in 2 packs\n/);
    const after = await firn(['stats', '-r', repository.path]);
    expect(after.stdout).toMatch(/checked +2 within a day\n/);
    expect(after.stdout).not.toContain('damaged');

    const pack = await largestPack(repository);
    await flipBit(pack.file, insideRecord(pack.content, MIB), 0);
    const found = await firn(['verify', '--all', '-r', repository.path]);
    expect(found.status).toBe(30);
    expect(found.stderr).toMatch(
      /ERR_CORRUPT_CHUNK .*\([\d.]+ KiB at \d+ of disk .* in [0-9a-f]{8} of web/,
    );
    expect(found.stderr).toContain('Back the machines up again');
    const json = await firn(['verify', '--all', '--json', '-r', repository.path]);
    expect(exitError(json).error.code).toBe('ERR_CORRUPT_CHUNK');
    const lines = jsonLines(json);
    const errors = lines.filter(({ message_type }) => message_type === 'error');
    expect(
      errors.flatMap(({ error }) => (error as { losses?: object[] }).losses ?? []),
    ).toMatchObject([{ vm: 'web', rangeCount: 1 }]);
    expect(lines.at(-1)).toMatchObject({ message_type: 'summary', packs: 2, packsLeft: 0 });
    const stats = await firn(['stats', '--json', '-r', repository.path]);
    expect(jsonLines(stats)[0]?.checks).toMatchObject({ day: 2, never: 0, damagedPacks: 1 });

    await firn(['backup', disk, '--vm', 'web', '--codec', 'raw', '-r', repository.path]);
    const healed = await firn(['verify', '--read-data', '-r', repository.path]);
    expect(healed.status, healed.stderr).toBe(0);
    expect(healed.stderr).toContain('known and healed: firn prune clears it away');
    expect((await firn(['prune', '-r', repository.path])).status).toBe(0);
    const clean = await firn(['verify', '--all', '-r', repository.path]);
    expect(clean.stderr).not.toContain('healed');
    expect(clean.status).toBe(0);
  });

  test('ends in order when it is interrupted, with what was read noted', async () => {
    const repository = await newRepository();
    const disk = path.join(await temporaryFolder(), 'web.raw');
    for (let i = 0; i < 8; i++) {
      await writeFile(disk, randomContent(MIB / 4));
      await backup(repository, { disks: [disk], vm: 'web' });
    }
    const packBytes = (await largestPack(repository)).content.length;
    // Each pack but the first waits for more than two seconds, so it is not through before long.
    const child = start([
      ...['verify', '--all', '--limit', '100K', '--workers', '1', '--json'],
      ...['--progress', 'always', '-r', repository.path],
    ]);
    const finished = finish(child);
    // A pack counts when it has been read. More than the largest: then all of one was, and is noted.
    for await (const [text] of on(child.stdout as Readable, 'data', { close: ['end'] })) {
      const done = /"doneBytes":(\d+)/.exec(text)?.[1];
      if (Number(done) >= packBytes) break;
    }
    child.kill('SIGINT');
    expect((await finished).status).toBe(130);
    const times = await readCheckTimes(repository);
    const packs = await repository.packs();
    const read = packs.filter((pack) => times.get(pack) !== undefined);
    expect(read.length).toBeGreaterThan(0);
    expect(read.length).toBeLessThan(packs.length);
  });

  test('takes neither points nor --read-data, and --for needs it', async () => {
    const { repository } = await withPoints(1);
    for (const flags of [
      ['--all', 'latest'],
      ['--all', '--read-data'],
      ['--for', '1m'],
      ['--all', '--for', '5'],
    ]) {
      expect((await firn(['verify', ...flags, '-r', repository.path])).status, flags.join()).toBe(
        2,
      );
    }
  });

  test('stats sorts packs by the age of their last reading', async () => {
    const { repository } = await withPoints(2);
    const packs = await repository.packs();
    const times = await readCheckTimes(repository);
    const day = 24 * 3_600_000;
    for (const [index, days] of [0.5, 3, 40].entries()) {
      await recordChecks(repository, times, [packs[index] as string], Date.now() - days * day);
    }
    const stats = await firn(['stats', '--json', '-r', repository.path]);
    const { checks } = jsonLines(stats)[0] as { checks: { oldest: string } };
    expect(checks).toMatchObject({
      never: 1,
      day: 1,
      week: 1,
      month: 0,
      older: 1,
      damagedPacks: 0,
    });
    expect(Date.now() - Date.parse(checks.oldest)).toBeGreaterThan(39 * day);
  });
});
