/**
 * What the suite in host.ts works with: what a fixture gives, steps that are recorded and can die, and a bench that holds the two together.
 */

import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { expect } from 'vitest';
import { firnError } from '../../src/errors.js';
import {
  type Capture,
  type CaptureOutcome,
  type CaptureRequest,
  type ConsistencyPolicy,
  type Host,
  markOf,
  type StepName,
  type Steps,
  type Vm,
} from '../../src/hosts/host.js';

export interface HostFixture {
  /** A new object for the same host at each call. The suite closes it. */
  host(): Promise<Host>;
  /** Names of running machines; at least one. Tests about several machines are skipped when there is one. */
  vms: readonly string[];
  /** True as soon as the machine's guest makes headway; false if it makes none for long. */
  isWriting(vm: string): Promise<boolean>;
  /** How many layers the longest of the machine's chains has, found without the host. */
  chainDepth(vm: string): Promise<number>;
  /** Something that changes if the layer does; the SHA-256 of the local file when not given. */
  fingerprint?(layer: string): Promise<string>;
  /** Makes a checkpoint that is not Firn's; gives what takes it away again. */
  userCheckpoint?(vm: string): Promise<() => Promise<void>>;
  /** Makes captures of the machine fail; gives what ends that. */
  breakCaptures?(vm: string): Promise<() => Promise<void>>;
  /** How this host is made to tell what changed; absent where it cannot. */
  tracking?: 'auto' | 'checkpoint';
  /** A running machine of which less than `application` can be had. */
  weakVm?: string;
  /** How long a guest may take to freeze here, and a merge; a minute when not given. */
  freezeDeadlineMs?: number;
  mergeDeadlineMs?: number;
  dispose(): Promise<void>;
}

/** Whatever the guest can give. */
export const LEAST: ConsistencyPolicy = { wanted: 'application', required: 'crash' };

interface StepEntry {
  vm: string;
  step: StepName;
  state: 'begun' | 'done' | 'failed';
}

interface RecordedSteps extends Steps {
  entries: StepEntry[];
}

/**
 * Steps as a run has them, journaled into a list. With `dieAt`, the step of that name and every one after it fail as if the run had died:
 * before their work, or after it (`afterwards`), and no work is begun any more.
 */
export function recordSteps(dieAt?: { step: StepName; afterwards: boolean }): RecordedSteps {
  const entries: StepEntry[] = [];
  let dead = false;
  const die = () => {
    dead = true;
    return firnError('ERR_ABORTED', 'The run is dead');
  };
  return {
    entries,
    async run(vm, step, { deadlineMs }, work) {
      if (dead) throw die();
      entries.push({ vm: vm.name, step, state: 'begun' });
      if (dieAt?.step === step && !dieAt.afterwards) throw die();
      try {
        const result = await withDeadline(step, deadlineMs, work);
        if (dieAt?.step === step) throw die();
        entries.push({ vm: vm.name, step, state: 'done' });
        return result;
      } catch (error) {
        entries.push({ vm: vm.name, step, state: 'failed' });
        throw error;
      }
    },
  };
}

async function withDeadline<Result>(
  step: StepName,
  deadlineMs: number | undefined,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController();
  if (deadlineMs === undefined) return work(controller.signal);
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      controller.abort();
      reject(firnError('ERR_DEADLINE', `${step} took longer than ${deadlineMs} ms`));
    }, deadlineMs);
  });
  try {
    return await Promise.race([work(controller.signal), deadline]);
  } finally {
    clearTimeout(timer);
  }
}

export function newMark(): string {
  return markOf(randomBytes(16).toString('hex'));
}

/** The outcome's capture, or a failed test that says why there is none. */
export function captureOf(outcome: CaptureOutcome | undefined): Capture {
  if (outcome?.capture === undefined) throw outcome?.error ?? new Error('there is no outcome');
  return outcome.capture;
}

async function fileFingerprint(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1024 * 1024 }), hash);
  return hash.digest('hex');
}

/** What the tests share: the fixture, and the host's calls with the suite's values filled in. */
export class Bench {
  readonly fixture: HostFixture;
  readonly #open: Host[] = [];
  #marks: string[] = [];

  constructor(fixture: HostFixture) {
    this.fixture = fixture;
  }

  async host(): Promise<Host> {
    const host = await this.fixture.host();
    this.#open.push(host);
    return host;
  }

  mark(): string {
    const mark = newMark();
    this.#marks.push(mark);
    return mark;
  }

  first(): string {
    const [name] = this.fixture.vms;
    if (name === undefined) throw new Error('the fixture has no machine');
    return name;
  }

  async vm(host: Host, name = this.first()): Promise<Vm> {
    const vm = (await host.listVms()).find((candidate) => candidate.name === name);
    if (vm === undefined) throw new Error(`the host does not list ${name}`);
    return vm;
  }

  request(vm: Vm, changes: Partial<CaptureRequest> = {}): CaptureRequest {
    const { freezeDeadlineMs = 60_000 } = this.fixture;
    return { vm, policy: LEAST, excludedDisks: [], freezeDeadlineMs, ...changes };
  }

  async capture(host: Host, mark: string, steps: Steps = recordSteps()): Promise<Capture> {
    const vm = await this.vm(host);
    const [outcome] = await host.capture([this.request(vm)], mark, steps);
    return captureOf(outcome);
  }

  /** Releases the mark at all machines of the fixture and expects that nothing stands in the way. */
  async release(host: Host, mark: string, steps: Steps = recordSteps()): Promise<void> {
    const vms = (await host.listVms()).filter((vm) => this.fixture.vms.includes(vm.name));
    const { mergeDeadlineMs = 60_000 } = this.fixture;
    const outcomes = await host.release(vms, mark, mergeDeadlineMs, steps);
    expect(outcomes.map((outcome) => [outcome.vm.name, outcome.error])).toEqual(
      vms.map((vm) => [vm.name, undefined]),
    );
  }

  depth(name = this.first()): Promise<number> {
    return this.fixture.chainDepth(name);
  }

  async fingerprints(layers: readonly string[]): Promise<string[]> {
    const fingerprint = this.fixture.fingerprint?.bind(this.fixture) ?? fileFingerprint;
    return Promise.all(layers.map(fingerprint));
  }

  async marksLeft(host: Host): Promise<string[]> {
    const marks = (await host.leftovers()).map((leftover) => leftover.mark);
    return this.#marks.filter((mark) => marks.includes(mark));
  }

  /** Whatever a test did or failed to do, the next one finds the machines as they were. */
  async tidy(): Promise<void> {
    try {
      const marks = this.#marks;
      this.#marks = [];
      const host = await this.host();
      for (const mark of marks) await this.release(host, mark);
      for (const { vm, name } of (await host.tracking?.references()) ?? []) {
        const { mergeDeadlineMs = 60_000 } = this.fixture;
        if (this.fixture.vms.includes(vm.name))
          await host.tracking?.drop(vm, name, mergeDeadlineMs);
      }
    } finally {
      for (const host of this.#open.splice(0)) await host.close();
    }
  }
}
