/**
 * Watches processes that live as long as the soak: their memory, handles and threads, every few seconds. What grows from the second
 * quarter of the time to the last one leaks; the first is left out, as in it everything is loaded and the heap finds its size. Of each
 * quarter the low tenth is compared: what waits for the garbage collector makes a saw's teeth, and a leak lifts their feet, too.
 *
 * Read from /proc: on systems without it nothing is measured, and the report says so.
 */

import { readdirSync, readFileSync } from 'node:fs';

const PERIOD_MS = 3000;
const SAMPLES_LEAST = 40;
const GROWTH_BYTES = 24 * 2 ** 20;
const GROWTH_COUNT = 2;

export class Watch {
  #processes;
  #timer;
  #samples = new Map();

  /** `processes` are the children to watch, by name. */
  constructor(processes) {
    this.#processes = processes;
    for (const name of Object.keys(processes)) this.#samples.set(name, []);
    this.#timer = setInterval(() => this.#sample(), PERIOD_MS);
  }

  stop() {
    clearInterval(this.#timer);
  }

  #sample() {
    for (const [name, { pid, exitCode, signalCode }] of Object.entries(this.#processes)) {
      if (exitCode !== null || signalCode !== null) continue;
      const sample = measure(pid);
      if (sample !== undefined) this.#samples.get(name).push(sample);
    }
  }

  /** Of each process: the low tenth of the second and of the last quarter, and the largest of all. */
  report() {
    const all = {};
    for (const [name, samples] of this.#samples) {
      const quarter = Math.floor(samples.length / 4);
      const second = samples.slice(quarter, 2 * quarter);
      const last = samples.slice(3 * quarter);
      all[name] = { samples: samples.length };
      for (const figure of ['residentBytes', 'handles', 'threads']) {
        const of = (part) => part.map((sample) => sample[figure]);
        all[name][figure] = {
          second: lowTenth(of(second)),
          last: lowTenth(of(last)),
          largest: Math.max(0, ...of(samples)),
        };
      }
    }
    return all;
  }

  /** What has grown, in words; too few samples tell nothing. */
  leaks() {
    return Object.entries(this.report()).flatMap(([name, { samples, ...figures }]) => {
      if (samples < SAMPLES_LEAST) return [];
      return Object.entries(figures).flatMap(([figure, { second, last }]) => {
        const allowed = figure === 'residentBytes' ? GROWTH_BYTES : GROWTH_COUNT;
        return last - second > allowed ? [`${name}: ${figure} from ${second} to ${last}`] : [];
      });
    });
  }
}

function measure(pid) {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
    return {
      residentBytes: field('VmRSS') * 1024,
      threads: field('Threads'),
      handles: readdirSync(`/proc/${pid}/fd`).length,
    };
  } catch {
    return undefined;
  }
}

/** What nine tenths of the values are not below; null if there are none. */
function lowTenth(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 10)] ?? null;
}
