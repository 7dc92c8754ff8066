/**
 * Goal: no interleaving of a writer, a collector, a reader and a recovery, and no crash of any of them at any step, costs a sealed point a
 * chunk, and none leaves what the next collection does not clear. Method: the real commit.ts, collection.ts and recovery.ts run on a store
 * in memory and every order of their steps is tried (test/helpers/explorer.ts); every state is checked as the one that a crash would leave.
 * Packs, index runs and maps are pretence: lists of letters. Each ablation takes one rule of the protocol away, and must be caught.
 */

import { beforeAll, describe, expect, test, vi } from 'vitest';
import { firnError, isFirnError } from '../../src/errors.js';
import {
  type CollectionPlane,
  collect,
  type Marked,
  type MarkRequest,
} from '../../src/repository/collection.js';
import { commitRun, readSteadily } from '../../src/repository/commit.js';
import { newId, packFile } from '../../src/repository/format/names.js';
import type { PointObject } from '../../src/repository/format/objects.js';
import { recoverPending } from '../../src/repository/recovery.js';
import { Repository } from '../../src/repository/repository.js';
import type { Store } from '../../src/repository/stores/store.js';
import { chunkPoint, chunksOf, memoryRepository } from '../helpers/collector.js';
import {
  type ExploreOptions,
  explore,
  type Lie,
  type Program,
  type State,
  withIds,
} from '../helpers/explorer.js';
import { MemoryStore } from '../helpers/memory-store.js';

vi.mock('../../src/repository/format/names.js', async (original) => ({
  ...(await original<typeof import('../../src/repository/format/names.js')>()),
  newId: (await import('../helpers/explorer.js')).nextId,
}));

/** What an index run says: the chunks of each of its packs. */
type IndexContent = Record<string, string[]>;

const LONG = 60_000 * 10;
const CREATED = '2026-01-01T00:00:00Z';

function pointOf(chunks: string[], id = newId()): PointObject {
  // A point's time and run are not the protocol's: they stand still, so that states that are the same look the same.
  return { ...chunkPoint(chunks, id), created: CREATED, run: '7'.repeat(32) };
}

async function getJson<Content>(store: Store, name: string): Promise<Content> {
  return JSON.parse((await store.get(name)).toString()) as Content;
}

async function putIndex(store: Store, content: IndexContent): Promise<string> {
  const name = `${newId()}-0000-00000000.idx`;
  await store.putNew(`index/${name}`, Buffer.from(JSON.stringify(content)));
  return name;
}

async function putPack(store: Store, chunks: string[]): Promise<string> {
  const pack = `${newId()}/0000-00000000`;
  await store.putNew(packFile(pack), Buffer.from(JSON.stringify(chunks)));
  return pack;
}

interface NamedRun {
  name: string;
  /** Listed packs with their chunks. */
  content: IndexContent;
  /** All packs that it names. */
  all: string[];
}

/** Where the index says that chunks are, in listed packs. */
async function readIndex(
  store: Store,
  { indexRuns, packs }: { indexRuns: readonly string[]; packs: readonly string[] },
): Promise<NamedRun[]> {
  const runs: NamedRun[] = [];
  for (const name of indexRuns) {
    const content = await getJson<IndexContent>(store, `index/${name}`);
    const listed = Object.entries(content).filter(([pack]) => packs.includes(pack));
    runs.push({ name, content: Object.fromEntries(listed), all: Object.keys(content) });
  }
  return runs;
}

/** How records of damage name a chunk, which must have a hexadecimal letter. */
const idOf = (chunk: string) => chunk.repeat(64);

function isDamagedIn(
  damage: readonly { pack: string; records?: string[] }[],
  chunk: string,
  pack: string,
): boolean {
  return damage.some((each) => each.pack === pack && each.records?.includes(idOf(chunk)) === true);
}

function placesOf(runs: { content: IndexContent }[]): Map<string, string[]> {
  return new Map(runs.flatMap(({ content }) => Object.entries(content)));
}

function writer(name: string, chunks: string[]): Program {
  return {
    name,
    async run(store) {
      const repository = await Repository.open('/nowhere', store);
      const { point } = await commitRun(repository, {
        async store(view) {
          const relied = new Set<string>();
          const known = new Map<string, string>();
          for (const [pack, content] of placesOf(await readIndex(store, view))) {
            if (view.condemned.includes(pack)) continue;
            for (const chunk of content) {
              if (!isDamagedIn(view.damaged, chunk, pack)) known.set(chunk, pack);
            }
          }
          const missing = chunks.filter((chunk) => !known.has(chunk));
          for (const chunk of chunks) relied.add(known.get(chunk) ?? '');
          relied.delete('');
          if (missing.length === 0) return { packs: [], reliedPacks: [...relied] };
          const pack = await putPack(store, missing);
          await putIndex(store, { [pack]: missing });
          return { packs: [pack], reliedPacks: [...relied] };
        },
        point: () => pointOf(chunks),
      });
      return point.id;
    },
  };
}

/** The data plane of collections, on pretence packs. */
function planeOf(store: Store): CollectionPlane {
  return {
    async mark({ view, condemned, victims = [] }: MarkRequest): Promise<Marked> {
      const runs = await readIndex(store, view);
      const places = placesOf(runs);
      const named = new Set(places.keys());
      for (const pack of view.packs) {
        if (!named.has(pack)) places.set(pack, await getJson<string[]>(store, packFile(pack)));
      }
      const live = new Set([...view.points, ...view.pending].flatMap(chunksOf));
      for (const chunk of view.points.flatMap(chunksOf)) {
        if ([...places.values()].some((content) => content.includes(chunk))) continue;
        throw firnError('ERR_CHUNK_MISSING', chunk);
      }
      const stays = (pack: string) =>
        named.has(pack) && !condemned.includes(pack) && !victims.includes(pack);
      const liveIn = (pack: string) => (places.get(pack) ?? []).filter((chunk) => live.has(chunk));
      const isWhole = (chunk: string, pack: string) => !isDamagedIn(view.damage, chunk, pack);
      const holds = (chunk: string, pack: string) =>
        places.get(pack)?.includes(chunk) === true && isWhole(chunk, pack);
      const isUnhealed = (chunk: string) => ![...places.keys()].some((pack) => holds(chunk, pack));
      const ownerOf = (chunk: string) =>
        [...places.keys()]
          .filter((pack) => stays(pack) && holds(chunk, pack))
          .sort((a, b) => liveIn(b).length - liveIn(a).length || (a < b ? -1 : 1))[0];
      const packs = [...places].map(([pack, content]) => ({
        name: pack,
        named: named.has(pack),
        known: true,
        map: false,
        needed: liveIn(pack).some((chunk) => ownerOf(chunk) === undefined),
        damaged: view.damage.some((damage) => damage.pack === pack),
        unhealed: liveIn(pack).some(isUnhealed),
        fileBytes: 2 ** 30,
        records: content.length,
        recordBytes: content.length,
        liveBytes: liveIn(pack).length,
        ownedBytes: liveIn(pack).filter((chunk) => ownerOf(chunk) === pack).length,
      }));
      return {
        packs,
        missing: 0,
        indexRuns: runs.map(({ name, all }) => ({ name, entries: 2 ** 30, packs: all })),
        async rescue(doomed) {
          const kept = (chunk: string) =>
            [...places].some(
              ([pack]) => stays(pack) && !doomed.includes(pack) && holds(chunk, pack),
            );
          const wholeIn = (pack: string) => liveIn(pack).filter((chunk) => isWhole(chunk, pack));
          const needed = new Set(doomed.flatMap(wholeIn).filter((chunk) => !kept(chunk)));
          if (needed.size === 0) return { packs: [], indexRuns: [], bytes: 0, damaged: [] };
          for (const pack of doomed.filter((each) => wholeIn(each).some((c) => needed.has(c)))) {
            await getJson(store, packFile(pack)).catch((error: unknown) => {
              const isGone = isFirnError(error) && error.code === 'ERR_NOT_FOUND';
              throw isGone ? firnError('ERR_PACK_MISSING', pack) : error;
            });
          }
          const chunks = [...needed].sort();
          const pack = await putPack(store, chunks);
          const run = await putIndex(store, { [pack]: chunks });
          return { packs: [pack], indexRuns: [run], bytes: chunks.length, damaged: [] };
        },
        async mergeIndex(names, dropped) {
          const merged: IndexContent = {};
          for (const { content } of runs.filter(({ name }) => names.includes(name))) {
            for (const [pack, chunks] of Object.entries(content)) {
              if (!dropped.includes(pack)) merged[pack] = chunks;
            }
          }
          return Object.keys(merged).length === 0 ? [] : [await putIndex(store, merged)];
        },
        release() {},
      };
    },
  };
}

async function collectOn(store: Store): Promise<string> {
  const repository = await Repository.open('/nowhere', store);
  const { deleted } = await collect(repository, planeOf(store), { maxWaste: 0 });
  return String(deleted);
}

function collector(name: string): Program {
  return { name, run: collectOn };
}

/** Reads every chunk of a sealed point that was there from the start. */
function reader(name: string, chunks: string[]): Program {
  return {
    name,
    async run(store) {
      const repository = await Repository.open('/nowhere', store);
      await readSteadily(repository, async (view) => {
        const places = placesOf(await readIndex(store, view));
        for (const chunk of chunks) {
          const holding = [...places].filter(([, content]) => content.includes(chunk));
          if (holding.length === 0) throw firnError('ERR_CHUNK_MISSING', chunk);
          const reads = holding.map(([pack]) => getJson<string[]>(store, packFile(pack)));
          if (!(await Promise.allSettled(reads)).some(({ status }) => status === 'fulfilled')) {
            throw firnError('ERR_PACK_MISSING', chunk);
          }
        }
      });
    },
  };
}

async function recoverOn(store: Store): Promise<string> {
  const repository = await Repository.open('/nowhere', store);
  const outcomes = [];
  for (const id of await repository.listIds('pending')) {
    const point = await repository.readPending(id).catch(() => undefined);
    if (point === undefined) continue;
    outcomes.push(
      await recoverPending(repository, id, async (view) => {
        const places = placesOf(await readIndex(store, view));
        const relied = new Set<string>();
        for (const chunk of chunksOf(point)) {
          const holding = [...places].filter(([, content]) => content.includes(chunk));
          if (holding.length === 0) throw firnError('ERR_CHUNK_MISSING', chunk);
          const good = holding.find(([pack]) => !view.condemned.includes(pack));
          if (good === undefined) throw firnError('ERR_REPOSITORY_CHANGED', chunk);
          relied.add(good[0]);
        }
        return [...relied];
      }),
    );
  }
  return outcomes.join();
}

/** Pack P has the chunks a, b and g; one sealed point needs a, so that P is wasteful and b and g are garbage. */
async function startObjects(): Promise<Map<string, Buffer>> {
  return withIds('start', async () => {
    const { memory, repository } = await memoryRepository();
    const pack = await putPack(memory, ['a', 'b', 'g']);
    await putIndex(memory, { [pack]: ['a', 'b', 'g'] });
    await repository.seal(pointOf(['a']));
    return memory.objects;
  });
}

function storeOf(objects: ReadonlyMap<string, Buffer>): MemoryStore {
  const memory = new MemoryStore();
  for (const [name, content] of objects) memory.objects.set(name, content);
  return memory;
}

/** What is wrong with a store: chunks of sealed points that the published index does not lead to. */
async function unrestorable(memory: MemoryStore): Promise<string[]> {
  const repository = await Repository.open('/nowhere', memory);
  const view = { indexRuns: await repository.indexRuns(), packs: await repository.packs() };
  const stored = new Set([...placesOf(await readIndex(memory, view)).values()].flat());
  return (await repository.points()).flatMap(chunksOf).filter((chunk) => !stored.has(chunk));
}

/** Chunks of sealed points, but for the one from the start, that the index leads to damaged copies of alone. */
async function unhealed(memory: MemoryStore): Promise<string[]> {
  const repository = await Repository.open('/nowhere', memory);
  const view = { indexRuns: await repository.indexRuns(), packs: await repository.packs() };
  const places = [...placesOf(await readIndex(memory, view))];
  const damage = await repository.knownDamage();
  const isWhole = (chunk: string) =>
    places.some(([pack, content]) => content.includes(chunk) && !isDamagedIn(damage, chunk, pack));
  const chunks = (await repository.points()).flatMap(chunksOf);
  return chunks.includes('x') ? chunks.filter((chunk) => !isWhole(chunk)) : [];
}

/** What a collection, the recoveries and one more collection leave that should not be there. */
async function leaks(objects: ReadonlyMap<string, Buffer>): Promise<string[]> {
  const memory = storeOf(objects);
  await withIds('first cleaner', () => collectOn(memory));
  await withIds('recovery', () => recoverOn(memory));
  await withIds('second cleaner', () => collectOn(memory));
  const repository = await Repository.open('/nowhere', memory);
  const needed = (await repository.points()).flatMap(chunksOf);
  const stored: string[] = [];
  for (const pack of await repository.packs()) {
    stored.push(...(await getJson<string[]>(memory, packFile(pack))));
  }
  const left = [
    ...(await repository.listIds('condemned')),
    ...(await repository.listIds('pending')),
  ];
  const garbage = stored.filter((chunk) => !needed.includes(chunk));
  const twice = stored.filter((chunk, i) => stored.indexOf(chunk) !== i);
  const stale = [];
  for (const name of await repository.indexRuns()) {
    const packs = Object.keys(await getJson<IndexContent>(memory, `index/${name}`));
    const listed = await repository.packs();
    stale.push(...packs.filter((pack) => !listed.includes(pack)));
  }
  return [...(await unrestorable(memory)), ...left, ...garbage, ...twice, ...stale];
}

interface Found {
  states: number;
  violations: { what: string; path: string[] }[];
}

/** Searches; collects what is wrong at each state instead of stopping at the first. */
async function search(
  programs: readonly Program[],
  {
    leaksToo = true,
    from = start,
    lost = unrestorable,
    ...options
  }: ExploreOptions & {
    leaksToo?: boolean;
    from?: Map<string, Buffer>;
    lost?: (memory: MemoryStore) => Promise<string[]>;
  } = {},
): Promise<Found> {
  const violations: Found['violations'] = [];
  const checked = new Map<number, string>();
  const check = async (state: State, storeId: number) => {
    let wrong = checked.get(storeId);
    if (wrong === undefined) {
      wrong = (await lost(storeOf(state.objects))).length > 0 ? 'unrestorable' : '';
      if (wrong === '' && leaksToo) {
        const left = await leaks(state.objects).catch((error: unknown) => [String(error)]);
        if (left.length > 0) wrong = `leaks ${left.join(' ')}`;
      }
      checked.set(storeId, wrong);
    }
    if (wrong !== '') violations.push({ what: wrong, path: state.path() });
    for (const [program, outcome] of state.ended) {
      // Giving up when others were in the way each time is no violation, but losing data is.
      if (outcome.startsWith('failed') && outcome !== 'failed ERR_REPOSITORY_CHANGED') {
        violations.push({ what: `${program} ${outcome}`, path: state.path() });
      }
    }
  };
  const { states } = await explore(from, programs, check, options);
  return { states, violations };
}

let start: Map<string, Buffer>;
beforeAll(async () => {
  start = await startObjects();
});

describe('every interleaving', () => {
  test(
    'of a writer and a collector that repacks keeps every sealed point and leaks nothing',
    async () => {
      const { states, violations } = await search([writer('W', ['a', 'b', 'x']), collector('C')]);
      expect(violations.slice(0, 1)).toEqual([]);
      expect(states).toBeGreaterThan(1000);
      console.info(`writer, collector: ${states} states`);
    },
    LONG,
  );

  test(
    'of a collector and a reader lets the reader find everything',
    async () => {
      const { states, violations } = await search([collector('C'), reader('R', ['a'])]);
      expect(violations.slice(0, 1)).toEqual([]);
      console.info(`collector, reader: ${states} states`);
    },
    LONG,
  );

  test(
    'of two collectors keeps every sealed point and leaks nothing',
    async () => {
      const { states, violations } = await search([collector('C'), collector('D')]);
      expect(violations.slice(0, 1)).toEqual([]);
      console.info(`two collectors: ${states} states`);
    },
    LONG,
  );
});

describe('a pack that was found damaged', () => {
  /** The pack's copy of a, which a sealed point needs, is damaged. */
  async function damagedStart(): Promise<Map<string, Buffer>> {
    const memory = storeOf(start);
    const repository = await Repository.open('/nowhere', memory);
    const [pack = ''] = await repository.packs();
    const records = [idOf('a')];
    await repository.writeDamage({
      type: 'damage',
      version: 1,
      id: 'd'.repeat(32),
      created: CREATED,
      pack,
      records,
    });
    return memory.objects;
  }

  test(
    'is healed by a writer beside a collector, and what heals it stays',
    async () => {
      const from = await damagedStart();
      const { states, violations } = await search([writer('W', ['a', 'x']), collector('C')], {
        from,
        lost: async (memory) => [...(await unrestorable(memory)), ...(await unhealed(memory))],
        leaksToo: false,
      });
      expect(violations.slice(0, 1)).toEqual([]);
      expect(states).toBeGreaterThan(1000);
      console.info(`healing writer, collector: ${states} states`);
    },
    LONG,
  );

  test('stays as long as it has the only copy, and goes when there is another', async () => {
    const memory = storeOf(await damagedStart());
    const [damaged = ''] = (await memory.list('packs')).map((file) => file.slice(0, -5));
    const packs = async () => (await memory.list('packs')).map((file) => file.slice(0, -5));
    await withIds('first', () => collectOn(memory));
    expect(await packs()).toEqual([damaged]);
    await withIds('writer', () => writer('W', ['a', 'x']).run(memory));
    await withIds('second', () => collectOn(memory));
    expect(await packs()).not.toContain(damaged);
    expect(await unhealed(memory)).toEqual([]);
  });
});

describe('every interleaving with at most so many switches', () => {
  // Three programs have too many orders; mistakes that need more switches than these are rare. FIRN_MODEL_SWITCHES=3 takes minutes.
  const switchesMax = Number(process.env.FIRN_MODEL_SWITCHES ?? 2);
  const recovery: Program = { name: 'F', run: recoverOn };
  const threesomes: [string, () => Program[]][] = [
    [
      'a writer, a collector and a reader',
      () => [writer('W', ['a', 'b', 'x']), collector('C'), reader('R', ['a'])],
    ],
    [
      'a writer, a collector and a recovery',
      () => [writer('W', ['a', 'x']), collector('C'), recovery],
    ],
    [
      'two writers and a collector',
      () => [writer('W', ['a', 'b', 'x']), writer('V', ['b', 'y']), collector('C')],
    ],
    [
      'a writer and two collectors',
      () => [writer('W', ['a', 'b', 'x']), collector('C'), collector('D')],
    ],
  ];
  test.each(threesomes)(
    'of %s loses nothing and leaks nothing',
    async (name, programs) => {
      const { states, violations } = await search(programs(), { switchesMax });
      expect(violations.slice(0, 1)).toEqual([]);
      console.info(`${name}: ${states} states`);
    },
    LONG,
  );
});

describe('a repository whose disk is full', () => {
  test('loses what is dead first, and what has to be copied when there is room', async () => {
    const memory = storeOf(start);
    await withIds('more', async () => {
      const dead = await putPack(memory, ['h']);
      await putIndex(memory, { [dead]: ['h'] });
    });
    const repository = await Repository.open('/nowhere', memory);
    const real = planeOf(memory);
    let isFull = true;
    const plane: CollectionPlane = {
      async mark(request) {
        const marked = await real.mark(request);
        const rescue = (victims: readonly string[]) =>
          isFull ? Promise.reject(firnError('ERR_DISK_FULL', 'no room')) : marked.rescue(victims);
        return { ...marked, rescue };
      },
    };
    const once = (prefix: string) =>
      withIds(prefix, () => collect(repository, plane, { maxWaste: 0 }));
    expect(await once('first')).toMatchObject({ deleted: 1, more: true, rescued: [] });
    await expect(once('second')).rejects.toMatchObject({ code: 'ERR_DISK_FULL' });
    isFull = false;
    expect(await once('third')).toMatchObject({ deleted: 1, more: false, rescuedBytes: 1 });
    expect(await leaks(memory.objects)).toEqual([]);
  });
});

describe('without a rule of the protocol the search finds what goes wrong', () => {
  const programs = () => [writer('W', ['a', 'b', 'x']), collector('C')];
  /** In answer to such a call this program is told what it was told at first. */
  const stale =
    (who: string, ...calls: string[]): Lie =>
    ({ program, call, answer, earlier }) =>
      (program === who && calls.includes(call) ? earlier[0] : undefined) ?? answer;

  async function caught(lie: Lie): Promise<string[]> {
    const { violations } = await search(programs(), { lie, leaksToo: false });
    return violations.map(({ what }) => what);
  }

  test(
    'a writer that does not list the condemned sets again before its seal',
    async () => {
      expect(await caught(stale('W', 'list condemned'))).toContain('unrestorable');
    },
    LONG,
  );

  test(
    'a writer that does not read the generation again before its seal',
    async () => {
      expect(await caught(stale('W', 'get generation'))).toContain('unrestorable');
    },
    LONG,
  );

  test(
    'a collector that does not list the points again after condemning',
    async () => {
      expect(await caught(stale('C', 'list pending', 'list points'))).toContain('unrestorable');
    },
    LONG,
  );

  test(
    'a collector that does not count pending points',
    async () => {
      const blind: Lie = ({ program, call, answer }) =>
        program === 'C' && call === 'list pending' ? { value: [] } : answer;
      expect(await caught(blind)).toContain('unrestorable');
    },
    LONG,
  );
});
