/**
 * What scrubs leave in the repository: which packs were read in full and when, and what was found damaged. docs/repository-format.md
 * section 11.
 *
 * Both are small objects, written once under names never used before and at last deleted, so that any number of hosts may scrub one
 * repository without knowing of each other. They are advice and never safety: a lost record of checks means that a pack is read again earlier,
 * a lost record of damage that a copy is believed until it is found damaged again. Times order the work and do nothing else; one that lies
 * ahead by more than clocks differ is not believed, and stays as it is until the pack is read again.
 */

import { hostname } from 'node:os';
import { isFirnError } from '../errors.js';
import { FORMAT_VERSION } from './format/members.js';
import { newId } from './format/names.js';
import { CHECKED_PACKS_MAX, type ChecksObject, type DamageObject } from './format/objects.js';
import type { Repository } from './repository.js';

/** Clocks of hosts that are set right differ by less. */
const CLOCK_SKEW_MS = 24 * 3_600_000;
/** So many records of checks are made one. */
const MERGE_AT = 8;

/** When packs were last read, as far as is known; milliseconds since 1970. */
export class CheckTimes {
  /** Records that this knows all of, by their ids. */
  readonly records = new Set<string>();
  readonly #times = new Map<string, number>();
  /** Times that lie ahead, of packs of which there is no other. */
  readonly #ahead = new Map<string, number>();

  /** When a pack was last read; undefined if never, or if nobody can tell. */
  get(pack: string): number | undefined {
    return this.#times.get(pack);
  }

  /** Takes in a time. Of several the latest counts that does not lie ahead of `now`. */
  add(pack: string, at: number, now: number): void {
    if (at > now + CLOCK_SKEW_MS) {
      this.#ahead.set(pack, at);
      return;
    }
    const known = this.#times.get(pack);
    if (known === undefined || at > known) this.#times.set(pack, at);
  }

  /** A pack was read just now: whatever the clock said before. */
  set(pack: string, at: number): void {
    this.#times.set(pack, at);
    this.#ahead.delete(pack);
  }

  /** All of `packs` with their times. */
  *entries(packs: Iterable<string>): Generator<[pack: string, at: number]> {
    for (const pack of packs) {
      const at = this.#times.get(pack) ?? this.#ahead.get(pack);
      if (at !== undefined) yield [pack, at];
    }
  }
}

/** Reads the records of checks, or into `known` those that it does not have yet. */
export async function readCheckTimes(
  repository: Repository,
  known = new CheckTimes(),
  now = Date.now(),
): Promise<CheckTimes> {
  for (const id of await repository.listIds('checks')) {
    if (known.records.has(id)) continue;
    let record: ChecksObject;
    try {
      record = await repository.readChecks(id);
    } catch (error) {
      // Gone, or damaged: verify reports it, and to a scrub it is worth nothing.
      if (!isFirnError(error)) throw error;
      continue;
    }
    known.records.add(id);
    for (const { at, packs } of record.checked) {
      for (const pack of packs) known.add(pack, Date.parse(at), now);
    }
  }
  return known;
}

/** Notes, durably, that these packs were read. */
export async function recordChecks(
  repository: Repository,
  known: CheckTimes,
  packs: readonly string[],
  now = Date.now(),
): Promise<void> {
  for (const pack of packs) known.set(pack, now);
  await writeTimes(
    repository,
    known,
    packs.map((pack) => [pack, now]),
  );
}

/**
 * Makes few records of many: writes those of packs that are still there anew, and deletes the old ones after that. Others who do the same at
 * the same time leave records that say the same twice.
 */
export async function mergeChecks(repository: Repository, known: CheckTimes): Promise<void> {
  await readCheckTimes(repository, known);
  const old = [...known.records];
  if (old.length < MERGE_AT) return;
  const entries = [...known.entries(await repository.packs())];
  // So many records may be needed for so many packs.
  if (old.length < MERGE_AT + entries.length / CHECKED_PACKS_MAX) return;
  await writeTimes(repository, known, entries);
  for (const id of old) {
    await repository.removeRecord('checks', id);
    known.records.delete(id);
  }
}

async function writeTimes(
  repository: Repository,
  known: CheckTimes,
  entries: readonly (readonly [pack: string, at: number])[],
): Promise<void> {
  for (let first = 0; first < entries.length; first += CHECKED_PACKS_MAX) {
    const groups = new Map<number, string[]>();
    for (const [pack, at] of entries.slice(first, first + CHECKED_PACKS_MAX)) {
      const group = groups.get(at);
      if (group === undefined) groups.set(at, [pack]);
      else group.push(pack);
    }
    const checked = [...groups].map(([at, packs]) => ({ at: new Date(at).toISOString(), packs }));
    const id = newId();
    await repository.writeChecks({ type: 'checks', version: FORMAT_VERSION, id, checked });
    known.records.add(id);
  }
}

/** What a scrub found in a pack that it has just read. */
export interface PackFinding {
  pack: string;
  sound: boolean;
  /** Ids of the records that are not to be believed; undefined: all of the pack. */
  records: readonly string[] | undefined;
  found: string | undefined;
}

/**
 * Replaces what `before` (read before the pack was) says of the pack by what was found: a new record stands before old ones go. Gives the
 * number of records of damage that were lifted because the pack is sound.
 */
export async function recordFinding(
  repository: Repository,
  { pack, sound, records, found }: PackFinding,
  before: readonly DamageObject[],
): Promise<number> {
  const old = before.filter((damage) => damage.pack === pack);
  const [only] = old;
  if (!sound && old.length === 1 && only !== undefined && isSame(only.records, records)) return 0;
  if (!sound) {
    await repository.writeDamage({
      type: 'damage',
      version: FORMAT_VERSION,
      id: newId(),
      created: new Date().toISOString(),
      host: hostname(),
      pack,
      ...(records !== undefined && { records: [...records] }),
      ...(found !== undefined && { found: found.slice(0, 1000) }),
    });
  }
  for (const { id } of old) await repository.removeRecord('damage', id);
  return sound ? old.length : 0;
}

function isSame(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  const known = new Set(a);
  return known.size === new Set(b).size && b.every((id) => known.has(id));
}

/** Deletes the records of damage, and those of checks, that are about packs which are gone alone; returns how many there were. */
export async function clearRecords(repository: Repository): Promise<number> {
  // Records are listed first: they are of packs that were listed, and no pack comes back.
  const damage = await repository.knownDamage();
  const checks: ChecksObject[] = [];
  for (const id of await repository.listIds('checks')) {
    await repository.readChecks(id).then(
      (record) => checks.push(record),
      (error: unknown) => {
        if (!isFirnError(error)) throw error;
      },
    );
  }
  if (damage.length === 0 && checks.length === 0) return 0;
  const packs = new Set(await repository.packs());
  const stale = damage.filter(({ pack }) => !packs.has(pack));
  for (const { id } of stale) await repository.removeRecord('damage', id);
  const isOver = ({ checked }: ChecksObject) =>
    checked.every((each) => each.packs.every((pack) => !packs.has(pack)));
  const over = checks.filter(isOver);
  for (const { id } of over) await repository.removeRecord('checks', id);
  return stale.length + over.length;
}
