/**
 * Copies what the compiler does not: the PowerShell scripts, from src/hosts/hyperv/scripts to the same place in dist. Old ones go first, so
 * that dist has exactly those of the source.
 */

import { cpSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = (name) => fileURLToPath(new URL(`../${name}/hosts/hyperv/scripts`, import.meta.url));

rmSync(folder('dist'), { recursive: true, force: true });
cpSync(folder('src'), folder('dist'), { recursive: true });
