/**
 * Rescue: the reader of last resort. It restores disks from a repository with no addon and no index, in TypeScript alone.
 *
 * It is also the second implementation of the format that the tests hold the engine against. Every byte it writes was checked against the
 * id of its chunk, and every map object against its own. Of the disk's content one chunk is in memory at a time; the table of where
 * each id lies takes 55 to 110 bytes a record of the whole repository (places.ts), which is what bounds it.
 *
 * What is damaged can be skipped: then the lost ranges read as zeros and are listed.
 */

import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { throwIfAborted } from '../engine/engine.js';
import { type FirnError, firnError, fromFileSystem, isFirnError } from '../errors.js';
import { packFile } from '../repository/format/names.js';
import { disksOf, type PointDisk, type PointObject } from '../repository/format/objects.js';
import { decodeRecord, RECORD_HEADER_BYTES } from '../repository/format/record.js';
import { type Access, Repository } from '../repository/repository.js';
import {
  decodeLeaf,
  decodeNode,
  decodeRoot,
  NODE_BYTES,
  PAGE_BYTES,
  SEGMENT_BYTES,
} from './map.js';
import { type PackRecord, readExactly, readPackTable, scanPack } from './pack.js';
import { Places } from './places.js';

const OPEN_PACKS_MAX = 64;
const LOST_LISTED_MAX = 1000;

export interface RescueProgress {
  /** 'scan' counts packs, 'copy' counts bytes of the disk's data. */
  phase: 'scan' | 'copy';
  done: number;
  total: number;
}

export interface RescueJobOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: RescueProgress) => void) | undefined;
}

export interface RescueOptions extends RescueJobOptions {
  /** A point's id or the beginning of one, "latest", or "latest:VM". */
  point: string;
  /** The disk's name; may be left out if the point has one. */
  disk?: string | undefined;
  /** The raw image to write, sparse. */
  to: string;
  /** Replaces a file that exists. */
  force?: boolean | undefined;
  /** Goes on where data is damaged or missing; those ranges read as zeros. */
  skipDamaged?: boolean | undefined;
}

/** A range of the disk, in bytes, that could not be had. */
export interface LostRange {
  offset: number;
  length: number;
  error: FirnError;
}

export interface RescueResult {
  point: PointObject;
  disk: PointDisk;
  path: string;
  /** Bytes of chunks written. */
  dataBytes: number;
  /** The first thousand lost ranges; none unless `skipDamaged`. */
  lost: LostRange[];
  lostBytes: number;
}

/** A pack that could not be read by its footer, or not at all. */
export interface DamagedPack {
  pack: string;
  error: FirnError;
}

export class Rescue {
  readonly repository: Repository;
  /** What the scan found wrong. */
  readonly damagedPacks: readonly DamagedPack[];
  readonly #packs: readonly string[];
  readonly #places: Places;
  readonly #keys;
  readonly #openPacks = new Map<string, FileHandle>();

  private constructor(
    repository: Repository,
    packs: readonly string[],
    places: Places,
    damagedPacks: readonly DamagedPack[],
  ) {
    this.repository = repository;
    this.#packs = packs;
    this.#places = places;
    this.damagedPacks = damagedPacks;
    this.#keys = repository.keys;
  }

  /** Opens the repository in a folder and reads the record tables of all its packs. */
  static async open(
    folder: string,
    options: RescueJobOptions = {},
    access: Access = {},
  ): Promise<Rescue> {
    const repository = await Repository.open(folder, undefined, access);
    repository.requireReader('rescue');
    const packs = await repository.packs();
    const places = new Places();
    const damaged: DamagedPack[] = [];
    for (const [number, pack] of packs.entries()) {
      throwIfAborted(options.signal);
      options.onProgress?.({ phase: 'scan', done: number, total: packs.length });
      const error = await collectPlaces(path.join(repository.path, packFile(pack)), number, places);
      if (error !== undefined) damaged.push({ pack, error });
    }
    options.onProgress?.({ phase: 'scan', done: packs.length, total: packs.length });
    return new Rescue(repository, packs, places, damaged);
  }

  /** Records found, chunks and map objects. */
  get recordCount(): number {
    return this.#places.count;
  }

  /**
   * Writes one disk of a point as a raw image. The file has its name when it is whole; before, the name ends in ".partial". Throws the
   * first defect unless `skipDamaged`.
   */
  async restore(options: RescueOptions): Promise<RescueResult> {
    const point = await this.repository.resolvePoint(options.point);
    const disk = chooseDisk(point, options.disk);
    const target = path.resolve(options.to);
    if (options.force !== true && (await exists(target))) {
      throw firnError('ERR_EXISTS', `${target} exists`, { path: target });
    }
    const temporary = `${target}.${randomBytes(8).toString('hex')}.partial`;
    try {
      // Only a file that is new: whoever may make names in this folder must not choose what is written over.
      const file = await open(temporary, 'wx', 0o640);
      const copy = new DiskCopy(this, file, disk, options);
      try {
        await copy.run();
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, target);
      const { dataBytes, lost, lostBytes } = copy;
      return { point, disk, path: target, dataBytes, lost, lostBytes };
    } catch (error) {
      await rm(temporary, { force: true });
      throw fromFileSystem(error, 'write', 'ERR_WRITE');
    }
  }

  /** The content of a record, checked against its id; any place of it that is whole will do. */
  async content(recordClass: 'chunk' | 'map', id: Buffer): Promise<Buffer> {
    let failure: FirnError | undefined;
    for (const place of this.#places.find(id)) {
      try {
        const file = await this.#openPack(this.#packs[place.pack] as string);
        const length = RECORD_HEADER_BYTES + place.storedLength;
        const bytes = await readExactly(file, place.offset, length);
        const opener = this.repository.packOpener(this.#packs[place.pack] as string);
        const key = this.#keys[recordClass];
        const { header, content } = decodeRecord(bytes, recordClass, key, opener);
        if (header.id.equals(id)) return content;
        failure ??= firnError(
          'ERR_CORRUPT_PACK',
          'Corrupt pack: another record stands in its place',
        );
      } catch (error) {
        failure ??= fromFileSystem(error, 'read', 'ERR_READ');
      }
    }
    throw failure ?? firnError('ERR_CHUNK_MISSING', `No pack has the ${recordClass} ${hex(id)}`);
  }

  /** Closes the packs. */
  async close(): Promise<void> {
    const files = [...this.#openPacks.values()];
    this.#openPacks.clear();
    await Promise.all(files.map((file) => file.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #openPack(pack: string): Promise<FileHandle> {
    let file = this.#openPacks.get(pack);
    if (file === undefined) {
      file = await open(path.join(this.repository.path, packFile(pack)), 'r');
    } else {
      this.#openPacks.delete(pack);
    }
    // A Map keeps the order of insertion: the first is the one used longest ago.
    this.#openPacks.set(pack, file);
    const [oldest] = this.#openPacks;
    if (this.#openPacks.size > OPEN_PACKS_MAX && oldest !== undefined) {
      this.#openPacks.delete(oldest[0]);
      await oldest[1].close();
    }
    return file;
  }
}

/** One disk on its way from the map to the file. */
class DiskCopy {
  dataBytes = 0;
  lostBytes = 0;
  readonly lost: LostRange[] = [];
  readonly #rescue: Rescue;
  readonly #file: FileHandle;
  readonly #disk: PointDisk;
  readonly #options: RescueOptions;
  #totalBytes = 0;

  constructor(rescue: Rescue, file: FileHandle, disk: PointDisk, options: RescueOptions) {
    this.#rescue = rescue;
    this.#file = file;
    this.#disk = disk;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { root: rootId, sizeBytes } = this.#disk;
    await this.#file.truncate(sizeBytes);
    await this.#orLose(0, sizeBytes, async () => {
      const root = decodeRoot(await this.#rescue.content('map', Buffer.from(rootId, 'hex')));
      check(root.diskBytes === sizeBytes, 'a root has another size than its point says');
      this.#totalBytes = PAGE_BYTES * sum(root.nodes.map((node) => node.dataPages));
      for (const node of root.nodes) {
        await this.#orLose(node.index * NODE_BYTES, NODE_BYTES, () => this.#copyNode(node));
      }
    });
  }

  async #copyNode(expected: {
    index: number;
    leaves: number;
    id: Buffer;
    dataPages: number;
  }): Promise<void> {
    const node = decodeNode(await this.#rescue.content('map', expected.id));
    check(
      node.length === expected.leaves &&
        sum(node.map((leaf) => leaf.dataPages)) === expected.dataPages,
      'a node has other counts than its root says',
    );
    for (const { index, id, dataPages } of node) {
      const offset = expected.index * NODE_BYTES + index * SEGMENT_BYTES;
      await this.#orLose(offset, SEGMENT_BYTES, async () => {
        check(offset < this.#disk.sizeBytes, 'a node names a segment beyond the end of its disk');
        await this.#copySegment(offset, id, dataPages);
      });
    }
  }

  async #copySegment(segmentOffset: number, id: Buffer, dataPages: number): Promise<void> {
    const bytes = await this.#rescue.content('map', id);
    const leaf = decodeLeaf(bytes, this.#rescue.repository.config.chunking);
    const pages = sum(leaf.map((run) => (run.id === undefined ? 0 : run.pages)));
    check(pages === dataPages, 'a leaf has other counts than its node says');
    let offset = segmentOffset;
    for (const run of leaf) {
      const length = run.pages * PAGE_BYTES;
      const chunkId = run.id;
      if (chunkId !== undefined) {
        await this.#orLose(offset, length, () => this.#copyChunk(offset, length, chunkId));
      }
      offset += length;
    }
    this.#options.onProgress?.({ phase: 'copy', done: this.dataBytes, total: this.#totalBytes });
  }

  async #copyChunk(offset: number, length: number, id: Buffer): Promise<void> {
    throwIfAborted(this.#options.signal);
    const content = await this.#rescue.content('chunk', id);
    check(content.length === length, 'a chunk has another length than its leaf says');
    // The last page of a disk may lie half beyond its end, where it is zero.
    const inside = Math.max(0, Math.min(length, this.#disk.sizeBytes - offset));
    check(
      content.subarray(inside).every((byte) => byte === 0),
      'a chunk has data beyond the end of its disk',
    );
    await writeExactly(this.#file, content.subarray(0, inside), offset);
    this.dataBytes += length;
  }

  /** Does it, or notes the range as lost if what it needs is damaged and that is to be skipped. */
  async #orLose(offset: number, length: number, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (this.#options.skipDamaged !== true || !isDamage(error)) throw error;
      const lostLength = Math.max(0, Math.min(length, this.#disk.sizeBytes - offset));
      this.lostBytes += lostLength;
      if (this.lost.length < LOST_LISTED_MAX) this.lost.push({ offset, length: lostLength, error });
    }
  }
}

/** Adds all records of a pack; returns what is wrong with it. */
async function collectPlaces(
  file: string,
  pack: number,
  places: Places,
): Promise<FirnError | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(file, 'r');
  } catch (error) {
    return fromFileSystem(error, 'open', 'ERR_READ');
  }
  const add = ({ id, offset, storedLength, rawLength }: PackRecord) =>
    places.add(id, { pack, offset, storedLength, rawLength });
  try {
    await readPackTable(handle, add);
    return undefined;
  } catch (error) {
    const damage = fromFileSystem(error, 'read', 'ERR_READ');
    try {
      await scanPack(handle, add);
    } catch {
      // What was found before the failure counts; the first failure says why the pack was scanned.
    }
    return damage;
  } finally {
    await handle.close();
  }
}

function chooseDisk(point: PointObject, name: string | undefined): PointDisk {
  const names = point.disks.map((disk) => `"${disk.name}"`).join(', ');
  const disk =
    name === undefined && disksOf(point).length === 1
      ? disksOf(point)[0]
      : point.disks.find((each) => each.name === name);
  if (disk !== undefined) return disk;
  throw name === undefined
    ? firnError('ERR_INVALID_ARGUMENT', `Expected the name of a disk, one of ${names}`)
    : firnError('ERR_NOT_FOUND', `Point ${point.id} has no disk "${name}"; it has ${names}`);
}

function isDamage(error: unknown): error is FirnError {
  if (!isFirnError(error)) return false;
  return ['IntegrityError', 'NotFoundError'].includes(error.name) || error.code === 'ERR_READ';
}

async function exists(file: string): Promise<boolean> {
  try {
    await stat(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw fromFileSystem(error, 'stat', 'ERR_READ');
  }
}

async function writeExactly(file: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw firnError('ERR_CORRUPT_OBJECT', `Corrupt map: ${what}`);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function hex(id: Buffer): string {
  return id.toString('hex');
}
