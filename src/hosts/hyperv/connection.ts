/**
 * The way to a host and, when it is in a cluster, to the nodes that its machines move to. Where a machine is is asked anew at each call, as
 * it may move between any two of them.
 */

import type { z } from 'zod';
import { firnError } from '../../errors.js';
import type { VmRef } from '../host.js';
import { Bridge, type BridgeOptions, type CallOptions, type CallResult } from './bridge.js';
import { faultOf } from './faults.js';
import { type Target, targetOfNode } from './spec.js';

const MOVES_MAX = 3;

export class Connection {
  readonly target: Target;
  readonly #options: BridgeOptions;
  readonly #nodes = new Map<string, Bridge>();
  readonly #main: Bridge;
  // Starting a PowerShell takes longer than most of what it is asked.
  readonly #idleHolders: Bridge[] = [];
  #closed = false;

  constructor(target: Target, options: BridgeOptions = {}) {
    this.target = target;
    this.#options = options;
    this.#main = new Bridge(target, options);
  }

  /** On the host itself. */
  call<Schema extends z.ZodType>(
    operation: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: Schema,
    options?: CallOptions,
  ): Promise<CallResult<z.output<Schema>>> {
    return this.#main.call(operation, parameters, schema, options);
  }

  /**
   * Where the machine is now: on the host, or on the node of its cluster that it moved to. A claim that the run has on the host goes along;
   * `moved` says that it did, and that the host still has it.
   */
  async callFor<Schema extends z.ZodType>(
    vm: VmRef,
    operation: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: Schema,
    options?: CallOptions,
  ): Promise<CallResult<z.output<Schema>> & { moved: boolean }> {
    let bridge = this.#main;
    let extra: Record<string, unknown> = {};
    for (let moves = 0; ; moves += 1) {
      try {
        const request = { vm: vm.id, ...parameters, ...extra };
        const answer = await bridge.call(operation, request, schema, options);
        return { ...answer, moved: bridge !== this.#main };
      } catch (error) {
        const fault = faultOf(error);
        const owner = fault?.kind === 'vm-moved' ? fault.data?.owner : undefined;
        if (typeof owner !== 'string' || moves >= MOVES_MAX) throw error;
        bridge = this.#node(owner);
        const claim = fault?.data?.claim;
        if (claim) extra = { claim };
      }
    }
  }

  /** A bridge with one shell, for what must be held by a process. The caller gives it back once it holds nothing, or closes it. */
  takeHolder(): Bridge {
    return this.#idleHolders.pop() ?? new Bridge(this.target, { ...this.#options, shells: 1 });
  }

  giveBackHolder(bridge: Bridge): void {
    if (this.#closed) void bridge.close();
    else this.#idleHolders.push(bridge);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const bridges = [this.#main, ...this.#nodes.values(), ...this.#idleHolders.splice(0)];
    await Promise.all(bridges.map((bridge) => bridge.close()));
    this.#nodes.clear();
  }

  #node(name: string): Bridge {
    const known = this.#nodes.get(name);
    if (known !== undefined) return known;
    if (!/^[\p{L}\p{N}][\p{L}\p{N}._-]*$/u.test(name)) {
      throw firnError('ERR_HOST_FAILED', `The cluster names a node "${name}"`);
    }
    const bridge = new Bridge(targetOfNode(this.target, name), this.#options);
    this.#nodes.set(name, bridge);
    return bridge;
  }
}
