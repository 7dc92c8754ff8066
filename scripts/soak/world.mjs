/**
 * What a soak works on: two labs of machines, two repositories, the state folder, and what is known of them: which points must still be
 * there, what each disk's content is, what was found wrong.
 *
 * The hypervisor's user (own checkpoints, power cuts) is played through the lab's module; Firn itself is only ever run as a command.
 */

import { createHash } from 'node:crypto';
import { appendFileSync, createReadStream, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { labStatus, userCheckpoint } from '../../dist/hosts/lab/lab.js';

/** What a finding may quote. */
const QUOTED_MAX = 4000;
const FINDINGS_MAX = 100;

export async function sha256OfFile(file) {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest('hex');
}

/** One of the labs: at any time one action has it for itself, or several that do not mind each other share it. */
export class Lab {
  #busy = false;
  #waiting = [];
  /** Names of checkpoints of the lab's user, by machine: nobody may touch them. */
  userCheckpoints = new Map();

  constructor(folder, name, { vms, consistency, disks }) {
    this.name = name;
    this.folder = join(folder, name);
    this.host = `lab:${this.folder}`;
    this.vms = vms;
    this.consistency = consistency;
    this.disks = disks;
  }

  get isBusy() {
    return this.#busy;
  }

  /** Runs `work` while nobody else disturbs the machines. */
  async alone(work) {
    while (this.#busy) await new Promise((resolve) => this.#waiting.push(resolve));
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
      this.#waiting.shift()?.();
    }
  }

  async status() {
    return (await labStatus(this.folder)).vms;
  }

  async machine(name) {
    const found = (await this.status()).find((vm) => vm.name === name);
    if (found === undefined) throw new Error(`The lab ${this.name} has lost ${name}`);
    return found;
  }
}

/** One of the repositories, and what must be in it. */
export class Store {
  /** By id: the point as it was listed last. */
  points = new Map();
  /** Ids of points that some forget was about when it was killed: they may be gone at any later time. */
  doomed = new Set();
  /** Ids of all points that were ever seen, and of those that were forgotten. */
  seen = new Set();
  forgotten = new Set();
  /** Ids of points that a command has reported as sealed and no list has been asked for since, with the machine's name. */
  promised = new Map();
  /** Points and bytes of all files after each prune at rest, and at the end. */
  sizes = [];
  end;
  /** The repository's id. */
  id;

  constructor(folder, name, passwordFile) {
    this.name = name;
    this.path = join(folder, name);
    this.key = passwordFile === undefined ? [] : ['--password-file', passwordFile];
  }

  /** The options that name it. */
  get options() {
    return ['-r', this.path, ...this.key];
  }
}

export class World {
  findings = [];
  /** SHA-256 of a disk by the content id (root) that points give it: points that name one root must restore to one content. */
  hashOfRoot = new Map();
  /** The roots of a point's disks by "repository id/point id": what a copy must have, too. */
  rootsOfPoint = new Map();
  /** How often something was held against what it must be, by name. */
  compared = {};
  /** What happened to machines, and the faults that were switched on, by name. */
  worldActions = {};
  faults = {};
  /** Processes that the lab killed at an entry of their journal. */
  killedByFaults = 0;
  /** How often everything was looked at in peace, and what that came to. */
  checks = 0;
  verifiedBytes = 0;
  restoredAtEnd = 0;
  /** Runs over machines in the journal, as of the last look. */
  runs = 0;
  #nextFolder = 0;

  constructor(folder, commands) {
    this.folder = folder;
    this.commands = commands;
    this.state = join(folder, 'state');
    this.temporary = join(folder, 'temporary');
    this.passwordFile = join(folder, 'passphrase');
    this.labs = [
      new Lab(folder, 'one', {
        vms: ['web', 'db', 'files'],
        consistency: 'application',
        disks: 1,
      }),
      new Lab(folder, 'two', { vms: ['mail', 'log'], consistency: 'filesystem', disks: 2 }),
    ];
    this.stores = [
      new Store(folder, 'open', undefined),
      new Store(folder, 'sealed', this.passwordFile),
    ];
  }

  /** The options that let a reconciler finish runs into the sealed repository, too. */
  get key() {
    return ['--password-file', this.passwordFile];
  }

  async create() {
    mkdirSync(this.temporary, { recursive: true });
    writeFileSync(this.passwordFile, 'a passphrase of the soak\n', { mode: 0o600 });
    const [one, two] = this.labs;
    const [open, sealed] = this.stores;
    const common = ['--size', '128M', '--writes', '30'];
    const names = (lab) => lab.vms.flatMap((vm) => ['--vm', vm]);
    await this.must('lab create', [
      ...['lab', 'create', one.folder, ...names(one), ...common],
      ...['--data', '16M', '--freeze', '50ms'],
    ]);
    await this.must('lab create', [
      ...['lab', 'create', two.folder, ...names(two), ...common],
      ...['--data', '8M', '--disks', '2', '--vss', 'filesystem'],
    ]);
    for (const lab of this.labs) await this.must('lab start', ['lab', 'start', lab.folder]);
    await this.addUserCheckpoint(one, 'db', 'before the update');
    await this.addUserCheckpoint(two, 'mail', 'as delivered');
    await this.must('init', ['init', open.path]);
    await this.must('init', [
      ...['init', sealed.path, '--like', open.path, '--sealed', '--no-recovery-key'],
      ...sealed.key,
    ]);
    for (const store of this.stores) {
      const { messages } = await this.must('stats', ['stats', ...store.options]);
      store.id = messages[0]?.repositoryId;
    }
  }

  async addUserCheckpoint(lab, vm, name) {
    lab.userCheckpoints.set(vm, await userCheckpoint(lab.folder, vm, { name }));
  }

  /** Runs a command that must succeed; what else comes of it is a finding. */
  async must(kind, parameters, options) {
    const result = await this.commands.run(kind, parameters, options);
    this.judge(kind, result, [0]);
    return result;
  }

  /** Notes a finding unless the process ended as is fine; one that was ended from outside did so by that. */
  judge(kind, result, fine) {
    const { status, signal, wasEnded, stderr, line, messages, codes } = result;
    // A signal that comes before Firn listens for it ends it at once.
    if (wasEnded && (signal !== null || status === 130)) return true;
    if (signal === null && fine.includes(status)) return true;
    const last = JSON.stringify(messages.at(-1) ?? null).slice(0, QUOTED_MAX);
    this.find(`${kind} ended with ${signal ?? status}`, {
      line,
      codes,
      stderr: stderr.slice(-QUOTED_MAX),
      last,
    });
    return false;
  }

  find(what, details = {}) {
    this.log(`FOUND ${what} ${JSON.stringify(details)}`);
    if (this.findings.length < FINDINGS_MAX) {
      this.findings.push({ at: new Date().toISOString(), what, ...details });
    }
  }

  /** Counts a comparison, and notes a finding if it does not hold. */
  expect(what, holds, details = {}) {
    this.compared[what] = (this.compared[what] ?? 0) + 1;
    if (!holds) this.find(`it does not hold that ${what}`, details);
    return holds;
  }

  /** Holds what a disk was restored or read as against what its content id stood for before. */
  noteContent(root, hash, what) {
    const known = this.hashOfRoot.get(root);
    if (known === undefined) this.hashOfRoot.set(root, { hash, what });
    else {
      this.expect(`${what} is ${known.what}, byte for byte`, known.hash === hash, { root });
    }
  }

  log(line) {
    appendFileSync(join(this.folder, 'soak.log'), `${new Date().toISOString()} ${line}\n`);
  }

  /** Runs `work` with the path of a new folder, and removes it afterwards. */
  async withFolder(work) {
    const folder = join(this.folder, `work-${++this.#nextFolder}`);
    mkdirSync(folder);
    try {
      return await work(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /**
   * Lists a repository, and holds the list against what must be in it. `mayGo` are ids that have just been forgotten, or may have been.
   */
  async list(store, mayGo = new Set()) {
    // What is reported while the list is made need not be in it.
    const owed = [...store.promised];
    const result = await this.must('list', ['list', ...store.options]);
    const listed = result.messages[0]?.points;
    if (listed === undefined) return [...store.points.values()];
    const now = new Map(listed.map((point) => [point.id, point]));
    for (const id of mayGo) store.forgotten.add(id);
    for (const [id, vm] of [...owed, ...[...store.points].map(([id, { vm }]) => [id, vm.name])]) {
      const isThere = now.has(id) || store.forgotten.has(id) || store.doomed.has(id);
      this.expect('a point that was sealed is there', isThere, { store: store.name, id, vm });
      store.promised.delete(id);
    }
    for (const point of listed) {
      store.seen.add(point.id);
      if (store.points.has(point.id)) continue;
      this.#noteRoots(store, point);
    }
    store.points = now;
    return listed;
  }

  /** Notes points that a command has reported as sealed: `points` are pairs of an id and a machine's name; an id may be null. */
  promise(store, points) {
    for (const [id, vm] of points) {
      if (id === null) continue;
      this.compared['a point was reported as sealed'] ??= 0;
      this.compared['a point was reported as sealed']++;
      store.promised.set(id, vm);
    }
  }

  #noteRoots(store, point) {
    const roots = point.disks.map(({ name, root }) => `${name}=${root}`).join(' ');
    this.rootsOfPoint.set(`${store.id}/${point.id}`, roots);
    if (point.origin === undefined) return;
    const { repository, point: original } = point.origin;
    const known = this.rootsOfPoint.get(`${repository}/${original}`);
    if (known === undefined) return;
    this.expect('a copy has the content ids of its original', known === roots, {
      point: point.id,
      original,
    });
  }
}
