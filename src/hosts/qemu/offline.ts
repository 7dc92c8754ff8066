/**
 * Merging the layers of a machine that is off, with qemu-img.
 *
 * Nobody but the record and the files themselves can say now whether a layer still is the machine's disk. To merge one that is out of date
 * would destroy what was written after it, so it is merged only when that cannot be: before QEMU was told to complete the merge,
 * and when the disk below was not written to after the layer was. When neither is known, the two are compared, and if they
 * differ a person decides. A kill in the middle does no harm: the chain stays whole and the merge begins again, for which the log
 * that QEMU or qemu-img left in a VHDX when it was killed is settled first.
 */

import { execFile } from 'node:child_process';
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { firnError } from '../../errors.js';
import { holdsNothing, overlayFiles, removeOverlay } from './layer-files.js';
import type { Machine } from './machines.js';
import { readOverlayHeader } from './overlay.js';
import { type RunRecord, writeRecord } from './record.js';
import { clearUnfinishedLog, replayId } from './vhdx-log.js';

const run = promisify(execFile);

/** What qemu-img calls a format, by a file's extension; never guessed from content, which a guest may have written. */
const FORMATS: Readonly<Record<string, string>> = {
  '.vhdx': 'vhdx',
  '.vhd': 'vpc',
  '.raw': 'raw',
  '.img': 'raw',
};

/** Merges all layers of the mark and removes their files. Rejects with ERR_MERGE_FAILED, or the signal's reason. */
export async function mergeOffline(
  machine: Machine,
  mark: string,
  record: RunRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  for (const overlay of await overlayFiles(machine.folder, mark, [], record)) {
    signal.throwIfAborted();
    const entry = record?.disks.find((disk) => disk.overlay === overlay);
    const isDone = entry?.stage === 'merged' || (await holdsNothing(overlay));
    if (!isDone) {
      const base = (await readOverlayHeader(overlay))?.backing;
      if (base === undefined) throw mergeFailure(overlay, 'it does not say what lies below it');
      await refuseBelowAnother(overlay);
      if (await mayMerge(overlay, base, entry?.stage, signal)) {
        if (entry !== undefined && record !== undefined) {
          entry.stage = 'merging';
          await writeRecord(machine.folder, mark, record);
        }
        // Not before the record says so: it makes the disk below newer than the layer.
        await settleLog(overlay, base, signal);
        await qemuImage(overlay, ['commit', '-q', '-f', 'qcow2', overlay], signal);
      }
    }
    await removeOverlay(overlay);
  }
}

/** True if the layer is to be merged, false if it is in the disk below already. Rejects when neither can be told. */
async function mayMerge(
  overlay: string,
  base: string,
  stage: RunRecord['disks'][number]['stage'] | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  if (stage === 'merging') return true;
  const [above, below] = await Promise.all([modifiedNs(overlay), modifiedNs(base)]);
  // If the machine went on below the layer nevertheless, it wrote nothing: to merge again changes nothing.
  if (below <= above) return true;
  if (stage === 'completing' || stage === undefined) {
    await settleLog(overlay, base, signal);
    if (await isSame(overlay, base, signal)) return false;
  }
  throw mergeFailure(overlay, `${base} was written to after it, so it may be out of date`, {
    hint: `If the machine's last writes are in the layer, run "qemu-img commit -f qcow2 ${overlay}"; if they are in the disk below, remove the layer. Keep copies of both.`,
    retryable: false,
  });
}

async function modifiedNs(file: string): Promise<bigint> {
  try {
    return (await stat(file, { bigint: true })).mtimeNs;
  } catch (cause) {
    throw mergeFailure(file, 'it cannot be looked at', { cause });
  }
}

function formatOf(file: string): string | undefined {
  return FORMATS[path.extname(file).toLowerCase()];
}

async function isSame(overlay: string, base: string, signal: AbortSignal): Promise<boolean> {
  const format = formatOf(base);
  if (format === undefined) return false;
  const parameters = ['compare', '-q', '-f', 'qcow2', '-F', format, overlay, base];
  return (await qemuImage(overlay, parameters, signal, [0, 1])) === 0;
}

/**
 * Makes a disk readable and writable for qemu-img again whose tables QEMU was changing when it died. qemu-img replays an entry that is
 * whole, and so it finds out too whether somebody has the disk open; what is left of one that is not, is taken away.
 */
async function settleLog(overlay: string, base: string, signal: AbortSignal): Promise<void> {
  if (formatOf(base) !== 'vhdx') return;
  if ((await inLog(overlay, base, replayId)) === undefined) return;
  const command = ['check', '-q', '-f', 'vhdx', '-r', 'all', base];
  await qemuImage(overlay, command, signal, [0], replayHint(overlay, base));
  if ((await inLog(overlay, base, replayId)) === undefined) return;
  if (await inLog(overlay, base, clearUnfinishedLog)) return;
  throw mergeFailure(overlay, `the log of ${base} has entries that no program can replay`, {
    hint: `Keep copies of both. "qemu-img convert -f qcow2 -O vhdx ${overlay} NEW.vhdx" writes what QEMU reads of the two to a new disk. If that is whole, put it in the place of ${base} and remove the layer; if not, restore the machine from its last point.`,
    retryable: false,
  });
}

async function inLog<T>(
  overlay: string,
  base: string,
  work: (file: string) => Promise<T>,
): Promise<T> {
  try {
    return await work(base);
  } catch (cause) {
    throw mergeFailure(overlay, `the log of ${base} cannot be settled`, { cause });
  }
}

function replayHint(overlay: string, base: string): string {
  return `The disk asks for a replay of its log. Find what holds ${base} open, or what makes it unwritable, then run "firn reconcile"; if it is damaged, keep copies of it and of ${overlay} and restore the machine from its last point.`;
}

/** Somebody else's layer on top of ours: to merge below it needs the machine, or qemu-img rebase. */
async function refuseBelowAnother(overlay: string): Promise<void> {
  const folder = path.dirname(overlay);
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    if (!name.endsWith('.qcow2') || file === overlay) continue;
    const header = await readOverlayHeader(file).catch(() => undefined);
    if (header?.backing !== overlay) continue;
    throw mergeFailure(overlay, `${file} lies on it`, {
      hint: 'Start the machine, or merge the upper layer first; then run "firn reconcile".',
    });
  }
}

/** Runs qemu-img; its exit code, if it is one of `expected`. */
async function qemuImage(
  overlay: string,
  parameters: readonly string[],
  signal: AbortSignal,
  expected: readonly number[] = [0],
  hint?: string,
): Promise<number> {
  try {
    await run('qemu-img', parameters, { signal, env: { ...process.env, LC_ALL: 'C' } });
    return 0;
  } catch (cause) {
    const { code, stderr } = cause as { code?: number | string; stderr?: string };
    if (typeof code === 'number' && expected.includes(code)) return code;
    signal.throwIfAborted();
    const command = ['qemu-img', ...parameters].join(' ');
    const isMerge = parameters[0] === 'commit';
    if (code === 'ENOENT') {
      throw mergeFailure(overlay, 'the machine is off, and there is no qemu-img to merge it with', {
        hint: `Install qemu-img (Debian: qemu-utils) and run "firn reconcile"${isMerge ? `, or run "${command}" where it is, and then remove the file` : ''}.`,
      });
    }
    throw mergeFailure(overlay, `"${command}" failed: ${(stderr ?? '').trim() || String(code)}`, {
      ...(hint === undefined ? {} : { hint }),
      cause,
    });
  }
}

function mergeFailure(
  overlay: string,
  why: string,
  details: { hint?: string; retryable?: boolean; cause?: unknown } = {},
) {
  return firnError('ERR_MERGE_FAILED', `The layer ${overlay} was not merged: ${why}`, {
    path: overlay,
    ...details,
  });
}
