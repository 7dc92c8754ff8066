/**
 * Backups that leave unused blocks out, of disks with real file systems: the same files come back, no more is read than the file systems use,
 * and what is unclear is copied. What is believed of a file system and what not is tested block by block in native/used.
 */

import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { labVm } from '../../src/hosts/lab/lab.js';
import { LabHost } from '../../src/hosts/lab/lab-host.js';
import { backup } from '../../src/jobs/backup.js';
import { copyDisk } from '../../src/jobs/copy.js';
import { restore } from '../../src/jobs/restore.js';
import { Journal } from '../../src/jobs/runs/journal.js';
import { VM_BACKUP_DEFAULTS, type VmBackupOptions } from '../../src/jobs/runs/types.js';
import { backupVms } from '../../src/jobs/runs/vm-backup.js';
import { findUnused } from '../../src/jobs/unused.js';
import { verify } from '../../src/jobs/verify.js';
import { newRepository } from '../helpers/disks.js';
import {
  checkExt4,
  cutOut,
  ext4Content,
  ext4Use,
  inExt4,
  makeExt4,
  makeNtfs,
  makePartitionedDisk,
  makeTree,
  missingPrograms,
  ntfsContent,
  run,
} from '../helpers/file-systems.js';
import { suiteFolder, temporaryFolder } from '../helpers/folder.js';
import { temporaryLab } from '../hosts/lab/lab-fixture.js';

const MIB = 2 ** 20;
const PAGE = 4096;
const NEEDED = ['mke2fs', 'debugfs', 'e2fsck', 'dumpe2fs'];
const withoutExt4 = missingPrograms(...NEEDED);
const withoutNtfs = missingPrograms(...NEEDED, 'mkntfs', 'ntfscp', 'ntfsls', 'ntfscat');
const folder = suiteFolder();
const at = (name: string) => path.join(folder, name);
const ext4 = at('ext4.raw');
const EXT4_BYTES = 96 * MIB;
let names: string[] = [];

/** 96 MiB of ext4, filled with 56 MiB of files of which every other one was deleted again. */
beforeAll(async () => {
  if (withoutExt4 !== undefined) return;
  names = await makeTree(at('tree'), 56 * MIB);
  await makeExt4(ext4, EXT4_BYTES, at('tree'));
  const deleted = names.filter((_, index) => index % 2 === 0);
  await inExt4(ext4, ...deleted.map((name) => `rm /${name}`));
  // debugfs leaves the groups' counts to the checker, as a crashed kernel would not.
  await checkExt4(ext4);
});

/** The pages in which the files differ, all of which must be zero in the second. */
async function blankedPages(source: string, restored: string): Promise<number> {
  const [before, after] = [await readFile(source), await readFile(restored)];
  expect(after.length).toBe(before.length);
  const zero = Buffer.alloc(PAGE);
  let blanked = 0;
  for (let offset = 0; offset < before.length; offset += PAGE) {
    const page = after.subarray(offset, offset + PAGE);
    if (page.equals(before.subarray(offset, offset + PAGE))) continue;
    expect(page.equals(zero.subarray(0, page.length))).toBe(true);
    blanked += 1;
  }
  return blanked;
}

describe.skipIf(withoutExt4 !== undefined)(`a disk with ext4 (${withoutExt4 ?? 'here'})`, () => {
  test('costs no more than the file system uses, and has the same files after a restore', async () => {
    const repository = await newRepository();
    const { disks, summary, point } = await backup(repository, { disks: [ext4], unused: 'skip' });
    const { usedBytes, freeBytes } = await ext4Use(ext4);
    expect(freeBytes).toBeGreaterThan(EXT4_BYTES / 2);
    expect(summary.readBytes).toBeLessThanOrEqual(1.05 * usedBytes);
    expect(summary.skippedBytes).toBeGreaterThan(freeBytes - MIB);
    expect(summary.dataBytes + summary.skippedBytes).toBeLessThanOrEqual(EXT4_BYTES);
    expect(disks[0]?.unused).toMatchObject({
      quiesced: false,
      keepShadowCopies: true,
      skipPageFiles: true,
      skippedBytes: summary.skippedBytes,
      partitions: [{ offset: 0, fileSystem: 'ext4', sizeBytes: EXT4_BYTES, usedBytes }],
    });
    expect(await repository.resolvePoint('latest')).toEqual(point);
    const to = path.join(await temporaryFolder(), 'restored.raw');
    await restore(repository, { point: 'latest', to });
    await checkExt4(to);
    const content = await ext4Content(ext4);
    expect(content.length).toBeGreaterThan(20);
    expect(await ext4Content(to)).toEqual(content);
    // Something was there to be left out.
    expect(await blankedPages(ext4, to)).toBeGreaterThan((20 * MIB) / PAGE);
    // What was kept whole has it all.
    const whole = await backup(repository, { disks: [ext4] });
    expect(whole.summary.readBytes).toBeGreaterThan(summary.readBytes + 20 * MIB);
    expect(whole.summary.skippedBytes).toBe(0);
    expect(whole.point?.disks[0]).not.toHaveProperty('unused');
  });

  test('is compared with its source through the same eyes', async () => {
    const repository = await newRepository();
    const { summary, point } = await backup(repository, { disks: [ext4], unused: 'skip' });
    const image = path.join(await temporaryFolder(), 'copy.vhdx');
    await copyDisk(ext4, image);
    const points = [point?.id ?? ''];
    for (const source of [ext4, image]) {
      const result = await verify(repository, { points, source: [source] });
      expect(result.problems).toEqual([]);
      expect(result.skippedBytes).toBe(summary.skippedBytes);
    }
    const restored = path.join(await temporaryFolder(), 'restored.raw');
    await restore(repository, { point: 'latest', to: restored });
    expect((await verify(repository, { points, source: [restored] })).problems).toEqual([]);
    // A file that is in use and differs is found all the same.
    const changed = await open(restored, 'r+');
    const place = await placeOfFile(ext4);
    await changed.write(Buffer.from('changed'), 0, 7, place);
    await changed.close();
    const { problems } = await verify(repository, { points, source: [restored] });
    expect(problems.map(({ code }) => code)).toEqual(['ERR_VERIFY_MISMATCH']);
    const whole = await backup(repository, { disks: [ext4] });
    const compared = await verify(repository, { points: [whole.point?.id ?? ''], source: [ext4] });
    expect(compared).not.toHaveProperty('skippedBytes');
    expect(compared.problems).toEqual([]);
  });

  test('gives an incremental backup the root of a full one when files come and go', async () => {
    const repository = await newRepository();
    const image = path.join(await temporaryFolder(), 'disk.raw');
    await copyDisk(ext4, image);
    let last = await backup(repository, { disks: [image], unused: 'skip' });
    const kept = names.filter((_, index) => index % 2 === 1);
    for (const step of [0, 1, 2]) {
      const before = await readFile(image);
      const source = at(`tree/${names[step * 2]}`);
      const gone = kept.filter((_, index) => index % 7 === step);
      await inExt4(image, `write ${source} new${step}`, ...gone.map((name) => `rm /${name}`));
      await checkExt4(image);
      const ranges = changedPages(before, await readFile(image));
      const unused = step === 1 ? 'keep' : 'skip';
      const base = {
        point: last.point?.id ?? '',
        root: last.disks[0]?.root ?? '',
        skipsUnused: last.disks[0]?.unused !== undefined,
        ranges,
      };
      const full = await backup(repository, { disks: [image], unused, dryRun: true });
      last = await backup(repository, { disks: [{ path: image, base }], unused });
      expect(last.disks[0]?.baseRefused).toBeUndefined();
      expect(last.disks[0]?.root).toBe(full.disks[0]?.root);
    }
    const to = path.join(await temporaryFolder(), 'restored.raw');
    await restore(repository, { point: 'latest', to });
    await checkExt4(to);
    expect(await ext4Content(to)).toEqual(await ext4Content(image));
  });

  test('that is dirty is copied whole, and the result says why', async () => {
    const repository = await newRepository();
    const image = path.join(await temporaryFolder(), 'dirty.raw');
    await copyDisk(ext4, image);
    await inExt4(image, 'feature needs_recovery');
    const dry = await backup(repository, { disks: [image], unused: 'skip', dryRun: true });
    expect(dry.summary.skippedBytes).toBe(0);
    expect(dry.disks[0]?.unused).toMatchObject({
      skippedBytes: 0,
      partitions: [{ fileSystem: 'ext4', skippedBytes: 0, reasonCode: 'dirty' }],
    });
    expect(dry.disks[0]?.unused?.partitions[0]?.reason).toMatch(/journal|clean/);
    const whole = await backup(repository, { disks: [image], dryRun: true });
    expect(dry.disks[0]?.root).toBe(whole.disks[0]?.root);
  });

  test('whose own accounts do not agree is copied whole', async () => {
    const repository = await newRepository();
    const image = path.join(await temporaryFolder(), 'lie.raw');
    await copyDisk(ext4, image);
    const file = await open(image, 'r+');
    // The first group's count of free blocks, in the block after the superblock's.
    await file.write(Buffer.from([0xff, 0x01, 0xff]), 0, 3, PAGE + 12);
    await file.close();
    const { disks, summary } = await backup(repository, { disks: [image], unused: 'skip' });
    expect(summary.skippedBytes).toBe(0);
    expect(disks[0]?.unused?.partitions[0]?.reasonCode).toBe('inconsistent');
    const whole = await backup(repository, { disks: [image], dryRun: true });
    expect(disks[0]?.root).toBe(whole.disks[0]?.root);
  });

  test('says beforehand what would be left out', async () => {
    const repository = await newRepository();
    const { disks } = await backup(repository, { disks: [ext4], unused: 'skip', dryRun: true });
    expect(disks[0]?.unused?.skippedBytes).toBeGreaterThan(EXT4_BYTES / 2);
    expect(await findUnused(ext4)).toEqual(disks[0]?.unused);
    const whole = await findUnused(ext4, { signal: AbortSignal.abort() }).catch(({ code }) => code);
    expect(whole).toBe('ERR_ABORTED');
  });

  test('of a machine is skipped from by default, and kept whole on demand', async () => {
    const lab = await temporaryLab([{ name: 'web', sizeBytes: EXT4_BYTES }], { start: false });
    const [disk] = (await labVm(lab, 'web')).disks;
    await copyDisk(ext4, disk?.layers[0] ?? '', { force: true });
    const repository = await newRepository();
    const journal = Journal.open(await temporaryFolder());
    const options = {
      ...VM_BACKUP_DEFAULTS,
      vms: undefined,
      excludedDisks: [],
      map: [],
      space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
    } satisfies VmBackupOptions;
    try {
      const skipped = await backupVms(repository, new LabHost(lab), journal, options);
      const [first] = skipped.vms;
      expect(first?.error).toBeUndefined();
      // The machine was off: the file system is believed because it is clean, not because a guest said so.
      expect(first?.point?.disks[0]?.unused).toMatchObject({
        quiesced: false,
        skippedBytes: (await findUnused(ext4)).skippedBytes,
      });
      const kept = await backupVms(repository, new LabHost(lab), journal, {
        ...options,
        unused: 'keep',
      });
      expect(kept.vms[0]?.point?.disks[0]).not.toHaveProperty('unused');
      expect(kept.vms[0]?.summary?.skippedBytes).toBe(0);
    } finally {
      journal.close();
    }
  });
});

describe.skipIf(withoutNtfs !== undefined)(`a disk with a table (${withoutNtfs ?? 'here'})`, () => {
  test('is skipped from in each of its partitions', async () => {
    const ntfs = at('ntfs.raw');
    const sources = names.filter((_, index) => index % 5 === 0).map((name) => at(`tree/${name}`));
    const NTFS_BYTES = 64 * MIB;
    await makeNtfs(ntfs, NTFS_BYTES, sources);
    const disk = at('disk.raw');
    const starts = await makePartitionedDisk(disk, [
      { type: 0x83, file: ext4 },
      { type: 0x07, file: ntfs },
    ]);
    const repository = await newRepository();
    const { summary, point } = await backup(repository, { disks: [disk], unused: 'skip' });
    const partitions = point?.disks[0]?.unused?.partitions ?? [];
    expect(partitions).toMatchObject([
      { offset: starts[0], fileSystem: 'ext4', type: 'mbr 83' },
      { offset: starts[1], fileSystem: 'ntfs', type: 'mbr 07' },
    ]);
    for (const partition of partitions) {
      expect(partition.reasonCode).toBeUndefined();
      expect(partition.skippedBytes).toBeGreaterThan(20 * MIB);
    }
    const used = partitions.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
    expect(summary.readBytes).toBeLessThanOrEqual(1.05 * used);
    const restored = path.join(await temporaryFolder(), 'restored.raw');
    await restore(repository, { point: 'latest', to: restored });
    const [first, second] = [`${restored}.ext4`, `${restored}.ntfs`];
    await cutOut(restored, starts[0] ?? 0, EXT4_BYTES, first);
    await cutOut(restored, starts[1] ?? 0, NTFS_BYTES, second);
    await checkExt4(first);
    expect(await ext4Content(first)).toEqual(await ext4Content(ext4));
    const content = await ntfsContent(ntfs);
    // ntfsls does not name the system's own files.
    expect(content).toHaveLength(sources.length);
    expect(await ntfsContent(second)).toEqual(content);
    await blankedPages(disk, restored);
    const points = [point?.id ?? ''];
    expect((await verify(repository, { points, source: [disk] })).problems).toEqual([]);
  });
});

test('a disk without a file system that is known is copied whole, and says so', async () => {
  const repository = await newRepository();
  const disk = path.join(await temporaryFolder(), 'noise.raw');
  const file = await open(disk, 'w');
  await file.write(Buffer.alloc(MIB, 'no file system'));
  await file.close();
  const { disks } = await backup(repository, { disks: [disk], unused: 'skip' });
  expect(disks[0]?.unused).toMatchObject({
    skippedBytes: 0,
    partitions: [{ reasonCode: 'unknown-file-system' }],
  });
});

test('a running machine is believed because its guest froze', async () => {
  const lab = await temporaryLab([{ name: 'web' }]);
  const repository = await newRepository();
  const journal = Journal.open(await temporaryFolder());
  try {
    for (const [wanted, quiesced] of [
      ['application', true],
      ['crash', false],
    ] as const) {
      const { vms } = await backupVms(repository, new LabHost(lab), journal, {
        ...VM_BACKUP_DEFAULTS,
        consistency: { wanted, required: 'crash' },
        vms: undefined,
        excludedDisks: [],
        map: [],
        space: { ...VM_BACKUP_DEFAULTS.space, minimumFreeBytes: 0 },
      });
      expect(vms[0]?.error).toBeUndefined();
      expect(vms[0]?.point?.disks[0]?.unused).toMatchObject({ quiesced });
      // A configuration file has no file system.
      const files = vms[0]?.point?.disks.filter((disk) => disk.fileBytes !== undefined) ?? [];
      expect(files.length).toBeGreaterThan(0);
      for (const each of files) expect(each).not.toHaveProperty('unused');
    }
  } finally {
    journal.close();
  }
});

/** Where the first block of a file lies that is in use. */
async function placeOfFile(image: string): Promise<number> {
  const name = names.filter((_, index) => index % 2 === 1).at(4);
  const blocks = await run('debugfs', '-R', `blocks /${name}`, image);
  return Number(blocks.trim().split(/\s+/)[0]) * PAGE;
}

/** What a tracker would report: every page that differs. */
function changedPages(before: Buffer, after: Buffer): [number, number][] {
  const ranges: [number, number][] = [];
  for (let offset = 0; offset < before.length; offset += PAGE) {
    const page = before.subarray(offset, offset + PAGE);
    if (!page.equals(after.subarray(offset, offset + PAGE))) ranges.push([offset, PAGE]);
  }
  return ranges;
}
