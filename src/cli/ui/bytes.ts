/**
 * Sizes, rates and durations as people read them. Sizes and rates use powers of 1024 (KiB, MiB/s), three digits, one unit everywhere,
 * so that a size divided by a time gives the rate shown beside it.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;

/** "0 B", "4.00 KiB", "1.20 GiB", "812 MiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.5 and not 1024: "1024 MiB" would be the rounded form of what is below it.
  while (Math.abs(value) >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? String(Math.round(value)) : threeDigits(value)} ${UNITS[unit]}`;
}

/** "812 MiB/s"; a dash when no time has passed. */
export function formatRate(bytes: number, seconds: number): string {
  return seconds > 0 ? `${formatBytes(bytes / seconds)}/s` : '-';
}

/** "0.41 s" below a minute with a fraction, else "1:05" or "2:03:04". */
export function formatSeconds(seconds: number): string {
  return seconds < 60 ? `${threeDigits(seconds)} s` : formatClock(seconds);
}

/** "0:07", "12:34", "1:02:03": for lines that are rewritten, where a fraction would flicker. */
export function formatClock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(whole % 60)}`
    : `${minutes}:${two(whole % 60)}`;
}

/** "42.3%", "100%". */
export function formatShare(part: number, whole: number): string {
  if (whole <= 0) return '-';
  const percent = (100 * part) / whole;
  return percent >= 99.95 ? `${Math.round(percent)}%` : `${percent.toFixed(1)}%`;
}

/** "3.42x"; a dash when there is nothing to compare. */
export function formatRatio(large: number, small: number): string {
  return small > 0 ? `${threeDigits(large / small)}x` : '-';
}

/** "1,234,567". Loading the locale data for this would take longer than some commands do. */
export function formatCount(count: number): string {
  return count.toFixed(0).replace(/\B(?=(?:\d{3})+$)/g, ',');
}

/** "1 pack", "1,234 packs"; the plural is made with an s. */
export function formatNumberOf(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? '' : 's'}`;
}

function threeDigits(value: number): string {
  const magnitude = Math.abs(value);
  return value.toFixed(magnitude < 9.995 ? 2 : magnitude < 99.95 ? 1 : 0);
}
