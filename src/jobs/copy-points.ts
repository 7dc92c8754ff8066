/**
 * Copy points: send and receive between two repositories that this computer reaches, of which only what the target lacks is read.
 *
 * Both ends are native jobs with a pipe between them, so that a copy goes the very way that a stream over a line goes. The target's own
 * index says what it has. When a collection at the target takes away what has arrived, the rest is copied again.
 */

import { closeSync } from 'node:fs';
import type { NativeStats, NativeTuning } from '../engine/binding.js';
import { loadEngine, type RunSessionOptions } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import { firnError, isFirnError } from '../errors.js';
import type { Repository } from '../repository/repository.js';
import type { LabelledPoint } from '../repository/retention.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { familyOfRepository, originKey, originOf } from './streams/header.js';
import {
  checkFamily,
  openStream,
  pointsByOrigin,
  type Received,
  type ReceivedPoint,
  receiveAll,
} from './streams/receiving.js';
import { type PointSelection, selectPoints } from './streams/selection.js';
import { countStream, type SendCounts, type Sending, writeStream } from './streams/sending.js';

const ATTEMPTS_MAX = 3;

export interface CopyPointsOptions extends JobOptions, PointSelection {
  /** No more than so many, averaged over a second. */
  bytesPerSecond?: number | undefined;
  /** Finds out what would be copied, and changes nothing. */
  dryRun?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface CopyPointsResult {
  dryRun: boolean;
  /** Copied, or with `dryRun` to be copied: those that the target has no copy of. */
  points: LabelledPoint[];
  /** Those that the target has. */
  left: LabelledPoint[];
  copies: ReceivedPoint[];
  records: number;
  bytes: number;
  /** Of these points: what the target had already. */
  skippedRecords: number;
  skippedBytes: number;
  storedBytes: number;
  attempts: number;
  stats: NativeStats | undefined;
}

/** Copies points from one repository to another, its sibling. ERR_STREAM_MISMATCH if it is none. */
export function copyPoints(
  source: Repository,
  target: Repository,
  options: CopyPointsOptions,
): Run<CopyPointsResult> {
  return startRun(options, (session) => runCopyPoints(source, target, options, session));
}

async function runCopyPoints(
  source: Repository,
  target: Repository,
  options: CopyPointsOptions,
  session: RunSessionOptions,
): Promise<CopyPointsResult> {
  const tuning = resolveTuning(options.tuning);
  if (source.id === target.id) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected two repositories but received one twice');
  }
  checkFamily(target, familyOfRepository(source));
  if (source.isSealed && !target.isSealed) {
    throw firnError('ERR_UNSUPPORTED', 'What is sealed is not copied to where it would not be', {
      hint: 'Copy to a sealed sibling ("firn init --sealed --like REPO"). If the copy may be open: "firn send --unsealed" there, and "firn receive".',
    });
  }
  const { dryRun = false, bytesPerSecond } = options;
  const chosen = await selectPoints(source, options);
  const result: CopyPointsResult = {
    dryRun,
    points: [],
    left: [],
    copies: [],
    records: 0,
    bytes: 0,
    skippedRecords: 0,
    skippedBytes: 0,
    storedBytes: 0,
    attempts: 0,
    stats: undefined,
  };
  for (const attempt of Array.from({ length: ATTEMPTS_MAX }, (_, i) => i + 1)) {
    const there = await pointsByOrigin(target);
    const isThere = ({ point }: LabelledPoint) => there.has(originKey(originOf(source.id, point)));
    const points = chosen.filter((each) => !isThere(each));
    if (attempt === 1) {
      result.points = points;
      result.left = chosen.filter(isThere);
    }
    const sending = { points, tuning: halfOf(tuning), target, bytesPerSecond };
    const expected = await countStream(source, sending, session);
    result.attempts = attempt;
    if (attempt === 1) {
      result.skippedRecords = expected.skipped.records;
      result.skippedBytes = expected.skipped.bytes;
    }
    if (dryRun || points.length === 0) return addUp(result, expected, undefined);
    try {
      return addUp(
        result,
        expected,
        await transfer(source, target, { sending, expected }, session),
      );
    } catch (error) {
      if (attempt === ATTEMPTS_MAX || !isOvertaken(error)) throw error;
    }
  }
  return result;
}

function isOvertaken(error: unknown): boolean {
  return (
    isFirnError(error) &&
    (error.code === 'ERR_REPOSITORY_CHANGED' || error.code === 'ERR_HAVE_STALE')
  );
}

function addUp(
  result: CopyPointsResult,
  { sent }: SendCounts,
  received: Received | undefined,
): CopyPointsResult {
  return {
    ...result,
    copies: received?.points ?? [],
    records: sent.records,
    bytes: sent.bytes,
    storedBytes: received?.storedBytes ?? 0,
    stats: received?.stats,
  };
}

/** Two jobs run at a time. */
function halfOf(tuning: NativeTuning): NativeTuning {
  return {
    ...tuning,
    workers: Math.max(1, Math.floor(tuning.workers / 2)),
    memoryBytes: Math.floor(tuning.memoryBytes / 2),
  };
}

/**
 * Each end is closed when its own job has ended, and not before: then the other one sees the stream end, or its reader gone. Of two failures
 * the one that caused the other is thrown.
 */
async function transfer(
  source: Repository,
  target: Repository,
  { sending, expected }: { sending: Sending; expected: SendCounts },
  session: RunSessionOptions,
): Promise<Received> {
  const [input, output] = loadEngine().newPipe();
  const sender = writeStream(
    source,
    sending,
    { fd: output, expected },
    { signal: session.signal },
  ).finally(() => closeSync(output));
  const receiver = (async () => {
    const stream = await openStream(input, sending.tuning, session);
    return receiveAll(target, stream, sending.tuning, session);
  })().finally(() => closeSync(input));
  const [sent, received] = await Promise.allSettled([sender, receiver]);
  if (received.status === 'fulfilled' && sent.status === 'fulfilled') return received.value;
  const failures = [received, sent].flatMap((each) =>
    each.status === 'rejected' ? [each.reason as unknown] : [],
  );
  throw failures.find((error) => !isConsequence(error)) ?? failures[0];
}

function isConsequence(error: unknown): boolean {
  const isGone = isFirnError(error) && error.code === 'ERR_WRITE' && error.op === 'write';
  return isGone || (isFirnError(error) && error.code === 'ERR_STREAM_TRUNCATED');
}
