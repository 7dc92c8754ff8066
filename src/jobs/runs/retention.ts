/**
 * Retention after a run: each machine that got a new point loses those that the policy does not keep.
 *
 * Only such a machine: one whose backups fail keeps all that it has, however long that lasts. The new point always stays, also where the
 * policy says nothing of it or a clock that was wrong made others look newer. Nothing that goes wrong here takes a point back: it is a
 * warning, and stands in the machine's result.
 */

import type { Repository } from '../../repository/repository.js';
import { asFirnError } from './steps.js';
import type { VmBackupOptions, VmResult } from './types.js';

/** Puts `retention` or `retentionError` into the results; returns what there is to warn of. Does not reject. */
export async function applyRetention(
  repository: Repository,
  results: readonly VmResult[],
  { retention: policy, signal, onEvent }: VmBackupOptions,
): Promise<string[]> {
  if (policy === undefined) return [];
  const warnings = new Set<string>();
  const warn = (vm: VmResult['vm'] | undefined, message: string) => {
    const text = vm === undefined ? message : `${vm.name}: ${message}`;
    // What cannot be read is met again with every machine.
    if (warnings.has(text)) return;
    warnings.add(text);
    onEvent?.({ type: 'warning', vm, message });
  };
  for (const result of results) {
    const { vm, point } = result;
    if (point === undefined) continue;
    try {
      // Its parsers take long to load, and most runs by hand have no policy.
      const { forget } = await import('../forget.js');
      const options = { policy, vms: [vm.id], keep: [point.id], signal };
      result.retention = await forget(repository, options);
      for (const { point: id, error } of result.retention.damaged) {
        warn(undefined, `point ${id} is left alone: ${error.message}`);
      }
    } catch (failure) {
      result.retentionError = asFirnError(failure);
      warn(vm, `retention failed: ${result.retentionError.message}`);
    }
  }
  return [...warnings];
}
