/**
 * What a copy of a running machine's disks is worth, by what the guest had promised when they froze. One scale for hosts, jobs and the
 * repository.
 */

/**
 * `application`: programs had brought their files to rest; `filesystem`: the file systems had, so no journal needs replay; `crash`:
 * nothing was promised, the disks are as after a power cut.
 */
export type Consistency = 'application' | 'filesystem' | 'crash';

/** From the best to the least. */
export const CONSISTENCIES = [
  'application',
  'filesystem',
  'crash',
] as const satisfies readonly Consistency[];

/** True if `reached` promises all that `required` does. */
export function meetsConsistency(reached: Consistency, required: Consistency): boolean {
  return CONSISTENCIES.indexOf(reached) <= CONSISTENCIES.indexOf(required);
}

/** The lesser of two promises. */
export function leastConsistency(first: Consistency, second: Consistency): Consistency {
  return meetsConsistency(first, second) ? second : first;
}
