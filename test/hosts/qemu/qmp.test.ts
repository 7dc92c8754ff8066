/**
 * Goal: every way in which a monitor can fail to answer is told from the others, and none takes for ever. Method: the real block layer where it
 * can be had, and sockets of our own for servers that misbehave.
 */

import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { NotRunning, QmpClient, QmpRefusal } from '../../../src/hosts/qemu/qmp.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { serve } from './server.js';
import { StorageDaemon, whyNoDaemon } from './storage-daemon.js';

const GREETING = '{"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 2}}}}\r\n';

async function daemon(): Promise<StorageDaemon> {
  const made = await StorageDaemon.create(path.join(await temporaryFolder(), 'vm'));
  onTestFinished(() => made.stop());
  return made;
}

describe.skipIf(whyNoDaemon !== undefined)("a client of QEMU's monitor", () => {
  test('executes commands and knows which QEMU it is', async () => {
    const machine = await daemon();
    await machine.qmp(async (qmp) => {
      expect(qmp.version).toMatch(/^\d+\.\d+\.\d+$/);
      expect(await qmp.execute('query-jobs')).toEqual([]);
    });
  });

  test('tells a refusal by its class and leaves the connection usable', async () => {
    const machine = await daemon();
    await machine.qmp(async (qmp) => {
      const refusal = await qmp.execute('query-nonsense').catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(QmpRefusal);
      expect((refusal as QmpRefusal).errorClass).toBe('CommandNotFound');
      await expect(qmp.execute('job-complete', { id: 'none' })).rejects.toThrow('job-complete');
      expect(await qmp.execute('query-jobs')).toEqual([]);
    });
  });

  test('waits while another client holds the monitor, and no longer than it was told', async () => {
    const machine = await daemon();
    const socket = path.join(machine.folder, 'qmp.sock');
    await machine.qmp(async () => {
      await expect(QmpClient.connect(socket, 150)).rejects.toMatchObject({
        code: 'ERR_HOST_UNREACHABLE',
        retryable: true,
      });
    });
    const first = await QmpClient.connect(socket);
    const second = QmpClient.connect(socket);
    first.close();
    (await second).close();
  });

  test('gets its own greeting, however abruptly clients before it have left', async () => {
    const machine = await daemon();
    const socket = path.join(machine.folder, 'qmp.sock');
    for (let round = 0; round < 200; round++) {
      const qmp = await QmpClient.connect(socket);
      // Its answer is long, and nobody waits for it.
      const asked = qmp.execute('query-qmp-schema').catch(() => {});
      if (round % 2 === 0) await sleep(round % 7);
      qmp.close();
      await asked;
    }
  });

  test('says that nothing runs when the socket of a dead machine is still there', async () => {
    const machine = await daemon();
    await machine.kill();
    const connecting = QmpClient.connect(path.join(machine.folder, 'qmp.sock'));
    await expect(connecting).rejects.toBeInstanceOf(NotRunning);
  });
});

describe('a monitor that misbehaves', () => {
  test('is not running when there is no socket', async () => {
    const connecting = QmpClient.connect(path.join(await temporaryFolder(), 'qmp.sock'));
    await expect(connecting).rejects.toBeInstanceOf(NotRunning);
  });

  test.each([
    ['says nothing', ''],
    ['greets as something else', '{"hello": 1}\n'],
    ['does not speak JSON', 'SSH-2.0-x\r\n'],
  ])('is unreachable when it %s', async (_what, greeting) => {
    const socket = await serve((send) => send(greeting));
    await expect(QmpClient.connect(socket, 150)).rejects.toMatchObject({
      code: 'ERR_HOST_UNREACHABLE',
    });
  });

  test('is unreachable when it stops answering, and its late answer is no later one', async () => {
    const socket = await serve(
      (send) => send(GREETING),
      (line, send) => {
        const { execute, id } = JSON.parse(line);
        if (execute === 'slow') setTimeout(() => send(`{"return": "late", "id": ${id}}\n`), 120);
        else send(`{"return": {}, "id": ${id}}\n`);
      },
    );
    const qmp = await QmpClient.connect(socket);
    await expect(qmp.execute('slow', {}, 50)).rejects.toMatchObject({
      code: 'ERR_HOST_UNREACHABLE',
    });
    await expect(qmp.execute('next', {}, 500)).rejects.toThrow('did not answer');
    qmp.close();
  });

  test('may send first what was meant for the client before', async () => {
    const leftOver =
      'ne": 1}}\r\n{"event": "JOB_STATUS_CHANGE"}\r\n{"return": "of another", "id": 1}\r\n';
    const socket = await serve(
      (send) => send(`${leftOver}${GREETING}{"return": "of another", "id": 1}\r\n`),
      (line, send) => send(`{"return": "mine", "id": ${JSON.parse(line).id}}\n`),
    );
    const qmp = await QmpClient.connect(socket);
    expect(qmp.version).toBe('9.1.2');
    expect(await qmp.execute('a')).toBe('mine');
    qmp.close();
  });

  test('may send events between and answers in pieces', async () => {
    const socket = await serve(
      (send) => send(GREETING),
      (line, send) => {
        const { id } = JSON.parse(line);
        const answer = `{"event": "STOP"}\r\n{"return": {"text": "Grüße"}, "id": ${id}}\r\n{"event": "RESUME"}\r\n`;
        for (const byte of Buffer.from(answer)) send(Buffer.of(byte));
      },
    );
    const qmp = await QmpClient.connect(socket);
    expect(await qmp.execute('a')).toEqual({ text: 'Grüße' });
    expect(await qmp.execute('b')).toEqual({ text: 'Grüße' });
    qmp.close();
  });
});
