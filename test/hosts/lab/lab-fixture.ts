/** A lab for tests: small machines in a temporary folder, gone with their processes when the tests are. */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import {
  clearFaults,
  createLab,
  type LabVmSpec,
  labStatus,
  labVm,
  mergeCheckpoint,
  setFault,
  startLab,
  stopLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import type { HostFixture } from '../../conformance/host.js';

const MIB = 1024 * 1024;

/** What a machine has in these tests unless they say otherwise: little, and a guest that is busy. */
export const SMALL = {
  sizeBytes: 64 * MIB,
  dataBytes: 4 * MIB,
  blockBytes: 2 * MIB,
  writesPerSecond: 60,
  freezeMs: 5,
} as const;

/** Makes a lab in a folder of its own. `remove` stops it and takes it away. */
export async function makeLab(
  vms: readonly (Partial<LabVmSpec> & { name: string })[],
  { start = true }: { start?: boolean } = {},
): Promise<{ lab: string; remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'firn-lab-'));
  const lab = path.join(folder, 'lab');
  const remove = async () => {
    await stopLab(lab).catch(() => {});
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await createLab(lab, { vms: vms.map((vm) => ({ ...SMALL, ...vm })) });
    if (start) {
      for (const { error } of await startLab(lab)) if (error !== undefined) throw error;
    }
    return { lab, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** The same, gone when the test has finished. */
export async function temporaryLab(...options: Parameters<typeof makeLab>): Promise<string> {
  const { lab, remove } = await makeLab(...options);
  onTestFinished(remove);
  return lab;
}

/** True if the guest commits something within a second. */
export async function isWriting(lab: string, vm: string): Promise<boolean> {
  const before = (await labVm(lab, vm)).generation ?? Number.POSITIVE_INFINITY;
  for (let waited = 0; waited < 1000; waited += 20) {
    await sleep(20);
    if (((await labVm(lab, vm)).generation ?? 0) > before) return true;
  }
  return false;
}

/** Waits until something holds; fails after some seconds. */
export async function until(holds: () => Promise<boolean> | boolean, seconds = 10): Promise<void> {
  for (let waited = 0; !(await holds()); waited += 10) {
    if (waited > seconds * 1000) throw new Error('what the test waits for does not come about');
    await sleep(10);
  }
}

export async function labHostFixture(): Promise<HostFixture> {
  const { lab, remove } = await makeLab([
    { name: 'web', disks: 2 },
    { name: 'db & "files" $(no) ünï', vss: 'application' },
    { name: 'agentless', vss: 'none' },
  ]);
  return {
    host: async () => new LabHost(lab),
    vms: (await labStatus(lab)).vms.map((vm) => vm.name).sort((a) => (a === 'web' ? -1 : 1)),
    weakVm: 'agentless',
    freezeDeadlineMs: 2000,
    isWriting: (vm) => isWriting(lab, vm),
    chainDepth: async (vm) =>
      Math.max(...(await labVm(lab, vm)).disks.map((disk) => disk.layers.length)),
    userCheckpoint: async (vm) => {
      const name = await userCheckpoint(lab, vm);
      return () => mergeCheckpoint(lab, vm, name);
    },
    breakCaptures: async (vm) => {
      await setFault(lab, { name: 'checkpoint-fails', vm });
      return () => clearFaults(lab, { vm });
    },
    dispose: remove,
  };
}
