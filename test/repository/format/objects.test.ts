import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isDiskName } from '../../../src/repository/format/names.js';
import {
  encodeObject,
  parseCondemned,
  parseConfig,
  parseGeneration,
  parsePoint,
} from '../../../src/repository/format/objects.js';
import { codeOf } from '../../helpers/errors.js';
import { pointFor } from '../../helpers/writer.js';

const CONFIG = {
  type: 'config' as const,
  version: 1,
  repositoryId: 'a'.repeat(32),
  created: '2026-11-22T12:00:00.000Z',
  idKey: 'b'.repeat(64),
  chunking: { scheme: 'content' as const, minPages: 8, averagePages: 16, maxPages: 64 },
};
const POINT = pointFor({ root: 'c'.repeat(64), dataPages: 0, chunks: [], maps: [] }, 4096);
const DISK = POINT.disks[0] as (typeof POINT.disks)[0];

const json = (value: unknown) => Buffer.from(JSON.stringify(value));
const corruptConfig = (changes: object) =>
  codeOf(() => parseConfig(json({ ...CONFIG, ...changes })));
const corruptPoint = (changes: object) =>
  codeOf(() => parsePoint(json({ ...POINT, ...changes }), POINT.id));

describe('config', () => {
  test('is read back with members that this version does not know', () => {
    const parsed = parseConfig(json({ ...CONFIG, later: { a: 1 } }));
    expect(parsed).toEqual({ ...CONFIG, later: { a: 1 } });
  });

  test('a newer version is refused as such', async () => {
    expect(await corruptConfig({ version: 2 })).toBe('ERR_VERSION');
  });

  test('a sealed repository does not tell its key, and any other must', async () => {
    expect(await corruptConfig({ sealed: true })).toBe('ERR_CORRUPT_OBJECT');
    const { idKey, ...without } = CONFIG;
    expect(idKey).toBeDefined();
    const content = (config: object) => Buffer.from(JSON.stringify(config));
    expect(parseConfig(content({ ...without, sealed: true })).sealed).toBe(true);
    expect(await codeOf(() => parseConfig(content(without)))).toBe('ERR_CORRUPT_OBJECT');
  });

  test.each([
    { version: 0 },
    { version: '1' },
    { type: 'point' },
    { repositoryId: 'A'.repeat(32) },
    { repositoryId: 'a'.repeat(31) },
    { created: 'yesterday' },
    { created: '2026-13-45T99:99:99Z' },
    { idKey: 'b'.repeat(63) },
    { idKey: 7 },
    { chunking: null },
    { chunking: [] },
    { chunking: { scheme: 'gear' } },
    { chunking: { scheme: 'fixed', pages: 3 } },
    { chunking: { scheme: 'fixed', pages: 4096 } },
    { chunking: { scheme: 'content', minPages: 0, averagePages: 16, maxPages: 64 } },
    { chunking: { scheme: 'content', minPages: 8, averagePages: 7, maxPages: 64 } },
    { chunking: { scheme: 'content', minPages: 8, averagePages: 16, maxPages: 2049 } },
    { chunking: { scheme: 'content', minPages: 8.5, averagePages: 16, maxPages: 64 } },
    { sealed: 'no' },
  ])('is refused with %j', async (changes) => {
    expect(await corruptConfig(changes)).toBe('ERR_CORRUPT_OBJECT');
  });

  test('is refused without any one of its members', async () => {
    for (const name of Object.keys(CONFIG)) {
      expect(await corruptConfig({ [name]: undefined }), name).toBe('ERR_CORRUPT_OBJECT');
    }
  });
});

describe('point', () => {
  test('is read back as written', () => {
    expect(parsePoint(encodeObject(POINT), POINT.id)).toEqual(POINT);
  });

  test('is refused under another name than its id', async () => {
    const other = 'd'.repeat(32);
    expect(await codeOf(() => parsePoint(encodeObject(POINT), other))).toBe('ERR_CORRUPT_OBJECT');
  });

  test.each([
    { vm: 'web' },
    { vm: { name: '' } },
    { consistency: 'none' },
    { attempt: 65536 },
    { attempt: -1 },
    { run: '..' },
    { disks: {} },
    { disks: [null] },
    { disks: [{ ...DISK, root: 'x'.repeat(64) }] },
    { disks: [{ ...DISK, sizeBytes: 2 ** 53 }] },
    { disks: [{ ...DISK, sizeBytes: -1 }] },
    { disks: [{ ...DISK, name: '../../etc/passwd' }] },
    { disks: [{ ...DISK, name: 'C:\\x' }] },
    { disks: [DISK, { ...DISK, name: 'SYSTEM' }] },
    { disks: [{ ...DISK, identity: { ...DISK.identity, format: 'qcow2' } }] },
    { disks: [{ ...DISK, identity: { ...DISK.identity, logicalSectorBytes: 520 } }] },
    { disks: [{ ...DISK, identity: { ...DISK.identity, diskId: 'x' } }] },
    { disks: [{ ...DISK, base: 'latest' }] },
    { host: 5 },
    { stats: [] },
  ])('is refused with %j', async (changes) => {
    expect(await corruptPoint(changes)).toBe('ERR_CORRUPT_OBJECT');
  });

  const PARTITION = { offset: 0, sizeBytes: 4096, usedBytes: 0, skippedBytes: 0 };
  const UNUSED = {
    quiesced: true,
    keepShadowCopies: true,
    skipPageFiles: true,
    rules: 1,
    skippedBytes: 4096,
    partitions: [{ ...PARTITION, fileSystem: 'ntfs', reasonCode: 'dirty', reason: 'mounted' }],
  };
  const withUnused = (unused: unknown) => ({ disks: [{ ...DISK, unused }] });

  test('says which unused blocks were left out', () => {
    const point = { ...POINT, ...withUnused(UNUSED) };
    expect(parsePoint(json(point), POINT.id)).toEqual(point);
  });

  test('is refused with an account of unused blocks that is none', async () => {
    for (const unused of [
      {},
      { ...UNUSED, quiesced: 'yes' },
      { ...UNUSED, rules: 0 },
      { ...UNUSED, skippedBytes: -1 },
      { ...UNUSED, reason: '' },
      { ...UNUSED, partitions: [{ offset: 0 }] },
      { ...UNUSED, partitions: [{ ...PARTITION, fileSystem: 7 }] },
      { ...UNUSED, partitions: Array(4097).fill(PARTITION) },
    ]) {
      expect(await corruptPoint(withUnused(unused))).toBe('ERR_CORRUPT_OBJECT');
    }
  });

  const CAPTURE = {
    run: 'a'.repeat(32),
    wanted: 'application',
    required: 'crash',
    frozenAt: '2025-01-01T00:00:00.000Z',
    hostKind: 'lab',
    hostVersion: 'lab',
    steps: [],
  };
  const REFERENCE = { name: 'firn-ref-1', method: 'retained checkpoint', disks: { a: { b: [1] } } };

  test('keeps what a host wants to be given back as it is', () => {
    const capture = { ...CAPTURE, reference: REFERENCE };
    const content = json({ ...POINT, capture });
    expect(parsePoint(content, POINT.id).capture?.reference).toEqual(REFERENCE);
  });

  test.each([
    'firn-ref-1',
    null,
    { ...REFERENCE, name: '' },
    { ...REFERENCE, method: 5 },
    { ...REFERENCE, disks: [] },
    { name: 'firn-ref-1', method: 'rct' },
  ])('is refused with the reference %j', async (reference) => {
    expect(await corruptPoint({ capture: { ...CAPTURE, reference } })).toBe('ERR_CORRUPT_OBJECT');
  });

  test('a newer version is refused as such', async () => {
    expect(await corruptPoint({ version: 2 })).toBe('ERR_VERSION');
  });
});

describe('generation and condemned sets', () => {
  test('are read back, and refused where a name is not one', async () => {
    const token = 'e'.repeat(32);
    expect(parseGeneration(json({ type: 'generation', token })).token).toBe(token);
    const packs = [`${token}/0000-00000001`];
    expect(parseCondemned(json({ type: 'condemned', id: token, packs }), token).packs).toEqual(
      packs,
    );
    for (const bad of ['../x', `${token}/0-1`, `${token}/0000-00000001.pack`, 5]) {
      const object = json({ type: 'condemned', id: token, packs: [bad] });
      expect(await codeOf(() => parseCondemned(object, token))).toBe('ERR_CORRUPT_OBJECT');
    }
  });
});

describe('hostile objects', () => {
  test('no JSON makes a parser fail in another way than with its codes', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        const bytes = json(value);
        for (const parse of [parseConfig, parseGeneration]) {
          expect(await codeOf(() => parse(bytes))).toBe('ERR_CORRUPT_OBJECT');
        }
        expect(await codeOf(() => parsePoint(bytes, POINT.id))).toBe('ERR_CORRUPT_OBJECT');
      }),
    );
  });

  test('bytes that are not UTF-8, or not JSON, are refused', async () => {
    for (const bytes of [Buffer.from([0xff, 0xfe]), Buffer.from('{'), Buffer.alloc(0)]) {
      expect(await codeOf(() => parseConfig(bytes))).toBe('ERR_CORRUPT_OBJECT');
    }
  });
});

describe('disk names', () => {
  test.each(['system', 'Daten 2', 'größe', 'disk.1', 'a'.repeat(128)])(
    '"%s" may be one',
    (name) => {
      expect(isDiskName(name)).toBe(true);
    },
  );
  test.each([
    '',
    '.',
    '..',
    'a/b',
    'a\\b',
    'a:b',
    'a\0b',
    'a\nb',
    'a ',
    'a.',
    'a*',
    'a'.repeat(129),
  ])('%j may not', (name) => {
    expect(isDiskName(name)).toBe(false);
  });
});
