/**
 * `firn bench`: how fast this host reads, works and writes, alone and together, and what holds it back. docs/bench.md says how it measures.
 *
 * Each sub-command runs one suite of src/bench/ and hands its report on: to the terminal, or as JSON, and to files as JSON, CSV and HTML. It
 * writes in folders that are named on the command line and nowhere else: FIRN_REPOSITORY does not count here.
 */

import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Command } from 'commander';
import type { BenchReport, Suite } from '../../bench/report.js';
import type { BenchSession } from '../../bench/rounds.js';
import type { BenchOptions, BenchSettings, CacheMode, ReadOrder } from '../../bench/settings.js';
import type { Codec } from '../../engine/binding.js';
import { CODECS, expected, parseSize } from '../../engine/options.js';
import { firnError, fromFileSystem } from '../../errors.js';
import { parsePercent } from '../../jobs/settings.js';
import { type Context, parse, type Register } from '../context.js';
import { formatClock } from '../ui/bytes.js';
import { displayWidth } from '../ui/text.js';

interface BenchFlags {
  rounds?: number;
  seconds?: number;
  warmUp?: number;
  blockSize?: number[];
  queueDepth?: number[];
  cache?: CacheMode[];
  order?: ReadOrder[];
  size?: number;
  entropy?: number;
  duplicates?: number;
  seed?: number;
  limit?: number;
  codec?: Codec;
  level?: number;
  parentFolder?: string[];
  peers?: boolean;
  csv?: string;
  html?: string;
  save?: string;
}

interface HostFlags extends BenchFlags {
  time?: number;
  image?: string;
  estimate?: number;
  churn?: number;
}

/** What a suite has found, besides what all reports have. */
type Findings = Omit<
  BenchReport,
  'format' | 'suite' | 'created' | 'elapsedSeconds' | 'environment' | 'settings'
>;

type Work = (settings: BenchSettings, session: BenchSession) => Promise<Findings>;

export function defineBench(program: Command, register: Register): void {
  const bench = program.command('bench').description('measure how fast this host can back up');
  addReadOptions(
    suite(bench, 'read', 'read an image, or a test file that is made in a folder').argument(
      '<place>',
    ),
  ).action(register(read));
  addScanOptions(suite(bench, 'write', 'write test files in a folder').argument('<folder>')).action(
    register(write),
  );
  suite(bench, 'kernels', 'what the stages of a backup cost on one core').action(register(kernels));
  addDiskOptions(suite(bench, 'copy', 'copy an image into a folder'))
    .argument('<image>')
    .argument('<folder>')
    .action(register(copy));
  addDiskOptions(suite(bench, 'backup', 'back up an image, each stage alone and all together'))
    .argument('<image>')
    .addHelpText(
      'after',
      '\n--repo DIR stores in new repositories inside DIR, and removes them; without it nothing is stored.',
    )
    .action(register(backup));
  addDiskOptions(suite(bench, 'scale', 'more workers, and more disks at once'))
    .argument('<images...>')
    .addHelpText('after', '\n--repo DIR as for bench backup.')
    .action(register(scale));
  addDiskOptions(suite(bench, 'host', 'all of it in a set time, and what follows on one page'))
    .argument('<folder>', 'where test files and repositories are made, and removed')
    .option('--time <time>', 'about how long it takes, 2m by default', parse.duration('--time'))
    .option('--image <file>', 'read this image instead of generated data')
    .option(
      '--estimate <size>',
      'how long a backup of so much will take, 1T by default',
      parse.size('--estimate'),
    )
    .option(
      '--churn <percent>',
      'how much of it changes from backup to backup, 5 by default',
      parse.as('--churn', parsePercent),
    )
    .action(register(host));
  bench
    .command('compare')
    .description('what changed between two saved reports; exit code 1 if anything got slower')
    .argument('<before>', 'a report that --save or --json has written')
    .argument('<after>')
    .option(
      '--threshold <percent>',
      'smaller changes do not count, 5 by default',
      parse.as('--threshold', parsePercent),
    )
    .action(register(compare));
}

function suite(bench: Command, name: Suite, description: string): Command {
  return bench
    .command(name)
    .description(description)
    .option(
      '--rounds <n>',
      'how often all is measured, 5 by default',
      parse.integer('--rounds', 1, 1000),
    )
    .option('--seconds <s>', 'of one measurement in a round, 0.5 by default', number('--seconds'))
    .option('--warm-up <s>', 'before each, 0.1 by default', number('--warm-up'))
    .option(
      '--entropy <share>',
      'random bytes in generated data: 0.05 to 1, 0.5 by default',
      number('--entropy'),
    )
    .option(
      '--duplicates <share>',
      'repeated parts of it: 0 to 0.95, 0.2 by default',
      number('--duplicates'),
    )
    .option('--seed <n>', 'of generated data', parse.integer('--seed', 0, 2 ** 32 - 1))
    .option('--size <size>', 'of test files, 1G by default', parse.size('--size'))
    .option('--save <file>', 'write the report as JSON, for bench compare')
    .option('--csv <file>', 'write all rounds as CSV')
    .option('--html <file>', 'write one page with plots, for a browser');
}

function addReadOptions(command: Command): Command {
  return addScanOptions(command)
    .option('--cache <modes>', 'list of direct, cold, warm: direct,cold by default', list(String))
    .option('--order <orders>', 'list of file, map: both by default', list(String))
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('--peers', 'the same work by other programs that are installed');
}

function addScanOptions(command: Command): Command {
  return command
    .option('--block-size <sizes>', 'list, 64K,256K,1M,4M by default', list(parseSize))
    .option('--queue-depth <depths>', 'list, 1,8,32 by default', list(Number))
    .option('--limit <rate>', 'no more bytes a second than this', parse.size('--limit'));
}

function addDiskOptions(command: Command): Command {
  return command
    .option('--codec <codec>', CODECS.join(', '), parse.oneOf('--codec', CODECS))
    .option('--level <n>', 'of the codec', parse.integer('--level', 0, 64))
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('--limit <rate>', 'read no more bytes a second than this', parse.size('--limit'))
    .option('--peers', 'the same work by other programs that are installed');
}

function number(name: string) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value)) return value;
    throw expected(name, 'a number', text);
  };
}

function list<Value>(read: (text: string) => Value) {
  return (text: string): Value[] => text.split(',').map((each) => read(each.trim()));
}

async function read(context: Context, place: string, flags: BenchFlags) {
  const { runRead } = await import('../../bench/read-suite.js');
  return run(context, 'read', flags, path.resolve(place), (settings, session) =>
    runRead(path.resolve(place), settings, session),
  );
}

async function write(context: Context, folder: string, flags: BenchFlags) {
  const { runWrite } = await import('../../bench/read-suite.js');
  return run(context, 'write', flags, folder, (settings, session) =>
    runWrite(folder, settings, session),
  );
}

async function kernels(context: Context, flags: BenchFlags) {
  const { runKernels } = await import('../../bench/kernels-suite.js');
  return run(context, 'kernels', flags, undefined, runKernels);
}

async function copy(context: Context, image: string, folder: string, flags: BenchFlags) {
  const { runCopySuite } = await import('../../bench/pipeline-suite.js');
  return run(context, 'copy', flags, folder, async (settings, session) => {
    await using scratch = await makeScratch(folder, [image], settings);
    return await runCopySuite(path.resolve(image), scratch, settings, session);
  });
}

async function backup(context: Context, image: string, flags: BenchFlags) {
  const { runBackupSuite } = await import('../../bench/pipeline-suite.js');
  return run(context, 'backup', flags, image, async (settings, session) => {
    await using scratch = await scratchOf(context, [image], settings);
    return await runBackupSuite(path.resolve(image), scratch, settings, session);
  });
}

async function scale(context: Context, images: string[], flags: BenchFlags) {
  const { runScale } = await import('../../bench/scale-suite.js');
  return run(context, 'scale', flags, images[0], async (settings, session) => {
    await using scratch = await scratchOf(context, images, settings);
    const files = images.map((image) => path.resolve(image));
    return await runScale(files, scratch, settings, session);
  });
}

async function host(context: Context, folder: string, flags: HostFlags) {
  const { runHost } = await import('../../bench/host-suite.js');
  return run(context, 'host', flags, folder, async (settings, session) => {
    const images = flags.image === undefined ? [] : [path.resolve(flags.image)];
    await using scratch = await makeScratch(folder, images, settings);
    const options = {
      seconds: (flags.time ?? 120_000) / 1000,
      image: images[0],
      sizeBytes: flags.estimate ?? 2 ** 40,
      churn: flags.churn ?? 0.05,
    };
    return await runHost(scratch, options, settings, session);
  });
}

async function compare(
  context: Context,
  before: string,
  after: string,
  flags: { threshold?: number },
) {
  const [{ compareReports }, { readReport }, { comparisonLines }] = await Promise.all([
    import('../../bench/compare.js'),
    import('../../bench/report.js'),
    import('../../bench/text.js'),
  ]);
  const result = compareReports(await readReport(before), await readReport(after), flags.threshold);
  context.output.document(result);
  context.output.text(...comparisonLines(result, context.output.stdout));
  if (!context.output.json) for (const each of result.warnings) context.output.warning(each);
  if (result.measurements.length === 0) {
    throw firnError('ERR_INVALID_ARGUMENT', 'The two reports have no measurement in common');
  }
  return result.regressions > 0 ? 1 : 0;
}

/** Inside the folder that --repo names on the command line; undefined without one. */
async function scratchOf(context: Context, images: readonly string[], settings: BenchSettings) {
  const folder = context.repositoryOption;
  return folder === undefined ? undefined : makeScratch(folder, images, settings);
}

/** With room for all of the images once, or for a test file and what becomes of it. */
async function makeScratch(folder: string, images: readonly string[], settings: BenchSettings) {
  const { Scratch } = await import('../../bench/scratch.js');
  const { imageBytes } = await import('../../bench/io.js');
  const needed = await imageBytes(images);
  return Scratch.make(folder, needed + (images.length === 0 ? 2 : 1) * settings.sizeBytes);
}

async function run(
  context: Context,
  name: Suite,
  flags: BenchFlags,
  place: string | undefined,
  work: Work,
): Promise<number> {
  const [{ resolveBench }, { REPORT_FORMAT }, environments, { variationWarnings }] =
    await Promise.all([
      import('../../bench/settings.js'),
      import('../../bench/report.js'),
      import('../../bench/environment.js'),
      import('../../bench/rounds.js'),
    ]);
  const settings = resolveBench({ ...optionsOf(flags), tuning: context.tuning });
  const environment = await environments.describeEnvironment(place);
  const begun = performance.now();
  const steps = new Steps(context, name);
  const findings = await work(settings, {
    signal: context.signal,
    onStep: (step) => steps.show(step),
  }).finally(() => steps.close());
  const report: BenchReport = {
    format: REPORT_FORMAT,
    suite: name,
    created: new Date().toISOString(),
    elapsedSeconds: (performance.now() - begun) / 1000,
    environment,
    settings: { ...settings },
    ...findings,
    warnings: [
      ...environments.environmentWarnings(environment),
      ...variationWarnings(findings.measurements),
      ...findings.warnings,
    ],
  };
  await hand(context, report, flags);
  return 0;
}

function optionsOf(flags: BenchFlags): BenchOptions {
  const { warmUp, blockSize, queueDepth, cache, order, size, parentFolder, ...same } = flags;
  return {
    ...same,
    warmUpSeconds: warmUp,
    blockBytes: blockSize,
    depths: queueDepth,
    caches: cache,
    orders: order,
    sizeBytes: size,
    parentFolders: parentFolder,
  };
}

async function hand(context: Context, report: BenchReport, flags: BenchFlags): Promise<void> {
  const { reportLines } = await import('../../bench/text.js');
  context.output.document(report);
  context.output.text(...reportLines(report, context.output.stdout));
  if (!context.output.json) for (const each of report.warnings) context.output.warning(each);
  if (flags.save !== undefined)
    await writeReport(flags.save, `${JSON.stringify(report, null, 1)}\n`);
  if (flags.csv !== undefined) {
    const { toCsv } = await import('../../bench/csv.js');
    await writeReport(flags.csv, toCsv(report));
  }
  if (flags.html !== undefined) {
    const { toHtml } = await import('../../bench/html.js');
    await writeReport(flags.html, toHtml(report));
  }
}

async function writeReport(file: string, text: string): Promise<void> {
  await writeFile(file, text).catch((error: unknown) => {
    throw fromFileSystem(error, 'write', 'ERR_WRITE');
  });
}

/** What is measured now, on a terminal. */
class Steps {
  readonly #context: Context;
  readonly #name: string;
  readonly #begun = performance.now();
  #width = 0;

  constructor(context: Context, name: string) {
    this.#context = context;
    this.#name = name;
    context.output.beforeStderr = () => this.#clear();
  }

  show({ label, done, total }: { label: string; done: number; total: number }): void {
    const { output, progressMode } = this.#context;
    if (output.json || output.quiet || !output.stderr.isTTY || progressMode === 'never') return;
    const elapsed = formatClock((performance.now() - this.#begun) / 1000);
    const columns = Math.max(1, (output.stderr.columns || 80) - 1);
    const text = `[${elapsed}]  ${this.#name} ${done + 1}/${total}  ${label}`.slice(0, columns);
    const width = displayWidth(text);
    output.rawStderr(`\r${text}${' '.repeat(Math.max(0, this.#width - width))}`);
    this.#width = width;
  }

  close(): void {
    this.#clear();
    this.#context.output.beforeStderr = () => {};
  }

  #clear(): void {
    if (this.#width === 0) return;
    this.#width = 0;
    this.#context.output.rawStderr('\r\u001b[K');
  }
}
