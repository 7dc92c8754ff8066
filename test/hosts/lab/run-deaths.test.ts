/**
 * Goal: whenever a run dies, or the host with all its machines, one release by a new process leaves every machine on one layer, with a guest that
 * is whole. Method: a run in a process of its own, which the lab kills at each of its journal entries in turn.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { labStatus, setFault, startLab } from '../../../src/hosts/lab/lab.js';
import { LabHost } from '../../../src/hosts/lab/lab-host.js';
import { newMark } from '../../conformance/host.js';
import { depthsOf, isWriting, releaseAll, temporaryLab, verdictOn } from './lab-fixture.js';

const RUN_MAIN = fileURLToPath(new URL('./run-main.mjs', import.meta.url));

async function runAndDie(
  lab: string,
  mark: string,
): Promise<{ signal: NodeJS.Signals | null; output: string }> {
  const child = spawn(process.execPath, [RUN_MAIN, lab, mark], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await once(child, 'close');
  return { signal: child.signalCode, output };
}

test('a run that is killed at any journal entry leaves what one release puts right', async () => {
  const lab = await temporaryLab([{ name: 'vm', disks: 2 }]);
  let deaths = 0;
  for (let step = 1; ; step++) {
    const mark = newMark();
    await setFault(lab, { name: 'firn-dies', step, once: true });
    const { signal, output } = await runAndDie(lab, mark);
    if (signal === null) {
      expect(output).toContain('released');
      break;
    }
    deaths++;
    expect(signal).toBe('SIGKILL');
    expect(await releaseAll(lab, mark)).toEqual([]);
    expect(await depthsOf(lab)).toEqual([1, 1]);
    expect(await new LabHost(lab).leftovers()).toEqual([]);
    expect(await isWriting(lab, 'vm')).toBe(true);
  }
  // Freeze, checkpoint, thaw, merge, confirm: each begun and done.
  expect(deaths).toBe(10);
}, 300_000);

test('a host that dies at any journal entry comes up with machines that one release puts right', async () => {
  const lab = await temporaryLab([{ name: 'first' }, { name: 'second', disks: 2 }]);
  for (const step of [2, 3, 9, 14, 17]) {
    const mark = newMark();
    await setFault(lab, { name: 'host-dies', step, once: true });
    const { signal, output } = await runAndDie(lab, mark);
    expect(signal, output).toBe('SIGKILL');
    const dead = (await labStatus(lab)).vms;
    expect(dead.map((vm) => [vm.state, vm.unclean])).toEqual([
      ['off', true],
      ['off', true],
    ]);
    // Some are put right while they are off, some after they have been started.
    const early = step % 2 === 0;
    if (!early) await startLab(lab);
    expect(await releaseAll(lab, mark)).toEqual([]);
    expect(await depthsOf(lab)).toEqual([1, 1, 1]);
    expect(await new LabHost(lab).leftovers()).toEqual([]);
    if (early) {
      for (const name of ['first', 'second']) {
        expect((await verdictOn(lab, name)).problems).toEqual([]);
      }
    }
    await startLab(lab);
    expect(await isWriting(lab, 'first')).toBe(true);
    expect(await isWriting(lab, 'second')).toBe(true);
  }
}, 300_000);
