/**
 * Programs that read disk images, each as a function from a file to its content: Firn, QEMU, 7-Zip and libvhdi. What is refused, or claims to be
 * larger than these tests' images are, gives no content.
 */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { openDisk } from '../../src/jobs/disk.js';

const MIB = 2 ** 20;
export const READ_BYTES_MAX = 16 * MIB;
const TIMEOUT_MS = 10_000;
const PYTHON = '/usr/bin/python3';
const run = promisify(execFile);

export type Reading = { bytes: number; hash: string; content?: Buffer } | { refused: string };

export interface Reader {
  name: 'firn' | 'qemu' | '7-zip' | 'libvhdi';
  /** `parent` is what a differencing disk is read on top of. */
  read(file: string, format: 'vhdx' | 'vhd', parent: string | undefined): Promise<Reading>;
  close?(): void;
}

export function isRead(reading: Reading): reading is Exclude<Reading, { refused: string }> {
  return 'hash' in reading;
}

function readingOf(content: Buffer): Reading {
  if (content.length > READ_BYTES_MAX) return { refused: 'it is larger than the tests look at' };
  const hash = createHash('sha256').update(content).digest('hex');
  return { bytes: content.length, hash, content };
}

async function unlessRefused(read: () => Promise<Reading>): Promise<Reading> {
  try {
    return await read();
  } catch (error) {
    const { code, stderr, message } = error as Error & { code?: unknown; stderr?: unknown };
    return { refused: `${code ?? ''} ${String(stderr || message).slice(0, 200)}` };
  }
}

const firn: Reader = {
  name: 'firn',
  read: (file) =>
    unlessRefused(async () => {
      await using disk = await openDisk(file);
      if (disk.sizeBytes > READ_BYTES_MAX) return { refused: 'it is larger' };
      return readingOf(Buffer.from(await disk.read(0, disk.sizeBytes)));
    }),
};

const qemu: Reader = {
  name: 'qemu',
  read: (file, format) =>
    unlessRefused(async () => {
      const kind = format === 'vhd' ? 'vpc' : format;
      const target = `${file}.qemu.raw`;
      // Not "convert", which would read all of what claims to be 64 TiB.
      const blocks = ['bs=65536', `count=${READ_BYTES_MAX / 65536 + 1}`];
      await run(
        'qemu-img',
        ['dd', '-f', kind, '-O', 'raw', `if=${file}`, `of=${target}`, ...blocks],
        {
          timeout: TIMEOUT_MS,
        },
      );
      const content = await readFile(target);
      await rm(target);
      return readingOf(content);
    }),
};

function sevenZip(command: string): Reader {
  return {
    name: '7-zip',
    read: (file, format) =>
      unlessRefused(async () => {
        const settings = {
          encoding: 'buffer',
          maxBuffer: READ_BYTES_MAX + MIB,
          timeout: TIMEOUT_MS,
        } as const;
        return readingOf((await run(command, ['x', `-t${format}`, '-so', file], settings)).stdout);
      }),
  };
}

const SERVE = `
import hashlib, sys, pyvhdi
for line in sys.stdin:
    try:
        path, parent = line.rstrip('\\n').split('\\t')
        file = pyvhdi.file()
        file.open(path)
        if parent:
            below = pyvhdi.file()
            below.open(parent)
            file.set_parent(below)
        size = file.get_media_size()
        if size > ${READ_BYTES_MAX}:
            raise ValueError('it is larger')
        content = file.read_buffer_at_offset(size, 0) if size else b''
        if len(content) != size:
            raise ValueError('it is shorter than it says')
        print(size, hashlib.sha256(content).hexdigest(), flush=True)
    except Exception as error:
        print('-', str(error).replace('\\n', ' ')[:200], flush=True)
`;

/** One process for all: starting Python takes longer than reading an image. */
function libvhdi(): Reader {
  const start = () => spawn(PYTHON, ['-c', SERVE], { stdio: ['pipe', 'pipe', 'ignore'] });
  let child: ChildProcess | undefined;
  const ask = (server: ChildProcess, question: string) =>
    new Promise<string>((resolve) => {
      const lines = createInterface({ input: server.stdout as NodeJS.ReadableStream });
      const died = () => resolve('- it died');
      server.once('exit', died);
      lines.once('line', (line) => {
        server.off('exit', died);
        lines.close();
        resolve(line);
      });
      server.stdin?.write(question);
    });
  return {
    name: 'libvhdi',
    read: async (file, _format, parent) => {
      if (child === undefined || child.exitCode !== null || child.signalCode !== null)
        child = start();
      const [size = '', ...rest] = (await ask(child, `${file}\t${parent ?? ''}\n`)).split(' ');
      if (size === '-') return { refused: rest.join(' ') };
      return { bytes: Number(size), hash: rest[0] ?? '' };
    },
    close: () => void child?.kill(),
  };
}

/** Those that are installed; Firn is the first. */
export async function installedReaders(): Promise<Reader[]> {
  const works = async (command: string, ...parameters: string[]) =>
    run(command, parameters).then(
      () => true,
      () => false,
    );
  const readers = [firn];
  if (await works('qemu-img', '--version')) readers.push(qemu);
  for (const command of ['7zz', '7z']) {
    if (readers.some(({ name }) => name === '7-zip')) break;
    if (await works(command, 'i')) readers.push(sevenZip(command));
  }
  if (await works(PYTHON, '-c', 'import pyvhdi')) readers.push(libvhdi());
  return readers;
}
