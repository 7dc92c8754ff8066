/**
 * What a freeze of a guest can promise now, and why not more.
 */

import { z } from 'zod';
import type { Consistency } from '../../consistency.js';
import { hasAgentSocket, type Machine } from './machines.js';
import { agentSocket, GuestAgent } from './qga.js';
import { hostFailure, type QmpClient } from './qmp.js';

/** Why a guest agent's freeze is no more than this. */
export const FILE_SYSTEMS_ONLY = 'a guest agent brings file systems to rest, not programs';

export interface Reach {
  reachable: Consistency;
  reason: string;
}

/** Why no freeze is worth trying, as far as it shows without asking the agent; undefined when one is. */
export async function whyNoFreeze(qmp: QmpClient, machine: Machine): Promise<string | undefined> {
  if (!(await hasAgentSocket(machine.folder)))
    return 'the machine has no qga.sock for a guest agent';
  if (machine.state !== 'running') return `the machine is ${machine.state}`;
  const ports = await qmp.queryIfKnown(
    z.array(z.object({ filename: z.string(), 'frontend-open': z.boolean() })),
    'query-chardev',
  );
  const port = ports?.find((each) => each.filename.includes(agentSocket(machine.folder)));
  return port?.['frontend-open'] === false ? 'no guest agent runs in the guest' : undefined;
}

/** Asks the agent. */
export async function probeReach(qmp: QmpClient, machine: Machine): Promise<Reach> {
  const reason = (await whyNoFreeze(qmp, machine)) ?? (await whyAgentCannot(machine.folder));
  return reason === undefined
    ? { reachable: 'filesystem', reason: FILE_SYSTEMS_ONLY }
    : { reachable: 'crash', reason };
}

async function whyAgentCannot(folder: string): Promise<string | undefined> {
  let agent: GuestAgent | undefined;
  try {
    agent = await GuestAgent.connect(agentSocket(folder));
    if (await agent.isFrozen()) return 'the guest stands frozen';
    return (await agent.canFreeze()) ? undefined : 'the guest agent may not freeze file systems';
  } catch (error) {
    return hostFailure(error).message;
  } finally {
    agent?.close();
  }
}
