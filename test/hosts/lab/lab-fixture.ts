/** A lab for tests: small machines in a temporary folder, gone with their processes when the tests are. */

import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import {
  checkGuestImages,
  clearFaults,
  createLab,
  type GuestVerdict,
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
import { captureOf, type HostFixture, recordSteps } from '../../conformance/host.js';
import { expectSound } from './images.js';

const MIB = 1024 * 1024;
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

/** What a machine has in these tests unless they say otherwise: little, and a guest that is busy. */
export const SMALL = {
  sizeBytes: 64 * MIB,
  dataBytes: 4 * MIB,
  blockBytes: 2 * MIB,
  writesPerSecond: 60,
  freezeMs: 5,
} as const;

// A machine's process is the compiled one: an older dist/ would test something else.
async function assertFresh(): Promise<void> {
  const program = await stat(path.join(ROOT, 'dist/hosts/lab/vm-main.js')).catch(() => undefined);
  const source = path.join(ROOT, 'src/hosts/lab');
  const files = await Promise.all(
    (await readdir(source)).map((name) => stat(path.join(source, name))),
  );
  const newest = Math.max(...files.map((file) => file.mtimeMs));
  if (program !== undefined && newest <= program.mtimeMs) return;
  throw new Error('dist/ is missing or older than src/: run "npm run build:ts" first');
}

/** Makes a lab in a folder of its own. `remove` stops it and takes it away. */
export async function makeLab(
  vms: readonly (Partial<LabVmSpec> & { name: string })[],
  { start = true }: { start?: boolean } = {},
): Promise<{ lab: string; remove: () => Promise<void> }> {
  await assertFresh();
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

/** True as soon as the guest commits something; false if it does not for `seconds`. */
export async function isWriting(lab: string, vm: string, seconds = 30): Promise<boolean> {
  let before: number | undefined;
  for (let waited = 0; waited < seconds * 1000; waited += 20) {
    // Absent while the machine is off or its process does not answer.
    const { generation } = await labVm(lab, vm);
    if (generation !== undefined && before !== undefined && generation > before) return true;
    before ??= generation;
    await sleep(20);
  }
  return false;
}

/** A clean stop, however long the guest takes to come to rest. */
export async function stopInPeace(lab: string): ReturnType<typeof stopLab> {
  return stopLab(lab, undefined, { deadlineMs: 60_000 });
}

/** The verdict on a machine that is off, whose images the engine finds sound. */
export async function verdictOn(lab: string, vm: string): Promise<GuestVerdict> {
  const { disks } = await labVm(lab, vm);
  const tops = disks.map((disk) => disk.layers[0] ?? '');
  for (const top of tops) await expectSound(top);
  return checkGuestImages(tops);
}

export async function depthsOf(lab: string): Promise<number[]> {
  const { vms } = await labStatus(lab);
  return vms.flatMap((vm) => vm.disks.map((disk) => disk.layers.length));
}

export async function captureAll(lab: string, mark: string): Promise<void> {
  const host = new LabHost(lab);
  for (const vm of await host.listVms()) {
    const policy = { wanted: 'application', required: 'crash' } as const;
    const request = { vm, policy, excludedDisks: [], freezeDeadlineMs: 60_000 };
    captureOf((await host.capture([request], mark, recordSteps()))[0]);
  }
}

export async function releaseAll(lab: string, mark: string, deadlineMs = 60_000) {
  const host = new LabHost(lab);
  const outcomes = await host.release(await host.listVms(), mark, deadlineMs, recordSteps());
  return outcomes.map((outcome) => outcome.error).filter((error) => error !== undefined);
}

/** Waits until something holds; fails after half a minute. */
export async function until(holds: () => Promise<boolean> | boolean, seconds = 30): Promise<void> {
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
    tracking: 'checkpoint',
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
