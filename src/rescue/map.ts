/**
 * Maps: which chunk or hole each page of a disk is. docs/repository-format.md section 5.
 *
 * Encoding is canonical: equal content gives equal bytes. Decoding refuses what no canonical encoder writes, so that what was decoded
 * can be relied on: runs fill their segment, indexes ascend and lie inside the disk, counts agree. Throws ERR_CORRUPT_OBJECT, or
 * ERR_VERSION for a newer version.
 */

import { firnError } from '../errors.js';
import type { ChunkingObject } from '../repository/format/objects.js';

export const PAGE_BYTES = 4096;
export const SEGMENT_PAGES = 2048;
export const SEGMENT_BYTES = SEGMENT_PAGES * PAGE_BYTES;
export const NODE_LEAVES = 256;
export const NODE_BYTES = NODE_LEAVES * SEGMENT_BYTES;
export const DISK_BYTES_MAX = 64 * 1024 ** 4;

const VERSION = 1;
const CHUNK_BIT = 0x8000;
const PAGES_MASK = 0x0fff;
const ID_BYTES = 32;
const LEAF_HEADER_BYTES = 8;
const NODE_HEADER_BYTES = 8 + NODE_LEAVES / 8;
const NODE_ROW_BYTES = 36;
const ROOT_HEADER_BYTES = 16;
const ROOT_ROW_BYTES = 48;

/** Pages of one chunk, or, without an id, a hole. */
export interface LeafRun {
  pages: number;
  id?: Buffer;
}

/** One segment: its runs, in order; they sum up to SEGMENT_PAGES. */
export type MapLeaf = LeafRun[];

/** 256 segments: those that are not all hole, ascending. */
export type MapNode = { index: number; id: Buffer; dataPages: number }[];

/** A disk: its nodes that are not all hole, ascending. */
export interface MapRoot {
  diskBytes: number;
  nodes: { index: number; leaves: number; id: Buffer; dataPages: number }[];
}

export function encodeLeaf(leaf: MapLeaf): Buffer {
  const ids = leaf.flatMap(({ id }) => (id === undefined ? [] : [id]));
  const header = Buffer.alloc(LEAF_HEADER_BYTES + leaf.length * 2);
  writeMagic(header, 'L');
  header.writeUInt16LE(leaf.length, 4);
  header.writeUInt16LE(ids.length, 6);
  for (const [index, { pages, id }] of leaf.entries()) {
    header.writeUInt16LE(pages | (id === undefined ? 0 : CHUNK_BIT), LEAF_HEADER_BYTES + index * 2);
  }
  return Buffer.concat([header, ...ids]);
}

export function decodeLeaf(bytes: Buffer, chunking: ChunkingObject): MapLeaf {
  checkMagic(bytes, 'L', LEAF_HEADER_BYTES);
  const runCount = bytes.readUInt16LE(4);
  const chunkCount = bytes.readUInt16LE(6);
  const idsAt = LEAF_HEADER_BYTES + runCount * 2;
  check(
    runCount <= SEGMENT_PAGES && chunkCount >= 1 && bytes.length === idsAt + chunkCount * ID_BYTES,
    "a leaf's size does not agree with its counts",
  );
  const leaf: MapLeaf = [];
  let pagesTotal = 0;
  let chunksSeen = 0;
  for (let index = 0; index < runCount; index++) {
    const packed = bytes.readUInt16LE(LEAF_HEADER_BYTES + index * 2);
    const pages = packed & PAGES_MASK;
    check(pages > 0 && (packed & ~(CHUNK_BIT | PAGES_MASK)) === 0, 'a run of a leaf is damaged');
    const run: LeafRun = { pages };
    if ((packed & CHUNK_BIT) !== 0) {
      check(chunksSeen < chunkCount, 'a leaf has more chunks than ids');
      run.id = idAt(bytes, idsAt + chunksSeen * ID_BYTES);
      chunksSeen++;
    }
    checkRun(run, leaf.at(-1), chunking);
    pagesTotal += pages;
    leaf.push(run);
  }
  check(chunksSeen === chunkCount, 'a leaf has more ids than chunks');
  check(pagesTotal === SEGMENT_PAGES, 'a leaf does not fill its segment');
  return leaf;
}

function checkRun(run: LeafRun, before: LeafRun | undefined, chunking: ChunkingObject): void {
  if (run.id === undefined) {
    check(before === undefined || before.id !== undefined, 'a leaf has two holes side by side');
    return;
  }
  const pagesMax = chunking.scheme === 'fixed' ? chunking.pages : chunking.maxPages;
  check(run.pages <= pagesMax, 'a leaf has a chunk over the maximum');
  const isShortBefore =
    chunking.scheme === 'content' && before?.id !== undefined && before.pages < chunking.minPages;
  check(!isShortBefore, 'a leaf has a chunk under the minimum before another');
}

export function encodeNode(node: MapNode): Buffer {
  const bytes = Buffer.alloc(NODE_HEADER_BYTES + node.length * NODE_ROW_BYTES);
  writeMagic(bytes, 'N');
  bytes.writeUInt16LE(node.length, 4);
  for (const [row, { index, id, dataPages }] of node.entries()) {
    const bitsAt = 8 + (index >>> 3);
    bytes.writeUInt8(bytes.readUInt8(bitsAt) | (1 << (index & 7)), bitsAt);
    const at = NODE_HEADER_BYTES + row * NODE_ROW_BYTES;
    id.copy(bytes, at);
    bytes.writeUInt32LE(dataPages, at + ID_BYTES);
  }
  return bytes;
}

export function decodeNode(bytes: Buffer): MapNode {
  checkMagic(bytes, 'N', NODE_HEADER_BYTES);
  const leafCount = bytes.readUInt16LE(4);
  check(
    leafCount >= 1 &&
      leafCount <= NODE_LEAVES &&
      bytes.readUInt16LE(6) === 0 &&
      bytes.length === NODE_HEADER_BYTES + leafCount * NODE_ROW_BYTES,
    "a node's size does not agree with its counts",
  );
  const node: MapNode = [];
  for (let index = 0; index < NODE_LEAVES; index++) {
    if (((bytes.readUInt8(8 + (index >>> 3)) >>> (index & 7)) & 1) === 0) continue;
    check(node.length < leafCount, "a node's bitmap has more leaves than there are ids");
    const at = NODE_HEADER_BYTES + node.length * NODE_ROW_BYTES;
    const dataPages = bytes.readUInt32LE(at + ID_BYTES);
    check(
      dataPages >= 1 && dataPages <= SEGMENT_PAGES,
      'a node counts data pages that no segment has',
    );
    node.push({ index, id: idAt(bytes, at), dataPages });
  }
  check(node.length === leafCount, "a node's bitmap has fewer leaves than there are ids");
  return node;
}

export function encodeRoot(root: MapRoot): Buffer {
  const bytes = Buffer.alloc(ROOT_HEADER_BYTES + root.nodes.length * ROOT_ROW_BYTES);
  writeMagic(bytes, 'R');
  bytes.writeUInt32LE(root.nodes.length, 4);
  bytes.writeBigUInt64LE(BigInt(root.diskBytes), 8);
  for (const [row, { index, leaves, id, dataPages }] of root.nodes.entries()) {
    const at = ROOT_HEADER_BYTES + row * ROOT_ROW_BYTES;
    bytes.writeUInt32LE(index, at);
    bytes.writeUInt32LE(leaves, at + 4);
    id.copy(bytes, at + 8);
    bytes.writeBigUInt64LE(BigInt(dataPages), at + 40);
  }
  return bytes;
}

export function decodeRoot(bytes: Buffer): MapRoot {
  checkMagic(bytes, 'R', ROOT_HEADER_BYTES);
  const nodeCount = bytes.readUInt32LE(4);
  const diskBytes = Number(bytes.readBigUInt64LE(8));
  check(
    diskBytes <= DISK_BYTES_MAX && bytes.length === ROOT_HEADER_BYTES + nodeCount * ROOT_ROW_BYTES,
    "a root's size does not agree with its counts",
  );
  const nodes: MapRoot['nodes'] = [];
  for (let at = ROOT_HEADER_BYTES; at < bytes.length; at += ROOT_ROW_BYTES) {
    const index = bytes.readUInt32LE(at);
    const leaves = bytes.readUInt32LE(at + 4);
    const dataPages = Number(bytes.readBigUInt64LE(at + 40));
    check(index > (nodes.at(-1)?.index ?? -1), "a root's nodes do not ascend");
    check(index * NODE_BYTES < diskBytes, 'a root names a node beyond the end of its disk');
    check(
      leaves >= 1 &&
        leaves <= NODE_LEAVES &&
        dataPages >= leaves &&
        dataPages <= leaves * SEGMENT_PAGES,
      'a root counts data pages that no node has',
    );
    nodes.push({ index, leaves, id: idAt(bytes, at + 8), dataPages });
  }
  return { diskBytes, nodes };
}

function writeMagic(bytes: Buffer, kind: string): void {
  bytes.write(`F${kind}`, 'latin1');
  bytes.writeUInt8(VERSION, 2);
}

function checkMagic(bytes: Buffer, kind: string, headerBytes: number): void {
  check(
    bytes.length >= headerBytes && bytes.toString('latin1', 0, 2) === `F${kind}`,
    'it is not the kind of object that belongs here',
  );
  const version = bytes.readUInt8(2);
  if (version > VERSION) {
    throw firnError('ERR_VERSION', `A map of format version ${version}, which is newer`);
  }
  check(version === VERSION && bytes.readUInt8(3) === 0, 'its header is damaged');
}

function idAt(bytes: Buffer, at: number): Buffer {
  return bytes.subarray(at, at + ID_BYTES);
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw firnError('ERR_CORRUPT_OBJECT', `Corrupt map: ${what}`);
}
