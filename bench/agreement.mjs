/**
 * Does `firn bench` measure what fio measures? Sequential reads and writes of one file, unbuffered, by both in turns.
 *
 *   node bench/agreement.mjs [--rounds 5] [--seconds 1] [--size-mib 1024] [--scratch DIR]
 *
 * Prints a table: the median of each, and the ratio inside each round with its range. Writes count until everything is durable, on both sides.
 * fio (Debian: apt-get install fio) has to be there.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { makeDataDisk } from './incremental/disks.mjs';
import { MIB, median } from './incremental/measured.mjs';

const CLI = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const POINTS = [
  { block: '64K', depth: 8 },
  { block: '1M', depth: 8 },
  { block: '1M', depth: 32 },
];
const WARM_UP = 0.2;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    'size-mib': { type: 'string', default: '1024' },
    scratch: { type: 'string', default: tmpdir() },
  },
});
const size = `${values['size-mib']}M`;

function run(program, args) {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Bytes a second by firn. */
function byFirn(work, place, { block, depth }) {
  const args = ['bench', work, place, '--json', '--rounds', '1', '--block-size', block];
  args.push('--queue-depth', `${depth}`);
  if (work === 'read') {
    args.push('--cache', 'direct', '--order', 'file');
    args.push('--seconds', values.seconds, '--warm-up', `${WARM_UP}`);
  } else {
    args.push('--size', size, '--seconds', '60', '--warm-up', '0');
  }
  const { measurements } = JSON.parse(run(process.execPath, [CLI, ...args]));
  return measurements[0].summary.median;
}

/** Bytes a second by fio. */
function byFio(work, file, { block, depth }) {
  const args = ['--name=job', `--filename=${file}`, `--rw=${work}`, '--direct=1', `--bs=${block}`];
  args.push('--ioengine=io_uring', `--iodepth=${depth}`, `--size=${size}`);
  // As firn does: buffers and files that the kernel knows beforehand, which is worth a factor of up to two here.
  args.push('--fixedbufs=1', '--registerfiles=1');
  args.push('--output-format=json');
  // A write fills its file once; its runtime includes the sync at the end.
  if (work === 'write') args.push('--fallocate=native', '--end_fsync=1', '--unlink=1');
  else args.push('--time_based', `--runtime=${values.seconds}`, `--ramp_time=${WARM_UP}`);
  const { jobs } = JSON.parse(run('fio', args));
  const { io_bytes, runtime } = jobs[0][work];
  return (io_bytes / runtime) * 1000;
}

const scratch = mkdtempSync(join(values.scratch, 'firn-agreement-'));
try {
  const file = join(scratch, 'data');
  await makeDataDisk(file, Number(values['size-mib']) * MIB, 1);
  run('sync', []);
  const rows = [];
  for (const work of ['read', 'write']) {
    for (const point of POINTS) {
      const rounds = Array.from({ length: Number(values.rounds) }, (_, round) => {
        const turns = [
          ['firn', () => byFirn(work, work === 'read' ? file : scratch, point)],
          ['fio', () => byFio(work, work === 'read' ? file : join(scratch, 'fio'), point)],
        ];
        if (round % 2 === 1) turns.reverse();
        return Object.fromEntries(turns.map(([name, measure]) => [name, measure()]));
      });
      const of = (name) => `${Math.round(median(rounds.map((one) => one[name])) / MIB)} MiB/s`;
      const ratios = rounds.map(({ firn, fio }) => firn / fio);
      const [low, high] = [Math.min(...ratios), Math.max(...ratios)].map((each) => each.toFixed(2));
      rows.push(
        `| ${work} ${point.block} x ${point.depth} | ${of('firn')} | ${of('fio')} | ${median(ratios).toFixed(2)} (${low} to ${high}) |`,
      );
      console.error(rows.at(-1));
    }
  }
  console.log(`| block x depth | firn | fio | firn / fio |\n|---|---|---|---|\n${rows.join('\n')}`);
} finally {
  rmSync(scratch, { recursive: true });
}
