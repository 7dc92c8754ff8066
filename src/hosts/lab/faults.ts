/**
 * Faults that are switched on: faults.json in the lab's folder for all machines, and in a machine's folder for that one. Files, because
 * a fault must reach the machine's process, the process that works on a machine that is off, and the next process after a crash.
 */

import { dirname, join } from 'node:path';
import { z } from 'zod';
import { firnError } from '../../errors.js';
import { readIfThere, replaceFile } from './durable-file.js';
import { FAULT_NAMES, type FaultName } from './types.js';

const FILE = 'faults.json';

const storedSchema = z.object({
  name: z.enum(FAULT_NAMES),
  once: z.boolean(),
  ms: z.number().optional(),
  step: z.number().optional(),
  /** How many journal entries have passed since it was switched on. */
  seen: z.number(),
});
export type StoredFault = z.infer<typeof storedSchema>;

export function readFaults(folder: string): StoredFault[] {
  const path = join(folder, FILE);
  const text = readIfThere(path);
  if (text === undefined) return [];
  try {
    return z.array(storedSchema).parse(JSON.parse(text));
  } catch (error) {
    throw firnError('ERR_HOST_FAILED', `${path} is damaged`, { path, cause: error });
  }
}

export function writeFaults(folder: string, faults: readonly StoredFault[]): void {
  replaceFile(join(folder, FILE), `${JSON.stringify(faults)}\n`);
}

/** The fault of this name that holds for the machine in `vmFolder`, its own before the lab's. */
export function findFault(vmFolder: string, name: FaultName): StoredFault | undefined {
  for (const folder of [vmFolder, dirname(vmFolder)]) {
    const fault = readFaults(folder).find((candidate) => candidate.name === name);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** The same for a fault that goes off now: one that goes off once is switched off. */
export function takeFault(vmFolder: string, name: FaultName): StoredFault | undefined {
  for (const folder of [vmFolder, dirname(vmFolder)]) {
    const faults = readFaults(folder);
    const fault = faults.find((candidate) => candidate.name === name);
    if (fault === undefined) continue;
    if (fault.once) writeFaults(folder, without(faults, name));
    return fault;
  }
  return undefined;
}

/**
 * Counts a journal entry of the machine for the fault, in its own folder and in the lab's; true when that was the entry at which it
 * goes off. Written before that is told, so that it goes off no second time in the next process.
 */
export function countEntry(vmFolder: string, name: 'host-dies' | 'firn-dies'): boolean {
  let due = false;
  for (const folder of [vmFolder, dirname(vmFolder)]) {
    const faults = readFaults(folder);
    const fault = faults.find((candidate) => candidate.name === name);
    if (fault === undefined) continue;
    const seen = fault.seen + 1;
    const now = seen >= (fault.step ?? 1);
    due ||= now;
    const rest = without(faults, name);
    // One that stays counts anew, and goes off every so many entries.
    if (!now) writeFaults(folder, [...rest, { ...fault, seen }]);
    else writeFaults(folder, fault.once ? rest : [...rest, { ...fault, seen: 0 }]);
  }
  return due;
}

export function without(faults: readonly StoredFault[], name: FaultName): StoredFault[] {
  return faults.filter((fault) => fault.name !== name);
}
