/**
 * What the wrapper around the addon promises: failures are FirnErrors with the caller's stack, and a session that is aborted ends in
 * order. The sessions here are small state machines in place of native jobs, because only they can be held at an exact moment; the
 * same promises are tried with the real addon in test/cli.
 */

import { describe, expect, it } from 'vitest';
import type {
  NativeBinding,
  NativeOpenDisk,
  NativeSession,
  NativeStats,
} from '../../src/engine/binding.js';
import { runSession, throwIfAborted, wrapBinding } from '../../src/engine/engine.js';
import { AbortError, firnError, isFirnError } from '../../src/errors.js';
import { makeStats } from '../helpers/stats.js';

class HeldSession implements NativeSession<string> {
  readonly done: Promise<string>;
  finish!: (result: string) => void;
  fail!: (failure: unknown) => void;
  cancels = 0;
  current: NativeStats = makeStats({});
  constructor() {
    this.done = new Promise((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
  }
  stats() {
    return this.current;
  }
  cancel() {
    this.cancels += 1;
    this.fail(Object.assign(new Error('cancelled'), { code: 'ERR_ABORTED' }));
  }
}

async function errorOf(promise: Promise<unknown>) {
  const error = await promise.then(
    () => undefined,
    (failure: unknown) => failure,
  );
  if (!isFirnError(error)) throw new Error(`expected a FirnError, got ${String(error)}`);
  return error;
}

/** How many listeners for "abort" a signal has, counted through its own methods. */
function countingSignal() {
  const controller = new AbortController();
  let listeners = 0;
  const { signal } = controller;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...parameters: Parameters<typeof add>) => {
    listeners += 1;
    add(...parameters);
  };
  signal.removeEventListener = (...parameters: Parameters<typeof remove>) => {
    listeners -= 1;
    remove(...parameters);
  };
  return { controller, signal, listeners: () => listeners };
}

describe('runSession', () => {
  it('gives the result and reports the last counters once more at the end', async () => {
    const session = new HeldSession();
    const seen: number[] = [];
    const running = runSession(session, {
      onStats: (stats) => seen.push(stats.doneBytes),
      intervalMs: 1,
    });
    await expect.poll(() => seen.length).toBeGreaterThan(0);
    session.current = makeStats({ doneBytes: 77 });
    session.finish('result');
    expect(await running).toBe('result');
    expect(seen.at(-1)).toBe(77);
    const count = seen.length;
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(seen.length).toBe(count);
  });

  it("rejects with AbortError whose cause is the signal's reason, after the session has ended", async () => {
    const session = new HeldSession();
    const controller = new AbortController();
    const running = runSession(session, { signal: controller.signal });
    controller.abort('enough');
    const error = await errorOf(running);
    expect(error).toBeInstanceOf(AbortError);
    expect(error).toMatchObject({ name: 'AbortError', code: 'ERR_ABORTED', cause: 'enough' });
    expect(session.cancels).toBe(1);
  });

  it('cancels at once when the signal was aborted before', async () => {
    const session = new HeldSession();
    const error = await errorOf(runSession(session, { signal: AbortSignal.abort('early') }));
    expect(error).toMatchObject({ code: 'ERR_ABORTED', cause: 'early' });
  });

  it('gives the result when the cancel came too late', async () => {
    const session = new HeldSession();
    const controller = new AbortController();
    const running = runSession(session, { signal: controller.signal });
    session.finish('done already');
    controller.abort();
    expect(await running).toBe('done already');
  });

  it('keeps a failure that is not the cancel', async () => {
    const session = new HeldSession();
    const controller = new AbortController();
    session.cancel = () =>
      session.fail(Object.assign(new Error('torn'), { code: 'ERR_CORRUPT_CHUNK' }));
    const running = runSession(session, { signal: controller.signal });
    controller.abort();
    expect((await errorOf(running)).code).toBe('ERR_CORRUPT_CHUNK');
  });

  it('removes its listener on every path', async () => {
    for (const end of ['finish', 'fail', 'abort'] as const) {
      const { controller, signal, listeners } = countingSignal();
      const session = new HeldSession();
      const running = runSession(session, { signal }).catch(() => undefined);
      expect(listeners()).toBe(1);
      if (end === 'finish') session.finish('');
      if (end === 'fail') session.fail(new Error('text'));
      if (end === 'abort') controller.abort();
      await running;
      expect(listeners(), end).toBe(0);
    }
  });

  it('cancels the session and throws what onStats threw', async () => {
    const session = new HeldSession();
    const mistake = new Error('mistake in the printer');
    const running = runSession(session, {
      intervalMs: 1,
      onStats: () => {
        throw mistake;
      },
    });
    await expect(running).rejects.toBe(mistake);
    expect(session.cancels).toBe(1);
  });

  it('has the stack of who called it, not of the event loop', async () => {
    const session = new HeldSession();
    function theCaller() {
      return runSession(session);
    }
    const running = theCaller();
    session.fail(Object.assign(new Error('text'), { code: 'ERR_READ' }));
    expect((await errorOf(running)).stack).toContain('theCaller');
  });
});

describe('wrapBinding', () => {
  const failure = () =>
    Object.assign(new Error('Input/output error'), { code: 'ERR_READ', op: 'read' });
  const failing = {
    version: () => {
      throw failure();
    },
    inspectDisk: () => Promise.reject(failure()),
    startCopy: () => {
      const session = new HeldSession();
      session.fail(failure());
      return session as unknown as ReturnType<NativeBinding['startCopy']>;
    },
  } as unknown as NativeBinding;
  const engine = wrapBinding(failing);

  it('gives what is thrown, what is rejected and what a session ends with the same class', async () => {
    expect(() => engine.version()).toThrow(expect.objectContaining({ name: 'IoError' }));
    const open: NativeOpenDisk = { parentFolders: [], parents: [], format: '' };
    expect(await errorOf(engine.inspectDisk('/a', open))).toMatchObject({
      name: 'IoError',
      op: 'read',
    });
    const session = engine.startCopy({} as Parameters<NativeBinding['startCopy']>[0]);
    expect(await errorOf(session.done)).toMatchObject({ code: 'ERR_READ' });
  });

  it("has the caller's stack for a call that failed on a native thread", async () => {
    function theCaller() {
      return engine.inspectDisk('/a', { parentFolders: [], parents: [], format: '' });
    }
    expect((await errorOf(theCaller())).stack).toContain('theCaller');
  });
});

describe('throwIfAborted', () => {
  it('throws AbortError for an aborted signal alone', () => {
    throwIfAborted(undefined);
    throwIfAborted(new AbortController().signal);
    expect(() => throwIfAborted(AbortSignal.abort('why'))).toThrow(
      expect.objectContaining({ code: 'ERR_ABORTED', cause: 'why' }),
    );
    expect(firnError('ERR_ABORTED', '').name).toBe('AbortError');
  });
});
