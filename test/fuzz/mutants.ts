/**
 * Images that are nearly right: what Firn and its live layers write, with one or two fields changed, by a seed. Checksums are mostly made right
 * again, as nothing else would get past the first of them. The images are small (4 MiB of disk), so that many are read in a short time.
 */

import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { crc32c } from '../../src/crc32c.js';
import { loadEngine } from '../../src/engine/engine.js';
import { resolveTuning } from '../../src/engine/options.js';
import { LiveChain } from '../../src/hosts/lab/live-chain.js';
import { copyDisk } from '../../src/jobs/copy.js';
import { createBase, createChild } from '../hosts/lab/images.js';

const KIB = 1024;
const MIB = 1024 * KIB;
export const DISK_BYTES = 4 * MIB;
/** Of the VHDX. */
export const BLOCK_BYTES = MIB;

export interface Image {
  name: string;
  format: 'vhdx' | 'vhd';
  bytes: Buffer;
  /** The file that a differencing disk needs beside it. */
  parent?: string;
  /** Where the fields are that are worth changing. */
  fields: Field[];
}

interface Field {
  name: string;
  offset: number;
  bytes: number;
}

export interface Mutant {
  image: Image;
  bytes: Buffer;
  /** The names of the fields that were changed. */
  fields: string[];
  about: string;
}

/** Writes the images into a folder, each from the same content. */
export async function makeImages(folder: string, content: Buffer): Promise<Image[]> {
  const raw = path.join(folder, 'content.raw');
  await writeFile(raw, content);
  const images: Image[] = [];
  for (const kind of ['dynamic', 'fixed'] as const) {
    const name = kind === 'fixed' ? 'vhdx-fixed' : 'vhdx';
    const file = path.join(folder, `${name}.vhdx`);
    await writeVhdx(raw, file, kind);
    images.push(await imageOf(name, 'vhdx', file));
  }
  const dynamic = path.join(folder, 'vhd.vhd');
  await copyDisk(raw, dynamic, { format: 'vhd' });
  images.push(await imageOf('vhd', 'vhd', dynamic));
  const fixed = path.join(folder, 'vhd-fixed.vhd');
  await writeFile(fixed, fixedVhd(await readFile(dynamic), content));
  images.push(await imageOf('vhd-fixed', 'vhd', fixed));
  const shape = { sizeBytes: DISK_BYTES, blockBytes: BLOCK_BYTES, sectorBytes: 512 } as const;
  const parent = path.join(folder, 'parent.vhdx');
  await createBase(parent, shape);
  const child = path.join(folder, 'child.avhdx');
  let chain = LiveChain.open([parent]);
  chain.write(0, content);
  chain.flush();
  chain.close();
  await createChild(child, parent, shape, MIB);
  chain = LiveChain.open([child, parent]);
  chain.write(MIB + 4096, Buffer.alloc(9000, 0x77).subarray(0, 8704));
  chain.write(2 * MIB, Buffer.alloc(MIB, 0x33));
  chain.flush();
  chain.close();
  images.push({ ...(await imageOf('child', 'vhdx', child)), parent });
  return images;
}

/** With blocks of 1 MiB, the smallest ones: a copy's own choice makes images ten times as large. */
async function writeVhdx(raw: string, target: string, kind: 'dynamic' | 'fixed'): Promise<void> {
  const session = loadEngine().startCopy({
    tuning: resolveTuning({ workers: 2, memoryBytes: 160 * MIB }),
    source: { path: raw, open: { parentFolders: [], parents: [], format: 'raw' } },
    target: {
      path: target,
      identity: {
        format: 'vhdx',
        kind,
        sizeBytes: DISK_BYTES,
        blockBytes: BLOCK_BYTES,
        logicalSectorBytes: 512,
        physicalSectorBytes: 4096,
        diskId: '12345678-9abc-4def-8123-456789abcdef',
      },
      parentPath: '',
    },
    overwrite: false,
  });
  await session.done;
}

/** Firn writes none: the content, and the footer of a dynamic one with what is different there. */
function fixedVhd(dynamic: Buffer, content: Buffer): Buffer {
  const footer = Buffer.from(dynamic.subarray(-512));
  footer.fill(0xff, 16, 24);
  footer.writeUInt32BE(2, 60);
  const image = Buffer.alloc(Number(footer.readBigUInt64BE(48)) + 512);
  content.copy(image);
  footer.copy(image, image.length - 512);
  mend('vhd', image);
  return image;
}

async function imageOf(name: string, format: Image['format'], file: string): Promise<Image> {
  const bytes = await readFile(file);
  return { name, format, bytes, fields: format === 'vhdx' ? vhdxFields(bytes) : vhdFields(bytes) };
}

const BAT = '6677c22d23f600429d64115e9bfd4a08';
const METADATA = '06a27c8b90470c4bb8fe575f050f886e';

function vhdxFields(bytes: Buffer): Field[] {
  const fields: Field[] = [
    { name: 'identifier', offset: 0, bytes: 16 },
    { name: 'header', offset: 64 * KIB, bytes: 80 },
    { name: 'header', offset: 128 * KIB, bytes: 80 },
    { name: 'regions', offset: 192 * KIB, bytes: 80 },
    { name: 'regions', offset: 256 * KIB, bytes: 80 },
    { name: 'log', offset: Number(bytes.readBigUInt64LE(64 * KIB + 72)), bytes: 64 },
  ];
  for (const at of [192 * KIB + 16, 192 * KIB + 48]) {
    const guid = bytes.toString('hex', at, at + 16);
    const offset = Number(bytes.readBigUInt64LE(at + 16));
    if (guid === BAT) fields.push({ name: 'bat', offset, bytes: 48 });
    if (guid !== METADATA) continue;
    fields.push({ name: 'metadata-table', offset, bytes: 32 + 6 * 32 });
    fields.push({ name: 'metadata', offset: offset + 64 * KIB, bytes: 48 });
  }
  return fields;
}

function vhdFields(bytes: Buffer): Field[] {
  const footer = { name: 'footer', offset: bytes.length - 512, bytes: 88 };
  if (bytes.readUInt32BE(bytes.length - 512 + 60) === 2) return [footer];
  const table = Number(bytes.readBigUInt64BE(512 + 16));
  return [
    footer,
    { name: 'footer-copy', offset: 0, bytes: 88 },
    { name: 'dynamic-header', offset: 512, bytes: 48 },
    { name: 'bat', offset: table, bytes: 16 },
    { name: 'bitmap', offset: bytes.readUInt32BE(table) * 512, bytes: 64 },
  ];
}

export function mutate(image: Image, random: () => number): Mutant {
  const bytes = Buffer.from(image.bytes);
  const below = (limit: number) => Math.floor(random() * limit);
  const fields: string[] = [];
  const notes: string[] = [];
  for (let count = random() < 0.8 ? 1 : 2; count > 0; count--) {
    const field = image.fields[below(image.fields.length)] as Field;
    fields.push(field.name);
    notes.push(`${field.name}@${field.offset}: ${change(bytes, field, below)}`);
  }
  const mends = random() < 0.85;
  if (mends) mend(image.format, bytes);
  return {
    image,
    bytes,
    fields,
    about: `${image.name}: ${notes.join('; ')}${mends ? '' : '; checksums left'}`,
  };
}

/** Changes one number of a field, and says how. */
function change(bytes: Buffer, field: Field, below: (limit: number) => number): string {
  const width = [1, 2, 4, 8][below(4)] ?? 1;
  const at = below(field.bytes / width) * width;
  const place = field.offset + at;
  const before = bytes.toString('hex', place, place + width);
  const kind = below(6);
  if (kind === 0) bytes.writeUInt8(bytes.readUInt8(place) ^ (1 << below(8)), place);
  else if (kind === 1) bytes.fill(below(2) === 0 ? 0 : 0xff, place, place + width);
  else if (kind === 2) bytes.writeUInt8(below(8), place + below(width));
  else if (kind === 3) bytes.writeUInt8((bytes.readUInt8(place) + 1) & 0xff, place);
  else if (kind === 4)
    bytes.copy(
      bytes,
      place,
      field.offset + below(field.bytes / width) * width,
      field.offset + field.bytes,
    );
  else bytes.writeUInt8(below(256), place + below(width));
  if (kind === 4) return `from +${at} on the field again`;
  return `+${at} ${before} -> ${bytes.toString('hex', place, place + width)}`;
}

function mend(format: Image['format'], bytes: Buffer): void {
  const sum = (place: number, length: number, at: number) => {
    bytes.writeUInt32BE(0, place + at);
    let total = 0;
    for (const byte of bytes.subarray(place, place + length)) total += byte;
    bytes.writeUInt32BE(~total >>> 0, place + at);
  };
  const crc = (place: number, length: number) => {
    bytes.writeUInt32LE(0, place + 4);
    bytes.writeUInt32LE(crc32c(bytes.subarray(place, place + length)), place + 4);
  };
  if (format === 'vhd') {
    sum(bytes.length - 512, 512, 64);
    if (bytes.toString('latin1', 0, 8) !== 'conectix') return;
    sum(0, 512, 64);
    sum(512, 1024, 36);
    return;
  }
  for (const place of [64 * KIB, 128 * KIB]) crc(place, 4 * KIB);
  for (const place of [192 * KIB, 256 * KIB]) crc(place, 64 * KIB);
}
