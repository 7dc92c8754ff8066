/**
 * Send: points become one stream of bytes, compressed, each record once, that checks itself. docs/stream-format.md.
 *
 * The stream goes to a descriptor: a pipe, a file, a tape. Its records go there natively, as they stand in packs.
 */

import type { NativeStats, NativeTuning } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import type { NativeHave } from '../engine/stream-binding.js';
import { firnError } from '../errors.js';
import type { Repository } from '../repository/repository.js';
import type { LabelledPoint } from '../repository/retention.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { withInput } from './streams/descriptors.js';
import { originKey, originOf, parseHaveHeader } from './streams/header.js';
import { checkFamily } from './streams/receiving.js';
import { type PointSelection, selectPoints } from './streams/selection.js';
import { countStream, writeStream } from './streams/sending.js';

export interface SendOptions extends JobOptions, PointSelection {
  /** Where to: an open descriptor, which stays open. Without one the stream is only counted. */
  fd?: number | undefined;
  /** A file that "firn receive --list-have" has written: what need not be sent. */
  have?: string | undefined;
  /** A stream is not sealed: of a sealed repository it is made only if this is true. */
  unsealed?: boolean | undefined;
  /** No more than so many, averaged over a second. */
  bytesPerSecond?: number | undefined;
  tuning?: TuningOptions | undefined;
}

export interface SendResult {
  /** In the stream, oldest first. */
  points: LabelledPoint[];
  /** Of those that were asked for: what the other side has already. */
  left: LabelledPoint[];
  /** Records in the stream, and what they take with their headers. */
  records: number;
  bytes: number;
  /** Records that the list names. */
  skippedRecords: number;
  skippedBytes: number;
  /** The stream's length; 0 if it was only counted. */
  streamBytes: number;
  stats: NativeStats;
}

/** Sends points. ERR_STREAM_MISMATCH if the list is of a repository that is no sibling; ERR_WRITE if the reader goes away. */
export function send(repository: Repository, options: SendOptions): Run<SendResult> {
  return startRun(options, (session) => runSend(repository, options, session));
}

async function runSend(
  repository: Repository,
  options: SendOptions,
  session: RunSessionOptions,
): Promise<SendResult> {
  if (repository.isSealed && options.unsealed !== true && options.fd !== undefined) {
    throw firnError('ERR_UNSUPPORTED', 'A stream is not sealed, and this repository is', {
      hint: 'Pass --unsealed and see to it that nobody else reads the stream, or use "firn copy-points".',
    });
  }
  const tuning = resolveTuning(options.tuning);
  const chosen = await selectPoints(repository, options);
  const there =
    options.have === undefined
      ? undefined
      : await readHave(repository, options.have, tuning, session);
  const isThere = ({ point }: LabelledPoint) =>
    there?.origins.has(originKey(originOf(repository.id, point))) === true;
  const points = chosen.filter((each) => !isThere(each));
  const sending = {
    points,
    tuning,
    bytesPerSecond: options.bytesPerSecond,
    ...(there !== undefined && { have: there.have, haveRoots: there.roots }),
  };
  const expected = await countStream(repository, sending, session);
  const { sent, skipped, streamBytes, stats } =
    options.fd === undefined
      ? expected
      : await writeStream(repository, sending, { fd: options.fd, expected }, session);
  return {
    points,
    left: chosen.filter(isThere),
    records: sent.records,
    bytes: sent.bytes,
    skippedRecords: skipped.records,
    skippedBytes: skipped.bytes,
    streamBytes,
    stats,
  };
}

interface There {
  have: NativeHave;
  roots: string[];
  origins: Set<string>;
}

async function readHave(
  repository: Repository,
  file: string,
  tuning: NativeTuning,
  { signal }: RunSessionOptions,
): Promise<There> {
  return withInput(file, async (fd) => {
    const read = await runSession(loadEngine().startReadHave({ fd, tuning }), { signal });
    const header = parseHaveHeader(read.header);
    checkFamily(repository, header.family);
    return {
      have: read.have,
      roots: [...new Set(header.points.flatMap(({ roots }) => roots))],
      origins: new Set(header.points.map(({ origin }) => originKey(origin))),
    };
  });
}
