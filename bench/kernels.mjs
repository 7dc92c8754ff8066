/**
 * What crossing from JavaScript into the engine costs, and what the same kernels cost in other
 * libraries: `npm run bench`.
 *
 *   node bench/kernels.mjs [--time-ms 300] [--native]
 *
 * The first table is the boundary: a call that does nothing, the counters of a job (what a progress
 * display polls), and BLAKE3 of small inputs, where the call weighs more than the work. Bulk data
 * never takes this way; that the boundary is cheap enough for everything else is what the table has
 * to show. The second table holds what a reader without the addon uses (@napi-rs/blake-hash,
 * lz4-napi) against inputs of a chunk's size. The engine's own kernels run without Node: --native
 * runs them too, if they are built.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench } from 'tinybench';

const KIB = 1024;
const MIB = 1024 * KIB;
const CHUNK_BYTES = [32 * KIB, 64 * KIB, 256 * KIB];
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NATIVE_KERNELS = join(ROOT, 'build-bench/bench/native/firn_kernels');

/** Chunks of one size out of real machine code: this Node's own. */
function realChunks(bytes) {
  const file = openSync(process.execPath, 'r');
  return Array.from({ length: 32 }, (_, index) => {
    const chunk = new Uint8Array(bytes);
    readSync(file, chunk, 0, bytes, 4 * MIB + index * bytes);
    return chunk;
  });
}

/** Calls `work` with one chunk after another. */
function overChunks(chunks, work) {
  let next = 0;
  return () => work(chunks[next++ % chunks.length]);
}

async function loadEngine() {
  const loader = join(ROOT, 'dist/engine/loader.js');
  if (!existsSync(loader)) throw new Error('Firn is not built: run npm run build first');
  const { loadBinding } = await import(loader);
  return loadBinding();
}

/** A job that has run: copies a small raw disk. Its counters stay readable. */
async function finishedSession(binding, folder) {
  const path = join(folder, 'source.raw');
  writeFileSync(path, realChunks(256 * KIB)[0]);
  const open = { parentFolders: [], parents: [], format: 'raw' };
  const disk = await binding.openDisk(path, open);
  const { identity } = disk;
  disk.close();
  const session = binding.startCopy({
    tuning: { workers: 1, memoryBytes: 64 * MIB, io: 'auto', backend: 'auto', bytesPerSecond: 0 },
    source: { path, open },
    target: { path: join(folder, 'target.raw'), identity, parentPath: '' },
    overwrite: false,
  });
  await session.done;
  return session;
}

function addBoundary(bench, binding, session) {
  bench.add('addon: version()', () => binding.version());
  bench.add('addon: stats() of a job', () => session.stats());
  const key = new Uint8Array(32);
  for (const bytes of [64, 4 * KIB, 64 * KIB]) {
    const input = realChunks(bytes)[0];
    bench.add(`addon: blake3, ${bytes} bytes`, () => binding.blake3(key, input));
    bench.add(`node:crypto sha256, ${bytes} bytes`, () =>
      createHash('sha256').update(input).digest(),
    );
  }
}

function addLibraries(bench, binding) {
  const require = createRequire(import.meta.url);
  const { blake3 } = require('@napi-rs/blake-hash');
  const lz4 = require('lz4-napi');
  for (const bytes of CHUNK_BYTES) {
    const chunks = realChunks(bytes);
    const size = `${bytes / KIB} KiB`;
    const compressed = chunks.map((chunk) => lz4.compressSync(Buffer.from(chunk.buffer)));
    bench.add(
      `addon blake3, ${size}`,
      overChunks(chunks, (chunk) => binding.blake3(null, chunk)),
    );
    bench.add(
      `@napi-rs/blake-hash, ${size}`,
      overChunks(chunks, (chunk) => blake3(chunk)),
    );
    bench.add(
      `lz4-napi compress, ${size}`,
      overChunks(chunks, (chunk) => lz4.compressSync(Buffer.from(chunk.buffer))),
    );
    bench.add(
      `lz4-napi uncompress, ${size}`,
      overChunks(compressed, (block) => lz4.uncompressSync(block)),
    );
  }
}

/** Prints one bench's table: time of a call, and throughput where the name ends in a size. */
function printTable(bench) {
  for (const { name, result } of bench.tasks) {
    if (result.state !== 'completed') throw new Error(`${name}: ${result.error?.message}`);
  }
  console.table(
    bench.tasks.map(({ name, result }) => {
      const milliseconds = result.latency.p50;
      const size = /, (\d+) (KiB|bytes)$/.exec(name);
      const bytes = size === null ? undefined : Number(size[1]) * (size[2] === 'KiB' ? KIB : 1);
      return {
        what: name,
        'median us': Number((milliseconds * 1000).toFixed(2)),
        'MB/s': bytes === undefined ? '' : Math.round(bytes / 1000 / milliseconds),
        samples: result.latency.samplesCount,
      };
    }),
  );
}

function runNative() {
  if (!existsSync(NATIVE_KERNELS)) {
    console.log(
      'The native kernels are not built: cmake -S . -B build-bench -DFIRN_NATIVE_BENCH=ON && cmake --build build-bench',
    );
    return;
  }
  const { status } = spawnSync(NATIVE_KERNELS, [], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`firn_kernels ended with ${status}`);
}

async function main() {
  const { values } = parseArgs({
    options: {
      'time-ms': { type: 'string', default: '300' },
      native: { type: 'boolean', default: false },
    },
  });
  const time = Number(values['time-ms']);
  const binding = await loadEngine();
  const folder = mkdtempSync(join(tmpdir(), 'firn-kernels-'));
  try {
    const session = await finishedSession(binding, folder);
    const boundary = new Bench({ name: 'boundary', time });
    addBoundary(boundary, binding, session);
    const libraries = new Bench({ name: 'libraries', time });
    addLibraries(libraries, binding);
    for (const bench of [boundary, libraries]) {
      await bench.run();
      printTable(bench);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  if (values.native) runNative();
}

try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
