/**
 * A run of its own, to be killed: `node run-main.mjs LAB MARK` captures and releases every machine of the lab, and tells the host of each journal
 * entry, as a real run does. It prints what it has reached.
 */

import process from 'node:process';
import { LabHost } from '../../../dist/hosts/lab/lab-host.js';

const [, , lab, mark] = process.argv;
const host = new LabHost(lab);
const steps = {
  async run(vm, step, { deadlineMs }, work) {
    host.observe({ vm, step, state: 'begun' });
    const signal = AbortSignal.timeout(deadlineMs ?? 60_000);
    const result = await work(signal);
    host.observe({ vm, step, state: 'done' });
    return result;
  },
};
const policy = { wanted: 'application', required: 'crash' };
for (const vm of await host.listVms()) {
  const request = { vm, policy, excludedDisks: [], freezeDeadlineMs: 60_000 };
  const [{ capture, error }] = await host.capture([request], mark, steps);
  if (error !== undefined) throw error;
  console.log(`captured ${capture.vm.name}`);
}
const outcomes = await host.release(await host.listVms(), mark, 60_000, steps);
for (const { error } of outcomes) if (error !== undefined) throw error;
console.log('released');
