/**
 * What forgetting points would free: the records that only those points need.
 *
 * Exact, because nothing cheaper is near the truth: what a point's own run stored is needed by the points after it, and what a point alone
 * needs may have been stored by a run whose point is long gone. So the maps are read: those of the points that go as far as no other point
 * shares them, and, if chunks are in them, the leaves of all others. Chunks themselves are not read, only the tables of the packs.
 * Takes about 150 bytes of memory for each map object in the repository, which describes up to 8 MiB of a disk, and for each chunk that
 * would go.
 */

import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { throwIfAborted } from '../engine/engine.js';
import { type ErrorCode, firnError, fromFileSystem, isFirnError } from '../errors.js';
import { packFile } from '../repository/format/names.js';
import type { PointObject } from '../repository/format/objects.js';
import { decodeRecord, RECORD_HEADER_BYTES } from '../repository/format/record.js';
import type { Repository } from '../repository/repository.js';
import { decodeLeaf, decodeNode, decodeRoot } from '../rescue/map.js';
import { type PackRecord, readExactly, readPackTable } from '../rescue/pack.js';
import { Places } from '../rescue/places.js';

const OPEN_PACKS_MAX = 32;
const NOT_DAMAGE: ReadonlySet<ErrorCode> = new Set(['ERR_ABORTED', 'ERR_INTERNAL'] as const);

export interface Freed {
  /** Records with their headers, as they are stored. A pack has many, and goes or shrinks when a collection finds it worth it. */
  storedBytes: number;
  chunks: number;
  /** Points, packs and map objects that could not be read: with any of them the figures are not exact. */
  unreadable: number;
}

/** What would go if the points with these ids went. ERR_ABORTED. */
export async function freedBy(
  repository: Repository,
  doomed: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<Freed> {
  if (doomed.size === 0) return { storedBytes: 0, chunks: 0, unreadable: 0 };
  let unreadable = 0;
  const onUnreadable = () => {
    unreadable++;
  };
  const maps = await MapReader.open(repository, onUnreadable, signal);
  try {
    const pending = await pendingPoints(repository, onUnreadable);
    const points = await repository.points(onUnreadable);
    const live = new MapWalk(maps, onUnreadable, signal);
    for (const root of rootsOf([...pending, ...points.filter(({ id }) => !doomed.has(id))])) {
      await live.walk(root);
    }
    const dying = new MapWalk(maps, onUnreadable, signal, live.seen);
    for (const root of rootsOf(points.filter(({ id }) => doomed.has(id)))) await dying.walk(root);

    const chunks = new Set<string>();
    await dying.eachChunk((id) => chunks.add(id));
    if (chunks.size > 0) await live.eachChunk((id) => chunks.delete(id));
    let storedBytes = 0;
    for (const pack of maps.packs) {
      throwIfAborted(signal);
      await maps.eachRecord(pack, ({ id, recordClass, storedLength }) => {
        const isDying = (recordClass === 'map' ? dying.seen : chunks).has(keyOf(id));
        if (isDying) storedBytes += RECORD_HEADER_BYTES + storedLength;
      });
    }
    return { storedBytes, chunks: chunks.size, unreadable };
  } finally {
    await maps.close();
  }
}

/** A run that is about to seal keeps what it names, and so a collection will. */
async function pendingPoints(
  repository: Repository,
  onUnreadable: () => void,
): Promise<PointObject[]> {
  const points: PointObject[] = [];
  for (const id of await repository.listIds('pending')) {
    try {
      points.push(await repository.readPending(id));
    } catch (error) {
      if (!isFirnError(error)) throw error;
      if (error.code !== 'ERR_POINT_NOT_FOUND') onUnreadable();
    }
  }
  return points;
}

function rootsOf(points: readonly PointObject[]): Set<string> {
  return new Set(points.flatMap(({ disks }) => disks.map(({ root }) => root)));
}

/** An id as a key of a set: half as long as in hexadecimal digits. */
function keyOf(id: Buffer): string {
  return id.toString('latin1');
}

/** The map objects that some points have and others do not. */
class MapWalk {
  /** Roots, nodes and leaves. */
  readonly seen = new Set<string>();
  readonly #leaves: Buffer[] = [];
  readonly #maps: MapReader;
  readonly #onUnreadable: () => void;
  readonly #signal: AbortSignal | undefined;
  readonly #others: ReadonlySet<string>;

  constructor(
    maps: MapReader,
    onUnreadable: () => void,
    signal: AbortSignal | undefined,
    others: ReadonlySet<string> = new Set(),
  ) {
    this.#maps = maps;
    this.#onUnreadable = onUnreadable;
    this.#signal = signal;
    this.#others = others;
  }

  async walk(root: string): Promise<void> {
    await this.#visit(Buffer.from(root, 'hex'), async (bytes) => {
      for (const node of decodeRoot(bytes).nodes) {
        await this.#visit(node.id, async (nodeBytes) => {
          for (const leaf of decodeNode(nodeBytes)) {
            if (!this.#isNew(leaf.id)) continue;
            // The buffer that the id is a part of need not live on.
            this.#leaves.push(Buffer.from(leaf.id));
          }
        });
      }
    });
  }

  async eachChunk(action: (id: string) => void): Promise<void> {
    for (const leaf of this.#leaves) {
      await this.#read(leaf, async (bytes) => {
        for (const { id } of decodeLeaf(bytes, this.#maps.chunking)) {
          if (id !== undefined) action(keyOf(id));
        }
      });
    }
  }

  #isNew(id: Buffer): boolean {
    const key = keyOf(id);
    if (this.seen.has(key) || this.#others.has(key)) return false;
    this.seen.add(key);
    return true;
  }

  /** Goes into a map object the first time that it is met; what the others have, they have down to the last chunk. */
  async #visit(id: Buffer, action: (bytes: Buffer) => Promise<void>): Promise<void> {
    if (this.#isNew(id)) await this.#read(id, action);
  }

  async #read(id: Buffer, action: (bytes: Buffer) => Promise<void>): Promise<void> {
    throwIfAborted(this.#signal);
    try {
      await action(await this.#maps.content(id));
    } catch (error) {
      if (!isFirnError(error) || NOT_DAMAGE.has(error.code)) throw error;
      this.#onUnreadable();
    }
  }
}

/** Reads map objects, each checked against its id, wherever in the packs they lie. */
class MapReader {
  readonly packs: readonly string[];
  readonly chunking: Repository['config']['chunking'];
  readonly #folder: string;
  readonly #repository: Repository;
  readonly #places = new Places();
  readonly #open = new Map<string, FileHandle>();

  private constructor(repository: Repository, packs: readonly string[]) {
    this.packs = packs;
    this.chunking = repository.config.chunking;
    this.#folder = repository.path;
    this.#repository = repository;
  }

  static async open(
    repository: Repository,
    onUnreadable: () => void,
    signal: AbortSignal | undefined,
  ): Promise<MapReader> {
    const reader = new MapReader(repository, await repository.packs());
    for (const [number, pack] of reader.packs.entries()) {
      throwIfAborted(signal);
      const isRead = await reader.eachRecord(pack, ({ recordClass, ...place }) => {
        if (recordClass === 'map') reader.#places.add(place.id, { ...place, pack: number });
      });
      if (!isRead) onUnreadable();
    }
    return reader;
  }

  /** Calls `action` for each record of a pack; false if its table cannot be read. */
  async eachRecord(pack: string, action: (record: PackRecord) => void): Promise<boolean> {
    try {
      const file = await open(path.join(this.#folder, packFile(pack)), 'r');
      try {
        await readPackTable(file, action);
      } finally {
        await file.close();
      }
      return true;
    } catch (error) {
      if (fromFileSystem(error, 'read', 'ERR_READ').code === 'ERR_INTERNAL') throw error;
      return false;
    }
  }

  async content(id: Buffer): Promise<Buffer> {
    let failure: unknown = firnError('ERR_CHUNK_MISSING', 'No pack has a map object');
    for (const { pack, offset, storedLength } of this.#places.find(id)) {
      try {
        const name = this.packs[pack] as string;
        const file = await this.#packFile(name);
        const bytes = await readExactly(file, offset, RECORD_HEADER_BYTES + storedLength);
        const { keys } = this.#repository;
        const opener = this.#repository.packOpener(name);
        const { header, content } = decodeRecord(bytes, 'map', keys.map, opener);
        if (header.id.equals(id)) return content;
      } catch (error) {
        failure = error;
      }
    }
    throw fromFileSystem(failure, 'read', 'ERR_READ');
  }

  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(files.map((file) => file.close()));
  }

  async #packFile(pack: string): Promise<FileHandle> {
    const file = this.#open.get(pack) ?? (await open(path.join(this.#folder, packFile(pack)), 'r'));
    // A Map keeps the order of insertion: the first is the one used longest ago.
    this.#open.delete(pack);
    this.#open.set(pack, file);
    const [oldest] = this.#open;
    if (this.#open.size > OPEN_PACKS_MAX && oldest !== undefined) {
      this.#open.delete(oldest[0]);
      await oldest[1].close();
    }
    return file;
  }
}
