/** What a restored machine's point brings besides its disks: its configuration, and for Hyper-V how it is registered there again. */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HostKind } from '../../src/hosts/host.js';
import { backupMachine } from '../../src/jobs/backup.js';
import { stageConfiguration } from '../../src/jobs/runs/configuration.js';
import { Repository } from '../../src/repository/repository.js';
import { firn, jsonLines } from '../helpers/firn.js';
import { makeContent } from '../helpers/writer.js';

const folder = mkdtempSync(join(tmpdir(), 'firn-restore-'));
const at = (...names: string[]) => join(folder, ...names);
const RUN = 'ab'.repeat(16);
const CONFIGURATION = Buffer.from("the machine's configuration, of an odd length");
const run = (...parameters: string[]) => firn(parameters, { env: { FIRN_REPOSITORY: at('repo') } });

/** A point as a run over machines makes it, of a machine with one disk and these files. */
async function makePoint(vm: string, hostKind: HostKind, method: string, fileNames: string[]) {
  const files = fileNames.map((name) => at(name));
  for (const file of files) writeFileSync(file, CONFIGURATION);
  const repository = await Repository.open(at('repo'));
  const configuration = await stageConfiguration(at('state'), RUN, vm, files);
  const disks = [{ path: at('disk.raw'), name: 'ide-0-0' }, ...configuration];
  await backupMachine(
    repository,
    { disks, vm },
    {
      guestFroze: true,
      describe: () => ({
        vm: { name: vm },
        consistency: 'application',
        method,
        host: 'node1',
        capture: {
          run: RUN,
          wanted: 'application',
          required: 'crash',
          frozenAt: '2026-01-01T00:00:00Z',
          hostKind,
          hostVersion: '10.0',
          steps: [],
        },
      }),
      aroundRead: (read) => read(new AbortController().signal),
      aroundSeal: (seal) => seal(),
    },
  );
}

beforeAll(async () => {
  writeFileSync(at('disk.raw'), makeContent(100, 1));
  expect((await run('init')).status).toBe(0);
  await makePoint('web', 'hyperv', 'recovery checkpoint', ["it's.vmcx", 'it.vmrs']);
  await makePoint('old', 'hyperv', 'VSS set', ['old.xml']);
  await makePoint('bare', 'hyperv', 'recovery checkpoint', ['notes.txt']);
  await makePoint('lab', 'lab', 'lab checkpoint', ['vm.json']);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('firn restore of a machine', () => {
  it('gives back its configuration files beside the disks, with their length', async () => {
    const { status, stdout } = await run('restore', 'latest:web', '--to', at('web'));
    expect(status).toBe(0);
    expect(stdout).toContain(`file it's.vmcx  ${at('web', "it's.vmcx")}\n`);
    expect(readFileSync(at('web', "it's.vmcx")).equals(CONFIGURATION)).toBe(true);
    expect(readFileSync(at('web', 'ide-0-0.raw')).equals(makeContent(100, 1))).toBe(true);
  });

  it('prints the command that registers it at Hyper-V, with its names quoted', async () => {
    const { stdout } = await run('restore', 'latest:web', '--to', at('web'), '--force');
    expect(stdout).toMatch(
      /^to register the machine, .*in PowerShell:\n {2}\$report = Compare-VM /m,
    );
    expect(stdout).toContain("it''s.vmcx'");
    const [summary] = jsonLines(
      await run('restore', 'latest:old', '--to', at('old'), '--json'),
    ).slice(-1);
    expect(summary).toMatchObject({
      files: [{ name: 'old.xml', path: at('old', 'old.xml') }],
      importCommand: expect.stringMatching(/Compare-VM -Path '.*old\.xml'/),
    });
  });

  it('prints none for other hosts, for a single disk, or without a configuration file', async () => {
    for (const more of [['latest:lab'], ['latest:bare'], ['latest:web', '--disk', 'ide-0-0']]) {
      const to = at(`none-${more.length}-${more[0]?.slice(7)}`);
      const finished = await run('restore', ...more, '--to', to, '--json');
      expect(finished.status).toBe(0);
      expect(jsonLines(finished).at(-1), more[0]).toMatchObject({ importCommand: null });
    }
  });
});
