/**
 * `firn lab`: machines without a hypervisor, in a folder, to try backups on: real disks, guests that write all the time and know what a copy
 * of them is worth, and faults that can be switched on.
 */

import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import { CONSISTENCIES, type Consistency, meetsConsistency } from '../../consistency.js';
import { firnError, fromFileSystem } from '../../errors.js';
import {
  FAULT_HELP,
  FAULT_NAMES,
  type FaultName,
  type GuestVerdict,
  type GuestVss,
  type LabStatus,
  type LabVmOutcome,
  type LabVmStatus,
} from '../../hosts/lab/types.js';
import { formatOfPath } from '../../jobs/target.js';
import { type Context, parse, type Register } from '../context.js';
import { reportFailure } from '../machines.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { fields, printable, table } from '../ui/text.js';

const VM_NAMES = ['web', 'db', 'files'];
const GUEST_VSS = ['application', 'filesystem', 'none'] as const satisfies readonly GuestVss[];

interface CreateFlags {
  vm?: string[];
  disks?: number;
  size?: number;
  data?: number;
  writes?: number;
  vss?: GuestVss;
  freeze?: number;
  volume?: number;
}

export function defineLab(program: Command, register: Register): void {
  const group = program
    .command('lab')
    .description('make and run machines to try backups on, without a hypervisor');
  defineCreate(group, register);
  group
    .command('start')
    .description('start the machines: their guests write until they are stopped')
    .argument('<dir>', 'the lab')
    .argument('[vms...]', 'which; all when not given')
    .action(register(start));
  group
    .command('stop')
    .description('shut the machines down')
    .argument('<dir>', 'the lab')
    .argument('[vms...]', 'which; all when not given')
    .action(register(stop));
  group
    .command('status')
    .description('show the machines, their layers, checkpoints and faults')
    .argument('<dir>', 'the lab')
    .action(register(status));
  defineFault(group, register);
  group
    .command('check')
    .description("check what a copy of a guest's disks is worth, such as a restored point")
    .argument('<images...>', 'one for each disk, or the folder that they are in')
    .option(
      '--expect <level>',
      'fail unless it is worth at least application, filesystem or crash',
      parse.oneOf('--expect', CONSISTENCIES),
    )
    .action(register(check));
}

function defineCreate(group: Command, register: Register): void {
  group
    .command('create')
    .description('make a lab in an empty folder')
    .argument('<dir>', 'the folder')
    .option(
      '--vm <name>',
      `a machine; may be given again; ${VM_NAMES.join(', ')} by default`,
      parse.list,
    )
    .option('--disks <n>', 'of each machine, 1 by default', parse.integer('--disks', 1, 8))
    .option('--size <size>', 'of each disk, 1G by default', parse.size('--size'))
    .option('--data <size>', 'on each disk, 96M by default', parse.size('--data'))
    .option(
      '--writes <n>',
      'records of 64 KiB rewritten in a second, 16 by default',
      parse.integer('--writes', 0, 100_000),
    )
    .option(
      '--vss <level>',
      `what guests can promise: ${GUEST_VSS.join(', ')}`,
      parse.oneOf('--vss', GUEST_VSS),
    )
    .option(
      '--freeze <time>',
      'how long freezing takes, 20ms by default',
      parse.duration('--freeze'),
    )
    .option('--volume <size>', 'how large the volume says it is', parse.size('--volume'))
    .action(register(create));
}

function defineFault(group: Command, register: Register): void {
  const width = Math.max(...FAULT_NAMES.map((name) => name.length));
  const help = FAULT_NAMES.map((name) => `  ${name.padEnd(width)}  ${FAULT_HELP[name]}`);
  group
    .command('fault')
    .description('make something go wrong, or no longer')
    .argument('<dir>', 'the lab')
    .argument('[name]', 'which fault; those that are on are listed when not given')
    .option('--vm <name>', 'at this machine only')
    .option('--once', 'once, and then no more')
    .option('--ms <n>', 'how much longer, for freeze-slow', parse.integer('--ms', 1, 86_400_000))
    .option(
      '--step <n>',
      'at which journal entry, for host-dies and firn-dies',
      parse.integer('--step', 1, 1_000_000),
    )
    .option('--clear', 'switch it off, or all when no name is given')
    .addHelpText('after', `\nFaults:\n${help.join('\n')}`)
    .action(register(fault));
}

async function create(context: Context, folder: string, flags: CreateFlags) {
  const lab = await import('../../hosts/lab/lab.js');
  const { vm: names = VM_NAMES, disks, size, data, writes, vss, freeze, volume } = flags;
  const made = await lab.createLab(folder, {
    vms: names.map((name) => ({
      name,
      disks,
      sizeBytes: size,
      dataBytes: data,
      writesPerSecond: writes,
      vss,
      freezeMs: freeze,
    })),
    volumeBytes: volume,
  });
  context.output.document(made);
  context.output.text(
    `made a lab of ${formatNumberOf(made.vms.length, 'machine')} in ${printable(made.folder)}`,
  );
  context.output.note(`start it with: firn lab start ${printable(folder)}`);
  return 0;
}

async function start(context: Context, folder: string, vms: string[]) {
  const lab = await import('../../hosts/lab/lab.js');
  return tellOutcomes(context, 'started', await lab.startLab(folder, someOrAll(vms)));
}

async function stop(context: Context, folder: string, vms: string[]) {
  const lab = await import('../../hosts/lab/lab.js');
  return tellOutcomes(context, 'stopped', await lab.stopLab(folder, someOrAll(vms)));
}

function someOrAll(vms: readonly string[]): readonly string[] | undefined {
  return vms.length > 0 ? vms : undefined;
}

function tellOutcomes({ output }: Context, what: string, outcomes: readonly LabVmOutcome[]) {
  output.document({
    vms: outcomes.map(({ name, error }) => ({ name, error: error?.toJSON() ?? null })),
  });
  const done = outcomes.filter(({ error }) => error === undefined);
  for (const { name } of done) output.text(`${printable(name)} is ${what}`);
  if (done.length === outcomes.length) return 0;
  if (!output.json) {
    for (const { error } of outcomes) if (error !== undefined) reportFailure(output, error);
  }
  throw firnError(
    'ERR_INCOMPLETE',
    `${outcomes.length - done.length} of ${formatNumberOf(outcomes.length, 'machine')} could not be ${what}`,
  );
}

async function status(context: Context, folder: string) {
  const lab = await import('../../hosts/lab/lab.js');
  const found = await lab.labStatus(folder);
  context.output.document({
    ...found,
    problems: found.problems.map((each) => ({ ...each, error: each.error.toJSON() })),
  });
  context.output.text(...statusTable(found.vms), ...found.vms.flatMap(remarks));
  if (!context.output.json)
    for (const { error } of found.problems) reportFailure(context.output, error);
  return found.problems.length > 0 ? 3 : 0;
}

function statusTable(vms: LabStatus['vms']): string[] {
  const columns = [
    { title: 'VM' },
    { title: 'ID' },
    { title: 'STATE' },
    { title: 'VSS' },
    { title: 'COMMITS', align: 'right' },
    { title: 'DISKS', align: 'right' },
    { title: 'LAYERS', align: 'right' },
    { title: 'OCCUPIED', align: 'right' },
  ] as const;
  const rows = vms.map(({ name, id, state, unclean, vss, generation, disks }) => [
    name,
    id,
    unclean ? `${state}, unclean` : state,
    vss,
    generation === undefined ? '-' : formatCount(generation),
    String(disks.length),
    String(Math.max(0, ...disks.map(({ layers }) => layers.length))),
    formatBytes(disks.reduce((sum, { fileBytes }) => sum + fileBytes, 0)),
  ]);
  return table(columns, rows);
}

/** What a table has no room for. */
function remarks({ name, frozen, merging, checkpoints, faults }: LabVmStatus): string[] {
  return [
    ...(frozen === undefined ? [] : [`frozen: ${frozen.level}`]),
    ...(merging === undefined ? [] : [`merging ${merging}`]),
    ...checkpoints.map((checkpoint) => `${checkpoint.kind} checkpoint ${checkpoint.name}`),
    ...faults.map((each) => `fault ${each.name}${each.once === true ? ', once' : ''}`),
  ].map((remark) => printable(`${name}: ${remark}`));
}

interface FaultFlags {
  vm?: string;
  once?: boolean;
  ms?: number;
  step?: number;
  clear?: boolean;
}

async function fault(
  context: Context,
  folder: string,
  text: string | undefined,
  { clear, ...flags }: FaultFlags,
) {
  const lab = await import('../../hosts/lab/lab.js');
  const name: FaultName | undefined =
    text === undefined ? undefined : parse.oneOf('the fault', FAULT_NAMES)(text);
  if (clear === true) await lab.clearFaults(folder, { name, vm: flags.vm });
  else if (name !== undefined) await lab.setFault(folder, { name, ...flags });
  const { vms } = await lab.labStatus(folder);
  const faults = vms.flatMap((vm) => vm.faults.map((each) => ({ ...each, vm: vm.name })));
  context.output.document({ faults });
  if (faults.length === 0) context.output.note('no faults are on');
  const lines = faults.map(({ vm, name: on, once }) => [vm, on, once === true ? 'once' : 'stays']);
  if (lines.length > 0) {
    context.output.text(...table([{ title: 'VM' }, { title: 'FAULT' }, { title: '' }], lines));
  }
  return 0;
}

async function check(context: Context, paths: string[], { expect }: { expect?: Consistency }) {
  const lab = await import('../../hosts/lab/lab.js');
  const images = (await Promise.all(paths.map(imagesOf))).flat();
  const verdict = await lab.checkGuestImages(images);
  const worth = worthOf(verdict);
  context.output.document({ images, worth: worth ?? null, ...verdict });
  context.output.text(
    worth === undefined ? 'it does not add up' : `it adds up, as ${worth}-consistent`,
    ...fields(
      [
        ['disks', printable(images.join(', '))],
        ['commits', formatCount(verdict.generation)],
        ['records', `${formatCount(verdict.records)} checked`],
        ['log', verdict.recoveryNeeded ? 'has to be replayed, as after a power cut' : 'empty'],
        [
          'missing',
          verdict.missingDisks > 0 ? formatNumberOf(verdict.missingDisks, 'disk') : undefined,
        ],
      ],
      '  ',
    ),
    ...verdict.problems.map((problem) => `  ${printable(problem)}`),
  );
  if (worth === undefined) throw firnError('ERR_VERIFY_MISMATCH', 'The copy does not add up');
  if (expect === undefined || meetsConsistency(worth, expect)) return 0;
  throw firnError(
    'ERR_VERIFY_MISMATCH',
    `The copy is worth ${worth}, which is less than ${expect}`,
  );
}

/** What the copy turned out to be worth; undefined if not even replaying its log mends it. */
function worthOf(verdict: GuestVerdict): Consistency | undefined {
  if (!verdict.invariantHolds) return undefined;
  if (verdict.recoveryNeeded) return 'crash';
  return verdict.applicationClean ? 'application' : 'filesystem';
}

/** An image, or all images of a folder. */
async function imagesOf(file: string): Promise<string[]> {
  try {
    if (!(await stat(file)).isDirectory()) return [file];
    const names = (await readdir(file)).filter((name) => formatOfPath(name) !== undefined);
    if (names.length > 0) return names.sort().map((name) => path.join(file, name));
  } catch (error) {
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
  throw firnError('ERR_NOT_FOUND', `The folder ${file} has no disk images`, { path: file });
}
