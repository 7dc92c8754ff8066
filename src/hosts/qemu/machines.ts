/**
 * Finding machines: each is a folder with `qmp.sock` in it, below the host's folder or that folder itself.
 *
 * A machine that is off has no monitor, and its id is known only as long as a record of a run tells it. It is still a machine while any
 * mark stands in its folder, so that what a run left there is found.
 */

import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { type FirnError, firnError, fromFileSystem } from '../../errors.js';
import type { Vm, VmRef } from '../host.js';
import { agentSocket } from './qga.js';
import { hostFailure, monitorSocket, NotRunning, type QmpClient, withQmp } from './qmp.js';
import { marksIn, readRecord } from './record.js';

export interface Machine {
  folder: string;
  ref: VmRef;
  state: Vm['state'];
  /** QEMU's version; absent when it does not run. */
  version?: string;
  /** Why its monitor cannot be talked to, although there is one. */
  problem?: FirnError;
}

const NO_UUID = '00000000-0000-0000-0000-000000000000';
const STATES: Readonly<Record<string, Vm['state']>> = {
  running: 'running',
  shutdown: 'off',
  'io-error': 'critical',
  'internal-error': 'critical',
  'guest-panicked': 'critical',
};

/** All machines below `root`. ERR_HOST_UNREACHABLE when there is no such folder. */
export async function findMachines(root: string): Promise<Machine[]> {
  const machines = await Promise.all((await machineFolders(root)).map(identify));
  for (const machine of machines) {
    // Copies of a machine share its UUID: then the folders tell them apart.
    const same = machines.filter((other) => other.ref.id === machine.ref.id);
    if (same.length < 2) continue;
    for (const each of same) each.ref = { ...each.ref, id: path.basename(each.folder) };
  }
  return machines.sort((a, b) => (a.ref.name < b.ref.name ? -1 : 1));
}

/** The machine that `ref` means, by its id or else by its name; undefined when it is not there. */
export function selectMachine(machines: readonly Machine[], ref: VmRef): Machine | undefined {
  return (
    machines.find((machine) => machine.ref.id === ref.id) ??
    machines.find((machine) => machine.ref.name === ref.name) ??
    machines.find((machine) => path.basename(machine.folder) === ref.name)
  );
}

/** Whether QEMU runs there and can be talked to. */
export function isLive(machine: Machine): boolean {
  return machine.version !== undefined;
}

export async function hasAgentSocket(folder: string): Promise<boolean> {
  return exists(agentSocket(folder));
}

async function machineFolders(root: string): Promise<string[]> {
  let entries: { name: string; isDirectory(): boolean }[];
  try {
    entries = await readdir(root, { withFileTypes: true });
  } catch (error) {
    const { message } = fromFileSystem(error, 'list', 'ERR_READ');
    throw firnError(
      'ERR_HOST_UNREACHABLE',
      `The folder of the machines cannot be read: ${message}`,
      {
        path: root,
        hint: 'Give the folder that holds one folder for each machine, with its qmp.sock.',
        cause: error,
      },
    );
  }
  const below = entries.filter((entry) => entry.isDirectory());
  const candidates = [root, ...below.map((entry) => path.join(root, entry.name))];
  const are = await Promise.all(candidates.map(isMachine));
  return candidates.filter((_, index) => are[index]);
}

async function isMachine(folder: string): Promise<boolean> {
  if (await exists(monitorSocket(folder))) return true;
  const marks = await marksIn(folder).catch(() => []);
  const records = await Promise.all(marks.map((mark) => readRecord(folder, mark)));
  return records.some((record) => record !== undefined);
}

async function identify(folder: string): Promise<Machine> {
  const plain = path.basename(folder);
  try {
    return await withQmp(folder, async (qmp) => ({
      folder,
      ref: await identity(qmp, plain),
      state: await runState(qmp),
      version: qmp.version,
    }));
  } catch (error) {
    const ref = await recordedIdentity(folder, plain);
    if (error instanceof NotRunning) return { folder, ref, state: 'off' };
    return { folder, ref, state: 'critical', problem: hostFailure(error) };
  }
}

async function identity(qmp: QmpClient, plain: string): Promise<VmRef> {
  const named = await qmp.queryIfKnown(z.object({ name: z.string().optional() }), 'query-name');
  const id = await qmp.queryIfKnown(z.object({ UUID: z.string() }), 'query-uuid');
  const hasId = id !== undefined && id.UUID !== NO_UUID;
  return { id: hasId ? id.UUID.toLowerCase() : plain, name: named?.name || plain };
}

async function runState(qmp: QmpClient): Promise<Vm['state']> {
  const answer = await qmp.queryIfKnown(z.object({ status: z.string() }), 'query-status');
  // A storage daemon has no guest that could be paused.
  return answer === undefined ? 'running' : (STATES[answer.status] ?? 'paused');
}

async function recordedIdentity(folder: string, plain: string): Promise<VmRef> {
  for (const mark of await marksIn(folder).catch(() => [])) {
    const record = await readRecord(folder, mark);
    if (record !== undefined) return record.vm;
  }
  return { id: plain, name: plain };
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
