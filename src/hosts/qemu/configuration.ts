/**
 * A machine's configuration as QEMU tells it: what a person needs to build the machine again. QEMU has no file of its own for that; how it
 * was started is the business of whoever started it.
 */

import { z } from 'zod';
import type { VmRef } from '../host.js';
import type { GraphDisk } from './graph.js';
import { type QmpClient, QmpRefusal } from './qmp.js';

const QUERIES: readonly [member: string, command: string, parameters?: Record<string, unknown>][] =
  [
    ['name', 'query-name'],
    ['uuid', 'query-uuid'],
    ['machineType', 'qom-get', { path: '/machine', property: 'type' }],
    ['memory', 'query-memory-size-summary'],
    ['cpus', 'query-cpus-fast'],
    ['devices', 'qom-list', { path: '/machine/peripheral' }],
    ['unnamedDevices', 'qom-list', { path: '/machine/peripheral-anon' }],
    ['characterDevices', 'query-chardev'],
    ['pci', 'query-pci'],
    ['block', 'query-block'],
    ['exports', 'query-block-exports'],
  ];

/** A JSON document. What this QEMU does not tell is left out. */
export async function describeConfiguration(
  qmp: QmpClient,
  ref: VmRef,
  disks: readonly GraphDisk[],
): Promise<string> {
  const members: Record<string, unknown> = { vm: ref, qemu: qmp.version };
  for (const [member, command, parameters] of QUERIES) {
    try {
      const answer = await qmp.queryIfKnown(z.unknown(), command, parameters);
      if (answer !== undefined) members[member] = answer;
    } catch (error) {
      if (!(error instanceof QmpRefusal)) throw error;
    }
  }
  members.disks = disks.map(({ name, sizeBytes, layers }) => ({ name, sizeBytes, layers }));
  return `${JSON.stringify(members, undefined, 2)}\n`;
}
