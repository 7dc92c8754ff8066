import { mkdtempSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, onTestFinished } from 'vitest';

/** A new folder that goes when the test has finished. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'firn-test-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A new folder that goes when the tests of the file have finished. */
export function suiteFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'firn-test-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
