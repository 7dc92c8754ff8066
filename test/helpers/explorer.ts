/**
 * Enumerates every interleaving of programs that work on one store, step by step, and every state that a crash could leave.
 *
 * A program is real code on a Store; each call of the store is one step. What a program does next depends on nothing but the answers that
 * it has had, so a program is replayed from its answers to find out what it asks next, once for each row of answers, and the search goes
 * over states: the store's content and each program's row of answers. Two interleavings that come to the same state are searched once
 * from there on. Programs must take all their randomness from `newId` (a test replaces it by `nextId`) and must not look at a clock.
 */

import { createHash } from 'node:crypto';
import { firnError, isFirnError } from '../../src/errors.js';
import type { Store } from '../../src/repository/stores/store.js';
import { MemoryStore } from './memory-store.js';

export interface Program {
  name: string;
  run(store: Store): Promise<unknown>;
}

/** A state that was reached. */
export interface State {
  objects: ReadonlyMap<string, Buffer>;
  /** How each program has ended so far: its value, or its error's code. */
  ended: ReadonlyMap<string, string>;
  /** The steps that led here. */
  path(): string[];
}

export interface ExploreOptions {
  lie?: Lie | undefined;
  /** How often a program may be interrupted by another one before it has ended; without bound when not given. */
  switchesMax?: number | undefined;
}

export interface Exploration {
  states: number;
}

/** A lie of the store, for ablations: makes of an answer another one. `earlier` are those that the program has had to the same call. */
export type Lie = (told: {
  program: string;
  call: string;
  answer: Answer;
  earlier: readonly Answer[];
}) => Answer;

interface Call {
  method: keyof Store;
  name: string;
  content: Buffer | undefined;
}

/** What a call of the store came to: a value or nothing, or an error's code. */
export interface Answer {
  value?: unknown;
  error?: string;
}

/** A program after a row of answers: what it asks next, or how it has ended. */
interface Position {
  answers: readonly Answer[];
  /** The calls that were answered, and their answers' places. */
  calls: readonly string[];
  call: Call | undefined;
  ended: string | undefined;
  next: Map<string, number>;
}

let idPrefix = '';
let idCount = 0;

/** Ids in place of random ones: the same in every replay, different in every program. */
export function nextId(): string {
  const count = (idCount++).toString(16).padStart(8, '0');
  return createHash('sha256').update(idPrefix).digest('hex').slice(0, 24) + count;
}

/** Runs something outside the search with ids of its own. */
export async function withIds<Result>(prefix: string, run: () => Promise<Result>): Promise<Result> {
  idPrefix = prefix;
  idCount = 0;
  return run();
}

class ReplayedProgram {
  readonly positions: Position[] = [];
  readonly #program: Program;

  constructor(program: Program) {
    this.#program = program;
  }

  /** The position after these answers. */
  async place(answers: readonly Answer[]): Promise<number> {
    const waiting: Call[] = [];
    const calls: string[] = [];
    let answered = 0;
    let ended: string | undefined;
    const ask = (method: keyof Store, name: string, content?: Uint8Array): Promise<unknown> => {
      const answer = answers[answered];
      if (answer === undefined) {
        waiting.push({ method, name, content: content && Buffer.from(content) });
        return new Promise(() => {});
      }
      answered++;
      calls.push(textOf({ method, name, content: undefined }));
      if (answer.error !== undefined) {
        return Promise.reject(firnError(answer.error as 'ERR_NOT_FOUND', name));
      }
      return Promise.resolve(answer.value);
    };
    const store: Store = {
      get: (name) => ask('get', name) as Promise<Buffer>,
      putNew: (name, content) => ask('putNew', name, content) as Promise<void>,
      replace: (name, content) => ask('replace', name, content) as Promise<void>,
      list: (folder) => ask('list', folder) as Promise<string[]>,
      delete: (name) => ask('delete', name) as Promise<void>,
    };
    await withIds(this.#program.name, async () => {
      this.#program.run(store).then(
        (value) => {
          ended = `done ${String(value)}`;
        },
        (error: unknown) => {
          ended = `failed ${isFirnError(error) ? error.code : String(error)}`;
        },
      );
      // Nothing in a program waits for anything but the store: when no microtask is left, it stands.
      await new Promise((resolve) => setImmediate(resolve));
    });
    this.positions.push({ answers, calls, call: waiting[0], ended, next: new Map() });
    return this.positions.length - 1;
  }

  /** The position after one answer more. */
  async advance(position: number, answer: Answer): Promise<number> {
    const { answers, next } = this.positions[position] as Position;
    const key = JSON.stringify(answer);
    const known = next.get(key);
    if (known !== undefined) return known;
    const reached = await this.place([...answers, answer]);
    next.set(key, reached);
    return reached;
  }
}

/** The stores that were met, each once. */
class Stores {
  readonly all: Map<string, Buffer>[] = [];
  readonly #ids = new Map<string, number>();

  intern(objects: Map<string, Buffer>): number {
    const hash = createHash('sha256');
    for (const name of [...objects.keys()].sort()) {
      hash.update(`${name}\0`).update(objects.get(name) as Buffer);
    }
    const key = hash.digest('hex');
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    this.#ids.set(key, this.all.push(objects) - 1);
    return this.all.length - 1;
  }
}

const STATES_MAX = 2_000_000;

type Parents = Map<string, { from: string; step: string } | undefined>;

/** A place in the search: the store, each program's position, and what is left of the bound on switches. */
interface Node {
  store: number;
  places: readonly number[];
  last: number | undefined;
  switches: number;
}

/**
 * Searches all states that the programs can reach from `objects`, and calls `check` at each of them; throws what it throws.
 */
export async function explore(
  objects: ReadonlyMap<string, Buffer>,
  programs: readonly Program[],
  check: (state: State, storeId: number) => void | Promise<void>,
  { lie = ({ answer }) => answer, switchesMax }: ExploreOptions = {},
): Promise<Exploration> {
  const stores = new Stores();
  const actors = programs.map((program) => new ReplayedProgram(program));
  const places: number[] = [];
  for (const actor of actors) places.push(await actor.place([]));
  const start: Node = {
    store: stores.intern(new Map(objects)),
    places,
    last: undefined,
    switches: 0,
  };
  // Who ran last matters only where switches are counted.
  const keyOf = ({ store, places, last, switches }: Node) =>
    `${store},${places}${switchesMax === undefined ? '' : `,${last},${switches}`}`;
  const parents: Parents = new Map([[keyOf(start), undefined]]);
  const queue: (Node | undefined)[] = [start];
  for (let at = 0; at < queue.length; at++) {
    const node = queue[at] as Node;
    queue[at] = undefined;
    const key = keyOf(node);
    const reached = stores.all[node.store] as Map<string, Buffer>;
    const positions = actors.map((actor, i) => actor.positions[node.places[i] ?? 0] as Position);
    await check(
      { objects: reached, ended: endsOf(programs, positions), path: () => pathTo(parents, key) },
      node.store,
    );
    for (const [i, actor] of actors.entries()) {
      const position = positions[i] as Position;
      if (position.call === undefined) continue;
      const isSwitch =
        node.last !== undefined && node.last !== i && positions[node.last]?.call !== undefined;
      const switches = node.switches + (isSwitch ? 1 : 0);
      if (switchesMax !== undefined && switches > switchesMax) continue;
      const { answer, after } = await step(reached, position.call);
      const call = textOf(position.call);
      const earlier = position.answers.filter((_, j) => position.calls[j] === call);
      const program = programs[i]?.name ?? '';
      const place = await actor.advance(
        node.places[i] as number,
        lie({ program, call, answer, earlier }),
      );
      const next: Node = {
        store: stores.intern(after),
        places: node.places.map((each, j) => (j === i ? place : each)),
        last: i,
        switches,
      };
      const nextKey = keyOf(next);
      if (parents.has(nextKey)) continue;
      parents.set(nextKey, { from: key, step: `${program}: ${call}` });
      queue.push(next);
    }
    if (queue.length > STATES_MAX) throw new Error(`more than ${STATES_MAX} states`);
  }
  return { states: queue.length };
}

/** What a call comes to on this store, and the store after it. */
async function step(objects: ReadonlyMap<string, Buffer>, call: Call) {
  const memory = new MemoryStore();
  for (const [name, content] of objects) memory.objects.set(name, content);
  const answer = await perform(memory, call);
  return { answer, after: memory.objects };
}

function endsOf(programs: readonly Program[], positions: readonly Position[]): Map<string, string> {
  const ends = new Map<string, string>();
  for (const [i, { ended }] of positions.entries()) {
    if (ended !== undefined) ends.set(programs[i]?.name ?? '', ended);
  }
  return ends;
}

function textOf({ method, name }: Call): string {
  return `${method} ${name}`;
}

function pathTo(parents: Parents, key: string): string[] {
  const path: string[] = [];
  for (let edge = parents.get(key); edge !== undefined; edge = parents.get(edge.from)) {
    path.push(edge.step);
  }
  return path.reverse();
}

async function perform(store: Store, { method, name, content }: Call): Promise<Answer> {
  try {
    const bytes = content ?? Buffer.alloc(0);
    const value = await (method === 'putNew' || method === 'replace'
      ? store[method](name, bytes)
      : store[method](name));
    return value === undefined ? {} : { value: Array.isArray(value) ? value.sort() : value };
  } catch (error) {
    if (!isFirnError(error)) throw error;
    return { error: error.code };
  }
}
