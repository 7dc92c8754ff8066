/**
 * Changed ranges of one disk, gathered as a host tells them: in order, piece by piece, perhaps millions of them.
 *
 * What touches is joined, and once there are too many, what lies near is joined too: a range that says too much costs reading, a list without
 * a bound costs the process its memory.
 */

/** As many as the engine makes of layers, by which a run's memory is reckoned. */
const RANGES_MAX = 1 << 16;
/** Nothing is told apart below this: the engine reads whole pages. */
const GAP_BYTES_MIN = 4096;

export class ChangedRanges {
  readonly #max: number;
  #ranges: [offset: number, length: number][] = [];
  #gapBytes = GAP_BYTES_MIN;
  /** Of the last range that was added. */
  #begin = 0;

  constructor(max = RANGES_MAX) {
    this.#max = max;
  }

  /** Adds a range that begins no earlier than the one before; they may overlap. RangeError for what is no such range. */
  add(offset: number, length: number): void {
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && length >= 0;
    if (!isRange || !Number.isSafeInteger(offset + length) || offset < this.#begin) {
      throw new RangeError(`a range of ${length} bytes at ${offset} after one at ${this.#begin}`);
    }
    if (length === 0) return;
    this.#begin = offset;
    const last = this.#ranges.at(-1);
    if (last !== undefined && offset - (last[0] + last[1]) < this.#gapBytes) {
      last[1] = Math.max(last[1], offset + length - last[0]);
      return;
    }
    this.#ranges.push([offset, length]);
    while (this.#ranges.length > this.#max) this.#join();
  }

  /** Ascending, apart from each other. */
  ranges(): readonly (readonly [offset: number, length: number])[] {
    return this.#ranges;
  }

  #join(): void {
    this.#gapBytes *= 2;
    const joined: [number, number][] = [];
    for (const [offset, length] of this.#ranges) {
      const last = joined.at(-1);
      if (last !== undefined && offset - (last[0] + last[1]) < this.#gapBytes) {
        last[1] = offset + length - last[0];
      } else {
        joined.push([offset, length]);
      }
    }
    this.#ranges = joined;
  }
}
