/**
 * Runs the compiled command line as a process: exit codes, streams and signals are only real there.
 *
 * It is the file in dist/ that runs, so a dist/ older than its sources would test something else: that is an error here.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const MAIN = join(ROOT, 'dist/cli/main.js');

export interface Finished {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Standard output as JSON: one document, or one a line. */
export function jsonLines(finished: Finished): Record<string, unknown>[] {
  return finished.stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** The last line on standard error, as --json has it after a failure. */
export function exitError(finished: Finished): {
  message_type: string;
  code: number;
  error: Record<string, unknown> & { code: string };
} {
  return JSON.parse(finished.stderr.trimEnd().split('\n').at(-1) ?? '');
}

export interface StartOptions {
  env?: Record<string, string>;
  cwd?: string;
}

/**
 * Starts firn; the caller waits for it with finish(). FIRN_ settings of whoever runs the tests do not reach it. Lines of progress come when
 * work takes long, so there are none on standard error unless a test asks for them.
 */
export function start(parameters: readonly string[], options: StartOptions = {}): ChildProcess {
  assertFresh();
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('FIRN_') || name === 'FIRN_ADDON',
  );
  const progress = parameters.includes('--json') ? {} : { FIRN_PROGRESS: 'never' };
  return spawn(process.execPath, [MAIN, ...parameters], {
    cwd: options.cwd,
    env: { ...Object.fromEntries(inherited), NO_COLOR: '1', ...progress, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

export async function finish(child: ChildProcess): Promise<Finished> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { status, signal, stdout, stderr };
}

/** Resolves when the process has said `text` on one of its streams; rejects if it ends without. */
export function said(child: ChildProcess, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let heard = '';
    const listen = (data: string | Buffer) => {
      heard += data;
      if (heard.includes(text)) resolve();
    };
    child.stdout?.on('data', listen);
    child.stderr?.on('data', listen);
    child.once('close', () => reject(new Error(`It ended without saying ${text}: ${heard}`)));
  });
}

export function firn(parameters: readonly string[], options: StartOptions = {}): Promise<Finished> {
  return finish(start(parameters, options));
}

let fresh: boolean | undefined;

function assertFresh(): void {
  fresh ??= existsSync(MAIN) && newest(join(ROOT, 'src')) <= statSync(MAIN).mtimeMs;
  if (!fresh) throw new Error('dist/ is missing or older than src/: run "npm run build:ts" first');
}

function newest(folder: string): number {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return Math.max(
    ...files.map((entry) => statSync(join(entry.parentPath ?? entry.path, entry.name)).mtimeMs),
  );
}
