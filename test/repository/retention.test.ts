/**
 * Goal: a policy keeps what it says and never more goes than must. Method: examples that read like the documentation, and properties over
 * random histories and policies, among them an oracle that decides each rule from its definition by itself.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Calendar, parseSpan } from '../../src/repository/calendar.js';
import {
  applyPolicy,
  isEmptyPolicy,
  type LabelledPoint,
  parseRetention,
  RETENTION_MEMBERS,
  type RetentionPolicy,
} from '../../src/repository/retention.js';
import { codeOf } from '../helpers/errors.js';
import { pointFor } from '../helpers/writer.js';

const NO_DISK = { root: '0'.repeat(64), dataPages: 0, chunks: [], maps: [] };
const ZONE = 'Europe/Berlin';

interface Labels {
  vm?: { name: string; id?: string };
  tags?: string[];
  held?: string;
}

function pointAt(created: string, { vm = { name: 'web' }, tags = [], held }: Labels = {}) {
  return { point: pointFor(NO_DISK, 0, { created, vm }), tags, held } satisfies LabelledPoint;
}

/** Reasons of the points that stay, by the time at which they were made. */
function keptOf(points: readonly LabelledPoint[], policy: RetentionPolicy, zone = ZONE) {
  const verdicts = applyPolicy(points, policy, zone).flatMap((group) => group.verdicts);
  return Object.fromEntries(
    verdicts
      .filter(({ reasons }) => reasons.length > 0)
      .map(({ point, reasons }) => [point.created, reasons]),
  );
}

describe('a policy', () => {
  test('keeps the newest point of each of so many days that have points', () => {
    const points = ['20T08', '20T20', '21T08', '21T20', '25T08', '25T20'].map((time) =>
      pointAt(`2026-11-${time}:00:00Z`),
    );
    expect(keptOf(points, { daily: 2 })).toEqual({
      '2026-11-25T20:00:00Z': ['daily 2026-11-25'],
      '2026-11-21T20:00:00Z': ['daily 2026-11-21'],
    });
  });

  test('keeps the oldest point of all while a period has fewer than asked for', () => {
    const points = ['20T08', '20T20', '21T08'].map((time) => pointAt(`2026-11-${time}:00:00Z`));
    expect(keptOf(points, { daily: 3 })).toEqual({
      '2026-11-21T08:00:00Z': ['daily 2026-11-21'],
      '2026-11-20T20:00:00Z': ['daily 2026-11-20'],
      '2026-11-20T08:00:00Z': ['daily oldest'],
    });
    expect(Object.keys(keptOf(points, { daily: 2 }))).toHaveLength(2);
  });

  test('counts by the local calendar: two points of one UTC day may be of two days', () => {
    const points = [pointAt('2026-11-20T22:30:00Z'), pointAt('2026-11-20T23:30:00Z')];
    expect(Object.keys(keptOf(points, { daily: 5 }))).toHaveLength(2);
    expect(keptOf(points, { daily: 1 }, 'UTC')).toEqual({
      '2026-11-20T23:30:00Z': ['daily 2026-11-20'],
    });
  });

  test('takes the hour that comes twice for two hours', () => {
    const points = ['00:10', '00:50', '01:10', '01:50'].map((time) =>
      pointAt(`2026-10-25T${time}:00Z`),
    );
    expect(keptOf(points, { hourly: 2 })).toEqual({
      '2026-10-25T01:50:00Z': ['hourly 2026-10-25 02:00 +01:00'],
      '2026-10-25T00:50:00Z': ['hourly 2026-10-25 02:00 +02:00'],
    });
  });

  test('does not count a day twice that comes again after the next one', () => {
    // St. John's, 2010-11-07: at 00:01 the clocks went back to 23:01 of the day before.
    const times = ['07T02:00:00', '07T02:30:30', '07T03:00:00', '08T12:00:00'];
    const points = times.map((time) => pointAt(`2010-11-${time}Z`));
    expect(keptOf(points, { daily: 4 }, 'America/St_Johns')).toEqual({
      '2010-11-08T12:00:00Z': ['daily 2010-11-08'],
      '2010-11-07T03:00:00Z': ['daily 2010-11-06'],
      '2010-11-07T02:30:30Z': ['daily 2010-11-07'],
      '2010-11-07T02:00:00Z': ['daily oldest'],
    });
  });

  test('combines its rules and names each that keeps a point', () => {
    const points = [
      pointAt('2026-11-22T12:00:00Z'),
      pointAt('2026-10-22T12:00:00Z', { tags: ['release', 'v2'] }),
      pointAt('2026-09-22T12:00:00Z', { held: 'held: audit' }),
      pointAt('2026-09-21T12:00:00Z'),
    ];
    const policy = { last: 1, monthly: 2, within: parseSpan('30d', 'x'), tags: ['release'] };
    expect(keptOf(points, policy)).toEqual({
      '2026-11-22T12:00:00Z': ['last 1', 'monthly 2026-11', 'within 30d'],
      '2026-10-22T12:00:00Z': ['monthly 2026-10', 'tag release'],
      '2026-09-22T12:00:00Z': ['held: audit'],
    });
  });

  test('counts a period back from the newest point, at the same time of day', () => {
    const points = ['2026-10-26T11:00:00Z', '2026-10-24T10:00:00Z', '2026-10-24T09:59:59Z'].map(
      (time) => pointAt(time),
    );
    expect(Object.keys(keptOf(points, { within: parseSpan('2d', 'x') }))).toEqual([
      '2026-10-26T11:00:00Z',
      '2026-10-24T10:00:00Z',
    ]);
  });

  test('looks at each machine by itself: by id, or by name where there is none', () => {
    const id = '5b1f3c9e-5d2a-4a53-9f0e-2f4f9d0c7a11';
    const points = [
      pointAt('2026-11-01T00:00:00Z', { vm: { name: 'old name', id } }),
      pointAt('2026-11-02T00:00:00Z', { vm: { name: 'new name', id: id.toUpperCase() } }),
      pointAt('2026-11-01T00:00:00Z', { vm: { name: 'new name' } }),
      pointAt('2026-11-01T00:00:00Z', { vm: { name: id } }),
    ];
    const groups = applyPolicy(points, { last: 1 }, ZONE);
    const summary = groups.map(({ vm, verdicts }) => [
      vm.name,
      verdicts.map(({ reasons }) => reasons.length),
    ]);
    expect(summary).toEqual([
      [id, [1]],
      ['new name', [1]],
      ['new name', [1, 0]],
    ]);
  });
});

const PERIODS = ['hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const;
const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Pacific/Apia'];

const pointsArbitrary = fc
  .array(
    fc.record({
      // Near each other and far apart, so that buckets of every size have none, one and many.
      minutes: fc.oneof(
        fc.integer({ min: 0, max: 3000 }),
        fc.integer({ min: 0, max: 100_000 }),
        fc.integer({ min: 0, max: 3_000_000 }),
      ),
      vm: fc.constantFrom('web', 'db'),
      tags: fc.subarray(['a', 'b']),
      held: fc.boolean(),
    }),
    { maxLength: 40 },
  )
  .map((rows) =>
    rows.map(({ minutes, vm, tags, held }) =>
      pointAt(new Date(Date.UTC(2021, 9, 1) + minutes * 60_000).toISOString(), {
        vm: { name: vm },
        tags,
        ...(held && { held: 'held' }),
      }),
    ),
  );

const count = fc.option(fc.nat(5), { nil: undefined });
const policyArbitrary: fc.Arbitrary<RetentionPolicy> = fc.record({
  last: count,
  hourly: count,
  daily: count,
  weekly: count,
  monthly: count,
  yearly: count,
  within: fc.option(
    fc.constantFrom('5h', '3d', '2mo', '1y').map((text) => parseSpan(text, 'x')),
    { nil: undefined },
  ),
  tags: fc.option(fc.subarray(['a', 'b']), { nil: undefined }),
});

const zoneArbitrary = fc.constantFrom(...ZONES);

function keptIds(points: readonly LabelledPoint[], policy: RetentionPolicy, zone: string) {
  const verdicts = applyPolicy(points, policy, zone).flatMap((group) => group.verdicts);
  return new Set(verdicts.filter(({ reasons }) => reasons.length > 0).map(({ point }) => point.id));
}

/** From the definition, one point and one rule at a time. */
function oracle(points: readonly LabelledPoint[], policy: RetentionPolicy, zone: string) {
  const calendar = new Calendar(zone);
  const timeOf = ({ point }: LabelledPoint) => Date.parse(point.created);
  const isNewer = (a: LabelledPoint, b: LabelledPoint) =>
    timeOf(a) > timeOf(b) || (timeOf(a) === timeOf(b) && a.point.id > b.point.id);
  const names = {
    hourly: (each: LabelledPoint) => calendar.hour(timeOf(each)),
    daily: (each: LabelledPoint) => calendar.day(timeOf(each)),
    weekly: (each: LabelledPoint) => calendar.week(timeOf(each)),
    monthly: (each: LabelledPoint) => calendar.month(timeOf(each)),
    yearly: (each: LabelledPoint) => calendar.year(timeOf(each)),
  };
  const kept = points.filter((each) => {
    const own = points.filter(({ point }) => point.vm.name === each.point.vm.name);
    const newer = own.filter((other) => isNewer(other, each));
    if (each.held !== undefined || newer.length < (policy.last ?? 0)) return true;
    if (each.tags.some((tag) => policy.tags?.includes(tag))) return true;
    const newestMs = Math.max(...own.map(timeOf));
    if (policy.within && timeOf(each) >= calendar.before(newestMs, policy.within)) return true;
    return PERIODS.some((period) => {
      const keep = policy[period] ?? 0;
      const bucketsNewer = new Set(newer.map(names[period]));
      const isNewestOfIts = !bucketsNewer.has(names[period](each));
      if (isNewestOfIts && bucketsNewer.size < keep) return true;
      const isOldest = newer.length === own.length - 1;
      return isOldest && new Set(own.map(names[period])).size < keep;
    });
  });
  return new Set(kept.map(({ point }) => point.id));
}

describe('whatever the points and the policy,', () => {
  const holds = (check: (points: LabelledPoint[], policy: RetentionPolicy, zone: string) => void) =>
    fc.assert(fc.property(pointsArbitrary, policyArbitrary, zoneArbitrary, check));

  test('exactly those stay that the rules name, one by one', () => {
    holds((points, policy, zone) => {
      expect(keptIds(points, policy, zone)).toEqual(oracle(points, policy, zone));
    });
  });

  test('a held point stays', () => {
    holds((points, policy, zone) => {
      const kept = keptIds(points, policy, zone);
      for (const { point, held } of points) if (held) expect(kept).toContain(point.id);
    });
  });

  test('the newest point of each machine stays if any rule is about time or number', () => {
    holds((points, policy, zone) => {
      if (isEmptyPolicy({ ...policy, tags: undefined })) return;
      for (const { verdicts } of applyPolicy(points, policy, zone)) {
        expect(verdicts[0]?.reasons.length).toBeGreaterThan(0);
      }
    });
  });

  test('rules together keep what each of them keeps, and no more', () => {
    holds((points, policy, zone) => {
      const union = new Set<string>();
      for (const rule of Object.keys(policy) as (keyof RetentionPolicy)[]) {
        for (const id of keptIds(points, { [rule]: policy[rule] }, zone)) union.add(id);
      }
      expect(keptIds(points, policy, zone)).toEqual(union);
    });
  });

  test('applied to what it kept, it keeps all of it', () => {
    holds((points, policy, zone) => {
      const kept = keptIds(points, policy, zone);
      const rest = points.filter(({ point }) => kept.has(point.id));
      expect(keptIds(rest, policy, zone)).toEqual(kept);
    });
  });

  test('a count that is raised makes no point go', () => {
    fc.assert(
      fc.property(
        pointsArbitrary,
        policyArbitrary,
        zoneArbitrary,
        fc.constantFrom('last' as const, ...PERIODS),
        (points, policy, zone, rule) => {
          const more = keptIds(points, { ...policy, [rule]: (policy[rule] ?? 0) + 1 }, zone);
          for (const id of keptIds(points, policy, zone)) expect(more).toContain(id);
        },
      ),
    );
  });

  test('the order in which points come does not matter', () => {
    holds((points, policy, zone) => {
      expect(keptIds(points.toReversed(), policy, zone)).toEqual(keptIds(points, policy, zone));
    });
  });
});

describe('a policy from data', () => {
  test('is read with all its members', () => {
    const data = {
      ...{ last: 1, hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: 6 },
      ...{ within: '30d', tags: ['release'] },
    };
    expect(Object.keys(data)).toEqual(RETENTION_MEMBERS);
    expect(parseRetention(data)).toEqual({ ...data, within: parseSpan('30d', 'x') });
  });

  test.each([
    [{ daily: -1 }, 'an integer from 0 to 1000000 for daily but received -1'],
    [{ daily: '7' }, 'an integer from 0 to 1000000 for daily but received "7"'],
    [{ within: 30 }, 'a time such as 12h, 30d, 2w, 6mo or 1y for within but received 30'],
    [{ within: '5m' }, 'a time such as 12h, 30d, 2w, 6mo or 1y for within but received "5m"'],
    [{ tags: [] }, 'a list of one or more for tags'],
    [{ tags: ['a,b'] }, 'a tag of 1 to 128 characters without commas for tags'],
    [{ dayly: 7 }, 'dayly'],
    [[], 'members such as last, daily, within'],
    [{}, 'at least one rule'],
    [{ last: 0, daily: 0 }, 'at least one rule'],
  ])('%j is refused', async (data, text) => {
    expect(await codeOf(() => parseRetention(data))).toBe('ERR_INVALID_ARGUMENT');
    expect(() => parseRetention(data)).toThrow(text);
  });
});
