/** The bridge to a real PowerShell: what goes over comes back as it was, and nothing that goes wrong is lost or stays. */

import { existsSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { Bridge } from '../../../src/hosts/hyperv/bridge.js';
import { faultOf } from '../../../src/hosts/hyperv/faults.js';
import { vmsSchema } from '../../../src/hosts/hyperv/replies.js';
import { BUILD, caught, describeWithPowerShell, Lane, POWERSHELL } from './lane.js';

const NOTHING = z.unknown();

describeWithPowerShell('the bridge', () => {
  let lane: Lane;
  let bridge: Bridge;
  beforeAll(async () => {
    lane = await Lane.open(BUILD.server2016, [{ name: 'plain' }]);
    bridge = new Bridge(
      { kind: 'local' },
      { executable: POWERSHELL, environment: lane.hypervisor.environment() },
    );
  });
  afterAll(async () => {
    await bridge.close();
    await lane.close();
  });

  async function nameThere(name: string): Promise<string | undefined> {
    lane.hypervisor.machine(lane.hypervisor.machines[0]?.name ?? '').name = name;
    const { result } = await bridge.call('vms', {}, vmsSchema);
    return result.vms[0]?.name;
  }

  test('brings every name as it is and runs none of them', async () => {
    const canary = path.join(lane.hypervisor.folder, 'canary');
    const names = [
      `$([IO.File]::WriteAllText('${canary}', 'x'))`,
      `'; [IO.File]::WriteAllText("${canary}", 'x'); '`,
      'it\'s “quoted” ‘oddly’ "twice" `back` & <tag> %PATH% | ; # @{a=1}',
      'line\nbreak\r\nand\ttab',
      '   ',
      '2024-01-01T00:00:00',
      '/Date(1700000000000)/',
      'сервер 服务器 خادم 🧊 é é',
      '<<FIRN  e30= FIRN>>',
      '\\\\?\\C:\\ \u0001\u001f\u007f\u2028 \ufeff',
      'true',
      '1e5',
    ];
    for (const name of names) expect(await nameThere(name)).toBe(name);
    expect(existsSync(canary)).toBe(false);
    await nameThere('plain');
  });

  test('takes parameters as data too, whatever stands in them', async () => {
    const canary = path.join(lane.hypervisor.folder, 'canary');
    for (const operation of [`'; [IO.File]::WriteAllText("${canary}", 'x') #`, 'Get-VM', 'é']) {
      const error = await caught(bridge.call(operation, {}, NOTHING));
      expect(error.code).toBe('ERR_HOST_FAILED');
      expect(error.message).toContain(`The operation ${operation} is not known`);
    }
    const mark = '../../../etc';
    const vm = lane.hypervisor.machines[0]?.id;
    const error = await caught(bridge.call('end-checkpoint', { vm, mark }, NOTHING));
    expect(error.message).toContain('no proper mark');
    expect(existsSync(canary)).toBe(false);
  });

  test('gives what the host says about an error as data', async () => {
    lane.hypervisor.faults.cmdletFails.set('Get-VM', 'Zugriff „verweigert“\nзапрещён');
    try {
      const error = await caught(bridge.call('vms', {}, vmsSchema));
      expect(error.code).toBe('ERR_HOST_FAILED');
      expect(error.message).toContain('Zugriff „verweigert“\nзапрещён');
      const fault = faultOf(error);
      expect(fault?.category).toBe('OperationStopped');
      expect(fault?.fullyQualifiedErrorId).toContain('Zugriff');
      expect(fault?.hresult).toMatch(/^0x[0-9A-F]{8}$/);
      expect(fault?.position).not.toBe('');
    } finally {
      lane.hypervisor.faults.cmdletFails.clear();
    }
  });

  test('gives warnings beside the result', async () => {
    lane.hypervisor.faults.cmdletWarns.set('Get-VM', 'Die Zeit weicht ab.');
    try {
      const { result, warnings } = await bridge.call('vms', {}, vmsSchema);
      expect(result.vms).toHaveLength(1);
      expect(warnings).toContain('Die Zeit weicht ab.');
    } finally {
      lane.hypervisor.faults.cmdletWarns.clear();
    }
  });

  test('is not disturbed by what else is printed, on either stream', async () => {
    const noisy = new Bridge(
      { kind: 'local' },
      {
        executable: POWERSHELL,
        environment: { ...lane.hypervisor.environment(), FIRN_STANDIN_NOISE: 'yes' },
      },
    );
    try {
      const { result } = await noisy.call('vms', {}, vmsSchema);
      expect(result.vms).toHaveLength(1);
    } finally {
      await noisy.close();
    }
  });

  test('brings large answers whole', async () => {
    const name = 'ж'.repeat(400_000);
    expect(await nameThere(name)).toBe(name);
    await nameThere('plain');
  });

  test('refuses an answer that is not as expected', async () => {
    const error = await caught(bridge.call('vms', {}, z.object({ vms: z.string() })));
    expect(error.code).toBe('ERR_HOST_FAILED');
    expect(error.message).toContain('not as expected: vms');
  });

  test('kills a PowerShell that is late, and the next call gets another', async () => {
    lane.hypervisor.faults.cmdletHangs = 'Get-VM';
    try {
      const error = await caught(bridge.call('vms', {}, vmsSchema, { deadlineMs: 1500 }));
      expect(error.code).toBe('ERR_DEADLINE');
    } finally {
      lane.hypervisor.faults.cmdletHangs = undefined;
    }
    expect(await nameThere('again')).toBe('again');
  });

  test('gives a call up when its signal fires, also before it began', async () => {
    lane.hypervisor.faults.cmdletHangs = 'Get-VM';
    try {
      const controller = new AbortController();
      const call = caught(bridge.call('vms', {}, vmsSchema, { signal: controller.signal }));
      setTimeout(() => controller.abort(), 300);
      expect((await call).code).toBe('ERR_ABORTED');
    } finally {
      lane.hypervisor.faults.cmdletHangs = undefined;
    }
    const fired = AbortSignal.abort();
    const error = await caught(bridge.call('vms', {}, vmsSchema, { signal: fired }));
    expect(error.code).toBe('ERR_ABORTED');
    expect(await nameThere('still')).toBe('still');
  });

  test('does several calls at once, and queues what is more', async () => {
    const calls = Array.from({ length: 5 }, () => bridge.call('vms', {}, vmsSchema));
    for (const { result } of await Promise.all(calls)) expect(result.vms).toHaveLength(1);
  });

  test('says that there is no PowerShell', async () => {
    const absent = new Bridge({ kind: 'local' }, { executable: '/nowhere/pwsh' });
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const error = await caught(absent.call('info', {}, NOTHING));
      expect(error.code).toBe('ERR_HOST_UNREACHABLE');
      expect(error.message).toContain('/nowhere/pwsh');
    }
    await absent.close();
  });

  test('says that a machine without WMI is no host', async () => {
    const elsewhere = new Bridge({ kind: 'local' }, { executable: POWERSHELL });
    const error = await caught(elsewhere.call('info', {}, NOTHING));
    expect(error.code).toBe('ERR_UNSUPPORTED');
    expect(error.message).toContain('is no Windows host');
    await elsewhere.close();
  });

  test('does not take a program that prints nothing for a host', async () => {
    // As the powershell.exe of Wine does, which ends well and says nothing.
    const mute = new Bridge({ kind: 'local' }, { executable: '/bin/true' });
    const error = await caught(mute.call('info', {}, NOTHING));
    expect(error.code).toBe('ERR_HOST_UNREACHABLE');
    await mute.close();
  });
});
