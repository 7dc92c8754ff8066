/**
 * Starts the process of a machine, detached: it lives on when the process that started it ends.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { firnError } from '../../errors.js';
import { processStatus } from './control.js';

const START_DEADLINE_MS = 60_000;
const POLL_MS = 20;
const LOG_FILE = 'vm.log';
const WORD_MAX = 600;

/** Starts the machine and waits until its guest runs; does nothing if it does already. ERR_HOST_FAILED with what the process said. */
export async function startVm(folder: string, name: string): Promise<void> {
  if ((await running(folder)) !== undefined) return;
  const log = openSync(join(folder, LOG_FILE), 'w', 0o600);
  let child: ChildProcess;
  try {
    child = spawn(process.execPath, [programPath('vm-main.js'), folder], {
      detached: true,
      stdio: ['ignore', log, log],
      windowsHide: true,
    });
  } finally {
    closeSync(log);
  }
  let failure: string | undefined;
  child.on('error', (error) => {
    failure = error.message;
  });
  child.on('exit', (code, signal) => {
    failure = `it ended with ${code ?? signal}: ${lastWord(folder)}`;
  });
  child.unref();
  const until = performance.now() + START_DEADLINE_MS;
  try {
    while ((await running(folder)) === undefined) {
      if (failure === undefined && performance.now() > until) failure = 'it does not answer';
      if (failure !== undefined) {
        throw firnError('ERR_HOST_FAILED', `${name} did not start: ${failure}`, { path: folder });
      }
      await sleep(POLL_MS);
    }
  } finally {
    // It outlives this process, and its end is no business of this one any more.
    child.removeAllListeners('exit');
  }
}

// A process that answers that it is starting is not there yet.
async function running(folder: string) {
  try {
    return await processStatus(folder);
  } catch {
    return undefined;
  }
}

function lastWord(folder: string): string {
  const lines = readFileSync(join(folder, LOG_FILE), 'utf8').trim().split('\n');
  return (lines.at(-1) ?? '').slice(0, WORD_MAX);
}

/** A compiled program of this folder. From source, as under a test runner, it is in dist/. ERR_HOST_FAILED if it is not built. */
export function programPath(name: string): string {
  const fromSource = import.meta.url.endsWith('.ts');
  const base = fromSource ? '../../../dist/hosts/lab/' : './';
  const path = fileURLToPath(new URL(base + name, import.meta.url));
  if (existsSync(path)) return path;
  throw firnError('ERR_HOST_FAILED', `The program of a machine is not at ${path}`, {
    path,
    hint: 'Run "npm run build:ts".',
  });
}
