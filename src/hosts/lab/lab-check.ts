/** What `firn doctor` looks at in a lab: machines that cannot be read, images, what stands in the way of a backup, faults. */

import { basename } from 'node:path';
import { loadEngine } from '../../engine/engine.js';
import type { Check } from '../host.js';
import { vmFolders } from './vm-file.js';
import {
  asFirnError,
  type FoundVm,
  findVms,
  reachableNow,
  statusOf,
  vmStatus,
} from './vm-status.js';

const DEEP_CHAIN = 5;

/** Never rejects: what cannot be looked at is a check that failed. */
export async function checkLab(lab: string): Promise<Check[]> {
  try {
    vmFolders(lab);
  } catch (failure) {
    const { message, hint } = asFirnError(failure);
    return [{ name: 'lab', state: 'error', message, ...(hint === undefined ? {} : { hint }) }];
  }
  const { found, problems } = findVms(lab);
  const checks: Check[] = [
    { name: 'lab', state: 'ok', message: `${found.length} machines in ${lab}` },
  ];
  for (const { folder, error } of problems) {
    checks.push({
      name: `machine ${basename(folder)}`,
      state: 'error',
      message: error.message,
      hint: error.hint ?? 'Remove the folder, or restore its vm.json.',
    });
  }
  for (const item of found) checks.push(...(await checkVm(item)));
  return checks;
}

async function checkVm(item: FoundVm): Promise<Check[]> {
  const { folder, vm } = item;
  const name = `machine ${vm.name}`;
  let running: boolean;
  try {
    running = (await statusOf(folder)) !== undefined;
  } catch (error) {
    const hint = 'Stop and start it with "firn lab stop" and "firn lab start".';
    return [{ name, state: 'error', message: asFirnError(error).message, hint }];
  }
  const checks = [await checkChains(item, running)];
  const { reachable, reason } = reachableNow(vm, running);
  checks.push(
    reason === undefined
      ? { name: `${name}: consistency`, state: 'ok', message: `${reachable} can be reached` }
      : {
          name: `${name}: consistency`,
          state: 'warning',
          message: `${reachable} at the most: ${reason}`,
          hint: 'A job that requires more makes no point of this machine.',
        },
  );
  checks.push(...(await checkState(item)));
  return checks;
}

// The top layer of a running machine changes under a reader, so only what lies below it is looked at.
async function checkChains({ folder, vm }: FoundVm, running: boolean): Promise<Check> {
  const name = `machine ${vm.name}: disks`;
  for (const disk of vm.disks) {
    const layers = running ? disk.layers.slice(1) : disk.layers;
    const [top, ...parents] = layers.map((layer) => `${folder}/${layer}`);
    if (top === undefined) continue;
    const { error } = await loadEngine().inspectDisk(top, {
      parentFolders: [],
      parents,
      format: 'vhdx',
    });
    if (error !== undefined) {
      const hint = `Run "firn inspect" on ${top}.`;
      return { name, state: 'error', message: `${disk.name}: ${error.message}`, hint };
    }
  }
  const depth = Math.max(...vm.disks.map((disk) => disk.layers.length));
  if (depth <= DEEP_CHAIN) return { name, state: 'ok', message: `chains of up to ${depth} layers` };
  const hint = 'Merge checkpoints that are not needed any more.';
  return { name, state: 'warning', message: `a chain of ${depth} layers`, hint };
}

async function checkState(item: FoundVm): Promise<Check[]> {
  const { state, unclean, faults, merging } = await vmStatus(item);
  const name = `machine ${item.vm.name}`;
  const checks: Check[] = [];
  if (state === 'critical') {
    const hint = 'Free space on its volume, or clear the fault "volume-full".';
    checks.push({ name, state: 'error', message: 'its disk cannot grow, and it stands', hint });
  } else if (unclean) {
    const hint = 'Start it: the guest replays its log.';
    checks.push({ name, state: 'warning', message: 'it died and was not shut down', hint });
  }
  if (merging !== undefined) {
    const hint = 'Wait until it is done.';
    checks.push({ name, state: 'warning', message: `${merging} is being merged`, hint });
  }
  for (const fault of faults) {
    const hint = 'Clear it with "firn lab fault --clear".';
    const message = `the fault "${fault.name}" is switched on`;
    checks.push({ name, state: 'warning', message, hint });
  }
  return checks;
}
