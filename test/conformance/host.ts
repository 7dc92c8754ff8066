/**
 * What every host must hold, as one suite: call describeHost in the test file of a host. It knows nothing of how a host works; what it
 * cannot learn through the interface, whether a guest makes headway and how deep its chain is, the fixture tells by other means.
 *
 * Each test leaves every machine as it was: no mark, the same chain depth. Steps that fail before or after their work play the death of a
 * run at that point, as far as one process can; the hosts' own tests kill real processes.
 */

import { stat } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { type Consistency, meetsConsistency } from '../../src/consistency.js';
import { isFirnError } from '../../src/errors.js';
import { type ConsistencyPolicy, runOfMark, STEP_NAMES } from '../../src/hosts/host.js';
import { Bench, captureOf, type HostFixture, LEAST, recordSteps } from './host-bench.js';
import { describeTracking } from './host-tracking.js';

export { captureOf, type HostFixture, newMark, recordSteps } from './host-bench.js';

/** The suite. `makeFixture` is called once; its machines run and write. */
export function describeHost(name: string, makeFixture: () => Promise<HostFixture>): void {
  describe(`${name}, as a host`, { timeout: 300_000 }, () => {
    let bench: Bench;
    beforeAll(async () => {
      bench = new Bench(await makeFixture());
    }, 240_000);
    afterEach(() => bench.tidy(), 240_000);
    afterAll(() => bench?.fixture.dispose(), 240_000);

    const use = () => bench;
    describeInventory(use);
    describeCapture(use);
    describePolicy(use);
    describeRelease(use);
    describeDeaths(use);
    describeOthers(use);
    describeTracking(use);
  });
}

function describeInventory(use: () => Bench): void {
  test('says what it is', async () => {
    const host = await use().host();
    const info = await host.info();
    expect(info.kind).toBe(host.kind);
    expect(host.spec).not.toBe('');
    for (const text of [info.name, info.version, info.method]) expect(text).not.toBe('');
  });

  test('lists its machines with their disks, under ids that stay', async () => {
    const { fixture } = use();
    const vms = await (await use().host()).listVms();
    for (const name of fixture.vms) {
      const found = vms.filter((vm) => vm.name === name);
      expect(found, name).toHaveLength(1);
      expect(found[0]?.state).toBe('running');
      const disks = found[0]?.disks ?? [];
      expect(disks.length).toBeGreaterThan(0);
      expect(new Set(disks.map((disk) => disk.name)).size).toBe(disks.length);
      for (const disk of disks) {
        expect(disk.name).toMatch(/^[\w.-]+$/);
        expect(disk.sizeBytes).toBeGreaterThan(0);
        expect(disk.fileBytes).toBeGreaterThan(0);
        expect(disk.layers).toBeGreaterThan(0);
      }
      expect(Math.max(...disks.map((disk) => disk.layers))).toBe(await fixture.chainDepth(name));
    }
    expect(new Set(vms.map((vm) => vm.id)).size).toBe(vms.length);
    const again = await (await use().host()).listVms();
    expect(again.map((vm) => vm.id).sort()).toEqual(vms.map((vm) => vm.id).sort());
  });

  test('names the volume of every disk and how much room it has', async () => {
    const host = await use().host();
    const volumes = await host.volumes();
    const names = volumes.map((volume) => volume.name);
    for (const vm of await host.listVms()) {
      for (const disk of vm.disks) expect(names).toContain(disk.volume);
    }
    for (const volume of volumes) {
      expect(volume.sizeBytes).toBeGreaterThan(0);
      expect(volume.freeBytes).toBeGreaterThanOrEqual(0);
      expect(volume.freeBytes).toBeLessThanOrEqual(volume.sizeBytes);
    }
  });

  test('puts every machine into one batch', async () => {
    const host = await use().host();
    const vms = await host.listVms();
    const batches = host.batches(vms);
    expect(
      batches
        .flat()
        .map((vm) => vm.id)
        .sort(),
    ).toEqual(vms.map((vm) => vm.id).sort());
    expect(batches.every((batch) => batch.length > 0)).toBe(true);
  });

  test('finds nothing that would stop a backup of machines that are well', async () => {
    const checks = await (await use().host()).check();
    expect(checks.length).toBeGreaterThan(0);
    expect(checks.filter((check) => check.state === 'error')).toEqual([]);
  });
}

function describeCapture(use: () => Bench): void {
  test('freezes layers that do not change while the guest writes on', async () => {
    const { fixture } = use();
    const host = await use().host();
    const depth = await use().depth();
    const vm = await use().vm(host);
    const mark = use().mark();
    const capture = await use().capture(host, mark);

    expect(capture.vm.id).toBe(vm.id);
    expect(capture.disks.map((disk) => disk.name).sort()).toEqual(
      vm.disks
        .filter((disk) => disk.unsupported === undefined)
        .map((disk) => disk.name)
        .sort(),
    );
    expect(await use().depth()).toBe(depth + 1);
    const layers = capture.disks.flatMap((disk) => disk.layers);
    expect(layers.length).toBeGreaterThan(0);
    for (const layer of layers) expect(runOfMark(layer)).toBeUndefined();

    const before = await use().fingerprints(layers);
    expect(await fixture.isWriting(vm.name)).toBe(true);
    expect(await use().fingerprints(layers)).toEqual(before);

    await use().release(host, mark);
    expect(await use().depth()).toBe(depth);
    expect(await fixture.isWriting(vm.name)).toBe(true);
  });

  test('records when the disks froze, how, and what the copy is worth', async () => {
    const host = await use().host();
    const begun = Date.now();
    const capture = await use().capture(host, use().mark());
    const frozenAt = Date.parse(capture.frozenAt);
    expect(frozenAt).toBeGreaterThanOrEqual(begun - 2000);
    expect(frozenAt).toBeLessThanOrEqual(Date.now() + 2000);
    expect(capture.method).not.toBe('');
    if (capture.consistency !== LEAST.wanted) expect(capture.consistencyReason).toBeTruthy();
    if (capture.frozenMs !== undefined) expect(capture.frozenMs).toBeGreaterThanOrEqual(0);
  });

  test("keeps the machine's configuration until the release and not after it", async (context) => {
    const host = await use().host();
    const mark = use().mark();
    const { configuration } = await use().capture(host, mark);
    if (use().fixture.fingerprint !== undefined) context.skip('its files are not on this machine');
    expect(configuration.length).toBeGreaterThan(0);
    for (const file of configuration) expect((await stat(file)).size).toBeGreaterThan(0);
    await use().release(host, mark);
    for (const file of configuration) await expect(stat(file)).rejects.toThrow('ENOENT');
  });

  test('leaves excluded disks out', async (context) => {
    const host = await use().host();
    const vm = (await host.listVms()).find(
      (candidate) =>
        use().fixture.vms.includes(candidate.name) &&
        candidate.disks.filter((disk) => disk.unsupported === undefined).length > 1,
    );
    if (vm === undefined) return context.skip('no machine of this host has two disks');
    const excluded = vm.disks[0]?.name ?? '';
    const request = use().request(vm, { excludedDisks: [excluded] });
    const [outcome] = await host.capture([request], use().mark(), recordSteps());
    const names = captureOf(outcome).disks.map((disk) => disk.name);
    expect(names).not.toContain(excluded);
    expect(names.length).toBeGreaterThan(0);
  });

  test('does not let one machine that fails fail the others', async (context) => {
    const { fixture } = use();
    const [good, bad] = fixture.vms;
    if (fixture.breakCaptures === undefined || good === undefined || bad === undefined) {
      return context.skip('this host cannot be made to fail for one of two machines');
    }
    const mend = await fixture.breakCaptures(bad);
    try {
      const host = await use().host();
      const vms = [await use().vm(host, bad), await use().vm(host, good)];
      const mark = use().mark();
      for (const batch of host.batches(vms)) {
        const requests = batch.map((vm) => use().request(vm));
        const outcomes = await host.capture(requests, mark, recordSteps());
        expect(outcomes.map((outcome) => outcome.vm.id)).toEqual(batch.map((vm) => vm.id));
        for (const outcome of outcomes) {
          if (outcome.vm.name === bad) expect(isFirnError(outcome.error)).toBe(true);
          else if (batch.length === 1) expect(captureOf(outcome).vm.name).toBe(good);
        }
      }
      await use().release(host, mark);
    } finally {
      await mend();
    }
    expect(await fixture.isWriting(bad)).toBe(true);
  });

  test('journals every step as begun and ended, in the order of a run', async () => {
    const host = await use().host();
    const steps = recordSteps();
    const mark = use().mark();
    await use().capture(host, mark, steps);
    await use().release(host, mark, steps);
    const ofFirst = steps.entries.filter((entry) => entry.vm === use().first());
    const begun = ofFirst.filter((entry) => entry.state === 'begun').map((entry) => entry.step);
    const ended = ofFirst.filter((entry) => entry.state === 'done').map((entry) => entry.step);
    expect([...ended].sort()).toEqual([...begun].sort());
    expect(begun).toContain('checkpoint');
    expect(begun).toContain('merge');
    const places = [...new Set(begun)].map((step) => STEP_NAMES.indexOf(step));
    expect(places).toEqual([...places].sort((a, b) => a - b));
  });
}

function describePolicy(use: () => Bench): void {
  const weak = (context: TestContext): string => {
    const { weakVm } = use().fixture;
    return weakVm ?? context.skip('every machine of this host reaches application consistency');
  };

  test('makes no point of a guest that cannot promise what is required', async (context) => {
    const host = await use().host();
    const vm = await use().vm(host, weak(context));
    expect(vm.reachable).not.toBe('application');
    expect(vm.reachableReason).toBeTruthy();
    const depth = await use().depth(vm.name);
    const policy: ConsistencyPolicy = { wanted: 'application', required: 'application' };
    const mark = use().mark();
    const [outcome] = await host.capture([use().request(vm, { policy })], mark, recordSteps());
    expect(outcome?.error?.code).toBe('ERR_CONSISTENCY');
    await use().release(host, mark);
    expect(await use().depth(vm.name)).toBe(depth);
    expect(await use().fixture.isWriting(vm.name)).toBe(true);
  });

  test('records what was reached when it is less than was wanted, and why', async (context) => {
    const host = await use().host();
    const vm = await use().vm(host, weak(context));
    const [outcome] = await host.capture([use().request(vm)], use().mark(), recordSteps());
    const capture = captureOf(outcome);
    expect(meetsConsistency(vm.reachable, capture.consistency)).toBe(true);
    expect(capture.consistency).not.toBe('application' satisfies Consistency);
    expect(capture.consistencyReason).toBeTruthy();
  });

  test('promises no more than crash consistency when no more is wanted', async () => {
    const host = await use().host();
    const vm = await use().vm(host);
    const policy: ConsistencyPolicy = { wanted: 'crash', required: 'crash' };
    const [outcome] = await host.capture(
      [use().request(vm, { policy })],
      use().mark(),
      recordSteps(),
    );
    expect(captureOf(outcome).vm.id).toBe(vm.id);
    expect(await use().fixture.isWriting(vm.name)).toBe(true);
  });
}

function describeRelease(use: () => Bench): void {
  test('may be called again, and by another object that only has the mark', async () => {
    const depth = await use().depth();
    const mark = use().mark();
    await use().capture(await use().host(), mark);
    const other = await use().host();
    await use().release(other, mark);
    expect(await use().depth()).toBe(depth);
    await use().release(other, mark);
    await use().release(await use().host(), mark);
    expect(await use().depth()).toBe(depth);
    expect(await use().marksLeft(other)).toEqual([]);
  });

  test('may be called by two at once', async () => {
    const depth = await use().depth();
    const mark = use().mark();
    await use().capture(await use().host(), mark);
    const [first, second] = [await use().host(), await use().host()];
    await Promise.all([use().release(first, mark), use().release(second, mark)]);
    expect(await use().depth()).toBe(depth);
    expect(await use().marksLeft(first)).toEqual([]);
  });

  test('does nothing for a mark that is nowhere', async () => {
    const host = await use().host();
    const depth = await use().depth();
    await use().release(host, use().mark());
    expect(await use().depth()).toBe(depth);
    expect(await use().fixture.isWriting(use().first())).toBe(true);
  });

  test('has nothing to do for a machine that is gone', async () => {
    const host = await use().host();
    const gone = { id: '00000000-dead-4000-8000-000000000000', name: 'gone' };
    const outcomes = await host.release([gone], use().mark(), 60_000, recordSteps());
    expect(outcomes).toEqual([{ vm: gone }]);
  });
}

function describeDeaths(use: () => Bench): void {
  for (const step of ['freeze', 'checkpoint', 'thaw', 'shadow-copy'] as const) {
    for (const afterwards of [false, true]) {
      const when = afterwards ? 'after' : 'before';
      test(`is clean again when a run dies ${when} the step "${step}"`, async (context) => {
        const depth = await use().depth();
        const mark = use().mark();
        const steps = recordSteps({ step, afterwards });
        const host = await use().host();
        const [outcome] = await host.capture([use().request(await use().vm(host))], mark, steps);
        const reached = steps.entries.some((entry) => entry.step === step);
        if (reached) expect(isFirnError(outcome?.error) || outcome?.capture).toBeTruthy();
        const other = await use().host();
        await use().release(other, mark);
        expect(await use().depth()).toBe(depth);
        expect(await use().marksLeft(other)).toEqual([]);
        expect(await use().fixture.isWriting(use().first())).toBe(true);
        if (!reached) context.skip('this host has no such step');
      });
    }
  }

  for (const step of ['merge', 'confirm', 'drop-shadow-copy'] as const) {
    for (const afterwards of [false, true]) {
      const when = afterwards ? 'after' : 'before';
      test(`is clean again when a release dies ${when} the step "${step}"`, async (context) => {
        const depth = await use().depth();
        const mark = use().mark();
        const host = await use().host();
        await use().capture(host, mark);
        const steps = recordSteps({ step, afterwards });
        const outcomes = await host.release([await use().vm(host)], mark, 60_000, steps);
        const reached = steps.entries.some((entry) => entry.step === step);
        if (reached) expect(outcomes[0]?.error?.code).toBe('ERR_ABORTED');
        const other = await use().host();
        await use().release(other, mark);
        expect(await use().depth()).toBe(depth);
        expect(await use().marksLeft(other)).toEqual([]);
        expect(await use().fixture.isWriting(use().first())).toBe(true);
        if (!reached) context.skip('this host has no such step');
      });
    }
  }
}

function describeOthers(use: () => Bench): void {
  test('names what a run has left, by its mark, until that is released', async () => {
    const host = await use().host();
    const mark = use().mark();
    await use().capture(host, mark);
    const left = (await (await use().host()).leftovers()).filter((item) => item.mark === mark);
    expect(left.length).toBeGreaterThan(0);
    for (const item of left) expect(item.name).not.toBe('');
    expect(left.some((item) => item.vm?.name === use().first())).toBe(true);
    await use().release(host, mark);
    expect(await use().marksLeft(host)).toEqual([]);
  });

  test("leaves another run's checkpoint alone", async () => {
    const host = await use().host();
    const depth = await use().depth();
    const [mine, others] = [use().mark(), use().mark()];
    await use().capture(host, others);
    await use().release(host, mine);
    expect(await use().depth()).toBe(depth + 1);
    expect(await use().marksLeft(host)).toEqual([others]);
    await use().release(host, others);
    expect(await use().depth()).toBe(depth);
  });

  for (const when of ['before', 'after'] as const) {
    test(`keeps a checkpoint that a user made ${when} the capture`, async (context) => {
      const { fixture } = use();
      if (fixture.userCheckpoint === undefined) {
        return context.skip('no user makes checkpoints on this host');
      }
      const host = await use().host();
      const depth = await use().depth();
      const mark = use().mark();
      let remove: () => Promise<void> = async () => {};
      try {
        if (when === 'before') remove = await fixture.userCheckpoint(use().first());
        await use().capture(host, mark);
        if (when === 'after') remove = await fixture.userCheckpoint(use().first());
        expect(await use().depth()).toBe(depth + 2);
        await use().release(host, mark);
        expect(await use().depth()).toBe(depth + 1);
        expect(await fixture.isWriting(use().first())).toBe(true);
      } finally {
        await remove();
      }
      expect(await use().depth()).toBe(depth);
    });
  }
}
