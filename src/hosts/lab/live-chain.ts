/**
 * A disk of a running machine: a chain of layers, of which the top one takes the writes, and the merge of a layer into its parent while the
 * guest writes on.
 *
 * Synchronous like live-layer.ts. Merging copies what the layer has into its parent. At every moment the layer still hides what was
 * copied, so the chain reads the same throughout, and a merge that dies is begun again. When it is the top layer that is merged, it
 * changes meanwhile: what the guest writes to the part already copied goes to both. So when the copy reaches the disk's end it is
 * complete, and nothing has to converge.
 */

import { basename } from 'node:path';
import { firnError } from '../../errors.js';
import { LiveLayer } from './live-layer.js';
import { invalid, type Locator, MIB, newGuid, ZERO_GUID } from './vhdx-tables.js';

const COPY_BYTES = MIB;
// How far to look for something to copy in one step.
const LOOK_BYTES = 64 * MIB;

export class LiveChain {
  readonly #layers: LiveLayer[];
  readonly #beforeGrowth: () => void;
  #merge: ChainMerge | undefined;

  /**
   * Opens a chain by its layers' paths, the top one first; only that one is written. Checks that each names the next one by its linkage:
   * ERR_PARENT_MISMATCH.
   */
  static open(paths: readonly string[], beforeGrowth: () => void = () => {}): LiveChain {
    const layers: LiveLayer[] = [];
    try {
      for (const path of paths) {
        layers.push(LiveLayer.open(path, { write: layers.length === 0, beforeGrowth }));
      }
      for (const [index, layer] of layers.entries()) checkLinkage(layer, layers[index + 1]);
      return new LiveChain(layers, beforeGrowth);
    } catch (error) {
      for (const layer of layers) layer.close();
      throw error;
    }
  }

  private constructor(layers: LiveLayer[], beforeGrowth: () => void) {
    this.#layers = layers;
    this.#beforeGrowth = beforeGrowth;
  }

  get paths(): string[] {
    return this.#layers.map((layer) => layer.path);
  }

  get sizeBytes(): number {
    return this.#top.shape.sizeBytes;
  }

  get sectorBytes(): number {
    return this.#top.shape.sectorBytes;
  }

  /** The identity of the top layer's content. */
  get dataWriteGuid(): string {
    return this.#top.dataWriteGuid;
  }

  get #top(): LiveLayer {
    return this.#at(0);
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.#readInto(0, offset, bytes);
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#top.write(offset, bytes);
    this.#merge?.mirror(offset, bytes);
  }

  /** All that was written before is durable. */
  flush(): void {
    this.#top.flush();
  }

  /** Puts an empty child on top, which exists already as a file: from now on it takes the writes. */
  push(path: string): void {
    this.flush();
    const child = LiveLayer.open(path, { write: true, beforeGrowth: this.#beforeGrowth });
    try {
      checkLinkage(child, this.#top);
    } catch (error) {
      child.close();
      throw error;
    }
    this.#reopen(0, false);
    this.#layers.unshift(child);
  }

  /** Takes the top layer away again, to which nothing has been written since `push`. */
  pop(): void {
    const [child] = this.#layers.splice(0, 1);
    child?.close();
    this.#reopen(0, true);
  }

  /** Begins to merge the layer of this path into its parent. One merge at a time. */
  beginMerge(path: string): ChainMerge {
    const index = this.#layers.findIndex((layer) => layer.path === path);
    if (index < 0 || index + 1 >= this.#layers.length || this.#merge !== undefined) {
      throw firnError('ERR_INTERNAL', `${path} cannot be merged now`, { path });
    }
    this.#reopen(index, true);
    this.#reopen(index + 1, true);
    const merge = new ChainMerge(this.#at(index), this.#at(index + 1), index === 0);
    this.#merge = merge;
    return merge;
  }

  /**
   * Points the merged layer's child, if it has one, to the parent: by the path and by a second linkage, so that the chain is valid with
   * the layer and without it. The copy must be complete.
   */
  bypassMerged(): void {
    const { layer, parent } = this.#merging;
    parent.flush();
    const index = this.#layers.indexOf(layer);
    if (index === 0) return;
    this.#changeLocator(index - 1, parent.path, layer.dataWriteGuid, parent.dataWriteGuid);
  }

  /** Takes the merged layer out of the chain, after `bypassMerged`; gives its path. Its file is not needed any more. */
  dropMerged(): string {
    const { layer, parent } = this.#merging;
    const index = this.#layers.indexOf(layer);
    this.#merge = undefined;
    layer.close();
    this.#layers.splice(index, 1);
    if (index > 0) {
      this.#changeLocator(index - 1, parent.path, parent.dataWriteGuid, ZERO_GUID);
      this.#reopen(index, false);
    }
    return layer.path;
  }

  /** Ends a merge that cannot be completed; the chain stays as it was. */
  abandonMerge(): void {
    if (this.#merge === undefined) return;
    const { layer } = this.#merge;
    this.#merge = undefined;
    const index = this.#layers.indexOf(layer);
    this.#at(index + 1).flush();
    this.#reopen(index + 1, false);
    if (index > 0) this.#reopen(index, false);
  }

  close(): void {
    for (const layer of this.#layers) layer.close();
  }

  get #merging(): ChainMerge {
    if (this.#merge === undefined) throw firnError('ERR_INTERNAL', 'There is no merge under way');
    return this.#merge;
  }

  #at(index: number): LiveLayer {
    const layer = this.#layers[index];
    if (layer === undefined) throw firnError('ERR_INTERNAL', `There is no layer ${index}`);
    return layer;
  }

  // `from`: the first layer to ask.
  #readInto(from: number, offset: number, target: Buffer): void {
    const layer = this.#layers[from];
    if (layer === undefined) return; // below the base: zeros
    for (const run of layer.runs(offset, target.length)) {
      const part = target.subarray(run.offset - offset, run.offset - offset + run.length);
      if (run.kind === 'data') layer.readRun(run, 0, part);
      else if (run.kind === 'absent') this.#readInto(from + 1, run.offset, part);
    }
  }

  // Opens a layer again for writing or for reading only, unless it is open that way.
  #reopen(index: number, write: boolean): void {
    const layer = this.#at(index);
    if (layer.writable === write) return;
    this.#layers[index] = LiveLayer.open(layer.path, { write, beforeGrowth: this.#beforeGrowth });
    layer.close();
  }

  #changeLocator(index: number, parentPath: string, first: string, second: string): void {
    const wasWritable = this.#at(index).writable;
    this.#reopen(index, true);
    const child = this.#at(index);
    child.replaceLocator(locatorTo(child, parentPath, first, second));
    this.#reopen(index, wasWritable);
  }
}

/** A merge under way. Call `copySome` until it says that all is copied. */
export class ChainMerge {
  readonly layer: LiveLayer;
  readonly parent: LiveLayer;
  readonly #isTop: boolean;
  // All before it is in the parent.
  #copied = 0;
  #failure: unknown;

  constructor(layer: LiveLayer, parent: LiveLayer, isTop: boolean) {
    this.layer = layer;
    this.parent = parent;
    this.#isTop = isTop;
    announceChange(layer, parent);
  }

  /** How much of the disk has been gone through, 0 to 1. */
  get progress(): number {
    return this.#copied / this.layer.shape.sizeBytes;
  }

  /** Copies up to 1 MiB; true when nothing is left to copy. Throws what has stopped the merge. */
  copySome(): boolean {
    if (this.#failure !== undefined) throw this.#failure;
    const { sizeBytes } = this.layer.shape;
    const look = Math.min(LOOK_BYTES, sizeBytes - this.#copied);
    const run = this.layer.runs(this.#copied, look).find(({ kind }) => kind !== 'absent');
    if (run === undefined) {
      this.#copied += look;
    } else {
      const length = Math.min(run.length, COPY_BYTES);
      if (run.kind === 'zero') {
        this.parent.writeZeros(run.offset, length);
      } else {
        const bytes = Buffer.alloc(length);
        this.layer.readRun(run, 0, bytes);
        this.parent.write(run.offset, bytes);
      }
      this.#copied = run.offset + length;
    }
    return this.#copied === sizeBytes;
  }

  /** What the guest writes to the top layer while that is merged. A failure is the merge's, not the guest's. */
  mirror(offset: number, bytes: Uint8Array): void {
    const length = Math.min(bytes.length, this.#copied - offset);
    if (!this.#isTop || length <= 0 || this.#failure !== undefined) return;
    try {
      this.parent.write(offset, bytes.subarray(0, length));
    } catch (error) {
      this.#failure = error;
    }
  }
}

// The parent's content is about to change under its child. First the child learns the identity that the parent is going to have, then the
// parent takes it: the linkage holds at every moment (MS-VHDX 2.6.2.6.3). A merge that died after both goes on under that identity.
function announceChange(layer: LiveLayer, parent: LiveLayer): void {
  const now = parent.dataWriteGuid;
  if (linkageOf(layer, 'parent_linkage2') === now) {
    parent.replaceDataWriteGuid(now);
    return;
  }
  const next = newGuid();
  layer.replaceLocator(locatorTo(layer, parent.path, now, next));
  parent.replaceDataWriteGuid(next);
}

function linkageOf(layer: LiveLayer, key: 'parent_linkage' | 'parent_linkage2'): string {
  const text = layer.locator?.get(key) ?? '';
  return text.replace(/^\{|\}$/g, '').toLowerCase();
}

function checkLinkage(child: LiveLayer, parent: LiveLayer | undefined): void {
  if (!child.shape.hasParent) {
    if (parent === undefined) return;
    invalid(child.path, `it has no parent, but ${basename(parent.path)} is said to be it`);
  }
  if (parent === undefined) {
    throw firnError('ERR_PARENT_NOT_FOUND', `${child.path}: its parent is not named`, {
      path: child.path,
    });
  }
  const linkages = [linkageOf(child, 'parent_linkage'), linkageOf(child, 'parent_linkage2')];
  const { dataWriteGuid } = parent;
  const sameShape =
    child.shape.sizeBytes === parent.shape.sizeBytes &&
    child.shape.sectorBytes === parent.shape.sectorBytes;
  if (dataWriteGuid === ZERO_GUID || !linkages.includes(dataWriteGuid) || !sameShape) {
    throw firnError('ERR_PARENT_MISMATCH', `${parent.path} is not the parent of ${child.path}`, {
      path: child.path,
    });
  }
}

// The layer's locator with another parent of the same folder: each path keeps its form and its folder.
function locatorTo(layer: LiveLayer, parentPath: string, first: string, second: string): Locator {
  const locator: Locator = new Map(layer.locator);
  for (const key of ['relative_path', 'volume_path', 'absolute_win32_path']) {
    const present = locator.get(key);
    if (present === undefined) continue;
    locator.set(key, present.slice(0, present.lastIndexOf('\\') + 1) + basename(parentPath));
  }
  locator.set('parent_linkage', `{${first}}`);
  locator.set('parent_linkage2', `{${second}}`);
  return locator;
}
