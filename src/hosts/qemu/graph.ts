/**
 * A machine's disks as QEMU has them now: which file takes the writes, and what lies below it.
 *
 * Disks are what guest devices are attached to (query-block); in a storage daemon, which has no guest, what its exports are. Layers are known
 * by their files, as node names may be QEMU's own and end with its process. Filter nodes, which running jobs put between, are
 * looked through.
 */

import path from 'node:path';
import { z } from 'zod';
import { isFirnExport } from './nbd.js';
import { fileOfName, overlayMark } from './overlay.js';
import type { QmpClient } from './qmp.js';

const imageSchema = z.object({
  filename: z.string(),
  format: z.string(),
  'virtual-size': z.number(),
  'actual-size': z.number().optional(),
  get 'backing-image'() {
    return imageSchema.optional();
  },
});
const nodeSchema = z.object({
  'node-name': z.string().optional(),
  file: z.string(),
  drv: z.string(),
  ro: z.boolean(),
  encrypted: z.boolean(),
  image: imageSchema,
});
type Node = z.output<typeof nodeSchema>;
const nodesSchema = z.array(nodeSchema);
const blocksSchema = z.array(
  z.object({ device: z.string(), qdev: z.string().optional(), inserted: nodeSchema.optional() }),
);
const exportsSchema = z.array(
  z.object({ id: z.string(), 'node-name': z.string(), 'shutting-down': z.boolean() }),
);

/** What QEMU calls a layer's format, where Firn can read it. */
const READABLE_FORMATS = new Set(['vhdx', 'vpc', 'raw', 'file']);
const RAW_FORMATS = new Set(['raw', 'file']);
/** Nodes that have no content of their own. */
const FILTERS = new Set([
  'mirror_top',
  'commit_top',
  'backup-top',
  'copy-before-write',
  'copy-on-read',
  'throttle',
  'preallocate',
  'blkdebug',
]);

export interface GraphLayer {
  file: string;
  format: string;
  /** What the file occupies. */
  fileBytes: number;
  node: string;
}

export interface GraphDisk {
  /** Of the guest's device, unique in the machine and fit to be a file's name. */
  name: string;
  sizeBytes: number;
  /** The layer that takes the writes first. Never empty. */
  layers: GraphLayer[];
  /** Why Firn cannot back this disk up. */
  unsupported?: string;
}

/** Asks QEMU for the disks. Media drives that are empty are left out. */
export async function readGraph(qmp: QmpClient): Promise<GraphDisk[]> {
  const nodes = await qmp.query(nodesSchema, 'query-named-block-nodes');
  const names = new Set<string>();
  const disks: GraphDisk[] = [];
  for (const [given, top] of await attachedNodes(qmp, nodes)) {
    disks.push(makeDisk(uniqueName(given, names), top, nodes));
  }
  return disks;
}

/** The layer of `mark` in a disk's chain, and where it stands. */
export function markedLayer(disk: GraphDisk, mark: string): number {
  return disk.layers.findIndex((layer) => overlayMark(layer.file) === mark);
}

async function attachedNodes(
  qmp: QmpClient,
  nodes: readonly Node[],
): Promise<[name: string, top: Node][]> {
  const blocks = await qmp.query(blocksSchema, 'query-block');
  const attached = blocks.flatMap(({ device, qdev, inserted }): [string, Node][] =>
    inserted === undefined ? [] : [[deviceName(qdev, device), inserted]],
  );
  const hasGuest = (await qmp.queryIfKnown(z.unknown(), 'query-status')) !== undefined;
  if (hasGuest) return attached;
  const exported = await qmp.query(exportsSchema, 'query-block-exports');
  exported.sort((a, b) => (a.id < b.id ? -1 : 1));
  return exported.flatMap((each): [string, Node][] => {
    const top = nodes.find((node) => node['node-name'] === each['node-name']);
    const isDisk = !each['shutting-down'] && !isFirnExport(each.id);
    return top === undefined || !isDisk ? [] : [[each.id, top]];
  });
}

/** "/machine/peripheral/vd0/virtio-backend" is vd0, "/machine/peripheral-anon/device[1]" is device-1. */
function deviceName(qdev: string | undefined, device: string): string {
  const parts = (qdev ?? '').split('/').filter((part) => part !== 'virtio-backend');
  return parts.at(-1) || device || 'disk';
}

function uniqueName(given: string, taken: Set<string>): string {
  const base = given.replace(/[^0-9A-Za-z._-]+/g, '-').replace(/^[-.]+|-+$/g, '') || 'disk';
  let name = base;
  for (let number = 2; taken.has(name); number++) name = `${base}-${number}`;
  taken.add(name);
  return name;
}

function makeDisk(name: string, attached: Node, nodes: readonly Node[]): GraphDisk {
  const top = behindFilters(attached, nodes);
  const layers: GraphLayer[] = [];
  for (let image: Node['image'] | undefined = top.image; image; image = image['backing-image']) {
    const file = fileOfName(image.filename) ?? image.filename;
    const node = nodeOf(file, image.format, nodes);
    layers.push({
      file,
      format: image.format,
      fileBytes: image['actual-size'] ?? 0,
      node: node?.['node-name'] ?? '',
    });
  }
  const disk = { name, sizeBytes: top.image['virtual-size'], layers };
  const unsupported = whyUnsupported(top, layers, nodes);
  return unsupported === undefined ? disk : { ...disk, unsupported };
}

function behindFilters(attached: Node, nodes: readonly Node[]): Node {
  if (!FILTERS.has(attached.drv)) return attached;
  const below = nodes.filter((node) => node.file === attached.file && !FILTERS.has(node.drv));
  return below.find((node) => node.drv !== 'file') ?? below[0] ?? attached;
}

function nodeOf(file: string, format: string, nodes: readonly Node[]): Node | undefined {
  return nodes.find((node) => node.drv === format && fileOfName(node.image.filename) === file);
}

function whyUnsupported(
  top: Node,
  layers: readonly GraphLayer[],
  nodes: readonly Node[],
): string | undefined {
  if (top.ro) return 'it is read-only';
  if (top.encrypted) return 'QEMU encrypts it';
  // Firn's own layers go again; what matters is what lies below them.
  const base = layers.find((layer) => overlayMark(layer.file) === undefined);
  if (base === undefined) return 'what lies below its layers is not known';
  if (!READABLE_FORMATS.has(base.format)) {
    return `its format is ${base.format}, which Firn does not read`;
  }
  const inFile = nodes.some((node) => node.drv === 'file' && fileOfName(node.file) === base.file);
  if (!inFile || !path.isAbsolute(base.file) || base.file.startsWith('/dev/')) {
    return 'it is no file of this host';
  }
  const namedRaw = /\.(raw|img)$/i.test(base.file);
  if (RAW_FORMATS.has(base.format) === namedRaw) return undefined;
  // A guest may write what it likes to the start of a raw disk: only the name says safely which it is.
  return namedRaw
    ? `its name says that it is raw, and its format is ${base.format}`
    : 'it is a raw disk whose name does not end in .raw or .img';
}
