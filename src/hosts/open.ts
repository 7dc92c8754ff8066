/**
 * From the text of --host to a host. Each kind is loaded only when it is asked for.
 */

import path from 'node:path';
import { firnError } from '../errors.js';
import type { Host } from './host.js';

const FORMS = 'lab:DIR, qemu:DIR, hyperv, hyperv:wsman://COMPUTER or hyperv:ssh://USER@COMPUTER';

/** Opens a host. ERR_INVALID_ARGUMENT for what is none; whether the host is there shows at the first call. */
export async function openHost(spec: string): Promise<Host> {
  const { kind, rest } = split(spec);
  switch (kind) {
    case 'lab': {
      const { LabHost } = await import('./lab/lab-host.js');
      return new LabHost(folderOf(spec, rest));
    }
    case 'qemu': {
      const { QemuHost } = await import('./qemu/qemu-host.js');
      return new QemuHost(folderOf(spec, rest));
    }
    case 'hyperv': {
      const { HypervHost } = await import('./hyperv/hyperv-host.js');
      return new HypervHost(spec);
    }
    default:
      throw firnError('ERR_INVALID_ARGUMENT', `Expected a host (${FORMS}) but received "${spec}"`);
  }
}

/** The form under which the journal knows a host: the same for two ways to write one folder. */
export function canonicalSpec(spec: string): string {
  const { kind, rest } = split(spec);
  return kind === 'lab' || kind === 'qemu' ? `${kind}:${folderOf(spec, rest)}` : spec;
}

function split(spec: string): { kind: string; rest: string } {
  const colon = spec.indexOf(':');
  return colon < 0
    ? { kind: spec, rest: '' }
    : { kind: spec.slice(0, colon), rest: spec.slice(colon + 1) };
}

function folderOf(spec: string, rest: string): string {
  if (rest !== '') return path.resolve(rest);
  throw firnError('ERR_INVALID_ARGUMENT', `Expected a folder after "${spec}"`);
}
