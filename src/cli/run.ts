/**
 * Runs one command line: parses it, runs its command, and turns what became of it into words and an exit code.
 *
 * docs/cli.md is the reference, docs/errors.md lists the codes.
 */

import { type Command, CommanderError } from 'commander';
import { firnError, isFirnError } from '../errors.js';
import { Context } from './context.js';
import { catchInterrupts } from './interrupt.js';
import { createProgram } from './program.js';
import { Output, type OutputStream } from './ui/output.js';

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

/** Runs a command line (without the two first elements of process.argv) and gives its exit code; never throws. */
export async function runCommandLine(
  argv: readonly string[],
  streams: { stdout: OutputStream; stderr: OutputStream },
): Promise<number> {
  // Needed before the parser knows the options: a mistake in them has to be reported too.
  const options = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : undefined);
  const debug = options.includes('--debug');
  const output = new Output({
    json: options.includes('--json'),
    quiet: options.includes('--quiet') || options.includes('-q'),
    ...streams,
  });
  const interrupt = catchInterrupts((name) =>
    output.note(`${name}: ending in order; once more ends at once`),
  );
  const began = performance.now();
  let exitCode = 0;
  let command = argv[0] ?? '';
  let repository = process.env.FIRN_REPOSITORY;
  let failure: unknown;
  try {
    const program = await createProgram(argv, async (globals, action, name) => {
      command = name;
      repository = globals.repo ?? repository;
      exitCode = (await action(new Context(output, interrupt.signal, globals))) ?? 0;
    });
    configure(program, output);
    await program.parseAsync(argv, { from: 'user' });
  } catch (error) {
    exitCode = report(error, output, debug);
    failure = exitCode === 0 ? undefined : error;
  } finally {
    interrupt.dispose();
  }
  if (options.includes('--event-log') || process.env.FIRN_EVENT_LOG === '1') {
    const { reportEnding } = await import('./event-log.js');
    const seconds = (performance.now() - began) / 1000;
    await reportEnding({ command, repository, exitCode, error: failure, seconds }, output);
  }
  return exitCode;
}

function configure(command: Command, output: Output): void {
  command.exitOverride();
  command.configureOutput({
    writeOut: (text) => output.text(text.trimEnd()),
    // Help after a mistake; the mistake itself arrives as an exception.
    writeErr: (text) => output.rawStderr(text),
    outputError: () => {},
    getOutHelpWidth: () => output.stdout.columns ?? 80,
    getErrHelpWidth: () => output.stderr.columns ?? 80,
  });
  for (const child of command.commands) configure(child, output);
}

function report(error: unknown, output: Output, debug: boolean): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0; // help and version are no failures
    if (error.code === 'commander.help') return EXIT_USAGE; // help was printed because no command was given
    const usage = firnError('ERR_INVALID_ARGUMENT', error.message.replace(/^error: /, ''), {
      hint: 'firn --help lists the commands, firn <command> --help its options.',
      cause: error,
    });
    output.fail(usage, EXIT_USAGE, debug);
    return EXIT_USAGE;
  }
  const exitCode = isFirnError(error) ? error.exitCode : EXIT_FAILED;
  output.fail(error, exitCode, debug);
  return exitCode;
}
