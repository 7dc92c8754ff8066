/**
 * Goal: where Firn and another program both take an image, they read the same bytes of it. Method: images with fields changed by a seed are given
 * to all readers that are installed, and contents are compared. Differences that are known are named in EXPLAINED, with why; any other fails.
 *
 * FIRN_MUTANTS=COUNT or COUNT:SEED looks at more of them, or at others.
 */

import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { seededRandom } from '../helpers/crash-states.js';
import { sha256 } from '../helpers/disks.js';
import { suiteFolder } from '../helpers/folder.js';
import { randomContent } from '../helpers/writer.js';
import { BLOCK_BYTES, DISK_BYTES, type Mutant, makeImages, mutate } from './mutants.js';
import { installedReaders, isRead, type Reader, type Reading } from './readers.js';

const [COUNT = 200, SEED = 1] = (process.env.FIRN_MUTANTS ?? '200').split(':').map(Number);

const folder = suiteFolder();
const readers = await installedReaders();
afterAll(() => {
  for (const reader of readers) reader.close?.();
});

interface Case {
  mutant: Mutant;
  reader: Reader['name'];
  firn: Exclude<Reading, { refused: string }>;
  other: Exclude<Reading, { refused: string }>;
}

/** docs/security.md says more of these. Each is looked for in the bytes of the image, so that nothing else hides behind it. */
const EXPLAINED: readonly { name: string; holds: (difference: Case) => boolean }[] = [
  {
    // Its list of creators whose size it believes; of all others it takes cylinders x heads x sectors.
    name: 'QEMU takes a VHD to be as large as its geometry',
    holds: ({ mutant: { image, bytes }, reader, firn, other }) => {
      if (reader !== 'qemu' || image.format !== 'vhd') return false;
      const footer = bytes.subarray(-512);
      const geometry = footer.readUInt16BE(56) * footer.readUInt8(58) * footer.readUInt8(59) * 512;
      return other.bytes === geometry && isBeginning(other, firn);
    },
  },
  {
    name: 'libvhdi takes a VHD to be as large as it was at first',
    holds: ({ mutant: { image, bytes }, reader, firn, other }) =>
      reader === 'libvhdi' &&
      image.format === 'vhd' &&
      BigInt(other.bytes) === bytes.subarray(-512).readBigUInt64BE(40) &&
      isBeginning(other, firn),
  },
  {
    name: 'libvhdi takes a zero block of a differencing VHDX from the parent',
    holds: ({ mutant, reader }) =>
      reader === 'libvhdi' &&
      blockStates(mutant.image, mutant.bytes).some((state) => state >= 1 && state <= 3),
  },
  {
    name: 'libvhdi goes by the sectors of a block that the VHDX does not have any more',
    holds: ({ mutant: { image, bytes }, reader }) => {
      const before = blockStates(image, image.bytes);
      const now = blockStates(image, bytes);
      return reader === 'libvhdi' && before.some((state, i) => state === 7 && (now[i] ?? 0) < 6);
    },
  },
];

/** One of the two is the other's beginning, as far as contents were kept. */
function isBeginning(a: Case['firn'], b: Case['firn']): boolean {
  const [short, long] = a.bytes < b.bytes ? [a, b] : [b, a];
  if (long.content === undefined) return true;
  return sha256(long.content.subarray(0, short.bytes)) === short.hash;
}

/** MS-VHDX 2.5.1.1, of a differencing disk: 0 is not there, 1 to 3 are zeros, 6 is there, 7 is there in part. None of other images. */
function blockStates(image: Mutant['image'], bytes: Buffer): number[] {
  const bat = image.fields.find(({ name }) => name === 'bat');
  if (bat === undefined || image.parent === undefined) return [];
  const blocks = Array.from({ length: DISK_BYTES / BLOCK_BYTES }, (_, index) => index * 8);
  return blocks.map((at) => bytes.readUInt8(bat.offset + at) & 7);
}

/** Half holes, the rest bytes that do not repeat. */
function contentOfDisk(): Buffer {
  const content = Buffer.alloc(DISK_BYTES);
  randomContent(DISK_BYTES / 2).copy(content, DISK_BYTES / 8);
  return content;
}

describe.skipIf(readers.length < 2)('mutated images', () => {
  test(`${COUNT} of them from seed ${SEED} read alike wherever Firn and another reader take them`, async () => {
    const images = await makeImages(folder, contentOfDisk());
    const random = seededRandom(SEED);
    const mutants = Array.from({ length: COUNT }, (_, index) => {
      const image = images[index % images.length];
      if (image === undefined) throw new Error('there are no images');
      return mutate(image, random);
    });
    const tally = { firn: 0, nobody: 0, compared: 0, equal: 0 };
    const explained = new Map<string, number>();
    const unexplained: string[] = [];
    const work = async (worker: number) => {
      const place = path.join(folder, `worker-${worker}`);
      await mkdir(place);
      for (let mutant = mutants.pop(); mutant !== undefined; mutant = mutants.pop()) {
        const { image, bytes } = mutant;
        const file = path.join(
          image.parent === undefined ? place : folder,
          `${worker}-m.${image.format}`,
        );
        await writeFile(file, bytes);
        const readings = new Map<Reader['name'], Reading>();
        const read = async (reader: Reader) => {
          readings.set(reader.name, await reader.read(file, image.format, image.parent));
        };
        await Promise.all(readers.map(read));
        await rm(file);
        const firn = readings.get('firn') as Reading;
        if (isRead(firn)) tally.firn++;
        if (![...readings.values()].some(isRead)) tally.nobody++;
        for (const [reader, other] of readings) {
          if (reader === 'firn' || !isRead(firn) || !isRead(other)) continue;
          tally.compared++;
          if (other.hash === firn.hash) {
            tally.equal++;
            continue;
          }
          const difference = { mutant, reader, firn, other };
          const why = EXPLAINED.find(({ holds }) => holds(difference))?.name;
          if (why === undefined)
            unexplained.push(`${reader} ${other.bytes} of ${firn.bytes} | ${mutant.about}`);
          else explained.set(why, (explained.get(why) ?? 0) + 1);
        }
      }
    };
    await work(0);
    console.log(
      JSON.stringify({
        readers: readers.map(({ name }) => name),
        ...tally,
        ...Object.fromEntries(explained),
      }),
    );
    expect(unexplained).toEqual([]);
    expect(tally.compared).toBeGreaterThan(COUNT / 4);
  }, 1_800_000);
});
