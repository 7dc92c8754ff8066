/**
 * Dirty bitmaps: how QEMU keeps for Firn what a machine has written since a point.
 *
 * Each captured disk gets a bitmap on the node below its new layer, in the transaction that puts the layer there. Nothing is written to that
 * node while the layer stands; the merge that follows writes what the guest wrote meanwhile, and then the guest itself does, so the bitmap
 * comes to hold all that differs from the capture. It never has to follow the chain.
 *
 * Until the point is sealed, the bitmap's name is the run's mark. Then, in another transaction, one with the reference's name takes over
 * what it holds, so names alone tell what is kept and what is a run's. Formats that Firn reads cannot store bitmaps: they live in QEMU and
 * end with it.
 */

import { z } from 'zod';
import type { VmRef } from '../host.js';
import { isSucceededBy, type KeptReference, ownerOfReference } from '../tracking.js';
import type { QmpClient } from './qmp.js';

export const TRACKING_METHOD = 'dirty bitmap';
const GRANULARITY_BYTES = 64 * 1024;

const nodesSchema = z.array(
  z.object({
    'node-name': z.string().optional(),
    'dirty-bitmaps': z
      .array(
        z.object({
          name: z.string().optional(),
          granularity: z.number(),
          recording: z.boolean(),
          busy: z.boolean(),
          inconsistent: z.boolean().optional(),
        }),
      )
      .optional(),
  }),
);

export interface Bitmap {
  node: string;
  name: string;
  granularity: number;
  recording: boolean;
  busy: boolean;
  inconsistent?: boolean | undefined;
}

interface Action {
  type: string;
  data: Record<string, unknown>;
}

/** All bitmaps of the machine that have names, anybody's. */
export async function readBitmaps(qmp: QmpClient): Promise<Bitmap[]> {
  const nodes = await qmp.query(nodesSchema, 'query-named-block-nodes');
  return nodes.flatMap(({ 'node-name': node, 'dirty-bitmaps': bitmaps }) =>
    (bitmaps ?? []).flatMap(({ name, ...bitmap }) =>
      name === undefined || node === undefined ? [] : [{ ...bitmap, node, name }],
    ),
  );
}

/** For a transaction, before the action that puts a layer on the node: what is written in between is in the bitmap, and in the layer below. */
export function addBitmap(node: string, name: string, granularity = GRANULARITY_BYTES): Action {
  return { type: 'block-dirty-bitmap-add', data: { node, name, granularity } };
}

/** Gives the mark's bitmaps the reference's name, on all disks or on none. Nothing happens if there are none. */
export async function keepBitmaps(qmp: QmpClient, mark: string, reference: string): Promise<void> {
  const bitmaps = await readBitmaps(qmp);
  const isKept = (node: string) =>
    bitmaps.some((bitmap) => bitmap.node === node && bitmap.name === reference);
  const actions = bitmaps
    .filter(({ name }) => name === mark)
    .flatMap(({ node, granularity }): Action[] => [
      ...(isKept(node) ? [] : [addBitmap(node, reference, granularity)]),
      {
        type: 'block-dirty-bitmap-merge',
        data: { node, target: reference, bitmaps: [mark] },
      },
      removal(node, mark),
    ]);
  if (actions.length > 0) await qmp.execute('transaction', { actions });
}

/** Removes them all or none. QEMU refuses while one is busy. */
export async function removeBitmaps(qmp: QmpClient, bitmaps: readonly Bitmap[]): Promise<void> {
  const actions = bitmaps.map(({ node, name }) => removal(node, name));
  if (actions.length > 0) await qmp.execute('transaction', { actions });
}

/** What the reference takes the place of. Nothing unless it is kept: the last one that there is must stay. */
export function succeededBitmaps(bitmaps: readonly Bitmap[], reference: string): Bitmap[] {
  if (bitmaps.every(({ name }) => name !== reference)) return [];
  return bitmaps.filter(({ name }) => isSucceededBy(name, reference));
}

/** What Firn keeps at a machine, each reference once. */
export function keptReferences(bitmaps: readonly Bitmap[], vm: VmRef): KeptReference[] {
  const names = bitmaps.map(({ name }) => name);
  return [...new Set(names.filter((name) => ownerOfReference(name) !== undefined))].map((name) => ({
    name,
    vm,
    method: TRACKING_METHOD,
  }));
}

function removal(node: string, name: string): Action {
  return { type: 'block-dirty-bitmap-remove', data: { node, name } };
}
