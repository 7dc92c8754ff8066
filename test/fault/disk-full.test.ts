/**
 * Goal: a target that runs full costs the run and nothing else. Method: a real file system of a few MiB, in memory, which only root
 * may mount; elsewhere the tests say so and skip.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { backup } from '../../src/jobs/backup.js';
import { copyDisk } from '../../src/jobs/copy.js';
import { restore } from '../../src/jobs/restore.js';
import { verify } from '../../src/jobs/verify.js';
import { Repository } from '../../src/repository/repository.js';
import { DirectoryStore } from '../../src/repository/stores/directory.js';
import { Rescue } from '../../src/rescue/rescue.js';
import { newRepository, rawDisk } from '../helpers/disks.js';
import { codeOf } from '../helpers/errors.js';
import { makeContent, randomContent } from '../helpers/writer.js';

const MIB = 1024 * 1024;
const mounted: string[] = [];

function mountSmall(megabytes: number): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'firn-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder], {
    stdio: 'pipe',
  });
  mounted.push(folder);
  return folder;
}

function unmountAll(): void {
  for (const folder of mounted.splice(0)) {
    execFileSync('umount', ['-l', folder]);
    rmSync(folder, { recursive: true });
  }
}

function canMount(): boolean {
  try {
    mountSmall(1);
    return true;
  } catch {
    return false;
  } finally {
    unmountAll();
  }
}

const mountable = canMount();
afterAll(unmountAll);

describe.skipIf(!mountable)(
  'a full disk (needs the right to mount a file system in memory)',
  () => {
    test('fails a backup with its code; what was sealed stays whole, and with space it works again', async () => {
      const folder = mountSmall(24);
      const repository = await Repository.create(path.join(folder, 'repository'));
      const small = randomContent(4 * MIB);
      const { point } = await backup(repository, { disks: [await rawDisk(small)], vm: 'small' });
      const big = await rawDisk(randomContent(60 * MIB));
      await expect(backup(repository, { disks: [big] })).rejects.toMatchObject({
        code: 'ERR_DISK_FULL',
        retryable: true,
      });
      expect((await repository.points()).map((each) => each.id)).toEqual([point?.id]);
      expect((await verify(repository, { readData: true })).problems).toEqual([]);
      const to = path.join(path.dirname(big), 'small.raw');
      await restore(repository, { point: 'latest', to });
      expect((await readFile(to)).equals(small)).toBe(true);

      execFileSync('mount', ['-o', 'remount,size=200m', folder]);
      await backup(repository, { disks: [big], vm: 'big' });
      expect((await verify(repository, { readData: true })).problems).toEqual([]);
    });

    test('fails a put to the store, leaves the name free and no rest behind', async () => {
      const folder = mountSmall(2);
      const store = new DirectoryStore(folder);
      await store.prepare(['points']);
      await writeFile(path.join(folder, 'ballast'), Buffer.alloc(MIB));
      expect(await codeOf(() => store.putNew('points/a', Buffer.alloc(3 * MIB, 1)))).toBe(
        'ERR_DISK_FULL',
      );
      expect(await readdir(path.join(folder, 'points'))).toEqual([]);
      await rm(path.join(folder, 'ballast'));
      await store.putNew('points/a', Buffer.alloc(1000, 1));
    });

    test('fails a restore, a copy and a rescue, and no image is left that looks whole', async () => {
      const folder = mountSmall(8);
      const repository = await newRepository();
      const disk = await rawDisk(randomContent(30 * MIB));
      await backup(repository, { disks: [disk] });
      const to = path.join(folder, 'image.raw');
      await using rescue = await Rescue.open(repository.path);
      const attempts = [
        () => restore(repository, { point: 'latest', to }),
        () => copyDisk(disk, to),
        () => rescue.restore({ point: 'latest', to }),
      ];
      for (const attempt of attempts) {
        expect(await codeOf(attempt)).toBe('ERR_DISK_FULL');
        expect(await readdir(folder)).toEqual([]);
      }
      const small = await rawDisk(makeContent(100, 2));
      await copyDisk(small, to);
    });
  },
);
