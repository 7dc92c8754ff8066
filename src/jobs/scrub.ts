/**
 * Scrub, `firn verify --all`: the whole repository is checked, bit by bit, a part of it each time.
 *
 * Each run checks every object file and walks all maps, as verify does, and then reads packs in full: those first that were never read, then
 * those whose last reading is longest ago. It may be given a time, after which no pack is begun. What was read is noted in the repository
 * after each batch, so a run that is stopped or killed loses less than a minute, and the next one goes on, on whatever host; several
 * may run at once. Packs come and go meanwhile: one that a collection deletes is passed over.
 *
 * What is damaged is noted too (repository/checks.ts). From then on writers do not rely on such a copy, so that the next backup that
 * has the same content stores it anew; readers take the other copy, and the next prune drops the damaged one.
 */

import type {
  NativeProblem,
  NativeScrubResult,
  NativeStats,
  NativeTuning,
} from '../engine/binding.js';
import {
  loadEngine,
  type RunSessionOptions,
  runSession,
  throwIfAborted,
} from '../engine/engine.js';
import { expected, resolveTuning, type TuningOptions } from '../engine/options.js';
import {
  type CheckTimes,
  mergeChecks,
  readCheckTimes,
  recordChecks,
  recordFinding,
} from '../repository/checks.js';
import { ignoreDamage, readSteadily } from '../repository/commit.js';
import type { DamageObject, PointObject } from '../repository/format/objects.js';
import type { Repository } from '../repository/repository.js';
import { type JobOptions, type Run, startRun } from './run.js';
import { runVerify, type VerifyProblem, type VerifyResult } from './verify.js';

/** A batch takes about this long: what a run that is killed loses. */
const BATCH_MS = 20_000;
const BATCH_PACKS_FIRST = 16;
const BATCH_PACKS_MAX = 4096;
/** Packs whose last readings are as long ago to within this are taken in any order, so that scrubs that run at once seldom meet. */
const SAME_AGE_MS = 3_600_000;
/** Problems of which it is found out what they cost. */
const TRACED_MAX = 1000;
const PACK_BYTES_USUAL = 64 * 2 ** 20;

export interface ScrubOptions extends JobOptions {
  /** After this many milliseconds no pack is begun; but some are read in any case. Until all are read when not given. */
  forMs?: number | undefined;
  tuning?: TuningOptions | undefined;
}

/** What a point loses with a damaged record. */
export interface ScrubLoss {
  point: string;
  vm: string;
  created: string;
  disk: string;
  /** Bytes of the disk, and the first 16 ranges that they are in. All of it if `rangeCount` is 1 and the range is empty. */
  bytes: number;
  rangeCount: number;
  ranges: [offset: number, length: number][];
}

export interface ScrubProblem extends VerifyProblem {
  /** For damaged records: another copy was read and is whole, so no point loses anything. */
  healed?: boolean;
  losses?: ScrubLoss[];
}

export interface ScrubResult extends Omit<VerifyResult, 'problems'> {
  /** The first thousand or so; none if all is well. Damage that was known before and is healed by now is none. */
  problems: ScrubProblem[];
  /** Packs read, and their size. */
  packs: number;
  packBytes: number;
  /** Packs that there was no time for. */
  packsLeft: number;
  /** Records of damage that were taken back, as the pack is sound. */
  lifted: number;
}

/** Checks the repository, or goes on with it. Rejects with ERR_ABORTED when it was stopped: what was read by then is noted. */
export function scrub(repository: Repository, options: ScrubOptions = {}): Run<ScrubResult> {
  return startRun(options, (session) => runScrub(repository, options, session));
}

async function runScrub(
  repository: Repository,
  options: ScrubOptions,
  session: RunSessionOptions,
): Promise<ScrubResult> {
  const { forMs } = options;
  if (forMs !== undefined && !(Number.isSafeInteger(forMs) && forMs >= 1)) {
    throw expected('forMs', 'a number of milliseconds', forMs);
  }
  const begun = performance.now();
  const tuning = resolveTuning(options.tuning);
  const known = await repository.knownDamage();
  let structure = await runVerify(repository, { tuning: options.tuning }, session);
  const rolling = new RollingRead(repository, tuning, session, {
    deadline: forMs === undefined ? undefined : begun + forMs,
  });
  try {
    await rolling.run();
  } finally {
    await mergeChecks(repository, rolling.times);
  }
  throwIfAborted(session.signal);
  // Of packs that cannot be read at all, only the maps tell what was in them.
  if (rolling.lostPacks > 0) {
    structure = await runVerify(repository, { tuning: options.tuning }, session);
  }
  const found = await judge(repository, { structure, rolling, known, tuning }, session);
  const { packs, packBytes, packsLeft, lifted } = rolling;
  return {
    ...found,
    points: structure.points,
    objects: structure.objects,
    chunks: structure.chunks,
    packs,
    packBytes,
    packsLeft,
    lifted,
    stats: rolling.stats ?? structure.stats,
  };
}

interface RollingOptions {
  deadline: number | undefined;
}

/** The reading of packs, batch after batch. */
class RollingRead {
  times!: CheckTimes;
  packs = 0;
  packBytes = 0;
  packsLeft = 0;
  lifted = 0;
  /** Packs of which nothing can be read. */
  lostPacks = 0;
  readonly problems: NativeProblem[] = [];
  problemCount = 0;
  stats: NativeStats | undefined;
  readonly #repository: Repository;
  readonly #tuning: NativeTuning;
  readonly #session: RunSessionOptions;
  readonly #options: RollingOptions;
  /** Packs that need no more reading in this run. */
  readonly #done = new Set<string>();

  constructor(
    repository: Repository,
    tuning: NativeTuning,
    session: RunSessionOptions,
    options: RollingOptions,
  ) {
    this.#repository = repository;
    this.#tuning = tuning;
    this.#session = session;
    this.#options = options;
  }

  async run(): Promise<void> {
    const begun = Date.now();
    this.times = await readCheckTimes(this.#repository);
    let batchPacks = BATCH_PACKS_FIRST;
    for (let batch = 0; ; batch++) {
      const due = await this.#due(begun);
      this.packsLeft = due.length;
      if (due.length === 0 || this.#session.signal?.aborted) return;
      if (batch > 0 && this.#msLeft() === 0) return;
      const started = performance.now();
      const chosen = due.slice(0, batchPacks);
      const read = await this.#readBatch(chosen, due.length);
      this.packsLeft -= read;
      // Stopped, or out of time.
      if (read < chosen.length) return;
      const elapsed = Math.max(1, performance.now() - started);
      const wanted = Math.round((chosen.length * BATCH_MS) / elapsed);
      batchPacks = Math.min(Math.max(wanted, 1), batchPacks * 4, BATCH_PACKS_MAX);
    }
  }

  /** Milliseconds until no pack is to be begun; undefined: there is no end. */
  #msLeft(): number | undefined {
    const { deadline } = this.#options;
    return deadline === undefined ? undefined : Math.max(0, deadline - performance.now());
  }

  /** The packs that are to be read in this run, those that were longest not read first. */
  async #due(begun: number): Promise<string[]> {
    await readCheckTimes(this.#repository, this.times);
    const due: { pack: string; age: number; order: number }[] = [];
    for (const pack of await this.#repository.packs()) {
      if (this.#done.has(pack)) continue;
      const at = this.times.get(pack) ?? Number.NEGATIVE_INFINITY;
      // Another scrub has read it since this one began.
      if (at > begun) continue;
      due.push({ pack, age: Math.floor(at / SAME_AGE_MS), order: Math.random() });
    }
    // Not a difference: those that were never read are infinitely old.
    due.sort((a, b) => (a.age === b.age ? a.order - b.order : a.age < b.age ? -1 : 1));
    return due.map(({ pack }) => pack);
  }

  /** Reads packs and notes what was found; returns how many are done with. */
  async #readBatch(chosen: string[], due: number): Promise<number> {
    const result = await readSteadily(this.#repository, async (native) => {
      const left = this.#msLeft();
      const started = loadEngine().startScrub({
        repository: native,
        tuning: this.#tuning,
        chosen,
        stopAfterMs: left === undefined ? 0 : Math.max(1, Math.ceil(left)),
      });
      return runSession(started, { ...this.#session, onStats: this.#reporter(chosen, due) });
    });
    await this.#note(result);
    return result.packs.length;
  }

  async #note({ packs, problems, problemCount, stats }: NativeScrubResult): Promise<void> {
    const before = await this.#repository.knownDamage();
    const foundIn = new Map<string, string>();
    for (const { pack, message } of problems) {
      if (pack !== undefined && !foundIn.has(pack)) foundIn.set(pack, message);
    }
    for (const { name, sound, whole, damaged, gone } of packs) {
      this.#done.add(name);
      if (gone) continue;
      const records = whole ? undefined : damaged;
      const finding = { pack: name, sound, records, found: foundIn.get(name) };
      this.lifted += await recordFinding(this.#repository, finding, before);
      if (whole) this.lostPacks++;
    }
    const read = packs.filter(({ gone }) => !gone);
    if (read.length > 0) {
      await recordChecks(
        this.#repository,
        this.times,
        read.map(({ name }) => name),
      );
    }
    this.packs += read.length;
    this.packBytes += read.reduce((total, { bytes }) => total + bytes, 0);
    this.problems.push(...problems);
    this.problemCount += problemCount;
    this.stats = this.#total(stats);
  }

  /** Counters of all batches together. */
  #total(stats: NativeStats): NativeStats {
    const { stats: before } = this;
    if (before === undefined) return stats;
    return {
      ...stats,
      elapsedSeconds: before.elapsedSeconds + stats.elapsedSeconds,
      doneBytes: before.doneBytes + stats.doneBytes,
      readBytes: before.readBytes + stats.readBytes,
      totalBytes: before.doneBytes + stats.totalBytes,
    };
  }

  #reporter(chosen: readonly string[], due: number): RunSessionOptions['onStats'] {
    const { onStats } = this.#session;
    if (onStats === undefined) return undefined;
    const later = (due - chosen.length) * PACK_BYTES_USUAL;
    return (stats) => {
      const total = this.#total(stats);
      onStats({ ...total, totalBytes: total.totalBytes + later });
    };
  }
}

interface Findings {
  structure: VerifyResult;
  rolling: RollingRead;
  /** What was known to be damaged before this run. */
  known: readonly DamageObject[];
  tuning: NativeTuning;
}

/** Puts together what was found, with what it costs; damage that was known and is healed is only counted. */
async function judge(
  repository: Repository,
  { structure, rolling, known, tuning }: Findings,
  session: RunSessionOptions,
): Promise<Pick<ScrubResult, 'problems' | 'problemCount' | 'healed'>> {
  const inPacks = new Set(rolling.problems.flatMap(({ id }) => id ?? []));
  const others = structure.problems.filter(({ id }) => id === undefined || !inPacks.has(id));
  const all: ScrubProblem[] = [
    ...others,
    ...rolling.problems.map((problem) => ({ ...problem, points: [] })),
  ];
  const traced = await trace(repository, all, tuning, session);
  const isKnown = ({ pack, id }: ScrubProblem) =>
    known.some(
      (damage) =>
        damage.pack === pack &&
        (id === undefined || damage.records === undefined || damage.records.includes(id)),
    );
  const unhealed = new Set<string>();
  for (const { id, pack } of all) {
    if (id !== undefined && pack !== undefined && traced.get(id)?.readable !== true) {
      unhealed.add(pack);
    }
  }
  const problems: ScrubProblem[] = [];
  let healed = 0;
  for (const problem of all) {
    const { id, pack } = problem;
    const cost = id === undefined ? undefined : traced.get(id);
    const isHealed = cost === undefined ? pack !== undefined && !unhealed.has(pack) : cost.readable;
    if (isHealed && isKnown(problem)) healed++;
    else if (cost === undefined) problems.push(problem);
    else {
      const { losses } = cost;
      const points = [...new Set([...problem.points, ...losses.map(({ point }) => point)])];
      problems.push({ ...problem, healed: cost.readable, points, losses });
    }
  }
  const dropped = structure.problems.length - others.length;
  const problemCount = structure.problemCount - dropped + rolling.problemCount - healed;
  return { problems, problemCount, healed };
}

interface Cost {
  readable: boolean;
  losses: ScrubLoss[];
}

/** What the points lose with the records that problems name. */
async function trace(
  repository: Repository,
  problems: readonly NativeProblem[],
  tuning: NativeTuning,
  session: RunSessionOptions,
): Promise<Map<string, Cost>> {
  const ids = [...new Set(problems.flatMap(({ id }) => id ?? []))].slice(0, TRACED_MAX);
  if (ids.length === 0) return new Map();
  const points = await repository.points(ignoreDamage);
  const roots = [...new Set(points.flatMap(({ disks }) => disks.map(({ root }) => root)))];
  const { records } = await readSteadily(repository, (native) =>
    runSession(loadEngine().startTrace({ repository: native, tuning, roots, ids }), {
      signal: session.signal,
    }),
  );
  return new Map(
    records.map(({ id, readable, losses }) => [
      id,
      { readable, losses: losses.flatMap(({ root, ...loss }) => lossesOf(points, root, loss)) },
    ]),
  );
}

function lossesOf(
  points: readonly PointObject[],
  root: string,
  loss: Pick<ScrubLoss, 'bytes' | 'rangeCount' | 'ranges'>,
): ScrubLoss[] {
  return points.flatMap(({ id, vm, created, disks }) =>
    disks
      .filter((disk) => disk.root === root)
      .map((disk) => ({ point: id, vm: vm.name, created, disk: disk.name, ...loss })),
  );
}
