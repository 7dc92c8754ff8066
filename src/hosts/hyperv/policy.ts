/** What the methods of capturing share: a policy's word, and errors of any kind as outcomes. */

import { type Consistency, meetsConsistency } from '../../consistency.js';
import { type FirnError, firnError, isFirnError } from '../../errors.js';
import type { CaptureRequest } from '../host.js';

/** The error for a promise that is less than the policy requires, or nothing. */
export function ensureAllowed(
  { vm, policy }: CaptureRequest,
  reached: Consistency,
  reason: string | undefined,
): FirnError | undefined {
  if (meetsConsistency(reached, policy.required)) return undefined;
  const why = reason ? `: ${reason}` : '';
  const message = `${vm.name} reaches ${reached} consistency, and ${policy.required} is required${why}`;
  return firnError('ERR_CONSISTENCY', message);
}

/** Anything thrown as a FirnError; what is none is a defect of ours. */
export function asFirnError(error: unknown): FirnError {
  if (isFirnError(error)) return error;
  const message = error instanceof Error ? error.message : String(error);
  return firnError('ERR_INTERNAL', message, { cause: error });
}
