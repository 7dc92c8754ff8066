/**
 * Instants as a time zone's clocks and calendar show them, for rules such as "one a day" and "the last six months".
 *
 * Daylight saving is the reason for this: a day may have 23 or 25 hours, and in autumn one hour comes twice, so a bucket is named by what
 * the calendar says together with the offset where that alone would not do, and a span of days is counted on the calendar and not in
 * hours. The zone is a parameter because a rule must be testable in zones other than the machine's.
 */

import { expected } from '../engine/options.js';
import { firnError } from '../errors.js';

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
const SPAN_PARTS_MAX = 10_000;

/** A length of time on the calendar. */
export interface Span {
  years: number;
  months: number;
  days: number;
  hours: number;
}

/** What the clocks and the calendar show; month and day count from 1. */
interface LocalTime {
  year: number;
  month: number;
  day: number;
  hour: number;
  /** Ahead of UTC. */
  offsetMs: number;
  /** The same fields as an instant of UTC. */
  asUtcMs: number;
}

/** "12h", "30d", "2w", "6mo", "1y", or several of them: "1y6mo". Not nothing. */
export function parseSpan(text: string, name: string): Span {
  const match =
    /^(?:(\d{1,5})y)?(?:(\d{1,5})mo)?(?:(\d{1,5})w)?(?:(\d{1,5})d)?(?:(\d{1,5})h)?$/.exec(
      text.trim(),
    );
  const [years = 0, months = 0, weeks = 0, days = 0, hours = 0] = (match ?? [])
    .slice(1)
    .map((part) => Number(part ?? 0));
  const sum = years + months + weeks + days + hours;
  if (match !== null && sum > 0 && Math.max(years, months, weeks, days, hours) <= SPAN_PARTS_MAX) {
    return { years, months, days: 7 * weeks + days, hours };
  }
  throw expected(name, 'a time such as 12h, 30d, 2w, 6mo or 1y', text);
}

/** "1y6mo", "30d". */
export function formatSpan({ years, months, days, hours }: Span): string {
  const parts: [number, string][] = [
    [years, 'y'],
    [months, 'mo'],
    [days, 'd'],
    [hours, 'h'],
  ];
  return parts.map(([count, unit]) => (count > 0 ? `${count}${unit}` : '')).join('');
}

export class Calendar {
  readonly #format: Intl.DateTimeFormat;

  /** `timeZone` is a name such as "Europe/Berlin"; the machine's own zone when not given. ERR_INVALID_ARGUMENT. */
  constructor(timeZone?: string) {
    try {
      this.#format = new Intl.DateTimeFormat('en-US-u-ca-iso8601-nu-latn', {
        timeZone,
        hourCycle: 'h23',
        year: 'numeric',
        month: 'numeric',
        day: 'numeric',
        hour: 'numeric',
        minute: 'numeric',
        second: 'numeric',
      });
    } catch (error) {
      throw firnError('ERR_INVALID_ARGUMENT', `There is no time zone "${timeZone}"`, {
        cause: error,
      });
    }
  }

  /** "2026-10-25 02:00 +02:00": with the offset, as the hour in which clocks go back comes twice. */
  hour(instantMs: number): string {
    const local = this.#local(instantMs);
    return `${dateText(local)} ${padded(local.hour, 2)}:00 ${offsetText(local.offsetMs)}`;
  }

  /** "2026-11-20". */
  day(instantMs: number): string {
    return dateText(this.#local(instantMs));
  }

  /** "2026-W47": weeks begin on Monday, and belong to the year that has their Thursday (ISO 8601). */
  week(instantMs: number): string {
    const { asUtcMs } = this.#local(instantMs);
    const thursday = new Date(asUtcMs);
    thursday.setUTCDate(thursday.getUTCDate() + 4 - (thursday.getUTCDay() || 7));
    const year = thursday.getUTCFullYear();
    const dayOfYear = (thursday.getTime() - utc(year, 1, 1)) / (24 * HOUR_MS);
    return `${padded(year, 4)}-W${padded(Math.floor(dayOfYear / 7) + 1, 2)}`;
  }

  /** "2026-11". */
  month(instantMs: number): string {
    const { year, month } = this.#local(instantMs);
    return `${padded(year, 4)}-${padded(month, 2)}`;
  }

  /** "2026". */
  year(instantMs: number): string {
    return padded(this.#local(instantMs).year, 4);
  }

  /**
   * The instant that lies a span before another: years, months and days on the calendar at the same time of day, then hours as they pass. A
   * month that has no such day gives its last one, and a time of day that the clocks skipped the one as far after the gap.
   */
  before(instantMs: number, { years, months, days, hours }: Span): number {
    // Of the hour that comes twice in autumn the calendar cannot tell which one it is.
    if (years === 0 && months === 0 && days === 0) return instantMs - hours * HOUR_MS;
    const { year, month, day, asUtcMs } = this.#local(instantMs);
    const monthFirst = new Date(utc(year - years, month - months, 1));
    const lastDay = new Date(
      utc(monthFirst.getUTCFullYear(), monthFirst.getUTCMonth() + 2, 0),
    ).getUTCDate();
    const timeOfDayMs = asUtcMs - utc(year, month, day);
    const wantedMs =
      utc(
        monthFirst.getUTCFullYear(),
        monthFirst.getUTCMonth() + 1,
        Math.min(day, lastDay) - days,
      ) + timeOfDayMs;
    return this.#instantOf(wantedMs) - hours * HOUR_MS;
  }

  /** The instant at which the clocks show this; of two, the first. */
  #instantOf(asUtcMs: number): number {
    // The offset is one of those half a day around: no zone changes twice in so short a time.
    const offsets = [-12 * HOUR_MS, 12 * HOUR_MS].map(
      (delta) => this.#local(asUtcMs + delta).offsetMs,
    );
    const candidates = offsets.map((offsetMs) => asUtcMs - offsetMs);
    const exact = candidates.filter((instantMs) => this.#local(instantMs).asUtcMs === asUtcMs);
    // In a gap no candidate shows it; the offset from before the gap leads behind it.
    return exact.length > 0 ? Math.min(...exact) : (candidates[0] as number);
  }

  #local(instantMs: number): LocalTime {
    const parts: Record<string, number> = {};
    for (const { type, value } of this.#format.formatToParts(instantMs))
      parts[type] = Number(value);
    const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
    const wholeSecondMs = Math.floor(instantMs / 1000) * 1000;
    const shownMs = utc(year, month, day) + hour * HOUR_MS + minute * MINUTE_MS + second * 1000;
    const asUtcMs = shownMs + (instantMs - wholeSecondMs);
    return { year, month, day, hour, offsetMs: shownMs - wholeSecondMs, asUtcMs };
  }
}

/** Unlike Date.UTC, takes years below 100 as they are. */
function utc(year: number, month: number, day: number): number {
  return new Date(0).setUTCFullYear(year, month - 1, day);
}

function dateText({ year, month, day }: LocalTime): string {
  return `${padded(year, 4)}-${padded(month, 2)}-${padded(day, 2)}`;
}

function offsetText(offsetMs: number): string {
  const minutes = Math.round(Math.abs(offsetMs) / MINUTE_MS);
  const sign = offsetMs < 0 ? '-' : '+';
  return `${sign}${padded(Math.floor(minutes / 60), 2)}:${padded(minutes % 60, 2)}`;
}

function padded(number: number, digits: number): string {
  return String(number).padStart(digits, '0');
}
