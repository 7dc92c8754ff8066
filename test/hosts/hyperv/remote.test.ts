/** Another machine: a real PowerShell session, whose wire is a pipe instead of a network. */

import { readFile, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CaptureOutcome } from '../../../src/hosts/host.js';
import { HypervHost } from '../../../src/hosts/hyperv/hyperv-host.js';
import { captureOf, newMark } from '../../conformance/host-bench.js';
import {
  BUILD,
  caught,
  describeWithPowerShell,
  Lane,
  PLAIN_STEPS,
  POWERSHELL,
  QUICK,
} from './lane.js';

const HOSTILE = `$(throw 'x'); "Прод" 'and' & <more>\n`;

describeWithPowerShell('a remote host', () => {
  let lane: Lane;
  let hosts: HypervHost[] = [];
  beforeAll(async () => {
    lane = await Lane.open(BUILD.server2016, [{ name: HOSTILE }], { cluster: true });
  });
  afterEach(async () => {
    for (const host of hosts) await host.close();
    hosts = [];
    lane.hypervisor.owners.clear();
    await rm(path.join(lane.hypervisor.folder, 'ssh.log'), { force: true });
  });
  afterAll(() => lane.close());

  function open(
    environment: Record<string, string> = {},
    spec = 'hyperv:ssh://DOMAIN\\me@box:2222',
  ) {
    const host = new HypervHost(spec, {
      executable: POWERSHELL,
      shells: 1,
      tuning: QUICK,
      environment: {
        ...lane.hypervisor.environment({ cluster: true }),
        FIRN_STANDIN_PWSH: POWERSHELL ?? '',
        ...environment,
      },
    });
    hosts.push(host);
    return host;
  }

  async function sshCalls(): Promise<{ pid: number; text: string }[]> {
    const log = await readFile(path.join(lane.hypervisor.folder, 'ssh.log'), 'utf8');
    return log
      .trim()
      .split('\n')
      .map((line) => ({ pid: Number.parseInt(line, 10), text: line.replace(/^\d+ /, '') }));
  }

  async function capture(host: HypervHost, mark: string): Promise<CaptureOutcome | undefined> {
    const [vm] = await host.listVms();
    if (vm === undefined) throw new Error('the host lists no machine');
    const policy = { wanted: 'application', required: 'crash' } as const;
    const request = { vm, policy, excludedDisks: [], freezeDeadlineMs: 5000 };
    return (await host.capture([request], mark, PLAIN_STEPS))[0];
  }

  test('is driven through one session, and brings names as they are', async () => {
    const host = open();
    const mark = newMark();
    const { vm, disks } = captureOf(await capture(host, mark));
    expect(vm.name).toBe(HOSTILE);
    expect(disks[0]?.layers).toHaveLength(1);
    expect(await host.release([vm], mark, 60_000, PLAIN_STEPS)).toEqual([
      { vm: { id: vm.id, name: vm.name } },
    ]);
    const [call, ...more] = await sshCalls();
    expect(more).toEqual([]);
    expect(call?.text).toContain('-l me@DOMAIN');
    expect(call?.text).toContain('-p 2222');
    expect(call?.text).toContain('BatchMode=yes');
    expect(call?.text).toContain('box powershell');
  });

  test('gives its errors as a local one does', async () => {
    lane.hypervisor.faults.cmdletFails.set('Get-VM', 'Zugriff verweigert – nein');
    try {
      const error = await caught(open().listVms());
      expect(error.code).toBe('ERR_HOST_FAILED');
      expect(error.message).toContain('Zugriff verweigert – nein');
    } finally {
      lane.hypervisor.faults.cmdletFails.clear();
    }
  });

  test('that refuses is unreachable, in the words of what refused', async () => {
    const refusal = 'me@box: Permission denied (publickey).';
    const error = await caught(open({ FIRN_STANDIN_SSH_REFUSES: refusal }).info());
    expect(error.code).toBe('ERR_HOST_UNREACHABLE');
    expect(error.retryable).toBe(true);
  });

  test('that cannot be reached from this PowerShell is unreachable too', async () => {
    const error = await caught(open({}, 'hyperv:wsman://127.0.0.1:1').info());
    expect(error.code).toBe('ERR_HOST_UNREACHABLE');
    const checks = await open({}, 'hyperv:wsman://127.0.0.1:1').check();
    expect(checks.map(({ name, state }) => [name, state])).toEqual([['connection', 'error']]);
  });

  test('gets a new session when the old one broke', async () => {
    const host = open();
    await host.listVms();
    const [call] = await sshCalls();
    process.kill(call?.pid ?? 0, 'SIGKILL');
    await sleep(200);
    // What was under way would fail; the next call does not, or says that the host is not reached, and the one after it works.
    const vms = await host.listVms().catch(async (error: { code: string }) => {
      expect(error.code).toBe('ERR_HOST_UNREACHABLE');
      return host.listVms();
    });
    expect(vms).toHaveLength(1);
    expect(await sshCalls()).toHaveLength(2);
  });

  test('that a machine has left is followed to the node that has it, claim and all', async () => {
    const host = open();
    const mark = newMark();
    const { vm } = captureOf(await capture(host, mark));
    const [checkpoint] = lane.hypervisor.machine(HOSTILE).checkpoints;
    // As if it had moved before it was named: only the claim, which is on the first node, says whose it is.
    if (checkpoint !== undefined) checkpoint.name = 'no mark';
    lane.hypervisor.owners.set(vm.id, 'node2');
    expect(await host.release([vm], mark, 60_000, PLAIN_STEPS)).toEqual([
      { vm: { id: vm.id, name: vm.name } },
    ]);
    expect(lane.hypervisor.machine(HOSTILE).checkpoints).toHaveLength(0);
    expect((await sshCalls()).some(({ text }) => text.includes('node2 powershell'))).toBe(true);
    expect(await host.leftovers()).toEqual([]);
    lane.hypervisor.owners.clear();
    expect(await host.leftovers()).toEqual([]);
  });

  describe('whose machine is not there', () => {
    const away = async () => {
      const host = open();
      const mark = newMark();
      const { vm } = captureOf(await capture(host, mark));
      const release = async () => {
        const [outcome] = await host.release([vm], mark, 60_000, PLAIN_STEPS);
        return outcome?.error?.code;
      };
      return { vm, release, host };
    };
    const checkpoints = () => lane.hypervisor.machine(HOSTILE).checkpoints.length;

    test('does not take it for gone while the cluster does not answer', async () => {
      const { vm, release, host } = await away();
      const { cmdletFails } = lane.hypervisor.faults;
      lane.hypervisor.owners.set(vm.id, 'node2');
      cmdletFails.set('Get-ClusterGroup', 'Der Clusterdienst wird nicht ausgeführt.');
      expect(await release()).toBe('ERR_VM_BUSY');
      cmdletFails.clear();
      lane.hypervisor.owners.clear();
      expect(checkpoints()).toBe(1);
      expect(await host.leftovers()).toHaveLength(1);
      expect(await release()).toBeUndefined();
      expect(checkpoints()).toBe(0);
    });

    test('does not take it for gone while the cluster moves it there', async () => {
      const { vm, release } = await away();
      lane.hypervisor.owners.set(vm.id, hostname().replace(/\..*/, ''));
      expect(await release()).toBe('ERR_VM_BUSY');
      lane.hypervisor.owners.clear();
      expect(checkpoints()).toBe(1);
      expect(await release()).toBeUndefined();
      expect(checkpoints()).toBe(0);
    });

    test('takes it for gone where there are the cmdlets of a cluster and none is', async () => {
      const { vm, release } = await away();
      lane.hypervisor.owners.set(vm.id, 'node2');
      lane.hypervisor.clusterService = 'Disabled';
      lane.hypervisor.faults.cmdletFails.set('Get-ClusterGroup', 'Es gibt keinen Cluster.');
      expect(await release()).toBeUndefined();
      lane.hypervisor.faults.cmdletFails.clear();
      lane.hypervisor.clusterService = 'Auto';
      lane.hypervisor.owners.clear();
      const [checkpoint] = lane.hypervisor.machine(HOSTILE).checkpoints;
      if (checkpoint !== undefined) await lane.hypervisor.endCheckpoint(HOSTILE, checkpoint);
    });
  });
});
