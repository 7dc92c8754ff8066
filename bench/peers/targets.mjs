/**
 * Turns samples into medians and ratios, and holds them against the targets.
 *
 * A ratio is taken inside each round, between runs that stood minutes apart, and the median of
 * those ratios is judged: a slow hour of the machine then weighs on both sides. What could not be
 * measured is neither passed nor missed, and says why.
 */

/** Faster-than targets: Firn's task against a peer's, at least `factor` times. */
const SPEED_TARGETS = [
  { task: 'full', firn: 'firn-lz4', peer: 'restic', factor: 5 },
  { task: 'full', firn: 'firn-lz4', peer: 'borg-lz4', factor: 4 },
  { task: 'second', firn: 'firn-lz4', peer: 'restic', factor: 2.5 },
  { task: 'second', firn: 'firn-lz4', peer: 'borg-lz4', factor: 2.5 },
  { task: 'restore', firn: 'firn-lz4', peer: 'restic', factor: 6 },
  { task: 'restore', firn: 'firn-lz4', peer: 'borg-lz4', factor: 5 },
  { task: 'copy', firn: 'firn-copy', peer: 'qemu-img', factor: 1.5 },
];

/**
 * Tasks whose output is a disk. Firn's is durable when it ends and the peers' may still lie in memory, so these are also compared until
 * the output is on the disk.
 */
const SETTLED_TASKS = ['restore', 'copy'];

/** Smaller-than targets: stored bytes over the three images, at most `factor` of the peer's. */
const STORED_TARGETS = [
  { firn: 'firn-lz4', peer: 'borg-lz4', factor: 0.85 },
  { firn: 'firn-zstd', peer: 'restic', factor: 0.95 },
];

const CEILING_SHARE_MIN = 0.75;
const PEAK_BYTES_MAX = 256 * 2 ** 20;
const WIDE_FACTOR_MAX = 1.2;

export const TASK_TITLES = {
  full: 'first full backup',
  second: 'second backup after churn',
  restore: 'restore of the whole disk',
  copy: 'copy of VHDX to raw',
  narrow: 'full backup again, for the next',
  wide: 'full backup, 64 TiB virtual disk',
};

/** @returns {{ median: number, min: number, max: number, values: number[] } | undefined} */
export function summarise(values) {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median =
    sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1), values };
}

/** Until the process ended. */
const untilExit = (one) => one.seconds;
/** Until all that it wrote was on the disk. */
const untilSettled = (one) => one.seconds + one.settleSeconds;

/** Seconds of a contender at a task, by round. */
function secondsByRound(samples, task, contender, duration = untilExit) {
  const matching = samples.filter((one) => one.task === task && one.contender === contender);
  return new Map(matching.map((one) => [one.round, duration(one)]));
}

function ratios(above, below) {
  return [...above]
    .filter(([round]) => below.has(round))
    .map(([round, seconds]) => seconds / below.get(round));
}

function verdict(name, target, summary, passes, format) {
  if (summary === undefined) return { name, target, result: 'not measured', passed: undefined };
  const spread =
    summary.values?.length > 1 ? ` (${format(summary.min)} to ${format(summary.max)})` : '';
  return {
    name,
    target,
    result: format(summary.median) + spread,
    median: summary.median,
    rounds: summary.values,
    passed: passes(summary.median),
  };
}

const asFactor = (value) => `${value.toFixed(2)}x`;
const asPercent = (value) => `${(value * 100).toFixed(0)} %`;
const asMebibytes = (value) => `${(value / 2 ** 20).toFixed(0)} MiB`;

function judgeSpeed(samples, { task, firn, peer, factor }, duration) {
  const summary = summarise(
    ratios(
      secondsByRound(samples, task, peer, duration),
      secondsByRound(samples, task, firn, duration),
    ),
  );
  const until = duration === untilSettled ? ', until written back' : '';
  return verdict(
    `${TASK_TITLES[task]}, against ${peer}${until}`,
    `>= ${factor}x`,
    summary,
    (median) => median >= factor,
    asFactor,
  );
}

function judgeStored(storedBytes, { firn, peer, factor }) {
  const known = storedBytes[firn] !== undefined && storedBytes[peer] !== undefined;
  return verdict(
    `stored bytes over three images, ${firn} against ${peer}`,
    `<= ${factor}x`,
    known ? summarise([storedBytes[firn] / storedBytes[peer]]) : undefined,
    (median) => median <= factor,
    asFactor,
  );
}

/**
 * The least time that the work can take on this machine: the slower of reading the bytes and
 * computing on all cores.
 */
export function ceilingSeconds({ readSeconds, kernelSeconds }, cores) {
  return Math.max(readSeconds, kernelSeconds / cores);
}

function judgeCeiling(samples, ceilings, cores) {
  const full = secondsByRound(samples, 'full', 'firn-lz4');
  const shares = ceilings
    .map((ceiling, round) => ceilingSeconds(ceiling, cores) / full.get(round))
    .filter((share) => Number.isFinite(share));
  return verdict(
    'share of the hardware ceiling, first full backup',
    `>= ${asPercent(CEILING_SHARE_MIN)}`,
    summarise(shares),
    (median) => median >= CEILING_SHARE_MIN,
    asPercent,
  );
}

function judgeMemory(samples) {
  const peaks = samples
    .filter((one) => one.contender.startsWith('firn'))
    .map((one) => one.peakBytes);
  return verdict(
    'peak memory of Firn, the largest of all runs',
    `<= ${asMebibytes(PEAK_BYTES_MAX)}`,
    peaks.length === 0 ? undefined : summarise([Math.max(...peaks)]),
    (median) => median <= PEAK_BYTES_MAX,
    asMebibytes,
  );
}

function judgeWide(samples) {
  const summary = summarise(
    ratios(
      secondsByRound(samples, 'wide', 'firn-lz4'),
      secondsByRound(samples, 'narrow', 'firn-lz4'),
    ),
  );
  return verdict(
    '64 TiB virtual disk against 16 GiB, same data',
    `<= ${WIDE_FACTOR_MAX}x`,
    summary,
    (median) => median <= WIDE_FACTOR_MAX,
    asFactor,
  );
}

/** All targets with what was reached; `passed` is undefined where nothing could be measured. */
export function judge({ samples, ceilings, storedBytes, cores }) {
  return [
    ...SPEED_TARGETS.map((target) => judgeSpeed(samples, target, untilExit)),
    ...SPEED_TARGETS.filter(({ task }) => SETTLED_TASKS.includes(task)).map((target) =>
      judgeSpeed(samples, target, untilSettled),
    ),
    judgeCeiling(samples, ceilings, cores),
    ...STORED_TARGETS.map((target) => judgeStored(storedBytes, target)),
    judgeMemory(samples),
    judgeWide(samples),
  ];
}
