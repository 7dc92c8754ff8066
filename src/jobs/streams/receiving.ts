/**
 * The receiver's side: records become packs, and each point is sealed as soon as all that it needs is there.
 *
 * Nothing in a stream is believed. Its records were checked one by one when they were stored; before a point is sealed its maps are walked
 * in the repository, to the last chunk. The seal is a writer's (repository/commit.ts). A point gets an id of its own, because no name is
 * used twice in a repository; `origin` says which point it is a copy of, and a second copy of that is none.
 */

import type { NativeStats, NativeTuning } from '../../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../../engine/engine.js';
import type {
  NativeOpenedStream,
  NativeReceiveResult,
  NativeWholeMaps,
} from '../../engine/stream-binding.js';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import { commitRun, ignoreDamage } from '../../repository/commit.js';
import { newId } from '../../repository/format/names.js';
import type { PointObject } from '../../repository/format/objects.js';
import type { Repository } from '../../repository/repository.js';
import {
  familyOf,
  familyOfRepository,
  originKey,
  originOf,
  parseSentPoint,
  parseStreamHeader,
  type SentPoint,
  type StreamHeader,
} from './header.js';

export interface OpenedStream {
  header: StreamHeader;
  points: SentPoint[];
  native: NativeOpenedStream['stream'];
}

export interface ReceivedPoint {
  /** As it was sent. */
  sent: SentPoint;
  /** The copy. */
  point: PointObject;
  /** A copy was there already: nothing was sealed. */
  isOld: boolean;
  storedBytes: number;
}

export interface Received {
  points: ReceivedPoint[];
  /** Records that came, and those of them that the repository did not have; with their headers. */
  receivedRecords: number;
  receivedBytes: number;
  storedRecords: number;
  storedBytes: number;
  /** Packs that an earlier process had left behind, and that count again. */
  adoptedPacks: number;
  streamBytes: number;
  stats: NativeStats | undefined;
}

/** Reads a stream's beginning. ERR_CORRUPT_STREAM, ERR_STREAM_TRUNCATED, ERR_VERSION. */
export async function openStream(
  fd: number,
  tuning: NativeTuning,
  { signal }: RunSessionOptions,
): Promise<OpenedStream> {
  const opened = await runSession(loadEngine().startOpenStream({ fd, tuning }), { signal });
  return {
    header: parseStreamHeader(opened.header),
    points: opened.points.map(parseSentPoint),
    native: opened.stream,
  };
}

/** ERR_STREAM_MISMATCH unless the repository takes records of the other as they are. */
export function checkFamily(repository: Repository, other: string): void {
  if (familyOfRepository(repository) === other) return;
  throw firnError(
    'ERR_STREAM_MISMATCH',
    `${repository.path} has another id key or other chunk sizes than the repository on the other side`,
    { path: repository.path },
  );
}

/** The copies and the own points of a repository, by what they are copies of. */
export async function pointsByOrigin(repository: Repository): Promise<Map<string, PointObject>> {
  const points = new Map<string, PointObject>();
  for (const point of await repository.points(ignoreDamage)) {
    points.set(originKey(originOf(repository.id, point)), point);
  }
  return points;
}

/** Takes a stream in to its end. What was sealed before a failure stays. */
export async function receiveAll(
  repository: Repository,
  { header, points, native }: OpenedStream,
  tuning: NativeTuning,
  session: RunSessionOptions,
): Promise<Received> {
  checkFamily(repository, header.family ?? familyOf(header.config));
  // Who cannot read what came cannot tell whether all of it is there.
  repository.requireReader('receive points');
  const engine = loadEngine();
  const known = engine.newWholeMaps();
  const generation = await repository.generation();
  const tally = new Tally(header.bytes, session);
  // One more than there are points: the last one reads the stream's end.
  for (let section = 0; section <= points.length; section++) {
    const view = await repository.view();
    const started = engine.startReceive({
      repository: view.native,
      tuning,
      stream: native,
      run: repository.newRun(),
      adopt: section === 0,
      totalBytes: header.bytes,
    });
    const result = await runSession(started, tally.session());
    tally.add(result);
    const sent = points[section];
    if (sent === undefined) break;
    // Asked each time: the same point may be on its way by another one.
    const old = (await pointsByOrigin(repository)).get(originKey(sent.origin));
    const account = { sent, storedBytes: result.stored.bytes };
    if (old !== undefined) {
      tally.points.push({ ...account, point: old, isOld: true });
      continue;
    }
    try {
      const point = await seal(repository, { sent, result, known, tuning }, session.signal);
      tally.points.push({ ...account, point, isOld: false });
    } catch (error) {
      throw await whyNotWhole(repository, error, { generation, leavesOut: header.leavesOut });
    }
  }
  return tally.result();
}

interface Sealing {
  sent: SentPoint;
  result: NativeReceiveResult;
  known: NativeWholeMaps;
  tuning: NativeTuning;
}

async function seal(
  repository: Repository,
  { sent, result, known, tuning }: Sealing,
  signal: AbortSignal | undefined,
): Promise<PointObject> {
  const maps = sent.disks.map(({ root, sizeBytes }) => ({ root, sizeBytes }));
  const run = newId();
  const { point } = await commitRun(
    repository,
    {
      store: async (native) => {
        const started = loadEngine().startCheckWhole({ repository: native, tuning, maps, known });
        const { packs } = await runSession(started, { signal });
        return { packs: [], reliedPacks: packs };
      },
      point: (_stored, attempt) => ({
        ...sent,
        id: newId(),
        run,
        attempt,
        stats: { ...sent.stats, storedBytes: result.stored.bytes },
      }),
    },
    signal,
  );
  return point;
}

/** A chunk that is missing means different things to whoever sends, and all of them may be tried again. */
async function whyNotWhole(
  repository: Repository,
  error: unknown,
  { generation, leavesOut }: { generation: string; leavesOut: boolean },
): Promise<unknown> {
  const isMissing =
    isFirnError(error) && (error.code === 'ERR_CHUNK_MISSING' || error.code === 'ERR_PACK_MISSING');
  if (!isMissing) return error;
  const { message } = error as FirnError;
  if ((await repository.generation()) !== generation) {
    return firnError(
      'ERR_REPOSITORY_CHANGED',
      `A collection deleted what had been received: ${message}`,
      { hint: 'Send it again: what is left of it is found.', cause: error },
    );
  }
  if (leavesOut) {
    return firnError(
      'ERR_HAVE_STALE',
      `The stream leaves out what the repository does not have: ${message}`,
      { cause: error },
    );
  }
  return firnError(
    'ERR_CORRUPT_STREAM',
    `The stream does not hold all that its point needs: ${message}`,
    { cause: error },
  );
}

/** Adds up the sections of a stream, and makes one progress of theirs. */
class Tally {
  readonly points: ReceivedPoint[] = [];
  readonly #startedMs = performance.now();
  readonly #totalBytes: number;
  readonly #session: RunSessionOptions;
  #received = { records: 0, bytes: 0 };
  #stored = { records: 0, bytes: 0 };
  #newBytes = 0;
  #adoptedPacks = 0;
  #streamBytes = 0;
  #largestBytes = 0;
  #stats: NativeStats | undefined;

  constructor(totalBytes: number, session: RunSessionOptions) {
    this.#totalBytes = totalBytes;
    this.#session = session;
  }

  /** For the next section. */
  session(): RunSessionOptions {
    const { signal, onStats, intervalMs } = this.#session;
    if (onStats === undefined) return { signal };
    return { signal, intervalMs, onStats: (stats) => onStats(this.#ofAll(stats)) };
  }

  add({ received, stored, adoptedPacks, streamBytes, stats }: NativeReceiveResult): void {
    // Where the time went is what the largest section has to say.
    if (this.#stats === undefined || received.bytes > this.#largestBytes) {
      this.#largestBytes = received.bytes;
      this.#stats = stats;
    }
    this.#received.records += received.records;
    this.#received.bytes += received.bytes;
    this.#stored.records += stored.records;
    this.#stored.bytes += stored.bytes;
    this.#newBytes += stats.newBytes;
    this.#adoptedPacks += adoptedPacks;
    this.#streamBytes = streamBytes;
  }

  result(): Received {
    return {
      points: this.points,
      receivedRecords: this.#received.records,
      receivedBytes: this.#received.bytes,
      storedRecords: this.#stored.records,
      storedBytes: this.#stored.bytes,
      adoptedPacks: this.#adoptedPacks,
      streamBytes: this.#streamBytes,
      stats: this.#stats === undefined ? undefined : this.#account(this.#stats),
    };
  }

  #account(stats: NativeStats): NativeStats {
    return {
      ...stats,
      elapsedSeconds: this.#elapsedSeconds(),
      totalBytes: this.#totalBytes,
      doneBytes: this.#received.bytes,
      newBytes: this.#newBytes,
      storedBytes: this.#stored.bytes,
    };
  }

  #elapsedSeconds(): number {
    return (performance.now() - this.#startedMs) / 1000;
  }

  #ofAll(stats: NativeStats): NativeStats {
    return {
      ...stats,
      phase: stats.phase === 'open' && this.#received.records > 0 ? 'copy' : stats.phase,
      elapsedSeconds: this.#elapsedSeconds(),
      totalBytes: this.#totalBytes,
      doneBytes: this.#received.bytes + stats.doneBytes,
      newBytes: this.#newBytes + stats.newBytes,
      storedBytes: this.#stored.bytes + stats.storedBytes,
    };
  }
}
