/** `firn forget`: points go, those that are named or those that a policy does not keep; each with the reason it stays for. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { ForgetResult } from '../../jobs/forget.js';
import type { JobFile } from '../../jobs/job-file.js';
import { parseSpan, type Span } from '../../repository/calendar.js';
import type { Repository } from '../../repository/repository.js';
import type { RetentionPolicy, Verdict, VmVerdicts } from '../../repository/retention.js';
import { type Context, definedOf, parse, type Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatBytes, formatNumberOf } from '../ui/bytes.js';
import { formatTime, printable, table } from '../ui/text.js';

const KEEP_MAX = 1_000_000;

interface ForgetFlags {
  job?: string;
  keepLast?: number;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  keepYearly?: number;
  keepWithin?: Span;
  keepTag?: string[];
  vm?: string[];
  tag?: string[];
  dryRun?: boolean;
  force?: boolean;
  forceEmpty?: boolean;
}

const NOTES = `
Examples:
  firn forget 3f9c2a71                                       one point
  firn forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
  firn forget --vm web --keep-within 30d --keep-tag release
  firn forget --job nightly.yaml --dry-run                   its machines, by its retention

The points of each VM are looked at by themselves. A point stays if any rule keeps it, or if it is
held. A period is 12h, 30d, 2w, 6mo, 1y or 1y6mo, back from the newest point of the VM.`;

export function defineForget(program: Command, register: Register): void {
  const keep = (what: string, text: string) =>
    [`--keep-${what} <n>`, text, parse.integer(`--keep-${what}`, 0, KEEP_MAX)] as const;
  program
    .command('forget')
    .description('remove points, by name or by what a policy keeps')
    .argument('[points...]', 'which, when there is no policy')
    .option('--job <file>', 'repository, machines and policy of a job file')
    .option(...keep('last', 'the newest n points'))
    .option(...keep('hourly', 'the newest point of each of n hours'))
    .option(...keep('daily', 'of each of n days'))
    .option(...keep('weekly', 'of each of n weeks, from Monday'))
    .option(...keep('monthly', 'of each of n months'))
    .option(...keep('yearly', 'of each of n years'))
    .option('--keep-within <period>', 'all so recent', parse.as('--keep-within', parseSpan))
    .option('--keep-tag <tag>', 'all with this tag; may be given again', parse.list)
    .option('--vm <name>', 'look at points of this VM alone; may be given again', parse.list)
    .option('--tag <tag>', 'look at points with this tag alone; may be given again', parse.list)
    .option('-n, --dry-run', 'show what would go and what that frees')
    .option('-f, --force', 'also named points that are held')
    .option('--force-empty', 'also if a policy keeps no point of a VM')
    .addHelpText('after', NOTES)
    .action(register(forget));
}

async function forget(global: Context, points: string[], flags: ForgetFlags) {
  const { parseTag } = await import('../../repository/retention.js');
  const job = await import('../../jobs/forget.js');
  const file = await readJob(points, flags);
  const context = global.withFallbacks({ repo: file?.repository });
  const checkTags = (name: string, tags: string[] | undefined) =>
    tags?.map((tag) => parseTag(tag, name));
  checkTags('--keep-tag', flags.keepTag);
  const { dryRun, force, forceEmpty } = flags;
  const policy = hasRules(flags) ? policyOf(flags) : (file?.retention ?? {});
  const repository = await context.openRepository();
  const vms = flags.vm ?? (file && (await vmsOf(repository, file)));
  const result = await job.forget(repository, {
    ...definedOf({ vms, tags: checkTags('--tag', flags.tag), dryRun, force, forceEmpty }),
    ...(points.length > 0 && { points }),
    ...((hasRules(flags) || points.length === 0) && { policy }),
    estimate: dryRun === true,
    signal: context.signal,
  });
  tell(context, result);
  return result.damaged.length > 0 || result.spared.length > 0 ? 3 : 0;
}

/** The job file, if it says which points there are to look at and what to make of them. */
async function readJob(points: string[], flags: ForgetFlags): Promise<JobFile | undefined> {
  if (flags.job === undefined) return undefined;
  if (points.length > 0) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected points or --job, not both');
  }
  const { readJobFile } = await import('../../jobs/job-file.js');
  const job = await readJobFile(flags.job);
  if (job.retention === undefined && !hasRules(flags)) {
    throw firnError('ERR_INVALID_ARGUMENT', `${job.path} has no retention`, {
      hint: 'Add one to the file, or pass --keep-last, --keep-daily and so on.',
    });
  }
  if (job.vms === undefined && job.all === undefined && flags.vm === undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', `${job.path} names no machines`, {
      hint: 'Add vms or all: true to the file, or pass --vm NAME.',
    });
  }
  return job;
}

/** The machines of a job; with `all: true` those that it has made points of, as others may use the repository too. */
async function vmsOf(repository: Repository, { vms, name }: JobFile): Promise<readonly string[]> {
  if (vms !== undefined) return vms;
  // What cannot be read is told when the points are judged.
  const points = await repository.points(() => {});
  const own = points.filter(({ capture }) => capture?.job === name);
  return [...new Set(own.map(({ vm }) => vm.id ?? vm.name))];
}

function hasRules(flags: ForgetFlags): boolean {
  return Object.keys(policyOf(flags)).length > 0;
}

function policyOf(flags: ForgetFlags): RetentionPolicy {
  const { keepLast, keepHourly, keepDaily, keepWeekly, keepMonthly, keepYearly } = flags;
  return definedOf({
    last: keepLast,
    hourly: keepHourly,
    daily: keepDaily,
    weekly: keepWeekly,
    monthly: keepMonthly,
    yearly: keepYearly,
    within: flags.keepWithin,
    tags: flags.keepTag,
  });
}

function tell({ output }: Context, result: ForgetResult): void {
  const { dryRun, vms, forgotten, spared, damaged, freed } = result;
  for (const { point, error } of damaged) {
    const { code, message, path } = error;
    output.problem({ code, message: `point ${point}: ${message}`, ...(path ? { path } : {}) });
  }
  output.message('summary', {
    dryRun,
    vms: vms.map(({ vm, verdicts }) => ({ vm, points: verdicts.map(verdictJson) })),
    forgotten: forgotten.map(({ id }) => id),
    spared: spared.map(({ id }) => id),
    damaged: damaged.length,
    freed: freed ?? null,
  });
  for (const each of vms) if (!output.quiet) output.text(...describeVm(each), '');
  for (const { id } of spared) output.note(`spared ${id.slice(0, ID_DIGITS)}: it is held by now`);
  const kept = vms.flatMap(({ verdicts }) => verdicts).length - forgotten.length;
  const verb = dryRun ? 'would forget' : 'forgot';
  const ofAll = kept > 0 ? `, ${formatNumberOf(kept, 'point')} kept` : '';
  output.text(`${verb} ${formatNumberOf(forgotten.length, 'point')}${ofAll}`);
  if (freed !== undefined) {
    const { storedBytes, chunks, unreadable } = freed;
    const about = unreadable > 0 ? `about ${formatBytes(storedBytes)}` : formatBytes(storedBytes);
    output.text(`  frees ${about} in ${formatNumberOf(chunks, 'chunk')} that no other point needs`);
    if (unreadable > 0) {
      output.note(`${formatNumberOf(unreadable, 'object')} could not be read: run firn verify`);
    }
  }
}

/** A point and what a policy made of it, as JSON has it. */
export function verdictJson({ point, tags, held, reasons }: Verdict) {
  const { id, created } = point;
  return { id, created, tags, held: held !== undefined, keep: reasons.length > 0, reasons };
}

function describeVm({ vm, verdicts }: VmVerdicts): string[] {
  const columns = [{ title: 'POINT' }, { title: 'TIME' }, { title: 'TAGS' }, { title: '' }];
  const rows = verdicts.map(({ point, tags, reasons }) => [
    point.id.slice(0, ID_DIGITS),
    formatTime(point.created),
    tags.join(', '),
    reasons.length > 0 ? `keep: ${reasons.join(', ')}` : 'forget',
  ]);
  return [printable(vm.name), ...table(columns, rows).map((line) => `  ${line}`)];
}
