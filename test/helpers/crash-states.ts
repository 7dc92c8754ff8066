/**
 * What a file system may hold after a power cut, from a record of what a process did to it (test/fault/recorder.c).
 *
 * The model keeps only what POSIX promises: a file's content is safe when the file was synced, a name when its folder was; a rename inside
 * one folder happens as a whole or not. Everything else may be there or not, each write in pieces of 4 KiB and each change of a name by
 * itself, whatever the order in which they were made. Real file systems keep more.
 */

import { spawnSync } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const PIECE_BYTES = 4096;
const HEADER_BYTES = 33;

export interface RecordedCall {
  kind: string;
  inode: bigint;
  offset: number;
  first: Buffer;
  second: string;
}

export async function readRecord(file: string): Promise<RecordedCall[]> {
  const bytes = await readFile(file);
  const calls: RecordedCall[] = [];
  for (let at = 0; at < bytes.length; ) {
    const begin = at + HEADER_BYTES;
    const middle = begin + Number(bytes.readBigUInt64LE(at + 17));
    const end = middle + Number(bytes.readBigUInt64LE(at + 25));
    calls.push({
      kind: String.fromCharCode(bytes[at] ?? 0),
      inode: bytes.readBigUInt64LE(at + 1),
      offset: Number(bytes.readBigUInt64LE(at + 9)),
      first: bytes.subarray(begin, middle),
      second: bytes.toString('utf8', middle, end),
    });
    at = end;
  }
  return calls;
}

/** What becomes of what was not synced. */
export type Fate = 'lost' | 'names lost' | 'contents lost' | 'kept' | 'some';
/** One fate after the other, for as many moments as there are. */
export const FATES: readonly Fate[] = [
  'lost',
  'names lost',
  'contents lost',
  'kept',
  'some',
  'some',
];
/** Every moment with every fate, which takes hours, instead of some. */
export const ALL = process.env.FIRN_POWER_CUTS === 'all';

/** Compiles the recorder to a library inside `folder`; undefined where nothing can be recorded. */
export function compileRecorder(folder: string): string | undefined {
  const source = fileURLToPath(new URL('../fault/recorder.c', import.meta.url));
  const library = path.join(folder, 'recorder.so');
  const { status } = spawnSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, source, '-ldl']);
  return process.platform === 'linux' && status === 0 ? library : undefined;
}

/** Runs a program of Node's; what it did to the files below `root` is in `log` then (readRecord). */
export function runRecorded(library: string, root: string, log: string, program: string[]) {
  const env = {
    ...process.env,
    FIRN_RECORD_ROOT: root,
    FIRN_RECORD_LOG: log,
    LD_PRELOAD: library,
  };
  return spawnSync(process.execPath, program, { encoding: 'utf8', env });
}

interface Change {
  /** Undefined where the file was made longer or shorter. */
  data?: Buffer;
  offset: number;
}

class FileNode {
  safe: Buffer = Buffer.alloc(0);
  pending: Change[] = [];

  sync(): void {
    this.safe = apply(this.safe, this.pending);
    this.pending = [];
  }
}

interface NameChange {
  remove?: string;
  set?: { name: string; node: Node };
}

class FolderNode {
  readonly safe = new Map<string, Node>();
  pending: NameChange[] = [];

  sync(): void {
    for (const change of this.pending) applyName(this.safe, change);
    this.pending = [];
  }
  now(): Map<string, Node> {
    const names = new Map(this.safe);
    for (const change of this.pending) applyName(names, change);
    return names;
  }
}

type Node = FileNode | FolderNode;

function applyName(names: Map<string, Node>, change: NameChange): void {
  if (change.remove !== undefined) names.delete(change.remove);
  if (change.set !== undefined) names.set(change.set.name, change.set.node);
}

function apply(content: Buffer, changes: readonly Change[]): Buffer {
  let size = content.length;
  for (const { data, offset } of changes) {
    size = data === undefined ? offset : Math.max(size, offset + data.length);
  }
  const longest = changes.reduce(
    (most, { data, offset }) => Math.max(most, offset + (data?.length ?? 0)),
    content.length,
  );
  const result = Buffer.alloc(Math.max(longest, size));
  content.copy(result);
  for (const { data, offset } of changes) {
    if (data === undefined) result.fill(0, offset);
    else data.copy(result, offset);
  }
  return result.subarray(0, size);
}

/** A file system as calls come in. */
export class RecordedFileSystem {
  readonly #root: string;
  readonly #top = new FolderNode();
  readonly #files = new Map<bigint, FileNode>();

  constructor(root: string) {
    this.#root = root;
  }

  /** False if the call changed nothing. */
  take(call: RecordedCall): boolean {
    const name = call.first.toString('utf8');
    switch (call.kind) {
      case 'C': {
        const node = new FileNode();
        this.#files.set(call.inode, node);
        this.#change(name, (base) => ({ set: { name: base, node } }));
        return true;
      }
      case 'W':
        this.#file(call.inode).pending.push({ data: Buffer.from(call.first), offset: call.offset });
        return true;
      case 'T':
        this.#file(call.inode).pending.push({ offset: call.offset });
        return true;
      case 'S':
        this.#file(call.inode).sync();
        return true;
      case 'D':
        this.#folder(name).sync();
        return true;
      case 'M':
        if (name === this.#root) return true;
        this.#change(name, (base) => ({ set: { name: base, node: new FolderNode() } }));
        return true;
      case 'U':
      case 'X':
        this.#change(name, (base) => ({ remove: base }));
        return true;
      case 'L':
        this.#change(call.second, (base) => ({ set: { name: base, node: this.#node(name) } }));
        return true;
      case 'R':
        this.#rename(name, call.second);
        return true;
      default:
        return false;
    }
  }

  /** Writes a state that a power cut may leave now. */
  async writeTo(folder: string, fate: Fate, random: () => number): Promise<void> {
    await writeFolder(this.#top, folder, fate, random);
  }

  #file(inode: bigint): FileNode {
    const node = this.#files.get(inode);
    if (node === undefined) throw new Error(`nothing was recorded of file ${inode}`);
    return node;
  }
  #rename(from: string, to: string): void {
    const node = this.#node(from);
    if (path.dirname(from) === path.dirname(to)) {
      const remove = path.basename(from);
      this.#change(to, (name) => ({ remove, set: { name, node } }));
      return;
    }
    this.#change(to, (name) => ({ set: { name, node } }));
    this.#change(from, (name) => ({ remove: name }));
  }
  #change(name: string, make: (base: string) => NameChange): void {
    this.#folder(path.dirname(name)).pending.push(make(path.basename(name)));
  }
  #folder(name: string): FolderNode {
    const node = this.#node(name);
    if (!(node instanceof FolderNode)) throw new Error(`${name} is not a folder`);
    return node;
  }
  #node(name: string): Node {
    let node: Node = this.#top;
    for (const part of path.relative(this.#root, name).split('/')) {
      if (part === '') continue;
      const next: Node | undefined = node instanceof FolderNode ? node.now().get(part) : undefined;
      if (next === undefined) throw new Error(`nothing was recorded of ${name}`);
      node = next;
    }
    return node;
  }
}

async function writeFolder(
  folder: FolderNode,
  target: string,
  fate: Fate,
  random: () => number,
): Promise<void> {
  await mkdir(target, { recursive: true });
  const names = new Map(folder.safe);
  const keepsAll = fate === 'kept' || fate === 'contents lost';
  for (const change of folder.pending) {
    if (keepsAll || (fate === 'some' && random() < 0.5)) applyName(names, change);
  }
  for (const [name, node] of names) {
    const file = path.join(target, name);
    if (node instanceof FolderNode) await writeFolder(node, file, fate, random);
    else await writeFile(file, surviving(node, fate, random));
  }
}

function surviving(file: FileNode, fate: Fate, random: () => number): Buffer {
  if (fate === 'lost' || fate === 'contents lost') return file.safe;
  if (fate !== 'some') return apply(file.safe, file.pending);
  const kept: Change[] = [];
  for (const change of file.pending) {
    if (change.data === undefined) {
      if (random() < 0.5) kept.push(change);
      continue;
    }
    for (let at = 0; at < change.data.length; ) {
      const end = Math.min(
        change.data.length,
        at + PIECE_BYTES - ((change.offset + at) % PIECE_BYTES),
      );
      if (random() < 0.5) {
        kept.push({ data: change.data.subarray(at, end), offset: change.offset + at });
      }
      at = end;
    }
  }
  return apply(file.safe, kept);
}

/** Numbers in [0, 1) from a seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Writes the files as they may be after a moment of the record, one fate after the other, for `look`; they are gone when it has. Rejects
 * with the first state that `look` does not find as promised.
 */
export async function lookAtStates(
  files: RecordedFileSystem,
  after: { call: RecordedCall; index: number; fates: readonly Fate[] },
  { root, random }: { root: string; random: () => number },
  look: () => Promise<void> | void,
): Promise<void> {
  const { call, index, fates } = after;
  for (const fate of fates) {
    await files.writeTo(root, fate, random);
    try {
      await look();
    } catch (cause) {
      const about = `${call.kind} ${call.first.subarray(0, 200).toString('latin1')}`;
      const message = `after call ${index} (${about}), with what was not synced ${fate}`;
      throw new Error(message, { cause });
    } finally {
      await rm(root, { recursive: true });
    }
  }
}
