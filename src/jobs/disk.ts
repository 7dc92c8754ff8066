/**
 * A disk's content for programs: random reads and a stream, of an image file on this host or of a disk in a point.
 *
 * This is the edge of the engine, where bytes do enter JavaScript. For backup, restore and copy use the jobs, which keep them out of it.
 */

import type {
  DiskIdentity,
  NativeDisk,
  NativeInspection,
  NativeTracking,
} from '../engine/binding.js';
import { loadEngine, throwIfAborted } from '../engine/engine.js';
import { integerIn, type OpenDiskOptions, resolveOpenDisk } from '../engine/options.js';
import { firnError } from '../errors.js';
import { readSteadily } from '../repository/commit.js';
import { disksOf } from '../repository/format/objects.js';
import type { Repository } from '../repository/repository.js';
import { chooseDisks } from './restore.js';

const READ_BYTES = 1024 * 1024;

export interface ReadableOptions {
  /** Where to begin, in bytes; 0 when not given. */
  start?: number | undefined;
  /** Where to end, exclusive; the disk's end when not given. */
  end?: number | undefined;
  signal?: AbortSignal | undefined;
}

/** A disk that is open for reading. Close it, or use `await using`. */
export class Disk {
  readonly identity: DiskIdentity;
  readonly #native: NativeDisk;

  constructor(native: NativeDisk) {
    this.identity = native.identity;
    this.#native = native;
  }

  get sizeBytes(): number {
    return this.identity.sizeBytes;
  }

  /** Exactly `length` bytes from `offset`, inside the disk; holes are zeros. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    integerIn('offset', offset, 0, this.sizeBytes);
    integerIn('length', length, 0, this.sizeBytes - offset);
    return this.#native.read(offset, length);
  }

  /** The content as a stream of pieces of up to 1 MiB, read as they are asked for. Cancelling it does not close the disk. */
  readable({
    start = 0,
    end = this.sizeBytes,
    signal,
  }: ReadableOptions = {}): ReadableStream<Uint8Array> {
    integerIn('end', end, 0, this.sizeBytes);
    integerIn('start', start, 0, end);
    let offset = start;
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          throwIfAborted(signal);
          if (offset === end) {
            controller.close();
            return;
          }
          const piece = await this.#native.read(offset, Math.min(READ_BYTES, end - offset));
          throwIfAborted(signal);
          offset += piece.length;
          controller.enqueue(piece);
        },
      },
      { highWaterMark: 1 },
    );
  }

  /** Closes its files. May be called more than once. */
  close(): void {
    this.#native.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/**
 * What Windows' own driver for virtual disks says of a frozen disk: a second opinion on its content, and whether its changes are tracked.
 * ERR_UNSUPPORTED on other systems; `tracking` is undefined where Windows tracks nothing. Close `disk` before a layer is to be merged.
 */
export async function openDriverDisk(
  path: string,
): Promise<{ disk: Disk; tracking: NativeTracking | undefined }> {
  const engine = loadEngine();
  // Older systems have a driver and no tracking.
  const tracking = await engine.driverTracking(path).catch(() => undefined);
  return { disk: new Disk(await engine.openDriverDisk(path)), tracking };
}

/** The ranges of a frozen disk that were written since its driver gave out `trackingId`, as [offset, length]. */
export async function driverChanges(path: string, trackingId: string) {
  const { ranges } = await loadEngine().driverChanges(path, trackingId);
  return ranges;
}

/** Opens a disk image with its parents. */
export async function openDisk(path: string, options: OpenDiskOptions = {}): Promise<Disk> {
  return new Disk(await loadEngine().openDisk(path, resolveOpenDisk(options)));
}

/** Says what an image is and what is wrong with it, as far as it can be read. */
export async function inspectDisk(
  path: string,
  options: OpenDiskOptions = {},
): Promise<NativeInspection> {
  return loadEngine().inspectDisk(path, resolveOpenDisk(options));
}

/** Opens a disk of a point without restoring it. `disk` is its name; it may be left out if the point has one disk. */
export async function openPoint(
  repository: Repository,
  selector: string,
  disk?: string,
): Promise<Disk> {
  const point = await repository.resolvePoint(selector);
  const [chosen, ...others] = chooseDisks(point, disk);
  if (chosen === undefined || others.length > 0) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      `Expected the name of one of the ${disksOf(point).length} disks of point ${point.id}`,
    );
  }
  return new Disk(
    await readSteadily(repository, (view) => loadEngine().openMap(view, chosen.root)),
  );
}
