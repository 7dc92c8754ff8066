import { mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { blake3 } from '../../src/repository/format/keys.js';
import { packFile } from '../../src/repository/format/names.js';
import { encodeRecord } from '../../src/repository/format/record.js';
import { Repository } from '../../src/repository/repository.js';
import { encodeRoot, PAGE_BYTES } from '../../src/rescue/map.js';
import { type PackRecord, readPackTable, scanPack } from '../../src/rescue/pack.js';
import { Places } from '../../src/rescue/places.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { codeOf } from '../helpers/errors.js';
import { temporaryFolder } from '../helpers/folder.js';
import {
  encodePack,
  keysOf,
  makeContent,
  type StoredRecord,
  writePoint,
} from '../helpers/writer.js';

const RUN = 'a'.repeat(32);
const KEY = Buffer.alloc(32, 9);

async function rescueAll(folder: string, options: { skipDamaged?: boolean } = {}) {
  const target = path.join(await temporaryFolder(), 'disk.raw');
  await using rescue = await Rescue.open(folder);
  const result = await rescue.restore({ point: 'latest', to: target, ...options });
  return { ...result, content: await readFile(target), damagedPacks: rescue.damagedPacks };
}

describe('rescue', () => {
  test('restores disks of any content and size, without an index', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 5000 }),
        fc.integer({ min: 1, max: 2 ** 31 }),
        fc.constantFrom(0, 1, 512, 4095),
        async (pages, seed, tailBytes) => {
          const repository = await Repository.create(await temporaryFolder());
          const content = makeContent(pages, seed, tailBytes);
          await writePoint(repository, content);
          const restored = await rescueAll(repository.path);
          expect(restored.content.equals(content)).toBe(true);
          expect(restored.lost).toEqual([]);
        },
      ),
      { numRuns: 12 },
    );
  });

  test('leaves holes in the file', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = Buffer.alloc(40 * 1024 * 1024);
    content.fill(1, 5 * 1024 * 1024, 5 * 1024 * 1024 + PAGE_BYTES);
    await writePoint(repository, content);
    const { path: target, content: restored } = await rescueAll(repository.path);
    expect(restored.equals(content)).toBe(true);
    expect((await stat(target)).blocks * 512).toBeLessThan(1024 * 1024);
  });

  test('reports its progress to the end, and stops when told', async () => {
    const repository = await Repository.create(await temporaryFolder());
    await writePoint(repository, makeContent(6000, 5));
    const folder = await temporaryFolder();
    const seen: string[] = [];
    const onProgress = ({ phase, done, total }: { phase: string; done: number; total: number }) => {
      expect(done).toBeLessThanOrEqual(total);
      seen.push(done === total ? `${phase} done` : phase);
    };
    await using rescue = await Rescue.open(repository.path, { onProgress });
    await rescue.restore({ point: 'latest', to: path.join(folder, 'a'), onProgress });
    expect(seen).toContain('scan done');
    expect(seen.at(-1)).toBe('copy done');

    const controller = new AbortController();
    const stopped = () =>
      rescue.restore({
        point: 'latest',
        to: path.join(folder, 'b'),
        signal: controller.signal,
        onProgress: () => controller.abort(),
      });
    expect(await codeOf(stopped)).toBe('ERR_ABORTED');
    expect(await readdir(folder)).toEqual(['a']);
  });

  test('does not replace a file unless told to', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = makeContent(10, 3);
    await writePoint(repository, content);
    const to = path.join(await temporaryFolder(), 'disk.raw');
    await writeFile(to, 'precious');
    await using rescue = await Rescue.open(repository.path);
    expect(await codeOf(() => rescue.restore({ point: 'latest', to }))).toBe('ERR_EXISTS');
    expect((await readFile(to)).toString()).toBe('precious');
    await rescue.restore({ point: 'latest', to, force: true });
    expect((await readFile(to)).equals(content)).toBe(true);
  });

  test('reads packs that have lost their footers', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = makeContent(3000, 11);
    const { packs } = await writePoint(repository, content);
    for (const pack of packs) {
      const file = path.join(repository.path, packFile(pack));
      const bytes = await readFile(file);
      await writeFile(file, bytes.subarray(0, bytes.length - 4096));
    }
    const restored = await rescueAll(repository.path);
    expect(restored.content.equals(content)).toBe(true);
    expect(restored.damagedPacks.map((each) => each.pack).sort()).toEqual([...packs].sort());
  });

  test('takes another copy of a chunk where one is damaged', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = makeContent(500, 21);
    const first = await writePoint(repository, content);
    await writePoint(repository, content);
    const file = path.join(repository.path, packFile(first.packs[0] as string));
    const bytes = await readFile(file);
    bytes.fill(0, 64, 4096);
    await writeFile(file, bytes);
    const restored = await rescueAll(repository.path);
    expect(restored.content.equals(content)).toBe(true);
  });

  test('never writes wrong bytes: any flipped bit of a pack leads to the right content or to an error', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = makeContent(120, 31);
    const { packs } = await writePoint(repository, content);
    const files = packs.map((pack) => path.join(repository.path, packFile(pack)));
    const wholes = await Promise.all(files.map((file) => readFile(file)));
    let failures = 0;
    await fc.assert(
      fc.asyncProperty(fc.nat(files.length - 1), fc.nat(), fc.nat(7), async (which, place, bit) => {
        const whole = wholes[which] as Buffer;
        const damaged = Buffer.from(whole);
        const at = place % damaged.length;
        damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << bit), at);
        await writeFile(files[which] as string, damaged);
        try {
          expect((await rescueAll(repository.path)).content.equals(content)).toBe(true);
        } catch (error) {
          expect(error).toMatchObject({ name: 'IntegrityError' });
          failures++;
        } finally {
          await writeFile(files[which] as string, whole);
        }
      }),
      { numRuns: 80 },
    );
    expect(failures).toBeGreaterThan(0);
  });

  test('goes on behind damage when asked to, and lists exactly what is lost', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const content = makeContent(3000, 41);
    const { packs } = await writePoint(repository, content);
    await rm(path.join(repository.path, packFile(packs[0] as string)));
    expect(await codeOf(() => rescueAll(repository.path))).toBe('ERR_CHUNK_MISSING');
    const restored = await rescueAll(repository.path, { skipDamaged: true });
    expect(restored.lost.length).toBeGreaterThan(0);
    expect(restored.lost.length).toBeLessThan(1000);
    const expected = Buffer.from(content);
    for (const { offset, length } of restored.lost) expected.fill(0, offset, offset + length);
    expect(restored.content.equals(expected)).toBe(true);
    expect(restored.lostBytes).toBe(restored.lost.reduce((total, each) => total + each.length, 0));
  });

  test('a map whose root has another size than its point is refused', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const { point } = await writePoint(repository, makeContent(20, 3));
    const [disk] = point.disks as [(typeof point.disks)[0]];
    await repository.store.delete(`points/${point.id}`);
    await repository.seal({ ...point, disks: [{ ...disk, sizeBytes: disk.sizeBytes + 4096 }] });
    expect(await codeOf(() => rescueAll(repository.path))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('a map object that stands where a chunk belongs is refused', async () => {
    const repository = await Repository.create(await temporaryFolder());
    const { map, chunk } = keysOf(repository);
    const raw = encodeRoot({ diskBytes: 0, nodes: [] });
    const id = blake3(raw, map);
    const record: StoredRecord = { id, bytes: encodeRecord('map', map, raw), recordClass: 'map' };
    const file = path.join(repository.path, 'packs', RUN, '0000-00000000.pack');
    await mkdir(path.dirname(file));
    await writeFile(
      file,
      encodePack([record], { run: RUN, attempt: 0, sequence: 0, recordClass: 'map' }),
    );
    await using rescue = await Rescue.open(repository.path);
    expect((await rescue.content('map', id)).equals(raw)).toBe(true);
    expect(await codeOf(() => rescue.content('chunk', id))).toBe('ERR_CORRUPT_CHUNK');
    expect(await codeOf(() => rescue.content('chunk', blake3(raw, chunk)))).toBe(
      'ERR_CHUNK_MISSING',
    );
  });
});

describe('packs', () => {
  function recordsOf(count: number): StoredRecord[] {
    return Array.from({ length: count }, (_, index) => {
      const raw = makeContent(1 + (index % 5), index + 1);
      raw.writeUInt32LE(index + 1, 0);
      const id = blake3(raw, KEY);
      return { id, bytes: encodeRecord('chunk', KEY, raw), recordClass: 'chunk' };
    });
  }

  async function withFile<Result>(
    bytes: Buffer,
    use: (file: Awaited<ReturnType<typeof open>>) => Promise<Result>,
  ): Promise<Result> {
    const name = path.join(await temporaryFolder(), 'pack');
    await writeFile(name, bytes);
    const file = await open(name, 'r');
    try {
      return await use(file);
    } finally {
      await file.close();
    }
  }

  type Reader = typeof readPackTable;
  const read = (bytes: Buffer, reader: Reader) =>
    withFile(bytes, async (file) => {
      const found: string[] = [];
      await reader(file, ({ id, offset, storedLength, rawLength, recordClass }: PackRecord) => {
        const hex = id.toString('hex');
        found.push([hex, offset, storedLength, rawLength, recordClass].join());
      });
      return found;
    });
  const options = { run: RUN, attempt: 3, sequence: 77, recordClass: 'chunk' as const };

  test('the record table and the scan find the same records', async () => {
    for (const count of [1, 5, 33]) {
      const bytes = encodePack(recordsOf(count), options);
      const table = await read(bytes, readPackTable);
      expect(table).toHaveLength(count);
      expect(await read(bytes, scanPack)).toEqual(table);
    }
  });

  test('the scan finds every whole record wherever damage lies', async () => {
    const records = recordsOf(12);
    const bytes = encodePack(records, options);
    const all = await read(bytes, scanPack);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(bytes.length - 1),
        fc.integer({ min: 1, max: 300 }),
        async (at, length) => {
          const damaged = Buffer.from(bytes);
          damaged.fill(0xee, at, Math.min(at + length, damaged.length));
          const found = new Set(await read(damaged, scanPack));
          for (const row of all) {
            const offset = Number(row.split(',')[1]);
            // What is written over a header may be what stood there.
            const headerOf = (pack: Buffer) => pack.subarray(offset, offset + 64);
            expect(found.has(row)).toBe(headerOf(damaged).equals(headerOf(bytes)));
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('the scan finds records across the borders of the pieces it reads', async () => {
    const [record] = recordsOf(1) as [StoredRecord];
    for (const gap of [0, 1, 3, 4, 63, 64, 65]) {
      const lead = Buffer.alloc(1024 * 1024 - gap, 'FIR');
      const found = await read(Buffer.concat([lead, record.bytes]), scanPack);
      expect(found, `gap ${gap}`).toHaveLength(1);
      expect(found[0]).toContain(`,${lead.length},`);
    }
  });

  test('a header in the content of a damaged record does not hide the records behind it', async () => {
    const [outer, next] = recordsOf(2) as [StoredRecord, StoredRecord];
    const inner = encodeRecord('chunk', KEY, makeContent(40, 77));
    // The inner record begins in the outer one's content and says that it reaches over the next.
    const damaged = Buffer.concat([outer.bytes.subarray(0, 20), inner.subarray(0, 64), next.bytes]);
    const found = await read(Buffer.concat([damaged, Buffer.alloc(1 << 20)]), scanPack);
    expect(found.some((row) => row.startsWith(next.id.toString('hex')))).toBe(true);
  });

  test('every flipped bit of a footer is found', async () => {
    const bytes = encodePack(recordsOf(3), options);
    const footerOffset = Number(bytes.readBigUInt64LE(bytes.length - 96 + 16));
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - footerOffset - 1), fc.nat(7), async (place, bit) => {
        const damaged = Buffer.from(bytes);
        const at = footerOffset + place;
        damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << bit), at);
        expect(await codeOf(() => read(damaged, readPackTable))).toBe('ERR_CORRUPT_PACK');
      }),
      { numRuns: 300 },
    );
  });

  test('a file of any bytes is refused or read, within bounded memory', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), async (bytes) => {
        const file = Buffer.alloc(8192);
        file.set(bytes.subarray(0, 8192));
        expect(await codeOf(() => read(file, readPackTable))).toBe('ERR_CORRUPT_PACK');
        expect(await read(file, scanPack)).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });
});

describe('the table of places', () => {
  test('finds every id that was added, all places of each, and no other', () => {
    const places = new Places();
    const idOf = (number: number) => blake3(Buffer.from(String(number)));
    const count = 20_000;
    for (let number = 0; number < count; number++) {
      const place = { pack: number % 7, offset: number, storedLength: 1, rawLength: 2 };
      places.add(idOf(number), place);
      if (number % 10 === 0) places.add(idOf(number), { ...place, pack: 9 });
    }
    expect(places.count).toBe(count * 1.1);
    for (let number = 0; number < count; number += 3) {
      const found = [...places.find(idOf(number))];
      expect(found.map((place) => place.offset)).toEqual(
        number % 10 === 0 ? [number, number] : [number],
      );
      if (number % 10 === 0) expect(found.map((place) => place.pack)).toEqual([number % 7, 9]);
    }
    expect([...places.find(idOf(count + 1))]).toEqual([]);
  });

  test('ids that collide in every bit the table looks at are still told apart', () => {
    const places = new Places();
    const idOf = (number: number) => {
      const id = Buffer.alloc(32);
      id.writeUInt32LE(number, 28);
      return id;
    };
    for (let number = 0; number < 2000; number++) {
      places.add(idOf(number), { pack: 0, offset: number, storedLength: 0, rawLength: 0 });
    }
    for (let number = 0; number < 2000; number += 99) {
      expect([...places.find(idOf(number))].map((place) => place.offset)).toEqual([number]);
    }
  });
});
