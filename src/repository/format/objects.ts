/**
 * The JSON objects of a repository, checked member by member. docs/repository-format.md section 3.
 *
 * A repository may come from elsewhere, so what the types promise has been checked at run time: lengths, ranges, hexadecimal digits,
 * names that are to become file names. Members that this version does not know stay in the object, untyped, and are ignored.
 */

import { CONSISTENCIES, type Consistency } from '../../consistency.js';
import { firnError } from '../../errors.js';
import {
  allow,
  checkVersion,
  corrupt,
  has,
  isArrayOf,
  isHex,
  isInteger,
  isMembers,
  isOneOf,
  isPack,
  isText,
  isTime,
  need,
  parseObject,
} from './members.js';
import { isDiskName, labelName } from './names.js';

const DISKS_MAX = 1024;
const STEPS_MAX = 1000;
const FILE_BYTES_MAX = 4 * 2 ** 30;
const PACKS_MAX = 1_000_000;
export const CHECKED_PACKS_MAX = 100_000;
const CHECK_TIMES_MAX = 100_000;
export const DAMAGED_RECORDS_MAX = 10_000;
const PARTITIONS_MAX = 4096;
const TAGS_MAX = 64;
const TAG_LENGTH_MAX = 128;
const SEGMENT_PAGES = 2048;

export type ChunkingObject =
  | { scheme: 'content'; minPages: number; averagePages: number; maxPages: number }
  | { scheme: 'fixed'; pages: number };

export interface ConfigObject {
  type: 'config';
  version: number;
  repositoryId: string;
  created: string;
  /** Not there in a sealed repository: its keys hold it. */
  idKey?: string;
  chunking: ChunkingObject;
  sealed?: boolean;
}

export interface GenerationObject {
  type: 'generation';
  token: string;
}

export interface PointIdentity {
  format: 'raw' | 'vhd' | 'vhdx';
  kind: 'fixed' | 'dynamic' | 'differencing';
  blockBytes: number;
  logicalSectorBytes: number;
  physicalSectorBytes: number;
  diskId: string;
}

export interface PointDisk {
  /** Unique in its point, and fit to be a file's name. */
  name: string;
  /** Where it came from; for people. */
  source?: string;
  sizeBytes: number;
  /** The id of the map's root: the content id of the disk. */
  root: string;
  identity: PointIdentity;
  /**
   * Makes it a file of the machine's configuration instead of a disk: its length, of which sizeBytes is the next multiple of a page. The
   * name is the file's.
   */
  fileBytes?: number;
  /** The point of whose map this one was made, from what a host said had changed since. Absent: the disk was read. */
  base?: string;
  /** Absent: all of the disk is there. */
  unused?: PointUnused;
}

/** What of a disk was left out because no file system on it uses it: zeros in the point, whatever the disk held. */
export interface PointUnused {
  /** The guest had frozen its file systems; otherwise only those that were unmounted cleanly are believed. */
  quiesced: boolean;
  /** Volumes with shadow copies were copied whole. */
  keepShadowCopies: boolean;
  /** Page files, swap files and inactive hibernation files were left out. */
  skipPageFiles: boolean;
  /** By which rules: others may leave out other blocks of the same disk. */
  rules: number;
  skippedBytes: number;
  /** Why nothing is known of the partitions. */
  reasonCode?: string;
  reason?: string;
  /** By offset; the first ones where there are very many. */
  partitions: PointPartition[];
}

/** A partition, or a whole disk without a partition table. */
export interface PointPartition {
  offset: number;
  sizeBytes: number;
  /** "mbr 07", or a GPT type id. */
  type?: string;
  fileSystem?: string;
  /** As the file system counts; 0 where it is not believed. */
  usedBytes: number;
  skippedBytes: number;
  /** Of that, page and hibernation files. */
  pageFileBytes?: number;
  /** Why it was copied whole: a stable word, and the same for people. */
  reasonCode?: string;
  reason?: string;
}

/** How a running machine was captured. */
export interface PointCapture {
  /** The run over machines that this was a part of; its mark bore this id. */
  run: string;
  job?: string;
  wanted: Consistency;
  required: Consistency;
  /** Why less than was wanted was reached. */
  reason?: string;
  frozenAt: string;
  frozenMs?: number;
  hostKind: string;
  hostVersion: string;
  steps: { step: string; begun: string; elapsedMs: number }[];
  /** What the host can be asked for later: which bytes changed since this point. Only the host knows what is in `disks`. */
  reference?: { name: string; method: string; disks: Record<string, unknown> };
}

export interface PointObject {
  type: 'point';
  version: number;
  id: string;
  vm: { name: string; id?: string };
  created: string;
  /** Stands for `created` where points are put in order: there was one of the machine that had that time or a later one (point-order.ts). */
  order?: string;
  consistency: Consistency;
  method: string;
  run: string;
  attempt: number;
  disks: PointDisk[];
  host?: string;
  firn?: string;
  stats?: Record<string, unknown>;
  capture?: PointCapture;
  /** Those it was made with; labels add to them and take away from them. */
  tags?: string[];
  /** Of a copy: the point that it is one of, in the repository where it was made. */
  origin?: PointOrigin;
}

export interface PointOrigin {
  repository: string;
  point: string;
}

/** The disks of a point, without the machine's files. */
export function disksOf(point: PointObject): PointDisk[] {
  return point.disks.filter((disk) => disk.fileBytes === undefined);
}

/** The files of the machine's configuration. */
export function filesOf(point: PointObject): (PointDisk & { fileBytes: number })[] {
  return point.disks.filter((disk) => disk.fileBytes !== undefined) as (PointDisk & {
    fileBytes: number;
  })[];
}

export interface CondemnedObject {
  type: 'condemned';
  id: string;
  packs: string[];
}

/** Which packs a scrub has read, and when by its host's clock. */
export interface ChecksObject {
  type: 'checks';
  version: number;
  id: string;
  checked: { at: string; packs: string[] }[];
}

/** What a scrub has found damaged in one pack. */
export interface DamageObject {
  type: 'damage';
  version: number;
  id: string;
  created: string;
  host?: string;
  pack: string;
  /** The ids of the records that are not to be believed; all of the pack without it, and none where the damage is elsewhere in the pack. */
  records?: string[];
  /** The first thing that was found; for people. */
  found?: string;
}

/** One way to open a sealed repository: its keys, wrapped in a passphrase or a recovery key. */
export interface KeyObject {
  type: 'key';
  version: number;
  id: string;
  created: string;
  /** What it gives: everything, or adding only. */
  capability: 'full' | 'write';
  unlock: 'passphrase' | 'recovery';
  /** For people; anybody who sees the repository can read it. */
  label?: string;
  salt: string;
  /** How costly it is to try a passphrase; of a passphrase's key alone. */
  scrypt?: { cost: number; blockSize: number; parallelization: number };
  /** Tells a wrong passphrase from a key that was tampered with. */
  check: string;
  wrapped: string;
}

interface LabelMembers {
  type: 'label';
  version: number;
  id: string;
  /** The sealed point that it is about. */
  point: string;
  created: string;
  /** The computer that wrote it. */
  host?: string;
}

/**
 * Something said of a sealed point after it was made. A hold keeps it, "tag" and "untag" change its tags, and "forget" announces that
 * somebody is about to remove it.
 */
export type LabelObject = LabelMembers &
  (
    | { kind: 'hold'; reason?: string }
    | { kind: 'tag'; tag: string }
    | { kind: 'untag'; tag: string }
    | { kind: 'forget' }
  );

/** Throws ERR_CORRUPT_OBJECT or ERR_VERSION. */
export function parseConfig(content: Buffer): ConfigObject {
  const config = parseObject(content, 'config');
  checkVersion(config, 'config');
  need(config, 'repositoryId', isHex(32));
  need(config, 'created', isTime);
  need(config, 'chunking', isChunking);
  allow(config, 'sealed', (value) => typeof value === 'boolean');
  if (config.sealed !== true) need(config, 'idKey', isHex(64));
  else if (Object.hasOwn(config, 'idKey')) throw corrupt('a sealed repository that tells its key');
  return config as unknown as ConfigObject;
}

export function parseGeneration(content: Buffer): GenerationObject {
  const generation = parseObject(content, 'generation');
  need(generation, 'token', isHex(32));
  return generation as unknown as GenerationObject;
}

/** `id` is the name that the point was found under. */
export function parsePoint(content: Buffer, id: string): PointObject {
  const point = parseObject(content, 'point');
  checkVersion(point, 'point');
  need(point, 'id', (value) => value === id);
  need(point, 'vm', isVm);
  need(point, 'created', isTime);
  need(point, 'consistency', isConsistency);
  need(point, 'method', isText);
  need(point, 'run', isHex(32));
  need(point, 'attempt', isInteger(0, 0xffff));
  need(point, 'disks', isArrayOf(isDisk, DISKS_MAX));
  allow(point, 'host', isText);
  allow(point, 'firn', isText);
  allow(point, 'stats', isMembers);
  allow(point, 'capture', isCapture);
  allow(point, 'tags', isTags);
  allow(point, 'origin', isOrigin);
  allow(point, 'order', isTime);
  const { disks } = point as unknown as PointObject;
  if (new Set(disks.map((disk) => disk.name.toLowerCase())).size !== disks.length) {
    throw corrupt('a point whose disks do not have different names');
  }
  return point as unknown as PointObject;
}

/** `id` is the name that the set was found under. */
export function parseCondemned(content: Buffer, id: string): CondemnedObject {
  const condemned = parseObject(content, 'condemned');
  need(condemned, 'id', (value) => value === id);
  need(condemned, 'packs', isArrayOf(isPack, PACKS_MAX));
  return condemned as unknown as CondemnedObject;
}

/** `name` is what the label was found under, without its folder. */
export function parseLabel(content: Buffer, name: string): LabelObject {
  const label = parseObject(content, 'label');
  checkVersion(label, 'label');
  need(label, 'id', isHex(32));
  need(label, 'point', isHex(32));
  if (labelName(label as unknown as LabelObject) !== name) {
    throw corrupt('a label of another name than it was found under');
  }
  need(label, 'created', isTime);
  allow(label, 'host', isText);
  need(label, 'kind', isOneOf('hold', 'tag', 'untag', 'forget'));
  if (label.kind === 'hold') allow(label, 'reason', isText);
  if (label.kind === 'tag' || label.kind === 'untag') need(label, 'tag', isTag);
  return label as unknown as LabelObject;
}

/** `id` is the name that the record was found under. */
export function parseChecks(content: Buffer, id: string): ChecksObject {
  const checks = parseObject(content, 'checks');
  checkVersion(checks, 'record of checks');
  need(checks, 'id', (value) => value === id);
  const isChecked = (value: unknown) =>
    has(value, { at: isTime, packs: isArrayOf(isPack, CHECKED_PACKS_MAX) });
  need(checks, 'checked', isArrayOf(isChecked, CHECK_TIMES_MAX));
  return checks as unknown as ChecksObject;
}

/** `id` is the name that the record was found under. */
export function parseDamage(content: Buffer, id: string): DamageObject {
  const damage = parseObject(content, 'damage');
  checkVersion(damage, 'record of damage');
  need(damage, 'id', (value) => value === id);
  need(damage, 'created', isTime);
  need(damage, 'pack', isPack);
  allow(damage, 'records', isArrayOf(isHex(64), DAMAGED_RECORDS_MAX));
  allow(damage, 'host', isText);
  allow(damage, 'found', isText);
  return damage as unknown as DamageObject;
}

/** `id` is the name that the key was found under. */
export function parseKey(content: Buffer, id: string): KeyObject {
  const key = parseObject(content, 'key');
  checkVersion(key, 'key');
  need(key, 'id', isHex(32));
  if (key.id !== id) {
    throw firnError('ERR_SWAPPED', `The key ${String(key.id)} stands under the name ${id}`);
  }
  need(key, 'created', isTime);
  need(key, 'capability', isOneOf('full', 'write'));
  need(key, 'unlock', isOneOf('passphrase', 'recovery'));
  allow(key, 'label', isText);
  need(key, 'salt', isHex(32));
  if (key.unlock === 'passphrase') need(key, 'scrypt', isScrypt);
  need(key, 'check', (value) => typeof value === 'string' && /^[0-9a-f]{16}$/.test(value));
  need(key, 'wrapped', (value) => typeof value === 'string' && /^[0-9a-f]{226}$/.test(value));
  return key as unknown as KeyObject;
}

// Bounded, as it is a stranger who says how much memory and time it takes: 256 MiB, some seconds.
function isScrypt(value: unknown): boolean {
  const isScryptMembers = has(value, {
    cost: (cost) => isInteger(2 ** 10, 2 ** 20)(cost) && Number.isInteger(Math.log2(Number(cost))),
    blockSize: isInteger(1, 16),
    parallelization: isInteger(1, 4),
  });
  if (!isScryptMembers) return false;
  const { cost, blockSize } = value as { cost: number; blockSize: number };
  return cost * blockSize <= 2 ** 21;
}

/** The content of an object file. */
export function encodeObject(
  object:
    | ConfigObject
    | GenerationObject
    | PointObject
    | CondemnedObject
    | LabelObject
    | ChecksObject
    | DamageObject
    | KeyObject,
): Buffer {
  return Buffer.from(JSON.stringify(object), 'utf8');
}

/** True if a point may have this tag: 1 to 128 characters, none a control character or a comma, no space at either end. */
export function isTag(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.length <= TAG_LENGTH_MAX &&
    /^[^\p{Cc},]+$/u.test(value) &&
    value.trim() === value
  );
}

/** True if these may be the tags of a point: no more than 64, each once. */
export function isTags(value: unknown): value is string[] {
  return (
    isArrayOf(isTag, TAGS_MAX)(value) &&
    new Set(value as string[]).size === (value as string[]).length
  );
}

function isVm(value: unknown): boolean {
  return has(value, { name: isText }, { id: isText });
}

function isDisk(value: unknown): boolean {
  return has(
    value,
    {
      name: (name) => typeof name === 'string' && isDiskName(name),
      sizeBytes: isInteger(0, Number.MAX_SAFE_INTEGER),
      root: isHex(64),
      identity: isIdentity,
    },
    {
      source: isText,
      fileBytes: isInteger(0, FILE_BYTES_MAX),
      base: isHex(32),
      unused: isUnused,
    },
  );
}

function isUnused(value: unknown): boolean {
  const isBytes = isInteger(0, Number.MAX_SAFE_INTEGER);
  const isFlag = (flag: unknown) => typeof flag === 'boolean';
  const isPartition = (partition: unknown) =>
    has(
      partition,
      { offset: isBytes, sizeBytes: isBytes, usedBytes: isBytes, skippedBytes: isBytes },
      {
        type: isText,
        fileSystem: isText,
        pageFileBytes: isBytes,
        reasonCode: isText,
        reason: isText,
      },
    );
  return has(
    value,
    {
      quiesced: isFlag,
      keepShadowCopies: isFlag,
      skipPageFiles: isFlag,
      rules: isInteger(1, Number.MAX_SAFE_INTEGER),
      skippedBytes: isBytes,
      partitions: isArrayOf(isPartition, PARTITIONS_MAX),
    },
    { reasonCode: isText, reason: isText },
  );
}

/** True for what names a point of any repository. */
export function isOrigin(value: unknown): value is PointOrigin {
  return has(value, { repository: isHex(32), point: isHex(32) });
}

function isConsistency(value: unknown): boolean {
  return CONSISTENCIES.some((consistency) => consistency === value);
}

function isCapture(value: unknown): boolean {
  const isStep = (step: unknown) =>
    has(step, { step: isText, begun: isTime, elapsedMs: isDuration });
  return has(
    value,
    {
      run: isHex(32),
      wanted: isConsistency,
      required: isConsistency,
      frozenAt: isTime,
      hostKind: isText,
      hostVersion: isText,
      steps: isArrayOf(isStep, STEPS_MAX),
    },
    { job: isText, reason: isText, frozenMs: isDuration, reference: isReference },
  );
}

function isReference(value: unknown): boolean {
  return has(value, { name: isText, method: isText, disks: isMembers });
}

function isDuration(value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && Number.isFinite(value);
}

function isIdentity(value: unknown): boolean {
  const isSector = (bytes: unknown) => bytes === 512 || bytes === 4096;
  return has(value, {
    format: isOneOf('raw', 'vhd', 'vhdx'),
    kind: isOneOf('fixed', 'dynamic', 'differencing'),
    blockBytes: isInteger(0, 256 * 1024 * 1024),
    logicalSectorBytes: isSector,
    physicalSectorBytes: isSector,
    diskId: (id) =>
      typeof id === 'string' &&
      /^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$/.test(id),
  });
}

function isChunking(value: unknown): boolean {
  if (!isMembers(value)) return false;
  const { scheme, pages, minPages, averagePages, maxPages } = value;
  const isPages = isInteger(1, SEGMENT_PAGES);
  if (scheme === 'fixed') return isPages(pages) && SEGMENT_PAGES % (pages as number) === 0;
  return (
    scheme === 'content' &&
    [minPages, averagePages, maxPages].every(isPages) &&
    (minPages as number) <= (averagePages as number) &&
    (averagePages as number) <= (maxPages as number)
  );
}
