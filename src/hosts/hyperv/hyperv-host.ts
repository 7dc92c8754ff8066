/**
 * Hyper-V as a host, driven by PowerShell: this machine ("hyperv"), or another over WinRM or SSH.
 *
 * What happens on the host is in scripts/*.ps1, for its administrators to read; here it is decided what to ask for. There are two
 * methods, chosen by the host's version: recovery checkpoints from Windows Server 2016 on, VSS sets on 2012 R2.
 *
 * Paths are given as the host names them: "D:\VMs\a.vhdx", or "\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy3\VMs\a.vhdx". Who reads them
 * from elsewhere maps them; uncPath() in paths.ts tells the share that Windows gives its administrators. Shadow copies have none, so
 * a 2012 R2 host is backed up by a Firn that runs on it.
 */

import { type FirnError, firnError } from '../../errors.js';
import {
  type CaptureOutcome,
  type CaptureRequest,
  type Check,
  type Host,
  type HostInfo,
  type Leftover,
  type Release,
  type ReleaseOutcome,
  refOf,
  runOfMark,
  type Steps,
  type Vm,
  type Volume,
} from '../host.js';
import { type HostTracking, ownerOfReference } from '../tracking.js';
import type { BridgeOptions } from './bridge.js';
import { Connection } from './connection.js';
import { BUILD_2012_R2, BUILD_2016, diagnose } from './doctor.js';
import { asFirnError, ensureAllowed } from './policy.js';
import { CHECKPOINT_METHOD, RecoveryCheckpoints } from './recovery-checkpoints.js';
import {
  factsSchema,
  type Info,
  infoSchema,
  leftoversSchema,
  type VmReply,
  vmsSchema,
  volumesSchema,
} from './replies.js';
import { parseTarget } from './spec.js';
import { HYPERV_TUNING, type HypervTuning } from './tuning.js';
import { VSS_METHOD, VssSets } from './vss-sets.js';

export interface HypervHostOptions extends BridgeOptions {
  tuning?: Partial<HypervTuning> | undefined;
  /** A way to the host that is shared and stays open when this object is closed. */
  connection?: Connection | undefined;
}

export class HypervHost implements Host {
  readonly kind = 'hyperv';
  readonly spec: string;
  readonly #connection: Connection;
  readonly #ownsConnection: boolean;
  readonly #checkpoints: RecoveryCheckpoints;
  readonly #sets: VssSets;
  #info: Info | undefined;
  /** The volumes of each machine, as of the last listing. */
  readonly #volumesOf = new Map<string, readonly string[]>();

  /** ERR_INVALID_ARGUMENT for a spec that is none. Whether the host is there shows at the first call. */
  constructor(spec: string, { tuning, connection, ...bridge }: HypervHostOptions = {}) {
    this.spec = spec;
    this.#connection = connection ?? new Connection(parseTarget(spec), bridge);
    this.#ownsConnection = connection === undefined;
    const times = { ...HYPERV_TUNING, ...tuning };
    this.#checkpoints = new RecoveryCheckpoints(this.#connection, times);
    this.#sets = new VssSets(this.#connection, times);
  }

  async info(): Promise<HostInfo> {
    const { computer, caption, version } = await this.#readInfo();
    return {
      kind: this.kind,
      name: computer,
      version: `${caption.replace(/^Microsoft /, '')} (${version})`,
      method: this.#usesVss() ? VSS_METHOD : CHECKPOINT_METHOD,
    };
  }

  async listVms(): Promise<Vm[]> {
    await this.#readInfo();
    const { result } = await this.#connection.call('vms', {}, vmsSchema);
    this.#volumesOf.clear();
    return result.vms.map((reply) => {
      this.#volumesOf.set(reply.id, reply.volumes);
      return toVm(reply);
    });
  }

  async volumes(): Promise<Volume[]> {
    const { result } = await this.#connection.call('volumes', {}, volumesSchema);
    return result.volumes;
  }

  async check(): Promise<Check[]> {
    try {
      const info = await this.#readInfo();
      const { result: facts } = await this.#connection.call('facts', {}, factsSchema);
      const usable = facts.module;
      return diagnose({
        info,
        facts,
        vms: usable ? await this.listVms() : [],
        volumes: await this.volumes(),
        leftovers: usable ? await this.leftovers() : [],
        vss: this.#usesVss(),
      });
    } catch (error) {
      const { message, hint } = asFirnError(error);
      return [{ name: 'connection', state: 'error', message, ...(hint !== undefined && { hint }) }];
    }
  }

  /** Machines that share a volume go together where one VSS set freezes them; otherwise each goes alone. */
  batches(vms: readonly Vm[]): Vm[][] {
    if (!this.#usesVss()) return vms.map((vm) => [vm]);
    const batches: { vms: Vm[]; volumes: Set<string> }[] = [];
    for (const vm of vms) {
      const volumes = this.#volumesOf.get(vm.id) ?? vm.disks.map((disk) => disk.volume);
      const joined = { vms: [vm], volumes: new Set(volumes) };
      for (const batch of batches.filter((each) =>
        volumes.some((name) => each.volumes.has(name)),
      )) {
        batches.splice(batches.indexOf(batch), 1);
        joined.vms.unshift(...batch.vms);
        for (const name of batch.volumes) joined.volumes.add(name);
      }
      batches.push(joined);
    }
    return batches.map((batch) => batch.vms);
  }

  async capture(
    batch: readonly CaptureRequest[],
    mark: string,
    steps: Steps,
  ): Promise<CaptureOutcome[]> {
    const outcomes = new Map<string, CaptureOutcome>();
    const refuse = ({ vm }: CaptureRequest, error: FirnError) =>
      outcomes.set(vm.id, { vm: refOf(vm), error });
    try {
      await this.#readInfo();
      const possible = batch.filter((request) => {
        const refusal = this.#refusal(request);
        if (refusal !== undefined) refuse(request, refusal);
        return refusal === undefined;
      });
      if (this.#usesVss()) {
        for (const [id, outcome] of await this.#sets.capture(possible, mark, steps)) {
          outcomes.set(id, outcome);
        }
      } else {
        await Promise.all(
          possible.map(async (request) => {
            try {
              const capture = await this.#checkpoints.capture(request, mark, steps);
              outcomes.set(request.vm.id, { vm: refOf(request.vm), capture });
            } catch (error) {
              refuse(request, asFirnError(error));
            }
          }),
        );
      }
    } catch (error) {
      for (const request of batch) {
        if (!outcomes.has(request.vm.id)) refuse(request, asFirnError(error));
      }
    }
    return batch.map(
      ({ vm }) =>
        outcomes.get(vm.id) ?? {
          vm: refOf(vm),
          error: firnError('ERR_INTERNAL', `${vm.name} was forgotten`),
        },
    );
  }

  async release(
    vms: readonly Release[],
    mark: string,
    mergeDeadlineMs: number,
    steps: Steps,
  ): Promise<ReleaseOutcome[]> {
    return Promise.all(
      vms.map(async ({ id, name, advance }) => {
        const vm = { id, name };
        try {
          await this.#readInfo();
          if (this.#usesVss()) await this.#sets.release(vm, mark, mergeDeadlineMs, steps);
          else await this.#checkpoints.release(vm, { mark, advance }, mergeDeadlineMs, steps);
          return { vm };
        } catch (error) {
          return { vm, error: asFirnError(error) };
        }
      }),
    );
  }

  async leftovers(): Promise<Leftover[]> {
    const { result } = await this.#connection.call('leftovers', {}, leftoversSchema);
    return result.items.map(({ kind, name, vm, mark, created }) => {
      const known = mark !== undefined && runOfMark(mark) !== undefined ? mark : undefined;
      const whose =
        known === undefined
          ? "another program's, as it bears no mark of Firn"
          : 'made by a run of Firn';
      const detail = created === undefined ? whose : `${whose}, since ${created}`;
      return { kind, name, vm, ...(known !== undefined && { mark: known }), detail };
    });
  }

  get tracking(): HostTracking {
    return {
      references: async () => {
        await this.#readInfo();
        return this.#usesVss() ? [] : this.#checkpoints.points.list();
      },
      drop: async (vm, name, deadlineMs) => {
        await this.#readInfo();
        const isOurs = !this.#usesVss() && ownerOfReference(name) !== undefined;
        const signal = AbortSignal.timeout(deadlineMs);
        if (isOurs && (await this.#checkpoints.points.drop(vm, name, signal))) return;
        throw firnError('ERR_NOT_FOUND', `${vm.name} has no reference "${name}"`);
      },
    };
  }

  async close(): Promise<void> {
    await this.#sets.close();
    if (this.#ownsConnection) await this.#connection.close();
  }

  /** Why a machine is not even tried, or nothing. */
  #refusal(request: CaptureRequest): FirnError | undefined {
    const { vm } = request;
    if ((this.#info?.build ?? 0) < BUILD_2012_R2) {
      return firnError('ERR_UNSUPPORTED', `${this.#info?.caption} is too old: 2012 R2 is needed`);
    }
    return ensureAllowed(request, vm.reachable, vm.reachableReason);
  }

  #usesVss(): boolean {
    return this.#info !== undefined && this.#info.build < BUILD_2016;
  }

  async #readInfo(): Promise<Info> {
    this.#info ??= (await this.#connection.call('info', {}, infoSchema)).result;
    return this.#info;
  }
}

function toVm(reply: VmReply): Vm {
  const { id, name, state, reachable, reachableReason, disks } = reply;
  return {
    id,
    name,
    state,
    reachable,
    ...(reachableReason !== undefined && { reachableReason }),
    disks: disks.map(({ layers, unsupported, ...disk }) => ({
      ...disk,
      layers: Math.max(1, layers.length),
      ...(unsupported !== undefined && { unsupported }),
    })),
  };
}
