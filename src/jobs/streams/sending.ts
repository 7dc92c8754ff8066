/**
 * The sender's side: a stream of points, counted first and then written.
 *
 * A reader's rule holds: when a collection moves packs under the work, everything is listed again and the same stream goes on where it was.
 */

import type { NativeRepository, NativeTuning } from '../../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../../engine/engine.js';
import type {
  NativeHave,
  NativeSendResult,
  NativeSendStream,
} from '../../engine/stream-binding.js';
import { isFirnError } from '../../errors.js';
import { ignoreDamage, isQuiet, mayHaveMoved } from '../../repository/commit.js';
import type { Repository } from '../../repository/repository.js';
import type { LabelledPoint } from '../../repository/retention.js';
import {
  familyOfRepository,
  originOf,
  rootsOf,
  type SentPoint,
  STREAM_VERSION,
  type StreamHeader,
} from './header.js';

/** Rounds in a row that got nowhere. */
const STALLED_ROUNDS_MAX = 5;

export interface Sending {
  points: readonly LabelledPoint[];
  tuning: NativeTuning;
  /** What need not be sent: what this repository has, what a list names, and these maps, of which the other side has all. */
  target?: Repository | undefined;
  have?: NativeHave | undefined;
  haveRoots?: readonly string[] | undefined;
  bytesPerSecond?: number | undefined;
}

export type SendCounts = Pick<NativeSendResult, 'sent' | 'skipped'>;

/** What the stream will hold; nothing is written. */
export function countStream(
  repository: Repository,
  sending: Sending,
  session: RunSessionOptions,
): Promise<NativeSendResult> {
  const stream = newStream(repository, sending, undefined, { records: 0, bytes: 0 });
  // Counting takes a while in large repositories, but has no bytes to report.
  return writeSteadily(repository, sending, stream, 0, { signal: session.signal });
}

/** Writes the stream to a descriptor, which stays open. `expected` is what countStream gave. */
export function writeStream(
  repository: Repository,
  sending: Sending,
  { fd, expected }: { fd: number; expected: SendCounts },
  session: RunSessionOptions,
): Promise<NativeSendResult> {
  const stream = newStream(repository, sending, fd, expected.sent);
  return writeSteadily(repository, sending, stream, expected.sent.bytes, session);
}

function newStream(
  repository: Repository,
  sending: Sending,
  fd: number | undefined,
  { records, bytes }: { records: number; bytes: number },
): NativeSendStream {
  const header: StreamHeader = {
    type: 'stream',
    version: STREAM_VERSION,
    created: new Date().toISOString(),
    config: repository.config,
    ...(repository.isSealed && { family: familyOfRepository(repository) }),
    records,
    bytes,
    leavesOut: sending.target !== undefined || sending.have !== undefined,
  };
  return loadEngine().newSendStream({
    ...(fd !== undefined && { fd }),
    bytesPerSecond: sending.bytesPerSecond ?? 0,
    header: JSON.stringify(header),
    points: sending.points.map((each) => ({
      json: JSON.stringify(sentPoint(repository, each)),
      roots: rootsOf(each.point),
    })),
  });
}

/**
 * A point as it goes elsewhere: with the tags that it has by now, and without what means something only where it was made. (The base it was
 * made from is a point there, and the host's change tracking goes on from the point there.)
 */
function sentPoint(repository: Repository, { point, tags }: LabelledPoint): SentPoint {
  const { capture, tags: _own, ...rest } = point;
  const { reference: _reference, ...captured } = capture ?? {};
  return {
    ...rest,
    ...(capture !== undefined && { capture: captured as NonNullable<typeof capture> }),
    ...(tags.length > 0 && { tags: [...tags] }),
    disks: point.disks.map(({ base: _base, ...disk }) => disk),
    origin: originOf(repository.id, point),
  };
}

async function writeSteadily(
  repository: Repository,
  sending: Sending,
  stream: NativeSendStream,
  totalBytes: number,
  { signal, onStats, intervalMs }: RunSessionOptions,
): Promise<NativeSendResult> {
  let stalled = 0;
  let doneBytes = 0;
  for (;;) {
    const view = await repository.view(ignoreDamage);
    const target = await sending.target?.view();
    const doneBefore = doneBytes;
    const session = loadEngine().startSend({
      repository: view.native,
      tuning: sending.tuning,
      stream,
      ...(target !== undefined && { target: target.native as NativeRepository }),
      ...(sending.have !== undefined && { have: sending.have }),
      haveRoots: [...(sending.haveRoots ?? [])],
      totalBytes,
    });
    try {
      return await runSession(session, { signal, onStats, intervalMs });
    } catch (error) {
      if (!isFirnError(error) || !mayHaveMoved(error.code)) throw error;
      if (await isQuiet(repository, view)) throw error;
      doneBytes = session.stats().doneBytes;
      stalled = doneBytes > doneBefore ? 0 : stalled + 1;
      if (stalled === STALLED_ROUNDS_MAX) throw error;
    }
  }
}
