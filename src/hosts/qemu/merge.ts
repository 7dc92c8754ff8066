/**
 * Merging a live machine's layers: block-commit in QEMU, which goes on whatever becomes of Firn.
 *
 * Each round asks QEMU how things stand and takes every disk one step on, so it does not matter who began: this process, one that died,
 * or another at the same time. A job keeps its place in QEMU's list after its end (auto-dismiss is off) until the layer's file
 * is removed: it is the proof that what is in the file is in the disk below. Before QEMU is told to complete, the record says so; when
 * QEMU then ends before the proof was seen, offline.ts knows that the layer may be out of date.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { type FirnError, firnError } from '../../errors.js';
import { type GraphDisk, markedLayer, readGraph } from './graph.js';
import { holdsNothing, overlayFiles, removeOverlay } from './layer-files.js';
import type { Machine } from './machines.js';
import { jobId, readOverlayHeader } from './overlay.js';
import { type QmpClient, QmpRefusal, withQmp } from './qmp.js';
import { type LayerStage, type RunRecord, writeRecord } from './record.js';
import { staleLog } from './stale-log.js';

const POLL_MIN_MS = 10;
const POLL_MAX_MS = 500;
/** How often a disk's merge is begun again after it failed. */
const ATTEMPTS_MAX = 4;
const RETRY_MS = 500;
const STALE_LOG_HINT =
  'Shut the machine down, so that its QEMU ends, and run "firn reconcile": while it is off the disk is mended, and the layer is merged.';

const jobsSchema = z.array(
  z.object({ id: z.string(), status: z.string(), error: z.string().optional() }),
);
type Job = z.output<typeof jobsSchema>[number];

export class LiveMerge {
  readonly #machine: Machine;
  readonly #mark: string;
  #record: RunRecord | undefined;
  readonly #failures = new Map<string, { count: number; message: string }>();

  constructor(machine: Machine, mark: string, record: RunRecord | undefined) {
    this.#machine = machine;
    this.#mark = mark;
    this.#record = record;
  }

  /** Merges all layers of the mark and removes their files. Rejects with ERR_MERGE_FAILED, or the signal's reason. */
  async run(signal: AbortSignal): Promise<void> {
    let pollMs = POLL_MIN_MS;
    for (;;) {
      signal.throwIfAborted();
      const left = await withQmp(this.#machine.folder, (qmp) => this.#round(qmp));
      if (left === 0) break;
      await sleep(pollMs, undefined, { signal });
      pollMs = Math.min(POLL_MAX_MS, pollMs * 1.5);
    }
    await this.#removeStrays();
  }

  /** Takes each disk one step on; how many are not done. */
  async #round(qmp: QmpClient): Promise<number> {
    // Jobs first: a job that ended since then is looked at in the next round, and its layer is not missed.
    const jobs = await qmp.query(jobsSchema, 'query-jobs');
    let left = 0;
    for (const disk of await readGraph(qmp)) {
      const job = jobs.find((each) => each.id === jobId(this.#mark, disk.name));
      const place = markedLayer(disk, this.#mark);
      if (job === undefined && place < 0) continue;
      left++;
      try {
        await this.#advance(qmp, disk, place, job);
      } catch (failure) {
        // It may have been overtaken, by the job itself or by another release.
        if (!(failure instanceof QmpRefusal)) throw failure;
        await this.#noteFailure(disk, failure.message);
      }
    }
    return left;
  }

  async #advance(
    qmp: QmpClient,
    disk: GraphDisk,
    place: number,
    job: Job | undefined,
  ): Promise<void> {
    if (job === undefined) return this.#begin(qmp, disk, place);
    if (job.status === 'ready') {
      await this.#note(disk, 'completing');
      await qmp.execute('job-complete', { id: job.id });
    } else if (job.status === 'concluded') {
      const merged = job.error === undefined && place < 0;
      if (merged) {
        await this.#note(disk, 'merged');
        await this.#removeFiles(disk);
      }
      await qmp.execute('job-dismiss', { id: job.id });
      if (!merged) await this.#noteFailure(disk, job.error ?? 'the merge was cancelled');
    }
  }

  async #begin(qmp: QmpClient, disk: GraphDisk, place: number): Promise<void> {
    const [active] = disk.layers;
    const overlay = disk.layers[place];
    const base = disk.layers[place + 1];
    if (active === undefined || overlay === undefined || base === undefined) return;
    if ((await staleLog(base)) !== undefined) {
      // Or another release has begun to merge just now: the next round shows it.
      const message = `QEMU died while it changed the tables of ${base.file}, and would lose what is merged into it now`;
      return this.#noteFailure(disk, message, STALE_LOG_HINT);
    }
    // Below a layer of somebody else's, QEMU completes without being told to.
    await this.#note(disk, place === 0 ? 'merging' : 'completing');
    await qmp.execute('block-commit', {
      'job-id': jobId(this.#mark, disk.name),
      device: active.node,
      'top-node': overlay.node,
      'base-node': base.node,
      'auto-dismiss': false,
    });
  }

  async #noteFailure(disk: GraphDisk, message: string, hint?: string): Promise<void> {
    const count = (this.#failures.get(disk.name)?.count ?? 0) + 1;
    this.#failures.set(disk.name, { count, message });
    if (count >= ATTEMPTS_MAX) {
      const name = this.#machine.ref.name;
      throw firnError('ERR_MERGE_FAILED', `${name}: ${disk.name} could not be merged: ${message}`, {
        ...(hint === undefined ? {} : { hint }),
      });
    }
    await sleep(RETRY_MS);
  }

  async #note(disk: GraphDisk, stage: LayerStage): Promise<void> {
    const entry = this.#record?.disks.find((each) => each.name === disk.name);
    if (this.#record === undefined || entry === undefined || entry.stage === stage) return;
    entry.stage = stage;
    await writeRecord(this.#machine.folder, this.#mark, this.#record);
  }

  /** Removes the layers' files that lie on this disk and are no part of it any more. */
  async #removeFiles(disk: GraphDisk): Promise<void> {
    const inUse = disk.layers.map((layer) => layer.file);
    for (const file of await overlayFiles(this.#machine.folder, this.#mark, [disk], this.#record)) {
      const header = await readOverlayHeader(file).catch(() => undefined);
      if (!inUse.includes(file) && inUse.includes(header?.backing ?? '')) await removeOverlay(file);
    }
  }

  /** Removes files of the mark that are in no chain: none of them may hold what the machine wrote. */
  async #removeStrays(): Promise<void> {
    const { folder, ref } = this.#machine;
    const disks = await withQmp(folder, readGraph);
    const inUse = new Set(disks.flatMap((disk) => disk.layers.map((layer) => layer.file)));
    for (const file of await overlayFiles(folder, this.#mark, disks, this.#record)) {
      if (inUse.has(file)) continue;
      const entry = this.#record?.disks.find((each) => each.overlay === file);
      if (entry?.stage !== 'merged' && !(await holdsNothing(file))) throw lostLayer(ref.name, file);
      await removeOverlay(file);
    }
  }
}

function lostLayer(name: string, file: string): FirnError {
  return firnError(
    'ERR_MERGE_FAILED',
    `${name} runs without the layer ${file}, which holds writes of its guest`,
    {
      path: file,
      retryable: false,
      hint: 'The machine was started on the disk below while the layer was not merged. Both have gone their own ways: decide which to keep, and remove the layer by hand if it is the disk.',
    },
  );
}
