/**
 * The Windows computer that Firn itself runs on, which need not be the host: what its account may do, what slows its files down, and its
 * event log. Asked through the same PowerShell as the host; docs/windows.md says how to set up what is looked for here.
 */

import { win32 } from 'node:path';
import type { z } from 'zod';
import type { Check } from '../host.js';
import { Bridge, type BridgeOptions } from './bridge.js';
import { asFirnError } from './policy.js';
import { type Computer, computerSchema, writtenSchema } from './replies.js';

/** Integrity levels of processes that have the rights of an administrator: high, and the system's. */
const ELEVATED = ['S-1-16-12288', 'S-1-16-16384'];
const HYPERV_ADMINISTRATORS = 'S-1-5-32-578';
/** LocalSystem and NetworkService are known elsewhere as the computer, LocalService as nobody. */
const SERVICE_ACCOUNTS = ['S-1-5-18', 'S-1-5-19', 'S-1-5-20'];
/** What DiskShadow needs of its caller; the others of docs/windows.md come with it. */
const BACKUP_RIGHT = 'SeBackupPrivilege';
const CALL_DEADLINE_MS = 30_000;
/** An event holds 31,839 characters (EventLog.WriteEntry). */
const EVENT_CHARACTERS = 30_000;

export interface ComputerQuestion {
  /** The repository's folder, if there is one. */
  repository: string | undefined;
  /** The program that reads and writes: node.exe. */
  program: string;
}

export interface FirnEvent {
  id: number;
  level: 'Information' | 'Warning' | 'Error';
  message: string;
}

/** The checks of this computer. What cannot be asked is a check too, of the state "unknown". */
export async function checkComputer(
  question: ComputerQuestion,
  options: BridgeOptions = {},
): Promise<Check[]> {
  try {
    return diagnoseComputer(await ask('computer', {}, computerSchema, options), question);
  } catch (error) {
    const { message } = asFirnError(error);
    const hint = 'Its account, its rights and Microsoft Defender were not looked at.';
    return [{ name: 'computer', state: 'unknown', message, hint }];
  }
}

/** Writes one event into the log "Application". Rejects with a FirnError: the source "Firn" is not registered, or there is no PowerShell. */
export async function writeEvent(event: FirnEvent, options: BridgeOptions = {}): Promise<void> {
  const message = event.message.slice(0, EVENT_CHARACTERS);
  await ask('write-event', { ...event, message }, writtenSchema, options);
}

async function ask<Schema extends z.ZodType>(
  operation: string,
  parameters: Readonly<Record<string, unknown>>,
  schema: Schema,
  options: BridgeOptions,
): Promise<z.output<Schema>> {
  const bridge = new Bridge({ kind: 'local' }, { ...options, shells: 1 });
  try {
    const deadline = { deadlineMs: CALL_DEADLINE_MS };
    return (await bridge.call(operation, parameters, schema, deadline)).result;
  } finally {
    await bridge.close();
  }
}

/** What the facts mean for backups. */
export function diagnoseComputer(computer: Computer, question: ComputerQuestion): Check[] {
  return [
    checkAccount(computer, question),
    checkRights(computer),
    ...checkDefender(computer, question),
    {
      name: 'long paths',
      state: 'ok',
      message: `${computer.longPaths ? 'On' : 'Off'} for other programs; Firn does not need them to be on`,
    },
    {
      name: 'event source',
      state: 'ok',
      message: computer.eventSource
        ? '"Firn" is registered'
        : '"Firn" is not registered: --event-log cannot write (New-EventLog -LogName Application -Source Firn)',
    },
  ];
}

function checkAccount({ account, sid }: Computer, { repository }: ComputerQuestion): Check {
  const name = 'account';
  const isShare = repository !== undefined && /^[\\/]{2}(?![?.][\\/])/.test(repository);
  if (!isShare || !SERVICE_ACCOUNTS.includes(sid)) return { name, state: 'ok', message: account };
  return {
    name,
    state: 'warning',
    message: `${account}, which the server of ${repository} knows as this computer or as nobody`,
    hint: 'Let the computer account (NAME$) write there, or run Firn as a group managed service account.',
  };
}

function checkRights({ groups, privileges }: Computer): Check {
  const name = 'rights';
  if (!groups.some((sid) => ELEVATED.includes(sid))) {
    const isOperator = groups.includes(HYPERV_ADMINISTRATORS);
    return {
      name,
      state: 'warning',
      message: isOperator
        ? 'Not elevated, but in Hyper-V Administrators: checkpoints work, VSS sets do not, and disks are read where the account may'
        : 'Not elevated: files are read where the account may, and a Hyper-V host on this computer refuses',
      hint: 'Start Firn in an elevated shell, or with the highest privileges from Task Scheduler.',
    };
  }
  const rights = ['SeBackupPrivilege', 'SeManageVolumePrivilege', 'SeSecurityPrivilege'];
  const held = rights.filter((right) => privileges.includes(right));
  const message = `Elevated; holds ${held.join(', ') || 'none of the rights of a backup operator'}`;
  if (held.includes(BACKUP_RIGHT)) return { name, state: 'ok', message };
  return {
    name,
    state: 'warning',
    message,
    hint: `DiskShadow (VSS sets, 2012 R2) refuses without ${BACKUP_RIGHT}: add the account to Backup Operators.`,
  };
}

function checkDefender({ defender }: Computer, { repository, program }: ComputerQuestion): Check[] {
  const name = 'Microsoft Defender';
  if (defender === null) {
    return [{ name, state: 'ok', message: 'Does not answer here: not installed, or off' }];
  }
  if (!defender.realTime) return [{ name, state: 'ok', message: 'Real-time protection is off' }];
  // To who is no administrator it answers with a sentence in the place of a path.
  if (![...defender.paths, ...defender.processes].every(isPlace)) {
    const message = 'What it excludes is told to administrators alone';
    return [{ name, state: 'unknown', message, hint: 'Ask again in an elevated shell.' }];
  }
  if (defender.processes.some((excluded) => isSameProgram(excluded, program))) {
    return [{ name, state: 'ok', message: `Lets what ${program} opens pass` }];
  }
  if (repository === undefined) return [];
  if (defender.paths.some((excluded) => isWithin(repository, excluded))) {
    return [{ name, state: 'ok', message: `Excludes ${repository}` }];
  }
  return [
    {
      name,
      state: 'warning',
      message: `Scans each file that is written to ${repository}`,
      hint: `If this slows backups down: Add-MpPreference -ExclusionPath '${repository.replaceAll("'", "''")}'.`,
    },
  ];
}

/** A path, or the name of a program. */
function isPlace(text: string): boolean {
  return text.includes('\\') || /^[a-z]:/i.test(text) || /^[^\s/]+\.[a-z]+$/i.test(text);
}

/** An exclusion is the program's whole path or its name alone. */
function isSameProgram(excluded: string, program: string): boolean {
  const [left, right] = [excluded.toLowerCase(), program.toLowerCase()];
  return left === right || left === win32.basename(right);
}

/** Whether a folder is another or below it. Wildcards and variables in exclusions are not resolved: they exclude nothing here. */
function isWithin(folder: string, excluded: string): boolean {
  const [inner, outer] = [folder, excluded].map((each) =>
    win32.resolve(each).toLowerCase().replace(/\\+$/, ''),
  ) as [string, string];
  return inner === outer || inner.startsWith(`${outer}\\`);
}
