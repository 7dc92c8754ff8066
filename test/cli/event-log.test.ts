/** How a command's end becomes an event; the event log itself is stood in for in test/hosts/hyperv/computer.test.ts. */

import { describe, expect, it } from 'vitest';
import { eventOf } from '../../src/cli/event-log.js';
import { firnError } from '../../src/errors.js';
import { firn } from '../helpers/firn.js';

const ending = { command: 'backup', repository: 'D:\\backup', error: undefined, seconds: 12.34 };

describe('the event of a command', () => {
  it('has one id for each kind of end, which no version changes', () => {
    const of = (exitCode: number) => {
      const { id, level } = eventOf({ ...ending, exitCode });
      return [id, level];
    };
    expect(of(0)).toEqual([1, 'Information']);
    expect(of(3)).toEqual([2, 'Warning']);
    expect(of(1)).toEqual([3, 'Error']);
    expect(of(30)).toEqual([3, 'Error']);
    expect(of(130)).toEqual([4, 'Warning']);
  });

  it('says what was done, where, and why it failed', () => {
    const error = firnError('ERR_NOT_FOUND', 'No repository', { hint: 'Run firn init.' });
    expect(eventOf({ ...ending, exitCode: 10, error }).message.split('\r\n')).toEqual([
      'firn backup: failed',
      'ERR_NOT_FOUND: No repository',
      'Run firn init.',
      '',
      'Repository: D:\\backup',
      'Exit code: 10',
      'Time: 12.3 s',
    ]);
  });

  it('that cannot be written is a warning and changes no outcome', async () => {
    const env = { FIRN_PWSH: '/nowhere/powershell' };
    const done = await firn(['vm', '--help', '--event-log'], { env });
    expect(done.status).toBe(0);
    expect(done.stderr).toMatch(
      /warning: the event log was not told .*There is no PowerShell here/,
    );
    const failed = await firn(['list', '-r', '/nowhere'], { env: { ...env, FIRN_EVENT_LOG: '1' } });
    expect(failed.status).toBe(10);
    expect(failed.stderr).toMatch(/event log was not told/);
    const silent = await firn(['vm', '--help'], { env });
    expect(silent.stderr).toBe('');
  });
});
