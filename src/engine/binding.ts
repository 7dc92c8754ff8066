/**
 * The whole native surface on one page, as native/addon offers it.
 *
 * Options are plain data, complete and validated: defaults live in src/engine/options.ts and nowhere else; the native side asserts.
 * Failures reject with an Error that carries NativeFailure's fields; src/engine/ turns them into FirnError with the caller's stack.
 * Sizes and offsets are bytes as numbers (below 2^53: 8 PiB); ids, keys and guids are lower-case hexadecimal text.
 */

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
}

export interface NativeTuning {
  workers: number;
  memoryBytes: number; // what the job may take, all buffers and tables together
  io: IoMode;
  backend: 'auto' | 'uring' | 'threads';
}

export type Codec = 'raw' | 'lz4' | 'zstd';

/**
 * What an incremental backup of a disk starts from: the map of an earlier point, and every byte that differs from it (written, zeroed or
 * unmapped since; more is only slower). Ranges may overlap, come in any order and reach beyond the disk's end; what a resize changes need
 * not be among them. The root is the one that a full backup would give.
 */
export interface NativeBackupBase {
  root: string;
  ranges: [offset: number, length: number][];
}

export interface NativeBackup {
  repository: NativeRepository;
  tuning: NativeTuning;
  disks: { path: string; open: NativeOpenDisk; base?: NativeBackupBase }[];
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
}

export interface NativeVerifyResult {
  problems: NativeProblem[]; // the first 1000
  problemCount: number;
  chunks: number; // references looked up, in leaves that differ
  packs: number; // packs read
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
  needed: boolean; // has a live record of which no pack that is named and not condemned or a victim has a copy
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
  phase: 'open' | 'copy' | 'finish' | 'done';
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
  };
  bottleneck: 'source' | 'scan' | 'hash' | 'compress' | 'target' | 'none';
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

export interface NativeBinding {
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
  openMap(repository: NativeRepository, root: string): Promise<NativeDisk>;
  indexInfo(repository: NativeRepository): Promise<NativeIndexInfo>;
  startBackup(options: NativeBackup): NativeSession<NativeBackupResult>;
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
}
