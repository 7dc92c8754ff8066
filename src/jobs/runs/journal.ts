/**
 * The journal: which runs there were, which machines they took up and how far they came, durable before each step and after.
 *
 * An SQLite database in the state folder, written by every Firn process of this computer. Each call is one transaction that is on the
 * disk when it returns (synchronous=FULL), because what a crash must find again is exactly the last thing that was begun. Calls are
 * synchronous and take about a millisecond; a run makes a few dozen.
 *
 * It is the record of intent, not the truth about a host: what stands there is asked from the host by the mark. A lost journal costs
 * history; `firn reconcile --run` still takes up a mark that no journal knows.
 */

import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import Database from 'libsql';
import { type FirnError, firnError } from '../../errors.js';
import type { StepName, VmRef } from '../../hosts/host.js';
import { syncFolderNow } from '../../sync-folder.js';
import { Claim, isClaimed } from './claim.js';
import type { RunRecord, RunState, StepRecord } from './types.js';

const FILE_NAME = 'journal.db';
const SCHEMA_VERSION = 1;
const RUNS_LISTED = 100;
/** Another process holds the database for a millisecond at a time. */
const BUSY_TIMEOUT_MS = 10_000;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, repository TEXT NOT NULL, job TEXT,
    begun TEXT NOT NULL, ended TEXT, outcome TEXT
  ) STRICT;
  CREATE TABLE IF NOT EXISTS vms (
    run TEXT NOT NULL REFERENCES runs, id TEXT NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, point TEXT, released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, id)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS steps (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL REFERENCES runs,
    vm TEXT NOT NULL, step TEXT NOT NULL, begun TEXT NOT NULL, ended TEXT,
    state TEXT NOT NULL, code TEXT, message TEXT, reconciled INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS steps_of_run ON steps (run);
`;

export type RunOutcome = Exclude<RunState, 'active' | 'dead'>;
type VmState = RunRecord['vms'][0]['state'];

export interface BeginRun {
  id: string;
  host: string;
  repository: string;
  job?: string | undefined;
  vms: readonly VmRef[];
}

interface RunRow {
  id: string;
  host: string;
  repository: string;
  job: string | null;
  begun: string;
  ended: string | null;
  outcome: RunOutcome | null;
}

interface VmRow {
  run: string;
  id: string;
  name: string;
  state: VmState;
  point: string | null;
  released: number;
}

interface StepRow {
  vm: string;
  step: StepName;
  begun: string;
  ended: string | null;
  state: StepRecord['state'];
  code: string | null;
  message: string | null;
  reconciled: number;
}

export class Journal {
  readonly folder: string;
  readonly #database: Database.Database;
  readonly #identity: string | undefined;

  private constructor(folder: string, database: Database.Database) {
    this.folder = folder;
    this.#database = database;
    this.#identity = identityOf(folder);
  }

  /** Opens the journal in the state folder, and makes both if need be. ERR_JOURNAL, ERR_VERSION. */
  static open(folder: string): Journal {
    return guarded(folder, () => {
      makeFolder(path.resolve(folder));
      const database = new Database(path.join(folder, FILE_NAME), { timeout: BUSY_TIMEOUT_MS });
      database.pragma('journal_mode = WAL');
      database.pragma('synchronous = FULL');
      const version = readVersion(database);
      if (version > SCHEMA_VERSION) {
        throw firnError('ERR_VERSION', `The journal has version ${version}`, { path: folder });
      }
      database.exec(SCHEMA);
      database.pragma(`user_version = ${SCHEMA_VERSION}`);
      return new Journal(folder, database);
    });
  }

  /**
   * Begins a run: claims it for this process and takes up its machines. ERR_VM_BUSY if another run that is not over has one of them: two
   * checkpoints of one machine must not be merged by two processes.
   */
  begin(run: BeginRun): Claim {
    const claim = Claim.take(this.folder, run.id);
    if (claim === undefined) throw firnError('ERR_INTERNAL', `The run ${run.id} is not new`);
    try {
      this.#transaction(() => {
        this.#refuseTaken(run);
        this.#write('INSERT INTO runs (id, host, repository, job, begun) VALUES (?, ?, ?, ?, ?)', [
          run.id,
          run.host,
          run.repository,
          run.job ?? null,
          now(),
        ]);
        for (const vm of run.vms) {
          this.#write("INSERT INTO vms (run, id, name, state) VALUES (?, ?, ?, 'waiting')", [
            run.id,
            vm.id,
            vm.name,
          ]);
        }
      });
    } catch (error) {
      claim.release(true);
      throw error;
    }
    return claim;
  }

  /** The machine's state in the run. `point` is given with "sealed". */
  setVm(run: string, vm: VmRef, state: Exclude<VmState, 'released'>, point?: string): void {
    this.#write('UPDATE vms SET state = ?, point = coalesce(?, point) WHERE run = ? AND id = ?', [
      state,
      point ?? null,
      run,
      vm.id,
    ]);
  }

  /** Nothing of the run is left at the machine. */
  setReleased(run: string, vm: VmRef): void {
    this.#write('UPDATE vms SET released = 1 WHERE run = ? AND id = ?', [run, vm.id]);
  }

  /** Journals that a step begins; the number is for endStep. */
  beginStep(run: string, vm: VmRef, step: StepName, reconciled: boolean): number {
    return this.#write(
      "INSERT INTO steps (run, vm, step, begun, state, reconciled) VALUES (?, ?, ?, ?, 'begun', ?)",
      [run, vm.id, step, now(), reconciled ? 1 : 0],
    );
  }

  endStep(number: number, error?: FirnError): void {
    this.#write('UPDATE steps SET ended = ?, state = ?, code = ?, message = ? WHERE number = ?', [
      now(),
      error === undefined ? 'done' : 'failed',
      error?.code ?? null,
      error?.message ?? null,
      number,
    ]);
  }

  /** The run is over. One with a machine that is not released stays unfinished for the reconciler, whatever its outcome. */
  end(run: string, outcome: RunOutcome): void {
    this.#write('UPDATE runs SET ended = ?, outcome = ? WHERE id = ?', [now(), outcome, run]);
  }

  /** The newest runs, newest first: by when they were written here, as clocks jump. */
  runs(limit = RUNS_LISTED): RunRecord[] {
    const rows = this.#read<RunRow>('SELECT * FROM runs ORDER BY rowid DESC LIMIT ?', [limit]);
    return rows.map((row) => this.#record(row));
  }

  /** One run with its steps, by the beginning of its id. ERR_RUN_NOT_FOUND. */
  run(idPrefix: string): { run: RunRecord; steps: StepRecord[] } {
    const rows = /^[0-9a-f]+$/.test(idPrefix)
      ? this.#read<RunRow>("SELECT * FROM runs WHERE id LIKE ? || '%' LIMIT 2", [idPrefix])
      : [];
    const row = rows.length === 1 ? rows[0] : undefined;
    if (row === undefined) {
      throw firnError(
        'ERR_RUN_NOT_FOUND',
        `${rows.length === 0 ? 'No run' : 'More than one run'} begins with "${idPrefix}"`,
      );
    }
    const run = this.#record(row);
    return { run, steps: this.#steps(run) };
  }

  /** Runs that left something or may have: not over, or over with a machine that is not released. Oldest first. */
  unfinished(): RunRecord[] {
    const rows = this.#read<RunRow>(
      `SELECT * FROM runs WHERE ended IS NULL
         OR EXISTS (SELECT 1 FROM vms WHERE vms.run = runs.id AND NOT released) ORDER BY rowid`,
      [],
    );
    return rows.map((row) => this.#record(row));
  }

  /** The hosts of all unfinished runs. */
  unfinishedHosts(): string[] {
    return [...new Set(this.unfinished().map((run) => run.host))];
  }

  /** False if somebody has removed the journal's file or put another in its place: what is written here then is lost. */
  isInPlace(): boolean {
    return this.#identity !== undefined && identityOf(this.folder) === this.#identity;
  }

  close(): void {
    this.#database.close();
  }

  #refuseTaken(run: BeginRun): void {
    for (const other of this.unfinished()) {
      if (other.host !== run.host) continue;
      const taken = other.vms.find(
        (vm) => vm.state !== 'released' && run.vms.some((wanted) => wanted.id === vm.id),
      );
      if (taken === undefined) continue;
      const [what, hint] =
        other.state === 'active'
          ? ['is at this machine', 'Wait for that run to end; "firn runs list" shows it.']
          : ['left something at this machine', 'Run "firn reconcile", then the backup again.'];
      throw firnError('ERR_VM_BUSY', `${taken.name}: the run ${other.id} ${what}`, { hint });
    }
  }

  #record(row: RunRow): RunRecord {
    const vms = this.#read<VmRow>('SELECT * FROM vms WHERE run = ? ORDER BY rowid', [row.id]);
    return {
      id: row.id,
      state: this.#stateOf(row, vms),
      host: row.host,
      repository: row.repository,
      ...(row.job !== null && { job: row.job }),
      begun: row.begun,
      ...(row.ended !== null && { ended: row.ended }),
      vms: vms.map((vm) => ({
        id: vm.id,
        name: vm.name,
        state: vm.released === 1 ? 'released' : vm.state,
        ...(vm.point !== null && { point: vm.point }),
      })),
    };
  }

  #stateOf(row: RunRow, vms: readonly VmRow[]): RunState {
    if (row.ended !== null && vms.every((vm) => vm.released === 1)) return row.outcome ?? 'failed';
    return isClaimed(this.folder, row.id) ? 'active' : 'dead';
  }

  #steps(run: RunRecord): StepRecord[] {
    const rows = this.#read<StepRow>('SELECT * FROM steps WHERE run = ? ORDER BY number', [run.id]);
    return rows.map((row) => ({
      vm: run.vms.find((vm) => vm.id === row.vm) ?? { id: row.vm, name: row.vm },
      step: row.step,
      state: row.state,
      begun: row.begun,
      ...(row.ended !== null && { ended: row.ended }),
      ...(row.code !== null && { error: { code: row.code, message: row.message ?? '' } }),
      reconciled: row.reconciled === 1,
    }));
  }

  #transaction(work: () => void): void {
    guarded(this.folder, () => this.#database.transaction(work).immediate());
  }

  #write(sql: string, values: readonly (string | number | null)[]): number {
    return guarded(this.folder, () =>
      Number(this.#database.prepare(sql).run(...values).lastInsertRowid),
    );
  }

  #read<Row>(sql: string, values: readonly (string | number)[]): Row[] {
    return guarded(this.folder, () => this.#database.prepare(sql).all(...values) as Row[]);
  }
}

/** Makes a folder and those above it, durably: SQLite sees to its files and their names, and to no folder's own name. */
function makeFolder(folder: string): void {
  const first = mkdirSync(folder, { recursive: true, mode: 0o750 });
  if (first === undefined) return;
  const made = path.resolve(first).length;
  for (let each = path.resolve(folder); each.length >= made; each = path.dirname(each)) {
    syncFolderNow(path.dirname(each));
  }
}

/** What tells the journal's file in the folder from another one of its name; undefined if there is none. */
function identityOf(folder: string): string | undefined {
  const found = statSync(path.join(folder, FILE_NAME), { bigint: true, throwIfNoEntry: false });
  return found && `${found.dev}-${found.ino}`;
}

function readVersion(database: Database.Database): number {
  return (database.prepare('PRAGMA user_version').get() as { user_version: number }).user_version;
}

function now(): string {
  return new Date().toISOString();
}

function guarded<Result>(folder: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && 'retryable' in error) throw error;
    throw firnError('ERR_JOURNAL', `The journal in ${folder}: ${(error as Error).message}`, {
      path: folder,
      cause: error,
    });
  }
}
