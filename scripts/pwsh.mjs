/**
 * Puts a PowerShell into .tools/pwsh, for the tests of the Hyper-V host, and prints its path. Needs the .NET SDK.
 *
 * The whole PowerShell is tried first, as a .NET tool. Where that is not to be had, a console for the PowerShell engine is built from
 * test/hosts/hyperv/powershell: the engine is the real one, the console around it is ours, and the modules beside it are missing.
 *
 *   node scripts/pwsh.mjs           exit code 1 and the reason if neither can be had
 */

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const TARGET = path.join(ROOT, '.tools', 'pwsh');
const BUILD = path.join(ROOT, '.tools', 'pwsh-build');
const CONSOLE = path.join(ROOT, 'test', 'hosts', 'hyperv', 'powershell');
const PROGRAM = path.join(TARGET, process.platform === 'win32' ? 'pwsh.exe' : 'pwsh');
const STAMP = path.join(TARGET, 'firn-stamp.txt');

function sourcesHash() {
  const hash = createHash('sha256');
  for (const name of ['pwsh.csproj', 'Program.cs']) {
    hash.update(readFileSync(path.join(CONSOLE, name)));
  }
  return hash.digest('hex');
}

function dotnet(...parameters) {
  const result = spawnSync('dotnet', parameters, { encoding: 'utf8' });
  if (result.error) return `dotnet cannot be started: ${result.error.message}`;
  if (result.status === 0) return undefined;
  const lines = `${result.stdout}\n${result.stderr}`.split('\n').filter((line) => line.trim());
  return lines.find((line) => /error|not found/i.test(line)) ?? lines.at(-1) ?? 'dotnet failed';
}

function installTool() {
  const reason = dotnet('tool', 'install', 'PowerShell', '--tool-path', TARGET);
  if (reason === undefined) writeFileSync(STAMP, 'tool');
  return reason;
}

function buildConsole() {
  rmSync(BUILD, { recursive: true, force: true });
  mkdirSync(BUILD, { recursive: true });
  // Beside the sources it would leave its intermediate files.
  for (const name of ['pwsh.csproj', 'Program.cs']) {
    cpSync(path.join(CONSOLE, name), path.join(BUILD, name));
  }
  const common = [BUILD, '-c', 'Release', '-o', TARGET, '--nologo'];
  // Compiled ahead of time it starts three times as fast, which tests that start a hundred feel. That takes a compiler from the registry.
  const ahead = ['-r', runtimeId(), '--self-contained', 'false', '-p:PublishReadyToRun=true'];
  let reason = dotnet('publish', ...common, ...ahead);
  if (reason !== undefined) reason = dotnet('build', ...common);
  if (reason === undefined) writeFileSync(STAMP, sourcesHash());
  return reason;
}

/** This machine in .NET's words: "linux-x64". */
function runtimeId() {
  const system = { win32: 'win', darwin: 'osx' }[process.platform] ?? process.platform;
  return `${system}-${process.arch}`;
}

function present() {
  if (!existsSync(PROGRAM) || !existsSync(STAMP)) return false;
  const stamp = readFileSync(STAMP, 'utf8');
  return stamp === 'tool' || stamp === sourcesHash();
}

if (process.env.FIRN_PWSH) {
  console.log(process.env.FIRN_PWSH);
} else if (present()) {
  console.log(PROGRAM);
} else {
  const reasons = [installTool(), undefined];
  if (reasons[0] !== undefined) reasons[1] = buildConsole();
  if (reasons.every((reason) => reason !== undefined)) {
    console.error(`pwsh: no PowerShell can be had here: ${reasons.join('; ')}`);
    process.exit(1);
  }
  console.log(PROGRAM);
}
