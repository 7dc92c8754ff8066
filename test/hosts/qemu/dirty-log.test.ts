/**
 * Goal: a layer of ours never stays behind because QEMU died while it changed the tables of the disk below, and nothing that was
 * written is lost when the disk is mended; a disk that is broken in another way, or that somebody has open, stays as it is.
 * Method: QEMU's storage daemon killed in the middle of merges, and the states that it can leave made byte by byte; what the disk holds
 * is read by qemu-img, and by Firn's own reader.
 */

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { clearUnfinishedLog, replayId } from '../../../src/hosts/qemu/vhdx-log.js';
import { newMark } from '../../conformance/host.js';
import { diskContent, sha256 } from '../../helpers/disks.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { capture, release } from './runs.js';
import { type Setting, setStage, setting } from './setting.js';
import { contentOf, exists, StorageDaemon, whyNoDaemon } from './storage-daemon.js';
import { breakHeader, crash, HEADER_BYTES, HEADER_OFFSETS, readHeaders } from './vhdx-crash.js';

const run = promisify(execFile);
const NO_ID = '0'.repeat(32);

/** A machine that was killed while it ran on a layer; its merge had begun. Both layer and disk hold writes. */
async function killedInMerge(stage = 'merging'): Promise<Setting> {
  const here = await setting();
  await here.machine.write(1, 0, 2);
  await capture(here.root, here.mark);
  await here.machine.write(5, 1, 6);
  await here.machine.kill();
  await setStage(here, stage);
  return here;
}

/** What the machine saw as its disk, before anything is broken. */
function seen({ overlay }: Setting): Promise<string> {
  return contentOf(overlay, 'qcow2');
}

async function expectMerged(here: Setting, content: string): Promise<void> {
  expect(await release(here.root, here.mark)).toBeUndefined();
  expect(await here.files()).toEqual(['d0.vhdx']);
  expect(await contentOf(here.disk, 'vhdx')).toBe(content);
  expect(sha256(await diskContent(here.disk))).toBe(content);
  for (const header of await readHeaders(here.disk)) {
    expect(header).toMatchObject({ isIntact: true, logId: NO_ID });
  }
}

async function digestOf(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

describe.skipIf(whyNoDaemon !== undefined)('a release after QEMU died in a merge', () => {
  test.each(['whole', 'begun', 'none'] as const)(
    'merges when of the entry in the log there is: %s',
    async (how) => {
      const here = await killedInMerge();
      const content = await seen(here);
      await crash(here.disk, how);
      // What stands in its way: qemu-img alone does not get over any of these.
      await expect(run('qemu-img', ['commit', '-f', 'qcow2', here.overlay])).rejects.toThrow(
        /Operation not supported|contains a log that needs to be replayed/,
      );
      await expectMerged(here, content);
    },
  );

  test('merges when only one of the headers asks for a replay', async () => {
    const here = await killedInMerge();
    const content = await seen(here);
    await crash(here.disk, 'none', 1);
    await expectMerged(here, content);
  });

  test('replays the log before it compares a layer that may be out of date', async () => {
    const here = await killedInMerge();
    await run('qemu-img', ['commit', '-q', '-d', '-f', 'qcow2', here.overlay]);
    const content = await seen(here);
    await setStage(here, 'completing');
    await crash(here.disk, 'whole');
    await expectMerged(here, content);
  });

  test('merges whenever QEMU is killed, and loses nothing', async () => {
    for (let round = 0; round < 6; round++) {
      const here = await killedInMerge('standing');
      const content = await seen(here);
      await here.machine.start([here.overlay]);
      await here.machine.qmp((qmp) =>
        qmp.execute('block-commit', { 'job-id': 'merge', device: 'n0', 'auto-dismiss': false }),
      );
      await sleep(round * 2);
      await here.machine.kill();
      await setStage(here, 'merging');
      await expectMerged(here, content);
    }
  });

  test('merges nothing while the machine runs on such a disk: QEMU would lose it, and says so to nobody', async () => {
    const here = await killedInMerge();
    const content = await seen(here);
    await crash(here.disk, 'none');
    await here.machine.start([here.overlay]);
    expect(await release(here.root, here.mark)).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      message: expect.stringContaining(`the tables of ${here.disk}`),
      hint: expect.stringContaining('Shut the machine down'),
    });
    expect(await here.machine.chainDepth()).toBe(2);
    await here.machine.stop();
    await expectMerged(here, content);
  });

  test('changes nothing of a log that QEMU cannot have left so, and says what can be done', async () => {
    const here = await killedInMerge();
    const content = await seen(here);
    await crash(here.disk, 'two');
    const before = await digestOf(here.disk);
    const error = await release(here.root, here.mark);
    expect(error).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      retryable: false,
      hint: expect.stringContaining(`qemu-img convert -f qcow2 -O vhdx ${here.overlay} NEW.vhdx`),
    });
    expect(await digestOf(here.disk)).toBe(before);
    expect(await exists(here.overlay)).toBe(true);
    const made = path.join(await temporaryFolder(), 'new.vhdx');
    await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'vhdx', here.overlay, made]);
    expect(await contentOf(made, 'vhdx')).toBe(content);
  });

  test('says so when qemu-img refuses to replay the log', async () => {
    const here = await killedInMerge();
    await crash(here.disk, 'truncated');
    expect(await release(here.root, here.mark)).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      message: expect.stringContaining('qemu-img check'),
      hint: expect.stringContaining('asks for a replay'),
    });
    expect(await exists(here.overlay)).toBe(true);
  });

  test('leaves a disk alone that somebody has open', async () => {
    const here = await killedInMerge();
    const content = await seen(here);
    await crash(here.disk, 'none');
    const before = await digestOf(here.disk);
    const other = await StorageDaemon.create(path.join(await temporaryFolder(), 'other'));
    onTestFinished(() => other.stop());
    await other.stop();
    await other.start([here.disk]);
    expect(await release(here.root, here.mark)).toMatchObject({
      code: 'ERR_MERGE_FAILED',
      message: expect.stringContaining('lock'),
      hint: expect.stringContaining(`what holds ${here.disk} open`),
    });
    expect(await digestOf(here.disk)).toBe(before);
    await other.stop();
    await expectMerged(here, content);
  });

  test('leaves the log of a disk alone into which nothing is to be merged', async () => {
    const here = await killedInMerge();
    await run('qemu-img', ['commit', '-q', '-f', 'qcow2', here.overlay]);
    await setStage(here, 'merged');
    await crash(here.disk, 'none');
    const before = await digestOf(here.disk);
    expect(await release(here.root, here.mark)).toBeUndefined();
    expect(await digestOf(here.disk)).toBe(before);
  });
});

describe.skipIf(whyNoDaemon !== undefined)('a capture', () => {
  test('puts no layer on a disk that QEMU could not merge it into', async () => {
    const root = await temporaryFolder();
    const machine = await StorageDaemon.create(path.join(root, 'vm'), ['d0', 'd1']);
    onTestFinished(() => machine.stop());
    await machine.stop();
    await crash(path.join(machine.folder, 'd1.vhdx'), 'none');
    await machine.start();
    const mark = newMark();
    await expect(capture(root, mark)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_FAILED',
      hint: expect.stringContaining('qemu-img convert'),
    });
    expect(await machine.chainDepth()).toBe(1);
    expect((await readdir(machine.folder)).filter((name) => name.includes(mark))).toEqual([]);
  });

  test('takes a disk whose tables QEMU is changing all the time', async () => {
    const root = await temporaryFolder();
    const machine = await StorageDaemon.create(path.join(root, 'vm'));
    onTestFinished(() => machine.stop());
    const writing = machine.write(4, 0, 64);
    const mark = newMark();
    await capture(root, mark);
    await writing;
    expect(await release(root, mark)).toBeUndefined();
    expect(await machine.chainDepth()).toBe(1);
  });
});

describe.skipIf(whyNoDaemon !== undefined)('the log of an unfinished entry', () => {
  async function newDisk(): Promise<string> {
    const file = path.join(await temporaryFolder(), 'd.vhdx');
    await run('qemu-img', ['create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', file, '16M']);
    await run('qemu-io', ['-f', 'vhdx', '-c', 'write -P 3 2M 2M', file]);
    return file;
  }

  test.each(['none', 'begun'] as const)('is cleared in the headers alone (%s)', async (how) => {
    const file = await newDisk();
    await crash(file, how);
    const [bytes, headers] = [await readFile(file), await readHeaders(file)];
    const [older, current] = headers.toSorted((a, b) => Number(a.sequence - b.sequence));
    const newest = current?.sequence ?? 0n;
    expect(older?.sequence).toBe(newest - 1n);
    expect(await replayId(file)).toBe(current?.logId);
    expect(await clearUnfinishedLog(file)).toBe(true);
    expect(await replayId(file)).toBeUndefined();

    const after = await readHeaders(file);
    // The header that was current is written last, and so stays whole until the other one is.
    const expected = headers.map(({ sequence }) =>
      sequence === newest ? newest + 2n : newest + 1n,
    );
    expect(after.map(({ sequence }) => sequence)).toEqual(expected);
    for (const header of after) {
      expect(header).toMatchObject({ isIntact: true, logId: NO_ID });
      expect(header.dataWriteId).toBe(current?.dataWriteId);
      expect(header.fileWriteId).not.toBe(current?.fileWriteId);
    }
    expect(withoutHeaders(await readFile(file)).equals(withoutHeaders(bytes))).toBe(true);
  });

  test.each(['whole', 'truncated', 'two'] as const)(
    'is none when there is more (%s)',
    async (how) => {
      const file = await newDisk();
      await crash(file, how);
      const before = await digestOf(file);
      expect(await clearUnfinishedLog(file)).toBe(false);
      expect(await digestOf(file)).toBe(before);
    },
  );

  test.each([0, 1] as const)(
    'is cleared from the intact header when copy %i is damaged',
    async (copy) => {
      const file = await newDisk();
      const content = await contentOf(file, 'vhdx');
      await crash(file, 'none');
      await breakHeader(file, copy);
      expect(await clearUnfinishedLog(file)).toBe(true);
      expect((await readHeaders(file)).map(({ isIntact }) => isIntact)).toEqual([true, true]);
      expect(await contentOf(file, 'vhdx')).toBe(content);
    },
  );

  test('is not looked for in a file that is no VHDX, nor in one without a header', async () => {
    const folder = await temporaryFolder();
    const short = path.join(folder, 'short.vhdx');
    await writeFile(short, 'vhd');
    expect(await replayId(short)).toBeUndefined();
    const broken = await newDisk();
    await crash(broken, 'none');
    await breakHeader(broken, 0);
    await breakHeader(broken, 1);
    expect(await replayId(broken)).toBeUndefined();
    expect(await clearUnfinishedLog(broken)).toBe(false);
  });
});

function withoutHeaders(bytes: Buffer): Buffer {
  for (const offset of HEADER_OFFSETS) bytes.fill(0, offset, offset + HEADER_BYTES);
  return bytes;
}
