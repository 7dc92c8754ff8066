/**
 * What every command gets besides its own arguments: the global options, resolved, and the signal that Ctrl-C aborts.
 *
 * A value comes from the command line, else from the environment, else from the default. Values from the environment are checked only
 * where they are used, so that a bad FIRN_REPOSITORY does not stop `firn inspect`.
 */

import {
  IO_MODES,
  oneOf,
  parseInteger,
  parseSize,
  type TuningOptions,
  WORKERS_MAX,
} from '../engine/options.js';
import { firnError } from '../errors.js';
import { parseDuration, parsePercent } from '../jobs/settings.js';
import type { Access, Repository } from '../repository/repository.js';
import {
  askNewPassphrase,
  askPassphrase,
  canAsk,
  passphraseOptions,
  readPassphrase,
} from './passphrase.js';
import type { Output } from './ui/output.js';
import { Progress, type ProgressMode, type ProgressStats } from './ui/progress.js';

/** The options that every command has, as commander gives them. */
export interface GlobalOptions {
  repo?: string;
  json?: boolean;
  quiet?: boolean;
  progress?: ProgressMode;
  memory?: number;
  workers?: number;
  io?: 'auto' | 'direct' | 'buffered';
  debug?: boolean;
  eventLog?: boolean;
  passwordFile?: string;
  passwordCommand?: string;
}

/** What a command's action returns: its exit code, or nothing for success. */
export type ActionResult = Promise<number | undefined>;

/** A command's action: its arguments and at last its options, after the context. */
export type Action<Arguments extends unknown[]> = (
  context: Context,
  ...parameters: Arguments
) => ActionResult;

/** Makes of an action what commander calls; all that a command file needs of the rest. */
export type Register = <Arguments extends unknown[]>(
  action: Action<Arguments>,
) => (...parameters: unknown[]) => Promise<void>;

export const PROGRESS_MODES = [
  'auto',
  'always',
  'never',
] as const satisfies readonly ProgressMode[];

/** Parsers for option values; each throws ERR_INVALID_ARGUMENT with the option's name. */
export const parse = {
  size: (name: string) => (text: string) => parseSize(text, name),
  integer: (name: string, min: number, max: number) => (text: string) =>
    parseInteger(text, name, min, max),
  oneOf:
    <Value extends string>(name: string, values: readonly Value[]) =>
    (text: string) =>
      oneOf(name, text, values),
  duration: (name: string) => (text: string) => parseDuration(text, name),
  percent: (name: string) => (text: string) => parsePercent(text, name),
  /** For options that are a text to anyone else: `read` makes of it what it means. */
  as:
    <Value>(name: string, read: (text: string, name: string) => Value) =>
    (text: string) =>
      read(text, name),
  /** The same for options that may be given several times. */
  listAs:
    <Value>(name: string, read: (text: string, name: string) => Value) =>
    (text: string, before: Value[] | undefined) => [...(before ?? []), read(text, name)],
  /** For options that may be given several times. */
  list: (text: string, before: string[] | undefined) => [...(before ?? []), text],
};

export class Context {
  readonly output: Output;
  readonly signal: AbortSignal;
  readonly #options: GlobalOptions;
  #asked: Promise<Buffer | undefined> | undefined;

  constructor(output: Output, signal: AbortSignal, options: GlobalOptions) {
    this.output = output;
    this.signal = signal;
    this.#options = options;
  }

  /** Whether one was given. */
  get hasRepository(): boolean {
    return Boolean(this.#options.repo ?? process.env.FIRN_REPOSITORY);
  }

  /** The repository's folder. */
  get repository(): string {
    const path = this.#options.repo ?? process.env.FIRN_REPOSITORY;
    if (path !== undefined && path !== '') return path;
    throw firnError('ERR_INVALID_ARGUMENT', 'No repository was given', {
      hint: 'Pass --repo DIR, or set FIRN_REPOSITORY.',
    });
  }

  /** The folder that --repo names, whatever the environment says: for what must not write where it was not told. */
  get repositoryOption(): string | undefined {
    return this.#options.repo || undefined;
  }

  /** The same with values for options that were not given, which come before the environment: those of a job file. */
  withFallbacks(options: { repo: string | undefined } & TuningOptions): Context {
    const { repo, memory, workers } = this.#options;
    return new Context(this.output, this.signal, {
      ...this.#options,
      ...definedOf({
        repo: repo ?? options.repo,
        memory: memory ?? options.memoryBytes,
        workers: workers ?? options.workers,
      }),
    });
  }

  /**
   * Opens a repository; a passphrase is read or asked for when it is needed. One that was given for `--repo` must be needed; for other
   * repositories it may be.
   */
  async openRepository(path?: string): Promise<Repository> {
    const repository = await import('../repository/repository.js');
    return repository.Repository.open(
      path ?? this.repository,
      undefined,
      await this.access(path === undefined),
    );
  }

  /** How sealed repositories are opened. */
  async access(mustBeSealed = true): Promise<Access> {
    const { stateFolder } = await import('../jobs/runs/state-folder.js');
    const given = passphraseOptions(this.#options);
    const isGiven = given !== undefined && mustBeSealed;
    const passphrase = isGiven ? await this.#passphrase() : () => this.#passphrase();
    return { passphrase, memory: stateFolder() };
  }

  /** The passphrase for a repository that is to be made: asked for twice if nothing gives it. ERR_KEY_REQUIRED. */
  async newPassphrase(): Promise<Buffer> {
    await forbidCoreFiles();
    const given = passphraseOptions(this.#options);
    if (given !== undefined) return readPassphrase(given);
    if (canAsk()) return askNewPassphrase();
    throw firnError('ERR_KEY_REQUIRED', 'No passphrase was given');
  }

  #passphrase(): Promise<Buffer | undefined> {
    const given = passphraseOptions(this.#options);
    const read = async () => {
      await forbidCoreFiles();
      if (given !== undefined) return readPassphrase(given);
      return canAsk() ? askPassphrase('Passphrase: ') : undefined;
    };
    this.#asked ??= read();
    return this.#asked;
  }

  get progressMode(): ProgressMode {
    const { progress } = this.#options;
    return progress ?? fromEnvironment('FIRN_PROGRESS', readProgressMode) ?? 'auto';
  }

  get tuning(): TuningOptions {
    const { memory, workers, io } = this.#options;
    return {
      memoryBytes: memory ?? fromEnvironment('FIRN_MEMORY', parse.size('FIRN_MEMORY')),
      workers:
        workers ?? fromEnvironment('FIRN_WORKERS', parse.integer('FIRN_WORKERS', 1, WORKERS_MAX)),
      io: io ?? fromEnvironment('FIRN_IO', parse.oneOf('FIRN_IO', IO_MODES)),
    };
  }

  /**
   * Runs a job with its progress shown, and takes the progress away whatever becomes of it. `label` is the verb. What the job gets are
   * members of its options.
   */
  async withProgress<Result>(
    label: string,
    job: (run: {
      signal: AbortSignal;
      onProgress: (stats: ProgressStats) => void;
    }) => PromiseLike<Result>,
  ): Promise<Result> {
    const progress = new Progress(this.output, this.progressMode, label);
    try {
      return await job({ signal: this.signal, onProgress: (stats) => progress.update(stats) });
    } finally {
      progress.close();
    }
  }
}

/** Before there is a secret in this process's memory. */
async function forbidCoreFiles(): Promise<void> {
  try {
    (await import('../engine/engine.js')).loadEngine().forbidCoreFiles();
  } catch {
    // A rescue does without the engine, and without this.
  }
}

const readProgressMode = parse.oneOf('FIRN_PROGRESS', PROGRESS_MODES);

/** The members that have a value. */
export function definedOf<Members extends object>(members: Members) {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as {
    [Name in keyof Members]?: Exclude<Members[Name], undefined>;
  };
}

function fromEnvironment<Value>(name: string, read: (text: string) => Value): Value | undefined {
  const text = process.env[name];
  if (text === undefined || text === '') return undefined;
  try {
    return read(text);
  } catch (error) {
    throw firnError('ERR_CONFIG_INVALID', (error as Error).message, { cause: error });
  }
}
