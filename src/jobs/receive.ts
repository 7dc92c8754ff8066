/**
 * Receive: a stream of points is taken into a repository. docs/stream-format.md.
 *
 * What has arrived whole is kept whatever happens, and found when the same comes again: that is how a transfer goes on after a break. A
 * point is sealed only when all that it needs is there.
 */

import { loadEngine, type RunSessionOptions, runSession } from '../engine/engine.js';
import { resolveTuning, type TuningOptions } from '../engine/options.js';
import { firnError, isFirnError } from '../errors.js';
import { ignoreDamage } from '../repository/commit.js';
import type { ConfigObject } from '../repository/format/objects.js';
import { type Access, Repository } from '../repository/repository.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { haveHeader } from './streams/header.js';
import { openStream, type Received, receiveAll } from './streams/receiving.js';

export interface ReceiveOptions extends JobOptions {
  /** Where from: an open descriptor, which stays open. What follows the stream's end is not read. */
  fd: number;
  /** Makes the repository, if there is none, as a sibling of the one that sends. */
  init?: boolean | undefined;
  /** How the repository is opened if it is sealed. */
  access?: Access | undefined;
  tuning?: TuningOptions | undefined;
}

export interface ReceiveResult extends Received {
  repository: Repository;
  /** The repository was made. */
  isNew: boolean;
}

/**
 * Receives a stream into the repository in a folder. ERR_STREAM_MISMATCH if it is no sibling of the sender's, ERR_STREAM_TRUNCATED,
 * ERR_CORRUPT_STREAM, ERR_HAVE_STALE, ERR_REPOSITORY_CHANGED: points that were sealed before stay.
 */
export function receive(path: string, options: ReceiveOptions): Run<ReceiveResult> {
  return startRun(options, (session) => runReceive(path, options, session));
}

async function runReceive(
  path: string,
  { fd, init = false, access, tuning: wanted }: ReceiveOptions,
  session: RunSessionOptions,
): Promise<ReceiveResult> {
  const tuning = resolveTuning(wanted);
  // Opened first: with no repository there is nothing to wait for the sender for.
  let repository = await openUnlessNew(path, init, access);
  const isNew = repository === undefined;
  const stream = await openStream(fd, tuning, session);
  repository ??= await makeSibling(path, stream.header.config);
  const received = await receiveAll(repository, stream, tuning, session);
  return { ...received, repository, isNew };
}

async function makeSibling(path: string, like: ConfigObject): Promise<Repository> {
  if (like.sealed !== true) return Repository.create(path, { like });
  // A sealed repository's id key is not in its config, and so not in the stream.
  throw firnError(
    'ERR_UNSUPPORTED',
    'The stream is of a sealed repository, which --init cannot make a sibling of',
    {
      hint: 'Make it where both can be reached, with "firn init --sealed --like REPO", and receive into that.',
    },
  );
}

async function openUnlessNew(
  path: string,
  init: boolean,
  access: Access | undefined,
): Promise<Repository | undefined> {
  try {
    return await Repository.open(path, undefined, access);
  } catch (error) {
    if (init && isFirnError(error) && error.code === 'ERR_REPOSITORY_NOT_FOUND') return undefined;
    throw error;
  }
}

export interface ListHaveOptions extends JobOptions {
  /** Where to: an open descriptor, which stays open. */
  fd: number;
  /** Also every record, with eight bytes: for going on after a break without sending again what has arrived. */
  records?: boolean | undefined;
  tuning?: TuningOptions | undefined;
}

export interface ListHaveResult {
  points: number;
  /** Points that the list has no room for: the oldest. */
  leftOut: number;
  records: number;
}

/** Writes what the repository has, for a sender. */
export function listHave(repository: Repository, options: ListHaveOptions): Run<ListHaveResult> {
  return startRun(options, async (session) => {
    const tuning = resolveTuning(options.tuning);
    const points = await repository.points(ignoreDamage);
    const { header, leftOut } = haveHeader(repository, points);
    const view = await repository.view(ignoreDamage);
    const started = loadEngine().startWriteHave({
      repository: view.native,
      tuning,
      fd: options.fd,
      header: JSON.stringify(header),
      records: options.records === true,
    });
    const { records } = await runSession(started, session);
    return { points: header.points.length, leftOut, records };
  });
}
