/**
 * What the soak asks the system itself: files and their sizes, shared memory, what machine this is.
 */

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Names in a folder; none if it is not there. */
export function entriesOf(folder) {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** All files below a folder, by relative names, and their bytes. */
export function sizeOf(folder) {
  if (!existsSync(folder)) return { bytes: 0, files: [] };
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  const bytes = paths.reduce((sum, path) => {
    // A reconciler may remove one meanwhile.
    return sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0);
  }, 0);
  return { bytes, files: paths.map((path) => path.slice(folder.length + 1)) };
}

/** Names in /dev/shm, where there is one: native code could leave memory there. */
export function sharedMemoryNames() {
  try {
    return readdirSync('/dev/shm');
  } catch {
    return [];
  }
}

/** What this machine is, for the report. */
export function machineText() {
  const model = /^model name\s*:\s*(.*)$/m.exec(readText('/proc/cpuinfo'))?.[1] ?? process.arch;
  return `${model}, Linux ${readText('/proc/sys/kernel/osrelease').trim()}, Node ${process.version}`;
}

function readText(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
