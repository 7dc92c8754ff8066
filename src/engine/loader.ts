/**
 * Finds the addon and loads it; the only file that does.
 *
 * What can be known to fail is checked before the addon is touched (platform, architecture, Node version, Node-API level), because
 * loading a library that the process cannot hold may end in a crash instead of an error. The order is: the file that FIRN_ADDON names,
 * alone; else a local build (Debug, then Release: who made a debug build wants it); else the one that the package carries for this
 * platform (scripts/prebuild.mjs). A failure is ERR_NATIVE_LOAD, whose message is a page of help: what this process is, what was looked
 * for, why each failed, and what to do.
 */

import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { arch, platform } from 'node:process';
import { fileURLToPath } from 'node:url';
import { firnError } from '../errors.js';
import type { NativeBinding } from './binding.js';

/** The Node-API level that the addon is built for (package.json, binary.napi_versions). */
const NODE_API_LEVEL = 8;
const NODE_MAJOR_MIN = 20;
const NOT_THERE = 'not there';
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
  /** The C library that Node runs on: "glibc 2.36", "musl", or nothing where there is no such question. Asked after a failure only. */
  libc?: () => string | undefined;
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
    libc: thisLibc,
  };
}

function thisLibc(): string | undefined {
  if (platform !== 'linux') return undefined;
  // Node names the glibc that it found, and no other C library.
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  const version = report.header?.glibcVersionRuntime;
  return version === undefined ? 'musl' : `glibc ${version}`;
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
      attempts.push({ path, failure: NOT_THERE });
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
    `  This process: Node ${host.nodeVersion} (Node-API ${host.nodeApi}) on ${systemOf(host)}`,
  ];
  if (attempts.length > 0) {
    lines.push('  Looked for, in this order:');
    for (const { path, failure } of attempts) lines.push(`    ${path}`, `      ${failure}`);
    lines.push(`  The package carries: ${carried(host).join(', ') || 'no engine that is built'}`);
  }
  lines.push('', ...advice(host, attempts));
  const cause = attempts.find((attempt) => attempt.cause !== undefined)?.cause;
  return firnError('ERR_NATIVE_LOAD', lines.join('\n'), {
    path: attempts.at(-1)?.path,
    cause,
    hint: 'The message says what was looked for and what to do. FIRN_ADDON can name an engine.',
  });
}

function systemOf(host: Host): string {
  const libc = host.libc?.();
  return `${host.platform}-${host.arch}${libc === undefined ? '' : `, ${libc}`}`;
}

/** The platforms that the package has an engine for. */
function carried({ packageRoot }: Host): string[] {
  const folder = `${packageRoot}prebuilds`;
  if (!existsSync(folder)) return [];
  return readdirSync(folder).filter((name) => existsSync(`${folder}/${name}/firn.node`));
}

function advice(host: Host, attempts: { failure: string }[]): string[] {
  const failures = attempts.map((attempt) => attempt.failure).join('\n');
  const steps: string[] = [];
  if (host.addonPath !== undefined) {
    steps.push('FIRN_ADDON names that file and nothing else is tried: unset it, or correct it.');
  }
  // musl's words for what a file for glibc lacks there are many: its loader, this function or that.
  if (host.libc?.() === 'musl' && attempts.some(({ failure }) => failure !== NOT_THERE)) {
    steps.push(
      'This Node runs on musl (Alpine), and what the package carries is for glibc: build it here, or use a system with glibc.',
    );
  } else if (/GLIBC|GLIBCXX|libstdc/.test(failures)) {
    steps.push(
      'That file needs a newer C library than this system has (package: glibc 2.34; Debian 12, Ubuntu 22.04, RHEL 9): build it here.',
    );
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
    steps.push(...howToBuild(host));
  }
  steps.push(
    'To get data out of a repository without the engine: firn rescue list, firn rescue restore.',
  );
  return ['  What to do:', ...steps.map((step) => `    ${step}`)];
}

/** An installed package has no sources of the engine: those are in a clone. */
function howToBuild(host: Host): string[] {
  const isClone = existsSync(`${host.packageRoot}CMakeLists.txt`);
  return [
    `Build it${isClone ? '' : ' in a clone of Firn of the same version'}:  npm ci && npm run build`,
    ...(isClone
      ? []
      : ['Then name the file that it makes, build/Release/firn.node, in FIRN_ADDON.']),
    host.platform === 'win32'
      ? 'That needs CMake and Visual Studio 2022 with the C++ workload and its Clang.'
      : 'That needs CMake 3.20, make or ninja, OpenSSL and a C++20 compiler (Debian: apt-get install g++ cmake make libssl-dev).',
  ];
}
