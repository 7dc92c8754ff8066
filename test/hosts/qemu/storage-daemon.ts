/**
 * A machine without a guest: QEMU's storage daemon has QEMU's block layer, its monitor and its jobs, and is up in 25 ms. What writes to its disks
 * is a qemu-io process for each, through NBD, so the disks are as live as a guest's.
 */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { z } from 'zod';
import { type QmpClient, withQmp } from '../../../src/hosts/qemu/qmp.js';
import { onPath } from './tools.js';

const run = promisify(execFile);

/** Why these tests cannot run here, or undefined. */
export const whyNoDaemon = ['qemu-storage-daemon', 'qemu-img', 'qemu-io'].every(onPath)
  ? undefined
  : 'qemu-storage-daemon, qemu-img and qemu-io are not installed (Debian: qemu-system-common, qemu-utils)';

const FORMATS: Readonly<Record<string, string>> = { '.vhdx': 'vhdx', '.qcow2': 'qcow2' };

export class StorageDaemon {
  readonly folder: string;
  readonly disks: readonly string[];
  #process: ChildProcess | undefined;
  readonly #writers: Writer[] = [];

  private constructor(folder: string, disks: readonly string[]) {
    this.folder = folder;
    this.disks = disks;
  }

  /** Makes a machine's folder with a VHDX for each name, and starts it. */
  static async create(folder: string, names: readonly string[] = ['d0']): Promise<StorageDaemon> {
    await mkdir(folder, { recursive: true });
    const disks = names.map((name) => path.join(folder, `${name}.vhdx`));
    for (const disk of disks) {
      await run('qemu-img', ['create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', disk, '64M']);
    }
    const daemon = new StorageDaemon(folder, disks);
    await daemon.start();
    return daemon;
  }

  /** Starts the process, on these files instead of the disks if given: VHDX, qcow2 or raw by their extension. */
  async start(files: readonly string[] = this.disks): Promise<void> {
    const nbd = path.join(this.folder, 'nbd.sock');
    const parameters = files.flatMap((file, index) => [
      ...['--blockdev', `driver=file,node-name=f${index},filename=${file}`],
      ...[
        '--blockdev',
        `driver=${FORMATS[path.extname(file)] ?? 'raw'},node-name=n${index},file=f${index}`,
      ],
    ]);
    const exported = files.flatMap((_, index) => [
      '--export',
      `type=nbd,id=disk${index},node-name=n${index},name=disk${index},writable=on`,
    ]);
    const socket = path.join(this.folder, 'qmp.sock');
    this.#process = spawn(
      'qemu-storage-daemon',
      [
        ...parameters,
        ...['--nbd-server', `addr.type=unix,addr.path=${nbd},max-connections=8`],
        ...exported,
        ...['--chardev', `socket,id=q,path=${socket},server=on,wait=off`],
        ...['--monitor', 'chardev=q'],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    await waitFor(() => this.qmp(async () => true));
  }

  qmp<Result>(work: (qmp: QmpClient) => Promise<Result>): Promise<Result> {
    return withQmp(this.folder, work);
  }

  /** Starts to write to each disk, endlessly. */
  async startWriting(): Promise<void> {
    for (const index of this.disks.keys()) {
      const nbd = `nbd+unix:///disk${index}?socket=${encodeURIComponent(path.join(this.folder, 'nbd.sock'))}`;
      this.#writers.push(new Writer(nbd));
    }
    await waitFor(async () => this.#writers.every((writer) => writer.count > 0));
  }

  /** True as soon as every writer has made headway; false if that takes half a minute. */
  async isWriting(): Promise<boolean> {
    const before = this.#writers.map((writer) => writer.count);
    for (let waitedMs = 0; waitedMs < 30_000; waitedMs += 20) {
      if (this.#writers.every((writer, index) => writer.count > (before[index] ?? 0))) return true;
      await sleep(20);
    }
    return false;
  }

  /** Layers of the longest chain, by what the exports stand on. */
  async chainDepth(): Promise<number> {
    return this.qmp(async (qmp) => {
      const exported = await qmp.query(
        z.array(z.object({ 'node-name': z.string() })),
        'query-block-exports',
      );
      const nodes = await qmp.query(
        z.array(z.object({ 'node-name': z.string(), backing_file_depth: z.number() })),
        'query-named-block-nodes',
      );
      const names = exported.map((each) => each['node-name']);
      const tops = nodes.filter((node) => names.includes(node['node-name']));
      return 1 + Math.max(...tops.map((node) => node.backing_file_depth));
    });
  }

  /** Writes to a disk once, through the daemon, and waits for it. */
  async write(pattern: number, offsetMib: number, mib: number, disk = 0): Promise<void> {
    const nbd = `nbd+unix:///disk${disk}?socket=${encodeURIComponent(path.join(this.folder, 'nbd.sock'))}`;
    const command = `write -P ${pattern} ${offsetMib}M ${mib}M`;
    await run('qemu-io', ['-f', 'raw', '-c', command, '-c', 'flush', nbd]);
  }

  /** What kill -9 does. */
  async kill(): Promise<void> {
    await this.stopWriting();
    await this.#end('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.stopWriting();
    await this.#end('SIGTERM');
  }

  async stopWriting(): Promise<void> {
    await Promise.all(this.#writers.splice(0).map((writer) => writer.stop()));
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    await exited;
  }
}

/** One qemu-io that is told one write after another: the same 60 places with changing content. */
class Writer {
  count = 0;
  readonly #process: ChildProcess;

  constructor(nbd: string) {
    this.#process = spawn('qemu-io', ['-f', 'raw', nbd], { stdio: ['pipe', 'pipe', 'ignore'] });
    this.#process.stdin?.on('error', () => undefined);
    this.#process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      if (!text.includes('wrote')) return;
      this.count++;
      setTimeout(() => this.#next(), 2);
    });
    this.#next();
  }

  #next(): void {
    this.#process.stdin?.write(
      `write -P ${(this.count % 250) + 1} ${(this.count % 60) * 1024}k 64k\n`,
    );
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exited;
  }
}

/** The disk's content as a guest would see it, in one number: SHA-256 of the raw bytes, by qemu-img. For machines that are off. */
export async function contentOf(file: string, format: string): Promise<string> {
  const raw = `${file}.${process.pid}.check`;
  await run('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
  const { stdout } = await run('sha256sum', [raw]);
  await run('rm', ['-f', raw]);
  return stdout.slice(0, 64);
}

export async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

/** Asks again until it is true; a failure counts as not yet. */
export async function waitFor(
  condition: () => Promise<boolean>,
  timeoutMs = 50_000,
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const failure = await condition().then(
      (holds) => (holds ? undefined : new Error('it did not come true')),
      (error: unknown) => error,
    );
    if (failure === undefined) return;
    if (performance.now() > endMs) throw failure;
    await sleep(10);
  }
}
