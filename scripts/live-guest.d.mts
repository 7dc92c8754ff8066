/** Types of live-guest.mjs, for the tests that use it. */

export const CANNOT_RUN_HERE: number;
export class CannotRunHere extends Error {}

export interface LiveGuest {
  pid: number;
  /** What the guest has written to its console so far. */
  serial(): string;
  isRunning(): boolean;
  kill(): Promise<void>;
  command(line: string): Promise<void>;
  count(): number;
  stop(): Promise<void>;
}

export function ensureLiveGuest(): { kernel: string; initrd: string };
export function makeGuestDisks(
  folder: string,
  sizes?: { systemMib?: number; dataMib?: number },
): string[];
export function startGuest(options: {
  folder: string;
  disks: readonly string[];
  agent?: boolean;
}): Promise<LiveGuest>;
