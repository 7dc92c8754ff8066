/**
 * What the commands for machines share: which host, which state folder, and how machines and runs are said in a line.
 *
 * Hosts and the journal are opened here and closed whatever becomes of the command. Both are loaded only then.
 */

import { type Command, Option } from 'commander';
import { firnError, isFirnError } from '../errors.js';
import { type Host, refOf, type VmRef } from '../hosts/host.js';
import type { Journal } from '../jobs/runs/journal.js';
import { stateFolder } from '../jobs/runs/state-folder.js';
import type { RunRecord } from '../jobs/runs/types.js';
import type { Output } from './ui/output.js';
import { printable } from './ui/text.js';

/** So many digits of a run's or a point's id are shown where there is little room. */
export const ID_DIGITS = 8;

export interface HostFlags {
  host?: string;
}

export interface StateFlags {
  state?: string;
}

export function addHostOption(command: Command): Command {
  return command.addOption(
    new Option('--host <host>', 'where they run: hyperv, lab:DIR, ... (or FIRN_HOST)'),
  );
}

export function addStateOption(command: Command): Command {
  return command.option('--state <dir>', 'the folder with the journal of runs (or FIRN_STATE)');
}

/** The host that was asked for; `fallback` is a job file's and comes before the environment. Undefined if there is none. */
export function hostSpec({ host }: HostFlags, fallback?: string): string | undefined {
  return host || fallback || process.env.FIRN_HOST || undefined;
}

/** The same where a command cannot do without. ERR_INVALID_ARGUMENT. */
export function requiredHost(flags: HostFlags, fallback?: string): string {
  const spec = hostSpec(flags, fallback);
  if (spec !== undefined) return spec;
  throw firnError('ERR_INVALID_ARGUMENT', 'No host was given', {
    hint: 'Pass --host SPEC, or set FIRN_HOST: hyperv, hyperv:wsman://COMPUTER, lab:DIR or qemu:DIR.',
  });
}

/** Opens a host for `work`. */
export async function withHost<Result>(
  spec: string,
  work: (host: Host) => Promise<Result>,
): Promise<Result> {
  const { openHost } = await import('../hosts/open.js');
  const host = await openHost(spec);
  try {
    return await work(host);
  } finally {
    await host.close();
  }
}

/** Opens the journal in --state, FIRN_STATE or the usual folder for `work`. */
export async function withJournal<Result>(
  { state }: StateFlags,
  work: (journal: Journal) => Promise<Result> | Result,
): Promise<Result> {
  const { Journal } = await import('../jobs/runs/journal.js');
  const journal = Journal.open(stateFolder(state));
  try {
    return await work(journal);
  } finally {
    journal.close();
  }
}

/** The run whose id begins so, or undefined if the journal has none. */
export function findRun(journal: Journal, id: string): RunRecord | undefined {
  try {
    return journal.run(id).run;
  } catch (error) {
    if (isFirnError(error) && error.code === 'ERR_RUN_NOT_FOUND') return undefined;
    throw error;
  }
}

/** Names of machines for a sentence: "web, db and 3 more". */
export function nameList(vms: readonly VmRef[], shown = 5): string {
  const names = vms.slice(0, shown).map(({ name }) => name);
  const rest = vms.length - names.length;
  return rest > 0 ? `${names.join(', ')} and ${rest} more` : names.join(', ');
}

/** Reports a failure after which the command goes on, with the next step; with --json all of the error, and whose it is. */
export function reportFailure(output: Output, error: unknown, vm?: VmRef): void {
  const known = isFirnError(error) ? error : firnError('ERR_INTERNAL', String(error));
  const { code, message, hint } = known;
  // Most messages begin with the machine's name; not those of the engine.
  const text = vm === undefined || message.startsWith(vm.name) ? message : `${vm.name}: ${message}`;
  output.problem({ code, message: text }, { vm: vm && refOf(vm), error: known.toJSON() });
  if (hint !== undefined) output.note(`      ${printable(hint)}`);
}
