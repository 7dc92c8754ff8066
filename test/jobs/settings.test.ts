/** How people write durations, shares, consistency, patterns and mappings, on the command line and in job files alike. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  parseConsistency,
  parseDuration,
  parseExclusion,
  parseMapping,
  parsePercent,
} from '../../src/jobs/settings.js';

describe('a duration', () => {
  it('is a number with its unit', () => {
    const ms = ['500ms', '30s', '5m', '1h', '1.5h', '0.25s', ' 2 m '].map((text) =>
      parseDuration(text, '--every'),
    );
    expect(ms).toEqual([500, 30_000, 300_000, 3_600_000, 5_400_000, 250, 120_000]);
  });

  it.each(['', '5', 's', '-1s', '1 d', '1m30s', '1e3s', '0s', '0.4ms', '25d', '600h', 'Infinitys'])(
    'is not %j',
    (text) => {
      expect(() => parseDuration(text, '--every')).toThrow(
        `Expected a duration such as 500ms, 30s, 5m or 1h for --every but received "${text}"`,
      );
    },
  );

  it('always fits a timer of Node', () => {
    fc.assert(
      fc.property(
        fc.float({ min: 0, max: 1e9, noNaN: true }),
        fc.constantFrom('ms', 's', 'm', 'h'),
        (value, unit) => {
          try {
            const ms = parseDuration(`${value.toFixed(3)}${unit}`, 'x');
            expect(Number.isInteger(ms) && ms >= 1 && ms < 2 ** 31).toBe(true);
          } catch (error) {
            expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
          }
        },
      ),
    );
  });
});

describe('a percentage', () => {
  it('is a share, with or without its sign', () => {
    expect(['5%', '5', '0.5 %', '0', '100%'].map((text) => parsePercent(text, 'churn'))).toEqual([
      0.05, 0.05, 0.005, 0, 1,
    ]);
  });

  it.each(['', '%', '-5%', '101', 'half', '5%%'])('is not %j', (text) => {
    expect(() => parsePercent(text, 'churn')).toThrow('Expected a percentage such as 5% for churn');
  });
});

describe('a consistency', () => {
  it('is a level that is wanted and required, or the best that there is', () => {
    expect(parseConsistency('best', 'x')).toEqual({ wanted: 'application', required: 'crash' });
    expect(parseConsistency('crash', 'x')).toEqual({ wanted: 'crash', required: 'crash' });
    expect(parseConsistency('required filesystem', 'x')).toEqual({
      wanted: 'filesystem',
      required: 'filesystem',
    });
  });

  it.each(['', 'Best', 'required best', 'required', 'app'])('is not %j', (text) => {
    expect(() => parseConsistency(text, 'x')).toThrow('application, filesystem, crash or best');
  });
});

describe('a disk to leave out', () => {
  it('is a machine and a disk, whose names have no slash while the machine may', () => {
    expect(parseExclusion('web/scsi-0-1', 'x')).toEqual({ vm: 'web', disk: 'scsi-0-1' });
    expect(parseExclusion('*/scratch*', 'x')).toEqual({ vm: '*', disk: 'scratch*' });
    expect(parseExclusion('a/b/c', 'x')).toEqual({ vm: 'a/b', disk: 'c' });
  });

  it.each(['', 'web', '/disk', 'web/', '/'])('is not %j', (text) => {
    expect(() => parseExclusion(text, 'x')).toThrow('Expected VM/DISK');
  });
});

describe('a path mapping', () => {
  it('is two paths', () => {
    expect(parseMapping('D:\\VMs=/mnt/a=b', 'x')).toEqual({ from: 'D:\\VMs', to: '/mnt/a=b' });
  });

  it.each(['', '=', 'a', 'a=', '=b'])('is not %j', (text) => {
    expect(() => parseMapping(text, 'x')).toThrow('Expected FROM=TO');
  });
});
