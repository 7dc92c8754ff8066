/**
 * Random numbers that a seed and a name give: the n-th action of a lane makes the same choices whatever the actions before it met.
 *
 * Math.random() cannot be seeded, and one generator for all lanes would give each lane other numbers whenever their turns change.
 */

/** @returns {number} 32 bits of the text: FNV-1a. */
function hashText(text) {
  let hash = 0x811c9dc5;
  for (const character of text) {
    hash ^= character.codePointAt(0);
    hash = Math.imul(hash, 0x01000193);
  }
  return hash >>> 0;
}

export class Random {
  #state;

  /** All that `names` say, joined, is the seed. */
  constructor(...names) {
    this.#state = hashText(names.join('/'));
  }

  /** 0 to 1, without 1: mulberry32. */
  fraction() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `least` to `most`, both included. */
  integer(least, most) {
    return least + Math.floor(this.fraction() * (most - least + 1));
  }

  chance(probability) {
    return this.fraction() < probability;
  }

  /** One of the values; undefined if there are none. */
  pick(values) {
    return values[Math.floor(this.fraction() * values.length)];
  }

  /** A key of `weights`, each as often as its value says. */
  weighted(weights) {
    const entries = Object.entries(weights);
    let rest = this.fraction() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      rest -= weight;
      if (rest < 0) return name;
    }
    return entries.at(-1)[0];
  }
}
