/**
 * A machine's own record, vm.json in its folder: what it is, which files its disks' chains consist of, and its checkpoints.
 *
 * It is what decides: a layer belongs to a chain if it is named here, and one replacement of the file switches all disks at once. Who
 * changes it holds the machine (control.ts); who reads it need not. Files that are about to be made, or are to go, stand in `garbage`
 * first, so that whoever opens the machine after a crash can tell them from files that somebody put there.
 */

import { readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { firnError, fromFileSystem } from '../../errors.js';
import { markOf, runOfMark } from '../host.js';
import { readIfThere, removeFiles, replaceFile } from './durable-file.js';

export const VM_FILE = 'vm.json';
export const LAB_FILE = 'lab.json';

const fileName = z
  .string()
  .min(1)
  .max(255)
  .refine((name) => !/[/\\]/.test(name) && name !== '.' && name !== '..', 'not the name of a file');

const checkpointSchema = z.object({
  id: z.string(),
  name: z.string().min(1),
  /** `reference`: a run's that was kept, to tell what was written since; it is not being read. */
  kind: z.enum(['recovery', 'user', 'reference']),
  created: z.string(),
  /** The layer that it put on each disk, by the disk's name. */
  layers: z.record(z.string(), fileName),
  /** The name that it gets if it is kept. */
  reference: z.string().optional(),
  /**
   * Of the layer below its own, by the disk's name: the identity at the checkpoint and the one now. A merge below changes the identity and
   * not what the disk reads as; it notes that here, so an identity that is in neither place was changed by somebody else.
   */
  below: z.record(z.string(), z.object({ frozen: z.string(), now: z.string() })).optional(),
});

const vmSchema = z.object({
  version: z.literal(1),
  id: z.string().min(1),
  name: z.string().min(1),
  /** Set while it runs: if it is set and no process plays it, the process died. */
  running: z.boolean(),
  guest: z.object({
    vss: z.enum(['application', 'filesystem', 'none']),
    freezeMs: z.number().min(0),
    writesPerSecond: z.number().min(0),
    compressible: z.number().min(0).max(1),
  }),
  disks: z
    .array(
      z.object({
        name: z.string().regex(/^[\w.-]+$/),
        sizeBytes: z.number().int().positive(),
        /** File names in the machine's folder, the one that takes the writes first. */
        layers: z.array(fileName).min(1),
      }),
    )
    .min(1),
  checkpoints: z.array(checkpointSchema),
  garbage: z.array(fileName),
});

export type VmFile = z.infer<typeof vmSchema>;
export type VmCheckpoint = z.infer<typeof checkpointSchema>;

/** Reads a machine's record. ERR_VM_NOT_FOUND if there is none, ERR_HOST_FAILED if it is damaged. */
export function readVmFile(folder: string): VmFile {
  const path = join(folder, VM_FILE);
  const text = readIfThere(path);
  if (text === undefined) {
    throw firnError('ERR_VM_NOT_FOUND', `${folder} holds no machine`, { path: folder });
  }
  const result = vmSchema.safeParse(parseJson(text));
  if (result.success) return result.data;
  throw firnError('ERR_HOST_FAILED', `${path} is damaged: ${z.prettifyError(result.error)}`, {
    path,
    hint: 'Take the file from a backup of the lab, or remove the folder.',
  });
}

export function writeVmFile(folder: string, vm: VmFile): void {
  replaceFile(join(folder, VM_FILE), `${JSON.stringify(vm, null, 2)}\n`);
}

/** The folders of a lab's machines, sorted by name. ERR_HOST_UNREACHABLE if the folder is not there. */
export function vmFolders(lab: string): string[] {
  try {
    return readdirSync(lab, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(lab, entry.name))
      .filter((folder) => readIfThere(join(folder, VM_FILE)) !== undefined)
      .sort();
  } catch (error) {
    const cause = fromFileSystem(error, 'list', 'ERR_READ');
    throw firnError('ERR_HOST_UNREACHABLE', `There is no lab at ${lab}: ${cause.message}`, {
      path: lab,
      cause,
      retryable: false,
      hint: 'Make one with "firn lab create", or give the folder of one that is there.',
    });
  }
}

/** The layers' paths of a disk, the top one first. */
export function layerPaths(folder: string, disk: VmFile['disks'][number]): string[] {
  return disk.layers.map((layer) => join(folder, layer));
}

/** True for a mark and nothing else: only that is known to be fit for a file's name. */
export function isMark(text: string): boolean {
  const run = runOfMark(text);
  return run !== undefined && text === markOf(run);
}

/** The name of the file in which the configuration of a capture stands until its release. */
export function configurationName(mark: string): string {
  return `configuration_${mark}.json`;
}

/** Files of the folder that bear a mark of Firn's, by their names. */
export function markedFiles(folder: string): { name: string; mark: string }[] {
  const found: { name: string; mark: string }[] = [];
  for (const name of readdirSync(folder).sort()) {
    const run = runOfMark(name);
    // Names that begin with a dot are the engine's and ours while a file is being written.
    if (run !== undefined && !name.startsWith('.')) found.push({ name, mark: markOf(run) });
  }
  return found;
}

/** Removes what a dead process was writing to take the place of a file. The machine must be held. */
export function removeUnfinished(folder: string): void {
  const unfinished = readdirSync(folder).filter((name) =>
    /^\.(vm|configuration_.*)\.json\.tmp-\d+$/.test(name),
  );
  removeFiles(unfinished.map((name) => join(folder, name)));
}

/** Removes what stands in `garbage` and in no chain, with what was left of writing it. The machine must be held. */
export function collectGarbage(folder: string, vm: VmFile): VmFile {
  if (vm.garbage.length === 0) return vm;
  const used = new Set(vm.disks.flatMap((disk) => disk.layers));
  const doomed = vm.garbage.filter((name) => !used.has(name));
  const unfinished = readdirSync(folder).filter((entry) =>
    doomed.some((name) => entry.startsWith(`.${name}.`)),
  );
  removeFiles([...doomed, ...unfinished].map((name) => join(folder, basename(name))));
  const clean = { ...vm, garbage: [] };
  writeVmFile(folder, clean);
  return clean;
}

const labSchema = z.object({
  version: z.literal(1),
  /** The size of the volume that the lab plays; absent: that of the real one. */
  volumeBytes: z.number().int().positive().optional(),
});
export type LabFile = z.infer<typeof labSchema>;

export function readLabFile(lab: string): LabFile {
  const text = readIfThere(join(lab, LAB_FILE));
  if (text === undefined) return { version: 1 };
  const result = labSchema.safeParse(parseJson(text));
  if (result.success) return result.data;
  throw firnError('ERR_HOST_FAILED', `${join(lab, LAB_FILE)} is damaged`, { path: lab });
}

export function writeLabFile(lab: string, file: LabFile): void {
  replaceFile(join(lab, LAB_FILE), `${JSON.stringify(file, null, 2)}\n`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
