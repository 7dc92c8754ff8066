/**
 * Finds the addon and loads it; the only file that does.
 *
 * What can be known to fail is checked before the addon is touched (platform, architecture, Node version, Node-API level), because
 * loading a library that the process cannot hold may end in a crash instead of an error. The order is: the file that FIRN_ADDON names,
 * alone; else a local build (Debug, then Release: who made a debug build wants it); else a prebuilt. A failure is ERR_NATIVE_LOAD,
 * whose message is a page of help: what this process is, what was looked for, why each failed, and what to do.
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { arch, platform } from 'node:process';
import { fileURLToPath } from 'node:url';
import { firnError } from '../errors.js';
import type { NativeBinding } from './binding.js';

/** The Node-API level that the addon is built for (package.json, binary.napi_versions). */
const NODE_API_LEVEL = 8;
const NODE_MAJOR_MIN = 20;
const PLATFORMS: Readonly<Record<string, readonly string[]>> = {
  linux: ['x64', 'arm64'],
  win32: ['x64', 'arm64'],
};

/** What the checks look at; a parameter so that tests can be another machine. */
export interface Host {
  platform: string;
  arch: string;
  nodeVersion: string;
  nodeApi: number;
  addonPath: string | undefined;
  packageRoot: string;
}

export function thisHost(): Host {
  return {
    platform,
    arch,
    nodeVersion: process.versions.node,
    nodeApi: Number(process.versions.napi ?? 0),
    addonPath: process.env.FIRN_ADDON || undefined,
    // dist/engine/loader.js and src/engine/loader.ts stand at the same depth.
    packageRoot: fileURLToPath(new URL('../../', import.meta.url)),
  };
}

/** Where the addon may lie, in order. */
export function candidates(host: Host): string[] {
  if (host.addonPath !== undefined) return [resolve(host.addonPath)];
  return [
    `${host.packageRoot}build/Debug/firn.node`,
    `${host.packageRoot}build/Release/firn.node`,
    `${host.packageRoot}prebuilds/${host.platform}-${host.arch}/firn.node`,
  ];
}

/** Why this process cannot hold the addon at all, or undefined. */
export function whyNot(host: Host): string | undefined {
  const archs = PLATFORMS[host.platform];
  if (archs === undefined) {
    return `Firn's engine runs on Linux and Windows, and this is ${host.platform}.`;
  }
  if (!archs.includes(host.arch)) {
    return `Firn's engine is built for ${archs.join(' and ')} processors, and this Node is for ${host.arch}.`;
  }
  if (Number.parseInt(host.nodeVersion, 10) < NODE_MAJOR_MIN) {
    return `Firn needs Node ${NODE_MAJOR_MIN} or later, and this is ${host.nodeVersion}.`;
  }
  if (host.nodeApi < NODE_API_LEVEL) {
    return `Firn's engine needs Node-API ${NODE_API_LEVEL}, and this Node ${host.nodeVersion} has ${host.nodeApi}.`;
  }
  return undefined;
}

/** Loads the addon, or throws ERR_NATIVE_LOAD with a page of help. */
export function loadBinding(host: Host = thisHost()): NativeBinding {
  const obstacle = whyNot(host);
  if (obstacle !== undefined) throw helpPage(host, obstacle, []);
  const require = createRequire(import.meta.url);
  const attempts: { path: string; failure: string; cause?: unknown }[] = [];
  for (const path of candidates(host)) {
    if (!existsSync(path)) {
      attempts.push({ path, failure: 'not there' });
      continue;
    }
    try {
      return require(path) as NativeBinding;
    } catch (error) {
      // A file that is there and does not load ends the search: silently taking an older one would hide it.
      attempts.push({ path, failure: (error as Error).message, cause: error });
      break;
    }
  }
  throw helpPage(host, "Firn's native engine could not be loaded.", attempts);
}

function helpPage(
  host: Host,
  headline: string,
  attempts: { path: string; failure: string; cause?: unknown }[],
) {
  const lines = [
    headline,
    '',
    `  This process: Node ${host.nodeVersion} (Node-API ${host.nodeApi}) on ${host.platform}-${host.arch}`,
  ];
  if (attempts.length > 0) {
    lines.push('  Looked for, in this order:');
    for (const { path, failure } of attempts) lines.push(`    ${path}`, `      ${failure}`);
  }
  lines.push('', ...advice(host, attempts));
  const cause = attempts.find((attempt) => attempt.cause !== undefined)?.cause;
  return firnError('ERR_NATIVE_LOAD', lines.join('\n'), {
    path: attempts.at(-1)?.path,
    cause,
    hint: 'Build the engine with "npm run build" in the package folder.',
  });
}

function advice(host: Host, attempts: { failure: string }[]): string[] {
  const failures = attempts.map((attempt) => attempt.failure).join('\n');
  const steps: string[] = [];
  if (host.addonPath !== undefined) {
    steps.push('FIRN_ADDON names that file and nothing else is tried: unset it, or correct it.');
  }
  if (/GLIBC|GLIBCXX|libstdc/.test(failures)) {
    steps.push('The file was built against a newer C library than this system has: build it here.');
  } else if (/ELF|too short|wrong architecture|not a valid Win32|invalid/i.test(failures)) {
    steps.push(
      'The file is damaged, or was built for another platform or processor: build it here.',
    );
  }
  if (whyNot(host) !== undefined) {
    steps.push(
      `Use Node ${NODE_MAJOR_MIN}.17 or later (20, 22 and 24 are tried) on Linux or Windows.`,
    );
  } else {
    steps.push(
      'Build it:  npm ci && npm run build',
      host.platform === 'win32'
        ? 'That needs CMake and Visual Studio 2022 with the C++ workload.'
        : 'That needs CMake 3.20, make or ninja, and a C++20 compiler (Debian: apt-get install g++ cmake make).',
    );
  }
  steps.push(
    'To get data out of a repository without the engine: firn rescue list, firn rescue restore.',
  );
  return ['  What to do:', ...steps.map((step) => `    ${step}`)];
}
