/** What needs no PowerShell: specs, paths, commands to print, and what facts mean. */

import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import type { Vm } from '../../../src/hosts/host.js';
import { diagnose } from '../../../src/hosts/hyperv/doctor.js';
import { importCommand, quote } from '../../../src/hosts/hyperv/import-command.js';
import { uncPath } from '../../../src/hosts/hyperv/paths.js';
import { explainRct, RCT_CODES } from '../../../src/hosts/hyperv/rct-codes.js';
import type { Facts } from '../../../src/hosts/hyperv/replies.js';
import { parseTarget, targetOfNode } from '../../../src/hosts/hyperv/spec.js';
import { chooseVssCode, VSS_CODES } from '../../../src/hosts/hyperv/vss-codes.js';
import { codeOf } from '../../helpers/errors.js';
import { describeWithPowerShell, POWERSHELL } from './lane.js';

describe('a spec', () => {
  test.each([
    ['hyperv', { kind: 'local' }],
    ['hyperv:wsman://HV01', { kind: 'wsman', computer: 'HV01' }],
    [
      'hyperv:wsman://hv01.example.org:5986',
      { kind: 'wsman', computer: 'hv01.example.org', port: 5986 },
    ],
    ['hyperv:ssh://hv01', { kind: 'ssh', computer: 'hv01' }],
    ['hyperv:ssh://me@hv01:2222', { kind: 'ssh', computer: 'hv01', user: 'me', port: 2222 }],
    ['hyperv:ssh://DOM\\me@hv01', { kind: 'ssh', computer: 'hv01', user: 'DOM\\me' }],
    [
      'hyperv:ssh://me@example.org@[fe80::1]:22',
      { kind: 'ssh', computer: 'fe80::1', user: 'me@example.org', port: 22 },
    ],
    ['hyperv:wsman://сервер', { kind: 'wsman', computer: 'сервер' }],
  ])('%s is understood', (spec, target) => {
    expect(parseTarget(spec)).toEqual(target);
  });

  test.each([
    'hyperv:',
    'hyperv:HV01',
    'hyperv:wsman://',
    'hyperv:wsman://a b',
    'hyperv:wsman://me@HV01',
    'hyperv:ssh://-oProxyCommand=reboot',
    'hyperv:ssh://-l@host',
    'hyperv:ssh://host:0',
    'hyperv:ssh://host:70000',
    'hyperv:ssh://host/path',
    "hyperv:wsman://a';reboot;'",
    'hyperv:ftp://host',
  ])('%s is refused', async (spec) => {
    expect(await codeOf(() => parseTarget(spec))).toBe('ERR_INVALID_ARGUMENT');
  });

  test('leads to another node in the same way', () => {
    expect(targetOfNode(parseTarget('hyperv:ssh://me@a:22'), 'b')).toEqual({
      kind: 'ssh',
      computer: 'b',
      user: 'me',
      port: 22,
    });
    expect(targetOfNode({ kind: 'local' }, 'b')).toEqual({ kind: 'wsman', computer: 'b' });
  });
});

test.each([
  ['D:\\VMs\\a b.vhdx', '\\\\HV01\\D$\\VMs\\a b.vhdx'],
  ['c:\\ClusterStorage\\Volume1\\x.vhdx', '\\\\HV01\\c$\\ClusterStorage\\Volume1\\x.vhdx'],
  ['\\\\?\\D:\\VMs\\a.vhdx', '\\\\HV01\\D$\\VMs\\a.vhdx'],
  ['\\\\filer\\vms\\a.vhdx', '\\\\filer\\vms\\a.vhdx'],
  ['\\\\?\\UNC\\filer\\vms\\a.vhdx', '\\\\filer\\vms\\a.vhdx'],
  ['\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy3\\VMs\\a.vhdx', undefined],
  ['\\\\?\\Volume{0}\\a.vhdx', undefined],
  ['\\\\.\\PhysicalDrive1', undefined],
  ['VMs\\a.vhdx', undefined],
  ['D:a.vhdx', undefined],
  ['/VMs/a.vhdx', undefined],
])('the share of %s is %s', (path, share) => {
  expect(uncPath('HV01', path)).toBe(share);
});

test('an address of IPv6 becomes a name that a share can have', () => {
  expect(uncPath('fe80::1', 'D:\\a')).toBe('\\\\fe80--1.ipv6-literal.net\\D$\\a');
});

describe('the command that registers a machine', () => {
  test('takes the configuration file of the method, from the folder', () => {
    const files = ['A.vmrs', 'A.VMCX', 'A.vmgs'];
    const command = importCommand('D:\\Restored\\', files, 'recovery checkpoint');
    expect(command).toContain("Compare-VM -Path 'D:\\Restored\\A.VMCX' -Copy -GenerateNewId");
    expect(importCommand('D:\\R', ['A.xml'], 'VSS set')).toContain("-Path 'D:\\R\\A.xml'");
  });

  test('is not to be had without one', async () => {
    expect(await codeOf(() => importCommand('D:\\R', ['A.xml'], 'recovery checkpoint'))).toBe(
      'ERR_NOT_FOUND',
    );
  });
});

describeWithPowerShell('a quoted text', () => {
  test('is one literal to PowerShell, whatever is in it', () => {
    const texts = ["it's", "'; throw 'x'; '", '‘a’ ‚b‛', '$(throw 1) `n "x"', 'a\nb', '“x”', ''];
    const list = texts.map(quote).join(', ');
    const command = `foreach ($text in @(${list})) { [Convert]::ToBase64String([Text.Encoding]::Unicode.GetBytes($text)) + '.' }`;
    const output = execFileSync(POWERSHELL ?? '', ['-NoLogo', '-Command', command], {
      encoding: 'utf8',
    });
    const back = output
      .trim()
      .split(/\s+/)
      .map((line) => Buffer.from(line.replace('.', ''), 'base64').toString('utf16le'));
    expect(back).toEqual(texts);
  });
});

describe('the table of VSS codes', () => {
  test('says for each what it means and what to do', () => {
    for (const [code, entry] of Object.entries(VSS_CODES)) {
      expect(code).toMatch(/^0x8004[0-9A-F]{4}$/);
      expect(entry.name).toMatch(/^VSS_E_/);
      expect(entry.hint).toMatch(/\.$/);
      expect(entry.action === 'report').toBe(entry.retries === 0 && entry.action !== 'bisect');
    }
  });

  test('finds the code that says most, in any spelling', () => {
    const chosen = chooseVssCode(['0x80070005', '0x800423f4', '0x80042316']);
    expect(chosen).toEqual({ code: '0x800423F4', entry: VSS_CODES['0x800423F4'] });
  });

  test('halves for what it does not know', () => {
    expect(chooseVssCode(['0x81234567']).entry.action).toBe('bisect');
    expect(chooseVssCode(['constructor']).entry.action).toBe('bisect');
    expect(chooseVssCode([]).code).toBe('');
  });
});

describe('the table of change tracking codes', () => {
  test('says in a sentence why a disk is read as a whole, and for anything else what the host said', () => {
    for (const [code, sentence] of Object.entries(RCT_CODES)) {
      expect(code).toMatch(/^0xC03A00[0-9A-F]{2}$/);
      expect(explainRct(`Fehler (${code.toLowerCase()})`)).toBe(
        `${sentence} (${code.toLowerCase()})`,
      );
    }
    expect(explainRct('Zeitüberschreitung')).toContain('Zeitüberschreitung');
    expect(explainRct('0xC03A0001')).toContain('0xC03A0001');
  });
});

describe('the doctor', () => {
  const vm: Vm = {
    id: '1',
    name: 'app',
    state: 'running',
    reachable: 'application',
    disks: [
      {
        name: 'scsi-0-0',
        path: 'D:\\a.avhdx',
        layers: 2,
        sizeBytes: 1,
        fileBytes: 1,
        volume: 'D:\\',
      },
    ],
  };
  const fact: Facts['vms'][number] = {
    id: '1',
    name: 'app',
    checkpointType: 'Production',
    scsiControllers: 1,
    snapshotLocation: 'D:\\VMs',
    busy: undefined,
    tracking: { version: '8.0', foreign: 1 },
  };
  const input = {
    info: { computer: 'HV01', caption: 'Windows Server 2012 R2', version: '6.3.9600', build: 9600 },
    facts: { elevated: true, module: true, writer: { found: true, state: 1 }, vms: [fact] },
    vms: [vm],
    volumes: [{ name: 'D:\\', sizeBytes: 100, freeBytes: 50 }],
    leftovers: [],
    vss: true,
  };
  const troubles = (changes: Partial<Parameters<typeof diagnose>[0]>) =>
    diagnose({ ...input, ...changes })
      .filter(({ state }) => state !== 'ok')
      .map(({ name, state, message, hint }) => {
        expect(hint).toBeTruthy();
        return `${state} ${name}: ${message}`;
      });

  test('finds nothing where all is well', () => {
    expect(troubles({})).toEqual([]);
  });

  test('tells what is wrong with the host', () => {
    const facts = { ...input.facts, elevated: false, writer: { found: true, state: 7 } };
    expect(troubles({ facts })).toEqual([
      'error elevation: Does not run as an administrator',
      'warning Hyper-V VSS writer: Its state is 7, not 1 (stable)',
    ]);
    expect(troubles({ facts: { elevated: null, module: false, vms: [] }, vms: [] })).toEqual([
      'unknown elevation: Whether Firn runs as an administrator there cannot be told',
      'error Hyper-V module: The PowerShell module for Hyper-V is not installed on the host',
      'error Hyper-V VSS writer: The Hyper-V VSS writer is not there',
    ]);
    expect(troubles({ info: { ...input.info, build: 9200 } })).toHaveLength(1);
    expect(troubles({ volumes: [{ name: 'D:\\', sizeBytes: 100, freeBytes: 9 }] })).toEqual([
      'warning volume D:\\: 9 % is free',
    ]);
  });

  test('tells what is wrong with a machine', () => {
    const facts = {
      ...input.facts,
      vms: [
        {
          ...fact,
          checkpointType: 'Disabled',
          replication: { state: 'InitialReplicationInProgress', health: 'Normal', mode: 'Primary' },
          scsiControllers: 0,
          snapshotLocation: 'C:\\Snapshots',
          busy: 'layers are being merged',
        },
      ],
    };
    const weak: Vm = {
      ...vm,
      reachable: 'crash',
      reachableReason: 'it is paused',
      disks: vm.disks.map((disk) => ({ ...disk, layers: 30, unsupported: 'it is shared' })),
    };
    const found = troubles({ facts, vms: [weak] });
    for (const part of [
      'crash consistency: it is paused',
      'cannot be backed up',
      '30 layers',
      'being merged',
      'disabled',
      'InitialReplication',
      'event 10103',
      'another volume',
    ]) {
      expect(
        found.filter((line) => line.includes(part)),
        part,
      ).toHaveLength(1);
    }
    // Without VSS sets neither controllers nor folders matter.
    const later = troubles({ facts, vms: [weak], vss: false });
    expect(later).toHaveLength(found.length - 2);
  });

  test('tells of machines that cannot be tracked where machines can', () => {
    const facts = { ...input.facts, vms: [{ ...fact, tracking: { version: '5.0', foreign: 9 } }] };
    expect(troubles({ facts })).toEqual([]);
    const found = troubles({ facts, vss: false });
    expect(found).toHaveLength(2);
    expect(found[0]).toContain('has version 5.0');
    expect(found[1]).toContain('9 reference points');
  });

  test('tells whose the left-overs are', () => {
    const leftovers = [
      { kind: 'checkpoint' as const, name: 'firn-x', vm, mark: 'firn-x' },
      { kind: 'layer' as const, name: 'D:\\a-AutoRecovery.avhdx', vm },
    ];
    const found = troubles({ leftovers });
    expect(found[0]).toContain('of the run firn-x');
    expect(found[1]).toContain("not Firn's");
  });
});
