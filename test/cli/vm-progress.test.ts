/** Progress of a run over machines, as a terminal, a log and a program see it. The terminal is a small one that is really played. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Output } from '../../src/cli/ui/output.js';
import { VmProgress } from '../../src/cli/ui/vm-progress.js';
import { firnError } from '../../src/errors.js';
import type { StepName, VmRef } from '../../src/hosts/host.js';
import type { VmEvent } from '../../src/jobs/runs/types.js';
import { makeStats } from '../helpers/stats.js';

const MIB = 2 ** 20;
const WEB: VmRef = { id: '1', name: 'web' };
const DATABASE: VmRef = { id: '2', name: 'database' };

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubEnv('NO_COLOR', '1');
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.useRealTimers();
});

const COMMAND = new RegExp(`^${'\u001b'}\\[(\\d*)([AKJ])$`);
const TOKENS = new RegExp(`${'\u001b'}\\[\\d*[AKJ]|[\\s\\S]`, 'g');

/** Plays what is written to it as a terminal does, so that a test sees what a person would. */
class Screen {
  readonly isTTY = true;
  readonly columns = 60;
  readonly rows = 8;
  written = '';
  #lines = [''];
  #row = 0;
  #column = 0;

  write(text: string): void {
    this.written += text;
    for (const [token] of text.matchAll(TOKENS)) this.#play(token);
  }

  on(): void {}

  /** The lines that are not empty. */
  get shown(): string[] {
    return this.#lines.map((line) => line.trimEnd()).filter((line) => line !== '');
  }

  #play(token: string): void {
    const [, count, command] = COMMAND.exec(token) ?? [];
    const line = this.#lines[this.#row] ?? '';
    if (command === 'A') this.#row = Math.max(0, this.#row - Number(count));
    else if (command === 'K') this.#lines[this.#row] = line.slice(0, this.#column);
    else if (command === 'J') {
      this.#lines[this.#row] = line.slice(0, this.#column);
      this.#lines.length = this.#row + 1;
    } else if (token === '\r') this.#column = 0;
    else if (token === '\n') {
      this.#row += 1;
      this.#column = 0;
      this.#lines[this.#row] ??= '';
    } else {
      this.#lines[this.#row] =
        line.slice(0, this.#column).padEnd(this.#column) + token + line.slice(this.#column + 1);
      this.#column += 1;
    }
  }
}

class Log {
  text = '';
  write(text: string): void {
    this.text += text;
  }
  on(): void {}
  get lines(): string[] {
    return this.text.split('\n').slice(0, -1);
  }
}

const begun = (vm: VmRef, step: StepName): VmEvent => ({ type: 'step', vm, step, state: 'begun' });
const done = (vm: VmRef, step: StepName, elapsedMs: number): VmEvent => {
  return { type: 'step', vm, step, state: 'done', elapsedMs };
};
const read = (vm: VmRef, elapsedSeconds: number, doneBytes: number): VmEvent => ({
  type: 'progress',
  vm,
  progress: makeStats({ elapsedSeconds, doneBytes, totalBytes: 1000 * MIB }),
});
const over = (vm: VmRef): VmEvent => ({ type: 'vm-done', result: { vm, steps: [] } });

function onScreen() {
  const screen = new Screen();
  const output = new Output({ json: false, quiet: false, stdout: new Log(), stderr: screen });
  return { screen, output, progress: new VmProgress(output, 'auto') };
}

function onLog({ json = false, quiet = false, mode = 'auto' as 'auto' | 'always' | 'never' } = {}) {
  const [stdout, stderr] = [new Log(), new Log()];
  const output = new Output({ json, quiet, stdout, stderr });
  return { stdout, stderr, output, progress: new VmProgress(output, mode) };
}

describe('on a terminal', () => {
  it('each machine under way has one line with its step, which goes when it is done', () => {
    const { screen, progress } = onScreen();
    progress.handle(begun(WEB, 'freeze'));
    progress.handle(begun(DATABASE, 'read'));
    progress.handle({
      type: 'progress',
      vm: DATABASE,
      progress: makeStats({ phase: 'open', elapsedSeconds: 2 }),
    });
    vi.advanceTimersByTime(3000);
    progress.handle(read(DATABASE, 5, 300 * MIB));
    vi.advanceTimersByTime(1000);
    expect(screen.shown).toEqual([
      '[0:04]  web       freezing',
      '[0:05]  database  reading  30.0%  100 MiB/s  ETA 0:07',
    ]);
    progress.handle(over(DATABASE));
    progress.handle(begun(WEB, 'merge'));
    vi.advanceTimersByTime(1000);
    expect(screen.shown).toEqual(['[0:01]  web       merging']);
    progress.close();
    expect(screen.shown).toEqual([]);
  });

  it('lines never wrap, whatever a machine is called', () => {
    const { screen, progress } = onScreen();
    const odd = { id: '3', name: `仮想${'x'.repeat(200)}\u001b[2J` };
    progress.handle(begun(odd, 'drop-shadow-copy'));
    progress.handle(begun(WEB, 'read'));
    progress.handle(read(WEB, 5, 300 * MIB));
    vi.advanceTimersByTime(1000);
    expect(screen.shown).toHaveLength(2);
    for (const line of screen.shown) expect(line.length).toBeLessThan(60);
    expect(screen.written).not.toContain('\u001b[2J');
    progress.close();
  });

  it('there are never more lines than the terminal has rows', () => {
    const { screen, progress } = onScreen();
    for (let index = 0; index < 20; index += 1) {
      progress.handle(begun({ id: `${index}`, name: `vm${index}` }, 'read'));
    }
    vi.advanceTimersByTime(1000);
    expect(screen.shown.length).toBeLessThan(screen.rows);
    expect(screen.shown.at(-1)).toBe('... and 14 more');
    progress.close();
  });

  it('they step aside for another line and come back below it', () => {
    const { screen, output, progress } = onScreen();
    progress.handle(begun(WEB, 'freeze'));
    output.warning('look out');
    vi.advanceTimersByTime(1000);
    expect(screen.shown).toEqual(['warning: look out', '[0:01]  web  freezing']);
    progress.close();
    expect(screen.shown).toEqual(['warning: look out']);
  });

  it('they are redrawn at most five times a second', () => {
    const { screen, progress } = onScreen();
    progress.handle(begun(WEB, 'read'));
    const before = screen.written.split('\r').length;
    for (let ms = 0; ms < 1000; ms += 10) {
      progress.handle(read(WEB, ms / 1000, ms * MIB));
      vi.advanceTimersByTime(10);
    }
    expect(screen.written.split('\r').length - before).toBeLessThanOrEqual(6);
    progress.close();
  });
});

describe('in a log', () => {
  it('each step that ended is a line with its time', () => {
    const { stderr, progress } = onLog();
    progress.handle(begun(WEB, 'freeze'));
    progress.handle(done(WEB, 'freeze', 310));
    progress.handle(begun(WEB, 'merge'));
    const error = firnError('ERR_MERGE_FAILED', 'text');
    progress.handle({ type: 'step', vm: WEB, step: 'merge', state: 'failed', elapsedMs: 5, error });
    progress.close();
    expect(stderr.lines).toEqual(['web: freeze took 0.31 s', 'web: merge failed after 0.01 s']);
  });

  it('a long step says every 30 seconds that it goes on, and reading says each tenth', () => {
    const { stderr, progress } = onLog();
    progress.handle(begun(WEB, 'merge'));
    vi.advanceTimersByTime(65_000);
    expect(stderr.lines).toEqual(['[0:30]  web  merging', '[1:00]  web  merging']);
    progress.handle(begun(WEB, 'read'));
    for (let second = 1; second <= 50; second += 1) {
      vi.advanceTimersByTime(1000);
      progress.handle(read(WEB, second, second * 20 * MIB));
    }
    progress.close();
    expect(stderr.lines.slice(2).map((line) => /\d+\.\d%/.exec(line)?.[0])).toEqual(
      [1, 2, 3, 4, 5, 6, 7, 8, 9].map((tenth) => `${tenth}0.0%`),
    );
  });

  it('there is nothing with never or --quiet', () => {
    for (const options of [{ mode: 'never' as const }, { quiet: true }]) {
      const { stderr, stdout, progress } = onLog(options);
      progress.handle(begun(WEB, 'merge'));
      vi.advanceTimersByTime(100_000);
      progress.handle(done(WEB, 'merge', 100_000));
      progress.close();
      expect(stderr.text + stdout.text).toBe('');
    }
  });
});

describe('with --json', () => {
  it('each step and a status a second are messages with their machine', () => {
    const { stdout, stderr, progress } = onLog({ json: true });
    progress.handle(begun(WEB, 'read'));
    for (let ms = 0; ms <= 2500; ms += 100) {
      progress.handle(read(WEB, ms / 1000, ms * MIB));
      vi.advanceTimersByTime(100);
    }
    progress.handle(done(WEB, 'read', 2600));
    progress.close();
    expect(stderr.text).toBe('');
    const messages = stdout.lines.map((line) => JSON.parse(line));
    expect(messages.map((message) => message.message_type)).toEqual([
      'step',
      'status',
      'status',
      'step',
    ]);
    expect(messages[0]).toEqual({ message_type: 'step', vm: WEB, step: 'read', state: 'begun' });
    expect(messages[2]).toMatchObject({ vm: WEB, phase: 'copy', totalBytes: 1000 * MIB });
    expect(messages[3]).toMatchObject({ state: 'done', elapsedSeconds: 2.6 });
  });

  it('a step that failed says why', () => {
    const { stdout, progress } = onLog({ json: true });
    progress.handle(begun(WEB, 'freeze'));
    const error = firnError('ERR_FREEZE_FAILED', 'the guest refused');
    progress.handle({
      type: 'step',
      vm: WEB,
      step: 'freeze',
      state: 'failed',
      elapsedMs: 5,
      error,
    });
    progress.close();
    expect(JSON.parse(stdout.lines[1] ?? '')).toMatchObject({
      state: 'failed',
      error: { code: 'ERR_FREEZE_FAILED', message: 'the guest refused' },
    });
  });
});
