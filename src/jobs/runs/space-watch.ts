/**
 * Watches the free space of a machine's volumes while its checkpoint stands: a volume that fills pauses every machine on it, so the run is
 * given up before that and the checkpoint merged while there is still room to merge.
 */

import { type FirnError, firnError } from '../../errors.js';
import type { Host, Vm } from '../../hosts/host.js';
import { mebibytes } from './plan.js';

const INTERVAL_MS = 1000;

export interface SpaceWatch {
  /** Fires with the error when a volume has less than the minimum free. */
  readonly signal: AbortSignal;
  readonly error: FirnError | undefined;
  stop(): void;
}

/** Watches until stopped. A host that does not answer says nothing of its space. */
export function watchSpace(host: Host, vm: Vm, minimumFreeBytes: number): SpaceWatch {
  const volumes = new Set(vm.disks.map((disk) => disk.volume));
  const low = new AbortController();
  let error: FirnError | undefined;
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  const look = async () => {
    const found = await host.volumes().catch(() => []);
    const short = found.find(
      ({ name, freeBytes }) => volumes.has(name) && freeBytes < minimumFreeBytes,
    );
    if (stopped) return;
    if (short === undefined) {
      timer = setTimeout(look, INTERVAL_MS);
      return;
    }
    const text = `Volume ${short.name} has only ${mebibytes(short.freeBytes)} left; ${vm.name} was given up before it fills`;
    error = firnError('ERR_VOLUME_LOW', text);
    low.abort(error);
  };
  void look();
  return {
    signal: low.signal,
    get error() {
      return error;
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
