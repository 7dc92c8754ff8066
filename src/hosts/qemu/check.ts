/**
 * What `firn doctor` looks at on a QEMU host.
 */

import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Check } from '../host.js';
import { type GraphDisk, readGraph } from './graph.js';
import { isLive, type Machine } from './machines.js';
import { overlayMark } from './overlay.js';
import { withQmp } from './qmp.js';
import { probeReach } from './reach.js';

const run = promisify(execFile);

/** qemu-img's first line, or undefined when there is none. */
export async function qemuImageVersion(): Promise<string | undefined> {
  return run('qemu-img', ['--version']).then(
    ({ stdout }) => stdout.split('\n')[0],
    () => undefined,
  );
}

export async function checkTools(): Promise<Check[]> {
  const version = await qemuImageVersion();
  const image: Check =
    version === undefined
      ? {
          name: 'qemu-img',
          state: 'warning',
          message: 'there is none: layers of a machine that has gone off cannot be merged',
          hint: 'Install it (Debian: apt-get install qemu-utils).',
        }
      : { name: 'qemu-img', state: 'ok', message: version };
  return [image, await checkNbdinfo()];
}

async function checkNbdinfo(): Promise<Check> {
  const name = 'nbdinfo';
  try {
    const { stdout } = await run('nbdinfo', ['--version']);
    return { name, state: 'ok', message: stdout.split('\n')[0] ?? '' };
  } catch {
    return {
      name,
      state: 'warning',
      message:
        'there is none: what changed since a point cannot be read, so every run reads whole disks',
      hint: 'Install it (Debian: apt-get install libnbd-bin).',
    };
  }
}

export async function checkMachine(machine: Machine): Promise<Check[]> {
  const { name } = machine.ref;
  const { problem } = machine;
  if (problem !== undefined) {
    const { message, hint } = problem;
    return [
      {
        name: `${name}: monitor`,
        state: 'error',
        message,
        ...(hint === undefined ? {} : { hint }),
      },
    ];
  }
  const folder = await checkFolder(machine);
  if (!isLive(machine)) {
    const message = 'QEMU does not run: its disks are not known, and it cannot be captured';
    return [{ name: `${name}: monitor`, state: 'unknown', message, hint: 'Start it.' }, folder];
  }
  return withQmp(machine.folder, async (qmp) => {
    const reach = await probeReach(qmp, machine);
    const agent: Check =
      reach.reachable === 'crash'
        ? {
            name: `${name}: guest agent`,
            state: 'warning',
            message: `only crash consistency is to be had: ${reach.reason}`,
            hint: 'Install qemu-guest-agent in the guest, and give the machine a port for it at qga.sock.',
          }
        : { name: `${name}: guest agent`, state: 'ok', message: 'it answers and can freeze' };
    const disks = await readGraph(qmp);
    return [folder, agent, ...disks.map((disk) => checkDisk(name, disk))];
  });
}

async function checkFolder({ folder, ref }: Machine): Promise<Check> {
  const name = `${ref.name}: folder`;
  try {
    await access(folder, constants.W_OK);
    return { name, state: 'ok', message: folder };
  } catch {
    const message = `${folder} cannot be written to, and a run keeps its record there`;
    return { name, state: 'error', message, hint: 'Run as a user who may write there.' };
  }
}

function checkDisk(vmName: string, disk: GraphDisk): Check {
  const name = `${vmName}: ${disk.name}`;
  if (disk.unsupported !== undefined) {
    const message = `it is left out of backups: ${disk.unsupported}`;
    return { name, state: 'warning', message };
  }
  const mark = disk.layers.map((layer) => overlayMark(layer.file)).find(Boolean);
  if (mark === undefined) return { name, state: 'ok', message: disk.layers[0]?.file ?? '' };
  return {
    name,
    state: 'warning',
    message: `a layer of ${mark} lies on it`,
    hint: 'Unless that run is under way, run "firn reconcile".',
  };
}
