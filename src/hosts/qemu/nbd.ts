/**
 * Reading bitmaps: QEMU gives their content over NBD alone, so it is made to export the frozen nodes on a Unix socket, and nbdinfo (libnbd)
 * asks for their block status.
 *
 * QEMU has one NBD server. Firn starts it at firn-nbd.sock in the machine's folder and stops it again; where QEMU serves somebody
 * else already, Firn's exports are added to that one, if it is at nbd.sock in the folder. Exports bear the run's mark, so whatever a dead
 * run left is found. An export holds its node read-only and its bitmap busy: none may stand when a merge begins.
 */

import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { ChangedRanges } from '../changed-ranges.js';
import { runOfMark } from '../host.js';
import { type QmpClient, QmpRefusal, withQmp } from './qmp.js';

const OWN_SOCKET = 'firn-nbd.sock';
const OTHER_SOCKET = 'nbd.sock';
const CONNECTIONS_MAX = 4;
const CLOSE_MS = 10_000;
const POLL_MS = 10;
const MESSAGE_BYTES_MAX = 1000;
const ANSWER_MS = 2_000;
const GREETING = Buffer.from('NBDMAGIC');
/** The client's flags (fixed newstyle), and NBD_OPT_ABORT without data. */
const FAREWELL = Buffer.concat([
  Buffer.from([0, 0, 0, 1]),
  Buffer.from('IHAVEOPT'),
  Buffer.from([0, 0, 0, 2, 0, 0, 0, 0]),
]);
const NO_TOOL = 'nbdinfo, with which bitmaps are read, is not installed (Debian: libnbd-bin)';

export interface BitmapPlace {
  disk: string;
  node: string;
  sizeBytes: number;
}

/** Dirty ranges, or why they could not be read. */
type Result = ReturnType<ChangedRanges['ranges']> | string;

const exportsSchema = z.array(z.object({ id: z.string(), type: z.string() }));

/** The ranges that are dirty in the bitmap `name` of each node. A failure stands in each result; rejects only when the signal fires. */
export async function readBitmapRanges(
  folder: string,
  mark: string,
  name: string,
  places: readonly BitmapPlace[],
  signal: AbortSignal,
): Promise<Map<string, Result>> {
  const results = new Map<string, Result>();
  if (places.length === 0) return results;
  try {
    const socket = await openServer(folder);
    for (const place of places) {
      const id = exportId(mark, place.disk);
      await withQmp(folder, (qmp) => addExport(qmp, id, place.node, name));
      results.set(place.disk, await readDirty({ socket, id, name, ...place }, signal));
    }
  } catch (failure) {
    for (const { disk } of places) if (!results.has(disk)) results.set(disk, text(failure));
  } finally {
    await withQmp(folder, (qmp) => closeExports(qmp, folder, mark)).catch(() => {
      // The release closes them, or says why they cannot be.
    });
  }
  signal.throwIfAborted();
  return results;
}

/** Ends the mark's exports, and the server when it is Firn's and nobody uses it any more. Rejects when they are still there after a while. */
export async function closeExports(qmp: QmpClient, folder: string, mark: string): Promise<void> {
  const endMs = performance.now() + CLOSE_MS;
  for (;;) {
    const ids = await markedExports(qmp, mark);
    if (ids.length === 0) break;
    if (performance.now() > endMs) throw new Error(`QEMU does not end the export ${ids[0]}`);
    for (const id of ids) await ignoringRefusal(qmp, 'block-export-del', { id, mode: 'hard' });
    await sleep(POLL_MS);
  }
  const left = await qmp.queryIfKnown(exportsSchema, 'query-block-exports');
  const isUsed = (left ?? []).some(({ id }) => isFirnExport(id));
  if (!isUsed && (await answers(path.join(folder, OWN_SOCKET)))) {
    await ignoringRefusal(qmp, 'nbd-server-stop', {});
  }
}

/** The exports that bear the mark. */
export async function markedExports(qmp: QmpClient, mark: string): Promise<string[]> {
  const all = await qmp.queryIfKnown(exportsSchema, 'query-block-exports');
  return (all ?? []).map(({ id }) => id).filter((id) => runOfMark(id) === runOfMark(mark));
}

/** Whether an export is one that a run made to read a bitmap. */
export function isFirnExport(id: string): boolean {
  return runOfMark(id) !== undefined;
}

function exportId(mark: string, disk: string): string {
  return `${mark}.${disk}`;
}

/** Sees that QEMU has an NBD server; the socket that it is at. */
async function openServer(folder: string): Promise<string> {
  const own = path.join(folder, OWN_SOCKET);
  try {
    await withQmp(folder, (qmp) =>
      qmp.execute('nbd-server-start', {
        addr: { type: 'unix', data: { path: own } },
        'max-connections': CONNECTIONS_MAX,
      }),
    );
    return own;
  } catch (failure) {
    if (!(failure instanceof QmpRefusal)) throw failure;
    // A dead run's, or somebody else's.
    for (const socket of [own, path.join(folder, OTHER_SOCKET)]) {
      if (await answers(socket)) return socket;
    }
    throw new Error(`its bitmap cannot be read over NBD: ${failure.message}`);
  }
}

async function addExport(qmp: QmpClient, id: string, node: string, bitmap: string): Promise<void> {
  await qmp.execute('block-export-add', {
    type: 'nbd',
    id,
    name: id,
    'node-name': node,
    writable: false,
    bitmaps: [bitmap],
  });
}

async function ignoringRefusal(
  qmp: QmpClient,
  command: string,
  parameters: Record<string, unknown>,
): Promise<void> {
  try {
    await qmp.execute(command, parameters);
  } catch (failure) {
    if (!(failure instanceof QmpRefusal)) throw failure;
  }
}

/** Whether an NBD server listens at a socket: a file may be left of a QEMU that was killed. It is greeted back, as QEMU logs who is not polite. */
function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    connection.setTimeout(ANSWER_MS, () => connection.destroy());
    connection.once('data', (greeting) => {
      connection.end(FAREWELL);
      resolve(greeting.subarray(0, 8).equals(GREETING));
    });
    connection.once('error', () => resolve(false));
    connection.once('close', () => resolve(false));
    connection.resume();
  });
}

interface Query extends BitmapPlace {
  socket: string;
  id: string;
  name: string;
}

/** nbdinfo's table: offset, length, flags (1 is dirty), words; without a gap from 0 to the end. */
async function readDirty(
  { socket, id, name, sizeBytes }: Query,
  signal: AbortSignal,
): Promise<Result> {
  const uri = `nbd+unix:///${encodeURIComponent(id)}?socket=${encodeURIComponent(socket)}`;
  const child = spawn('nbdinfo', [`--map=qemu:dirty-bitmap:${name}`, uri], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
    env: { ...process.env, LC_ALL: 'C' },
  });
  const ended = new Promise<string | undefined>((resolve) => {
    child.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code === 'ENOENT' ? NO_TOOL : error.message),
    );
    child.once('close', (code) =>
      resolve(code === 0 ? undefined : `nbdinfo failed: ${message.trim() || `exit code ${code}`}`),
    );
  });
  let message = '';
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    message = (message + part).slice(0, MESSAGE_BYTES_MAX);
  });
  const ranges = new ChangedRanges();
  let end = 0;
  let strange: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    const [offset, length, flags] = (/^\s*(\d+)\s+(\d+)\s+(\d+)(?:\s|$)/.exec(line) ?? [])
      .slice(1)
      .map(Number);
    if (flags === undefined || length === undefined || offset !== end) {
      strange ??= `nbdinfo printed "${line.slice(0, 80)}" after ${end} bytes`;
      continue;
    }
    end += length;
    if ((flags & 1) !== 0) ranges.add(offset, length);
  }
  const failure = await ended;
  if (failure !== undefined) return failure;
  if (strange !== undefined) return strange;
  return end === sizeBytes ? ranges.ranges() : `its bitmap is of ${end} bytes, not ${sizeBytes}`;
}

function text(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}
