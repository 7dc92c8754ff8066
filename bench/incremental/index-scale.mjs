/**
 * The index of a large repository, by the native program firn_index: as many chunks in index runs as
 * collections leave them, asked by one thread.
 */
import { join } from 'node:path';
import { buildNative } from '../peers/ceiling.mjs';
import { runQuietly } from '../peers/measure.mjs';
import { inMib, inSeconds, MIB, row } from './measured.mjs';

export async function measureIndex({ scratch, rounds, entries, log }) {
  const program = buildNative('firn_index', log);
  if (program === undefined) return { rows: [], notes: ['The index was not measured.'] };
  const samples = [];
  const folder = join(scratch, 'index');
  for (let round = 0; round < rounds; ++round) {
    // The first call writes the index, the others find it.
    samples.push(JSON.parse(runQuietly(program, [folder, String(entries)])));
    log(`index, round ${round + 1}: ${JSON.stringify(samples.at(-1))}`);
  }
  const work = `index with ${entries / 1e6} million chunks`;
  const perSecond = (value) => `${(value / 1e6).toFixed(2)} M/s`;
  const [first] = samples;
  const values = (key) => samples.map((one) => one[key]);
  const rows = [
    row({
      work: `${work}: open`,
      asked: '< 1 s',
      values: values('openSeconds'),
      show: inSeconds,
      most: 1,
    }),
    row({
      work: `${work}: lookups of what is there, a core`,
      asked: '> 1 M/s',
      values: values('presentPerSecond'),
      show: perSecond,
      least: 1e6,
    }),
    row({
      work: `${work}: lookups of what is not, a core`,
      asked: '> 1 M/s',
      values: values('absentPerSecond'),
      show: perSecond,
      least: 1e6,
    }),
    row({
      work: `${work}: memory, besides mapped files`,
      asked: '<= 156 MiB',
      values: values('privateBytes'),
      show: inMib,
      most: 156 * MIB,
    }),
  ];
  return {
    rows,
    notes: [
      `Index: ${first.runs} index runs. The first pass over an index that is in the page cache and not yet mapped: ` +
        `${perSecond(first.presentFirstPerSecond)} there, ${perSecond(first.absentFirstPerSecond)} not there. ` +
        `After asking for what is not there ${inMib(first.mappedBytesAfterAbsent)} of the index's files are mapped, after all lookups ${inMib(first.mappedBytes)}; ` +
        'these pages belong to the page cache, and the kernel takes them back when it needs them.',
    ],
  };
}
