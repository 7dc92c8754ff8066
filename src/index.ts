/**
 * The public API, re-exports only.
 *
 *     import { backup, Repository, restore } from 'firn-backup';
 *
 *     const repository = await Repository.open('/backups');
 *     const { point } = await backup(repository, { disks: ['web.vhdx'] });
 *     await restore(repository, { point: 'latest:web', to: '/restored' });
 *
 * A verb is a function that takes first what it works on. Verbs that take long return a Run: a promise of the result that can be iterated
 * for progress, stopped by an AbortSignal in the options. What they reject with is a FirnError; match on its `code`.
 */

export type { Consistency } from './consistency.js';
export type {
  Codec,
  DiskFormat,
  DiskIdentity,
  DiskKind,
  IoMode,
  NativeFinding as Finding,
  NativeInspection as Inspection,
  NativeLayer as Layer,
} from './engine/binding.js';
export type {
  ChunkingOptions,
  CompressionOptions,
  OpenDiskOptions,
  TuningOptions,
  UnusedMode,
  UnusedOptions,
} from './engine/options.js';
export {
  AbortError,
  AuthError,
  ERROR_CODES,
  type ErrorCode,
  FirnError,
  HostError,
  IntegrityError,
  InternalError,
  IoError,
  isFirnError,
  LockedError,
  NotFoundError,
  PlatformError,
  UsageError,
} from './errors.js';
export type { Check, Host, Leftover, Vm, VmDisk, VmRef } from './hosts/host.js';
export { openHost } from './hosts/open.js';
export type { HostTracking, KeptReference, Reference, TrackingMode } from './hosts/tracking.js';
export {
  type BackedUpDisk,
  type BackupOptions,
  type BackupResult,
  type BackupSummary,
  backup,
  type DiskSource,
} from './jobs/backup.js';
export { type CheckPacksOptions, type CheckPacksResult, checkPacks } from './jobs/check-packs.js';
export { type CopyOptions, type CopyResult, copyDisk } from './jobs/copy.js';
export {
  type CopyPointsOptions,
  type CopyPointsResult,
  copyPoints,
} from './jobs/copy-points.js';
export {
  Disk,
  driverChanges,
  inspectDisk,
  openDisk,
  openDriverDisk,
  openPoint,
  type ReadableOptions,
} from './jobs/disk.js';
export {
  type ForgetOptions,
  type ForgetResult,
  forget,
} from './jobs/forget.js';
export { type JobFile, parseJobFile, readJobFile } from './jobs/job-file.js';
export { addKey, addRecoveryKey, removeKey, rotateKey } from './jobs/keys.js';
export { type PendingPoint, type PruneOptions, type PruneResult, prune } from './jobs/prune.js';
export {
  type ListHaveOptions,
  type ListHaveResult,
  listHave,
  type ReceiveOptions,
  type ReceiveResult,
  receive,
} from './jobs/receive.js';
export { type RepairIndexOptions, type RepairIndexResult, repairIndex } from './jobs/repair.js';
export {
  type RestoredDisk,
  type RestoreOptions,
  type RestoreResult,
  restore,
} from './jobs/restore.js';
export type { JobOptions, Progress, Run } from './jobs/run.js';
export { Journal } from './jobs/runs/journal.js';
export { reconcile } from './jobs/runs/reconcile.js';
export {
  type DiskReading,
  type ReconcileOptions,
  type ReconcileReport,
  VM_BACKUP_DEFAULTS,
  type VmBackupOptions,
  type VmBackupResult,
  type VmEvent,
  type VmResult,
} from './jobs/runs/types.js';
export { backupVms } from './jobs/runs/vm-backup.js';
export {
  type ScrubLoss,
  type ScrubOptions,
  type ScrubProblem,
  type ScrubResult,
  scrub,
} from './jobs/scrub.js';
export { type SendOptions, type SendResult, send } from './jobs/send.js';
export type { TargetFormat } from './jobs/target.js';
export { findUnused } from './jobs/unused.js';
export {
  type VerifyOptions,
  type VerifyProblem,
  type VerifyResult,
  verify,
} from './jobs/verify.js';
export type {
  PointDisk,
  PointObject as Point,
  PointPartition,
  PointUnused,
} from './repository/format/objects.js';
export {
  changeTags,
  holdPoint,
  labelledPoints,
  releasePoint,
  type TagChanges,
} from './repository/labels.js';
export { type Access, type CreateOptions, Repository } from './repository/repository.js';
export {
  type LabelledPoint,
  parseRetention,
  type RetentionPolicy,
  type Verdict,
  type VmVerdicts,
} from './repository/retention.js';
export {
  Rescue,
  type RescueOptions,
  type RescueProgress,
  type RescueResult,
} from './rescue/rescue.js';
