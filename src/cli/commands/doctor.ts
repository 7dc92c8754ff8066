/**
 * `firn doctor`: looks at all that would make a backup fail, before one does: the engine, the repository, the journal, on Windows this
 * computer, the host, and what earlier runs or other programs left there. Changes nothing.
 */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { isFirnError } from '../../errors.js';
import { type Check, type Leftover, runOfMark } from '../../hosts/host.js';
import type { KeptReference } from '../../hosts/tracking.js';
import type { Journal } from '../../jobs/runs/journal.js';
import type { Context, Register } from '../context.js';
import {
  addHostOption,
  addStateOption,
  findRun,
  type HostFlags,
  hostSpec,
  nameList,
  type StateFlags,
  withHost,
  withJournal,
} from '../machines.js';
import { formatBytes, formatNumberOf } from '../ui/bytes.js';
import { paint, printable, type TextStream } from '../ui/text.js';

/** A check, and what it looked at: "journal", "host". */
type Finding = Check & { about: string };

export function defineDoctor(program: Command, register: Register): void {
  const command = program
    .command('doctor')
    .description('look at all that would make a backup fail');
  addStateOption(addHostOption(command)).action(register(doctor));
}

async function doctor(context: Context, flags: HostFlags & StateFlags) {
  const findings: Finding[] = [
    await examine('firn', 'engine', checkEngine),
    ...(context.hasRepository
      ? [await examine('firn', 'repository', () => checkRepository(context))]
      : []),
    await examine('journal', 'runs', () => withJournal(flags, checkRuns)),
    ...(process.platform === 'win32' ? await examineComputer(context) : []),
  ];
  const spec = hostSpec(flags);
  if (spec !== undefined) findings.push(...(await examineHost(spec, flags)));
  const failed = findings.some(({ state }) => state === 'error');
  context.output.document({ ok: !failed, checks: findings });
  context.output.text(...findings.flatMap((each) => findingLines(each, context.output.stdout)));
  if (spec === undefined) context.output.note('no host was looked at: that is --host');
  return failed ? 1 : 0;
}

/** What fails is a finding too: a doctor that stops at the first illness is none. */
async function examine(
  about: string,
  name: string,
  look: () => Promise<Check> | Check,
): Promise<Finding> {
  try {
    return { about, ...(await look()) };
  } catch (error) {
    const [first = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
    const hint = isFirnError(error) ? error.hint : hintForLibrary(error);
    const message = isFirnError(error) ? `${error.code} ${first}` : first;
    return { about, name, state: 'error', message, ...(hint === undefined ? {} : { hint }) };
  }
}

/** A dependency with an addon of its own says no more than that "a module" was not found. */
function hintForLibrary(error: unknown): string | undefined {
  if ((error as NodeJS.ErrnoException).code !== 'ERR_DLOPEN_FAILED') return undefined;
  return process.platform === 'win32'
    ? 'Install the Microsoft Visual C++ Redistributable (x64): the database of the journal needs it.'
    : "Install Firn's dependencies again on this very system: npm ci.";
}

async function examineComputer(context: Context): Promise<Finding[]> {
  const { checkComputer } = await import('../../hosts/hyperv/computer.js');
  const repository = context.hasRepository ? resolve(context.repository) : undefined;
  const checks = await checkComputer({ repository, program: process.execPath });
  return checks.map((check) => ({ about: 'computer', ...check }));
}

function ok(name: string, message: string): Check {
  return { name, state: 'ok', message };
}

async function checkEngine(): Promise<Check> {
  const { loadEngine } = await import('../../engine/engine.js');
  return ok('engine', `version ${loadEngine().version()}, Node ${process.versions.node}`);
}

async function checkRepository(context: Context): Promise<Check> {
  const repository = await context.openRepository();
  if (!repository.canRead)
    return ok('repository', `${repository.path}, with a key that only writes`);
  const points = await repository.points();
  return ok('repository', `${formatNumberOf(points.length, 'point')} in ${repository.path}`);
}

function checkRuns(journal: Journal): Check {
  const unfinished = journal.unfinished();
  const dead = unfinished.filter(({ state }) => state === 'dead');
  const active = unfinished.length - dead.length;
  const under = active > 0 ? `, ${formatNumberOf(active, 'run')} under way` : '';
  if (dead.length === 0)
    return ok('runs', `nothing is left to finish in ${journal.folder}${under}`);
  const vms = dead.flatMap((run) => run.vms.filter((vm) => vm.state !== 'released'));
  return {
    name: 'runs',
    state: 'warning',
    message: `${formatNumberOf(dead.length, 'run')} died or left something at ${nameList(vms)}${under}`,
    hint: 'Run "firn reconcile"; "firn runs show RUN" says how far it came.',
  };
}

async function examineHost(spec: string, flags: StateFlags): Promise<Finding[]> {
  const about = 'host';
  let more: Finding[] = [];
  const first = await examine(about, 'answers', () =>
    withHost(spec, async (host) => {
      const { name, version, method } = await host.info();
      more = (await host.check()).map((check) => ({ about, ...check }));
      for (const leftover of await host.leftovers()) {
        const found = () => withJournal(flags, (journal) => checkLeftover(leftover, journal));
        more.push(await examine(about, leftover.kind, found));
      }
      for (const reference of (await host.tracking?.references()) ?? []) {
        more.push({ about, ...checkReference(reference) });
      }
      return ok('answers', `${name}, ${version}, captures by ${method}`);
    }),
  );
  return [first, ...more];
}

/** What stands on the host: of a live run, of a dead one, of an unknown one, or somebody else's. */
function checkLeftover({ kind, name, vm, mark, detail }: Leftover, journal: Journal): Check {
  const at = vm === undefined ? '' : ` at ${vm.name}`;
  const more = detail === undefined ? '' : ` (${detail})`;
  const warning = (whose: string, hint: string): Check => {
    return { name: kind, state: 'warning', message: `${name}${at}: ${whose}${more}`, hint };
  };
  if (mark === undefined) return warning("not Firn's: left alone", 'Whoever made it removes it.');
  const id = runOfMark(mark) ?? mark;
  const run = findRun(journal, id);
  if (run?.state === 'active') return ok(kind, `${name}${at}: of a run that is under way${more}`);
  if (run !== undefined) {
    const whose = run.state === 'dead' ? 'of a run that died' : 'of a run that is over';
    return warning(whose, 'Run "firn reconcile --host SPEC".');
  }
  return warning(
    'of a run that this journal does not know',
    `If no other computer is at it: firn reconcile --host SPEC --run ${id}`,
  );
}

/** Kept on purpose, at a cost: named, so that nobody has to wonder whose it is. */
function checkReference({ name, vm, method, made, bytes }: KeptReference): Check {
  const since = made === undefined ? '' : ` since ${made}`;
  const size = bytes === undefined ? '' : `, ${formatBytes(bytes)}`;
  return ok('reference', `${name} at ${vm.name}: ${method}${since}${size}`);
}

const SIGNS = { ok: 'green', warning: 'yellow', error: 'red', unknown: 'dim' } as const;

function findingLines({ about, name, state, message, hint }: Finding, stream: TextStream) {
  const sign = paint(stream, SIGNS[state], state.padEnd('warning'.length));
  return [
    `${sign}  ${printable(`${about} ${name}: ${message}`)}`,
    ...(hint === undefined || state === 'ok' ? [] : [`         ${printable(hint)}`]),
  ];
}
