import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { openDisk, openPoint } from '../../src/jobs/disk.js';
import { imageOf, newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { makeContent } from '../helpers/writer.js';

async function bytesOf(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

describe('an open disk', () => {
  test('streams its content, whole or in part', async () => {
    const content = makeContent(3000, 17);
    await using disk = await openDisk(await imageOf(content, 'a.vhdx', {}));
    expect(disk.sizeBytes).toBe(content.length);
    expect((await bytesOf(disk.readable())).equals(content)).toBe(true);
    const part = await bytesOf(disk.readable({ start: 4_000_001, end: 9_999_999 }));
    expect(part.equals(content.subarray(4_000_001, 9_999_999))).toBe(true);
    expect(await bytesOf(disk.readable({ start: 5, end: 5 }))).toHaveLength(0);
  });

  test('reads any range, and refuses one that is not inside', async () => {
    const content = makeContent(300, 18, 512);
    await using disk = await openDisk(await rawDisk(content));
    await fc.assert(
      fc.asyncProperty(fc.nat(content.length), fc.nat(200_000), async (offset, length) => {
        const inside = Math.min(length, content.length - offset);
        const bytes = await disk.read(offset, inside);
        expect(content.subarray(offset, offset + inside).equals(bytes)).toBe(true);
      }),
      { numRuns: 40 },
    );
    for (const [offset, length] of [
      [0, content.length + 1],
      [-1, 1],
      [0.5, 1],
      [content.length, 1],
    ] as const) {
      expect(await codeOf(() => disk.read(offset, length))).toBe('ERR_INVALID_ARGUMENT');
    }
  });

  test('a stream stops when its signal fires', async () => {
    const controller = new AbortController();
    await using disk = await openDisk(await rawDisk(makeContent(3000, 19)));
    const reader = disk.readable({ signal: controller.signal }).getReader();
    await reader.read();
    controller.abort();
    const rest = async () => {
      while (!(await reader.read()).done);
    };
    expect(await codeOf(rest)).toBe('ERR_ABORTED');
  });

  test('may be closed twice; reading it afterwards is an error', async () => {
    const disk = await openDisk(await rawDisk(makeContent(3, 1)));
    disk.close();
    disk.close();
    await expect(disk.read(0, 1)).rejects.toMatchObject({ name: expect.stringMatching(/Error$/) });
  });

  test("a point's disk reads as its source did, without a restore", async () => {
    const repository = await newRepository();
    const content = makeContent(4000, 20, 512);
    await backup(repository, { disks: [await rawDisk(content, 'web.raw')] });
    await using disk = await openPoint(repository, 'latest:web');
    expect((await bytesOf(disk.readable())).equals(content)).toBe(true);
  });

  test('of a point with several disks one has to be named', async () => {
    const repository = await newRepository();
    const content = makeContent(40, 21);
    const disks = [await rawDisk(content, 'a.raw'), await rawDisk(makeContent(5, 2), 'b.raw')];
    await backup(repository, { disks });
    expect(await codeOf(() => openPoint(repository, 'latest'))).toBe('ERR_INVALID_ARGUMENT');
    await using disk = await openPoint(repository, 'latest', 'a');
    expect((await bytesOf(disk.readable())).equals(content)).toBe(true);
  });
});
