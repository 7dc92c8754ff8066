/**
 * Goal: whatever the JSON of a repository, a stream or a pack's map holds, reading it ends soon, in an object that keeps what its type
 * promises or in an error of the taxonomy. Method: whole objects, changed at random in their values, their shape and their bytes, from a
 * printed seed. FIRN_FUZZ_SECONDS sets how long each takes; FIRN_FUZZ_SEED repeats a run.
 */

import { afterAll, describe, expect, test } from 'vitest';
import { crc32c } from '../../src/crc32c.js';
import { isFirnError } from '../../src/errors.js';
import {
  parseHaveHeader,
  parseSentPoint,
  parseStreamHeader,
} from '../../src/jobs/streams/header.js';
import { restoredName } from '../../src/repository/format/names.js';
import {
  parseChecks,
  parseCondemned,
  parseConfig,
  parseDamage,
  parseGeneration,
  parseKey,
  parseLabel,
  parsePoint,
} from '../../src/repository/format/objects.js';
import { decodeRecord, encodeRecord } from '../../src/repository/format/record.js';
import { decodeLeaf, decodeNode, decodeRoot } from '../../src/rescue/map.js';
import { seededRandom } from '../helpers/crash-states.js';
import { pointFor } from '../helpers/writer.js';

/** Also where all the time is others'. */
const RUNS_MIN = 1000;
const SECONDS = Number(process.env.FIRN_FUZZ_SECONDS ?? 1.5);
const SEED = Number(process.env.FIRN_FUZZ_SEED ?? Date.now() % 2 ** 31);
const ID = 'a'.repeat(32);
const PACK = `${ID}/0000-00000000`;
const TIME = '2026-11-22T12:00:00.000Z';
const CHUNKING = { scheme: 'content', minPages: 8, averagePages: 16, maxPages: 64 } as const;
const POINT = {
  ...pointFor({ root: 'c'.repeat(64), dataPages: 0, chunks: [], maps: [] }, 4096),
  id: ID,
  tags: ['weekly'],
  origin: { repository: 'd'.repeat(32), point: 'e'.repeat(32) },
  capture: {
    run: ID,
    wanted: 'crash',
    required: 'crash',
    frozenAt: TIME,
    hostKind: 'lab',
    hostVersion: '1',
    steps: [{ step: 'freeze', begun: TIME, elapsedMs: 3 }],
    reference: { name: 'x', method: 'rct', disks: {} },
  },
};

/** What is parsed: a whole one, and the parser. */
const OBJECTS: Record<string, { whole: object; parse: (bytes: Buffer) => unknown }> = {
  config: {
    whole: {
      type: 'config',
      version: 1,
      repositoryId: ID,
      created: TIME,
      idKey: 'b'.repeat(64),
      chunking: CHUNKING,
    },
    parse: parseConfig,
  },
  generation: { whole: { type: 'generation', token: ID }, parse: parseGeneration },
  point: { whole: POINT, parse: (bytes) => parsePoint(bytes, ID) },
  condemned: {
    whole: { type: 'condemned', id: ID, packs: [PACK] },
    parse: (bytes) => parseCondemned(bytes, ID),
  },
  label: {
    whole: { type: 'label', version: 1, id: ID, point: ID, created: TIME, kind: 'tag', tag: 'x' },
    parse: (bytes) => parseLabel(bytes, `${ID}-${ID}`),
  },
  checks: {
    whole: { type: 'checks', version: 1, id: ID, checked: [{ at: TIME, packs: [PACK] }] },
    parse: (bytes) => parseChecks(bytes, ID),
  },
  damage: {
    whole: { type: 'damage', version: 1, id: ID, created: TIME, pack: PACK, records: [] },
    parse: (bytes) => parseDamage(bytes, ID),
  },
  key: {
    whole: {
      type: 'key',
      version: 1,
      id: ID,
      created: TIME,
      capability: 'full',
      unlock: 'passphrase',
      salt: ID,
      scrypt: { cost: 1024, blockSize: 8, parallelization: 1 },
      check: '0'.repeat(16),
      wrapped: '0'.repeat(226),
    },
    parse: (bytes) => parseKey(bytes, ID),
  },
  'stream header': { whole: { type: 'stream', version: 1 }, parse: parseStreamHeader },
  'have header': { whole: { type: 'have', version: 1 }, parse: parseHaveHeader },
  'sent point': { whole: POINT, parse: parseSentPoint },
};

const SURPRISES: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  0.5,
  1e308,
  2 ** 53,
  '',
  '..',
  '../../etc/passwd',
  'C:\\x',
  '\\\\server\\share',
  'nul',
  'x:stream',
  '\ud800',
  'a\u0000b',
  'x'.repeat(5000),
  [],
  {},
  [[]],
  { __proto__: 1 },
];

let executions = 0;
afterAll(() => console.log(`${executions} objects were read, seed ${SEED}`));

type Random = () => number;
const pick = <T>(values: readonly T[], random: Random) =>
  values[Math.floor(random() * values.length)] as T;

/** The same value with something else somewhere in it. */
function change(value: unknown, random: Random): unknown {
  if (random() < 0.15) return pick(SURPRISES, random);
  if (typeof value === 'string' && random() < 0.5) {
    const at = Math.floor(random() * (value.length + 1));
    return (
      value.slice(0, at) +
      pick(['', 'a', '0', '/', '.', '\u202e', 'é'], random) +
      value.slice(at + 1)
    );
  }
  if (typeof value === 'number')
    return pick([value + 1, value - 1, -value, value * 2 ** 20], random);
  if (Array.isArray(value)) {
    if (random() < 0.2) return [...value, ...value];
    const copy = [...value];
    const at = Math.floor(random() * copy.length);
    if (copy.length > 0) copy[at] = change(copy[at], random);
    return copy;
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    const at = Math.floor(random() * entries.length);
    if (random() < 0.1) entries.splice(at, 1);
    else if (random() < 0.05) entries.push([pick(['__proto__', 'later', 'packs'], random), 1]);
    else if (entries[at] !== undefined) entries[at][1] = change(entries[at][1], random);
    return Object.fromEntries(entries);
  }
  return pick(SURPRISES, random);
}

function changeBytes(bytes: Buffer, random: Random): Buffer {
  const changed = Buffer.from(bytes);
  for (let times = 1 + Math.floor(random() * 3); times > 0; times--) {
    const at = Math.floor(random() * changed.length);
    if (random() < 0.1) return changed.subarray(0, at);
    changed[at] = pick(
      [0, 255, 34, 92, 123, (changed[at] ?? 0) ^ (1 << Math.floor(random() * 8))],
      random,
    );
  }
  return changed;
}

/** Parses until the time is over, and often enough; what is thrown must be an error of the taxonomy. Returns how often it did, and how often in vain. */
function fuzz(next: (random: Random) => Buffer, parse: (bytes: Buffer) => unknown) {
  const random = seededRandom(SEED);
  const end = performance.now() + SECONDS * 1000;
  const count = { runs: 0, refused: 0 };
  while (performance.now() < end || count.runs < RUNS_MIN) {
    const bytes = next(random);
    // Of the processor's time: others may be busy on it as well.
    const begun = process.cpuUsage();
    count.runs++;
    try {
      parse(bytes);
    } catch (error) {
      count.refused++;
      if (!isFirnError(error)) {
        throw new Error(`seed ${SEED}: ${bytes.toString('latin1').slice(0, 2000)}`, {
          cause: error,
        });
      }
    }
    const { user, system } = process.cpuUsage(begun);
    expect(user + system).toBeLessThan(5_000_000);
  }
  executions += count.runs;
  return count;
}

describe(`objects changed at random (seed ${SEED})`, () => {
  test.each(Object.entries(OBJECTS))('a %s is whole or refused', (_, { whole, parse }) => {
    const count = fuzz((random) => {
      if (random() < 0.3) return changeBytes(Buffer.from(JSON.stringify(whole)), random);
      let changed: unknown = whole;
      for (let times = 1 + Math.floor(random() * 2); times > 0; times--) {
        changed = change(changed, random);
      }
      return Buffer.from(JSON.stringify(changed) ?? 'null');
    }, parse);
    expect(count.refused).toBeGreaterThan(0);
  });

  test('they are taken as they are', () => {
    for (const [name, { whole, parse }] of Object.entries(OBJECTS)) {
      if (!name.endsWith('header'))
        expect(() => parse(Buffer.from(JSON.stringify(whole))), name).not.toThrow();
    }
  });

  test('a point that is taken has disks whose names stay in one folder', () => {
    let taken = 0;
    fuzz(
      (random) => {
        const [disk] = POINT.disks;
        const name = String(
          change(
            pick(
              SURPRISES.filter((each) => typeof each === 'string'),
              random,
            ),
            random,
          ),
        );
        return Buffer.from(JSON.stringify({ ...POINT, disks: [{ ...disk, name }, disk] }));
      },
      (bytes) => {
        const { disks } = parsePoint(bytes, ID);
        taken++;
        const names = disks.map(({ name }) => restoredName(name));
        expect(new Set(names.map((name) => Buffer.from(name.toLowerCase()).toString())).size).toBe(
          2,
        );
        for (const name of names)
          expect(name).not.toMatch(/[/\\:\0]|^\.{1,2}$|[. ]$|^(nul|con|aux)(\.|$)/i);
      },
    );
    expect(taken).toBeGreaterThan(0);
  });

  test('a record is whole or refused, also with right checksums', () => {
    const content = Buffer.concat([Buffer.from(JSON.stringify(POINT)), Buffer.alloc(8000, 'ab')]);
    const whole = encodeRecord('object', undefined, content);
    expect(whole.length).toBeLessThan(content.length);
    const count = fuzz(
      (random) => {
        const bytes = changeBytes(whole, random);
        if (bytes.length < 64) return bytes;
        bytes.writeUInt32LE(crc32c(bytes.subarray(64)), 56);
        bytes.writeUInt32LE(crc32c(bytes.subarray(0, 60)), 60);
        return bytes;
      },
      (bytes) => decodeRecord(bytes, 'object', undefined),
    );
    expect(count.refused).toBeGreaterThan(0);
  });

  test('maps that rescue reads are whole or refused', () => {
    fuzz(
      (random) => {
        const bytes = Buffer.alloc(Math.floor(random() * 400));
        for (let at = 0; at < bytes.length; at++) bytes[at] = random() < 0.6 ? 0 : random() * 256;
        Buffer.from(`F${pick(['L', 'N', 'R'], random)}\u0001`).copy(bytes);
        return bytes;
      },
      (bytes) => {
        let failure: unknown;
        for (const decode of [decodeRoot, decodeNode, (b: Buffer) => decodeLeaf(b, CHUNKING)]) {
          try {
            decode(bytes);
          } catch (error) {
            if (!isFirnError(error)) throw error;
            failure = error;
          }
        }
        throw failure;
      },
    );
  });
});
