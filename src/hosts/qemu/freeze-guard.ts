/**
 * A process of its own that freezes a guest and answers for its thaw: `node freeze-guard.js SOCKET DEADLINE_MS`.
 *
 * File systems that an agent has frozen stay frozen until somebody thaws them, so the one who does must outlive the backup. This process
 * holds the agent's only connection from before the freeze until after the thaw: nobody can stand between. It thaws on the first
 * of: the line "thaw" on standard input; its end, which is also what the backup's death looks like; the deadline, counted from
 * the start, which holds even if the backup was stopped rather than killed. It then tries until the guest has answered or is gone.
 *
 * It writes one JSON document a line: {event: 'frozen', fileSystems}, then {event: 'thawed', fileSystems, frozenMs, by}, or
 * {event: 'failed', message}: nothing stands frozen then on its account.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { AGENT_ANSWER_MS, GuestAgent } from './qga.js';

/** How long a guest that does not answer is asked to thaw before it is given up. */
const GIVE_UP_MS = 3_600_000;
const RETRY_MS = 200;

export type GuardEvent =
  | { event: 'frozen'; fileSystems: number }
  | { event: 'thawed'; fileSystems: number; frozenMs: number; by: ThawReason; problem?: string }
  | { event: 'failed'; message: string };
/** Why the guest was thawed: on order, because the backup is gone, or because it took too long. */
export type ThawReason = 'order' | 'orphaned' | 'deadline';

function say(event: GuardEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** Settles when the guest is to be thawed. */
function thawReason(deadlineMs: number): Promise<ThawReason> {
  return new Promise((resolve) => {
    setTimeout(resolve, deadlineMs, 'deadline');
    let input = '';
    process.stdin.setEncoding('utf8');
    process.stdin.on('data', (text: string) => {
      input += text;
      if (input.includes('thaw\n')) resolve('order');
    });
    process.stdin.on('end', () => resolve('orphaned'));
    process.stdin.on('error', () => resolve('orphaned'));
  });
}

/** Thaws, over new connections if need be, until the guest has answered; throws when it is gone. */
async function thawPersistently(first: GuestAgent, socketPath: string): Promise<number> {
  const endMs = performance.now() + GIVE_UP_MS;
  let agent: GuestAgent | undefined = first;
  for (;;) {
    try {
      agent ??= await GuestAgent.connect(socketPath);
      // Not the call's own time limit: that one begins when a freeze that hangs has been answered.
      return await within(2 * AGENT_ANSWER_MS, agent.thaw());
    } catch (error) {
      agent?.close();
      agent = undefined;
      if (isGone(error) || performance.now() > endMs) throw error;
      await sleep(RETRY_MS);
    }
  }
}

async function within<Result>(timeMs: number, result: Promise<Result>): Promise<Result> {
  const late = sleep(timeMs).then(() => {
    throw new Error('the guest agent does not answer');
  });
  return Promise.race([result, late]);
}

/** Nobody offers the guest's port any more: QEMU has ended, and the guest with it. */
function isGone(error: unknown): boolean {
  const cause = (error as Error).cause as NodeJS.ErrnoException | undefined;
  return cause?.code === 'ENOENT' || cause?.code === 'ECONNREFUSED';
}

async function guard(socketPath: string, deadlineMs: number): Promise<void> {
  const reason = thawReason(deadlineMs);
  let orphaned = false;
  void reason.then(() => {
    orphaned = true;
  });
  const agent = await GuestAgent.connect(socketPath, Math.min(AGENT_ANSWER_MS, deadlineMs));
  if (await agent.isFrozen()) throw new Error('the guest stands frozen by somebody else');
  if (orphaned) throw new Error('nobody waits for the freeze any more');
  const frozenFromMs = performance.now();
  let problem: string | undefined;
  const frozen = agent.freeze(2 * GIVE_UP_MS).then(
    (fileSystems) => say({ event: 'frozen', fileSystems }),
    (error: Error) => {
      problem = error.message;
    },
  );
  // A freeze that failed may have frozen a part, so it is thawed like any other.
  const by = await Promise.race([reason, frozen.then(() => (problem ? 'order' : reason))]);
  const fileSystems = await thawPersistently(agent, socketPath).catch((error: Error) => {
    problem ??= error.message;
    return 0;
  });
  const frozenMs = performance.now() - frozenFromMs;
  say({
    event: 'thawed',
    fileSystems,
    frozenMs,
    by,
    ...(problem === undefined ? {} : { problem }),
  });
}

const [socketPath = '', deadlineMs = ''] = process.argv.slice(2);
// Its reader may be gone long before it is.
process.stdout.on('error', () => undefined);
try {
  await guard(socketPath, Number(deadlineMs));
} catch (error) {
  say({ event: 'failed', message: (error as Error).message });
}
// Standard input and the timer would hold it; what was said is in the pipe by now.
process.stdout.write('', () => process.exit(0));
