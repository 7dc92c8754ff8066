/**
 * Goal: what Firn makes of names and of a layer's header is right, also for a header that lies. Method: files that qemu-img made, and files that
 * nobody should have made.
 */

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { runOfMark } from '../../../src/hosts/host.js';
import {
  fileOfName,
  nodeName,
  overlayMark,
  overlayPaths,
  readOverlayHeader,
} from '../../../src/hosts/qemu/overlay.js';
import { newMark } from '../../conformance/host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { whyNoDaemon } from './storage-daemon.js';

const run = promisify(execFile);

describe("a layer's name", () => {
  test('stands beside its disk, bears the mark and is found by it', () => {
    const mark = newMark();
    const [file = ''] = overlayPaths([{ name: 'vd0', path: '/vm/web one.vhdx' }], mark);
    expect(path.dirname(file)).toBe('/vm');
    expect(runOfMark(path.basename(file))).toBe(runOfMark(mark));
    expect(overlayMark(file)).toBe(mark);
    expect(overlayMark('/vm/web.qcow2')).toBeUndefined();
    expect(overlayMark(`/${mark}.qcow2/web.qcow2`)).toBeUndefined();
  });

  test('is not the same for two disks that differ in their extension alone', () => {
    const disks = ['/vm/a.vhdx', '/vm/a.raw', '/vm/b.vhdx', '/other/b.vhdx'];
    const paths = overlayPaths(
      disks.map((file, index) => ({ name: `vd${index}`, path: file })),
      newMark(),
    );
    expect(new Set(paths).size).toBe(disks.length);
  });

  test('is short enough for QEMU where it names a node', () => {
    expect(nodeName(newMark(), 99).length).toBeLessThanOrEqual(31);
  });

  test('is found in what QEMU makes of a file with options', () => {
    expect(fileOfName('/vm/a.vhdx')).toBe('/vm/a.vhdx');
    const options = { driver: 'vhdx', file: { driver: 'file', filename: '/vm/a.vhdx' } };
    expect(fileOfName(`json:${JSON.stringify(options)}`)).toBe('/vm/a.vhdx');
    expect(fileOfName('json:{"driver": "null-co"}')).toBeUndefined();
    expect(fileOfName('json:{')).toBeUndefined();
  });
});

describe.skipIf(whyNoDaemon !== undefined)("a layer's header", () => {
  async function layer(): Promise<{ file: string; base: string }> {
    const folder = await temporaryFolder();
    const [base, file] = [path.join(folder, 'base.vhdx'), path.join(folder, 'layer.qcow2')];
    await run('qemu-img', ['create', '-q', '-f', 'vhdx', base, '16M']);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', 'base.vhdx', '-F', 'vhdx', file]);
    return { file, base };
  }

  test('says what lies below, and whether anything was written', async () => {
    const { file, base } = await layer();
    expect(await readOverlayHeader(file)).toEqual({ backing: base, empty: true });
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 4k', file]);
    expect(await readOverlayHeader(file)).toEqual({ backing: base, empty: false });
    await run('qemu-img', ['commit', '-q', '-f', 'qcow2', file]);
    expect(await readOverlayHeader(file)).toEqual({ backing: base, empty: true });
  });

  test('is none when the file ends too soon, wherever', async () => {
    const { file } = await layer();
    const content = await readFile(file);
    for (const length of [0, 3, 71, 200, content.length - 8]) {
      await writeFile(file, content.subarray(0, length));
      expect(await readOverlayHeader(file), `${length} bytes`).toBeUndefined();
    }
  });

  test('is none when it points beyond the file or names sizes that cannot be', async () => {
    const { file } = await layer();
    const content = await readFile(file);
    const spoil = (offset: number, bytes: number[]) => {
      const copy = Buffer.from(content);
      copy.set(bytes, offset);
      return copy;
    };
    const all = [255, 255, 255, 255];
    for (const bad of [
      spoil(0, [0]),
      spoil(8, [...all, ...all]),
      spoil(16, all),
      spoil(36, all),
      spoil(40, [...all, ...all]),
      randomBytes(4096),
    ]) {
      await writeFile(file, bad);
      expect(await readOverlayHeader(file)).toBeUndefined();
    }
  });
});
