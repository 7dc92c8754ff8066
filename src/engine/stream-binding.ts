/** What the native surface takes and gives for streams of points; NativeBinding has the functions. Units as in binding.ts. */

import type { NativeRepository, NativeStats, NativeTuning } from './binding.js';

/** A stream being written, and how far it is: made by newSendStream, gone with its last reference. */
export interface NativeSendStream {
  readonly kind: 'send';
}
/** A stream being read; the same. */
export interface NativeReceiveStream {
  readonly kind: 'receive';
}
/** What another repository has, as startReadHave has read it. */
export interface NativeHave {
  readonly kind: 'have';
}
/** Maps that were found whole, so that they need not be walked again. */
export interface NativeWholeMaps {
  readonly kind: 'whole';
}

export interface NativeSendPoint {
  json: string;
  roots: string[];
}

export interface NativeSendOptions {
  repository: NativeRepository;
  tuning: NativeTuning;
  stream: NativeSendStream;
  target?: NativeRepository; // what it has is not sent; of the same keys
  have?: NativeHave; // the same, of a list
  haveRoots: string[]; // maps that the other side has whole
  totalBytes: number; // as far as known
}

/** Records, with the bytes of their headers and stored contents. */
export interface NativeStreamCounts {
  records: number;
  bytes: number;
}

export interface NativeSendResult {
  sent: NativeStreamCounts; // by this stream so far; without a descriptor what it would send
  skipped: NativeStreamCounts; // because the target or the list has them
  streamBytes: number;
  stats: NativeStats;
}

export interface NativeOpenedStream {
  header: Uint8Array; // JSON, as it was sent
  points: Uint8Array[];
  stream: NativeReceiveStream;
  stats: NativeStats;
}

export interface NativeReceiveOptions {
  repository: NativeRepository;
  tuning: NativeTuning;
  stream: NativeReceiveStream;
  run: string; // never used before
  adopt: boolean; // gives an index run to packs that have none
  totalBytes: number;
}

export interface NativeReceiveResult {
  packs: string[]; // written
  indexRuns: string[];
  received: NativeStreamCounts;
  stored: NativeStreamCounts; // of these: what the repository did not have
  adoptedPacks: number;
  streamBytes: number; // read so far
  ended: boolean; // the stream's end was read
  stats: NativeStats;
}
