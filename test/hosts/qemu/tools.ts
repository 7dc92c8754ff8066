import { existsSync } from 'node:fs';
import path from 'node:path';

/** Whether a program is installed, also among those for administrators. */
export function onPath(name: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(path.delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(path.join(folder, name)));
}
