/**
 * What a stream of points and a list of what a repository has say of themselves: JSON in their first frames. docs/stream-format.md.
 *
 * Both come from elsewhere: everything in them is checked before it is used. Records may go from one repository to another only if both
 * have one family, which is to say the same id key and the same chunking: then equal content has equal ids and equal maps.
 */

import { firnError, isFirnError } from '../../errors.js';
import { blake3 } from '../../repository/format/keys.js';
import { isId } from '../../repository/format/names.js';
import {
  type ConfigObject,
  isOrigin,
  type PointObject,
  type PointOrigin,
  parseConfig,
  parsePoint,
} from '../../repository/format/objects.js';
import type { Repository } from '../../repository/repository.js';

export const STREAM_VERSION = 1;
/** A list's header is one frame, of which a point takes some hundred bytes; the newest are kept. */
const HAVE_POINTS_MAX = 20_000;
const ROOTS_MAX = 1024;

export interface StreamHeader {
  type: 'stream';
  version: number;
  created: string;
  /** Of the repository that the points come from. */
  config: ConfigObject;
  /** Where that is sealed, as its config does not tell. */
  family?: string;
  /** In the whole stream. */
  records: number;
  bytes: number;
  /** Records were left out because a list said that the receiver has them. */
  leavesOut: boolean;
}

export interface HaveHeader {
  type: 'have';
  version: number;
  created: string;
  repositoryId: string;
  family: string;
  points: HavePoint[];
}

/** A point that the other side has whole. */
export interface HavePoint {
  origin: PointOrigin;
  roots: string[];
}

/** A point as it was sent: `origin` is always there. */
export type SentPoint = PointObject & { origin: PointOrigin };

/**
 * What the repositories have in common that can take each other's records: 64 digits. ERR_KEY_REQUIRED for the bare config of a sealed one,
 * which does not have the id key.
 */
export function familyOf({ idKey, chunking }: Pick<ConfigObject, 'idKey' | 'chunking'>): string {
  if (idKey === undefined) {
    throw firnError('ERR_KEY_REQUIRED', 'The id key of a sealed repository is not in its config');
  }
  const sizes =
    chunking.scheme === 'fixed'
      ? [chunking.pages]
      : [chunking.minPages, chunking.averagePages, chunking.maxPages];
  return blake3(Buffer.from([idKey, chunking.scheme, ...sizes].join(' '))).toString('hex');
}

/** The same of a repository that is open. */
export function familyOfRepository({ idKey, config }: Repository): string {
  return familyOf({ idKey, chunking: config.chunking });
}

/** ERR_CORRUPT_STREAM, ERR_VERSION. */
export function parseStreamHeader(content: Uint8Array): StreamHeader {
  return checked('header', () => {
    const header = parseMembers(content, 'stream');
    checkVersion(header);
    const config = parseConfig(Buffer.from(JSON.stringify(header.config ?? null)));
    const { records, bytes, leavesOut, family } = header;
    if (config.sealed === true && typeof family !== 'string') {
      throw firnError('ERR_CORRUPT_STREAM', 'it has no family');
    }
    if (!isCount(records) || !isCount(bytes) || typeof leavesOut !== 'boolean') {
      throw firnError('ERR_CORRUPT_STREAM', 'its counts are not what the format allows');
    }
    return { ...header, config, records, bytes, leavesOut } as StreamHeader;
  });
}

/** ERR_CORRUPT_STREAM, ERR_VERSION. */
export function parseHaveHeader(content: Uint8Array): HaveHeader {
  return checked('header', () => {
    const header = parseMembers(content, 'have');
    checkVersion(header);
    const { family, points } = header;
    const isGood =
      typeof family === 'string' &&
      Array.isArray(points) &&
      points.length <= HAVE_POINTS_MAX &&
      points.every(isHavePoint);
    if (!isGood) throw firnError('ERR_CORRUPT_STREAM', 'it is not what the format allows');
    return header as unknown as HaveHeader;
  });
}

/** A point from a stream. ERR_CORRUPT_STREAM, ERR_VERSION. */
export function parseSentPoint(content: Uint8Array): SentPoint {
  return checked('point', () => {
    const { id } = parseMembers(content, 'point');
    if (typeof id !== 'string' || !isId(id)) {
      throw firnError('ERR_CORRUPT_STREAM', 'it has no id');
    }
    const point = parsePoint(Buffer.from(content), id);
    if (point.origin === undefined) throw firnError('ERR_CORRUPT_STREAM', 'it has no origin');
    return point as SentPoint;
  });
}

export function haveHeader(
  repository: Repository,
  points: readonly PointObject[],
): { header: HaveHeader; leftOut: number } {
  const newest = points.slice(-HAVE_POINTS_MAX);
  const header: HaveHeader = {
    type: 'have',
    version: STREAM_VERSION,
    created: new Date().toISOString(),
    repositoryId: repository.id,
    family: familyOfRepository(repository),
    points: newest.map((point) => ({
      origin: originOf(repository.id, point),
      roots: rootsOf(point),
    })),
  };
  return { header, leftOut: points.length - newest.length };
}

/** Where a point was made first: itself, unless it is a copy. */
export function originOf(repository: string, point: PointObject): PointOrigin {
  return point.origin ?? { repository, point: point.id };
}

/** As a key of a set. */
export function originKey({ repository, point }: PointOrigin): string {
  return `${repository}/${point}`;
}

/** The maps of a point, each once. */
export function rootsOf(point: PointObject): string[] {
  return [...new Set(point.disks.map(({ root }) => root))];
}

function parseMembers(content: Uint8Array, type: string): Record<string, unknown> {
  const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(content));
  const members = value as Record<string, unknown> | null;
  if (typeof members !== 'object' || members === null || members.type !== type) {
    throw firnError('ERR_CORRUPT_STREAM', `it is not of type "${type}"`);
  }
  return members;
}

function checkVersion({ version }: Record<string, unknown>): void {
  if (!isCount(version) || version < 1) {
    throw firnError('ERR_CORRUPT_STREAM', 'its version is not what the format allows');
  }
  if (version > STREAM_VERSION) {
    throw firnError(
      'ERR_VERSION',
      `The stream has format version ${version}; this Firn reads up to ${STREAM_VERSION}`,
    );
  }
}

/** Runs a check of what a stream holds; what fails it is the stream. */
function checked<Result>(what: string, check: () => Result): Result {
  try {
    return check();
  } catch (error) {
    if (isFirnError(error) && (error.code === 'ERR_VERSION' || error.code === 'ERR_UNSUPPORTED')) {
      throw error;
    }
    const message = error instanceof Error ? error.message : String(error);
    throw firnError('ERR_CORRUPT_STREAM', `A ${what} in the stream: ${message}`, { cause: error });
  }
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isHavePoint(value: unknown): boolean {
  const { origin, roots } = (value ?? {}) as Partial<HavePoint>;
  return (
    isOrigin(origin) &&
    Array.isArray(roots) &&
    roots.length <= ROOTS_MAX &&
    roots.every((root) => typeof root === 'string' && /^[0-9a-f]{64}$/.test(root))
  );
}
