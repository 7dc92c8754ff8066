/**
 * The bridge to PowerShell: one request goes over, one document comes back.
 *
 * node-powershell keeps a PowerShell running and writes lines to it. It is given one constant line, of which only a base64 text differs:
 * nothing that anybody has named reaches PowerShell as code. That line runs scripts/call.ps1, which answers with one framed base64 text; what
 * else is printed, on either stream, is let pass (node-powershell itself would take any word on standard error for a failure). Errors are
 * data in the reply.
 *
 * A shell does one thing at a time; a bridge has several and takes the next idle one. A call that is aborted or late costs its shell: a
 * command cannot be taken back, so the shell is killed and the next call gets a new one. What it had begun on the host may go on there;
 * all operations are made so that they can be asked for again.
 */

import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { PowerShell } from 'node-powershell';
import type { z } from 'zod';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import { fromFault } from './faults.js';
import { replySchema } from './replies.js';
import type { Target } from './spec.js';

/** The folder with the scripts, beside this file in src and in dist. */
export const SCRIPTS = fileURLToPath(new URL('./scripts', import.meta.url));
// The scripts' folder goes over in the environment, so that its name is no code either.
const CALL =
  "& ([scriptblock]::Create([System.IO.File]::ReadAllText([System.IO.Path]::Combine($env:FIRN_HYPERV_SCRIPTS, 'call.ps1')))) ";
const CALL_DEADLINE_MS = 120_000;

export interface BridgeOptions {
  /** The PowerShell to start; FIRN_PWSH, Windows PowerShell on Windows, and pwsh elsewhere, when not given. */
  executable?: string | undefined;
  /** How many calls may be under way at once; 3 when not given. */
  shells?: number | undefined;
  /** For the PowerShell, besides this process's own. */
  environment?: Readonly<Record<string, string>> | undefined;
}

export interface CallOptions {
  /** The time for the call itself, without waiting for a shell; 2 min when not given. */
  deadlineMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface CallResult<Result> {
  result: Result;
  warnings: string[];
}

/** One PowerShell, or several, that do the work of one target. Its operations are those of scripts/host.ps1. */
export class Bridge {
  readonly target: Target;
  readonly #executable: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #limit: number;
  readonly #idle: PowerShell[] = [];
  readonly #busy = new Set<PowerShell>();
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(target: Target, { executable, shells = 3, environment }: BridgeOptions = {}) {
    this.target = target;
    this.#executable = executable ?? defaultExecutable();
    this.#limit = shells;
    this.#environment = {
      ...process.env,
      POWERSHELL_TELEMETRY_OPTOUT: '1',
      POWERSHELL_UPDATECHECK: 'Off',
      ...environment,
      FIRN_HYPERV_SCRIPTS: SCRIPTS,
    };
  }

  /**
   * Has an operation done on the target. Rejects with the FirnError of what the host answered, ERR_HOST_UNREACHABLE if there is no
   * PowerShell or no session to the target, ERR_DEADLINE, ERR_ABORTED, and ERR_HOST_FAILED for an answer that is none.
   */
  async call<Schema extends z.ZodType>(
    operation: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: Schema,
    options: CallOptions = {},
  ): Promise<CallResult<z.output<Schema>>> {
    throwIfAborted(operation, options.signal);
    const shell = await this.#take();
    let healthy = false;
    try {
      const id = randomUUID();
      const line = callLine({ id, target: this.target, operation, parameters });
      const output = await this.#invoke(shell, operation, line, options);
      healthy = true;
      const reply = replySchema.safeParse(unframe(operation, id, output));
      if (!reply.success) throw unexpected(operation, reply.error);
      if (!reply.data.ok) throw fromFault(reply.data.error);
      const result = schema.safeParse(reply.data.result);
      if (!result.success) throw unexpected(operation, result.error);
      return { result: result.data, warnings: reply.data.warnings };
    } finally {
      this.#giveBack(shell, healthy);
    }
  }

  /** Ends the shells; calls that are under way fail. What they held on the host for their lifetime goes with them. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const resume of this.#waiting.splice(0)) resume();
    const shells = [...this.#idle.splice(0), ...this.#busy];
    await Promise.all(shells.map(kill));
  }

  async #take(): Promise<PowerShell> {
    while (!this.#closed && this.#idle.length === 0 && this.#busy.size >= this.#limit) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#closed) throw firnError('ERR_ABORTED', 'The host was closed');
    const shell = this.#idle.pop() ?? this.#start();
    this.#busy.add(shell);
    return shell;
  }

  #giveBack(shell: PowerShell, healthy: boolean): void {
    this.#busy.delete(shell);
    // It keeps all it has ever printed.
    shell.history.length = 0;
    if (healthy && !this.#closed) this.#idle.push(shell);
    else void kill(shell);
    this.#waiting.shift()?.();
  }

  #start(): PowerShell {
    return new PowerShell({
      executable: this.#executable,
      executableOptions: {
        '-NoProfile': true,
        '-NonInteractive': true,
        // The option is refused outside of Windows.
        ...(process.platform === 'win32' && { '-ExecutionPolicy': 'Bypass' }),
      },
      spawnOptions: { env: this.#environment, windowsHide: true },
      throwOnInvocationError: false,
    });
  }

  /** Runs one line and gives what it printed. Rejects if the shell died, was late or the signal fired; then the shell is not to be used again. */
  #invoke(
    shell: PowerShell,
    operation: string,
    line: string,
    { deadlineMs = CALL_DEADLINE_MS, signal }: CallOptions,
  ): Promise<string> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        finish();
      };
      const abort = () => settle(() => reject(aborted(operation, signal)));
      const timer = setTimeout(() => {
        const message = `${operation}: PowerShell gave no answer in ${deadlineMs} ms`;
        settle(() => reject(firnError('ERR_DEADLINE', message)));
      }, deadlineMs);
      signal?.addEventListener('abort', abort, { once: true });
      shell.invoke(line).then(
        ({ stdout }) =>
          settle(() => {
            // It ended by itself: its standard output was never cut into an answer.
            if (stdout === undefined) reject(this.#died(operation, undefined));
            else resolve(stdout.toString('utf8'));
          }),
        (error: unknown) => settle(() => reject(this.#died(operation, error))),
      );
    });
  }

  #died(operation: string, cause: unknown): FirnError {
    const missing = (cause as { originalError?: NodeJS.ErrnoException })?.originalError?.code;
    if (missing === 'ENOENT' || missing === 'EACCES') {
      return firnError('ERR_HOST_UNREACHABLE', `There is no PowerShell here: ${this.#executable}`, {
        hint: 'Install PowerShell, or name it in FIRN_PWSH.',
        retryable: false,
        cause,
      });
    }
    return firnError('ERR_HOST_UNREACHABLE', `${operation}: PowerShell ended before it answered`, {
      cause,
    });
  }
}

function defaultExecutable(): string {
  const named = process.env.FIRN_PWSH;
  if (named) return named;
  if (process.platform !== 'win32') return 'pwsh';
  // Not PowerShell 7: on hosts before 2019 it reaches the Hyper-V module through a second PowerShell, which loses what its objects can do.
  const windows = process.env.SystemRoot ?? 'C:\\Windows';
  return path.win32.join(windows, 'System32', 'WindowsPowerShell', 'v1.0', 'powershell.exe');
}

async function kill(shell: PowerShell): Promise<void> {
  // It rejects as the shell did not end in peace.
  await shell.dispose('SIGKILL').catch(() => undefined);
}

/** All that PowerShell is ever told. */
export function callLine(document: {
  id: string;
  target: Target;
  operation: string;
  parameters: Readonly<Record<string, unknown>>;
}): string {
  return `${CALL}'${Buffer.from(JSON.stringify(document), 'utf8').toString('base64')}'`;
}

/** The document in the frame with this request's id, out of all that was printed. */
function unframe(operation: string, id: string, output: string): unknown {
  const frame = new RegExp(`<<FIRN (?:${id})? ([A-Za-z0-9+/=]+) FIRN>>`).exec(output);
  if (frame?.[1] === undefined) {
    const printed = output.trim().slice(0, 200);
    throw firnError('ERR_HOST_FAILED', `${operation}: PowerShell gave no answer: "${printed}"`);
  }
  try {
    return JSON.parse(Buffer.from(frame[1], 'base64').toString('utf8'));
  } catch (cause) {
    throw firnError('ERR_HOST_FAILED', `${operation}: PowerShell's answer is no JSON`, { cause });
  }
}

function unexpected(operation: string, cause: z.ZodError): FirnError {
  const [issue] = cause.issues;
  const place = `${issue?.path.join('.')}: ${issue?.message}`;
  return firnError(
    'ERR_HOST_FAILED',
    `${operation}: the host's answer is not as expected: ${place}`,
    {
      cause,
    },
  );
}

function aborted(operation: string, signal: AbortSignal | undefined): FirnError {
  const reason: unknown = signal?.reason;
  // A deadline fires the signal too, and says so.
  if (isFirnError(reason)) return reason;
  const code =
    (reason as Error | undefined)?.name === 'TimeoutError' ? 'ERR_DEADLINE' : 'ERR_ABORTED';
  return firnError(code, `${operation} was given up`, { cause: reason });
}

function throwIfAborted(operation: string, signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted(operation, signal);
}
