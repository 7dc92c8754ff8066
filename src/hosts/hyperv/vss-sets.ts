/**
 * Capturing on Windows Server 2012 R2: a VSS set over the volumes of a batch of machines.
 *
 * Checkpoint and shadow copy are one operation there, which is journaled as both at each of its machines. VSS takes all machines of a set or
 * none, so a set that fails is halved until the one that spoils it stands alone; that one goes into a set without writers, if its policy
 * allows, which is as a power cut. Sets are made one after the other, as VSS makes one at a time on a host.
 *
 * A set is held by a PowerShell of its own (scripts/shadow.ps1 says why), so it ends with this object at the latest.
 */

import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Consistency, leastConsistency, meetsConsistency } from '../../consistency.js';
import { type FirnError, firnError } from '../../errors.js';
import {
  type Capture,
  type CaptureOutcome,
  type CaptureRequest,
  refOf,
  type StepName,
  type Steps,
  type VmRef,
} from '../host.js';
import type { Bridge } from './bridge.js';
import type { Connection } from './connection.js';
import { faultOf } from './faults.js';
import { asFirnError, ensureAllowed } from './policy.js';
import { confirmEnd, mergeStepDeadline, type ReleaseContext, waitForEnd } from './release.js';
import { endSchema, type SetReply, setSchema } from './replies.js';
import type { HypervTuning } from './tuning.js';
import { chooseVssCode, type VssCode } from './vss-codes.js';

export const VSS_METHOD = 'VSS set';
/**
 * Nor could a checkpoint be kept instead: the one that holds the guest at rest is the writer's, which merges it at the set's end, and what
 * is read lies in the shadow copy's own layer. A checkpoint of Firn's beside it would be of another moment.
 */
const NOT_TRACKED = 'Windows Server 2012 R2 does not track what changes';

interface Held {
  mark: string;
  vms: Set<string>;
  bridge: Bridge;
}

/** Machines to capture together, and why those without writers get less than was wanted. */
interface Group {
  requests: CaptureRequest[];
  writers: boolean;
  lessBecause?: string | undefined;
}

export class VssSets {
  readonly #connection: Connection;
  readonly #tuning: HypervTuning;
  readonly #held: Held[] = [];
  /** The end of the set that is being made. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(connection: Connection, tuning: HypervTuning) {
    this.#connection = connection;
    this.#tuning = tuning;
  }

  /** Captures a batch: one outcome for each request, by the machine's id. */
  async capture(
    requests: readonly CaptureRequest[],
    mark: string,
    steps: Steps,
  ): Promise<Map<string, CaptureOutcome>> {
    const outcomes = new Map<string, CaptureOutcome>();
    const asksGuest = ({ vm, policy }: CaptureRequest) =>
      policy.wanted !== 'crash' && vm.reachable !== 'crash';
    const groups: Group[] = [
      { requests: requests.filter(asksGuest), writers: true },
      { requests: requests.filter((request) => !asksGuest(request)), writers: false },
    ];
    for (let group = groups.shift(); group !== undefined; group = groups.shift()) {
      if (group.requests.length === 0) continue;
      groups.unshift(...(await this.#captureGroup(group, mark, steps, outcomes)));
    }
    return outcomes;
  }

  /** Ends what bears the mark at one machine. The set goes for all of its machines: no part of a shadow copy can be kept. */
  async release(vm: VmRef, mark: string, mergeDeadlineMs: number, steps: Steps): Promise<void> {
    const context: ReleaseContext = {
      connection: this.#connection,
      tuning: this.#tuning,
      operation: 'end-set',
      mark,
      mergeDeadlineMs,
      steps,
    };
    const deadlineMs = mergeStepDeadline(mergeDeadlineMs);
    await steps.run(vm, 'merge', { deadlineMs }, async (signal) => {
      await steps.run(vm, 'drop-shadow-copy', { deadlineMs }, () => this.#drop(vm, mark));
      await waitForEnd(vm, context, signal);
    });
    await confirmEnd(vm, context);
  }

  async close(): Promise<void> {
    await Promise.all(this.#held.splice(0).map(({ bridge }) => bridge.close()));
  }

  /** Makes one set, and gives the groups that it is to be replaced by if that fails. */
  async #captureGroup(
    group: Group,
    mark: string,
    steps: Steps,
    outcomes: Map<string, CaptureOutcome>,
  ): Promise<Group[]> {
    const { requests, writers } = group;
    try {
      const reply = await this.#makeWithRetries(group, mark, steps);
      for (const request of requests) outcomes.set(request.vm.id, toOutcome(request, reply, group));
      return [];
    } catch (caught) {
      const error = asFirnError(caught);
      const { code, entry } = vssCodeOf(error);
      const described = describeFailure(error, code, entry);
      const failed = faultOf(error)?.kind === 'shadow-failed';
      if (failed && requests.length > 1 && entry.action === 'bisect') {
        const middle = Math.ceil(requests.length / 2);
        return [requests.slice(0, middle), requests.slice(middle)].map((half) => ({
          ...group,
          requests: half,
        }));
      }
      const [only] = requests;
      if (
        failed &&
        writers &&
        only !== undefined &&
        requests.length === 1 &&
        entry.action === 'bisect'
      ) {
        const refused = ensureAllowed(only, 'crash', described.message);
        if (refused === undefined) {
          const lessBecause = `the guest did not come to rest: ${described.message}`;
          return [{ requests, writers: false, lessBecause }];
        }
      }
      for (const { vm } of requests) outcomes.set(vm.id, { vm: refOf(vm), error: described });
      return [];
    }
  }

  async #makeWithRetries(group: Group, mark: string, steps: Steps): Promise<SetReply> {
    const bridge = this.#connection.takeHolder();
    try {
      for (let attempt = 0; ; attempt += 1) {
        try {
          const reply = await this.#inTurn(() => this.#make(group, mark, steps, bridge));
          this.#held.push({ mark, vms: new Set(group.requests.map(({ vm }) => vm.id)), bridge });
          return reply;
        } catch (error) {
          const { entry } = vssCodeOf(error);
          const failed = faultOf(error)?.kind === 'shadow-failed';
          if (!failed || attempt >= entry.retries) throw error;
          const delays = this.#tuning.vssRetryDelaysMs;
          await sleep(delays[Math.min(attempt, delays.length - 1)] ?? 0);
        }
      }
    } catch (error) {
      // A script that failed has ended its DiskShadow; of anything else nobody knows what it holds.
      if (faultOf(error) === undefined) await bridge.close();
      else this.#connection.giveBackHolder(bridge);
      throw error;
    }
  }

  /** One set after the other. */
  async #inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  async #make(
    { requests, writers }: Group,
    mark: string,
    steps: Steps,
    bridge: Bridge,
  ): Promise<SetReply> {
    const longestFreeze = Math.max(...requests.map((request) => request.freezeDeadlineMs));
    const scriptMs = longestFreeze + this.#tuning.setMarginMs;
    const deadlineMs = scriptMs + this.#tuning.checkpointMarginMs;
    const parameters = {
      mark,
      set: String(randomInt(1_000_000)),
      vms: requests.map(({ vm }) => vm.id),
      writers,
      deadlineMs: scriptMs,
      pollMs: this.#tuning.jobPollMs,
    };
    const names = ['checkpoint', 'shadow-copy'] as const;
    const { result } = await runAtAll(requests, steps, names, deadlineMs, (signal) =>
      bridge.call('make-set', parameters, setSchema, { signal, deadlineMs }),
    );
    return result;
  }

  /** Ends the sets that this object holds for the machine, in peace; what another process holds is ended by the host's own note of it. */
  async #drop(vm: VmRef, mark: string): Promise<void> {
    const mine = this.#held.filter((held) => held.mark === mark && held.vms.has(vm.id));
    for (const held of mine) {
      this.#held.splice(this.#held.indexOf(held), 1);
      try {
        await held.bridge.call('end-set', { vm: vm.id, mark }, endSchema);
        this.#connection.giveBackHolder(held.bridge);
      } catch (error) {
        // Its end ends DiskShadow too, in another way.
        await held.bridge.close();
        throw error;
      }
    }
  }
}

/** Does the work once, inside of the given steps at every machine. */
function runAtAll<Result>(
  requests: readonly CaptureRequest[],
  steps: Steps,
  names: readonly StepName[],
  deadlineMs: number,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  const places = requests.flatMap(({ vm }) => names.map((name) => ({ vm: refOf(vm), name })));
  return places.reduceRight<(signal: AbortSignal) => Promise<Result>>(
    (inner, { vm, name }) =>
      () =>
        steps.run(vm, name, { deadlineMs }, inner),
    work,
  )(new AbortController().signal);
}

function toOutcome(request: CaptureRequest, reply: SetReply, group: Group): CaptureOutcome {
  const { vm, policy, excludedDisks } = request;
  const found = reply.vms.find((candidate) => candidate.vm === vm.id);
  if (found === undefined) {
    const message = `The set was made without ${vm.name}`;
    return { vm: refOf(vm), error: firnError('ERR_SHADOW_COPY_FAILED', message) };
  }
  const { consistency, reason } = reached(request, found, group);
  const refused = ensureAllowed(request, consistency, reason);
  if (refused !== undefined) return { vm: refOf(vm), error: refused };
  const capture: Capture = {
    vm,
    consistency,
    ...(!meetsConsistency(consistency, policy.wanted) && { consistencyReason: reason }),
    method: VSS_METHOD,
    disks: found.disks
      .filter((disk) => !excludedDisks.includes(disk.name))
      .map(({ name, layers }) => ({
        name,
        layers,
        ...(request.tracking !== undefined && { fullReason: NOT_TRACKED }),
      })),
    configuration: found.configuration,
    frozenAt: reply.frozenAt,
    ...(found.state !== 'off' && consistency !== 'crash' && { guestFroze: true as const }),
  };
  return { vm: refOf(vm), capture };
}

/** What the copy of a machine is worth: the layer that the guest's freeze leaves is the proof that there was one. */
function reached(
  { vm, policy }: CaptureRequest,
  found: SetReply['vms'][number],
  { writers, lessBecause }: Group,
): { consistency: Consistency; reason: string } {
  if (found.state === 'off') {
    return { consistency: leastConsistency('application', policy.wanted), reason: '' };
  }
  if (!writers) {
    const reason = lessBecause ?? vm.reachableReason ?? 'no more was wanted';
    return { consistency: 'crash', reason };
  }
  const bare = found.disks.filter((disk) => !disk.recovered);
  if (bare.length === 0) return { consistency: vm.reachable, reason: vm.reachableReason ?? '' };
  const names = bare.map((disk) => disk.name).join(', ');
  const stale = bare.some((disk) => disk.stale);
  const reason = stale
    ? `a stale AutoRecovery layer lies beside ${names}`
    : `the shadow copy has no AutoRecovery layer for ${names}: the guest was not frozen`;
  return { consistency: 'crash', reason };
}

function vssCodeOf(error: unknown): { code: string; entry: VssCode } {
  const codes = faultOf(error)?.data?.codes;
  const texts = Array.isArray(codes) ? codes.filter((code) => typeof code === 'string') : [];
  return chooseVssCode(texts);
}

function describeFailure(error: FirnError, code: string, entry: VssCode): FirnError {
  if (code === '') return error;
  const message = `${entry.message} (${entry.name}, ${code}): ${error.message}`;
  return firnError('ERR_SHADOW_COPY_FAILED', message, { hint: entry.hint, cause: error });
}
