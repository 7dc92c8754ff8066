/**
 * What can go wrong, as one table: every code with its class, the exit code it gives the command line, and the next step to try.
 *
 * Match on `error.code`; the codes are stable, the messages are not. Fields that say where it happened (op, path, offset, osCode) come
 * as data from the system call that failed and are never parsed out of a message. `retryable` means that the same call may succeed
 * later; `dataLoss` means that stored or source data is known to be damaged. A job that did part of its work reports that in its
 * result, and an error is only thrown where there is no result.
 *
 * A test holds this table against native/core/status.cc and docs/errors.md, so that the three cannot drift apart.
 */

import type { NativeFailure } from './engine/binding.js';

interface CodeEntry {
  kind: ErrorKind;
  exit: number;
  retryable?: boolean;
  dataLoss?: boolean;
  hint?: string;
}

/** The classes by name; `kind` in the table says which one a code's errors have. */
export type ErrorKind =
  | 'UsageError'
  | 'NotFoundError'
  | 'LockedError'
  | 'AuthError'
  | 'IoError'
  | 'IntegrityError'
  | 'HostError'
  | 'PlatformError'
  | 'AbortError'
  | 'InternalError';

const VERIFY_HINT =
  'Run "firn verify --read-data" to learn which points are affected, and restore those from another copy of the repository.';
const REPAIR_HINT =
  'Run "firn repair index" to make the index again from the packs, then "firn verify".';

const CODE_TABLE = {
  ERR_INVALID_ARGUMENT: { kind: 'UsageError', exit: 2 },
  ERR_CONFIG_INVALID: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Correct or unset the environment variable that the message names.',
  },
  ERR_UNSUPPORTED: { kind: 'UsageError', exit: 2 },
  ERR_EXISTS: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Choose another target, or pass --force to replace it.',
  },
  ERR_REPOSITORY_EXISTS: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Use the repository that is there, or choose an empty folder.',
  },
  ERR_POINT_AMBIGUOUS: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Give more digits of the id; "firn list" shows them.',
  },
  ERR_POINT_HELD: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Release it with "firn release", or pass --force to forget it all the same.',
  },
  ERR_JOB_INVALID: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Correct the job file at the line that the message names; docs/jobs.md has every member.',
  },
  ERR_VM_AMBIGUOUS: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Give the machine\'s id instead of its name; "firn vm list" shows both.',
  },
  ERR_STREAM_MISMATCH: {
    kind: 'UsageError',
    exit: 2,
    hint: 'Receive into a sibling of the sending repository: make it with "firn init --like REPO" or "firn receive --init".',
  },
  ERR_INCOMPLETE: {
    kind: 'IoError',
    exit: 3,
    hint: 'What could be done was done; the messages above name what was not.',
  },
  ERR_NOT_FOUND: { kind: 'NotFoundError', exit: 10, hint: 'Check the path.' },
  ERR_REPOSITORY_NOT_FOUND: {
    kind: 'NotFoundError',
    exit: 10,
    hint: 'Check --repo or FIRN_REPOSITORY, or make the repository with "firn init".',
  },
  ERR_POINT_NOT_FOUND: {
    kind: 'NotFoundError',
    exit: 10,
    hint: 'Run "firn list" to see the points of this repository.',
  },
  ERR_VM_NOT_FOUND: {
    kind: 'NotFoundError',
    exit: 10,
    hint: 'Run "firn vm list" to see the machines of this host.',
  },
  ERR_RUN_NOT_FOUND: {
    kind: 'NotFoundError',
    exit: 10,
    hint: 'Run "firn runs list" to see the runs of this journal.',
  },
  ERR_PARENT_NOT_FOUND: {
    kind: 'NotFoundError',
    exit: 10,
    hint: "Pass --parent-folder with the folder that holds the differencing disk's parent.",
  },
  ERR_FILE_IN_USE: {
    kind: 'LockedError',
    exit: 11,
    retryable: true,
    hint: 'Another program has the file open: back up a checkpoint or a copy, or try again later.',
  },
  ERR_VM_BUSY: {
    kind: 'LockedError',
    exit: 11,
    retryable: true,
    hint: 'Another backup or a migration holds the machine. Wait for it to end, or look at "firn doctor".',
  },
  ERR_REPOSITORY_CHANGED: {
    kind: 'LockedError',
    exit: 11,
    retryable: true,
    hint: 'A collection deleted packs that this run relied on. Run the backup again.',
  },
  ERR_HAVE_STALE: {
    kind: 'LockedError',
    exit: 11,
    retryable: true,
    hint: 'Send again with a new list of "firn receive --list-have", or without --have: what has arrived is kept.',
  },
  ERR_KEY_REQUIRED: {
    kind: 'AuthError',
    exit: 12,
    hint: 'Pass --password-file or --password-command, or set FIRN_PASSWORD_FILE.',
  },
  ERR_KEY_WRONG: {
    kind: 'AuthError',
    exit: 12,
    hint: 'Check the passphrase; "firn key list" shows which keys there are. A recovery key opens the repository too.',
  },
  ERR_KEY_WRITE_ONLY: {
    kind: 'AuthError',
    exit: 12,
    hint: 'Use a key that reads, from a host that is trusted with one.',
  },
  ERR_NOT_SEALED: {
    kind: 'AuthError',
    exit: 12,
    hint: 'If it was never sealed, leave the passphrase away. If it was, do not use it: somebody has replaced its config.',
  },
  ERR_ACCESS_DENIED: {
    kind: 'AuthError',
    exit: 12,
    hint: 'Check the owner and the permissions, or run as a user who may.',
  },
  ERR_READ: {
    kind: 'IoError',
    exit: 20,
    hint: 'Check the device and its cables; the operating system log often says more.',
  },
  ERR_WRITE: {
    kind: 'IoError',
    exit: 20,
    hint: 'Check the device and its cables; the operating system log often says more.',
  },
  ERR_DISK_FULL: {
    kind: 'IoError',
    exit: 20,
    retryable: true,
    hint: 'Free space on the target and run it again: what was sealed before is whole.',
  },
  ERR_STREAM_TRUNCATED: {
    kind: 'IoError',
    exit: 20,
    retryable: true,
    hint: 'Send it again: what has arrived whole is kept, and found when it comes again.',
  },
  ERR_SOURCE_CHANGED: {
    kind: 'IoError',
    exit: 20,
    retryable: true,
    hint: 'Back up a disk that nobody writes to: a checkpoint, a shadow copy, or a machine that is off.',
  },
  ERR_DISK_INVALID: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'Run "firn inspect" on the file: it lists what breaks the format, and where.',
  },
  ERR_DISK_TRUNCATED: {
    kind: 'IntegrityError',
    exit: 30,
    dataLoss: true,
    hint: 'The image is shorter than its own tables say: copy it again from where it came from.',
  },
  ERR_PARENT_MISMATCH: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'The parent was written to after the child was made, or is another disk. Run "firn inspect" on both.',
  },
  ERR_CORRUPT_CHUNK: { kind: 'IntegrityError', exit: 30, dataLoss: true, hint: VERIFY_HINT },
  ERR_CORRUPT_PACK: { kind: 'IntegrityError', exit: 30, dataLoss: true, hint: VERIFY_HINT },
  ERR_CORRUPT_INDEX: { kind: 'IntegrityError', exit: 30, hint: REPAIR_HINT },
  ERR_CORRUPT_OBJECT: { kind: 'IntegrityError', exit: 30, dataLoss: true, hint: VERIFY_HINT },
  ERR_TAMPERED: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'Somebody has changed the repository. Find out who may write to it, and restore from another copy.',
  },
  ERR_SWAPPED: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'Somebody has put one object of the repository in the place of another. Find out who may write to it.',
  },
  ERR_REPLAYED: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'Somebody has put back an old state, or the storage was restored from a copy: docs/security.md says what then.',
  },
  ERR_PACK_MISSING: { kind: 'IntegrityError', exit: 30, dataLoss: true, hint: VERIFY_HINT },
  ERR_CHUNK_MISSING: { kind: 'IntegrityError', exit: 30, hint: REPAIR_HINT },
  ERR_VERIFY_MISMATCH: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'The two do not hold the same content. If the source was in use since, compare with a copy of that moment.',
  },
  ERR_CORRUPT_STREAM: {
    kind: 'IntegrityError',
    exit: 30,
    hint: 'The stream is not what was sent: send it again. What was right before the damage is kept.',
  },
  ERR_HOST_UNREACHABLE: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: 'Check that the host is up and that its name, port and credentials are right.',
  },
  ERR_HOST_FAILED: {
    kind: 'HostError',
    exit: 25,
    hint: 'The host answered with an error of its own. "firn doctor" looks at what usually causes it.',
  },
  ERR_DEADLINE: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: 'The step took longer than the job allows. Raise its deadline, or find out what holds the host up.',
  },
  ERR_FREEZE_FAILED: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: 'Look at the guest: its VSS writers or its guest agent. A job may allow less with "consistency: best".',
  },
  ERR_CONSISTENCY: {
    kind: 'HostError',
    exit: 25,
    hint: 'The guest cannot promise what the job requires. Mend its backup integration, or let the job require less.',
  },
  ERR_CHECKPOINT_FAILED: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: "Look at the host's event log and at the free space beside the disks; then run it again.",
  },
  ERR_SHADOW_COPY_FAILED: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: 'Look at the VSS writers ("vssadmin list writers") and at the shadow storage; then run it again.',
  },
  ERR_MERGE_FAILED: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: 'The checkpoint still stands. Find what holds its files open, then run "firn reconcile".',
  },
  ERR_VOLUME_LOW: {
    kind: 'HostError',
    exit: 25,
    retryable: true,
    hint: "Free space on the host's volume: a checkpoint grows while the disks are read.",
  },
  ERR_JOURNAL: {
    kind: 'IoError',
    exit: 20,
    hint: 'The journal of runs could not be read or written: check --state, its disk and its permissions.',
  },
  ERR_VERSION: {
    kind: 'PlatformError',
    exit: 40,
    hint: 'A newer Firn made this; use that version or a later one.',
  },
  ERR_ABORTED: {
    kind: 'AbortError',
    exit: 130,
    retryable: true,
    hint: 'Run it again: what was sealed before is whole, and stored chunks are found again.',
  },
  ERR_NATIVE_LOAD: { kind: 'InternalError', exit: 70 },
  ERR_INTERNAL: {
    kind: 'InternalError',
    exit: 70,
    hint: 'This is a defect in Firn. Run it again with --debug and report what it prints.',
  },
} as const satisfies Record<string, CodeEntry>;

/** Every code there is, for an exhaustive switch. */
export type ErrorCode = keyof typeof CODE_TABLE;

/** The table, for those who list or print it. */
export const ERROR_CODES: Readonly<Record<ErrorCode, CodeEntry>> = CODE_TABLE;

/** Where and how it happened; all of it optional. Offsets are bytes into `path`. */
export interface ErrorDetails {
  op?: string | undefined;
  path?: string | undefined;
  offset?: number | undefined;
  osCode?: number | undefined;
  retryable?: boolean | undefined;
  dataLoss?: boolean | undefined;
  /** The next step, when it is a better one than the table's. */
  hint?: string | undefined;
  cause?: unknown;
}

// A registered symbol, so that an error from a second copy of this package is recognised too.
const MARK = Symbol.for('firn.error');

/** The base of all errors that this package throws on purpose. */
export class FirnError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly dataLoss: boolean;
  /** The command line's exit code for this error. */
  readonly exitCode: number;
  readonly op?: string;
  readonly path?: string;
  readonly offset?: number;
  readonly osCode?: number;
  readonly hint?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    const entry: CodeEntry = CODE_TABLE[code];
    this.code = code;
    this.retryable = details.retryable ?? entry.retryable ?? false;
    this.dataLoss = details.dataLoss ?? entry.dataLoss ?? false;
    this.exitCode = entry.exit;
    if (details.op) this.op = details.op;
    if (details.path) this.path = details.path;
    if (details.offset !== undefined) this.offset = details.offset;
    if (details.osCode) this.osCode = details.osCode;
    const hint = details.hint ?? entry.hint;
    if (hint !== undefined) this.hint = hint;
  }

  /** The fields as plain data, for JSON output. */
  toJSON(): Record<string, unknown> {
    const { name, code, message, op, path, offset, osCode, retryable, dataLoss, hint } = this;
    return { name, code, message, op, path, offset, osCode, retryable, dataLoss, hint };
  }
}
Object.defineProperty(FirnError.prototype, MARK, { value: true });

export class UsageError extends FirnError {}
export class NotFoundError extends FirnError {}
export class LockedError extends FirnError {}
export class AuthError extends FirnError {}
export class IoError extends FirnError {}
export class IntegrityError extends FirnError {}
export class HostError extends FirnError {}
export class PlatformError extends FirnError {}
export class AbortError extends FirnError {}
export class InternalError extends FirnError {}

const CLASSES: Readonly<Record<ErrorKind, typeof FirnError>> = {
  UsageError,
  NotFoundError,
  LockedError,
  AuthError,
  IoError,
  IntegrityError,
  HostError,
  PlatformError,
  AbortError,
  InternalError,
};
// The name stands on the prototype: it is no own property, so it does not show up twice when an error is printed.
for (const [name, errorClass] of Object.entries({ FirnError, ...CLASSES })) {
  Object.defineProperty(errorClass.prototype, 'name', { value: name, configurable: true });
}

/** Makes the error of the class that the table gives the code. The one way in which this package makes its errors. */
export function firnError(code: ErrorCode, message: string, details?: ErrorDetails): FirnError {
  const error = new CLASSES[CODE_TABLE[code].kind](code, message, details);
  Error.captureStackTrace(error, firnError);
  return error;
}

/** True for an error of this package, also for one that another copy of it made. */
export function isFirnError(value: unknown): value is FirnError {
  return value instanceof Error && (value as { [MARK]?: unknown })[MARK] === true;
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(CODE_TABLE, value);
}

/**
 * The FirnError for what the addon rejected with or threw. Its message names the operation, path and offset, as the native message alone
 * is often just the operating system's sentence. `callSite` is an object that Error.captureStackTrace filled where the caller
 * stood: native failures are made on no JavaScript stack, so their own trace says nothing.
 */
export function fromNative(failure: unknown, callSite?: { stack?: string }): FirnError {
  if (isFirnError(failure)) return failure;
  const native = failure instanceof Error ? (failure as Error & Partial<NativeFailure>) : undefined;
  if (native === undefined || !isErrorCode(native.code)) {
    const text = native === undefined ? String(failure) : native.message;
    return firnError('ERR_INTERNAL', `The native engine failed without a code: ${text}`, {
      cause: failure,
    });
  }
  const error = firnError(native.code, describe(native as NativeFailure), {
    op: native.op,
    path: native.path,
    offset: native.offset,
    osCode: native.osCode,
    // Native flags only add: a table entry that says "may be tried again" holds for every error with that code.
    retryable: native.retryable === true ? true : undefined,
    dataLoss: native.dataLoss === true ? true : undefined,
  });
  if (callSite?.stack !== undefined) {
    const frames = callSite.stack.split('\n').slice(1).join('\n');
    error.stack = `${error.name}: ${error.message}\n${frames}`;
  }
  return error;
}

/** One line for a native failure or a defect: "write /mnt/a.pack at 4096: No space left on device". */
export function describe(failure: {
  message: string;
  op?: string | undefined;
  path?: string | undefined;
  offset?: number | undefined;
}): string {
  const place = [
    failure.op,
    failure.path,
    failure.offset === undefined ? undefined : `at ${failure.offset}`,
  ]
    .filter((part) => part !== undefined && part !== '')
    .join(' ');
  return place === '' ? failure.message : `${place}: ${failure.message}`;
}

/**
 * The FirnError for a failed call of node:fs: its errno becomes one of our codes, and the operating system's text stays.
 * `fallback` is for an errno that says nothing more exact: ERR_READ or ERR_WRITE.
 */
export function fromFileSystem(error: unknown, op: string, fallback: ErrorCode): FirnError {
  if (isFirnError(error)) return error;
  if (!(error instanceof Error) || typeof (error as NodeJS.ErrnoException).code !== 'string') {
    return firnError('ERR_INTERNAL', String(error), { op, cause: error });
  }
  const { code, path, errno, message } = error as NodeJS.ErrnoException;
  return firnError(ERRNO_CODES[code ?? ''] ?? fallback, message, {
    op,
    path,
    osCode: errno === undefined ? undefined : Math.abs(errno),
    cause: error,
  });
}

// The same meanings as in native/core/status.cc.
const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'ERR_NOT_FOUND',
  ENOTDIR: 'ERR_NOT_FOUND',
  EACCES: 'ERR_ACCESS_DENIED',
  EPERM: 'ERR_ACCESS_DENIED',
  EROFS: 'ERR_ACCESS_DENIED',
  EBUSY: 'ERR_FILE_IN_USE',
  ETXTBSY: 'ERR_FILE_IN_USE',
  ENOSPC: 'ERR_DISK_FULL',
  EDQUOT: 'ERR_DISK_FULL',
  EFBIG: 'ERR_DISK_FULL',
  EEXIST: 'ERR_EXISTS',
};
