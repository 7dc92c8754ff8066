/** The times that the work on a Hyper-V host keeps. Values for a real one; tests bring shorter ones. */

import { VSS_RETRY_DELAYS_MS } from './vss-codes.js';

export interface HypervTuning {
  /** How often the host looks at a job of its own. */
  jobPollMs: number;
  /** How often Firn asks whether a merge is done. */
  mergePollMs: number;
  /** What a host may take to show that it began what nobody saw it answer. */
  answerMs: number;
  /** How long after a refused end of a checkpoint it is asked for again. */
  endRetryMs: number;
  /** What a checkpoint may take besides the guest's freeze: its job waits for others, and for storage. */
  checkpointMarginMs: number;
  /** What a VSS set may take besides the freeze. On cluster volumes the service alone takes minutes. */
  setMarginMs: number;
  vssRetryDelaysMs: readonly number[];
}

export const HYPERV_TUNING: HypervTuning = {
  jobPollMs: 250,
  mergePollMs: 2000,
  answerMs: 5000,
  endRetryMs: 30_000,
  checkpointMarginMs: 120_000,
  setMarginMs: 480_000,
  vssRetryDelaysMs: VSS_RETRY_DELAYS_MS,
};
