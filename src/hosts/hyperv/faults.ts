/** Errors of the host as errors of Firn. */

import { type ErrorCode, type FirnError, firnError } from '../../errors.js';
import type { Fault } from './replies.js';

/** What the host said, in full: the cause of the FirnError that is made of it. */
export class HostFault extends Error {
  readonly fault: Fault;

  constructor(fault: Fault) {
    super(fault.message);
    this.name = 'HostFault';
    this.fault = fault;
  }
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  'vm-not-found': 'ERR_VM_NOT_FOUND',
  'vm-moved': 'ERR_VM_BUSY',
  'vm-busy': 'ERR_VM_BUSY',
  unreachable: 'ERR_HOST_UNREACHABLE',
  unsupported: 'ERR_UNSUPPORTED',
  'job-failed': 'ERR_CHECKPOINT_FAILED',
  'job-deadline': 'ERR_DEADLINE',
  'shadow-failed': 'ERR_SHADOW_COPY_FAILED',
  'mark-failed': 'ERR_HOST_FAILED',
};

/** The FirnError for a fault. Its message names the codes that Windows gave, as administrators search for those. */
export function fromFault(fault: Fault): FirnError {
  const code = codeOf(fault);
  // An exception without a code of its own has the general one, which says nothing.
  const hresult =
    fault.hresult === '0x80131500' || fault.hresult === '0x80131501' ? undefined : fault.hresult;
  const codes = [hresult, fault.wmiErrorCode].filter((value) => value !== undefined);
  const suffix = fault.kind === undefined && codes.length > 0 ? ` (${codes.join(', ')})` : '';
  return firnError(code, `${fault.message.trim()}${suffix}`, { cause: new HostFault(fault) });
}

function codeOf(fault: Fault): ErrorCode {
  const own = CODES[fault.kind ?? ''];
  if (own !== undefined) return own;
  const denied = fault.category === 'PermissionDenied' || fault.hresult === '0x80070005';
  return denied ? 'ERR_ACCESS_DENIED' : 'ERR_HOST_FAILED';
}

/** The fault behind an error, if the host made it. */
export function faultOf(error: unknown): Fault | undefined {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof HostFault ? cause.fault : undefined;
}
