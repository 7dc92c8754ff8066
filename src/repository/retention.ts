/**
 * Retention: which points a policy keeps, and why. Decides only; jobs/forget.ts does it.
 *
 * A pure function of the points and of the time that it is given. The points of each machine are looked at by themselves, newest first. Every rule marks
 * what it keeps, and what no rule keeps goes; so a rule that is added, or a count that is raised, never makes a point go. "last" counts points;
 * "hourly" to "yearly" keep the newest point of each of so many hours, days, ... that have points, and the very oldest point too
 * while there are fewer of them than asked for, so that history grows to its length instead of starting anew; "within" counts back
 * from the machine's newest point, so that a machine that is no longer backed up does not lose its last points with time.
 *
 * Clocks are wrong at times. Newest is what was made last, which is not always what has the latest time (point-order.ts). And a point whose
 * time is more than a day ahead of now has a time that says nothing: it stays, and the rules go by the others, or the days since
 * would all be too old for it.
 */

import { z } from 'zod';
import { expected, integerIn } from '../engine/options.js';
import { firnError } from '../errors.js';
import { Calendar, formatSpan, parseSpan, type Span } from './calendar.js';
import type { PointObject } from './format/objects.js';
import { byOrder, machineKey } from './point-order.js';
import { parseTag } from './tags.js';

export { parseTag };

export const KEEP_MAX = 1_000_000;

/** Each rule keeps something; a point stays if any of them keeps it. Counts are 0 when not given. */
export interface RetentionPolicy {
  /** So many newest points. */
  last?: number | undefined;
  hourly?: number | undefined;
  daily?: number | undefined;
  weekly?: number | undefined;
  monthly?: number | undefined;
  yearly?: number | undefined;
  /** All points at most so much older than the newest one. */
  within?: Span | undefined;
  /** All points that have one of these tags. */
  tags?: readonly string[] | undefined;
}

/** A point with what its labels say of it. */
export interface LabelledPoint {
  point: PointObject;
  tags: readonly string[];
  /** Why it is held; undefined if it is not. */
  held: string | undefined;
}

/** What becomes of a point. It stays if there are reasons, such as "daily 2026-11-20" or "tag release". */
export interface Verdict extends LabelledPoint {
  reasons: string[];
}

/** The points of one machine, newest first. */
export interface VmVerdicts {
  vm: PointObject['vm'];
  verdicts: Verdict[];
}

const PERIODS = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
type Period = (typeof PERIODS)[number];

/** Clocks differ by so much without one of them being wrong: zones are at most 14 hours apart. */
const AHEAD_MS = 24 * 60 * 60 * 1000;

const BUCKETS: Readonly<Record<Period, (calendar: Calendar, instantMs: number) => string>> = {
  hourly: (calendar, instantMs) => calendar.hour(instantMs),
  daily: (calendar, instantMs) => calendar.day(instantMs),
  weekly: (calendar, instantMs) => calendar.week(instantMs),
  monthly: (calendar, instantMs) => calendar.month(instantMs),
  yearly: (calendar, instantMs) => calendar.year(instantMs),
};

const count = (name: string) => member((value) => integerIn(name, value, 0, KEEP_MAX));

const members = z.strictObject(
  {
    last: count('last'),
    hourly: count('hourly'),
    daily: count('daily'),
    weekly: count('weekly'),
    monthly: count('monthly'),
    yearly: count('yearly'),
    within: member((value) => {
      if (typeof value === 'string') return parseSpan(value, 'within');
      throw expected('within', 'a time such as 12h, 30d, 2w, 6mo or 1y', value);
    }),
    tags: z
      .array(z.unknown().transform(checked((value) => parseTag(value, 'tags'))), {
        error: () => 'Expected a list of one or more for tags',
      })
      .min(1, { error: () => 'Expected a list of one or more for tags' })
      .optional(),
  },
  {
    error: ({ code }) =>
      code === 'unrecognized_keys' ? undefined : 'Expected members such as last, daily, within',
  },
);

/**
 * The form of a policy in a job file: `{last: 3, daily: 7, within: 30d, tags: [release]}`. Gives a RetentionPolicy; one without any rule is
 * refused.
 */
export const retentionSchema = members.refine((policy) => !isEmptyPolicy(policy), {
  error: () => 'Expected at least one rule that keeps points',
});

/** The names of a policy's members, as job files have them. */
export const RETENTION_MEMBERS: readonly string[] = Object.keys(members.shape);

/** A policy from data, such as a job file's member. ERR_INVALID_ARGUMENT for the first thing that does not fit. */
export function parseRetention(value: unknown, name = 'retention'): RetentionPolicy {
  const parsed = retentionSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw firnError('ERR_INVALID_ARGUMENT', `${name}: ${issue?.message}`, { cause: parsed.error });
  }
  return parsed.data;
}

/** True if no points could make the policy keep one. */
export function isEmptyPolicy(policy: RetentionPolicy): boolean {
  const counts = [policy.last, ...PERIODS.map((period) => policy[period])];
  return (
    counts.every((each) => each === undefined || each === 0) &&
    policy.within === undefined &&
    (policy.tags === undefined || policy.tags.length === 0)
  );
}

/**
 * What a policy makes of points: by machine, in the order of their names. A held point always stays, and so does one whose time is ahead of
 * `nowMs` by more than a day, unless the policy is empty.
 */
export function applyPolicy(
  points: readonly LabelledPoint[],
  policy: RetentionPolicy,
  timeZone?: string,
  nowMs = Number.POSITIVE_INFINITY,
): VmVerdicts[] {
  const calendar = new Calendar(timeZone);
  const isEmpty = isEmptyPolicy(policy);
  return byVm(points).map(({ vm, points: own }) => {
    const verdicts = own.map((each): Verdict => ({ ...each, reasons: [] }));
    for (const { held, reasons } of verdicts) if (held !== undefined) reasons.push(held);
    const ruled = verdicts.filter(({ point, reasons }) => {
      const isAhead = !isEmpty && Date.parse(point.created) > nowMs + AHEAD_MS;
      if (isAhead) reasons.push('ahead of the clock');
      return !isAhead;
    });
    keepLast(ruled, policy.last ?? 0);
    for (const period of PERIODS) keepPeriod(ruled, period, policy[period] ?? 0, calendar);
    if (policy.within !== undefined) keepWithin(ruled, policy.within, calendar);
    keepTags(verdicts, policy.tags ?? []);
    return { vm, verdicts };
  });
}

/** Points by machine, newest first. A machine is its id, or its name where the point has none. */
export function byVm(
  points: readonly LabelledPoint[],
): { vm: PointObject['vm']; points: LabelledPoint[] }[] {
  const groups = new Map<string, LabelledPoint[]>();
  for (const each of points) {
    const key = machineKey(each.point.vm);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [each]);
    else group.push(each);
  }
  return [...groups.values()]
    .map((group) => {
      group.sort(newestFirst);
      // A machine may have been renamed: it is called what its newest point calls it.
      return { vm: (group[0] as LabelledPoint).point.vm, points: group };
    })
    .sort((a, b) => compareText(a.vm.name, b.vm.name) || compareText(a.vm.id ?? '', b.vm.id ?? ''));
}

function newestFirst({ point: a }: LabelledPoint, { point: b }: LabelledPoint): number {
  return byOrder(b, a);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function keepLast(verdicts: readonly Verdict[], keep: number): void {
  for (const [index, { reasons }] of verdicts.slice(0, keep).entries()) {
    reasons.push(`last ${index + 1}`);
  }
}

function keepPeriod(
  verdicts: readonly Verdict[],
  period: Period,
  keep: number,
  calendar: Calendar,
): void {
  if (keep === 0) return;
  // A set, and not a look at the one before: where clocks go back over midnight, a date comes again after the next one.
  const seen = new Set<string>();
  for (const { point, reasons } of verdicts) {
    const bucket = BUCKETS[period](calendar, Date.parse(point.created));
    if (seen.has(bucket)) continue;
    if (seen.size === keep) return;
    seen.add(bucket);
    reasons.push(`${period} ${bucket}`);
  }
  const oldest = verdicts.at(-1)?.reasons;
  if (seen.size < keep && !oldest?.some((reason) => reason.startsWith(`${period} `))) {
    oldest?.push(`${period} oldest`);
  }
}

function keepWithin(verdicts: readonly Verdict[], within: Span, calendar: Calendar): void {
  const [newest] = verdicts;
  if (newest === undefined) return;
  const fromMs = calendar.before(Date.parse(newest.point.created), within);
  for (const { point, reasons } of verdicts) {
    if (Date.parse(point.created) >= fromMs) reasons.push(`within ${formatSpan(within)}`);
  }
}

function keepTags(verdicts: readonly Verdict[], wanted: readonly string[]): void {
  for (const { tags, reasons } of verdicts) {
    for (const tag of tags) if (wanted.includes(tag)) reasons.push(`tag ${tag}`);
  }
}

function member<Value>(parse: (value: unknown) => Value) {
  return z.unknown().transform(checked(parse)).optional();
}

/** Makes of a parser that throws a transform that reports. */
function checked<Value>(parse: (value: unknown) => Value) {
  return (value: unknown, context: z.RefinementCtx): Value => {
    try {
      return parse(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message, input: value });
      return z.NEVER;
    }
  };
}
