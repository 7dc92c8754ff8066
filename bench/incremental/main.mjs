/**
 * What a backup costs after the first: the figures of docs/measured.md for incremental backups, used
 * blocks, prune and the index.
 *
 *   npm run bench:incremental -- [--only changed,idle,unused,prune,index] [--rounds 3] [--scratch DIR]
 *                                [--data-mib 4096] [--virtual-gib 1024] [--idle-data-mib 1024]
 *                                [--unused-mib 1024] [--points 200] [--prune-mib 256]
 *                                [--entries 50000000] [--results DIR] [--check]
 *
 *   --only PARTS     these parts alone
 *   --rounds N       how often each part measures, after a warm-up
 *   --scratch DIR    where the scratch folder is made (default: the system's temporary folder); it is
 *                    removed at the end
 *   --results DIR    where incremental.json and incremental.md go (default: bench/results)
 *   --check          end with 1 when a target is missed
 *
 * The other options are sizes: those of the disks, of the history that is pruned, of the index. A
 * program that is not installed leaves out what needs it, and the result says so.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { toolVersions } from '../peers/contenders.mjs';
import { describeMachine, targetsTable } from '../peers/report.mjs';
import { measureChanged } from './changed.mjs';
import { measureIdle } from './idle.mjs';
import { measureIndex } from './index-scale.mjs';
import { measurePrune } from './prune.mjs';
import { measureUnused } from './unused.mjs';

const PARTS = {
  changed: measureChanged,
  idle: measureIdle,
  unused: measureUnused,
  prune: measurePrune,
  index: measureIndex,
};
const SIZES = {
  rounds: '3',
  'data-mib': '4096',
  'virtual-gib': '1024',
  'idle-data-mib': '1024',
  'unused-mib': '1024',
  points: '200',
  'prune-mib': '256',
  entries: '50000000',
};
const RESULTS_FOLDER = fileURLToPath(new URL('../results', import.meta.url));

class UsageError extends Error {}

function readOptions() {
  const sizes = Object.fromEntries(
    Object.entries(SIZES).map(([name, value]) => [name, { type: 'string', default: value }]),
  );
  const { values } = parseArgs({
    options: {
      ...sizes,
      only: { type: 'string', default: Object.keys(PARTS).join(',') },
      scratch: { type: 'string', default: tmpdir() },
      results: { type: 'string', default: RESULTS_FOLDER },
      check: { type: 'boolean', default: false },
    },
  });
  const parts = values.only.split(',');
  for (const part of parts) {
    if (!(part in PARTS)) throw new UsageError(`--only knows ${Object.keys(PARTS).join(', ')}`);
  }
  const numbers = Object.keys(SIZES).map((name) => {
    if (!/^[1-9]\d{0,9}$/.test(values[name])) {
      throw new UsageError(`--${name} wants a positive whole number`);
    }
    const member = name.replace(/-(\w)/g, (_, letter) => letter.toUpperCase());
    return [member, Number(values[name])];
  });
  return {
    ...Object.fromEntries(numbers),
    parts,
    check: values.check,
    scratchParent: resolve(values.scratch),
    resultsFolder: resolve(values.results),
  };
}

/** A folder that goes away however the process ends. */
function makeScratch(parent) {
  const scratch = mkdtempSync(join(parent, 'firn-bench-'));
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));
  return scratch;
}

function markdown({ date, machine, versions, rounds, rows, notes, command }) {
  return `# What a backup costs after the first

${date}. ${machine.cpu}, ${machine.cores} cores, ${(machine.memoryBytes / 2 ** 30).toFixed(0)} GiB of memory;
${machine.distribution ?? ''}, ${machine.kernel}, Node ${machine.node}; everything on one file system: ${machine.fileSystem}.
Firn ${versions.firn ?? '?'}, ${versions.restic ?? 'restic absent'}. ${rounds} rounds after a warm-up; median (min to max), ratios taken inside each round.

    ${command}

${targetsTable(rows.map(({ work, asked, reached, passed }) => ({ name: work, target: asked, result: reached, passed })))}

${notes.map((note) => `- ${note}`).join('\n')}
`;
}

async function main() {
  const options = readOptions();
  const log = (line) => console.error(line);
  const rows = [];
  const notes = [];
  const scratch = makeScratch(options.scratchParent);
  for (const part of options.parts) {
    const folder = join(scratch, part);
    mkdirSync(folder);
    const measured = await PARTS[part]({ ...options, scratch: folder, log });
    rows.push(...measured.rows);
    notes.push(...measured.notes);
    rmSync(folder, { recursive: true });
  }
  const result = {
    date: new Date().toISOString().slice(0, 10),
    machine: describeMachine(scratch),
    versions: toolVersions(),
    command: ['npm run bench:incremental --', ...process.argv.slice(2)]
      .join(' ')
      .replace(/ --$/, ''),
    rounds: options.rounds,
    rows,
    notes,
  };
  mkdirSync(options.resultsFolder, { recursive: true });
  const at = (name) => join(options.resultsFolder, name);
  writeFileSync(at('incremental.json'), `${JSON.stringify(result, null, 2)}\n`);
  writeFileSync(at('incremental.md'), markdown(result));
  console.log(markdown(result));
  process.exitCode = options.check && rows.some(({ passed }) => !passed) ? 1 : 0;
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? error.message : error);
  process.exitCode = 2;
}
