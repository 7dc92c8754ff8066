/**
 * Labels: what is said of a sealed point after it was made. Holds that keep it, tags that came or went, and the announcement that it is
 * about to be removed. docs/repository-format.md section 9.
 *
 * A point never changes, so each statement is a small object of its own, written once and at last deleted. What a point's labels mean
 * depends on which there are and not on their order, so two who label at a time need no clock to agree, and a crash between two steps
 * leaves a state that one of them had before or wanted.
 *
 * Holding and forgetting may meet. Each writes first and looks then: who forgets announces it, looks for holds, and removes the point;
 * who holds writes the hold, looks for announcements, and then for the point. So one of them sees the other, and a hold that was
 * reported as one keeps its point. A label that cannot be read may be a hold, and so it is one.
 */

import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { expected } from '../engine/options.js';
import { type FirnError, firnError, isFirnError } from '../errors.js';
import { FORMAT_VERSION, isText } from './format/members.js';
import { labelName, newId, pointOfLabel } from './format/names.js';
import { isTags, type LabelObject, type PointObject } from './format/objects.js';
import type { OnDamaged, Repository } from './repository.js';
import type { LabelledPoint } from './retention.js';

/** A forget that was announced ends in moments unless its process died. */
const LOOKS_MAX = 100;
const LOOK_EVERY_MS = 20;

/** A label as it was found. */
interface FoundLabel {
  name: string;
  /** Undefined if it could not be read. */
  label: LabelObject | undefined;
  error?: FirnError;
}

/** The labels of points, by the point's id. */
export type PointLabels = ReadonlyMap<string, readonly FoundLabel[]>;

/** All labels, or those of one point. What cannot be read is among them. */
export async function readLabels(repository: Repository, point?: string): Promise<PointLabels> {
  const found = new Map<string, FoundLabel[]>();
  for (const name of await repository.labels()) {
    const of = pointOfLabel(name);
    if (point !== undefined && of !== point) continue;
    const each = await tryReadLabel(repository, name);
    if (each === undefined) continue;
    const known = found.get(of);
    if (known === undefined) found.set(of, [each]);
    else known.push(each);
  }
  return found;
}

/** Undefined if it is gone. */
async function tryReadLabel(repository: Repository, name: string): Promise<FoundLabel | undefined> {
  try {
    return { name, label: await repository.readLabel(name) };
  } catch (error) {
    if (!isFirnError(error)) throw error;
    if (error.code === 'ERR_NOT_FOUND') return undefined;
    return { name, label: undefined, error };
  }
}

/** The sealed points with their labels, oldest first. Points and labels that cannot be read are handed to `onDamaged`. */
export async function labelledPoints(
  repository: Repository,
  onDamaged: OnDamaged,
): Promise<LabelledPoint[]> {
  const points = await repository.points(onDamaged);
  const labels = await readLabels(repository);
  for (const [point, found] of labels) {
    for (const { error } of found) if (error !== undefined) onDamaged(point, error);
  }
  return points.map((point) => withLabels(point, labels));
}

/** A point with what its labels say of it. */
export function withLabels(point: PointObject, labels: PointLabels): LabelledPoint {
  const own = labels.get(point.id) ?? [];
  return { point, tags: tagsOf(point, own), held: heldBy(own) };
}

/** Those the point was made with or that were added, but for those that were taken away. */
function tagsOf(point: PointObject, labels: readonly FoundLabel[]): string[] {
  const tags = new Set(point.tags ?? []);
  for (const { label } of labels) if (label?.kind === 'tag') tags.add(label.tag);
  for (const { label } of labels) if (label?.kind === 'untag') tags.delete(label.tag);
  return [...tags].sort();
}

function heldBy(labels: readonly FoundLabel[]): string | undefined {
  const why: string[] = [];
  for (const { label } of labels) {
    if (label === undefined) why.push('a label that cannot be read');
    else if (label.kind === 'hold' && label.reason !== undefined) why.push(label.reason);
  }
  const isHeld = labels.some(({ label }) => label === undefined || label.kind === 'hold');
  if (!isHeld) return undefined;
  return why.length > 0 ? `held: ${[...new Set(why)].join('; ')}` : 'held';
}

/** What holds a point. A label that cannot be read may be a hold, so it counts as one. */
export type Hold = Pick<LabelObject, 'created' | 'host'> & { reason?: string };
export type UnreadableLabel = { error: FirnError };

/** The holds of a point, oldest first, and after them the labels that cannot be read. */
export function holdsOf({ id }: PointObject, labels: PointLabels): (Hold | UnreadableLabel)[] {
  const holds: Hold[] = [];
  const unreadable: UnreadableLabel[] = [];
  for (const { label, error } of labels.get(id) ?? []) {
    if (error !== undefined) unreadable.push({ error });
    if (label?.kind !== 'hold') continue;
    const { created, host, reason } = label;
    holds.push({
      created,
      ...(host !== undefined && { host }),
      ...(reason !== undefined && { reason }),
    });
  }
  holds.sort((a, b) => Date.parse(a.created) - Date.parse(b.created));
  return [...holds, ...unreadable];
}

/**
 * Holds a point: it is not forgotten until the hold is released. False if a forget of this point was announced before and is still under
 * way, or died: then the hold stands, but the point may yet go. ERR_POINT_NOT_FOUND if it went.
 */
export async function holdPoint(
  repository: Repository,
  { id }: PointObject,
  reason?: string,
): Promise<boolean> {
  if (reason !== undefined && !isText(reason)) {
    throw expected('reason', 'a text of 1 to 4096 characters', reason);
  }
  const kind = { kind: 'hold' as const, ...(reason !== undefined && { reason }) };
  const name = await putLabel(repository, id, kind);
  for (let look = 1; ; look++) {
    const own = (await readLabels(repository, id)).get(id) ?? [];
    const isAnnounced = own.some(({ label }) => label?.kind === 'forget');
    try {
      await repository.readPoint(id);
    } catch (error) {
      if (isFirnError(error) && error.code === 'ERR_POINT_NOT_FOUND') {
        await repository.removeLabel(name);
      }
      throw error;
    }
    if (!isAnnounced) return true;
    if (look === LOOKS_MAX) return false;
    await delay(LOOK_EVERY_MS);
  }
}

/** Takes all holds of a point away, also labels that are damaged; returns how many there were. */
export async function releasePoint(repository: Repository, { id }: PointObject): Promise<number> {
  let released = 0;
  for (const { name, label, error } of (await readLabels(repository, id)).get(id) ?? []) {
    // What a newer version wrote is not damaged, and not ours to delete.
    if (label?.kind !== 'hold' && error?.code !== 'ERR_CORRUPT_OBJECT') continue;
    await repository.removeLabel(name);
    released++;
  }
  return released;
}

export interface TagChanges {
  add?: readonly string[] | undefined;
  remove?: readonly string[] | undefined;
}

/** Adds tags to a point and takes others away; returns those that it has then. ERR_INVALID_ARGUMENT for what cannot be a point's tags. */
export async function changeTags(
  repository: Repository,
  point: PointObject,
  { add = [], remove = [] }: TagChanges,
): Promise<string[]> {
  const own = (await readLabels(repository, point.id)).get(point.id) ?? [];
  const tags = new Set(tagsOf(point, own));
  const added = [...new Set(add)].filter((tag) => !tags.has(tag));
  const removed = [...new Set(remove)].filter((tag) => tags.has(tag));
  for (const tag of added) tags.add(tag);
  for (const tag of removed) tags.delete(tag);
  const wanted = [...tags].sort();
  if (!isTags(wanted) || add.some((tag) => remove.includes(tag))) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected at most 64 tags of 1 to 128 characters without commas, none both added and removed',
    );
  }
  const drop = async (kind: 'tag' | 'untag', tag: string) => {
    for (const { name, label } of own) {
      if (label?.kind === kind && label.tag === tag) await repository.removeLabel(name);
    }
  };
  for (const tag of added) {
    const isOriginal = point.tags?.includes(tag) === true;
    if (!isOriginal) await putLabel(repository, point.id, { kind: 'tag', tag });
    await drop('untag', tag);
  }
  for (const tag of removed) {
    const isOriginal = point.tags?.includes(tag) === true;
    if (isOriginal) await putLabel(repository, point.id, { kind: 'untag', tag });
    await drop('tag', tag);
  }
  return wanted;
}

/**
 * Removes a point, and then its labels. False if it is held, and then nothing was done; `force` takes a held one too. A crash leaves the
 * point, or labels of no point, which clearLabels takes away.
 */
export async function forgetPoint(
  repository: Repository,
  id: string,
  options: { force?: boolean | undefined } = {},
): Promise<boolean> {
  const announced = await putLabel(repository, id, { kind: 'forget' });
  if (options.force !== true) {
    const own = (await readLabels(repository, id)).get(id) ?? [];
    if (heldBy(own) !== undefined) {
      await repository.removeLabel(announced);
      return false;
    }
  }
  // If this fails the announcement stays: a store may still do what it reported as failed.
  await repository.removePoint(id);
  const names = (await repository.labels()).filter((name) => pointOfLabel(name) === id);
  // The announcement last: who holds the point meanwhile waits for it to go, and then finds no point.
  for (const name of names.filter((each) => each !== announced)) await repository.removeLabel(name);
  await repository.removeLabel(announced);
  return true;
}

/** Takes away the labels of points that are gone; returns how many there were. */
export async function clearLabels(repository: Repository): Promise<number> {
  // Labels are listed first: they are put on sealed points alone, and a point that is gone does not come back.
  const labels = await repository.labels();
  const points = new Set(await repository.listIds('points'));
  const orphans = labels.filter((name) => !points.has(pointOfLabel(name)));
  for (const name of orphans) await repository.removeLabel(name);
  return orphans.length;
}

type LabelKind =
  | { kind: 'hold'; reason?: string }
  | { kind: 'tag' | 'untag'; tag: string }
  | { kind: 'forget' };

/** Writes a label, durably; returns its name. */
async function putLabel(repository: Repository, point: string, kind: LabelKind): Promise<string> {
  const label: LabelObject = {
    type: 'label',
    version: FORMAT_VERSION,
    id: newId(),
    point,
    created: new Date().toISOString(),
    host: hostname(),
    ...kind,
  } as LabelObject;
  await repository.writeLabel(label);
  return labelName(label);
}
