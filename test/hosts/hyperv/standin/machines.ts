/** The stand-in's machines: what they are made of, and what happens to their checkpoints. */

import { randomUUID } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  addLayer,
  type Layer,
  makeDisk,
  mergeAbove,
  type Pages,
  type StandinDisk,
} from './layers.js';
import type { ReferencePoint } from './tracking.js';

export type Guest = 'windows' | 'linux' | 'none';

export interface MachineSpec {
  name: string;
  guest?: Guest;
  state?: string;
  disks?: number;
  /** The folder's name, when it is not to be "machine-N". */
  folder?: string;
}

export interface Checkpoint {
  id: string;
  name: string;
  type: 'Recovery' | 'Realized';
  created: Date;
  /** Of each disk the layer that it froze. */
  frozen: Map<StandinDisk, Layer>;
  configuration: string[];
}

export interface Machine {
  id: string;
  name: string;
  guest: Guest;
  state: string;
  folder: string;
  disks: StandinDisk[];
  checkpoints: Checkpoint[];
  points: ReferencePoint[];
  /** Of the configuration. */
  version: string;
  /** The second of Msvm_ComputerSystem.OperationalStatus. */
  status: number | undefined;
  generation: number;
  configuration: string[];
  /** Drives that are no files, as Get-VMHardDiskDrive gives them. */
  extraDrives: Record<string, unknown>[];
  replication?: Record<string, string>;
  checkpointType: string;
}

export const STATUS = { creating: 32768, deleting: 32770, merging: 32772 } as const;

export async function makeMachine(
  volume: string,
  number: number,
  { name, guest = 'windows', state = 'Running', disks = 1, folder }: MachineSpec,
  configurationExtensions: readonly string[],
): Promise<Machine> {
  const id = randomUUID();
  const home = path.join(volume, 'VMs', folder ?? `machine-${number}`);
  await mkdir(path.join(home, 'Virtual Machines'), { recursive: true });
  await mkdir(path.join(home, 'Snapshots'), { recursive: true });
  const made: StandinDisk[] = [];
  for (let disk = 0; disk < disks; disk += 1) {
    made.push(
      await makeDisk(`scsi-0-${disk}`, path.join(home, `disk ${disk}.vhdx`), number + disk),
    );
  }
  const machine: Machine = {
    id,
    name,
    guest,
    state,
    folder: home,
    disks: made,
    checkpoints: [],
    points: [],
    version: configurationExtensions.includes('.vmcx') ? '8.0' : '5.0',
    status: undefined,
    generation: 0,
    configuration: [],
    extraDrives: [],
    checkpointType: 'Production',
  };
  machine.configuration = await writeConfiguration(
    machine,
    'Virtual Machines',
    id,
    configurationExtensions,
  );
  return machine;
}

async function writeConfiguration(
  machine: Machine,
  folder: string,
  id: string,
  extensions: readonly string[],
): Promise<string[]> {
  const files = extensions.map((extension) =>
    path.join(machine.folder, folder, `${id.toUpperCase()}${extension}`),
  );
  for (const file of files) await writeFile(file, `${machine.name} ${path.basename(file)}`);
  return files;
}

/** A page that the guest writes, a different one each time. */
function nextWrite(machine: Machine): Pages {
  machine.generation += 1;
  return new Map([[600 + (machine.generation % 100), (machine.generation % 255) + 1]]);
}

/** Freezes the layers and puts new ones above, into which the guest writes. */
export async function makeCheckpoint(
  machine: Machine,
  type: Checkpoint['type'],
  name: string,
): Promise<Checkpoint> {
  const id = randomUUID();
  const frozen = new Map<StandinDisk, Layer>();
  for (const disk of machine.disks) {
    frozen.set(disk, disk.chain.at(-1) as Layer);
    await addLayer(disk, nextWrite(machine));
  }
  const configuration = await writeConfiguration(machine, 'Snapshots', id, ['.vmcx', '.vmrs']);
  const checkpoint = { id, name, type, created: new Date(), frozen, configuration };
  machine.checkpoints.push(checkpoint);
  return checkpoint;
}

/** Takes a checkpoint away, and merges what is above its layers, as Hyper-V does: the checkpoint goes first, the layers after it. */
export async function endCheckpoint(
  machine: Machine,
  checkpoint: Checkpoint,
  merging: () => Promise<void> = async () => {},
  gone: () => Promise<void> = async () => {},
): Promise<void> {
  machine.checkpoints = machine.checkpoints.filter((other) => other !== checkpoint);
  for (const file of checkpoint.configuration) await rm(file, { force: true });
  await gone();
  machine.status = STATUS.merging;
  try {
    await merging();
    for (const [disk, layer] of checkpoint.frozen) await mergeInto(machine, disk, layer);
  } finally {
    machine.status = undefined;
  }
}

/** Merges what is above a layer into it. A checkpoint that had frozen the layer above has this one from the moment when the chain changes. */
export async function mergeInto(machine: Machine, disk: StandinDisk, layer: Layer): Promise<void> {
  const child = disk.chain[disk.chain.indexOf(layer) + 1];
  await mergeAbove(disk, layer);
  for (const other of machine.checkpoints) {
    if (child !== undefined && other.frozen.get(disk) === child) other.frozen.set(disk, layer);
  }
}

/** True if the guest makes headway. */
export async function makesHeadway(machine: Machine): Promise<boolean> {
  const before = machine.generation;
  await sleep(60);
  return machine.generation > before;
}
