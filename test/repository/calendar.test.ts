import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Calendar, formatSpan, parseSpan } from '../../src/repository/calendar.js';
import { codeOf } from '../helpers/errors.js';

const at = (text: string) => Date.parse(text);
const DAY_MS = 24 * 3_600_000;

describe('a span', () => {
  test.each([
    ['12h', '12h'],
    ['30d', '30d'],
    ['2w', '14d'],
    ['6mo', '6mo'],
    ['1y6mo', '1y6mo'],
    [' 1y2mo3w4d5h ', '1y2mo25d5h'],
  ])('"%s" is read as %s', (text, meant) => {
    expect(formatSpan(parseSpan(text, 'x'))).toBe(meant);
  });

  test.each(['', '0d', '30', '5m', '30d1y', '-1d', '1.5d', '99999y', '1d 2h', '٣d'])(
    '"%s" is none',
    async (text) => {
      expect(await codeOf(() => parseSpan(text, 'x'))).toBe('ERR_INVALID_ARGUMENT');
    },
  );
});

describe('a calendar', () => {
  test('names hours, days, weeks, months and years as its zone has them', () => {
    const instant = at('2026-12-31T23:30:00Z');
    const berlin = new Calendar('Europe/Berlin');
    expect(berlin.hour(instant)).toBe('2027-01-01 00:00 +01:00');
    expect(berlin.day(instant)).toBe('2027-01-01');
    expect(berlin.month(instant)).toBe('2027-01');
    expect(berlin.year(instant)).toBe('2027');
    expect(new Calendar('America/New_York').day(instant)).toBe('2026-12-31');
    expect(new Calendar('Asia/Kathmandu').hour(instant)).toBe('2027-01-01 05:00 +05:45');
  });

  test.each([
    ['2026-01-01', '2026-W01'],
    ['2027-01-01', '2026-W53'],
    ['2027-01-03', '2026-W53'],
    ['2027-01-04', '2027-W01'],
    ['2024-12-30', '2025-W01'],
    ['2023-01-01', '2022-W52'],
    ['2020-12-31', '2020-W53'],
  ])('%s lies in week %s of ISO 8601', (day, week) => {
    expect(new Calendar('UTC').week(at(`${day}T12:00:00Z`))).toBe(week);
  });

  test('the hour that comes twice in autumn is two, and the one that is skipped in spring none', () => {
    const berlin = new Calendar('Europe/Berlin');
    const hours = (from: string) =>
      [0, 1, 2, 3].map((hour) => berlin.hour(at(from) + hour * 3_600_000).slice(11));
    expect(hours('2026-10-24T23:00:00Z')).toEqual([
      '01:00 +02:00',
      '02:00 +02:00',
      '02:00 +01:00',
      '03:00 +01:00',
    ]);
    expect(hours('2026-03-28T23:00:00Z')).toEqual([
      '00:00 +01:00',
      '01:00 +01:00',
      '03:00 +02:00',
      '04:00 +02:00',
    ]);
  });

  test('a day before is the same time of day, also over a change of clocks', () => {
    const berlin = new Calendar('Europe/Berlin');
    const earlier = (from: string, span: string) =>
      new Date(berlin.before(at(from), parseSpan(span, 'x'))).toISOString();
    expect(earlier('2026-10-25T11:00:00Z', '1d')).toBe('2026-10-24T10:00:00.000Z');
    expect(earlier('2026-10-25T11:00:00Z', '24h')).toBe('2026-10-24T11:00:00.000Z');
    expect(earlier('2026-10-25T01:30:00Z', '1h')).toBe('2026-10-25T00:30:00.000Z');
    expect(earlier('2026-03-29T10:00:00Z', '1d')).toBe('2026-03-28T11:00:00.000Z');
    // 02:30 does not exist on the 29th of March, and exists twice on the 25th of October.
    expect(earlier('2026-03-30T00:30:00Z', '1d')).toBe('2026-03-29T01:30:00.000Z');
    expect(earlier('2026-10-26T01:30:00Z', '1d')).toBe('2026-10-25T00:30:00.000Z');
  });

  test('a month before a day that the month does not have is its last day', () => {
    const utc = new Calendar('UTC');
    const earlier = (from: string, span: string) =>
      new Date(utc.before(at(from), parseSpan(span, 'x'))).toISOString();
    expect(earlier('2026-03-31T12:00:00Z', '1mo')).toBe('2026-02-28T12:00:00.000Z');
    expect(earlier('2024-02-29T12:00:00Z', '1y')).toBe('2023-02-28T12:00:00.000Z');
    expect(earlier('2026-01-15T12:00:00.250Z', '13mo')).toBe('2024-12-15T12:00:00.250Z');
  });

  test('in any zone a span of nothing but hours is those hours, and days are never far from theirs', () => {
    const zones = fc.constantFrom(
      ...['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu'],
      ...['Pacific/Apia', 'Africa/Casablanca', 'America/Havana'],
    );
    const instants = fc.integer({
      min: at('1990-01-01T00:00:00Z'),
      max: at('2060-01-01T00:00:00Z'),
    });
    fc.assert(
      fc.property(zones, instants, fc.integer({ min: 1, max: 400 }), (zone, instant, count) => {
        const calendar = new Calendar(zone);
        const none = { years: 0, months: 0, days: 0, hours: 0 };
        const byHours = calendar.before(instant, { ...none, hours: count });
        expect(byHours).toBe(instant - count * 3_600_000);
        const byDays = calendar.before(instant, { ...none, days: count });
        // One day was left out altogether where the date line moved, and summer time comes and goes besides.
        const furthest = DAY_MS + 3_600_000;
        expect(Math.abs(byDays - (instant - count * DAY_MS))).toBeLessThanOrEqual(furthest);
      }),
    );
  });

  test('there is none of a zone that does not exist', async () => {
    expect(await codeOf(() => new Calendar('Mars/Olympus'))).toBe('ERR_INVALID_ARGUMENT');
  });
});
