/**
 * The engine as the rest of the control plane sees it: the addon's own surface, with every failure turned into a FirnError.
 *
 * The addon is loaded at the first call of loadEngine() and never before, so that help, list and rescue start fast and work without it.
 * Each wrapped call notes its caller's stack, as a native failure is made on a native thread and has none of its own. Aborting stops
 * the work and then waits for the session to end: only then are its files closed and may be removed.
 */

import { type AbortError, firnError, fromNative } from '../errors.js';
import type { NativeBinding, NativeDisk, NativeSession, NativeStats } from './binding.js';
import { loadBinding } from './loader.js';

/** The addon's surface; what it throws and rejects with are FirnErrors. */
export type Engine = NativeBinding;

let engine: Engine | undefined;

/** The engine of this process, loaded at the first call. Throws ERR_NATIVE_LOAD, at each call again. */
export function loadEngine(): Engine {
  engine ??= wrapBinding(loadBinding());
  return engine;
}

/** Gives each function of the binding FirnErrors for failures. Exported for tests; use loadEngine(). */
export function wrapBinding(binding: NativeBinding): Engine {
  return {
    version: guard(() => binding.version()),
    cpu: guard(() => binding.cpu()),
    blake3: guard((key, data) => binding.blake3(key, data)),
    inspectDisk: guardAsync((path, options) => binding.inspectDisk(path, options)),
    openDisk: guardAsync(async (path, options) => wrapDisk(await binding.openDisk(path, options))),
    createDisk: guardAsync((path, identity, parentPath, overwrite) =>
      binding.createDisk(path, identity, parentPath, overwrite),
    ),
    openDriverDisk: guardAsync(async (path) => wrapDisk(await binding.openDriverDisk(path))),
    driverTracking: guardAsync((path) => binding.driverTracking(path)),
    driverChanges: guardAsync((path, trackingId) => binding.driverChanges(path, trackingId)),
    layerChanges: guardAsync((path, options, layers, baseLinkage) =>
      binding.layerChanges(path, options, layers, baseLinkage),
    ),
    openMap: guardAsync(async (repository, root) =>
      wrapDisk(await binding.openMap(repository, root)),
    ),
    indexInfo: guardAsync((repository) => binding.indexInfo(repository)),
    startBackup: guard((options) => wrapSession(binding.startBackup(options))),
    startFindUnused: guard((options) => wrapSession(binding.startFindUnused(options))),
    startRestore: guard((options) => wrapSession(binding.startRestore(options))),
    startCopy: guard((options) => wrapSession(binding.startCopy(options))),
    startVerify: guard((options) => wrapSession(binding.startVerify(options))),
    startRepairIndex: guard((options) => wrapSession(binding.startRepairIndex(options))),
    startMark: guard((options) => wrapSession(binding.startMark(options))),
    startRescue: guard((options) => wrapSession(binding.startRescue(options))),
    startMergeIndex: guard((options) => wrapSession(binding.startMergeIndex(options))),
    releaseMark: guard((mark) => binding.releaseMark(mark)),
    newSendStream: guard((options) => binding.newSendStream(options)),
    startSend: guard((options) => wrapSession(binding.startSend(options))),
    startOpenStream: guard((options) => wrapSession(binding.startOpenStream(options))),
    startReceive: guard((options) => wrapSession(binding.startReceive(options))),
    newWholeMaps: guard(() => binding.newWholeMaps()),
    startCheckWhole: guard((options) => wrapSession(binding.startCheckWhole(options))),
    startWriteHave: guard((options) => wrapSession(binding.startWriteHave(options))),
    startReadHave: guard((options) => wrapSession(binding.startReadHave(options))),
    newPipe: guard(() => binding.newPipe()),
    forbidCoreFiles: guard(() => binding.forbidCoreFiles()),
    startScrub: guard((options) => wrapSession(binding.startScrub(options))),
    startTrace: guard((options) => wrapSession(binding.startTrace(options))),
    startIoScan: guard((options) => wrapSession(binding.startIoScan(options))),
    startStageScan: guard((options) => wrapSession(binding.startStageScan(options))),
    startMakeData: guard((options) => wrapSession(binding.startMakeData(options))),
    newKernel: guard((options, input) => binding.newKernel(options, input)),
    blake3Implementations: guard(() => binding.blake3Implementations()),
    benchData: guard((options) => binding.benchData(options)),
  };
}

function wrapDisk(disk: NativeDisk): NativeDisk {
  return {
    identity: disk.identity,
    read: guardAsync((offset, length) => disk.read(offset, length)),
    close: guard(() => disk.close()),
  };
}

function wrapSession<Result>(session: NativeSession<Result>): NativeSession<Result> {
  const done = session.done.catch((failure: unknown) => {
    throw fromNative(failure);
  });
  return { done, stats: () => session.stats(), cancel: () => session.cancel() };
}

function guard<Arguments extends unknown[], Result>(
  call: (...parameters: Arguments) => Result,
): (...parameters: Arguments) => Result {
  return function guarded(...parameters) {
    try {
      return call(...parameters);
    } catch (failure) {
      throw fromNative(failure, callSite(guarded));
    }
  };
}

function guardAsync<Arguments extends unknown[], Result>(
  call: (...parameters: Arguments) => Promise<Result>,
): (...parameters: Arguments) => Promise<Result> {
  return async function guarded(...parameters) {
    const site = callSite(guarded);
    try {
      return await call(...parameters);
    } catch (failure) {
      throw fromNative(failure, site);
    }
  };
}

// Formatting a stack is lazy in V8: this costs about a microsecond unless the call fails.
function callSite(below: (...parameters: never[]) => unknown): { stack?: string } {
  const site: { stack?: string } = {};
  Error.captureStackTrace(site, below);
  return site;
}

export interface RunSessionOptions {
  signal?: AbortSignal | undefined;
  /** Called every intervalMs with the counters, and once more with the last ones when the session has ended. */
  onStats?: ((stats: NativeStats) => void) | undefined;
  intervalMs?: number | undefined;
}

/** Throws AbortError, with the signal's reason as its cause, if the signal is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortError(signal);
}

/**
 * Waits for a session: reports its counters, cancels it when the signal fires, and gives its result.
 *
 * Settles only when the session itself has ended. Rejects with AbortError (cause: signal.reason) when the signal stopped it; a
 * cancel that comes after the work is done changes nothing. Another failure stays itself, also after a cancel. If onStats throws,
 * the session is cancelled and that error is thrown. The listener and the timer are gone on every path.
 */
export async function runSession<Result>(
  session: NativeSession<Result>,
  { signal, onStats, intervalMs = 100 }: RunSessionOptions = {},
): Promise<Result> {
  const site = callSite(runSession);
  const cancel = () => session.cancel();
  let reportFailure: { error: unknown } | undefined;
  const report = () => {
    if (onStats === undefined || reportFailure !== undefined) return;
    try {
      onStats(session.stats());
    } catch (error) {
      reportFailure = { error };
      session.cancel();
    }
  };
  // Unref'd: the session's own work keeps the process alive, and its reports must not outlive it.
  const timer = onStats === undefined ? undefined : setInterval(report, intervalMs).unref();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    if (signal?.aborted) cancel();
    const result = await session.done;
    report();
    if (reportFailure !== undefined) throw reportFailure.error;
    return result;
  } catch (failure) {
    if (reportFailure !== undefined) throw reportFailure.error;
    const error = fromNative(failure, site);
    if (error.code === 'ERR_ABORTED' && signal?.aborted) throw abortError(signal);
    throw error;
  } finally {
    clearInterval(timer);
    signal?.removeEventListener('abort', cancel);
  }
}

function abortError(signal: AbortSignal): AbortError {
  return firnError('ERR_ABORTED', 'The operation was aborted', { cause: signal.reason });
}
