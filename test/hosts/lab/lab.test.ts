/** Goal: labs are made as asked, started, stopped and told of. Method: the management's own functions on real folders and processes. */

import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { loadEngine } from '../../../src/engine/engine.js';
import {
  checkGuestImages,
  createLab,
  labStatus,
  labVm,
  mergeCheckpoint,
  setFault,
  startLab,
  userCheckpoint,
} from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { MIB } from './images.js';
import { isWriting, makeLab, SMALL, stopInPeace, temporaryLab, until } from './lab-fixture.js';

test('a machine is made with the disks, the sizes and the data that were asked for', async () => {
  const lab = path.join(await temporaryFolder(), 'lab');
  const status = await createLab(lab, {
    vms: [
      { name: 'plain' },
      {
        name: 'big sectors',
        disks: 3,
        sizeBytes: 96 * MIB,
        dataBytes: 8 * MIB,
        sectorBytes: 4096,
        blockBytes: MIB,
        compressible: 1,
      },
    ],
  });
  expect(status.vms.map((vm) => [vm.name, vm.state, vm.disks.length])).toEqual([
    ['big sectors', 'off', 3],
    ['plain', 'off', 1],
  ]);
  const [big, plain] = status.vms;
  expect(plain?.disks[0]?.sizeBytes).toBe(1024 * MIB);
  expect(plain?.disks[0]?.fileBytes).toBeGreaterThan(96 * MIB);
  expect(plain?.disks[0]?.fileBytes).toBeLessThan(140 * MIB);
  const images = big?.disks.map((disk) => disk.layers[0] ?? '') ?? [];
  expect(await checkGuestImages(images)).toMatchObject({ records: 3 * 128, problems: [] });
  const { layers } = await loadEngine().inspectDisk(images[0] ?? '', {
    parentFolders: [],
    parents: [],
    format: '',
  });
  expect(layers[0]?.identity).toMatchObject({
    sizeBytes: 96 * MIB,
    logicalSectorBytes: 4096,
    blockBytes: MIB,
    kind: 'dynamic',
  });
});

test('names that are hard on a file system or a shell are kept as they are', async () => {
  const names = [
    'a b',
    `quote " and ' & $(x) \`y\``,
    'über/Straße\\日本',
    '..',
    'CON:',
    '-rf *',
    'a_b',
    'a?b',
    'x'.repeat(200),
  ];
  const lab = await temporaryLab(
    names.map((name) => ({ name, sizeBytes: 16 * MIB, dataBytes: MIB, blockBytes: MIB })),
    { start: false },
  );
  const status = await labStatus(lab);
  expect(status.vms.map((vm) => vm.name).sort()).toEqual([...names].sort());
  expect(new Set(status.vms.map((vm) => vm.folder)).size).toBe(names.length);
  for (const vm of status.vms) expect(path.dirname(vm.folder)).toBe(lab);
  const hard = names.slice(0, 4);
  expect(await startLab(lab, hard)).toEqual(hard.map((name) => ({ name })));
  for (const name of hard) {
    expect(await isWriting(lab, name)).toBe(true);
    const checkpoint = await userCheckpoint(lab, name);
    expect((await labVm(lab, name)).disks[0]?.layers).toHaveLength(2);
    await mergeCheckpoint(lab, name, checkpoint);
    expect((await labVm(lab, name)).disks[0]?.layers).toHaveLength(1);
  }
});

test('what cannot be made is refused before anything is there', async () => {
  const lab = path.join(await temporaryFolder(), 'lab');
  const expected = { code: 'ERR_INVALID_ARGUMENT' };
  for (const vm of [
    { name: '' },
    { name: 'x', disks: 0 },
    { name: 'x', disks: 9 },
    { name: 'x', sectorBytes: 1024 },
    { name: 'x', compressible: 2 },
    { name: 'x', sizeBytes: 64 * MIB, dataBytes: 64 * MIB },
    { name: 'x', sizeBytes: 1000 },
    { name: 'x', writesPerSecond: -1 },
  ]) {
    await expect(createLab(lab, { vms: [vm] }), JSON.stringify(vm)).rejects.toMatchObject(expected);
  }
  await expect(createLab(lab, { vms: [] })).rejects.toMatchObject(expected);
  const twins = { vms: [{ name: 'x' }, { name: 'x' }] };
  await expect(createLab(lab, twins)).rejects.toMatchObject(expected);
  await expect(stat(lab)).rejects.toThrow('ENOENT');
  await mkdir(lab);
  await writeFile(path.join(lab, 'mine'), '');
  await expect(createLab(lab, { vms: [{ name: 'x' }] })).rejects.toMatchObject({
    code: 'ERR_EXISTS',
  });
  expect(await readdir(lab)).toEqual(['mine']);
});

test('machines are started once, stopped cleanly, and named when they are not there', async () => {
  const lab = await temporaryLab([{ name: 'one' }, { name: 'two' }], { start: false });
  expect(await startLab(lab, ['one'])).toEqual([{ name: 'one' }]);
  const { pid } = await labVm(lab, 'one');
  expect(await startLab(lab)).toEqual([{ name: 'one' }, { name: 'two' }]);
  expect((await labVm(lab, 'one')).pid).toBe(pid);
  expect(await stopInPeace(lab)).toEqual([{ name: 'one' }, { name: 'two' }]);
  expect(await stopInPeace(lab)).toEqual([{ name: 'one' }, { name: 'two' }]);
  for (const vm of (await labStatus(lab)).vms) {
    expect([vm.state, vm.unclean, vm.pid]).toEqual(['off', false, undefined]);
    const verdict = await checkGuestImages(vm.disks.map((disk) => disk.layers[0] ?? ''));
    expect(verdict).toMatchObject({ recoveryNeeded: false, applicationClean: true, problems: [] });
  }
  const missing = { code: 'ERR_VM_NOT_FOUND' };
  await expect(startLab(lab, ['three'])).rejects.toMatchObject(missing);
  await expect(labVm(lab, 'three')).rejects.toMatchObject(missing);
  await expect(setFault(lab, { name: 'merge-fails', vm: 'three' })).rejects.toMatchObject(missing);
  await expect(mergeCheckpoint(lab, 'one', 'none')).rejects.toMatchObject({
    code: 'ERR_NOT_FOUND',
  });
});

test('a machine that cannot start says why', async () => {
  const lab = await temporaryLab([{ name: 'vm' }], { start: false });
  const { disks } = await labVm(lab, 'vm');
  await writeFile(disks[0]?.layers[0] ?? '', 'no image');
  const [outcome] = await startLab(lab);
  expect(outcome?.error?.code).toBe('ERR_HOST_FAILED');
  expect(outcome?.error?.message).toContain('not a VHDX');
});

test.skipIf(process.platform === 'win32')(
  'a machine whose process does not answer hides no other',
  async () => {
    const lab = await temporaryLab([{ name: 'good' }, { name: 'stuck' }]);
    const { pid = 0 } = await labVm(lab, 'stuck');
    process.kill(pid, 'SIGSTOP');
    try {
      const vms = await new LabHost(lab).listVms();
      expect(vms.map((vm) => [vm.name, vm.state, vm.reachable])).toEqual([
        ['good', 'running', 'application'],
        ['stuck', 'critical', 'crash'],
      ]);
      expect((await labStatus(lab)).vms.map((vm) => vm.state)).toEqual(['running', 'critical']);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(await isWriting(lab, 'stuck')).toBe(true);
  },
  300_000,
);

test("a machine's process ends when its folder is taken away", async () => {
  const { lab, remove } = await makeLab([{ name: 'vm', ...SMALL }]);
  try {
    const { pid } = await labVm(lab, 'vm');
    expect(pid).toBeDefined();
    await rm(lab, { recursive: true });
    await until(() => !isAlive(pid ?? 0));
  } finally {
    await remove();
  }
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('the volume has the size that the lab was given', async () => {
  const lab = path.join(await temporaryFolder(), 'lab');
  await createLab(lab, { vms: [{ name: 'vm', ...SMALL }], volumeBytes: 1024 * MIB });
  const [volume] = await new LabHost(lab).volumes();
  expect(volume?.sizeBytes).toBe(1024 * MIB);
  expect(volume?.freeBytes).toBeLessThan(1020 * MIB);
  expect(volume?.freeBytes).toBeGreaterThan(950 * MIB);
});
