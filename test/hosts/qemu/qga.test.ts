/**
 * Goal: the client and the guard keep the guest agent's protocol, also with an agent that is slow, silent or left in the middle. Method: a
 * server of our own that has the agent's framing and no more; what a freeze is worth is for the tests with a live guest.
 */

import { describe, expect, test } from 'vitest';
import { FrozenGuest, NotFrozen } from '../../../src/hosts/qemu/freeze.js';
import { AgentRefusal, GuestAgent } from '../../../src/hosts/qemu/qga.js';
import { serve } from './server.js';

const never = new AbortController().signal;
/** For what takes no time and is not to be cut off. */
const MINUTE_MS = 60_000;

interface Agent {
  socket: string;
  /** Commands in the order in which they came, syncs left out. */
  commands: string[];
}

/** Answers as an agent: `answers` by command, a function for what is to be said later or not at all. */
async function agent(
  answers: Record<string, unknown>,
  { stale = '' }: { stale?: string } = {},
): Promise<Agent> {
  const commands: string[] = [];
  const socket = await serve(
    (send) => send(stale),
    (line, send) => {
      const { execute, arguments: given } = JSON.parse(line.replace(/^[^{]*/, ''));
      const say = (value: unknown) => send(`${JSON.stringify({ return: value })}\n`);
      if (execute === 'guest-sync-delimited') {
        send(Buffer.of(0xff));
        say(given.id);
        return;
      }
      commands.push(execute);
      const answer = answers[execute];
      if (answer instanceof Error) send(`{"error": {"desc": "${answer.message}"}}\n`);
      else if (typeof answer === 'function') answer(say);
      else say(answer);
    },
  );
  return { socket, commands };
}

const HEALTHY = {
  'guest-fsfreeze-status': 'thawed',
  'guest-fsfreeze-freeze': 2,
  'guest-fsfreeze-thaw': 2,
};

describe('a client of the guest agent', () => {
  test('passes over what an earlier client left unread', async () => {
    const stale = '{"return": 5}\n{"return": {"half';
    const { socket } = await agent(HEALTHY, { stale });
    const client = await GuestAgent.connect(socket, MINUTE_MS);
    expect(await client.isFrozen()).toBe(false);
    client.close();
  });

  test('gives up on a guest that says nothing', async () => {
    const socket = await serve(() => undefined);
    await expect(GuestAgent.connect(socket, 100)).rejects.toMatchObject({
      code: 'ERR_HOST_UNREACHABLE',
    });
  });

  test('tells what the agent refuses', async () => {
    const { socket } = await agent({ 'guest-fsfreeze-freeze': new Error('has been disabled') });
    const client = await GuestAgent.connect(socket, MINUTE_MS);
    const refusal = await client.freeze(MINUTE_MS).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(AgentRefusal);
    expect(String(refusal)).toContain('has been disabled');
    client.close();
  });

  test('knows from its list of commands whether it may freeze', async () => {
    const commands = (enabled: boolean) => ({
      'guest-info': {
        supported_commands: [
          { name: 'guest-fsfreeze-freeze', enabled },
          { name: 'guest-fsfreeze-thaw', enabled: true },
        ],
      },
    });
    for (const enabled of [true, false]) {
      const { socket } = await agent(commands(enabled));
      const client = await GuestAgent.connect(socket, MINUTE_MS);
      expect(await client.canFreeze()).toBe(enabled);
      client.close();
    }
  });

  test('may send the next command before the last one was answered', async () => {
    let answerFreeze: (value: unknown) => void = () => undefined;
    const { socket, commands } = await agent({
      'guest-fsfreeze-freeze': (say: (value: unknown) => void) => {
        answerFreeze = say;
      },
      'guest-fsfreeze-thaw': (say: (value: unknown) => void) => {
        answerFreeze(3);
        say(4);
      },
    });
    const client = await GuestAgent.connect(socket, MINUTE_MS);
    const both = [client.freeze(MINUTE_MS), client.thaw(MINUTE_MS)];
    expect(await Promise.all(both)).toEqual([3, 4]);
    expect(commands).toEqual(['guest-fsfreeze-freeze', 'guest-fsfreeze-thaw']);
    client.close();
  });
});

describe('a frozen guest', () => {
  test('thaws on order, and that it held is known', async () => {
    const { socket, commands } = await agent(HEALTHY);
    const guest = await FrozenGuest.freeze(socket, MINUTE_MS, never);
    expect(guest.fileSystems).toBe(2);
    expect(commands.at(-1)).toBe('guest-fsfreeze-freeze');
    const thawed = await guest.thaw();
    expect(thawed).toMatchObject({ held: true });
    expect(thawed.frozenMs).toBeGreaterThan(0);
    expect(commands.at(-1)).toBe('guest-fsfreeze-thaw');
    expect(await guest.thaw()).toEqual(thawed);
  });

  test('thaws at its deadline, and that it did not hold is known', async () => {
    const { socket, commands } = await agent(HEALTHY);
    // It must be long enough for the guard to start and to freeze before it.
    const guest = await FrozenGuest.freeze(socket, 5000, never);
    await expect.poll(() => commands.at(-1)).toBe('guest-fsfreeze-thaw');
    expect(await guest.thaw()).toMatchObject({
      held: false,
      reason: expect.stringContaining('deadline'),
    });
  });

  test('thaws when it is let go', async () => {
    const { socket, commands } = await agent(HEALTHY);
    const guest = await FrozenGuest.freeze(socket, MINUTE_MS, never);
    guest.letGo();
    await expect.poll(() => commands.at(-1)).toBe('guest-fsfreeze-thaw');
  });

  test('that had gone on by itself did not hold', async () => {
    const { socket } = await agent({ ...HEALTHY, 'guest-fsfreeze-thaw': 0 });
    const guest = await FrozenGuest.freeze(socket, MINUTE_MS, never);
    expect(await guest.thaw()).toMatchObject({ held: false });
  });

  test('is not made of one that stands frozen already', async () => {
    const { socket, commands } = await agent({ ...HEALTHY, 'guest-fsfreeze-status': 'frozen' });
    await expect(FrozenGuest.freeze(socket, MINUTE_MS, never)).rejects.toThrow(NotFrozen);
    expect(commands).not.toContain('guest-fsfreeze-thaw');
  });

  test('that hangs in the freeze is told to thaw as soon as nobody waits any more', async () => {
    const { socket, commands } = await agent({
      ...HEALTHY,
      'guest-fsfreeze-freeze': () => undefined,
    });
    const giveUp = new AbortController();
    const freezing = FrozenGuest.freeze(socket, MINUTE_MS, giveUp.signal).catch(
      (error: Error) => error.name,
    );
    await expect.poll(() => commands).toContain('guest-fsfreeze-freeze');
    expect(commands).not.toContain('guest-fsfreeze-thaw');
    giveUp.abort(new DOMException('nobody waits', 'TimeoutError'));
    await expect.poll(() => commands).toContain('guest-fsfreeze-thaw');
    expect(await freezing).toBe('TimeoutError');
  });

  test('whose agent fails half-way is thawed, and the failure is told', async () => {
    const { socket, commands } = await agent({
      ...HEALTHY,
      'guest-fsfreeze-freeze': new Error('failed to freeze /'),
    });
    await expect(FrozenGuest.freeze(socket, MINUTE_MS, never)).rejects.toThrow(
      'failed to freeze /',
    );
    expect(commands.at(-1)).toBe('guest-fsfreeze-thaw');
  });
});
