/**
 * Making and running a lab: a folder of machines without a hypervisor, on which backups can be tried, tested and measured anywhere.
 *
 * Each machine is a folder of real VHDX images and vm.json. Running, it is one detached process, which plays the hypervisor and a guest
 * that writes without pause; nothing runs for a machine that is off. lab-host.ts shows the lab to backups.
 */

import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadEngine } from '../../engine/engine.js';
import { firnError, fromFileSystem } from '../../errors.js';
import { callMachine, withMachine } from './control.js';
import { readFaults, without, writeFaults } from './faults.js';
import { checkGuest, type GuestReader } from './guest-check.js';
import { GuestVolume, planVolume } from './guest-volume.js';
import { mergeMark } from './lab-capture.js';
import { LiveChain } from './live-chain.js';
import { startVm } from './start-vm.js';
import type {
  GuestVerdict,
  LabFault,
  LabSpec,
  LabStatus,
  LabVmOutcome,
  LabVmSpec,
  LabVmStatus,
} from './types.js';
import { type VmFile, vmFolders, writeLabFile, writeVmFile } from './vm-file.js';
import {
  asFirnError,
  type FoundVm,
  findVm,
  findVms,
  selectVms,
  statusOf,
  vmStatus,
} from './vm-status.js';

export { checkGuest, type GuestReader } from './guest-check.js';
export * from './types.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const DISKS_MAX = 8;
const FOLDER_NAME_MAX = 80;
const POLL_MS = 20;
const STOP_DEADLINE_MS = 30_000;
const MERGE_DEADLINE_MS = 600_000;

const VM_DEFAULTS = {
  disks: 1,
  sizeBytes: 1024 * MIB,
  dataBytes: 96 * MIB,
  writesPerSecond: 16,
  compressible: 0.5,
  vss: 'application',
  freezeMs: 20,
  blockBytes: 32 * MIB,
  sectorBytes: 512,
} as const satisfies Omit<LabVmSpec, 'name'>;

/** Makes the folder and its machines, filled and switched off. ERR_EXISTS if the folder has anything in it, ERR_INVALID_ARGUMENT. */
export async function createLab(folder: string, spec: LabSpec): Promise<LabStatus> {
  const lab = resolve(folder);
  const vms = spec.vms.map(completeSpec);
  if (vms.length === 0) throw firnError('ERR_INVALID_ARGUMENT', 'Expected at least one machine');
  if (new Set(vms.map((vm) => vm.name)).size < vms.length) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected a different name for each machine');
  }
  prepareFolder(lab);
  writeLabFile(lab, { version: 1, ...definedOnly({ volumeBytes: spec.volumeBytes }) });
  const folders = new Set<string>();
  for (const vm of vms) {
    const name = folderName(vm.name, folders);
    folders.add(name.toLowerCase());
    await createVm(join(lab, name), vm);
  }
  return labStatus(lab);
}

/** Starts machines (names or ids; all when not given) and waits until their guests run. Those that run already are left as they are. */
export async function startLab(folder: string, vms?: readonly string[]): Promise<LabVmOutcome[]> {
  return forEachVm(folder, vms, (found) => startVm(found.folder, found.vm.name));
}

/** Shuts machines down cleanly and waits for that. A machine that does not do so within `deadlineMs` (10 s) is killed. */
export async function stopLab(
  folder: string,
  vms?: readonly string[],
  { deadlineMs = STOP_DEADLINE_MS }: { deadlineMs?: number } = {},
): Promise<LabVmOutcome[]> {
  return forEachVm(folder, vms, async (found) => {
    try {
      await callMachine(found.folder, 'stop', {}, AbortSignal.timeout(deadlineMs));
    } catch {
      await kill(found);
    }
    await untilOff(found);
  });
}

export async function labStatus(folder: string): Promise<LabStatus> {
  const lab = resolve(folder);
  const { found, problems } = findVms(lab);
  return { folder: lab, vms: await Promise.all(found.map(vmStatus)), problems };
}

/** One machine by name or id. ERR_VM_NOT_FOUND, ERR_VM_AMBIGUOUS. */
export async function labVm(folder: string, vm: string): Promise<LabVmStatus> {
  return vmStatus(findVm(resolve(folder), vm));
}

/** Switches a fault on. Setting the same one again replaces it. */
export async function setFault(folder: string, fault: LabFault): Promise<void> {
  const { name, vm, once = false, ms, step } = fault;
  const place = faultFolder(folder, vm);
  const stored = { name, once, seen: 0, ...definedOnly({ ms, step }) };
  writeFaults(place, [...without(readFaults(place), name), stored]);
}

/** Switches faults off: all, or those of one name, or of one machine. */
export async function clearFaults(
  folder: string,
  { name, vm }: { name?: LabFault['name'] | undefined; vm?: string | undefined } = {},
): Promise<void> {
  const lab = resolve(folder);
  const places = vm === undefined ? [lab, ...vmFolders(lab)] : [faultFolder(folder, vm)];
  for (const place of places) {
    const faults = readFaults(place);
    const rest = name === undefined ? [] : without(faults, name);
    if (rest.length < faults.length) writeFaults(place, rest);
  }
}

/**
 * A checkpoint as a user of the host makes one: it stays until a user merges it. Gives its name. With `recovery` it looks like another
 * product's backup.
 */
export async function userCheckpoint(
  folder: string,
  vm: string,
  options: { name?: string | undefined; recovery?: boolean | undefined } = {},
): Promise<string> {
  const { folder: place, vm: file } = findVm(resolve(folder), vm);
  const name = options.name ?? `${file.name} - (${new Date().toISOString()})`;
  const kind = options.recovery ? 'recovery' : 'user';
  const signal = AbortSignal.timeout(MERGE_DEADLINE_MS);
  await withMachine<unknown>(
    place,
    {
      online: () => callMachine(place, 'checkpoint', { name, kind, needsFreeze: false }, signal),
      offline: (machine) => machine.checkpoint({ name, kind }, (work) => work()),
    },
    signal,
  );
  return name;
}

/** Merges a checkpoint by its name, as a user of the host does. ERR_NOT_FOUND, ERR_MERGE_FAILED. */
export async function mergeCheckpoint(
  folder: string,
  vm: string,
  checkpoint: string,
): Promise<void> {
  const { folder: place } = findVm(resolve(folder), vm);
  const signal = AbortSignal.timeout(MERGE_DEADLINE_MS);
  if (await mergeMark(place, checkpoint, MERGE_DEADLINE_MS, signal)) return;
  throw firnError('ERR_NOT_FOUND', `${vm} has no checkpoint "${checkpoint}"`);
}

/** Kills a machine's process, as a power cut does, and waits until it is gone. */
export async function killVm(folder: string, vm: string): Promise<void> {
  const found = findVm(resolve(folder), vm);
  await kill(found);
  await untilOff(found);
}

/**
 * What copies of a guest's disks are worth: images of any format, in any order, one for each disk. `parents` are given for a chain whose
 * layers do not name each other by path any more.
 */
export async function checkGuestImages(
  images: readonly (string | { path: string; parents: readonly string[] })[],
): Promise<GuestVerdict> {
  const readers: (GuestReader & { close(): void })[] = [];
  try {
    for (const image of images) {
      const { path, parents } = typeof image === 'string' ? { path: image, parents: [] } : image;
      const disk = await loadEngine().openDisk(path, {
        parentFolders: [],
        parents: [...parents],
        format: '',
      });
      readers.push({
        sizeBytes: disk.identity.sizeBytes,
        read: (offset, length) => disk.read(offset, length),
        close: () => disk.close(),
      });
    }
    return await checkGuest(readers);
  } finally {
    for (const reader of readers) reader.close();
  }
}

// --- Making machines ---

type CompleteSpec = { [Key in keyof LabVmSpec]-?: Exclude<LabVmSpec[Key], undefined> };

function completeSpec(spec: LabVmSpec): CompleteSpec {
  const vm: CompleteSpec = { ...VM_DEFAULTS, ...definedOnly(spec), name: spec.name };
  const expect = (holds: boolean, what: string) => {
    if (!holds) throw firnError('ERR_INVALID_ARGUMENT', `Expected ${what} for "${vm.name}"`);
  };
  expect(vm.name.trim() !== '' && vm.name.length <= 255, 'a name of 1 to 255 characters');
  expect(Number.isInteger(vm.disks) && vm.disks >= 1 && vm.disks <= DISKS_MAX, '1 to 8 disks');
  expect(vm.sectorBytes === 512 || vm.sectorBytes === 4096, 'sectors of 512 or 4096 bytes');
  expect(vm.compressible >= 0 && vm.compressible <= 1, 'a compressible share from 0 to 1');
  expect(vm.writesPerSecond >= 0 && vm.freezeMs >= 0, 'no negative rate or time');
  const whole = Number.isSafeInteger(vm.sizeBytes) && vm.sizeBytes % vm.sectorBytes === 0;
  expect(whole, 'a size of whole sectors');
  const plan = planVolume(vm.sizeBytes, vm.dataBytes);
  expect(typeof plan !== 'string', String(plan));
  return vm;
}

async function createVm(folder: string, spec: CompleteSpec): Promise<void> {
  mkdirSync(folder);
  try {
    const guest = randomBytes(16).toString('hex');
    const disks: VmFile['disks'] = [];
    for (let disk = 0; disk < spec.disks; disk++) {
      const name = `scsi-0-${disk}`;
      const layer = `${name}.vhdx`;
      await createBaseDisk(join(folder, layer), spec, { guest, disk });
      disks.push({ name, sizeBytes: spec.sizeBytes, layers: [layer] });
    }
    const { vss, freezeMs, writesPerSecond, compressible } = spec;
    writeVmFile(folder, {
      version: 1,
      id: randomUUID(),
      name: spec.name,
      running: false,
      guest: { vss, freezeMs, writesPerSecond, compressible },
      disks,
      checkpoints: [],
      garbage: [],
    });
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw asFirnError(error);
  }
}

async function createBaseDisk(
  path: string,
  { sizeBytes, blockBytes, sectorBytes, disks, dataBytes, compressible }: CompleteSpec,
  { guest, disk }: { guest: string; disk: number },
): Promise<void> {
  const identity = {
    format: 'vhdx',
    kind: 'dynamic',
    sizeBytes,
    blockBytes,
    logicalSectorBytes: sectorBytes,
    physicalSectorBytes: 4096,
    diskId: randomUUID(),
  } as const;
  await loadEngine().createDisk(path, identity, '', false);
  const chain = LiveChain.open([path]);
  try {
    GuestVolume.format(chain, { guest, disk, disks, dataBytes, compressible });
  } finally {
    chain.close();
  }
}

function prepareFolder(lab: string): void {
  let entries: string[];
  try {
    mkdirSync(lab, { recursive: true });
    entries = readdirSync(lab);
  } catch (error) {
    throw fromFileSystem(error, 'create', 'ERR_WRITE');
  }
  if (entries.length === 0) return;
  throw firnError('ERR_EXISTS', `${lab} is not empty`, {
    path: lab,
    hint: 'Choose a folder that is empty or not there yet.',
  });
}

// Fit for every file system, and not that of another machine. The engine takes no backslash in a path, and Windows little else.
function folderName(vm: string, taken: ReadonlySet<string>): string {
  const plain = vm
    .replace(/[<>:"/\\|?*\p{Cc}]/gu, '_')
    .slice(0, FOLDER_NAME_MAX)
    .replace(/[. ]+$/, '');
  const base = plain === '' || plain.startsWith('.') ? `vm-${plain.slice(1)}` : plain;
  let name = base;
  for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${base}-${number}`;
  return name;
}

function definedOnly<Type extends object>(values: Type) {
  type Defined = { [Key in keyof Type]?: Exclude<Type[Key], undefined> };
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined),
  ) as Defined;
}

// --- Running machines ---

async function forEachVm(
  folder: string,
  vms: readonly string[] | undefined,
  action: (found: FoundVm) => Promise<void>,
): Promise<LabVmOutcome[]> {
  return Promise.all(
    selectVms(resolve(folder), vms).map(async (found) => {
      const { name } = found.vm;
      try {
        await action(found);
        return { name };
      } catch (error) {
        return { name, error: asFirnError(error) };
      }
    }),
  );
}

async function kill({ folder }: FoundVm): Promise<void> {
  const status = await statusOf(folder);
  if (status === undefined) return;
  try {
    process.kill(status.pid, 'SIGKILL');
  } catch (error) {
    // It has ended by itself.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

async function untilOff({ folder, vm }: FoundVm): Promise<void> {
  const until = performance.now() + STOP_DEADLINE_MS;
  while ((await statusOf(folder).catch(() => 'silent')) !== undefined) {
    if (performance.now() > until) {
      throw firnError('ERR_HOST_FAILED', `${vm.name} does not end`, { retryable: true });
    }
    await sleep(POLL_MS);
  }
}

function faultFolder(folder: string, vm: string | undefined): string {
  const lab = resolve(folder);
  if (vm !== undefined) return findVm(lab, vm).folder;
  vmFolders(lab); // says so if it is not there
  return lab;
}
