/** Times a whole process: from its start to its end, and until what it wrote is durable, so that tools that leave that to the kernel compare. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readdir } from 'node:fs/promises';
import path from 'node:path';
import { firnError } from '../errors.js';

export interface Command {
  program: string;
  args: string[];
  cwd?: string;
  env?: Record<string, string>;
}

const TAIL_CHARACTERS = 2000;

/** Seconds that the command took. Rejects with its last words if it fails, and with AbortError when it was ended for the signal. */
export async function timeCommand(command: Command, signal: AbortSignal): Promise<number> {
  const begun = performance.now();
  const child = spawn(command.program, command.args, {
    cwd: command.cwd,
    env: { ...process.env, ...command.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  });
  let tail = '';
  const keep = (text: string) => {
    tail = (tail + text).slice(-TAIL_CHARACTERS);
  };
  child.stdout.setEncoding('utf8').on('data', keep);
  child.stderr.setEncoding('utf8').on('data', keep);
  const [status, endedBy] = (await once(child, 'close').catch((error: unknown) => {
    if (signal.aborted)
      throw firnError('ERR_ABORTED', 'The operation was aborted', { cause: signal.reason });
    throw error;
  })) as [number | null, string | null];
  if (status !== 0) {
    throw firnError(
      'ERR_INCOMPLETE',
      `${command.program} ended with ${status ?? endedBy}: ${tail.trim().split('\n').at(-1) ?? ''}`,
    );
  }
  return (performance.now() - begun) / 1000;
}

/** Seconds until all files below `place` are durable. */
export async function settle(place: string, isFile = false): Promise<number> {
  const begun = performance.now();
  const files = isFile ? [place] : await filesBelow(place);
  for (const file of files) {
    const handle = await open(file, 'r');
    await handle.sync().finally(() => handle.close());
  }
  return (performance.now() - begun) / 1000;
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
}
