/**
 * What VSS says when a set of shadow copies cannot be made, and what to do about each, in one place.
 *
 * `retry`: the same set again after a pause. `bisect`: one machine spoils the set for all ("partial backups are not supported"), so it is
 * halved until that one stands alone; with a single machine its guest's VSS is not to be had. `report`: trying again changes nothing.
 * Sources: the VSS error codes of vss.h and vswriter.h, and Microsoft's pages on the Hyper-V writer.
 */

export type VssAction = 'retry' | 'bisect' | 'report';

export interface VssCode {
  name: string;
  action: VssAction;
  /** How often the same set is tried again before it is halved. */
  retries: number;
  /** What it means, for people. */
  message: string;
  /** The next step. */
  hint: string;
}

const GUEST_HINT =
  'Look at the VSS writers in the guest ("vssadmin list writers") and at the free space of its volumes.';
const WRITER_HINT =
  'If it stays so, the Hyper-V writer has failed: restart the service "vmms" when it suits; machines run on.';

export const VSS_CODES: Readonly<Record<string, VssCode>> = {
  '0x800423F0': {
    name: 'VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT',
    action: 'bisect',
    retries: 0,
    message: 'the set lacks a volume that a machine needs',
    hint: 'Look for a disk, a checkpoint folder or a paging file of the machine on a volume that VSS does not support.',
  },
  '0x800423F1': {
    name: 'VSS_E_WRITERERROR_OUTOFRESOURCES',
    action: 'bisect',
    retries: 1,
    message: 'the writer ran out of resources',
    hint: 'Free memory on the host; smaller sets help too.',
  },
  '0x800423F2': {
    name: 'VSS_E_WRITERERROR_TIMEOUT',
    action: 'bisect',
    retries: 2,
    message: 'the guests did not freeze in time',
    hint: 'Run backups when the storage is less busy; smaller sets help too.',
  },
  '0x800423F3': {
    name: 'VSS_E_WRITERERROR_RETRYABLE',
    action: 'bisect',
    retries: 3,
    message: 'the writer failed in a way that may pass',
    hint: WRITER_HINT,
  },
  '0x800423F4': {
    name: 'VSS_E_WRITERERROR_NONRETRYABLE',
    action: 'bisect',
    retries: 0,
    message: 'the writer could not freeze a machine',
    hint: GUEST_HINT,
  },
  '0x800423FB': {
    name: 'VSS_E_AUTORECOVERY_FAILED',
    action: 'bisect',
    retries: 0,
    message: 'the shadow copy could not be brought to rest',
    hint: 'Look for a stale "-AutoRecovery.avhdx" beside the disks: "firn doctor" names them. Remove it when no backup runs.',
  },
  '0x80042314': {
    name: 'VSS_E_HOLD_WRITES_TIMEOUT',
    action: 'bisect',
    retries: 3,
    message: 'the volumes could not be held still for as long as it takes (10 s)',
    hint: 'Run backups when the storage is less busy; smaller sets help too.',
  },
  '0x80042316': {
    name: 'VSS_E_SNAPSHOT_SET_IN_PROGRESS',
    action: 'retry',
    retries: 10,
    message: 'another program is making shadow copies',
    hint: 'Let backups of this host begin at different times.',
  },
  '0x80042306': {
    name: 'VSS_E_PROVIDER_VETO',
    action: 'retry',
    retries: 2,
    message: "the volume's shadow copy provider refused",
    hint: 'Look into the event log of the host for what the provider says.',
  },
  '0x8004231F': {
    name: 'VSS_E_INSUFFICIENT_STORAGE',
    action: 'report',
    retries: 0,
    message: 'the volume has no room for the shadow storage',
    hint: 'Free space on the volume, or give its shadow storage more room ("vssadmin resize shadowstorage").',
  },
  '0x80042317': {
    name: 'VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED',
    action: 'report',
    retries: 0,
    message: 'the volume has as many shadow copies as it can have',
    hint: 'Remove old ones ("vssadmin list shadows").',
  },
};

/** For a code that stands in no table, or none at all. */
export const UNKNOWN_VSS_CODE: VssCode = {
  name: 'unknown',
  action: 'bisect',
  retries: 0,
  message: 'no shadow copy was made',
  hint: WRITER_HINT,
};

/** How long to wait before the first, second, ... try, in milliseconds; the last one holds for all that follow. */
export const VSS_RETRY_DELAYS_MS: readonly number[] = [60_000, 120_000, 300_000];

/** The code that says most of those that were printed: a writer's, before the service's own that follow from it. */
export function chooseVssCode(codes: readonly string[]): { code: string; entry: VssCode } {
  const known = codes.map((code) => `0x${code.slice(2).toUpperCase()}`);
  const code = known.find((candidate) => Object.hasOwn(VSS_CODES, candidate)) ?? known[0] ?? '';
  return { code, entry: VSS_CODES[code] ?? UNKNOWN_VSS_CODE };
}
