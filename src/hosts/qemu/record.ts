/**
 * What a run has at a machine, in a file of the machine's folder: <mark>.run.json.
 *
 * QEMU forgets its disks when it ends, and file systems that stand frozen bear nobody's name, so the host's own traces are not enough to
 * clean up by. The record is written before what it tells of is done, durably; a release reads it and removes it last. It is a help, not a
 * condition: without one, what the live machine and the files' names show is released all the same.
 */

import { randomBytes } from 'node:crypto';
import { open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { fromFileSystem } from '../../errors.js';
import { syncFolder } from '../../sync-folder.js';
import { markOf, runOfMark } from '../host.js';

const SUFFIX = '.run.json';
const VERSION = 1;

/**
 * How far a disk's layer has come. `completing`: QEMU was told to let the machine go on below the layer, and may have done so;
 * before that, nothing but the layer took the machine's writes. `merged`: its content is below, and the file is only to be removed.
 */
const STAGES = ['intended', 'standing', 'merging', 'completing', 'merged'] as const;
export type LayerStage = (typeof STAGES)[number];

const recordSchema = z.object({
  version: z.literal(VERSION),
  vm: z.object({ id: z.string(), name: z.string() }),
  begun: z.string(),
  /** `begun`: the guest may stand frozen on the run's account. */
  freeze: z.enum(['none', 'begun', 'ended']),
  disks: z.array(
    z.object({
      name: z.string(),
      base: z.string(),
      overlay: z.string(),
      stage: z.enum(STAGES),
    }),
  ),
});
export type RunRecord = z.output<typeof recordSchema>;
type DiskRecord = RunRecord['disks'][number];

export function newRecord(
  vm: RunRecord['vm'],
  disks: readonly Pick<DiskRecord, 'name' | 'base' | 'overlay'>[],
): RunRecord {
  return {
    version: VERSION,
    vm: { id: vm.id, name: vm.name },
    begun: new Date().toISOString(),
    freeze: 'none',
    disks: disks.map((disk) => ({ ...disk, stage: 'intended' as const })),
  };
}

/** The record of a mark, or undefined: there is none, or none that can be read. */
export async function readRecord(folder: string, mark: string): Promise<RunRecord | undefined> {
  try {
    const text = await readFile(path.join(folder, mark + SUFFIX), 'utf8');
    const parsed = recordSchema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

export function writeRecord(folder: string, mark: string, record: RunRecord): Promise<void> {
  return writeDurably(
    path.join(folder, mark + SUFFIX),
    `${JSON.stringify(record, undefined, 2)}\n`,
  );
}

/** Marks that stand in the names of a folder's files, however they are made. */
export async function marksIn(folder: string): Promise<string[]> {
  const runs = (await fileNames(folder)).map((name) => runOfMark(name));
  return [...new Set(runs.filter((run) => run !== undefined).map(markOf))];
}

/** The machine's configuration, for the time of a run. */
export function configurationPath(folder: string, vmName: string, mark: string): string {
  return path.join(folder, `${vmName.replace(/[^0-9A-Za-z._-]+/g, '-')}_${mark}.json`);
}

/** Removes the record, the configuration and what an interrupted write of them left: all JSON files that bear the mark. */
export async function removeRecord(folder: string, mark: string): Promise<void> {
  const names = await fileNames(folder);
  const ours = names.filter(
    (name) => isOfMark(name, mark) && /\.json(\.new-[0-9a-f]+)?$/.test(name),
  );
  // The record itself goes last: as long as it stands, a release knows where to look.
  ours.sort((a, b) => Number(a.endsWith(SUFFIX)) - Number(b.endsWith(SUFFIX)));
  for (const name of ours) await rm(path.join(folder, name), { force: true });
}

function isOfMark(name: string, mark: string): boolean {
  return runOfMark(name) === runOfMark(mark);
}

/** Names of a folder's entries; none if it is not there. */
export async function fileNames(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw fromFileSystem(error, 'list', 'ERR_READ');
  }
}

/** Writes a file so that a crash leaves the old one or the new one. */
export async function writeDurably(file: string, content: string): Promise<void> {
  const temporary = `${file}.new-${randomBytes(4).toString('hex')}`;
  try {
    const handle = await open(temporary, 'wx', 0o600);
    try {
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    await syncFolder(path.dirname(file));
  } catch (error) {
    throw fromFileSystem(error, 'write', 'ERR_WRITE');
  }
}
