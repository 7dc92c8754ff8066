/**
 * The work that is measured, in the order in which it is done.
 *
 * Contenders take turns inside each task (A B C, A B C), and the order of turns rotates from round
 * to round, so that whatever changes on the machine meanwhile meets all of them. Each round starts
 * with empty repositories. In the first round every restored and copied disk is compared with its
 * source; a contender that returns wrong bytes has failed.
 */
import { copyFileSync, linkSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backupContenders, copyContenders, DISK_NAME } from './contenders.mjs';
import { folderBytes, measure, prepareCache, runQuietly } from './measure.mjs';

const PACKAGE_ROOT = fileURLToPath(new URL('../../', import.meta.url));
const NAMES = ['first', 'second', 'third'];
const WIDE_DISK = 'wide.vhdx';
const WIDE_DISK_SIZE = '64T';
/** The same block size as the 16 GiB image, so that only the disk's size differs. */
const WIDE_DISK_OPTIONS = 'subformat=dynamic,block_size=33554432';

function linkOrCopy(from, to) {
  rmSync(to, { force: true });
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to);
  }
}

/** A 64 TiB virtual disk that holds the same data as `source`. */
function makeWideDisk(source, target) {
  runQuietly('qemu-img', [
    'create',
    '-q',
    '-f',
    'vhdx',
    '-o',
    WIDE_DISK_OPTIONS,
    target,
    WIDE_DISK_SIZE,
  ]);
  runQuietly('qemu-img', ['convert', '-n', '--target-is-zero', '-O', 'vhdx', source, target]);
}

function rotate(list, by) {
  return list.map((_, index) => list[(index + by) % list.length]);
}

export class Rounds {
  #scratch;
  #images;
  #cache;
  #ceilingProgram;
  #log;
  #sourceFolder;
  /** @type {Map<string, string>} why a contender is out */
  failures = new Map();
  /** @type {{ round: number, task: string, contender: string, command: string }[]} */
  samples = [];
  ceilings = [];
  storedBytes = {};

  /**
   * @param {{ scratch: string, images: { base: string, churned: string, other: string }, cache: 'warm' | 'cold',
   *   ceilingProgram?: string, absent: Set<string>, log: (line: string) => void }} options
   */
  constructor({ scratch, images, cache, ceilingProgram, absent, log }) {
    this.#scratch = scratch;
    this.#images = images;
    this.#cache = cache;
    this.#ceilingProgram = ceilingProgram;
    this.#log = log;
    this.#sourceFolder = join(scratch, 'source');
    mkdirSync(this.#sourceFolder);
    for (const contender of [...backupContenders(scratch), ...copyContenders()]) {
      if (absent.has(contender.tool)) this.failures.set(contender.id, 'absent');
    }
    if (!absent.has('qemu-img')) makeWideDisk(images.base, join(scratch, WIDE_DISK));
  }

  /** Does all the work once. */
  async run(round, isLast) {
    const backups = rotate(backupContenders(this.#scratch), round);
    await this.#backupAll(round, 'full', backups, this.#images.base, 0);
    await this.#backupAll(round, 'second', backups, this.#images.churned, 1);
    for (const contender of backups) await this.#restore(round, contender);
    if (isLast) await this.#measureStored(backups);
    for (const contender of backups)
      rmSync(this.#repository(contender), { recursive: true, force: true });
    for (const contender of rotate(copyContenders(), round)) await this.#copy(round, contender);
    await this.#backupWide(round);
  }

  #repository(contender) {
    return join(this.#scratch, `repository-${contender.id}`);
  }

  /** Runs one turn; a failure puts the contender out instead of ending the benchmark. */
  async #turn(contender, work) {
    if (this.failures.has(contender.id)) return;
    try {
      await work();
    } catch (error) {
      this.failures.set(contender.id, error.message);
      this.#log(`${contender.label} failed: ${error.message}`);
    }
  }

  async #sample(round, task, contender, command, inputs) {
    for (const input of inputs) prepareCache(input, this.#cache);
    const cost = await measure(command, this.#scratch);
    const text = this.#commandText(command);
    this.samples.push({ round, task, contender: contender.id, command: text, ...cost });
    const memory = `${(cost.peakBytes / 2 ** 20).toFixed(0)} MiB`;
    this.#log(
      `round ${round + 1}  ${task}  ${contender.label}: ${cost.seconds.toFixed(2)} s, ${memory}`,
    );
  }

  /** The command as a reader would type it: without this machine's folders. */
  #commandText({ program, args }) {
    const words = [program === process.execPath ? 'node' : program, ...args];
    return words.join(' ').replaceAll(this.#scratch, 'SCRATCH').replaceAll(PACKAGE_ROOT, '');
  }

  async #backupAll(round, task, contenders, image, generation) {
    const disk = join(this.#sourceFolder, DISK_NAME);
    linkOrCopy(image, disk);
    for (const contender of contenders) {
      await this.#turn(contender, async () => {
        const repository = this.#repository(contender);
        if (generation === 0) this.#initialise(contender, repository);
        if (task === 'full' && contender.id === 'firn-lz4') this.#measureCeiling();
        const command = contender.backup(repository, disk, NAMES[generation]);
        await this.#sample(round, task, contender, command, [disk]);
      });
    }
  }

  #initialise(contender, repository) {
    const { program, args, env } = contender.init(repository);
    runQuietly(program, args, { env: { ...process.env, ...env }, cwd: this.#scratch });
  }

  async #restore(round, contender) {
    await this.#turn(contender, async () => {
      const repository = this.#repository(contender);
      const folder = join(this.#scratch, 'restored');
      mkdirSync(folder);
      try {
        const { command, output, form } = contender.restore(repository, NAMES[1], folder);
        await this.#sample(round, 'restore', contender, command, [repository]);
        if (round === 0) this.#compare(output, this.#images.churned, form);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }

  async #copy(round, contender) {
    await this.#turn(contender, async () => {
      const target = join(this.#scratch, contender.form === 'raw' ? 'copy.raw' : 'copy.vhdx');
      try {
        const command = contender.copy(this.#images.base, target);
        await this.#sample(round, 'copy', contender, command, [this.#images.base]);
        if (round === 0) this.#compare(target, this.#images.base, contender.form);
      } finally {
        rmSync(target, { force: true });
      }
    });
  }

  /**
   * Throws unless `output` holds what `image` does: the same disk for a raw image, the same bytes
   * for a file.
   */
  #compare(output, image, form) {
    if (form === 'raw')
      runQuietly('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'vhdx', output, image]);
    else runQuietly('cmp', [output, image]);
  }

  /** Adds the third image, untimed, and takes the size of every repository. */
  async #measureStored(contenders) {
    const disk = join(this.#sourceFolder, DISK_NAME);
    linkOrCopy(this.#images.other, disk);
    for (const contender of contenders) {
      await this.#turn(contender, async () => {
        await measure(contender.backup(this.#repository(contender), disk, NAMES[2]), this.#scratch);
        this.storedBytes[contender.id] = folderBytes(this.#repository(contender));
      });
    }
  }

  /**
   * The same data on a disk that claims 64 TiB, right beside the 16 GiB one; both into an empty
   * repository.
   */
  async #backupWide(round) {
    if (this.failures.get('qemu-img') === 'absent') return;
    const contender = backupContenders(this.#scratch)[0];
    const disks = { narrow: this.#images.base, wide: join(this.#scratch, WIDE_DISK) };
    for (const [task, disk] of Object.entries(disks)) {
      await this.#turn(contender, async () => {
        const repository = this.#repository(contender);
        this.#initialise(contender, repository);
        const command = contender.backup(repository, disk, NAMES[0]);
        await this.#sample(round, task, contender, command, [disk]);
        rmSync(repository, { recursive: true });
      });
    }
  }

  /**
   * Measured right before the backup that it is held against, so that both meet the same machine.
   */
  #measureCeiling() {
    if (this.#ceilingProgram === undefined) return;
    const ceiling = JSON.parse(runQuietly(this.#ceilingProgram, [this.#images.base]));
    this.ceilings.push(ceiling);
    this.#log(
      `ceiling: unbuffered read ${ceiling.readSeconds.toFixed(2)} s, kernels ${ceiling.kernelSeconds.toFixed(2)} CPU s`,
    );
  }
}
