/**
 * What stands at a machine that looks like a backup's left-over: Firn's by the mark in its name, and others' layers, which are named
 * and left alone.
 */

import { type Leftover, markOf, runOfMark, type VmRef } from '../host.js';
import { readBitmaps } from './bitmaps.js';
import { type GraphDisk, readGraph } from './graph.js';
import { overlayFiles } from './layer-files.js';
import { isLive, type Machine } from './machines.js';
import { overlayMark } from './overlay.js';
import { agentSocket, GuestAgent } from './qga.js';
import { type QmpClient, withQmp } from './qmp.js';
import { whyNoFreeze } from './reach.js';
import { marksIn, readRecord } from './record.js';

/** None for a machine whose monitor does not answer: nothing can be said about it, and the others count. */
export async function findLeftovers(machine: Machine): Promise<Leftover[]> {
  if (machine.problem !== undefined) return [];
  if (!isLive(machine)) return recordedLeftovers(machine, []);
  return withQmp(machine.folder, async (qmp) => {
    const disks = await readGraph(qmp);
    return [
      ...disks.flatMap((disk) => chainLeftovers(disk, machine.ref)),
      ...(await bitmapLeftovers(qmp, machine.ref)),
      ...(await recordedLeftovers(machine, disks)),
      ...(await frozenGuest(qmp, machine)),
    ];
  });
}

function chainLeftovers(disk: GraphDisk, vm: VmRef): Leftover[] {
  return disk.layers.slice(0, -1).map((layer) => {
    const mark = overlayMark(layer.file);
    return mark === undefined
      ? {
          kind: 'checkpoint',
          name: layer.file,
          vm,
          detail: `a ${layer.format} layer of ${disk.name}`,
        }
      : { kind: 'checkpoint', name: layer.file, vm, mark, detail: `takes writes of ${disk.name}` };
  });
}

/** Bitmaps of runs that sealed no point, or died before they kept it. Those that are kept bear no mark, and others' are no matter of ours. */
async function bitmapLeftovers(qmp: QmpClient, vm: VmRef): Promise<Leftover[]> {
  return (await readBitmaps(qmp)).flatMap(({ name, node }): Leftover[] => {
    const run = runOfMark(name);
    if (run === undefined) return [];
    return [{ kind: 'bitmap', name, vm, mark: markOf(run), detail: `on the node ${node}` }];
  });
}

/** Files that bear marks and are in no chain: layers, and what a run's record tells. */
async function recordedLeftovers(
  { folder, ref: vm }: Machine,
  disks: readonly GraphDisk[],
): Promise<Leftover[]> {
  const inUse = new Set(disks.flatMap((disk) => disk.layers.map((layer) => layer.file)));
  const leftovers: Leftover[] = [];
  for (const mark of await marksBeside(folder, disks)) {
    const record = await readRecord(folder, mark);
    const files = await overlayFiles(folder, mark, disks, record);
    const unused = files.filter((file) => !inUse.has(file));
    const detail = record === undefined ? 'of a run without a record' : `since ${record.begun}`;
    for (const name of unused) leftovers.push({ kind: 'layer', name, vm, mark, detail });
    if (files.length > 0) continue;
    leftovers.push({ kind: 'layer', name: mark, vm, mark, detail: `only its record, ${detail}` });
  }
  return leftovers;
}

async function marksBeside(folder: string, disks: readonly GraphDisk[]): Promise<Set<string>> {
  const marks = new Set(await marksIn(folder));
  for (const { layers } of disks) {
    for (const { file } of layers) {
      for (const mark of await marksIn(file.slice(0, Math.max(1, file.lastIndexOf('/'))))) {
        // In a folder that several machines' disks share, a mark may be another's.
        if ((await overlayFiles(folder, mark, disks, undefined)).length > 0) marks.add(mark);
      }
    }
  }
  return marks;
}

async function frozenGuest(qmp: QmpClient, machine: Machine): Promise<Leftover[]> {
  if ((await whyNoFreeze(qmp, machine)) !== undefined) return [];
  const agent = await GuestAgent.connect(agentSocket(machine.folder)).catch(() => undefined);
  if (agent === undefined) return [];
  try {
    if (!(await agent.isFrozen())) return [];
  } finally {
    agent.close();
  }
  const { folder, ref: vm } = machine;
  for (const mark of await marksIn(folder)) {
    const record = await readRecord(folder, mark);
    if (record?.freeze === 'begun') return [{ kind: 'frozen-guest', name: vm.name, vm, mark }];
  }
  return [{ kind: 'frozen-guest', name: vm.name, vm, detail: 'frozen by somebody else' }];
}
