/**
 * The whole native surface on one page, as native/addon offers it.
 *
 * Options are plain data, complete and validated: defaults live in src/engine/options.ts and nowhere else; the native side asserts.
 * Failures reject with an Error that carries NativeFailure's fields; src/engine/ turns them into FirnError with the caller's stack.
 * Sizes and offsets are bytes as numbers (below 2^53: 8 PiB); ids, keys and guids are lower-case hexadecimal text.
 */

import type { NativeBenchBinding } from './bench-binding.js';
import type {
  NativeHave,
  NativeOpenedStream,
  NativeReceiveOptions,
  NativeReceiveResult,
  NativeSendOptions,
  NativeSendPoint,
  NativeSendResult,
  NativeSendStream,
  NativeWholeMaps,
} from './stream-binding.js';

export interface NativeFailure {
  code: string; // 'ERR_DISK_FULL', ...: native/core/status.h
  message: string;
  op?: string;
  path?: string;
  offset?: number;
  osCode?: number;
  retryable: boolean;
  dataLoss: boolean;
}

export type DiskFormat = 'raw' | 'vhd' | 'vhdx';
export type DiskKind = 'fixed' | 'dynamic' | 'differencing';
export type IoMode = 'auto' | 'direct' | 'buffered';

export interface DiskIdentity {
  format: DiskFormat;
  kind: DiskKind;
  sizeBytes: number;
  blockBytes: number;
  logicalSectorBytes: number;
  physicalSectorBytes: number;
  diskId: string; // GUID text
}

export interface NativeOpenDisk {
  parentFolders: string[];
  parents: string[];
  format: DiskFormat | '';
}

/** What the driver says of a disk's change tracking. */
export interface NativeTracking {
  enabled: boolean;
  /** Whether the disk was written to since `mostRecentId` was given out. */
  newerChanges: boolean;
  /** '' if there is none. */
  mostRecentId: string;
}

export interface NativeFinding {
  severity: 'info' | 'warning' | 'error';
  code: string;
  message: string;
  offset?: number;
}

export interface NativeLayer {
  path: string;
  identity: DiskIdentity;
  fileBytes: number;
  creator: string;
  dataWriteGuid: string;
  parentLinkage: string;
  parentLocator: [key: string, value: string][];
  log: {
    state: 'none' | 'clean' | 'replayed';
    entries: number;
    pages: number;
    offset: number;
    lengthBytes: number;
  };
  blocks: { total: number; full: number; partial: number; zero: number };
  findings: NativeFinding[];
}

export interface NativeInspection {
  layers: NativeLayer[];
  error?: NativeFailure;
}

/** Random access to a disk's content: a file on this host, or a stored map. */
export interface NativeDisk {
  readonly identity: DiskIdentity;
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): void;
}

export interface NativeChunking {
  scheme: 'content' | 'fixed';
  minPages: number;
  averagePages: number;
  maxPages: number;
}

/** What every native job needs of a repository. Lists are of this moment: the control plane makes them in the protocol's order. */
export interface NativeRepository {
  root: string; // the folder
  idKey: string; // 64 hex digits
  chunking: NativeChunking;
  indexRuns: string[]; // file names in index/
  packs: string[]; // 'RUN/ATTEMPT-SEQ', listed
  condemned: string[]; // the same form: never relied on for deduplication
  damaged: NativeDamage[]; // copies that a scrub found damaged: never relied on, and read last
  seal?: NativeSeal; // of a sealed repository
}

/** What records are sealed and opened with: native/codec/seal_keys.h. Keys are 32 bytes; the native side copies and wipes them. */
export interface NativeSeal {
  runKey?: Uint8Array; // not of a write-only key
  runs: { run: string; key: Uint8Array; publicTail: Uint8Array }[]; // of write-only keys
  locked: boolean; // no key: stored bytes can be checked, content cannot be read
}

/** Damage in a pack: these records of it, or without `records` all. */
export interface NativeDamage {
  pack: string;
  records?: string[]; // ids; none: the pack is damaged where no record is
}

export interface NativeTuning {
  workers: number;
  memoryBytes: number; // what the job may take, all buffers and tables together
  io: IoMode;
  backend: 'auto' | 'uring' | 'threads';
  bytesPerSecond: number; // what all workers together read at most, of disks and packs; 0: no cap
}

export type Codec = 'raw' | 'lz4' | 'zstd';

/**
 * What an incremental backup of a disk starts from: the map of an earlier point, and every byte that differs from it (written, zeroed or
 * unmapped since; more is only slower). Ranges may overlap, come in any order and reach beyond the disk's end; what a resize changes need
 * not be among them. The root is the one that a full backup would give.
 */
export interface NativeBackupBase {
  root: string;
  /** That point left unused blocks out (its disk has `unused`): its holes then say nothing of what the disk held. */
  skipsUnused: boolean;
  ranges: [offset: number, length: number][];
}

/** What the newest layers of a chain hold themselves, whatever it is: every byte that may differ from the layer below them. */
export interface NativeLayerChanges {
  identity: DiskIdentity; // of the whole chain
  ranges: [offset: number, length: number][]; // in order, not touching; near ones are joined where there are very many
}

/** Whose word is believed about which blocks are unused: native/used/used.h. */
export interface NativeUnusedOptions {
  quiesced: boolean; // the guest froze its file systems for these very disks
  keepShadowCopies: boolean;
  skipPageFiles: boolean;
}

/** What became of a partition, or of a whole disk without a partition table. */
export interface NativeUnusedPartition {
  offset: number;
  sizeBytes: number;
  type: string; // 'mbr 07', a GPT type id, '' without a table
  fileSystem: string; // 'ntfs', 'ext2', 'ext3', 'ext4', 'swap', else ''
  usedBytes: number; // as the file system counts; 0 where it is not believed
  skippedBytes: number;
  pageFileBytes: number; // of page, swap and hibernation files, all left out
  reasonCode?: string; // why it is copied whole: 'dirty', 'hibernated', ...: native/used/used.h
  reason?: string; // the same for people
}

/** Which blocks of a disk are left out, as no file system uses them. */
export interface NativeUnused {
  rules: number; // of another number another engine might choose other blocks
  table: 'gpt' | 'mbr' | 'none' | '';
  skippedBytes: number;
  droppedBytes: number; // could have been skipped, but lie in too many pieces
  readBytes: number; // what finding out cost
  reasonCode?: string; // why nothing is known of the partitions
  reason?: string;
  partitions: NativeUnusedPartition[]; // by offset
}

export interface NativeFindUnused {
  tuning: NativeTuning;
  disks: { path: string; open: NativeOpenDisk; unused: NativeUnusedOptions }[]; // of one machine
}

export interface NativeBackup {
  repository: NativeRepository;
  tuning: NativeTuning;
  disks: {
    path: string;
    open: NativeOpenDisk;
    base?: NativeBackupBase;
    unused?: NativeUnusedOptions; // unused blocks are left out: they are zeros in the point
  }[]; // of one machine: none of them is skipped from if one holds the image of a hibernated system
  run: string; // 32 hex digits
  attempt: number;
  codec: Codec;
  level: number; // zstd level, LZ4 acceleration
  store: boolean; // false: only the roots are computed, nothing is looked up or written
}

export interface NativeBackupResult {
  disks: {
    root: string;
    identity: DiskIdentity;
    dataBytes: number;
    changedBytes?: number; // with a base that was used: what was said to have changed, in whole pages
    baseRefused?: string; // why the base, or a part of it, was not used and the disk read instead
    unused?: NativeUnused; // where unused blocks were to be left out
  }[];
  packs: string[]; // written, in order of completion
  indexRuns: string[]; // written, file names in index/
  reliedPacks: string[]; // packs of earlier runs that the point needs, those of unchanged segments included
  stats: NativeStats;
}

export interface NativeRestoreDisk {
  root: string;
  path: string; // the image to make
  identity: DiskIdentity;
}

export interface NativeRestore {
  repository: NativeRepository;
  tuning: NativeTuning;
  disks: NativeRestoreDisk[];
  overwrite: boolean;
}

export interface NativeCopy {
  tuning: NativeTuning;
  source: { path: string; open: NativeOpenDisk };
  target: { path: string; identity: DiskIdentity; parentPath: string };
  overwrite: boolean;
}

export interface NativeVerify {
  repository: NativeRepository;
  tuning: NativeTuning;
  roots: string[]; // maps to walk: each object read, each chunk looked up
  readData: boolean; // read every pack of the repository, check every byte
}

/** A defect that verify found; it goes on after each. */
export interface NativeProblem extends NativeFailure {
  object?: string; // 'packs/RUN/0000-00000001.pack', 'index/...'
  id?: string;
  roots?: string[]; // the maps that need it
  pack?: string; // the pack whose copy of the record, or which, is not what it should be
}

export interface NativeVerifyResult {
  problems: NativeProblem[]; // the first 1000
  problemCount: number;
  chunks: number; // references looked up, in leaves that differ
  packs: number; // packs read
  healed: number; // damaged copies that `damaged` names, of records of which another copy was read and is whole
  stats: NativeStats;
}

export interface NativeScrub {
  repository: NativeRepository;
  tuning: NativeTuning;
  chosen: string[]; // packs to read, in this order
  stopAfterMs: number; // then no pack is begun; 0: when all are read
}

export interface NativeScrubbedPack {
  name: string;
  bytes: number;
  gone: boolean; // deleted meanwhile: not checked
  sound: boolean; // nothing was found in it, and no index run misleads about it
  whole: boolean; // no record of it is to be believed
  damaged: string[]; // otherwise the ids of those that are not
}

/** Cancelled or out of time, it resolves with what was done by then. */
export interface NativeScrubResult {
  packs: NativeScrubbedPack[];
  problems: NativeProblem[]; // the first 1000, twice seen
  problemCount: number;
  stats: NativeStats;
}

export interface NativeTrace {
  repository: NativeRepository;
  tuning: NativeTuning;
  roots: string[];
  ids: string[];
}

/** What each record's loss costs: of disks, the bytes and the first 16 ranges of them. */
export interface NativeTraceResult {
  records: {
    id: string;
    readable: boolean; // some copy is whole: then there are no losses
    losses: {
      root: string;
      bytes: number;
      rangeCount: number;
      ranges: [offset: number, length: number][];
    }[];
  }[];
  stats: NativeStats;
}

export interface NativeRepairIndex {
  repository: NativeRepository; // indexRuns is ignored
  tuning: NativeTuning;
  run: string;
  attempt: number;
}

export interface NativeRepairResult {
  indexRuns: string[];
  packs: number;
  chunks: number;
  problems: NativeProblem[];
  stats: NativeStats;
}

/** What a mark has found out, kept by the engine until releaseMark or the garbage collector. */
export type NativeMark = object;

export interface NativeMarkOptions {
  repository: NativeRepository; // condemned: by others than this collection
  tuning: NativeTuning;
  roots: string[]; // of sealed points: must be whole
  pendingRoots: string[];
  victims: string[]; // packs that this collection has condemned
  onlyVictims: boolean; // of the packs that no index run names, only victims are read
}

/** What a listed pack holds; bytes of records with their headers. */
export interface NativeMarkedPack {
  name: string;
  named: boolean; // by an index run
  known: boolean; // its records are known, from the index or from its own table
  map: boolean; // holds map objects
  needed: boolean; // has a live record of which no pack that is named and not condemned or a victim has a whole copy
  damaged: boolean; // a scrub has found damage in it
  unhealed: boolean; // has a live record all copies of which are damaged
  fileBytes: number; // 0 if not known
  records: number;
  recordBytes: number;
  liveBytes: number;
  ownedBytes: number; // of each live record one copy counts: duplicates are waste
}

export interface NativeMarkResult {
  packs: NativeMarkedPack[];
  indexRuns: { name: string; entries: number; packs: string[] }[];
  missing: number; // map objects of pending points that were not found
  missingChunks: number; // chunks of pending points that were not found
  mark: NativeMark;
  stats: NativeStats;
}

export interface NativeRescueOptions {
  repository: NativeRepository;
  tuning: NativeTuning;
  mark: NativeMark;
  victims: string[];
  run: string;
  attempt: number;
}

export interface NativeRescueResult {
  packs: string[]; // written
  indexRuns: string[];
  records: number; // copied
  bytes: number;
  damaged: { pack: string; code: string; message: string }[]; // victims that could not be read in full
  stats: NativeStats;
}

export interface NativeMergeOptions {
  repository: NativeRepository; // only its folder
  tuning: NativeTuning;
  mark: NativeMark;
  indexRuns: string[]; // those to make anew
  dropped: string[]; // packs that are gone
  run: string;
  attempt: number;
}

/** A snapshot of a running job's counters; cheap at any moment. Shares are 0..1 of the wall time so far. */
export interface NativeStats {
  phase: 'open' | 'search' | 'copy' | 'finish' | 'done'; // search: for unused blocks
  elapsedSeconds: number;
  totalBytes: number; // allocated bytes to process, as far as known
  doneBytes: number;
  readBytes: number;
  zeroBytes: number; // read, and found to be zero
  newBytes: number; // content of chunks not seen before
  storedBytes: number; // the same, as stored, with record headers
  writtenBytes: number;
  chunks: number;
  newChunks: number;
  workers: number;
  backend: string;
  memoryBytes: number; // buffers and tables taken
  stages: {
    source: number; // share of time in which reads were in flight
    scan: number; // shares of all workers' time
    hash: number;
    compress: number;
    target: number; // share of time in which writes were in flight
    starved: number; // workers waiting for the source
    blocked: number; // workers waiting for the target
    limited: number; // workers waiting for their turn under bytesPerSecond
  };
  bottleneck: 'source' | 'scan' | 'hash' | 'compress' | 'target' | 'limit' | 'none';
}

export interface NativeSession<Result> {
  readonly done: Promise<Result>;
  stats(): NativeStats;
  cancel(): void;
}

export interface NativeIndexInfo {
  entries: number;
  packs: {
    name: string;
    fileBytes: number;
    entries: number;
    storedBytes: number;
    rawBytes: number;
  }[];
}

export interface NativeBinding extends NativeBenchBinding {
  version(): string;
  cpu(): { cores: number; features: string[]; uring: boolean };
  /** H_key(data), or H(data) when key is null. */
  blake3(key: Uint8Array | null, data: Uint8Array): Uint8Array;
  inspectDisk(path: string, options: NativeOpenDisk): Promise<NativeInspection>;
  openDisk(path: string, options: NativeOpenDisk): Promise<NativeDisk>;
  createDisk(
    path: string,
    identity: DiskIdentity,
    parentPath: string,
    overwrite: boolean,
  ): Promise<void>;
  /**
   * Windows' own driver for virtual disks; ERR_UNSUPPORTED elsewhere. A disk is attached without a drive or a path for as long as it is
   * open, and no layer of it can be merged then.
   */
  openDriverDisk(path: string): Promise<NativeDisk>;
  driverTracking(path: string): Promise<NativeTracking>;
  /** What may have changed since the driver gave out the id; ERR_SOURCE_CHANGED when it cannot tell. */
  driverChanges(path: string, trackingId: string): Promise<NativeLayerChanges>;
  /**
   * Of the chain at `path`, what its first `layers` layers hold. The layer below them must have the linkage id `baseLinkage`, and each
   * layer must name the next one: ERR_PARENT_MISMATCH.
   */
  layerChanges(
    path: string,
    options: NativeOpenDisk,
    layers: number,
    baseLinkage: string,
  ): Promise<NativeLayerChanges>;
  openMap(repository: NativeRepository, root: string): Promise<NativeDisk>;
  indexInfo(repository: NativeRepository): Promise<NativeIndexInfo>;
  startBackup(options: NativeBackup): NativeSession<NativeBackupResult>;
  /** What a backup would leave out. */
  startFindUnused(options: NativeFindUnused): NativeSession<{ disks: NativeUnused[] }>;
  startRestore(options: NativeRestore): NativeSession<{ stats: NativeStats }>;
  startCopy(options: NativeCopy): NativeSession<{ stats: NativeStats }>;
  startVerify(options: NativeVerify): NativeSession<NativeVerifyResult>;
  startRepairIndex(options: NativeRepairIndex): NativeSession<NativeRepairResult>;
  /** The steps of a collection: what is live, copying it out of victims, index runs made anew. */
  startMark(options: NativeMarkOptions): NativeSession<NativeMarkResult>;
  startRescue(options: NativeRescueOptions): NativeSession<NativeRescueResult>;
  startMergeIndex(
    options: NativeMergeOptions,
  ): NativeSession<{ indexRuns: string[]; stats: NativeStats }>;
  releaseMark(mark: NativeMark): void;
  /** A stream to a descriptor that the caller keeps open, or without one to nowhere, to be counted. 0 bytes a second: no limit. */
  newSendStream(options: {
    fd?: number;
    bytesPerSecond: number;
    header: string;
    points: NativeSendPoint[];
  }): NativeSendStream;
  /** Writes a stream, or goes on where the last one has failed for a pack or a chunk that was missing. */
  startSend(options: NativeSendOptions): NativeSession<NativeSendResult>;
  /** Reads a stream's beginning. */
  startOpenStream(options: { fd: number; tuning: NativeTuning }): NativeSession<NativeOpenedStream>;
  /** Reads and stores what one point adds, or after the last one the stream's end. */
  startReceive(options: NativeReceiveOptions): NativeSession<NativeReceiveResult>;
  newWholeMaps(): NativeWholeMaps;
  /** Whether all is there that these maps need, and in which packs. ERR_CHUNK_MISSING, ERR_CORRUPT_OBJECT. */
  startCheckWhole(options: {
    repository: NativeRepository;
    tuning: NativeTuning;
    maps: { root: string; sizeBytes: number }[];
    known: NativeWholeMaps;
  }): NativeSession<{ packs: string[]; stats: NativeStats }>;
  startWriteHave(options: {
    repository: NativeRepository;
    tuning: NativeTuning;
    fd: number;
    header: string;
    records: boolean;
  }): NativeSession<{ records: number; stats: NativeStats }>;
  startReadHave(options: {
    fd: number;
    tuning: NativeTuning;
  }): NativeSession<{ header: Uint8Array; records: number; have: NativeHave; stats: NativeStats }>;
  /** A pipe: the descriptors of its reading and its writing end, which the caller closes. */
  newPipe(): [read: number, write: number];
  /** From now on the process leaves no core file when it crashes; false where that cannot be had. For programs, not for libraries. */
  forbidCoreFiles(): boolean;
  /** The steps of a scrub: reading packs, and what the points lose with records that no copy gives. */
  startScrub(options: NativeScrub): NativeSession<NativeScrubResult>;
  startTrace(options: NativeTrace): NativeSession<NativeTraceResult>;
}
