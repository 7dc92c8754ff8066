/**
 * The collector's side of the protocol: packs that no point needs go, and what is still needed of mostly dead ones moves.
 *
 * It runs beside writers, readers and other collectors, and may die at any step; docs/repository-format.md section 10 has the steps, and the
 * order of the calls here is that order. Two things make it safe. A writer looks at the condemned sets after its pending point stands, and a
 * collector looks at the points after its condemned set stands: so of the two that meet, one sees the other. And nothing is deleted that
 * is not, at that second look, held by a pack which stays. Whoever finds a condemned set of a dead collector condemns its packs too,
 * and lifts the set when they are gone.
 *
 * What is live is found out by a data plane, natively in earnest; the lists, the order and the decisions are made here.
 */

import type { NativeMarkedPack, NativeMarkResult } from '../engine/binding.js';
import { throwIfAborted } from '../engine/engine.js';
import { firnError, isFirnError } from '../errors.js';
import { mayHaveMoved } from './commit.js';
import { packFile } from './format/names.js';
import type { DamageObject, PointObject } from './format/objects.js';
import type { Repository } from './repository.js';

const ROUNDS_MAX = 5;
/** One collection condemns no more than this, and copies no more: a long one is done in parts, each of which lasts. */
const VICTIMS_MAX = 20_000;
const RESCUE_BYTES_MAX = 16 * 2 ** 30;
/** Packs below this are small, as opening them costs more than reading them; so many of them are joined. Larger ones move for their waste alone. */
const SMALL_PACK_BYTES = 2 ** 20;
const SMALL_PACKS_MAX = 16;
/** Index runs whose entries are as many to within a factor of four are a tier; so many of a tier are merged. */
const TIER_RUNS_MAX = 8;
const TIER_ENTRIES_MAX = 2 ** 22;
const DELETES_AT_ONCE = 8;

/** Everything as it was listed, in the protocol's order. */
export interface CollectionView {
  readonly generation: string;
  /** The packs of each condemned set. */
  readonly sets: ReadonlyMap<string, readonly string[]>;
  readonly pending: readonly PointObject[];
  readonly points: readonly PointObject[];
  readonly indexRuns: readonly string[];
  readonly packs: readonly string[];
  /** Copies that were found damaged: they are no reason to delete another. */
  readonly damage: readonly DamageObject[];
}

export interface MarkRequest {
  view: CollectionView;
  /** Packs that others have condemned, and those that can't be read: no place to rely on. */
  condemned: readonly string[];
  /** Packs that this collection has condemned; of packs that no index run names, then only these are of interest. */
  victims: readonly string[] | undefined;
}

export interface Rescued {
  packs: string[];
  indexRuns: string[];
  bytes: number;
  damaged: { pack: string; code: string; message: string }[];
}

/** What was marked, and what can be done with it until it is released. */
export interface Marked extends Pick<NativeMarkResult, 'packs' | 'indexRuns' | 'missing'> {
  /** Copies what only these packs hold of what is live, durably and named by index runs. */
  rescue(victims: readonly string[]): Promise<Rescued>;
  /** Writes index runs with what these have, without the dropped packs; durably. */
  mergeIndex(indexRuns: readonly string[], dropped: readonly string[]): Promise<string[]>;
  release(): void;
}

/** Finds out what is live. */
export interface CollectionPlane {
  mark(request: MarkRequest): Promise<Marked>;
}

export interface CollectionOptions {
  /** The share of a pack that may be waste, 0..1. */
  maxWaste: number;
  /** Only finds out what would go. */
  dryRun?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export interface CollectionResult {
  packsBefore: number;
  bytesBefore: number;
  /** What is live, each record once. */
  liveBytes: number;
  /** Packs deleted, or that would be. */
  deleted: number;
  deletedBytes: number;
  /** Written, in the place of deleted ones. */
  rescued: string[];
  rescuedBytes: number;
  /** Condemned, and then needed after all. */
  spared: number;
  /** Packs that could not be copied from: they stay. */
  damaged: Rescued['damaged'];
  indexRunsBefore: number;
  indexRunsReplaced: number;
  indexRunsWritten: string[];
  /** Condemned sets of other collections that were finished. */
  finishedSets: number;
  /** There is more to do than one collection does. */
  more: boolean;
}

/** One collection. ERR_REPOSITORY_CHANGED if others were in its way each time; ERR_CHUNK_MISSING and the like if a point is not whole. */
export async function collect(
  repository: Repository,
  plane: CollectionPlane,
  options: CollectionOptions,
): Promise<CollectionResult> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const result = await collectUnlessOvertaken(repository, plane, options);
    if (result !== undefined) return result;
  }
  throw overtaken();
}

/** Undefined if another collection took away what this one was to copy: nothing is condemned then, and it begins anew. */
async function collectUnlessOvertaken(
  repository: Repository,
  plane: CollectionPlane,
  options: CollectionOptions,
): Promise<CollectionResult | undefined> {
  const { signal } = options;
  // Steps 1 and 2: what is there, and what should stay of it.
  const { view, marked } = await survey(repository, plane, undefined, signal);
  try {
    const plan = choose(view, marked.packs, options.maxWaste);
    const result = emptyResult(view, marked);
    result.more = plan.more;
    const tidy = runsToReplace(marked.indexRuns, new Set(view.packs), new Set());
    if (plan.victims.length === 0 && view.sets.size === 0 && tidy.length === 0) return result;
    if (options.dryRun === true) return foresee(result, plan, marked.packs, tidy);
    // Step 3: what only victims hold is somewhere else, and findable there, before anything is condemned.
    const rescued = await rescue(marked, plan);
    if (rescued === undefined) return undefined;
    result.rescued = rescued.packs;
    result.rescuedBytes = rescued.bytes;
    result.damaged = rescued.damaged;
    const damaged = new Set(rescued.damaged.map(({ pack }) => pack));
    const chosen = rescued.isFull ? plan.dead : plan.victims;
    const victims = chosen.filter((pack) => !damaged.has(pack));
    // What this one deletes makes room for the next one to copy.
    result.more ||= rescued.isFull;
    marked.release();
    throwIfAborted(signal);
    // Step 4.
    const set = await repository.condemn(victims);
    return await finish(repository, plane, {
      own: { set, victims, distrusted: [...damaged] },
      result,
      signal,
    });
  } finally {
    marked.release();
  }
}

/** What this collection has condemned. */
interface OwnSet {
  set: string;
  victims: readonly string[];
  /** Packs that stay, but that nobody should rely on as the only place of anything. */
  distrusted: readonly string[];
}

interface Condemned {
  own: OwnSet;
  result: CollectionResult;
  signal: AbortSignal | undefined;
}

/** Steps 5 to 9. */
async function finish(
  repository: Repository,
  plane: CollectionPlane,
  { own, result, signal }: Condemned,
): Promise<CollectionResult> {
  const { set, victims } = own;
  let marked: Marked | undefined;
  try {
    let doomed: NativeMarkedPack[];
    let view: CollectionView;
    try {
      // Step 5: a second look, in the same order, now that the set stands.
      ({ view, marked } = await survey(repository, plane, own, signal));
      const condemned = new Set(victims);
      const listed = marked.packs.filter((pack) => condemned.has(pack.name));
      doomed = listed.filter((pack) => pack.known && !pack.needed);
      result.spared = listed.length - doomed.length;
      throwIfAborted(signal);
    } catch (error) {
      // Nothing has been deleted: the set may go, and the next one need not finish it. If that fails, the next one does.
      await repository.liftCondemned(set).catch(() => {});
      throw error;
    }
    // Step 6. From here on it is carried through; whoever finds it half done does the rest.
    await deleteAll(
      repository,
      doomed.map(({ name }) => packFile(name)),
    );
    result.deleted = doomed.length;
    result.deletedBytes = doomed.reduce((total, pack) => total + pack.fileBytes, 0);
    const gone = new Set(doomed.map(({ name }) => name));
    // Step 7.
    const replaced = runsToReplace(marked.indexRuns, new Set(view.packs), gone);
    if (replaced.length > 0) {
      result.indexRunsWritten = await marked.mergeIndex(replaced, [...gone]);
      // Some systems delete no file that is mapped.
      marked.release();
      await deleteAll(
        repository,
        replaced.map((name) => `index/${name}`),
      );
    }
    result.indexRunsReplaced = replaced.length;
    // Step 8.
    await repository.moveGeneration();
    // Step 9: the own set, and those of others of which nothing is left.
    for (const other of finishedSets(view, set, gone)) {
      await repository.liftCondemned(other);
      result.finishedSets++;
    }
    await repository.liftCondemned(set);
    return result;
  } finally {
    marked?.release();
  }
}

/**
 * Lists everything and marks what is live, again while others move things about. With a condemned set of one's own, absence is believed
 * only if nothing changed over the round: a pending point is given up there in part.
 */
async function survey(
  repository: Repository,
  plane: CollectionPlane,
  own: OwnSet | undefined,
  signal: AbortSignal | undefined,
): Promise<{ view: CollectionView; marked: Marked }> {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    throwIfAborted(signal);
    const view = await lookAround(repository);
    const others = [...view.sets].filter(([id]) => id !== own?.set).flatMap(([, packs]) => packs);
    const condemned = [...new Set([...others, ...(own?.distrusted ?? [])])];
    const request = { view, condemned, victims: own?.victims };
    let marked: Marked;
    try {
      marked = await plane.mark(request);
    } catch (error) {
      if (!isFirnError(error) || !mayHaveMoved(error.code)) throw error;
      if (await stoodStill(repository, view)) throw error;
      continue;
    }
    if (marked.missing === 0 || own === undefined || (await stoodStill(repository, view))) {
      return { view, marked };
    }
    marked.release();
  }
  throw overtaken();
}

function overtaken() {
  return firnError(
    'ERR_REPOSITORY_CHANGED',
    `Other runs changed the repository under this collection ${ROUNDS_MAX} times`,
    { hint: 'Nothing is lost and nothing is half done. Run the prune again.' },
  );
}

/** The protocol's order: condemned sets, points, index runs, packs, and what is known of damage last. */
async function lookAround(repository: Repository): Promise<CollectionView> {
  const generation = await repository.generation();
  const sets = new Map<string, string[]>();
  for (const id of await repository.listIds('condemned')) {
    sets.set(id, await repository.readCondemned(id));
  }
  // Pending ones first: one that is sealed between the two listings is in the second.
  const pending: PointObject[] = [];
  for (const id of await repository.listIds('pending')) {
    const point = await unlessGone(repository.readPending(id));
    if (point !== undefined) pending.push(point);
  }
  const points = await repository.points();
  const indexRuns = await repository.indexRuns();
  const packs = await repository.packs();
  const damage = await repository.knownDamage();
  return { generation, sets, pending, points, indexRuns, packs, damage };
}

async function unlessGone(read: Promise<PointObject>): Promise<PointObject | undefined> {
  try {
    return await read;
  } catch (error) {
    if (isFirnError(error) && error.code === 'ERR_POINT_NOT_FOUND') return undefined;
    throw error;
  }
}

/** True if, since the view, no set came or went, no index run came or went, and the generation stood: what was absent is not there. */
async function stoodStill(repository: Repository, view: CollectionView): Promise<boolean> {
  const sets = await repository.listIds('condemned');
  const indexRuns = await repository.indexRuns();
  return (
    areEqual(sets, [...view.sets.keys()]) &&
    areEqual(indexRuns, view.indexRuns) &&
    (await repository.generation()) === view.generation
  );
}

function areEqual(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((each, i) => each === b[i]);
}

interface Plan {
  victims: string[];
  /** Those of the victims of which nothing has to be copied. */
  dead: string[];
  more: boolean;
}

/**
 * Step 2. Victims are packs that are wasteful, packs that no index run names, packs that another collector has condemned, and damaged ones
 * all of which can be had elsewhere or moved; small packs when there are many. Those that cost least to be rid of come first. A pack with
 * the last copy of something stays even if that copy is damaged: what is left of it may be worth something to somebody.
 */
function choose(view: CollectionView, packs: readonly NativeMarkedPack[], maxWaste: number): Plan {
  const condemned = new Set([...view.sets.values()].flat());
  const known = packs.filter((pack) => pack.known);
  const isVictim = (pack: NativeMarkedPack) =>
    !pack.unhealed &&
    (!pack.named ||
      pack.damaged ||
      condemned.has(pack.name) ||
      pack.ownedBytes === 0 ||
      wasteOf(pack) > maxWaste);
  const candidates = known.filter(isVictim);
  const stays = known.filter((pack) => !isVictim(pack) && !pack.unhealed);
  for (const isMap of [false, true]) {
    const small = stays.filter((pack) => pack.map === isMap && pack.fileBytes < SMALL_PACK_BYTES);
    if (small.length >= SMALL_PACKS_MAX) candidates.push(...small);
  }
  candidates.sort((a, b) => wasteOf(b) - wasteOf(a));
  const victims: string[] = [];
  const dead: string[] = [];
  let rescueBytes = 0;
  for (const pack of candidates) {
    const bytes = pack.needed ? pack.liveBytes : pack.ownedBytes;
    const isTooMuch = victims.length > 0 && rescueBytes + bytes > RESCUE_BYTES_MAX;
    if (isTooMuch || victims.length >= VICTIMS_MAX) return { victims, dead, more: true };
    rescueBytes += bytes;
    victims.push(pack.name);
    if (bytes === 0) dead.push(pack.name);
  }
  // Packs that there was no memory to look into are for the next one, if this one makes any way.
  return { victims, dead, more: known.length < packs.length && victims.length > 0 };
}

function wasteOf({ recordBytes, ownedBytes }: NativeMarkedPack): number {
  return recordBytes === 0 ? 1 : 1 - ownedBytes / recordBytes;
}

/**
 * Step 3. Undefined if a victim has gone meanwhile. `isFull`: there is no room to copy, but there are packs to delete that need none; what was
 * copied until then stands, and is found by the next collection.
 */
async function rescue(
  marked: Marked,
  { victims, dead }: Plan,
): Promise<(Rescued & { isFull: boolean }) | undefined> {
  const nothing = { packs: [], indexRuns: [], bytes: 0, damaged: [] };
  if (victims.length === dead.length) return { ...nothing, isFull: false };
  try {
    return { ...(await marked.rescue(victims)), isFull: false };
  } catch (error) {
    if (!isFirnError(error)) throw error;
    if (mayHaveMoved(error.code)) return undefined;
    if (error.code === 'ERR_DISK_FULL' && dead.length > 0) return { ...nothing, isFull: true };
    throw error;
  }
}

/** Index runs that name a pack which is gone or that another one names too, and tiers of which there are too many. */
function runsToReplace(
  runs: Marked['indexRuns'],
  listed: ReadonlySet<string>,
  gone: ReadonlySet<string>,
): string[] {
  const replaced = new Set<string>();
  const namedBy = new Map<string, string>();
  for (const { name, packs } of runs) {
    for (const pack of packs) {
      const other = namedBy.get(pack);
      if (!listed.has(pack) || gone.has(pack)) replaced.add(name);
      if (other !== undefined) replaced.add(name).add(other);
      namedBy.set(pack, name);
    }
  }
  const tiers = new Map<number, string[]>();
  for (const { name, entries } of runs) {
    if (entries > TIER_ENTRIES_MAX) continue;
    const tier = Math.floor(Math.log2(entries + 1) / 2);
    tiers.set(tier, [...(tiers.get(tier) ?? []), name]);
  }
  for (const names of tiers.values()) {
    if (names.length >= TIER_RUNS_MAX) for (const name of names) replaced.add(name);
  }
  return [...replaced];
}

/** Sets of others whose packs are all gone. */
function finishedSets(view: CollectionView, own: string, gone: ReadonlySet<string>): string[] {
  const listed = new Set(view.packs);
  return [...view.sets]
    .filter(
      ([id, packs]) => id !== own && packs.every((pack) => gone.has(pack) || !listed.has(pack)),
    )
    .map(([id]) => id);
}

async function deleteAll(repository: Repository, names: readonly string[]): Promise<void> {
  for (let i = 0; i < names.length; i += DELETES_AT_ONCE) {
    const some = names.slice(i, i + DELETES_AT_ONCE);
    await Promise.all(some.map((name) => repository.store.delete(name)));
  }
}

function emptyResult(view: CollectionView, { packs, indexRuns }: Marked): CollectionResult {
  return {
    packsBefore: view.packs.length,
    bytesBefore: packs.reduce((total, pack) => total + pack.fileBytes, 0),
    liveBytes: packs.reduce((total, pack) => total + pack.ownedBytes, 0),
    deleted: 0,
    deletedBytes: 0,
    rescued: [],
    rescuedBytes: 0,
    spared: 0,
    damaged: [],
    indexRunsBefore: indexRuns.length,
    indexRunsReplaced: 0,
    indexRunsWritten: [],
    finishedSets: 0,
    more: false,
  };
}

/** What a dry run says. */
function foresee(
  result: CollectionResult,
  plan: Plan,
  packs: readonly NativeMarkedPack[],
  tidy: readonly string[],
): CollectionResult {
  const victims = new Set(plan.victims);
  for (const pack of packs.filter(({ name }) => victims.has(name))) {
    result.deleted++;
    result.deletedBytes += pack.fileBytes;
    result.rescuedBytes += pack.needed ? pack.liveBytes : pack.ownedBytes;
  }
  result.indexRunsReplaced = tidy.length;
  return result;
}
