/**
 * A repository of pretence packs in memory, with a writer and a collector that follow the protocol step by step.
 *
 * A pack's content is the JSON list of its chunks, an index run's the list of its packs, and a point names its chunks in `stats`. What is
 * real is what is under test: the order in which commitRun reads, lists, writes and seals, on the real objects.
 */

import { commitRun } from '../../src/repository/commit.js';
import { newId, packFile, packOfFile } from '../../src/repository/format/names.js';
import { encodeObject, type PointObject } from '../../src/repository/format/objects.js';
import { encodeRecord } from '../../src/repository/format/record.js';
import { Repository } from '../../src/repository/repository.js';
import type { Store } from '../../src/repository/stores/store.js';
import { MemoryStore } from './memory-store.js';
import { keysOf, pointFor } from './writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
const CONFIG = {
  type: 'config' as const,
  version: 1,
  repositoryId: newId(),
  created: '2026-01-01T00:00:00Z',
  idKey: '5'.repeat(64),
  chunking: { scheme: 'fixed' as const, pages: 16 },
};

export async function memoryRepository(): Promise<{ memory: MemoryStore; repository: Repository }> {
  const memory = new MemoryStore();
  await memory.putNew('config', encodeRecord('object', undefined, encodeObject(CONFIG)));
  return { memory, repository: await Repository.open('/nowhere', memory) };
}

export async function putPack(store: Store, chunks: string[], run = newId()): Promise<string> {
  const pack = `${run}/0000-00000000`;
  await store.putNew(packFile(pack), Buffer.from(JSON.stringify(chunks)));
  return pack;
}

async function readJson(store: Store, name: string): Promise<string[]> {
  return JSON.parse((await store.get(name)).toString());
}

export function chunkPoint(chunks: string[], id = newId()): PointObject {
  return pointFor(NO_DISK, 0, { id, stats: { chunks } });
}

export function chunksOf(point: PointObject): string[] {
  return point.stats?.chunks as string[];
}

/** Backs up `chunks`: finds what the listed packs that are not condemned have, and writes the others. */
export async function backupChunks(
  repository: Repository,
  chunks: string[],
  signal?: AbortSignal,
): Promise<PointObject> {
  const { store } = repository;
  const { point } = await commitRun(
    repository,
    {
      async store(view) {
        const relied = new Set<string>();
        const missing: string[] = [];
        const known = new Map<string, string>();
        for (const pack of view.packs) {
          if (view.condemned.includes(pack)) continue;
          const content = await readJson(store, packFile(pack)).catch(() => []);
          for (const chunk of content) known.set(chunk, pack);
        }
        for (const chunk of chunks) {
          const pack = known.get(chunk);
          if (pack === undefined) missing.push(chunk);
          else relied.add(pack);
        }
        const packs = missing.length > 0 ? [await putPack(store, missing)] : [];
        return { packs, reliedPacks: [...relied] };
      },
      point: () => chunkPoint(chunks),
    },
    signal,
  );
  return point;
}

async function livePoints(repository: Repository): Promise<PointObject[]> {
  const points: PointObject[] = [];
  // Pending first: a point that is sealed between the two listings is seen in one of them.
  for (const id of await repository.listIds('pending')) {
    await repository.readPending(id).then(
      (point) => points.push(point),
      () => {},
    );
  }
  for (const id of await repository.listIds('points')) points.push(await repository.readPoint(id));
  return points;
}

/** Writes a condemned set of these packs; returns its id. */
export async function condemn(repository: Repository, packs: string[]): Promise<string> {
  const id = newId();
  const set = encodeObject({ type: 'condemned', id, packs });
  const record = encodeRecord('object', keysOf(repository).object, set);
  await repository.store.putNew(`condemned/${id}`, record);
  return id;
}

/** Deletes the packs that no point needs, after the protocol. */
export async function collect(repository: Repository): Promise<void> {
  const { store } = repository;
  const live = new Set((await livePoints(repository)).flatMap(chunksOf));
  const victims: string[] = [];
  for (const pack of await repository.packs()) {
    const content = await readJson(store, packFile(pack)).catch(() => []);
    if (!content.some((chunk) => live.has(chunk))) victims.push(pack);
  }
  if (victims.length === 0) return;
  const id = await condemn(repository, victims);

  const liveNow = new Set((await livePoints(repository)).flatMap(chunksOf));
  const kept = new Set<string>();
  const contents = new Map<string, string[]>();
  for (const pack of await repository.packs()) {
    contents.set(pack, await readJson(store, packFile(pack)).catch(() => []));
    if (victims.includes(pack)) continue;
    for (const chunk of contents.get(pack) ?? []) kept.add(chunk);
  }
  for (const pack of victims) {
    const needed = (contents.get(pack) ?? []).filter((chunk) => liveNow.has(chunk));
    if (needed.every((chunk) => kept.has(chunk))) await store.delete(packFile(pack));
  }
  await repository.moveGeneration();
  await store.delete(`condemned/${id}`);
}

/** The sealed points that need a chunk which no pack has. */
export async function brokenPoints(memory: MemoryStore): Promise<string[]> {
  const repository = await Repository.open('/nowhere', memory);
  const stored = new Set<string>();
  for (const file of await memory.list('packs')) {
    if (packOfFile(file) === undefined) continue;
    for (const chunk of await readJson(memory, `packs/${file}`)) stored.add(chunk);
  }
  const points = await repository.points();
  return points
    .filter((point) => !chunksOf(point).every((chunk) => stored.has(chunk)))
    .map((point) => point.id);
}
