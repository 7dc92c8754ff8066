/**
 * Compares Firn with restic, borg, qemu-img and cp on this machine, in one run, and holds the
 * result against the targets.
 *
 *   npm run bench:peers -- [--rounds 3] [--cold] [--images DIR] [--scratch DIR]
 *                          [--data-mib 1075] [--virtual-gib 16]
 *                          [--no-ceiling] [--results DIR] [--check]
 *
 *   --rounds N       how often everything is done
 *   --cold           drop sources and repositories from the page cache before each run, instead of
 *                    warming it
 *   --images DIR     use the images that images.mjs made there, instead of making them
 *   --scratch DIR    where the scratch folder is made (default: the system's temporary folder); it is
 *                    removed at the end
 *   --data-mib N, --virtual-gib N   the size of the images to make
 *   --no-ceiling     leave the hardware ceiling out
 *   --results DIR    where peers.json and peers.md go (default: bench/results)
 *   --check          end with 1 when a target is missed
 *
 * A peer that is not installed has "absent" in its row. Ends with 2 when nothing could be measured.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildNative } from './ceiling.mjs';
import { backupContenders, copyContenders, toolVersions } from './contenders.mjs';
import { describeImages, makeImages } from './images.mjs';
import {
  describeMachine,
  markdown,
  storedTable,
  targetsTable,
  taskRows,
  timesTable,
} from './report.mjs';
import { Rounds } from './rounds.mjs';
import { judge } from './targets.mjs';

const GIB = 2 ** 30;
const IMAGE_NAMES = ['base', 'churned', 'other'];
/**
 * Three images, their raw form while they are made, five repositories of three generations, one
 * restored disk.
 */
const SPACE_PER_DATA_BYTE = 11;
const RESULTS_FOLDER = fileURLToPath(new URL('../results', import.meta.url));

class UsageError extends Error {}

function readOptions() {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      cold: { type: 'boolean', default: false },
      images: { type: 'string' },
      scratch: { type: 'string', default: tmpdir() },
      'data-mib': { type: 'string', default: '1075' },
      'virtual-gib': { type: 'string', default: '16' },
      'no-ceiling': { type: 'boolean', default: false },
      results: { type: 'string', default: RESULTS_FOLDER },
      check: { type: 'boolean', default: false },
    },
  });
  for (const name of ['rounds', 'data-mib', 'virtual-gib']) {
    if (!/^[1-9]\d{0,6}$/.test(values[name]))
      throw new UsageError(`--${name} wants a positive whole number`);
  }
  return {
    rounds: Number(values.rounds),
    cache: values.cold ? 'cold' : 'warm',
    imagesFolder: values.images && resolve(values.images),
    scratchParent: resolve(values.scratch),
    dataMib: Number(values['data-mib']),
    virtualGib: Number(values['virtual-gib']),
    withCeiling: !values['no-ceiling'],
    resultsFolder: resolve(values.results),
    check: values.check,
  };
}

function requireSpace(folder, bytes) {
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < bytes) {
    const asGib = (value) => (value / GIB).toFixed(1);
    throw new UsageError(
      `${folder} has ${asGib(bavail * bsize)} GiB free, ${asGib(bytes)} GiB are needed`,
    );
  }
}

/** A folder that goes away however the process ends. */
function makeScratch(parent) {
  const scratch = mkdtempSync(join(parent, 'firn-bench-'));
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
  return scratch;
}

function log(line) {
  console.error(line);
}

async function main() {
  const options = readOptions();
  const versions = toolVersions();
  if (versions.firn === undefined)
    throw new UsageError('Firn is not built: run npm run build first');
  const absent = new Set(Object.keys(versions).filter((tool) => versions[tool] === undefined));
  for (const tool of absent) log(`${tool}: absent`);
  requireSpace(options.scratchParent, options.dataMib * 2 ** 20 * SPACE_PER_DATA_BYTE);
  const ceilingProgram = options.withCeiling ? buildNative('firn_ceiling', log) : undefined;
  const scratch = makeScratch(options.scratchParent);
  const imagesFolder = options.imagesFolder ?? join(scratch, 'images');
  if (options.imagesFolder === undefined) makeImages({ ...options, folder: imagesFolder });
  const images = describeImages(imagesFolder);
  log(`images: ${(images.base.allocatedBytes / 2 ** 20).toFixed(0)} MiB allocated in base.vhdx`);

  const imagePaths = Object.fromEntries(
    IMAGE_NAMES.map((name) => [name, join(imagesFolder, `${name}.vhdx`)]),
  );
  const work = new Rounds({
    scratch,
    images: imagePaths,
    cache: options.cache,
    ceilingProgram,
    absent,
    log,
  });
  for (let round = 0; round < options.rounds; ++round)
    await work.run(round, round === options.rounds - 1);
  const passed = report(options, versions, images, scratch, work);
  process.exitCode = passed || !options.check ? 0 : 1;
}

/** Prints the tables and writes the files; returns whether no target was missed. */
function report(options, versions, images, scratch, work) {
  const machine = describeMachine(scratch);
  const contenders = [
    ...backupContenders(scratch).map(({ id, label }) => ({
      id,
      label,
      tasks: ['full', 'second', 'restore'],
    })),
    ...copyContenders().map(({ id, label }) => ({ id, label, tasks: ['copy'] })),
  ];
  const { samples, ceilings, storedBytes } = work;
  const targets = judge({ samples, ceilings, storedBytes, cores: machine.cores });
  const result = {
    date: new Date().toISOString().slice(0, 10),
    machine,
    versions,
    images,
    cache: options.cache,
    rounds: options.rounds,
    contenders,
    targets,
    samples,
    ceilings,
    storedBytes,
    failures: Object.fromEntries(work.failures),
  };
  mkdirSync(options.resultsFolder, { recursive: true });
  writeFileSync(join(options.resultsFolder, 'peers.json'), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(join(options.resultsFolder, 'peers.md'), markdown(result));
  console.log(timesTable(taskRows({ samples, failures: work.failures, contenders })));
  console.log(`\n${storedTable(storedBytes, contenders)}`);
  console.log(`\n${targetsTable(targets)}`);
  console.log(`\nWritten to ${options.resultsFolder}: peers.json, peers.md`);
  const firnFailed = [...work.failures.keys()].some((id) => id.startsWith('firn'));
  return !firnFailed && targets.every((target) => target.passed !== false);
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? error.message : error);
  process.exitCode = 2;
}
