import { rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  encodeObject,
  type LabelObject,
  parseLabel,
  parsePoint,
} from '../../../src/repository/format/objects.js';
import { newRepository } from '../../helpers/disks.js';
import { codeOf } from '../../helpers/errors.js';
import { pointFor } from '../../helpers/writer.js';

const POINT = pointFor({ root: 'c'.repeat(64), dataPages: 0, chunks: [], maps: [] }, 4096);
const LABEL: LabelObject = {
  type: 'label',
  version: 1,
  id: 'a'.repeat(32),
  point: 'b'.repeat(32),
  created: '2026-11-22T12:00:00.000Z',
  host: 'backup1',
  kind: 'tag',
  tag: 'release',
};
const NAME = `${'b'.repeat(32)}-${'a'.repeat(32)}`;

const json = (value: unknown) => Buffer.from(JSON.stringify(value));

describe('a label', () => {
  test('is read back as written, with members that this version does not know', () => {
    expect(parseLabel(encodeObject(LABEL), NAME)).toEqual(LABEL);
    expect(parseLabel(json({ ...LABEL, later: 1 }), NAME)).toEqual({ ...LABEL, later: 1 });
  });

  test('is refused under another name than its point and id', async () => {
    for (const name of [`${'a'.repeat(32)}-${'b'.repeat(32)}`, 'b'.repeat(32), '']) {
      expect(await codeOf(() => parseLabel(encodeObject(LABEL), name))).toBe('ERR_CORRUPT_OBJECT');
    }
  });

  test.each([
    { type: 'point' },
    { version: 0 },
    { id: 7 },
    { created: 'yesterday' },
    { host: '' },
    { kind: 'pin' },
    { tag: undefined },
    { tag: 'a,b' },
    { tag: ' a' },
    { tag: 'x'.repeat(129) },
    { kind: 'hold', reason: '' },
    { kind: 'hold', reason: 7 },
  ])('is refused with %j', async (changes) => {
    const content = json({ ...LABEL, ...changes });
    expect(await codeOf(() => parseLabel(content, NAME))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('of a newer version is refused as such', async () => {
    const content = json({ ...LABEL, version: 2, kind: 'pin' });
    expect(await codeOf(() => parseLabel(content, NAME))).toBe('ERR_VERSION');
  });

  test('is written and listed also where its folder is not there yet', async () => {
    const repository = await newRepository();
    await rm(path.join(repository.path, 'labels'), { recursive: true });
    expect(await repository.labels()).toEqual([]);
    await repository.writeLabel(LABEL);
    expect(await repository.labels()).toEqual([NAME]);
    expect(await repository.readLabel(NAME)).toEqual(LABEL);
    expect(await repository.objects()).toContain(`labels/${NAME}`);
  });
});

describe('the tags of a point', () => {
  const withTags = (tags: unknown) => parsePoint(json({ ...POINT, tags }), POINT.id);

  test('are read back as written', () => {
    expect(withTags(['release', 'vor dem Umbau']).tags).toEqual(['release', 'vor dem Umbau']);
    expect(withTags([]).tags).toEqual([]);
  });

  test.each([
    ['release'],
    [['']],
    [['a', 'a']],
    [['a,b']],
    [['a\u0000']],
    [[7]],
    [Array.from({ length: 65 }, (_, index) => `${index}`)],
  ])('are refused as %j', async (tags) => {
    expect(await codeOf(() => withTags(tags))).toBe('ERR_CORRUPT_OBJECT');
  });
});
