/** What a run decides beforehand: machines, disks, space, paths. */

import { describe, expect, test } from 'vitest';
import type { Vm, VmDisk } from '../../../src/hosts/host.js';
import { checkSpace, findVm, mapPath, planDisks, selectVms } from '../../../src/jobs/runs/plan.js';

const GIB = 2 ** 30;

function disk(name: string, change: Partial<VmDisk> = {}): VmDisk {
  const path = `D:\\VMs\\${name}.vhdx`;
  return {
    name,
    path,
    layers: 1,
    sizeBytes: 100 * GIB,
    fileBytes: 40 * GIB,
    volume: 'D:',
    ...change,
  };
}

function vm(id: string, name: string, disks = [disk('scsi-0-0')]): Vm {
  return { id, name, state: 'running', reachable: 'application', disks };
}

describe('machines are chosen', () => {
  const vms = [vm('A1', 'web'), vm('B2', 'db'), vm('C3', 'db'), vm('D4', '$(Remove-Item C:\\)')];

  test('by id or name, in the order of the host, each once', () => {
    expect(selectVms(vms, ['b2', 'web', 'A1'])).toEqual([vms[0], vms[1]]);
    expect(selectVms(vms, undefined)).toEqual(vms);
    expect(findVm(vms, '$(Remove-Item C:\\)')).toBe(vms[3]);
    expect(findVm(vms, 'WEB')).toBe(vms[0]);
  });

  test('not by a name that nobody or more than one has', () => {
    expect(() => findVm(vms, 'mail')).toThrowError(
      expect.objectContaining({ code: 'ERR_VM_NOT_FOUND' }),
    );
    expect(() => findVm(vms, 'db')).toThrowError(
      expect.objectContaining({
        code: 'ERR_VM_AMBIGUOUS',
        message: expect.stringContaining('B2, C3') as string,
      }),
    );
  });
});

describe('disks are left out', () => {
  const machine = vm('A1', 'web', [
    disk('scsi-0-0'),
    disk('scsi-0-1'),
    disk('ide-0-0', { unsupported: 'it is a pass-through disk' }),
  ]);

  test('by the job without a word, and loudly when they cannot be backed up', () => {
    const plan = planDisks(machine, [{ vm: 'w*', disk: 'scsi-0-1' }]);
    expect(plan.excluded).toEqual(['scsi-0-1', 'ide-0-0']);
    expect(plan.warnings).toEqual(['disk ide-0-0 is left out: it is a pass-through disk']);
    expect(plan.error).toBeUndefined();
  });

  test('not by patterns of other machines, whose characters mean nothing but themselves', () => {
    expect(planDisks(machine, [{ vm: 'db', disk: '*' }]).excluded).toEqual(['ide-0-0']);
    expect(planDisks(machine, [{ vm: 'w.b', disk: '*' }]).excluded).toEqual(['ide-0-0']);
  });

  test.each([
    ['*', true],
    ['scsi-0-1', true],
    ['SCSI-*', true],
    ['*-1', true],
    ['s*-*-1', true],
    ['*i-0*0-1', false],
    ['scsi', false],
    ['scsi-0-1*1', false],
    [`${'*'.repeat(5000)}x`, false],
  ])('by the pattern %s: %s', (pattern, expected) => {
    const { excluded } = planDisks(machine, [{ vm: '*', disk: pattern }]);
    expect(excluded.includes('scsi-0-1')).toBe(expected);
  });

  test('never all of them', () => {
    expect(planDisks(machine, [{ vm: '*', disk: 'scsi*' }]).error).toMatchObject({
      code: 'ERR_UNSUPPORTED',
    });
  });
});

describe('the space on a volume', () => {
  const policy = { minimumFreeBytes: 10 * GIB, churnPerHour: 0.05, windowMs: 2 * 3_600_000 };
  const volumes = (freeBytes: number) => [{ name: 'D:', sizeBytes: 500 * GIB, freeBytes }];

  test('must hold the minimum and what all checkpoints may grow to', () => {
    const machines = [vm('A1', 'web'), vm('B2', 'db')];
    // Two disks of 40 GiB, a twentieth an hour, for two hours: 8 GiB.
    expect(checkSpace(machines, volumes(18 * GIB), policy)).toBeUndefined();
    expect(checkSpace(machines, volumes(18 * GIB - 1), policy)).toMatchObject({
      code: 'ERR_VOLUME_LOW',
    });
  });

  test('is not asked of volumes that no machine is on, and a disk cannot grow beyond its size', () => {
    const small = vm('A1', 'web', [disk('scsi-0-0', { sizeBytes: GIB, fileBytes: 40 * GIB })]);
    expect(checkSpace([small], volumes(11 * GIB), policy)).toBeUndefined();
    expect(
      checkSpace([small], [{ name: 'E:', sizeBytes: 1, freeBytes: 0 }], policy),
    ).toBeUndefined();
  });
});

describe('a path of the host is read', () => {
  const map = [
    { from: 'D:\\VMs', to: '/mnt/array/VMs' },
    { from: 'D:\\VMs\\fast', to: '/mnt/fast/' },
    { from: '/srv', to: '/snapshot/srv' },
    { from: '\\\\hv1\\share', to: 'Z:\\copy' },
  ];

  test.each([
    ['D:\\VMs\\a b\\disk.vhdx', '/mnt/array/VMs/a b/disk.vhdx'],
    ['d:/vms/Ä & b\\disk.vhdx', '/mnt/array/VMs/Ä & b/disk.vhdx'],
    ['D:\\VMs\\fast\\x.vhdx', '/mnt/fast/x.vhdx'],
    ['D:\\VMsOther\\x.vhdx', 'D:\\VMsOther\\x.vhdx'],
    ['/srv/a\\b.vhdx', '/snapshot/srv/a\\b.vhdx'],
    ['/SRV/x', '/SRV/x'],
    ['\\\\HV1\\Share\\x\\y.vhdx', 'Z:\\copy\\x\\y.vhdx'],
    ['E:\\x.vhdx', 'E:\\x.vhdx'],
  ])('%s as %s', (hostPath, local) => {
    expect(mapPath(hostPath, map)).toBe(local);
  });
});
