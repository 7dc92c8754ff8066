/**
 * Tells the Windows event log how a command ended, for whoever watches servers there (--event-log): one event a command, with an id that
 * means the same in every version. A command's outcome is never changed by its event: where it cannot be written, that is a warning.
 */

import { isFirnError } from '../errors.js';
import type { FirnEvent } from '../hosts/hyperv/computer.js';
import type { Output } from './ui/output.js';

const EXIT_IN_PART = 3;
const EXIT_INTERRUPTED = 130;

export interface Ending {
  /** The words that name it, without options or arguments, in which there may be secrets: "backup", "key add". */
  command: string;
  /** Of the repository as it was given, if it was. */
  repository: string | undefined;
  exitCode: number;
  error: unknown;
  seconds: number;
}

/** The event for how a command ended. */
export function eventOf({ command, repository, exitCode, error, seconds }: Ending): FirnEvent {
  const [id, level, word] = outcomeOf(exitCode);
  const lines = [
    `firn ${command}: ${word}`,
    ...(error === undefined ? [] : [messageOf(error)]),
    '',
    ...(repository === undefined ? [] : [`Repository: ${repository}`]),
    `Exit code: ${exitCode}`,
    `Time: ${seconds.toFixed(1)} s`,
  ];
  return { id, level, message: lines.join('\r\n') };
}

function outcomeOf(exitCode: number): [number, FirnEvent['level'], string] {
  switch (exitCode) {
    case 0:
      return [1, 'Information', 'done'];
    case EXIT_IN_PART:
      return [2, 'Warning', 'done in part'];
    case EXIT_INTERRUPTED:
      return [4, 'Warning', 'interrupted'];
    default:
      return [3, 'Error', 'failed'];
  }
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  if (!isFirnError(error)) return message;
  return `${error.code}: ${message}${error.hint === undefined ? '' : `\r\n${error.hint}`}`;
}

/** Writes the event; what keeps it from being written is a warning. Never throws. */
export async function reportEnding(ending: Ending, output: Output): Promise<void> {
  try {
    const { writeEvent } = await import('../hosts/hyperv/computer.js');
    await writeEvent(eventOf(ending));
  } catch (error) {
    const [first] = messageOf(error).split(/\r?\n/);
    output.warning(`the event log was not told how this ended: ${first}`);
  }
}
