/**
 * The hypervisor's part of a machine: its disks as open chains, its checkpoints, and their merging.
 *
 * Whoever has a Machine open must hold the machine (control.ts): its own process while it runs, the caller's when it is off. Every change
 * goes through vm.json in an order that a crash can interrupt anywhere: what is found half-done is undone (a checkpoint) or
 * done again (a merge) by whoever opens the machine next. Between awaits of these functions the guest may write; `hold` keeps it from that.
 */

import { randomUUID } from 'node:crypto';
import { basename, join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { loadEngine } from '../../engine/engine.js';
import { firnError, isFirnError } from '../../errors.js';
import { removeFiles, replaceFile } from './durable-file.js';
import { findFault, takeFault } from './faults.js';
import { LiveChain } from './live-chain.js';
import {
  collectGarbage,
  configurationName,
  isMark,
  layerPaths,
  markedFiles,
  readVmFile,
  removeUnfinished,
  type VmCheckpoint,
  type VmFile,
  writeVmFile,
} from './vm-file.js';

const FAULT_POLL_MS = 20;
const AVHDX_BLOCK_BYTES = 2 * 1024 * 1024;

export interface CheckpointRequest {
  /** The mark, or a user's name for it. */
  name: string;
  kind: 'recovery' | 'user';
  /** The name under which it may be kept later. */
  reference?: string | undefined;
}

export interface CheckpointResult {
  /** Of each disk, the layers below the new one, which do not change while it stands, and the identity of the first of them. */
  disks: { name: string; layers: string[]; linkage: string }[];
  /** A copy of vm.json as it was. */
  configuration: string;
  /** ISO time at which all disks froze. */
  frozenAt: string;
}

export class Machine {
  readonly folder: string;
  #vm: VmFile;
  readonly #chains = new Map<string, LiveChain>();
  // Checkpoints and merges, one after the other.
  #queue: Promise<unknown> = Promise.resolve();
  readonly #merges = new Map<string, SharedWork>();
  #merging: string | undefined;

  /** Opens the disks, and clears away what a crash has left half-done. */
  static open(folder: string): Machine {
    removeUnfinished(folder);
    const vm = collectGarbage(folder, readVmFile(folder));
    const machine = new Machine(folder, vm);
    try {
      machine.#openChains();
    } catch (error) {
      machine.close();
      throw error;
    }
    return machine;
  }

  private constructor(folder: string, vm: VmFile) {
    this.folder = folder;
    this.#vm = vm;
  }

  get vm(): VmFile {
    return this.#vm;
  }

  /** The name of the checkpoint that is being merged. */
  get merging(): string | undefined {
    return this.#merging;
  }

  /** The disks, in the order of vm.json. */
  get chains(): LiveChain[] {
    return [...this.#chains.values()];
  }

  setRunning(running: boolean): void {
    this.#save({ ...this.#vm, running });
  }

  /**
   * Puts a new layer on every disk at one moment. `hold` keeps the guest from writing while it runs; it is given the work. `lastLook` is
   * called right before the switch: what it throws stops the checkpoint.
   */
  async checkpoint(
    request: CheckpointRequest,
    hold: <Result>(work: () => Promise<Result>) => Promise<Result>,
    lastLook: () => void = () => {},
  ): Promise<CheckpointResult> {
    if (this.#merging !== undefined) {
      throw firnError('ERR_VM_BUSY', `${this.#vm.name}: ${this.#merging} is being merged`);
    }
    if (this.#vm.checkpoints.some((checkpoint) => checkpoint.name === request.name)) {
      throw firnError('ERR_CHECKPOINT_FAILED', `${this.#vm.name} has ${request.name} already`);
    }
    return this.#inTurn(() => hold(() => this.#checkpointNow(request, lastLook)));
  }

  /**
   * Merges a checkpoint's layers into what lies below them and forgets it; false if there is no such checkpoint. Who asks for a merge
   * that is under way waits for that one, and it is given up when the last of them has given up. A merge that fails or is given up
   * leaves every disk with the same content as before.
   */
  async merge(name: string, signal: AbortSignal): Promise<boolean> {
    let merge = this.#merges.get(name);
    if (merge === undefined || merge.given.up.aborted) {
      merge = new SharedWork((given) => this.#inTurn(() => this.#mergeNow(name, given)));
      this.#merges.set(name, merge);
    }
    try {
      return await merge.join(signal);
    } finally {
      if (this.#merges.get(name) === merge) this.#merges.delete(name);
    }
  }

  /**
   * Keeps a run's checkpoint under the name of its reference, whose mark it does not bear any more. False if there is neither the one nor
   * the other.
   */
  async keep(mark: string, reference: string): Promise<boolean> {
    return this.#inTurn(async () => {
      const { checkpoints } = this.#vm;
      const pending = checkpoints.find(({ name }) => name === mark);
      if (pending?.reference === reference) {
        const kept: VmCheckpoint = { ...pending, name: reference, kind: 'reference' };
        this.#save({
          ...this.#vm,
          checkpoints: checkpoints.map((other) => (other === pending ? kept : other)),
        });
      }
      const isKept = this.#vm.checkpoints.some(({ name }) => name === reference);
      if (isKept) this.#removeMarked(mark);
      return isKept;
    });
  }

  /** Waits until no checkpoint or merge is under way. */
  async idle(): Promise<void> {
    await this.#queue;
  }

  /** Closes the disks. What was not flushed may be lost, as with a power cut. */
  close(): void {
    for (const chain of this.#chains.values()) chain.close();
    this.#chains.clear();
  }

  #openChains(): void {
    for (const disk of this.#vm.disks) {
      const chain = LiveChain.open(layerPaths(this.folder, disk), () => {
        if (findFault(this.folder, 'volume-full') === undefined) return;
        throw firnError('ERR_DISK_FULL', `${disk.name} cannot grow: its volume is full`);
      });
      this.#chains.set(disk.name, chain);
    }
  }

  #save(vm: VmFile): void {
    writeVmFile(this.folder, vm);
    this.#vm = vm;
  }

  #chain(disk: string): LiveChain {
    const chain = this.#chains.get(disk);
    if (chain === undefined) throw firnError('ERR_INTERNAL', `${disk} is not open`);
    return chain;
  }

  #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#queue.then(work);
    this.#queue = result.catch(() => {});
    return result;
  }

  // --- Checkpoint ---

  async #checkpointNow(
    request: CheckpointRequest,
    lastLook: () => void,
  ): Promise<CheckpointResult> {
    const before = this.#vm;
    const id = randomUUID();
    const suffix = isMark(request.name) ? request.name : id;
    const layers: Record<string, string> = {};
    // A layer that may stay when its run is over must not bear the run's mark.
    const layerSuffix = request.reference ?? suffix;
    for (const { name } of before.disks) layers[name] = `${name}_${layerSuffix}.avhdx`;
    const configuration = join(this.folder, configurationName(suffix));
    this.#save({ ...before, garbage: [...Object.values(layers), basename(configuration)] });
    try {
      await this.#createLayers(layers);
      if (isMark(request.name)) {
        replaceFile(configuration, `${JSON.stringify({ ...before, garbage: [] }, null, 2)}\n`);
      }
      lastLook();
      const below = this.#identities(before);
      const { name, kind, reference } = request;
      const made = { id, name, kind, created: '', layers };
      return this.#switchTo(
        before,
        reference === undefined ? made : { ...made, reference, below },
        configuration,
      );
    } catch (error) {
      this.#undo(before);
      if (isFirnError(error)) throw error;
      throw firnError('ERR_CHECKPOINT_FAILED', `${before.name}: ${String(error)}`, {
        cause: error,
      });
    }
  }

  async #createLayers(layers: Readonly<Record<string, string>>): Promise<void> {
    for (const [disk, layer] of Object.entries(layers)) {
      const chain = this.#chain(disk);
      chain.flush();
      const parent = chain.paths[0] ?? '';
      const identity = {
        format: 'vhdx',
        kind: 'differencing',
        sizeBytes: chain.sizeBytes,
        blockBytes: AVHDX_BLOCK_BYTES,
        logicalSectorBytes: chain.sectorBytes,
        physicalSectorBytes: 4096,
        diskId: '',
      } as const;
      await loadEngine().createDisk(join(this.folder, layer), identity, parent, false);
      if (takeFault(this.folder, 'checkpoint-fails') !== undefined) {
        throw firnError(
          'ERR_CHECKPOINT_FAILED',
          `${this.#vm.name}: the checkpoint failed after the layer of ${disk}, as it was asked to`,
        );
      }
    }
  }

  #identities({ disks }: VmFile): NonNullable<VmCheckpoint['below']> {
    const identities = disks.map(({ name }): [string, { frozen: string; now: string }] => {
      const { dataWriteGuid } = this.#chain(name);
      return [name, { frozen: dataWriteGuid, now: dataWriteGuid }];
    });
    return Object.fromEntries(identities);
  }

  // All at once: nothing is awaited here, so no guest writes between the disks.
  #switchTo(before: VmFile, made: VmCheckpoint, configuration: string): CheckpointResult {
    const identities = this.#identities(before);
    for (const [disk, layer] of Object.entries(made.layers)) {
      this.#chain(disk).push(join(this.folder, layer));
    }
    const created = new Date().toISOString();
    this.#save({
      ...before,
      disks: before.disks.map((disk) => ({
        ...disk,
        layers: [made.layers[disk.name] ?? '', ...disk.layers],
      })),
      checkpoints: [...before.checkpoints, { ...made, created }],
      garbage: [],
    });
    return {
      disks: before.disks.map((disk) => ({
        name: disk.name,
        layers: layerPaths(this.folder, disk),
        linkage: identities[disk.name]?.frozen ?? '',
      })),
      configuration,
      frozenAt: created,
    };
  }

  #undo(before: VmFile): void {
    // Some disks may have switched although vm.json has not.
    for (const disk of before.disks) {
      const chain = this.#chain(disk.name);
      while (chain.paths.length > disk.layers.length) chain.pop();
    }
    this.#save(this.#vm);
    this.#vm = collectGarbage(this.folder, this.#vm);
  }

  // --- Merge ---

  async #mergeNow(name: string, given: Given): Promise<boolean> {
    const checkpoint = this.#vm.checkpoints.find((candidate) => candidate.name === name);
    if (checkpoint === undefined) {
      this.#removeMarked(name);
      return false;
    }
    this.#refuseBelowAnother(checkpoint);
    this.#merging = name;
    try {
      for (const [disk, layer] of Object.entries(checkpoint.layers)) {
        const there = this.#vm.disks.find((candidate) => candidate.name === disk);
        if (there?.layers.includes(layer)) await this.#mergeLayer(disk, layer, given);
      }
      this.#save({
        ...this.#vm,
        checkpoints: this.#vm.checkpoints.filter(({ id }) => id !== checkpoint.id),
      });
      this.#removeMarked(name);
      return true;
    } catch (error) {
      throw mergeFailure(`${this.#vm.name}: ${name}`, error);
    } finally {
      this.#merging = undefined;
    }
  }

  // What bears the mark and is in no chain: the configuration, and what somebody has brought back.
  #removeMarked(mark: string): void {
    const used = new Set(this.#vm.disks.flatMap((disk) => disk.layers));
    const doomed = markedFiles(this.folder).filter((file) => file.mark === mark);
    const unused = doomed.filter((file) => !used.has(file.name));
    removeFiles(unused.map((file) => join(this.folder, file.name)));
  }

  // Above a run's checkpoint its layers are being read: they must not change, and merging one from below would change them.
  #refuseBelowAnother(checkpoint: VmCheckpoint): void {
    const index = this.#vm.checkpoints.indexOf(checkpoint);
    const above = this.#vm.checkpoints.slice(index + 1).find(({ kind }) => kind === 'recovery');
    if (above === undefined) return;
    throw firnError(
      'ERR_VM_BUSY',
      `${this.#vm.name}: ${checkpoint.name} lies below ${above.name}, whose layers may be being read`,
      { hint: 'It can be merged once that checkpoint has been.' },
    );
  }

  async #mergeLayer(disk: string, layer: string, given: Given): Promise<void> {
    const chain = this.#chain(disk);
    const merge = chain.beginMerge(join(this.folder, layer));
    try {
      for (let done = false; !done; ) {
        await this.#stallIfAsked(given);
        done = merge.copySome();
        await nextTurn();
        given.up.throwIfAborted();
        this.#failIfAsked(layer);
      }
      await merge.parent.syncPayload();
      given.up.throwIfAborted();
      chain.bypassMerged();
    } catch (error) {
      chain.abandonMerge();
      throw error;
    }
    // From here on nothing is awaited: the guest's next write goes to the parent.
    this.#save({
      ...this.#vm,
      disks: this.#vm.disks.map((candidate) =>
        candidate.name === disk
          ? { ...candidate, layers: candidate.layers.filter((name) => name !== layer) }
          : candidate,
      ),
      checkpoints: this.#checkpointsAfterMerge(disk, layer, merge.parent.dataWriteGuid),
      garbage: [layer],
    });
    chain.dropMerged();
    this.#vm = collectGarbage(this.folder, this.#vm);
  }

  // The layer above the merged one lies on the parent now, which has the new identity.
  #checkpointsAfterMerge(disk: string, layer: string, identity: string): VmCheckpoint[] {
    const layers = this.#vm.disks.find(({ name }) => name === disk)?.layers ?? [];
    const child = layers[layers.indexOf(layer) - 1];
    return this.#vm.checkpoints.map((checkpoint) => {
      const below = checkpoint.below?.[disk];
      if (below === undefined || child === undefined || checkpoint.layers[disk] !== child) {
        return checkpoint;
      }
      return {
        ...checkpoint,
        below: { ...checkpoint.below, [disk]: { ...below, now: identity } },
      };
    });
  }

  #failIfAsked(layer: string): void {
    if (takeFault(this.folder, 'merge-fails') === undefined) return;
    throw firnError('ERR_MERGE_FAILED', `${layer} did not merge, as it was asked to`);
  }

  async #stallIfAsked(given: Given): Promise<void> {
    const stalls = takeFault(this.folder, 'merge-stalls');
    // One that goes off once has been switched off by now; it holds until somebody has waited in vain.
    const holds = () =>
      stalls?.once ? !given.upByOne.aborted : findFault(this.folder, 'merge-stalls') !== undefined;
    while (stalls !== undefined && holds()) {
      await sleep(FAULT_POLL_MS, undefined, { signal: given.up });
    }
  }
}

/** What work that several callers wait for is told of them. */
interface Given {
  /** Fires when all of them have given up, and the work with them. */
  up: AbortSignal;
  /** Fires when the first of them has. */
  upByOne: AbortSignal;
}

/** Work that several callers wait for, and that is given up when all of them have given up. */
class SharedWork {
  readonly given: Given;
  readonly #all = new AbortController();
  readonly #one = new AbortController();
  readonly #result: Promise<boolean>;
  #waiting = 0;

  constructor(work: (given: Given) => Promise<boolean>) {
    this.given = { up: this.#all.signal, upByOne: this.#one.signal };
    this.#result = work(this.given);
  }

  async join(signal: AbortSignal): Promise<boolean> {
    this.#waiting++;
    const leave = () => {
      this.#waiting--;
      if (this.#waiting === 0) this.#all.abort(signal.reason);
      this.#one.abort();
    };
    signal.addEventListener('abort', leave, { once: true });
    try {
      if (signal.aborted) leave();
      return await this.#result;
    } finally {
      signal.removeEventListener('abort', leave);
    }
  }
}

function mergeFailure(what: string, error: unknown) {
  if (isFirnError(error) && (error.code === 'ERR_MERGE_FAILED' || error.code === 'ERR_VM_BUSY')) {
    return error;
  }
  const reason = error instanceof Error ? error.message : String(error);
  return firnError('ERR_MERGE_FAILED', `${what} was not merged: ${reason}`, { cause: error });
}
