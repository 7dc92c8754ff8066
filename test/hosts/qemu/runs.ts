/**
 * Runs over machines as the tests need them: in this process, and in children that are killed.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import type { FirnError } from '../../../src/errors.js';
import type { Capture, CaptureRequest, Steps } from '../../../src/hosts/host.js';
import { QemuHost } from '../../../src/hosts/qemu/qemu-host.js';
import { captureOf } from '../../conformance/host.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const CHILD = fileURLToPath(new URL('./child.mjs', import.meta.url));

export const plainSteps: Steps = {
  run: (_vm, _step, { deadlineMs }, work) =>
    work(deadlineMs === undefined ? new AbortController().signal : AbortSignal.timeout(deadlineMs)),
};

/** Captures the only machine below `root`. */
export async function capture(
  root: string,
  mark: string,
  changes: Partial<CaptureRequest> = {},
  steps: Steps = plainSteps,
): Promise<Capture> {
  const host = new QemuHost(root);
  const [vm] = await host.listVms();
  if (vm === undefined) throw new Error(`there is no machine below ${root}`);
  const request: CaptureRequest = {
    vm,
    policy: { wanted: 'application', required: 'crash' },
    excludedDisks: [],
    freezeDeadlineMs: 60_000,
    ...changes,
  };
  const [outcome] = await host.capture([request], mark, steps);
  return captureOf(outcome);
}

/** Releases the mark at all machines below `root`; what stood in the way at the first that failed. */
export async function release(root: string, mark: string): Promise<FirnError | undefined> {
  const host = new QemuHost(root);
  const outcomes = await host.release(await host.listVms(), mark, 60_000, plainSteps);
  return outcomes.find((outcome) => outcome.error !== undefined)?.error;
}

export interface Child {
  process: ChildProcess;
  /** Waits for a line that begins so; fails when the child ends before. */
  until(moment: string): Promise<string>;
  /** What kill -9 does; or waits for the end that the child gave itself. */
  killed(): Promise<void>;
}

export interface ChildRun {
  root: string;
  action: 'capture' | 'release';
  mark: string;
  /** "merge:begun": the child kills itself there. */
  dieAt?: string;
  /** Where it stops as if by SIGSTOP, until it is sent SIGCONT. */
  stopAt?: string;
  freezeDeadlineMs?: number;
  /** Tracks, and counts from these references. */
  since?: readonly unknown[];
  /** Copies the captured disks into this folder until it is killed. */
  copyTo?: string;
}

/** Starts a run as a process of its own. */
export function startRun(run: ChildRun): Child {
  assertCompiled();
  const child = spawn(process.execPath, [CHILD, JSON.stringify(run)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const told: string[] = [];
  let wake = () => {};
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    told.push(line);
    wake();
  });
  lines.on('close', () => {
    told.push('');
    wake();
  });
  return {
    process: child,
    async until(moment) {
      for (let next = 0; ; ) {
        for (; next < told.length; next++) {
          const line = told[next] ?? '';
          if (line.startsWith(moment)) return line;
          if (line === '') throw new Error(`the run ended before "${moment}": ${told.join(', ')}`);
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async killed() {
      if (run.dieAt === undefined) child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The child runs what is in dist/: it must be what the sources say. */
function assertCompiled(): void {
  const source = path.join(ROOT, 'src/hosts/qemu');
  for (const name of readdirSync(source)) {
    const compiled = path.join(ROOT, 'dist/hosts/qemu', name.replace(/\.ts$/, '.js'));
    const age = statSync(compiled, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (age < statSync(path.join(source, name)).mtimeMs) {
      throw new Error('dist/ is missing or older than src/: run "npm run build:ts" first');
    }
  }
}
