/** Sizes and rates as a benchmark says them: both in powers of 1024 and of 1000, as the two are mixed up everywhere else. */

/** "64K", "1M", "1.5G": as an option takes it, and as an id has it. */
export function sizeName(bytes: number): string {
  for (const [power, letter] of [
    [40, 'T'],
    [30, 'G'],
    [20, 'M'],
    [10, 'K'],
  ] as const) {
    const value = bytes / 2 ** power;
    if (value >= 1) return `${Number(value.toFixed(2))}${letter}`;
  }
  return String(bytes);
}

export function mebibytes(bytesPerSecond: number): string {
  return digits(bytesPerSecond / 2 ** 20);
}

export function megabytes(bytesPerSecond: number): string {
  return digits(bytesPerSecond / 1e6);
}

/** "812 MiB/s (851 MB/s)". */
export function bothRates(bytesPerSecond: number): string {
  return `${mebibytes(bytesPerSecond)} MiB/s (${megabytes(bytesPerSecond)} MB/s)`;
}

/** "12.3 µs", "4.56 ms". */
export function duration(ns: number): string {
  if (ns < 1e6) return `${digits(ns / 1e3)} µs`;
  return ns < 1e9 ? `${digits(ns / 1e6)} ms` : `${digits(ns / 1e9)} s`;
}

/** "3 h 20 min", "41 min", "12 s". */
export function longTime(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (seconds < 100) return `${Math.max(1, Math.round(seconds))} s`;
  if (minutes < 100) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/** Three digits. */
export function digits(value: number): string {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}
