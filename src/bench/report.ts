/**
 * What a benchmark gives: one JSON document, from which text, CSV and HTML are made and which `firn bench compare` reads again. Fields are only
 * ever added. Rates are bytes a second, times seconds, sizes bytes, shares 0 to 1.
 */

import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { firnError, fromFileSystem } from '../errors.js';
import type { Environment } from './environment.js';
import type { LatencySummary } from './latency.js';
import type { Summary } from './statistics.js';

export const REPORT_FORMAT = 1;

export const SUITES = ['read', 'write', 'kernels', 'copy', 'backup', 'scale', 'host'] as const;
export type Suite = (typeof SUITES)[number];

export interface Measurement {
  /** The same in every run with the same settings: 'read/map/direct/1M/32'. */
  id: string;
  suite: Suite;
  /** What was done, for people: 'map order, direct, 1 MiB x 32'. */
  label: string;
  parameters: Record<string, string | number | boolean>;
  /** Bytes a second of each round, in order. */
  rounds: number[];
  summary: Summary;
  cpuSecondsPerGib?: number;
  latency?: LatencySummary;
  /** Of the last round. */
  timeline?: Timeline;
  /** Input / output, of what compresses. */
  ratio?: number;
}

export interface Timeline {
  sliceSeconds: number;
  bytesPerSecond: number[];
}

/** A stage of a backup alone, as disk bytes a second that it could do, and how busy it was in the whole. */
export interface StageCeiling {
  name: 'read' | 'compute' | 'write';
  bytesPerSecond: number;
  /** What it is made of: { scan, hash, compress } for compute. */
  parts?: Record<string, number>;
  note: string;
}

export interface PipelineReport {
  /** Slowest first. */
  ceilings: StageCeiling[];
  /** All together. */
  bytesPerSecond: number;
  /** bytesPerSecond / the slowest ceiling. */
  share: number;
  /** The limit if the engine waited for that, the slowest ceiling where the whole comes near it, else what the engine's own meters name. */
  bottleneck: StageCeiling['name'] | 'limit';
  /** False if the ceilings alone do not explain the rate: share is low. */
  explained: boolean;
  /** Reading, scanning and hashing with nothing stored: what looking through unchanged data takes. */
  lookBytesPerSecond: number;
  /** How much faster everything could get until the next stage holds it back. */
  nextAt?: { name: StageCeiling['name']; factor: number };
  /** Shares of time of the engine's own meters, in the run of all together. */
  stages: Record<string, number>;
  storedShare: number; // stored / read
  newShare: number; // new / read
}

export interface PeerRatio {
  name: string;
  version: string;
  work: string;
  /** Firn's rate / the peer's, by round; undefined if the peer failed. */
  summary?: Summary;
  failure?: string;
}

/** The last page of `firn bench host`. */
export interface HostPage {
  figures: { name: string; bytesPerSecond: number; note: string }[];
  bottleneck: string;
  changeFirst: string;
  window: {
    sizeBytes: number;
    churn: number;
    fullSeconds: number;
    trackedSeconds: number; // changed blocks known
    untrackedSeconds: number; // everything read and hashed
  };
}

export interface BenchReport {
  format: typeof REPORT_FORMAT;
  suite: Suite;
  created: string;
  elapsedSeconds: number;
  environment: Environment;
  settings: Record<string, unknown>;
  measurements: Measurement[];
  pipeline?: PipelineReport;
  peers?: PeerRatio[];
  host?: HostPage;
  /** Sentences: what follows from the figures. */
  findings: string[];
  /** Lines to paste into a command or a job file. */
  paste: string[];
  warnings: string[];
}

const storedSchema = z.looseObject({
  format: z.literal(REPORT_FORMAT),
  suite: z.enum(SUITES),
  created: z.string(),
  environment: z.looseObject({ cpu: z.string(), os: z.string(), firn: z.string() }),
  measurements: z.array(
    z.looseObject({
      id: z.string().max(1000),
      label: z.string().max(1000),
      rounds: z.array(z.number().positive()).min(1).max(100_000),
    }),
  ),
});

/** What a comparison needs of a report. */
export interface StoredReport {
  environment: Pick<Environment, 'cpu' | 'os' | 'firn'>;
  measurements: Pick<Measurement, 'id' | 'label' | 'rounds'>[];
}

/** Reads a report that `--json` or `--save` has written. ERR_INVALID_ARGUMENT if it is none. */
export async function readReport(file: string): Promise<StoredReport> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw fromFileSystem(error, 'read', 'ERR_READ');
  });
  const invalid = (why: string) =>
    firnError('ERR_INVALID_ARGUMENT', `${file} is no report of firn bench: ${why}`, { path: file });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid((error as Error).message);
  }
  const parsed = storedSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(`${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'wrong'}`);
}
