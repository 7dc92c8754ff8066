/**
 * What a lab is asked for and what it tells: the words that its management, its host and the command line share.
 */

import type { Consistency } from '../../consistency.js';
import type { FirnError } from '../../errors.js';

/** What a guest's agent can bring to rest: programs too, file systems alone, or nothing because there is no agent. */
export type GuestVss = 'application' | 'filesystem' | 'none';

/** One machine to make. */
export interface LabVmSpec {
  /** Any text but an empty one; the folder's name is derived from it. */
  name: string;
  /** How many disks: 1 to 8; 1 when not given. From two on the guest keeps a counter across them. */
  disks?: number | undefined;
  /** Virtual size of each disk; 1 GiB when not given. */
  sizeBytes?: number | undefined;
  /** How much of each disk is filled with checksummed records; 96 MiB when not given. */
  dataBytes?: number | undefined;
  /** Records of 64 KiB that a running guest rewrites in a second, over all disks; 16 when not given. */
  writesPerSecond?: number | undefined;
  /** How much of a record is easy to compress, 0 to 1; 0.5 when not given. */
  compressible?: number | undefined;
  /** 'application' when not given. */
  vss?: GuestVss | undefined;
  /** How long the guest takes to come to rest; 20 ms when not given. */
  freezeMs?: number | undefined;
  /** Block size of the base disks: a power of two from 1 to 256 MiB; 32 MiB when not given. */
  blockBytes?: number | undefined;
  /** 512 or 4096; 512 when not given. */
  sectorBytes?: number | undefined;
}

export interface LabSpec {
  vms: readonly LabVmSpec[];
  /** The volume's size as the lab tells it; the real file system's when not given. */
  volumeBytes?: number | undefined;
}

/** Everything that can be made to go wrong, by name. */
export const FAULT_NAMES = [
  'freeze-hangs',
  'freeze-refuses',
  'freeze-slow',
  'checkpoint-fails',
  'merge-fails',
  'merge-stalls',
  'volume-full',
  'host-dies',
  'firn-dies',
] as const;
export type FaultName = (typeof FAULT_NAMES)[number];

/** What each fault does, in a line, for the command line's help. */
export const FAULT_HELP: Readonly<Record<FaultName, string>> = {
  'freeze-hangs': 'the guest never answers a freeze',
  'freeze-refuses': 'the guest refuses a freeze at once',
  'freeze-slow': 'the guest takes --ms longer to freeze',
  'checkpoint-fails': 'a checkpoint fails after its first new layer',
  'merge-fails': 'a merge fails half-way',
  'merge-stalls': 'a merge makes no headway until the fault is cleared',
  'volume-full':
    'the volume has no room: layers cannot grow, and the guest stops at its next new block',
  'host-dies': "at the --step'th journal entry from now all machines of the lab die, and Firn too",
  'firn-dies': "at the --step'th journal entry from now Firn dies",
};

/** A fault that is switched on. */
export interface LabFault {
  name: FaultName;
  /** The machine, by name or id; absent: all machines of the lab. */
  vm?: string | undefined;
  /** It goes off once, and is then switched off. Otherwise it stays until it is cleared. */
  once?: boolean | undefined;
  /** freeze-slow: how much longer; 1000 when not given. */
  ms?: number | undefined;
  /** host-dies and firn-dies: at which journal entry, counted from 1; 1 when not given. */
  step?: number | undefined;
}

export interface LabDiskStatus {
  name: string;
  /** The layers' paths, the one that takes the writes first. */
  layers: string[];
  sizeBytes: number;
  fileBytes: number;
}

export interface LabVmStatus {
  id: string;
  name: string;
  /** The machine's folder. */
  folder: string;
  /** 'critical': it runs, but its disk cannot grow or its process does not answer. 'off' with `unclean`: its process died. */
  state: 'running' | 'off' | 'critical';
  unclean: boolean;
  vss: GuestVss;
  /** The process that plays it; absent when it is off or does not answer. */
  pid?: number;
  /** How many transactions the guest has committed; it grows while the guest makes headway. Absent when off. */
  generation?: number;
  /** The guest stands frozen now. */
  frozen?: { level: Consistency; mark?: string };
  /** The checkpoint that is being merged now. */
  merging?: string;
  disks: LabDiskStatus[];
  checkpoints: { name: string; kind: 'recovery' | 'user' | 'reference'; created: string }[];
  faults: LabFault[];
}

export interface LabStatus {
  folder: string;
  vms: LabVmStatus[];
  /** Folders that look like machines and cannot be read. */
  problems: { folder: string; error: FirnError }[];
}

/** What became of one machine when the lab was started or stopped. */
export interface LabVmOutcome {
  name: string;
  error?: FirnError;
}

/** What a copy of a guest's disks is worth. */
export interface GuestVerdict {
  /** A log must be replayed before the file system can be used: as after a power cut. */
  recoveryNeeded: boolean;
  /** No transaction of the application was open. */
  applicationClean: boolean;
  /** After that replay everything adds up: balances, tables, records, and the counter across disks. */
  invariantHolds: boolean;
  /** The guest's last committed transaction in this copy. */
  generation: number;
  /** Records that were read and checked. */
  records: number;
  /** Disks of the guest that were not given; what spans them could not be checked. */
  missingDisks: number;
  /** What does not hold; the first 50. */
  problems: string[];
}
