/** What people and scripts see: sizes, tables, the progress line, and the rules of what goes to which stream. */

import { describe, expect, it } from 'vitest';
import {
  formatBytes,
  formatClock,
  formatRate,
  formatRatio,
  formatSeconds,
  formatShare,
} from '../../src/cli/ui/bytes.js';
import { Output } from '../../src/cli/ui/output.js';
import { lineOf, Progress, SmoothedRate, secondsRemaining } from '../../src/cli/ui/progress.js';
import { bottleneckLines } from '../../src/cli/ui/summary.js';
import { displayWidth, fields, paint, printable, table } from '../../src/cli/ui/text.js';
import { firnError } from '../../src/errors.js';
import { makeStats } from '../helpers/stats.js';

const MIB = 2 ** 20;

class MemoryStream {
  text = '';
  isTTY = false;
  columns = 80;
  #onError: (error: NodeJS.ErrnoException) => void = () => {};
  write(text: string) {
    this.text += text;
  }
  on(_event: 'error', listener: (error: NodeJS.ErrnoException) => void) {
    this.#onError = listener;
  }
  breakPipe() {
    this.#onError(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
  }
  get lines() {
    return this.text.split('\n').slice(0, -1);
  }
}

function makeOutput({ json = false, quiet = false, tty = false } = {}) {
  const [stdout, stderr] = [new MemoryStream(), new MemoryStream()];
  stderr.isTTY = tty;
  return { stdout, stderr, output: new Output({ json, quiet, stdout, stderr }) };
}

describe('numbers', () => {
  it('have three digits and a unit of powers of 1024', () => {
    expect([0, 1, 1023, 1024, 1536, 10 * MIB, 1023.6 * 1024, 2 ** 40].map(formatBytes)).toEqual([
      '0 B',
      '1 B',
      '1023 B',
      '1.00 KiB',
      '1.50 KiB',
      '10.0 MiB',
      '1.00 MiB',
      '1.00 TiB',
    ]);
    expect(formatRate(512 * MIB, 2)).toBe('256 MiB/s');
    expect(formatRate(1, 0)).toBe('-');
  });

  it('have times as clocks from a minute on', () => {
    expect([0, 0.4123, 59.94, 61, 3723].map(formatSeconds)).toEqual([
      '0.00 s',
      '0.41 s',
      '59.9 s',
      '1:01',
      '1:02:03',
    ]);
    expect(formatClock(7.9)).toBe('0:07');
  });

  it('have no share or ratio of nothing', () => {
    expect(formatShare(1, 0)).toBe('-');
    expect(formatRatio(1, 0)).toBe('-');
    expect(formatShare(1, 3)).toBe('33.3%');
    expect(formatShare(3, 3)).toBe('100%');
    expect(formatRatio(10, 3)).toBe('3.33x');
  });
});

describe('text', () => {
  it('shows control characters of foreign names instead of sending them to the terminal', () => {
    expect(printable('web\u001b]0;owned\u0007')).toBe('web\\u001b]0;owned\\u0007');
    expect(printable('a\nb\u202ec')).toBe('a\\u000ab\\u202ec');
    expect(printable('a\nb', true)).toBe('a\nb');
    expect(table([{ title: 'VM' }], [['x\u001b[2J']])[1]).toBe('x\\u001b[2J');
  });

  it('aligns columns by the width that characters take', () => {
    expect(displayWidth('仮想')).toBe(4);
    const lines = table(
      [{ title: 'VM' }, { title: 'SIZE', align: 'right' }],
      [
        ['仮想', '1'],
        ['web', '200'],
      ],
    );
    expect(lines).toEqual(['VM    SIZE', '仮想     1', 'web    200']);
  });

  it('leaves out fields without a value', () => {
    expect(
      fields(
        [
          ['a', '1'],
          ['long', undefined],
          ['bc', '2'],
        ],
        '  ',
      ),
    ).toEqual(['  a   1', '  bc  2']);
  });

  it('has colours on a terminal alone, and none with NO_COLOR', () => {
    const before = process.env.NO_COLOR;
    delete process.env.NO_COLOR;
    expect(paint({ isTTY: true }, 'red', 'x')).toBe('\u001b[31mx\u001b[39m');
    expect(paint({ isTTY: false }, 'red', 'x')).toBe('x');
    process.env.NO_COLOR = '1';
    expect(paint({ isTTY: true }, 'red', 'x')).toBe('x');
    if (before === undefined) delete process.env.NO_COLOR;
    else process.env.NO_COLOR = before;
  });
});

describe('the summary', () => {
  it('names the bottleneck with the share of each stage', () => {
    const stages = {
      ...makeStats({}).stages,
      source: 0.923,
      hash: 0.14,
      compress: 0.61,
      target: 0.33,
    };
    expect(bottleneckLines(makeStats({ bottleneck: 'source', stages }))).toEqual([
      '  bottleneck: source (source 92% · hash 14% · compress 61% · target 33%)',
    ]);
    expect(bottleneckLines(makeStats({}))).toEqual([]);
  });
});

describe('output', () => {
  it('keeps standard output for results, and for JSON alone with --json', () => {
    const plain = makeOutput();
    plain.output.text('result');
    plain.output.note('a word');
    plain.output.document({ a: 1 });
    expect([plain.stdout.text, plain.stderr.text]).toEqual(['result\n', 'a word\n']);

    const json = makeOutput({ json: true });
    json.output.text('result');
    json.output.note('a word');
    json.output.document({ a: 1 });
    json.output.message('summary', { b: 2 });
    expect(json.stdout.lines).toEqual(['{"a":1}', '{"message_type":"summary","b":2}']);
    expect(json.stderr.text).toBe('');
  });

  it('goes on without a stream whose reader went away', () => {
    const { output, stdout } = makeOutput();
    output.text('one');
    stdout.breakPipe();
    output.text('two');
    expect(stdout.text).toBe('one\n');
  });

  it('says what failed, what to do next, and the code', () => {
    const { output, stderr } = makeOutput();
    output.fail(firnError('ERR_READ', 'text', { hint: 'try\u001b' }), 20, false);
    expect(stderr.lines).toEqual(['firn: text', '      try\\u001b', '      ERR_READ, exit 20']);
  });

  it('ends a failure with one exit_error line under --json', () => {
    const { output, stderr } = makeOutput({ json: true });
    output.fail(firnError('ERR_READ', 'text', { path: '/a', offset: 4096 }), 20, false);
    expect(JSON.parse(stderr.text)).toMatchObject({
      message_type: 'exit_error',
      code: 20,
      error: { code: 'ERR_READ', message: 'text', path: '/a', offset: 4096 },
    });
    expect(JSON.parse(stderr.text).error.hint).toContain('device');
  });

  it('prints stacks, with their causes, for --debug alone', () => {
    const { output, stderr } = makeOutput();
    const error = firnError('ERR_READ', 'text', { cause: new Error('the cause') });
    output.fail(error, 20, false);
    expect(stderr.text).not.toContain(' at ');
    output.fail(error, 20, true);
    expect(stderr.text).toMatch(/IoError: text\n +at [\s\S]*Caused by: Error: the cause\n +at /);
  });
});

describe('the rate', () => {
  it('does not depend on how often it is fed', () => {
    const [often, seldom] = [new SmoothedRate(), new SmoothedRate()];
    often.update(0, 1);
    seldom.update(0, 1);
    for (let step = 1; step <= 100; step += 1) often.update(step * MIB, 1 + step / 10);
    const last = seldom.update(100 * MIB, 11);
    expect(often.update(100 * MIB, 11) / last).toBeCloseTo(1, 5);
  });

  it('halves the weight of the past every four seconds', () => {
    const rate = new SmoothedRate();
    for (let second = 1; second <= 100; second += 1) rate.update(second * 100, second);
    expect(rate.update(100 * 100, 104)).toBeCloseTo(50, 3);
    expect(rate.update(100 * 100, 108)).toBeCloseTo(25, 3);
  });

  it('is right from the first update on, and does not count the time before it began', () => {
    const rate = new SmoothedRate();
    rate.begin(0, 30);
    for (const seconds of [30.1, 30.2, 31]) {
      expect(rate.update((seconds - 30) * MIB, seconds)).toBeCloseTo(MIB, 3);
    }
  });

  it('gives an estimate only while copying and after two seconds', () => {
    const stats = { totalBytes: 100, doneBytes: 50 };
    expect(secondsRemaining(makeStats({ ...stats, elapsedSeconds: 3 }), 10)).toBe(5);
    expect(secondsRemaining(makeStats({ ...stats, elapsedSeconds: 1 }), 10)).toBeUndefined();
    expect(
      secondsRemaining(makeStats({ ...stats, elapsedSeconds: 3, phase: 'open' }), 10),
    ).toBeUndefined();
    expect(secondsRemaining(makeStats({ ...stats, elapsedSeconds: 3 }), 0)).toBeUndefined();
  });
});

describe('the progress line', () => {
  const stats = makeStats({
    elapsedSeconds: 34,
    totalBytes: 1000 * MIB,
    doneBytes: 423 * MIB,
    newBytes: 12 * MIB,
  });

  it('says how far, how fast and how long', () => {
    expect(lineOf('backup', stats, 100 * MIB)).toBe(
      '[0:34]  backup  42.3%  423 MiB of 1000 MiB  100 MiB/s  new 12.0 MiB  ETA 0:05',
    );
  });

  it('is never wider than the terminal, and loses last what matters most', () => {
    for (let columns = 1; columns < 90; columns += 1) {
      expect(lineOf('backup', stats, 100 * MIB, columns).length).toBeLessThanOrEqual(columns);
    }
    expect(lineOf('backup', stats, 100 * MIB, 16)).toBe('backup  42.3%');
    expect(lineOf('backup', stats, 100 * MIB, 8)).toBe('42.3%');
  });

  it('is rewritten on a terminal at most five times a second and taken away at the end', () => {
    const { output, stderr } = makeOutput({ tty: true });
    const progress = new Progress(output, 'auto', 'backup');
    for (let ms = 0; ms <= 1000; ms += 50) {
      progress.update(
        makeStats({ elapsedSeconds: ms / 1000, totalBytes: 100, doneBytes: ms / 10 }),
      );
    }
    progress.close();
    expect(stderr.text.split('\r').length - 1).toBeLessThanOrEqual(7);
    expect(stderr.text).not.toContain('\n');
    expect(stderr.text.endsWith('\r\u001b[K')).toBe(true);
  });

  it('steps aside for a line to standard error', () => {
    const { output, stderr } = makeOutput({ tty: true });
    const progress = new Progress(output, 'auto', 'backup');
    progress.update(makeStats({ totalBytes: 100 }));
    output.note('a word');
    progress.close();
    expect(stderr.text.endsWith('\r\u001b[Ka word\n')).toBe(true);
  });

  it('is a line every tenth or 30 seconds where there is no terminal', () => {
    const { output, stderr } = makeOutput();
    const progress = new Progress(output, 'auto', 'backup');
    for (let second = 1; second <= 200; second += 1) {
      progress.update(
        makeStats({ elapsedSeconds: second, totalBytes: 2000, doneBytes: second * 10 }),
      );
    }
    progress.close();
    // At 10 % to 90 %, which is every 20 seconds.
    expect(stderr.lines.map((line) => /\d+\.\d%/.exec(line)?.[0])).toEqual([
      ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((tenth) => `${tenth}0.0%`),
    ]);
  });

  it('says nothing of a short job where there is no terminal, unless asked to', () => {
    for (const mode of ['auto', 'always'] as const) {
      const { output, stderr } = makeOutput();
      const progress = new Progress(output, mode, 'backup');
      progress.update(makeStats({ elapsedSeconds: 0.3, totalBytes: 100, doneBytes: 60 }));
      progress.update(makeStats({ elapsedSeconds: 0.6, totalBytes: 100, doneBytes: 100 }));
      progress.close();
      expect(stderr.lines.length, mode).toBe(mode === 'auto' ? 0 : 1);
    }
  });

  it('is a status message a second with --json, and silent with never or --quiet', () => {
    const feed = (progress: Progress) => {
      for (let ms = 0; ms < 3000; ms += 100) {
        progress.update(makeStats({ elapsedSeconds: ms / 1000, totalBytes: 100, doneBytes: 50 }));
      }
      progress.close();
    };
    const json = makeOutput({ json: true });
    feed(new Progress(json.output, 'auto', 'backup'));
    expect(json.stdout.lines.length).toBe(3);
    expect(JSON.parse(json.stdout.lines[2] ?? '')).toMatchObject({
      message_type: 'status',
      phase: 'copy',
      percentDone: 50,
      totalBytes: 100,
      doneBytes: 50,
    });
    for (const made of [makeOutput({ tty: true, quiet: true }), makeOutput({ quiet: true })]) {
      feed(new Progress(made.output, 'auto', 'backup'));
      expect(made.stderr.text).toBe('');
    }
    const never = makeOutput({ tty: true });
    feed(new Progress(never.output, 'never', 'backup'));
    expect(never.stderr.text).toBe('');
  });

  it('starts its rate again when the next part of a job counts from zero', () => {
    const { output, stderr } = makeOutput({ json: true });
    const progress = new Progress(output, 'auto', 'verify');
    progress.update(makeStats({ elapsedSeconds: 50, totalBytes: 100, doneBytes: 100 }));
    progress.update(makeStats({ elapsedSeconds: 1, totalBytes: 100, doneBytes: 1 }));
    progress.close();
    expect(stderr.text).toBe('');
    expect((output.stdout as MemoryStream).lines.length).toBe(2);
  });
});
