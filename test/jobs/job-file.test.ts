/** Job files: what the docs promise of them, and what is refused with which words at which place. */

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { isFirnError } from '../../src/errors.js';
import { JOB_MEMBERS, parseJobFile, readJobFile } from '../../src/jobs/job-file.js';
import { VM_BACKUP_DEFAULTS } from '../../src/jobs/runs/types.js';
import { RETENTION_MEMBERS } from '../../src/repository/retention.js';
import { temporaryFolder } from '../helpers/folder.js';

const DOCS = readFileSync(new URL('../../docs/jobs.md', import.meta.url), 'utf8');
const EXAMPLE = /^```yaml\n([\s\S]*?)^```$/m.exec(DOCS)?.[1] ?? '';
const MINUTE = 60_000;

const parse = (...lines: string[]) => parseJobFile(`${lines.join('\n')}\n`, '/jobs/nightly.yaml');

/** The lines of the ERR_JOB_INVALID that the text is refused with. */
function refusal(...lines: string[]): string[] {
  try {
    parse(...lines);
  } catch (error) {
    if (!isFirnError(error)) throw error;
    expect([error.code, error.exitCode]).toEqual(['ERR_JOB_INVALID', 2]);
    return error.message.split('\n').map((line) => line.replace('/jobs/nightly.yaml:', ''));
  }
  throw new Error('it was accepted');
}

describe('docs/jobs.md', () => {
  it('has an example that is a valid job with the meaning that its comments give', () => {
    expect(parseJobFile(EXAMPLE, '/jobs/nightly.yaml')).toEqual({
      path: '/jobs/nightly.yaml',
      name: 'nightly',
      host: 'hyperv',
      repository: '/backup',
      state: '/var/lib/firn',
      vms: ['web', 'db', '5b1f3c9e-5d2a-4a53-9f0e-2f4f9d0c7a11'],
      exclude: [
        { vm: 'web', disk: 'scsi-0-3' },
        { vm: '*', disk: 'scratch*' },
      ],
      consistency: { wanted: 'application', required: 'application' },
      freezeDeadline: MINUTE,
      mergeDeadline: 60 * MINUTE,
      tracking: 'checkpoint',
      unused: 'skip',
      guestShadowCopies: 'keep',
      parallelVms: 2,
      minimumFree: 10 * 2 ** 30,
      churn: 0.05,
      window: 60 * MINUTE,
      map: [
        { from: 'C:\\ClusterStorage\\Volume1', to: '/mnt/volume1' },
        { from: 'D:\\VMs', to: '/mnt/vms' },
      ],
      codec: 'zstd',
      level: 3,
      memory: 512 * 2 ** 20,
      workers: 4,
      limit: 200 * 2 ** 20,
      tags: ['nightly', 'gold'],
      retention: {
        last: 3,
        daily: 7,
        weekly: 5,
        within: { years: 0, months: 0, days: 2, hours: 0 },
        tags: ['release'],
      },
    });
  });

  it('shows each member in the example, but the one that stands instead of another', () => {
    const missing = JOB_MEMBERS.filter((member) => !new RegExp(`^${member}:`, 'm').test(EXAMPLE));
    expect(missing).toEqual(['all']);
  });

  it('has a row for each member that there is, and for no other', () => {
    const rowsOf = (title: string) => {
      const section = DOCS.split(/^## /m).find((part) => part.startsWith(`${title}\n`)) ?? '';
      const firsts = [...section.matchAll(/^\| (`\w+`(?:, `\w+`)*) \|/gm)].map((row) => row[1]);
      return firsts.flatMap((first) => first?.replaceAll('`', '').split(', '));
    };
    expect(rowsOf('Members').sort()).toEqual([...JOB_MEMBERS].sort());
    expect(rowsOf('Retention').sort()).toEqual([...RETENTION_MEMBERS].sort());
  });

  it('tells the mistakes as they are told', () => {
    const example = EXAMPLE.replace(
      'consistency: application ',
      'consistancy: application ',
    ).replace('freezeDeadline: 60s', 'freezeDeadline: 60');
    const told = refusal(example);
    expect(told).toHaveLength(2);
    for (const line of told) expect(DOCS).toContain(`    nightly.yaml:${line}\n`);
  });
});

describe('a job file', () => {
  it('may say anything or nothing', () => {
    expect(parse('all: true')).toEqual({ all: true, path: '/jobs/nightly.yaml', name: 'nightly' });
    expect(parse('{}')).toEqual({ path: '/jobs/nightly.yaml', name: 'nightly' });
  });

  it('knows the levels of consistency', () => {
    const policyOf = (text: string) => parse(`consistency: ${text}`).consistency;
    expect(policyOf('best')).toEqual(VM_BACKUP_DEFAULTS.consistency);
    for (const level of ['application', 'filesystem', 'crash']) {
      const policy = { wanted: level, required: level };
      expect(policyOf(level)).toEqual(policy);
      expect(policyOf(`required ${level}`)).toEqual(policy);
    }
  });

  it('takes a size or a share as a number too', () => {
    expect(parse('minimumFree: 1048576', 'churn: 2.5')).toMatchObject({
      minimumFree: 2 ** 20,
      churn: 0.025,
    });
  });

  it('names paths relative to itself, wherever it is read from', async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, 'weekly.yml');
    writeFileSync(file, 'host: lab:machines\nrepository: ../backup\nmap: { /a: b }\n');
    expect(await readJobFile(file)).toMatchObject({
      name: 'weekly',
      host: `lab:${path.join(folder, 'machines')}`,
      repository: path.join(folder, '..', 'backup'),
      map: [{ from: '/a', to: path.join(folder, 'b') }],
    });
    expect(parse('host: hyperv:wsman://node1').host).toBe('hyperv:wsman://node1');
  });

  it('that is not there is not found', async () => {
    const folder = await temporaryFolder();
    await expect(readJobFile(path.join(folder, 'none.yaml'))).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
    });
  });
});

describe('a mistake in a job file', () => {
  it.each([
    [['host: hyperv', 'vmz: [a]'], '2:1: Unknown member "vmz"; did you mean "vms"?'],
    [
      ['freeze-deadline: 5s'],
      '1:1: Unknown member "freeze-deadline"; did you mean "freezeDeadline"?',
    ],
    [['frobnicate: 1'], '1:1: Unknown member "frobnicate"'],
    [['host: 5'], '1:7: Expected a text (put it in quotes) for host but received 5'],
    [['host:'], '1:6: Expected a text for host but received null'],
    [
      ['vms:', '  - web', '  - 10'],
      '3:5: Expected a text (put it in quotes) for vms but received 10',
    ],
    [['vms: web'], '1:6: Expected a list of one or more for vms'],
    [['vms: []'], '1:6: Expected a list of one or more for vms'],
    [['vms: [a, b, a]'], '1:13: Expected each machine once, "a" came before'],
    [['vms: [a]', 'all: true'], '2:6: Expected either vms or all: true, not both'],
    [['all: false'], '1:6: Expected true for all but received false'],
    [
      ['exclude: [data]'],
      '1:11: Expected VM/DISK, such as web/scsi-0-1 or */scratch* for exclude but received "data"',
    ],
    [
      ['consistency: good'],
      '1:14: Expected application, filesystem, crash or best for consistency but received "good"',
    ],
    [
      ['window: 0s'],
      '1:9: Expected a duration such as 500ms, 30s, 5m or 1h for window but received "0s"',
    ],
    [['parallelVms: 0'], '1:14: Expected an integer from 1 to 64 for parallelVms but received 0'],
    [['churn: 120%'], '1:8: Expected a percentage such as 5% for churn but received "120%"'],
    [['map: /a=/b'], '1:6: Expected members FROM: TO for map'],
    [['map:', '  /a: [b]'], '2:7: Expected a text for map but received b'],
    [['codec: gzip'], '1:8: Expected one of raw, lz4, zstd for codec but received "gzip"'],
    [
      ['memory: much'],
      '1:9: Expected a size such as 64K, 1M or 2GiB for memory but received "much"',
    ],
    [['tags: gold'], '1:7: Expected a list of one or more for tags'],
    [
      ['tags:', '  - "a,b"'],
      '2:5: Expected a tag of 1 to 128 characters without commas for tags but received "a,b"',
    ],
    [['tags: [a, b, a]'], '1:14: Expected each tag once, "a" came before'],
    [
      [`tags: [${Array.from({ length: 65 }, (_, index) => `t${index}`).join(', ')}]`],
      '1:7: Expected at most 64 tags for tags but received 65',
    ],
    [
      ['retention:', '  last: 3', '  dayly: 7'],
      '3:3: Unknown member "dayly"; did you mean "daily"?',
    ],
    [['retention: { parallelVms: 1, last: 1 }'], '1:14: Unknown member "parallelVms"'],
    [['weekly: 5'], '1:1: Unknown member "weekly"'],
    [
      ['retention:', '  last: -1'],
      '2:9: Expected an integer from 0 to 1000000 for last but received -1',
    ],
    [
      ['retention:', '  within: 30'],
      '2:11: Expected a time such as 12h, 30d, 2w, 6mo or 1y for within but received 30',
    ],
    [
      ['retention: { tags: [gold, "a,b"] }'],
      '1:27: Expected a tag of 1 to 128 characters without commas for tags but received "a,b"',
    ],
    [['retention: { daily: 0 }'], '1:12: Expected at least one rule that keeps points'],
    [['retention: {}'], '1:12: Expected at least one rule that keeps points'],
    [['retention: 7'], '1:12: Expected members such as last, daily, within'],
    [['retention:'], '1:11: Expected members such as last, daily, within'],
    [['- a'], '1:1: Expected members such as host, repository, vms'],
    [[''], '1:1: Expected members such as host, repository, vms'],
  ])('%j is told with its place', (lines, message) => {
    expect(refusal(...lines)).toEqual([message]);
  });

  it('does not hide the others', () => {
    expect(refusal('hots: x', 'all: 1', 'level: -1')).toEqual([
      '1:1: Unknown member "hots"; did you mean "host"?',
      '2:6: Expected true for all but received 1',
      '3:8: Expected an integer from 0 to 64 for level but received -1',
    ]);
  });

  it('of the YAML itself has a place too', () => {
    expect(refusal('host: "open')[0]).toMatch(/^\d+:\d+: Missing closing "quote/);
    expect(refusal('host: a', 'host: b')[0]).toMatch(/^2:1: Map keys must be unique/);
    expect(refusal('host: !!js/function "x"')[0]).toMatch(/^1:7: Unresolved tag/);
    expect(refusal('a: 1', '---', 'b: 2')[0]).toMatch(/multiple documents/);
  });

  it('is found fast in a file that was made to take forever', () => {
    const bomb = ['a: &a [x,x,x,x,x,x,x,x,x]'];
    for (let depth = 0; depth < 12; depth += 1) {
      const [name, next] = ['abcdefghijklm'[depth], 'abcdefghijklm'[depth + 1]];
      bomb.push(`${next}: &${next} [${Array(9).fill(`*${name}`).join(',')}]`);
    }
    // Of the processor's time: others may be busy on it as well.
    const begun = process.cpuUsage();
    expect(refusal(...bomb)[0]).toContain('alias');
    expect(refusal(`vms: [${'x'.repeat(1024 * 1024)}]`)[0]).toContain('at most 1 MiB');
    expect(
      refusal(...Array.from({ length: 100 }, (_, index) => `unknown${index}: 1`)),
    ).toHaveLength(21);
    const { user, system } = process.cpuUsage(begun);
    expect(user + system).toBeLessThan(2_000_000);
  });
});
