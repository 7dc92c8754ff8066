/** One machine of a test, with the paths of what a run makes of it. */

import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { onTestFinished } from 'vitest';
import { newMark } from '../../conformance/host.js';
import { temporaryFolder } from '../../helpers/folder.js';
import { StorageDaemon } from './storage-daemon.js';

export interface Setting {
  root: string;
  machine: StorageDaemon;
  mark: string;
  disk: string;
  overlay: string;
  /** Files in the machine's folder, sockets left out. */
  files(): Promise<string[]>;
}

export async function setting(disks = ['d0']): Promise<Setting> {
  const root = await temporaryFolder();
  const folder = path.join(root, 'vm');
  const machine = await StorageDaemon.create(folder, disks);
  onTestFinished(() => machine.stop());
  const mark = newMark();
  return {
    root,
    machine,
    mark,
    disk: path.join(folder, 'd0.vhdx'),
    overlay: path.join(folder, `d0_${mark}.qcow2`),
    files: async () => (await readdir(folder)).filter((name) => !name.endsWith('.sock')).sort(),
  };
}

/** Makes the run's record say how far its layers are. */
export async function setStage({ machine, mark }: Setting, stage: string): Promise<void> {
  const file = path.join(machine.folder, `${mark}.run.json`);
  const record = JSON.parse(await readFile(file, 'utf8'));
  for (const disk of record.disks) disk.stage = stage;
  await writeFile(file, JSON.stringify(record));
}
