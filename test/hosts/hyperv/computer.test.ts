/**
 * The computer that Firn runs on. What is asked is asked by the real PowerShell of a stand-in that answers after Microsoft's pages; what the
 * answers mean needs none. No real Windows has answered.
 */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { checkComputer, diagnoseComputer, writeEvent } from '../../../src/hosts/hyperv/computer.js';
import type { Computer } from '../../../src/hosts/hyperv/replies.js';
import { BUILD, caught, describeWithPowerShell, POWERSHELL } from './lane.js';
import { Hypervisor } from './standin/hypervisor.js';

const question = { repository: 'D:\\backup\\firn', program: 'C:\\Program Files\\nodejs\\node.exe' };
const good: Computer = {
  account: 'nt authority\\system',
  sid: 'S-1-5-18',
  groups: ['S-1-5-32-544', 'S-1-16-16384'],
  privileges: ['SeBackupPrivilege', 'SeManageVolumePrivilege', 'SeSecurityPrivilege'],
  longPaths: true,
  eventSource: true,
  defender: { realTime: true, paths: ['d:\\Backup\\'], processes: [] },
};

/** The checks that are not "ok". */
function troubles(
  changes: Partial<Computer>,
  repository: string | undefined = question.repository,
) {
  return diagnoseComputer({ ...good, ...changes }, { ...question, repository })
    .filter(({ state }) => state !== 'ok')
    .map(({ name, state, message }) => `${name} ${state}: ${message}`);
}

describe('what the facts of a Windows computer mean', () => {
  test('a computer that is set up has nothing to complain of', () => {
    expect(troubles({})).toEqual([]);
    expect(troubles({ defender: null })).toEqual([]);
    expect(troubles({ longPaths: false, eventSource: false })).toEqual([]);
  });

  test('a process without elevation is told what still works', () => {
    const groups = ['S-1-5-32-545', 'S-1-16-8192'];
    expect(troubles({ groups })).toEqual([
      expect.stringMatching(/^rights warning: Not elevated: /),
    ]);
    expect(troubles({ groups: [...groups, 'S-1-5-32-578'] })).toEqual([
      expect.stringMatching(/in Hyper-V Administrators: checkpoints work, VSS sets do not/),
    ]);
  });

  test('an administrator without the right to back up is warned of DiskShadow', () => {
    expect(troubles({ privileges: ['SeManageVolumePrivilege'] })).toEqual([
      'rights warning: Elevated; holds SeManageVolumePrivilege',
    ]);
  });

  test('a service account and a repository on a share are a warning, and on a disk they are not', () => {
    const excluded = { realTime: false, paths: [], processes: [] };
    const share = '\\\\server\\backup';
    expect(troubles({ defender: excluded }, share)).toEqual([
      expect.stringMatching(/^account warning: .* knows as this computer/),
    ]);
    const user = { defender: excluded, sid: 'S-1-5-21-1-2-3-1001' };
    expect(troubles(user, share)).toEqual([]);
    expect(troubles({ defender: excluded }, '\\\\?\\D:\\backup')).toEqual([]);
  });

  test('a repository is excluded by its folder, one above it, or the program, and by nothing that only looks alike', () => {
    const with_ = (paths: string[], processes: string[] = []) =>
      troubles({ defender: { realTime: true, paths, processes } });
    const scanned = [expect.stringMatching(/^Microsoft Defender warning: Scans each file/)];
    expect(with_([])).toEqual(scanned);
    expect(with_(['D:\\back'])).toEqual(scanned);
    expect(with_(['D:\\backup\\firn\\packs'])).toEqual(scanned);
    expect(with_(['D:\\'])).toEqual([]);
    expect(with_(['D:/BACKUP/firn/'])).toEqual([]);
    expect(with_([], ['node.exe'])).toEqual([]);
    expect(with_([], [question.program.toUpperCase()])).toEqual([]);
    expect(with_([], ['C:\\other\\node.exe'])).toEqual(scanned);
    const hidden = 'N/A: Must be an administrator to view exclusions';
    expect(with_([hidden], [hidden])).toEqual([
      expect.stringMatching(/^Microsoft Defender unknown: .* to administrators alone$/),
    ]);
  });
});

describeWithPowerShell('a Windows computer, asked', () => {
  let hypervisor: Hypervisor;
  beforeEach(async () => {
    hypervisor = await Hypervisor.start(BUILD.server2019, []);
  });
  afterEach(() => hypervisor.stop());
  const bridge = () => ({ executable: POWERSHELL, environment: hypervisor.environment() });
  const states = async () => {
    const checks = await checkComputer(question, bridge());
    return Object.fromEntries(checks.map(({ name, state, message }) => [name, [state, message]]));
  };

  test('tells its account, its rights and what Defender excludes', async () => {
    hypervisor.defender.paths = ['D:\\backup'];
    expect(await states()).toEqual({
      account: ['ok', 'nt-autorität\\system'],
      rights: [
        'ok',
        'Elevated; holds SeBackupPrivilege, SeManageVolumePrivilege, SeSecurityPrivilege',
      ],
      'Microsoft Defender': ['ok', 'Excludes D:\\backup\\firn'],
      'long paths': ['ok', expect.stringMatching(/^Off /)],
      'event source': ['ok', '"Firn" is registered'],
    });
  });

  test('tells what it lacks', async () => {
    await hypervisor.setAccount({
      user: ['firma\\jürgen', 'S-1-5-21-1-2-3-1001'],
      groups: ['S-1-16-8192'],
      privileges: ['SeShutdownPrivilege'],
      longPaths: true,
      eventSource: false,
    });
    const found = await states();
    expect(found).toMatchObject({
      account: ['ok', 'firma\\jürgen'],
      rights: ['warning', expect.stringMatching(/^Not elevated/)],
      'Microsoft Defender': ['warning', expect.stringMatching(/^Scans/)],
      'long paths': ['ok', expect.stringMatching(/^On /)],
      'event source': ['ok', expect.stringMatching(/not registered/)],
    });
  });

  test('that does not answer is unknown, and no failure', async () => {
    const checks = await checkComputer(question, { executable: '/nowhere/pwsh' });
    expect(checks).toMatchObject([{ name: 'computer', state: 'unknown' }]);
  });

  test('writes an event whose text is no code', async () => {
    const message = 'firn backup: "$(Get-VM)" `$x; \'größer\'\n--json';
    await writeEvent({ id: 3, level: 'Error', message }, bridge());
    expect(hypervisor.events).toEqual([
      expect.objectContaining({
        LogName: 'Application',
        Source: 'Firn',
        EventId: 3,
        EntryType: 'Error',
        Message: message,
      }),
    ]);
  });

  test('says why an event was not written', async () => {
    hypervisor.faults.cmdletFails.set('Write-EventLog', 'Die Quelle "Firn" ist nicht registriert.');
    const error = await caught(writeEvent({ id: 1, level: 'Information', message: 'x' }, bridge()));
    expect(error.message).toContain('nicht registriert');
  });
});
