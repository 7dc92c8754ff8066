/**
 * A second writer of the format, after docs/repository-format.md alone: chunks a disk, makes its map, writes packs.
 *
 * Small and slow, and independent of the engine: what it writes the engine must read, and what the engine writes must have the same ids.
 */

import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { crc32c } from '../../src/crc32c.js';
import { blake3, type RepositoryKeys } from '../../src/repository/format/keys.js';
import { newId, packFile } from '../../src/repository/format/names.js';
import type { ChunkingObject, PointObject } from '../../src/repository/format/objects.js';
import { encodeRecord } from '../../src/repository/format/record.js';
import type { Repository } from '../../src/repository/repository.js';
import {
  encodeLeaf,
  encodeNode,
  encodeRoot,
  type LeafRun,
  type MapRoot,
  NODE_LEAVES,
  PAGE_BYTES,
  SEGMENT_BYTES,
} from '../../src/rescue/map.js';
import { segmentRuns } from './chunking.js';

export interface StoredRecord {
  id: Buffer;
  bytes: Buffer;
  recordClass: 'chunk' | 'map';
}

export interface EncodedDisk {
  root: string;
  dataPages: number;
  chunks: StoredRecord[];
  maps: StoredRecord[];
}

export function keysOf(repository: Repository): RepositoryKeys {
  return repository.keys;
}

/** Everything that a repository stores for a disk of this content. */
export function encodeDisk(
  content: Buffer,
  chunking: ChunkingObject,
  keys: RepositoryKeys,
): EncodedDisk {
  const records = new Map<string, StoredRecord>();
  const store = (recordClass: 'chunk' | 'map', raw: Buffer): Buffer => {
    const id = blake3(raw, keys[recordClass]);
    records.set(id.toString('hex'), {
      id,
      bytes: encodeRecord(recordClass, keys[recordClass], raw),
      recordClass,
    });
    return id;
  };
  const root: MapRoot = { diskBytes: content.length, nodes: [] };
  const segments = Math.ceil(content.length / SEGMENT_BYTES);
  for (let first = 0; first < segments; first += NODE_LEAVES) {
    const node = [];
    for (let number = first; number < Math.min(segments, first + NODE_LEAVES); number++) {
      const segment = Buffer.alloc(SEGMENT_BYTES);
      content.copy(segment, 0, number * SEGMENT_BYTES);
      const leaf: LeafRun[] = segmentRuns(segment, chunking, keys.cutSeed).map((run) => {
        if (run.hole) return { pages: run.pages };
        const at = run.firstPage * PAGE_BYTES;
        const chunk = segment.subarray(at, at + run.pages * PAGE_BYTES);
        return { pages: run.pages, id: store('chunk', chunk) };
      });
      const dataPages = countPages(leaf);
      if (dataPages > 0) {
        node.push({ index: number - first, id: store('map', encodeLeaf(leaf)), dataPages });
      }
    }
    if (node.length > 0) {
      root.nodes.push({
        index: first / NODE_LEAVES,
        leaves: node.length,
        id: store('map', encodeNode(node)),
        dataPages: node.reduce((total, leaf) => total + leaf.dataPages, 0),
      });
    }
  }
  const rootId = store('map', encodeRoot(root));
  return {
    root: rootId.toString('hex'),
    dataPages: root.nodes.reduce((total, node) => total + node.dataPages, 0),
    chunks: [...records.values()].filter((record) => record.recordClass === 'chunk'),
    maps: [...records.values()].filter((record) => record.recordClass === 'map'),
  };
}

function countPages(leaf: LeafRun[]): number {
  return leaf.reduce((total, run) => total + (run.id === undefined ? 0 : run.pages), 0);
}

export interface PackOptions {
  run: string;
  attempt: number;
  sequence: number;
  recordClass: 'chunk' | 'map';
  /** Records a stripe. */
  stripeRecords?: number;
}

/** The bytes of a pack. */
export function encodePack(records: readonly StoredRecord[], options: PackOptions): Buffer {
  const { stripeRecords = 4 } = options;
  const parts: Buffer[] = [];
  const recordRows: Buffer[] = [];
  const stripeRows: Buffer[] = [];
  let offset = 0;
  for (let first = 0; first < records.length; first += stripeRecords) {
    const pieces: Buffer[] = [encodeStripeHeader(options, offset)];
    let length = 64;
    for (const record of records.slice(first, first + stripeRecords)) {
      recordRows.push(recordRow(record, offset + length));
      pieces.push(record.bytes);
      length += record.bytes.length;
    }
    const stripe = padded(Buffer.concat(pieces));
    const row = Buffer.alloc(40);
    row.writeUInt32LE(offset, 0);
    row.writeUInt32LE(stripe.length, 4);
    // Both kinds of header have 64 bytes.
    blake3(Buffer.concat(pieces.map((piece) => piece.subarray(0, 64)))).copy(row, 8);
    stripeRows.push(row);
    parts.push(stripe);
    offset += stripe.length;
  }
  const tables = Buffer.concat([...recordRows, ...stripeRows]);
  const footer = Buffer.alloc(Math.ceil((tables.length + 96) / 4096) * 4096);
  tables.copy(footer);
  const trailer = footer.subarray(footer.length - 96);
  trailer.write('FIRNFOOT', 'latin1');
  trailer.writeUInt32LE(recordRows.length, 8);
  trailer.writeUInt32LE(stripeRows.length, 12);
  trailer.writeBigUInt64LE(BigInt(offset), 16);
  trailer.writeBigUInt64LE(BigInt(offset + footer.length), 24);
  blake3(footer.subarray(0, footer.length - 96)).copy(trailer, 32);
  trailer.writeUInt32LE(crc32c(trailer.subarray(0, 92)), 92);
  return Buffer.concat([...parts, footer]);
}

function encodeStripeHeader({ run, attempt, sequence, recordClass }: PackOptions, offset: number) {
  const header = Buffer.alloc(64);
  header.write('FIRNPACK', 'latin1');
  header.writeUInt16LE(1, 8);
  header.writeUInt8(recordClass === 'chunk' ? 1 : 2, 10);
  header.writeUInt32LE(attempt, 12);
  header.writeUInt32LE(sequence, 16);
  header.writeUInt32LE(offset, 20);
  header.write(run, 24, 'hex');
  header.writeUInt32LE(crc32c(header.subarray(0, 60)), 60);
  return header;
}

function recordRow(record: StoredRecord, offset: number): Buffer {
  const row = Buffer.alloc(48);
  record.id.copy(row);
  row.writeUInt32LE(offset, 32);
  row.writeUInt32LE(record.bytes.readUInt32LE(12), 36);
  row.writeUInt32LE(record.bytes.readUInt32LE(8), 40);
  row.writeUInt8(record.bytes.readUInt8(5), 44);
  row.writeUInt8(record.bytes.readUInt8(6), 45);
  return row;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4096 - (bytes.length % 4096)) % 4096)]);
}

/** Writes a disk's packs, two for its chunks and one for its maps; returns their names. */
export async function writePacks(
  repository: Repository,
  disk: EncodedDisk,
  run: string = newId(),
  attempt = 0,
): Promise<string[]> {
  const half = Math.ceil(disk.chunks.length / 2);
  const groups: [StoredRecord[], 'chunk' | 'map'][] = [
    [disk.chunks.slice(0, half), 'chunk'],
    [disk.chunks.slice(half), 'chunk'],
    [disk.maps, 'map'],
  ];
  const packs: string[] = [];
  for (const [sequence, [records, recordClass]] of groups.entries()) {
    if (records.length === 0) continue;
    const name = `${run}/${hex(attempt, 4)}-${hex(sequence, 8)}`;
    const file = path.join(repository.path, packFile(name));
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, encodePack(records, { run, attempt, sequence, recordClass }), {
      flag: 'wx',
    });
    packs.push(name);
  }
  return packs;
}

function hex(number: number, digits: number): string {
  return number.toString(16).padStart(digits, '0');
}

export function pointFor(
  disk: EncodedDisk,
  sizeBytes: number,
  more: Partial<PointObject> = {},
): PointObject {
  return {
    type: 'point',
    version: 1,
    id: newId(),
    vm: { name: 'web' },
    created: new Date().toISOString(),
    consistency: 'crash',
    method: 'files',
    run: newId(),
    attempt: 0,
    disks: [
      {
        name: 'system',
        sizeBytes,
        root: disk.root,
        identity: {
          format: 'raw',
          kind: 'fixed',
          blockBytes: 0,
          logicalSectorBytes: 512,
          physicalSectorBytes: 512,
          diskId: '00000000-0000-0000-0000-000000000000',
        },
      },
    ],
    ...more,
  };
}

/** Stores a disk and seals a point of it, without the engine. */
export async function writePoint(
  repository: Repository,
  content: Buffer,
  more: Partial<PointObject> = {},
): Promise<{ point: PointObject; packs: string[]; disk: EncodedDisk }> {
  const disk = encodeDisk(content, repository.config.chunking, keysOf(repository));
  const packs = await writePacks(repository, disk);
  const point = pointFor(disk, content.length, more);
  await repository.seal(point);
  return { point, packs, disk };
}

/** A disk's content: runs of pages that are zero, random, all equal, or repeat what came before. `seed` makes it the same again. */
export function makeContent(pages: number, seed: number, tailBytes = 0): Buffer {
  const random = xorshift(seed);
  const content = Buffer.alloc(pages * PAGE_BYTES + tailBytes);
  for (let at = 0; at < content.length; ) {
    const length = Math.min(content.length - at, (1 + (random() % 40)) * PAGE_BYTES);
    const run = content.subarray(at, at + length);
    const kind = random() % 4;
    if (kind === 1) for (let i = 0; i + 4 <= length; i += 4) run.writeUInt32LE(random(), i);
    if (kind === 2) run.fill(1 + (random() % 255));
    if (kind === 3 && at > 0)
      content.copy(run, 0, (random() % Math.ceil(at / PAGE_BYTES)) * PAGE_BYTES, at);
    at += length;
  }
  return content;
}

function xorshift(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

export function randomContent(bytes: number): Buffer {
  return randomBytes(bytes);
}
