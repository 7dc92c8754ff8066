import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ChunkingObject } from '../../src/repository/format/objects.js';
import {
  decodeLeaf,
  decodeNode,
  decodeRoot,
  encodeLeaf,
  encodeNode,
  encodeRoot,
  type LeafRun,
  type MapNode,
  type MapRoot,
  SEGMENT_PAGES,
} from '../../src/rescue/map.js';
import { codeOf } from '../helpers/errors.js';

const CONTENT: ChunkingObject = { scheme: 'content', minPages: 8, averagePages: 16, maxPages: 64 };
const FIXED: ChunkingObject = { scheme: 'fixed', pages: 16 };
const ID = Buffer.alloc(32, 0xab);

const idArbitrary = fc
  .uint8Array({ minLength: 32, maxLength: 32 })
  .map((bytes) => Buffer.from(bytes));

/** Leaves that the chunker could have made: whole, with chunks under the minimum only before holes. */
const leafArbitrary = fc
  .array(
    fc.record({ hole: fc.boolean(), pages: fc.integer({ min: 8, max: 64 }), id: idArbitrary }),
    {
      minLength: 1,
      maxLength: 60,
    },
  )
  .map((parts) => {
    const leaf: LeafRun[] = [];
    let pages = 0;
    for (const part of parts) {
      const last = leaf.at(-1);
      if (part.hole && last !== undefined && last.id === undefined) last.pages += part.pages;
      else leaf.push(part.hole ? { pages: part.pages } : { pages: part.pages, id: part.id });
      pages += part.pages;
    }
    while (pages > SEGMENT_PAGES - 8) pages -= (leaf.pop() as LeafRun).pages;
    if (leaf.every((run) => run.id === undefined)) {
      leaf.splice(0, leaf.length, { pages: 8, id: ID });
      pages = 8;
    }
    const last = leaf.at(-1) as LeafRun;
    if (last.id === undefined) last.pages += SEGMENT_PAGES - pages;
    else leaf.push({ pages: SEGMENT_PAGES - pages });
    return leaf;
  });

describe('leaves', () => {
  test('come back from their bytes', () => {
    fc.assert(
      fc.property(leafArbitrary, (leaf) => {
        expect(decodeLeaf(encodeLeaf(leaf), CONTENT)).toEqual(leaf);
      }),
    );
  });

  test('bytes that decode at all are the only ones for what they say', () => {
    fc.assert(
      fc.property(leafArbitrary, fc.nat(), fc.nat(255), (leaf, place, value) => {
        const bytes = encodeLeaf(leaf);
        bytes.writeUInt8(value, place % bytes.length);
        let decoded: LeafRun[];
        try {
          decoded = decodeLeaf(bytes, CONTENT);
        } catch {
          return;
        }
        expect(encodeLeaf(decoded).equals(bytes)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  const rest = (pages: number): LeafRun => ({ pages: SEGMENT_PAGES - pages });
  test.each<[string, LeafRun[], ChunkingObject]>([
    ['a sum under 2048', [{ pages: 64, id: ID }, { pages: 100 }], CONTENT],
    ['a sum over 2048', [{ pages: 64, id: ID }, { pages: 2000 }], CONTENT],
    ['an empty hole', [{ pages: 0 }, { pages: 64, id: ID }, rest(64)], CONTENT],
    ['an empty chunk', [{ pages: 0, id: ID }, rest(0)], CONTENT],
    ['two holes side by side', [{ pages: 8, id: ID }, { pages: 40 }, rest(48)], CONTENT],
    ['a chunk over the maximum', [{ pages: 65, id: ID }, rest(65)], CONTENT],
    ['a fixed chunk over its size', [{ pages: 17, id: ID }, rest(17)], FIXED],
    [
      'a short chunk before another',
      [{ pages: 7, id: ID }, { pages: 8, id: ID }, rest(15)],
      CONTENT,
    ],
    ['no chunk', [{ pages: SEGMENT_PAGES }], CONTENT],
    ['no run', [], CONTENT],
  ])('with %s are refused', async (_, leaf, chunking) => {
    expect(await codeOf(() => decodeLeaf(encodeLeaf(leaf), chunking))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('a short chunk may stand before a hole, at the end, and before another in the fixed scheme', () => {
    const lead = SEGMENT_PAGES - 7;
    decodeLeaf(encodeLeaf([{ pages: 7, id: ID }, rest(7)]), CONTENT);
    decodeLeaf(encodeLeaf([{ pages: lead }, { pages: 7, id: ID }]), CONTENT);
    decodeLeaf(encodeLeaf([{ pages: 7, id: ID }, { pages: 16, id: ID }, rest(23)]), FIXED);
  });

  test('bytes left over, bytes missing and reserved bits are refused', async () => {
    const bytes = encodeLeaf([{ pages: 8, id: ID }, rest(8)]);
    const withByte = (value: number, at: number) => {
      const changed = Buffer.from(bytes);
      changed.writeUInt8(value, at);
      return changed;
    };
    const bad = [
      Buffer.concat([bytes, Buffer.alloc(1)]),
      bytes.subarray(0, -1),
      bytes.subarray(0, 5),
      Buffer.alloc(0),
      withByte(0x90, 9),
      withByte(1, 3),
      withByte(0, 2),
      withByte(0x4e, 1),
      withByte(2, 6),
    ];
    for (const each of bad) {
      expect(await codeOf(() => decodeLeaf(each, CONTENT))).toBe('ERR_CORRUPT_OBJECT');
    }
    expect(await codeOf(() => decodeLeaf(withByte(2, 2), CONTENT))).toBe('ERR_VERSION');
  });
});

const nodeArbitrary = fc
  .uniqueArray(fc.nat(255), { minLength: 1, maxLength: 256 })
  .chain((indexes) =>
    fc.tuple(
      fc.constant(indexes.sort((a, b) => a - b)),
      fc.array(fc.tuple(idArbitrary, fc.integer({ min: 1, max: 2048 })), {
        minLength: indexes.length,
        maxLength: indexes.length,
      }),
    ),
  )
  .map(
    ([indexes, rows]): MapNode =>
      indexes.map((index, row) => {
        const [id, dataPages] = rows[row] as [Buffer, number];
        return { index, id, dataPages };
      }),
  );

describe('nodes', () => {
  test('come back from their bytes, and no other bytes say the same', () => {
    fc.assert(
      fc.property(nodeArbitrary, fc.nat(), fc.nat(255), (node, place, value) => {
        const bytes = encodeNode(node);
        expect(decodeNode(bytes)).toEqual(node);
        bytes.writeUInt8(value, place % bytes.length);
        let decoded: MapNode;
        try {
          decoded = decodeNode(bytes);
        } catch {
          return;
        }
        expect(encodeNode(decoded).equals(bytes)).toBe(true);
      }),
    );
  });

  test('with counts that do not agree are refused', async () => {
    const node: MapNode = [{ index: 3, id: ID, dataPages: 5 }];
    const bytes = encodeNode(node);
    const changes: ((copy: Buffer) => void)[] = [
      (copy) => copy.writeUInt16LE(0, 4),
      (copy) => copy.writeUInt16LE(2, 4),
      (copy) => copy.writeUInt16LE(257, 4),
      (copy) => copy.writeUInt8(1, 6),
      (copy) => copy.writeUInt8(0, 8),
      (copy) => copy.writeUInt8(0x0c, 8),
      (copy) => copy.writeUInt32LE(0, copy.length - 4),
      (copy) => copy.writeUInt32LE(2049, copy.length - 4),
    ];
    for (const change of changes) {
      const copy = Buffer.from(bytes);
      change(copy);
      expect(await codeOf(() => decodeNode(copy))).toBe('ERR_CORRUPT_OBJECT');
    }
  });
});

describe('roots', () => {
  const row = (index: number, leaves = 1, dataPages = leaves) => ({
    index,
    leaves,
    id: ID,
    dataPages,
  });

  test('come back from their bytes', () => {
    const root: MapRoot = {
      diskBytes: 64 * 1024 ** 4,
      nodes: [row(0), row(7, 256, 524288), row(32767)],
    };
    expect(decodeRoot(encodeRoot(root))).toEqual(root);
    expect(decodeRoot(encodeRoot({ diskBytes: 0, nodes: [] }))).toEqual({
      diskBytes: 0,
      nodes: [],
    });
  });

  test.each<[string, MapRoot]>([
    ['nodes that do not ascend', { diskBytes: 2 ** 40, nodes: [row(5), row(5)] }],
    ['a node beyond the end', { diskBytes: 2 ** 31, nodes: [row(1)] }],
    ['no leaves', { diskBytes: 4096, nodes: [row(0, 0, 1)] }],
    ['more leaves than a node has', { diskBytes: 4096, nodes: [row(0, 257, 300)] }],
    ['fewer data pages than leaves', { diskBytes: 4096, nodes: [row(0, 2, 1)] }],
    ['more data pages than its leaves hold', { diskBytes: 4096, nodes: [row(0, 1, 2049)] }],
    ['a disk over 64 TiB', { diskBytes: 64 * 1024 ** 4 + 1, nodes: [] }],
  ])('with %s are refused', async (_, root) => {
    expect(await codeOf(() => decodeRoot(encodeRoot(root)))).toBe('ERR_CORRUPT_OBJECT');
  });
});
