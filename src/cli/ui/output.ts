/**
 * Where a command's words go: results on standard output, progress and complaints on standard error.
 *
 * With --json, standard output carries JSON alone: one document for a query, and for a run one object a line, each with a message_type
 * (status, error, summary; for machines also step, warning and vm). Sizes are integers of bytes, times are RFC 3339, durations are seconds; fields are only ever added.
 * A reader that goes away (EPIPE) ends the output and not the work: a backup whose log was piped into `head` still seals its point.
 */

import { describe, isFirnError } from '../../errors.js';
import { paint, printable, type TextStream } from './text.js';

/** What Output needs of a stream; process.stdout is one. */
export interface OutputStream extends TextStream {
  write(text: string): unknown;
  on(event: 'error', listener: (error: NodeJS.ErrnoException) => void): unknown;
}

/** The message_type of a JSON line; docs/cli.md says what each has. */
export type MessageType = 'status' | 'step' | 'reading' | 'warning' | 'error' | 'vm' | 'summary';

export interface OutputOptions {
  json: boolean;
  quiet: boolean;
  stdout: OutputStream;
  stderr: OutputStream;
}

export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly #closed = new Set<OutputStream>();
  /** Called before each line to standard error, so that the progress line can step aside. */
  beforeStderr: () => void = () => {};

  constructor(options: OutputOptions) {
    this.json = options.json;
    this.quiet = options.quiet;
    this.stdout = options.stdout;
    this.stderr = options.stderr;
    for (const stream of [options.stdout, options.stderr]) {
      stream.on('error', (error) => {
        if (error.code !== 'EPIPE') throw error;
        this.#closed.add(stream);
      });
    }
  }

  /** Lines for people; nothing with --json. */
  text(...lines: string[]): void {
    if (!this.json) this.#write(this.stdout, lines);
  }

  /** The one JSON document of a query; nothing without --json. */
  document(value: object): void {
    if (this.json) this.#write(this.stdout, [JSON.stringify(value)]);
  }

  /** One JSON line of a run; nothing without --json. */
  message(type: MessageType, value: object): void {
    if (this.json) this.document({ message_type: type, ...value });
  }

  /** A line for people that is not a result; nothing with --json or --quiet. */
  note(line: string): void {
    if (!this.json && !this.quiet) this.#complain([line]);
  }

  /** Something that a person must not miss, though nothing failed; also with --quiet. `members` are for JSON. */
  warning(line: string, members: object = {}): void {
    if (this.json) this.message('warning', { message: line, ...members });
    else this.#complain([`${paint(this.stderr, 'yellow', 'warning:')} ${printable(line)}`]);
  }

  /** A defect or a failure after which the command goes on. `members` are for JSON. */
  problem(
    problem: { code: string; message: string; path?: string; offset?: number; op?: string },
    members: object = {},
  ): void {
    if (this.json) this.message('error', { error: problem, ...members });
    else
      this.#complain([
        `${paint(this.stderr, 'red', problem.code)} ${printable(describe(problem))}`,
      ]);
  }

  /** The last words of a command that failed. */
  fail(error: unknown, exitCode: number, debug: boolean): void {
    const known = isFirnError(error);
    if (this.json) {
      const shown = known
        ? { ...error.toJSON(), ...(debug ? { stack: error.stack } : {}) }
        : {
            code: 'ERR_INTERNAL',
            message: messageOf(error),
            ...(debug ? { stack: stackOf(error) } : {}),
          };
      const line = { message_type: 'exit_error', code: exitCode, error: shown };
      this.#complain([JSON.stringify(line)]);
      return;
    }
    const lines = [`firn: ${paint(this.stderr, 'red', printable(messageOf(error), true))}`];
    if (known) {
      if (error.hint !== undefined) lines.push(`      ${printable(error.hint)}`);
      lines.push(paint(this.stderr, 'dim', `      ${error.code}, exit ${exitCode}`));
    }
    if (debug) lines.push(stackOf(error));
    this.#complain(lines);
  }

  /** Text as it is, to standard error: help after a mistake, the progress line. */
  rawStderr(text: string): void {
    if (!this.#closed.has(this.stderr)) this.stderr.write(text);
  }

  #complain(lines: string[]): void {
    this.beforeStderr();
    this.#write(this.stderr, lines);
  }

  #write(stream: OutputStream, lines: string[]): void {
    if (lines.length > 0 && !this.#closed.has(stream)) stream.write(`${lines.join('\n')}\n`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const own = error.stack ?? String(error);
  return error.cause === undefined ? own : `${own}\nCaused by: ${stackOf(error.cause)}`;
}
