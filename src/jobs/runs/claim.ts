/**
 * Which process has a run: the one that does it, or the reconciler that finishes it. A claim ends with its process, however that dies.
 *
 * The claim is an exclusive transaction on an empty database of the run's own, held open: SQLite locks it through the operating system,
 * on every platform, and the operating system drops the lock when the process is gone. A process id in the journal would lie after a
 * reboot or when ids come round, a heartbeat would lie when the machine sleeps.
 */

import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import Database from 'libsql';
import { firnError } from '../../errors.js';

export class Claim {
  readonly #file: string;
  readonly #database: Database.Database;

  private constructor(file: string, database: Database.Database) {
    this.#file = file;
    this.#database = database;
  }

  /** Claims a run for this process; undefined if another one has it. ERR_JOURNAL. */
  static take(stateFolder: string, run: string): Claim | undefined {
    const file = fileOfClaim(stateFolder, run);
    try {
      mkdirSync(path.dirname(file), { recursive: true, mode: 0o750 });
      const database = lock(file);
      return database && new Claim(file, database);
    } catch (error) {
      throw firnError('ERR_JOURNAL', `The claim of a run: ${(error as Error).message}`, {
        path: file,
        cause: error,
      });
    }
  }

  /**
   * Gives the run up. If it is `over`, its file goes too: whoever still takes a claim on that finds in the journal that nothing is left to
   * do. The file of a run that is not over stays, or two could hold claims on two files of one name.
   */
  release(over: boolean): void {
    if (over) {
      // A system that keeps open files keeps this empty one.
      try {
        rmSync(this.#file, { force: true });
      } catch {}
    }
    this.#database.close();
  }
}

/** True if a process that lives has the run. */
export function isClaimed(stateFolder: string, run: string): boolean {
  const claim = Claim.take(stateFolder, run);
  claim?.release(false);
  return claim === undefined;
}

/** The file that a claim locks. */
export function fileOfClaim(stateFolder: string, run: string): string {
  return path.join(stateFolder, 'claims', `${run}.lock`);
}

function lock(file: string): Database.Database | undefined {
  const database = new Database(file, { timeout: 0 });
  try {
    database.exec('BEGIN EXCLUSIVE');
    return database;
  } catch (error) {
    database.close();
    if ((error as { code?: string }).code === 'SQLITE_BUSY') return undefined;
    throw error;
  }
}
