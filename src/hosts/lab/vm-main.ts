/**
 * The program of a lab's running machine: `node vm-main.js FOLDER`, started detached by start-vm.ts. It ends when it is asked to, or when
 * its folder is taken away.
 */

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { VM_FILE } from './vm-file.js';
import { VmProcess } from './vm-process.js';

const LOOK_MS = 1000;

const [, , folder] = process.argv;
if (folder === undefined) throw new Error('Expected the folder of a machine');

const machine = await VmProcess.start(folder).catch((error: unknown) => {
  console.error(error);
  // The last line is what the one who starts it shows.
  console.error(error instanceof Error ? error.message : String(error));
  process.exit(1);
});
const stop = () => {
  machine.stop().catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
};
process.on('SIGTERM', stop);
process.on('SIGINT', stop);
setInterval(() => {
  // Nobody could stop it any more.
  if (!existsSync(join(folder, VM_FILE))) process.exit(1);
}, LOOK_MS).unref();
