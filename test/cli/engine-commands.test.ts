/**
 * The commands that need the engine, as a user runs them one after the other: one repository, one VM with two disks that change.
 * What comes back is compared byte by byte with what went in.
 */

import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NativeStats } from '../../src/engine/binding.js';
import { exitError, type Finished, firn, jsonLines } from '../helpers/firn.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 2 ** 20;
const folder = mkdtempSync(join(tmpdir(), 'firn-commands-'));
const at = (...names: string[]) => join(folder, ...names);
const env = { FIRN_REPOSITORY: at('repository') };
const run = (...parameters: string[]) => firn(parameters, { env });
const content = makeContent(6000, 11);
const changed = Buffer.from(content);
changed.fill(0x5a, 5 * MIB, 6 * MIB);

async function ok(...parameters: string[]): Promise<Finished> {
  const finished = await run(...parameters);
  expect(finished.stderr).toBe('');
  expect(finished.status).toBe(0);
  return finished;
}

async function summary(...parameters: string[]): Promise<Record<string, unknown>> {
  const messages = jsonLines(await ok(...parameters, '--json'));
  const last = messages.at(-1) ?? {};
  expect(last.message_type).toBe('summary');
  return last;
}

const hash = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

beforeAll(async () => {
  writeFileSync(at('system.raw'), content);
  writeFileSync(at('data.raw'), makeContent(500, 12));
  await ok('copy', at('system.raw'), at('system.vhdx'));
  await ok('init');
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('firn copy', () => {
  it('makes a VHDX that copies back to the same bytes', async () => {
    const made = await summary('copy', at('system.vhdx'), at('back.raw'));
    expect(made).toMatchObject({ path: at('back.raw'), identity: { format: 'raw' } });
    expect(readFileSync(at('back.raw')).equals(content)).toBe(true);
  });

  it('writes every format that it offers', async () => {
    for (const format of ['vhdx', 'vhdx-fixed', 'vhd', 'raw']) {
      const target = at(`format-${format}`);
      await ok('copy', at('system.raw'), target, '--format', format);
      await ok('copy', target, at('again.raw'), '--force');
      // A VHD's size is rounded to its geometry; what is beyond the content is zero.
      const again = readFileSync(at('again.raw'));
      expect(again.subarray(0, content.length).equals(content), format).toBe(true);
      expect(
        again.subarray(content.length).every((byte) => byte === 0),
        format,
      ).toBe(true);
      rmSync(target);
    }
  });

  it('replaces nothing unless forced, and never its own source', async () => {
    const before = hash(at('system.vhdx'));
    const refused = await run('copy', at('system.raw'), at('system.vhdx'), '--json');
    expect([refused.status, exitError(refused).error.code]).toEqual([2, 'ERR_EXISTS']);
    expect((await run('copy', at('system.vhdx'), at('system.vhdx'), '--force')).status).toBe(2);
    expect(hash(at('system.vhdx'))).toBe(before);
  });
});

describe('firn inspect', () => {
  it('describes a disk in words and as JSON', async () => {
    const { stdout } = await ok('inspect', at('system.vhdx'));
    expect(stdout).toMatch(/^disk {2}.*system\.vhdx$/m);
    expect(stdout).toMatch(/^ {2}format +vhdx, dynamic$/m);
    expect(stdout).toContain(`(${content.length} bytes)`);
    const [document] = jsonLines(await ok('inspect', at('system.vhdx'), '--json'));
    expect(document).toMatchObject({
      layers: [
        { path: at('system.vhdx'), identity: { format: 'vhdx', sizeBytes: content.length } },
      ],
    });
  });

  it('ends with 30 and the reason for a file that breaks its format', async () => {
    const broken = readFileSync(at('system.vhdx'));
    broken.fill(0, 64 * 1024, 192 * 1024); // both headers
    writeFileSync(at('broken.vhdx'), broken);
    const finished = await run('inspect', at('broken.vhdx'), '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([30, 'ERR_DISK_INVALID']);
  });

  it('ends with 10 for a file that is not there', async () => {
    expect((await run('inspect', at('nowhere.vhdx'))).status).toBe(10);
  });
});

describe('firn backup', () => {
  it('makes a point of several disks and gives its account', async () => {
    const made = await summary(
      ...['backup', '--vm', 'web', '--disk', at('system.vhdx'), '-d', at('data.raw')],
    );
    expect(made).toMatchObject({ vm: 'web', dryRun: false, attempts: 1 });
    expect(made.disks).toMatchObject([{ name: 'system' }, { name: 'data' }]);
    const [point] = jsonLines(await ok('show', 'latest:web', '--json'));
    expect(point).toMatchObject({ id: made.point, vm: { name: 'web' } });
  });

  it('stores nothing new for what is there already, whatever kind of image it lies in', async () => {
    const again = await summary('backup', '--vm', 'clone', at('system.raw'));
    expect(again).toMatchObject({ newBytes: 0 });
    const [web] = jsonLines(await ok('show', 'latest:web', '--json')) as [
      { disks: { root: string }[] },
    ];
    const disks = again.disks as { root: string }[];
    expect(disks[0]?.root).toBe(web.disks[0]?.root);
  });

  it('says in words what it did, and where the time went', async () => {
    const { stdout } = await ok('backup', '--vm', 'words', at('data.raw'), '--codec', 'zstd');
    expect(stdout).toMatch(/^point [0-9a-f]{32} of words is sealed$/m);
    expect(stdout).toMatch(
      /^ {2}bottleneck: \w+ \(source \d+% · (scan \d+% · )?hash \d+% · compress \d+% · target \d+%\)$/m,
    );
  });

  it('writes nothing in a dry run, and gives the same content id', async () => {
    const files = () => readdirSync(at('repository'), { recursive: true }).length;
    const before = files();
    const dry = await summary('backup', '--dry-run', at('system.raw'));
    expect(files()).toBe(before);
    expect(dry).toMatchObject({ dryRun: true, point: null });
    const [clone] = jsonLines(await ok('show', 'latest:clone', '--json')) as [
      { disks: { root: string }[] },
    ];
    expect((dry.disks as { root: string }[])[0]?.root).toBe(clone.disks[0]?.root);
  });

  it('reads no faster than --limit says, and names that as the bottleneck', async () => {
    const repository = ['--repo', at('limited')];
    await ok('init', ...repository);
    // So little that the limit, and nothing else that a busy computer does, is what takes the time.
    const source = at('limited-source.raw');
    const few = randomContent(4 * MIB);
    writeFileSync(source, few);
    const limit = ['--limit', '1M', '--json', ...repository];
    const named = async (...parameters: string[]) => {
      const { stats } = (await summary(...parameters, ...limit)) as { stats: NativeStats };
      expect(stats.bottleneck).toBe('limit');
      // The last request, of up to 1 MiB, is not waited for.
      const least = (stats.readBytes - MIB) / MIB;
      expect(stats.elapsedSeconds).toBeGreaterThan(0.95 * least);
      expect(least).toBeGreaterThan(2.5);
    };
    await named('backup', '--disk', source);
    await named('verify', '--read-data');
    await named('restore', 'latest', '--to', at('limited.raw'));
    await named('copy', source, at('limited-copy.raw'));
    expect(readFileSync(at('limited.raw')).equals(few)).toBe(true);
    const refused = await run('verify', '--limit', '1M', '--json', ...repository);
    expect(exitError(refused).error.code).toBe('ERR_INVALID_ARGUMENT');
  });

  it('seals no point when a disk is not there', async () => {
    const count = async () => {
      const [document] = jsonLines(await ok('list', '--json')) as [{ points: unknown[] }];
      return document.points.length;
    };
    const before = await count();
    const finished = await run('backup', at('nowhere.vhdx'), '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([10, 'ERR_NOT_FOUND']);
    expect(exitError(finished).error.path).toBe(at('nowhere.vhdx'));
    expect(await count()).toBe(before);
  });
});

describe('firn restore', () => {
  it('gives back every disk as it was', async () => {
    const made = await summary('restore', 'latest:web', '--to', at('restored'));
    expect(made.disks).toMatchObject([
      { name: 'system', path: at('restored', 'system.vhdx'), identity: { format: 'vhdx' } },
      { name: 'data', path: at('restored', 'data.raw'), identity: { format: 'raw' } },
    ]);
    expect(hash(at('restored', 'data.raw'))).toBe(hash(at('data.raw')));
    await ok('copy', at('restored', 'system.vhdx'), at('restored', 'system.raw'));
    expect(readFileSync(at('restored', 'system.raw')).equals(content)).toBe(true);
  });

  it('takes the format from the name of the file', async () => {
    await ok('restore', 'latest:web', '--disk', 'system', '--to', at('one.raw'));
    expect(readFileSync(at('one.raw')).equals(content)).toBe(true);
  });

  it('replaces nothing unless forced', async () => {
    writeFileSync(at('mine.raw'), 'mine');
    const again = ['restore', 'latest:clone', '--to', at('mine.raw')];
    expect((await run(...again)).status).toBe(2);
    expect(readFileSync(at('mine.raw'), 'utf8')).toBe('mine');
    await ok(...again, '--force');
    expect(readFileSync(at('mine.raw')).equals(content)).toBe(true);
  });

  it('is the same through the reader that needs no engine', async () => {
    await ok('rescue', 'restore', 'latest:web', '--disk', 'system', '--to', at('rescued.raw'));
    expect(readFileSync(at('rescued.raw')).equals(content)).toBe(true);
  });
});

describe('firn verify', () => {
  it('finds nothing wrong', async () => {
    const { stdout } = await ok('verify');
    expect(stdout).toMatch(/^no defects$/m);
    const result = await summary('verify', '--read-data');
    expect(result).toMatchObject({ problemCount: 0 });
    expect(result.packs).toBeGreaterThan(0);
  });

  it('tells the disk that a point was made from, and one that changed since', async () => {
    const same = ['--source', at('system.vhdx'), '--source', at('data.raw')];
    await ok('verify', 'latest:web', ...same);
    writeFileSync(at('changed.raw'), changed);
    const other = ['--source', at('changed.raw'), '--source', at('data.raw')];
    const finished = await run('verify', 'latest:web', ...other, '--json');
    expect([finished.status, exitError(finished).error.code]).toEqual([30, 'ERR_VERIFY_MISMATCH']);
  });
});

describe('firn stats', () => {
  it('counts points, machines and bytes', async () => {
    const [document] = jsonLines(await ok('stats', '--json')) as [Record<string, number>];
    expect(document).toMatchObject({ points: 3, vms: 3 });
    expect(document.dataBytes).toBeGreaterThan(document.rawBytes ?? Number.NaN);
    expect(document.rawBytes).toBeGreaterThan(document.storedBytes ?? Number.NaN);
    expect((await ok('stats')).stdout).toContain('3 of 3 VMs');
  });
});

describe('firn repair index', () => {
  it('makes a lost index again, with which everything is found', async () => {
    for (const name of readdirSync(at('repository', 'index')))
      rmSync(at('repository', 'index', name));
    const missing = await run('verify', '--json');
    expect([missing.status, exitError(missing).error.code]).toEqual([30, 'ERR_CHUNK_MISSING']);
    const repaired = await summary('repair', 'index');
    expect(repaired).toMatchObject({ problemCount: 0 });
    await ok('verify', '--read-data');
    expect(await summary('backup', at('system.raw'))).toMatchObject({ newBytes: 0 });
  });
});

describe('a damaged pack', () => {
  let pack: string;
  let whole: Buffer;

  beforeAll(() => {
    const packs = at('repository', 'packs');
    const all = readdirSync(packs, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.pack'))
      .map((name) => join(packs, name));
    pack = all.sort((a, b) => statSync(b).size - statSync(a).size)[0] ?? '';
    whole = readFileSync(pack);
    copyFileSync(pack, at('pack'));
    const damaged = Buffer.from(whole);
    // Where its table begins. Which disk's chunks lie where is up to the workers, so every page of them is damaged.
    const end = Number(whole.readBigUInt64LE(whole.length - 80));
    for (let at = 2048; at < end; at += 4096) damaged[at] = (whole[at] ?? 0) ^ 0xff;
    writeFileSync(pack, damaged);
  });
  afterAll(() => writeFileSync(pack, whole));

  it('is found by verify --read-data, which names it and the exit code 30', async () => {
    const finished = await run('verify', '--read-data', '--json');
    expect(finished.status).toBe(30);
    const errors = jsonLines(finished).filter((message) => message.message_type === 'error');
    expect(errors.length).toBeGreaterThan(0);
    expect(finished.stderr).toContain('defect');
  });

  it('never becomes a restored disk', async () => {
    const finished = await run(
      'restore',
      'latest:web',
      '--disk',
      'system',
      '--to',
      at('bad.raw'),
      '--json',
    );
    expect(finished.status).toBe(30);
    expect(exitError(finished).error.dataLoss).toBe(true);
    expect(existsSync(at('bad.raw'))).toBe(false);
  });
});
