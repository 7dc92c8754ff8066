/**
 * `firn backup`: disks given as files become one point, or machines of a host become one point each.
 *
 * Which of the two is decided here: --host, --job and --all are about machines, --disk is about files, and bare words are files unless
 * FIRN_HOST names a host. Options of the other kind are refused, as they would silently do nothing. commands/backup-vms.ts has the rest.
 */

import type { Command } from 'commander';
import { CODECS, type UnusedMode } from '../../engine/options.js';
import { firnError } from '../../errors.js';
import type { BackedUpDisk, BackupResult } from '../../jobs/backup.js';
import {
  PARALLEL_VMS_MAX,
  parseConsistency,
  parseExclusion,
  parseMapping,
  parseTracking,
} from '../../jobs/settings.js';
import { parseTag } from '../../repository/tags.js';
import { type Context, parse, type Register } from '../context.js';
import { addHostOption, addStateOption, hostSpec } from '../machines.js';
import { bottleneckLines, meansLine, reductionLines, speedLine } from '../ui/summary.js';
import { fields, printable } from '../ui/text.js';
import { leftOutText, partitionLines } from '../ui/unused.js';
import type { MachineFlags, PointFlags } from './backup-vms.js';

interface FileFlags {
  disk?: string[];
  vm?: string;
  dryRun?: boolean;
  parentFolder?: string[];
}

type BackupFlags = FileFlags & MachineFlags & PointFlags;

const FILE_FLAGS = {
  disk: '--disk',
  vm: '--vm',
  dryRun: '--dry-run',
  parentFolder: '--parent-folder',
} as const satisfies Record<keyof FileFlags, string>;

const MACHINE_FLAGS = {
  host: '--host',
  job: '--job',
  all: '--all',
  consistency: '--consistency',
  excludeDisk: '--exclude-disk',
  freezeDeadline: '--freeze-deadline',
  mergeDeadline: '--merge-deadline',
  tracking: '--tracking',
  parallelVms: '--parallel-vms',
  minFree: '--min-free',
  churn: '--churn',
  window: '--window',
  map: '--map',
  state: '--state',
} as const satisfies Record<keyof MachineFlags, string>;

const EXAMPLES = `
Examples:
  firn backup --vm web --disk web.vhdx           disks that nobody writes to
  firn backup --host hyperv web db               running machines, by name or id
  firn backup --host hyperv --all --consistency application
  firn backup --job nightly.yaml                 what docs/jobs.md describes

--consistency best (the default) takes what each guest can promise and says it loudly when that is
less than application; a level is that or no point; with crash the guest is not asked to freeze.
A TIME is 500ms, 30s, 5m or 1h.`;

export function defineBackup(program: Command, register: Register): void {
  const command = program
    .command('backup')
    .description('make restore points of disks, or of the machines of a host')
    .argument('[names...]', 'machines of the host, by name or id; without a host more disks')
    .option('--codec <codec>', 'lz4 (default), zstd or raw', parse.oneOf('--codec', CODECS))
    .option('--level <n>', 'zstd 1..19, lz4 acceleration 1..64', parse.integer('--level', 0, 64))
    .option(
      '--tag <tag>',
      'a tag of the points; may be given again',
      parse.listAs('--tag', parseTag),
    )
    .option('--limit <rate>', 'read no more bytes a second than this', parse.size('--limit'))
    .option('--skip-unused', 'leave out what no file system uses: by default of machines alone')
    .option('--keep-unused', 'copy it')
    .option('--drop-guest-shadow-copies', 'do not keep a volume whole for its shadow copies')
    .addHelpText('after', EXAMPLES);
  addFileOptions(command);
  addMachineOptions(command);
  command.action(register(backup));
}

function addFileOptions(command: Command): void {
  command
    .optionsGroup('For disks as files:')
    .option('-d, --disk <file>', 'a disk: VHDX, VHD or raw; may be given again', parse.list)
    .option('--vm <name>', "the VM's name, the first disk's by default")
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('-n, --dry-run', 'read and hash, look nothing up and write nothing');
}

function addMachineOptions(command: Command): void {
  command.optionsGroup('For machines of a host:');
  addHostOption(command);
  command
    .option('--job <file>', 'a job file; options given here are stronger')
    .option('--all', 'every machine of the host')
    .option(
      '--consistency <level>',
      'application, filesystem, crash or best',
      parse.as('--consistency', parseConsistency),
    )
    .option(
      '--exclude-disk <vm/disk>',
      'leave disks out, with * for any; may be given again',
      parse.listAs('--exclude-disk', parseExclusion),
    )
    .option(
      '--freeze-deadline <time>',
      'how long a guest may stand still, 60s by default',
      parse.duration('--freeze-deadline'),
    )
    .option(
      '--merge-deadline <time>',
      'how long merging a checkpoint may take, 1h by default',
      parse.duration('--merge-deadline'),
    )
    .option(
      '--tracking <mode>',
      'what changed is asked of the host: auto (default), checkpoint or none',
      parse.as('--tracking', parseTracking),
    )
    .option(
      '--parallel-vms <n>',
      'machines under way at once, 2 by default',
      parse.integer('--parallel-vms', 1, PARALLEL_VMS_MAX),
    )
    .option('--min-free <size>', 'to stay free on volumes, 2G by default', parse.size('--min-free'))
    .option(
      '--churn <percent>',
      'of a disk is rewritten in an hour, 5% by default',
      parse.percent('--churn'),
    )
    .option(
      '--window <time>',
      'how long a checkpoint will stand, 1h by default',
      parse.duration('--window'),
    )
    .option(
      '--map <from=to>',
      'read what the host calls FROM below TO; may be given again',
      parse.listAs('--map', parseMapping),
    );
  addStateOption(command);
}

async function backup(context: Context, names: string[], flags: BackupFlags) {
  if (isAboutMachines(flags)) {
    refuse(flags, FILE_FLAGS, 'is for disks as files and does not go with --host, --job or --all');
    const { backupMachines } = await import('./backup-vms.js');
    return backupMachines(context, names, flags);
  }
  refuse(flags, MACHINE_FLAGS, 'is for machines and needs --host, --job or --all');
  return backupFiles(context, names, flags);
}

function isAboutMachines(flags: BackupFlags): boolean {
  if (flags.host !== undefined || flags.job !== undefined || flags.all === true) return true;
  const isAboutFiles = Object.keys(FILE_FLAGS).some((name) => Object.hasOwn(flags, name));
  return hostSpec(flags) !== undefined && !isAboutFiles;
}

function refuse(flags: BackupFlags, options: Readonly<Record<string, string>>, why: string): void {
  for (const [name, option] of Object.entries(options)) {
    if (Object.hasOwn(flags, name)) throw firnError('ERR_INVALID_ARGUMENT', `${option} ${why}`);
  }
}

/** Of --skip-unused and --keep-unused at most one; undefined for the default. */
export function unusedMode({ skipUnused, keepUnused }: PointFlags): UnusedMode | undefined {
  if (skipUnused === true && keepUnused === true) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected --skip-unused or --keep-unused, not both');
  }
  if (skipUnused === true) return 'skip';
  return keepUnused === true ? 'keep' : undefined;
}

async function backupFiles(context: Context, files: string[], flags: FileFlags & PointFlags) {
  const job = await import('../../jobs/backup.js');
  const repository = await context.openRepository();
  const { vm, tag: tags, codec, level, dryRun, parentFolder: parentFolders } = flags;
  const { dropGuestShadowCopies } = flags;
  const unused = unusedMode(flags);
  if (dropGuestShadowCopies === true && unused !== 'skip') {
    throw firnError('ERR_INVALID_ARGUMENT', '--drop-guest-shadow-copies needs --skip-unused');
  }
  const disks = [...(flags.disk ?? []), ...files].map((path) => ({ path, parentFolders }));
  const result = await context.withProgress('backup', (run) =>
    job.backup(repository, {
      disks,
      vm,
      tags,
      codec,
      level,
      unused,
      dropGuestShadowCopies,
      dryRun,
      tuning: { ...context.tuning, bytesPerSecond: flags.limit },
      ...run,
    }),
  );
  const { point, attempts, summary } = result;
  const { stats, ...account } = summary;
  context.output.message('summary', {
    dryRun: dryRun === true,
    point: point?.id ?? null,
    vm: point?.vm.name ?? null,
    disks: result.disks,
    attempts,
    ...account,
    stats,
  });
  context.output.text(...describeBackup(result, context.output.quiet));
  return 0;
}

function describeBackup({ point, disks, summary }: BackupResult, quiet: boolean): string[] {
  const headline =
    point === undefined
      ? 'dry run: nothing was written'
      : `point ${point.id} of ${printable(point.vm.name)} is sealed`;
  if (quiet) return [headline];
  const { stats } = summary;
  return [
    headline,
    ...fields(
      [
        ...disks.map(({ name, root }): [string, string] => [`disk ${name}`, `content ${root}`]),
        // A dry run looks nothing up, so it cannot know what would be new.
        ...reductionLines(summary).slice(0, point === undefined ? 1 : 3),
        ['time', speedLine(stats.doneBytes, summary.elapsedSeconds)],
        ['with', meansLine(stats)],
      ],
      '  ',
    ),
    ...disks.flatMap(unusedLines),
    ...bottleneckLines(stats),
  ];
}

function unusedLines({ name, unused }: BackedUpDisk): string[] {
  if (unused === undefined) return [];
  const heading = printable(`  unused blocks of ${name}: ${leftOutText(unused)}`);
  return [heading, ...partitionLines(unused, '    ')];
}
