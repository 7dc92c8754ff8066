/** What the tests of this folder share: the PowerShell to run, and a stand-in host with a connection to it. */

import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe } from 'vitest';
import { type FirnError, isFirnError } from '../../../src/errors.js';
import type { Steps } from '../../../src/hosts/host.js';
import { Connection } from '../../../src/hosts/hyperv/connection.js';
import { HypervHost } from '../../../src/hosts/hyperv/hyperv-host.js';
import { parseTarget } from '../../../src/hosts/hyperv/spec.js';
import type { HypervTuning } from '../../../src/hosts/hyperv/tuning.js';
import { Hypervisor } from './standin/hypervisor.js';
import type { MachineSpec } from './standin/machines.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const PROGRAM = process.platform === 'win32' ? 'pwsh.exe' : 'pwsh';
const candidates = [process.env.FIRN_PWSH, path.join(ROOT, '.tools', 'pwsh', PROGRAM)];

export const BUILD = { server2012R2: 9600, server2016: 14393, server2019: 17763 } as const;

/** The PowerShell that tests run, if there is one. */
export const POWERSHELL = candidates.find((file) => file !== undefined && existsSync(file));

export const NO_POWERSHELL = 'no PowerShell: run "node scripts/pwsh.mjs", or name one in FIRN_PWSH';

/** describe(), or a skipped one whose name says why. The stand-in's commands are scripts of a Unix shell. */
export function describeWithPowerShell(name: string, suite: () => void): void {
  // A PowerShell takes its time on a computer with much else to do.
  const options = { timeout: 300_000 };
  if (POWERSHELL !== undefined && process.platform !== 'win32') describe(name, options, suite);
  else describe.skip(`${name} (${NO_POWERSHELL})`, suite);
}

/** How often to look fits the stand-in; how long things may take fits a computer with much else to do. */
export const QUICK: HypervTuning = {
  jobPollMs: 5,
  mergePollMs: 15,
  answerMs: 500,
  endRetryMs: 60,
  checkpointMarginMs: 60_000,
  setMarginMs: 60_000,
  vssRetryDelaysMs: [1],
};

/** A host, its stand-in, and the one connection that all objects of the same host use here. */
export class Lane {
  readonly hypervisor: Hypervisor;
  readonly connection: Connection;
  readonly #hosts: HypervHost[] = [];

  private constructor(hypervisor: Hypervisor, connection: Connection) {
    this.hypervisor = hypervisor;
    this.connection = connection;
  }

  static async open(
    build: number,
    specs: readonly MachineSpec[],
    { spec = 'hyperv', cluster = false, environment = {} } = {},
  ): Promise<Lane> {
    const hypervisor = await Hypervisor.start(build, specs);
    const connection = new Connection(parseTarget(spec), {
      executable: POWERSHELL,
      environment: {
        ...hypervisor.environment({ cluster }),
        FIRN_STANDIN_PWSH: POWERSHELL ?? '',
        ...environment,
      },
    });
    return new Lane(hypervisor, connection);
  }

  /** A new object for the host. */
  host(tuning: Partial<HypervTuning> = {}): HypervHost {
    const host = new HypervHost('hyperv', {
      connection: this.connection,
      tuning: { ...QUICK, ...tuning },
    });
    this.#hosts.push(host);
    return host;
  }

  async close(): Promise<void> {
    for (const host of this.#hosts.splice(0)) await host.close();
    await this.connection.close();
    await this.hypervisor.stop();
  }
}

/** Steps that only do the work. */
export const PLAIN_STEPS: Steps = {
  run: async (_vm, _step, { deadlineMs }, work) =>
    work(deadlineMs === undefined ? new AbortController().signal : AbortSignal.timeout(deadlineMs)),
};

/** The FirnError that a promise rejects with; any other outcome fails the test. */
export async function caught(promise: Promise<unknown>): Promise<FirnError> {
  try {
    await promise;
  } catch (error) {
    if (isFirnError(error)) return error;
    throw error;
  }
  throw new Error('it succeeded, but should have failed');
}
