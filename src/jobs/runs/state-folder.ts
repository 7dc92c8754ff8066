/**
 * Where the journal of runs lies when nobody says otherwise.
 *
 * It outlives the process and the machine's next start, and it is one for all jobs of a machine: the reconciler has to find what any of
 * them left. So an administrator's is the system's folder, and any other user's is their own.
 */

import { homedir } from 'node:os';
import path from 'node:path';

export interface StateFolderSources {
  platform: NodeJS.Platform;
  environment: Readonly<Record<string, string | undefined>>;
  /** The effective user's number; undefined on Windows. */
  user: number | undefined;
  home: string;
}

/**
 * `given` (--state), else FIRN_STATE, else by user: /var/lib/firn for root, %ProgramData%\Firn on Windows, else $XDG_STATE_HOME/firn or
 * ~/.local/state/firn. Absolute; nothing is made.
 */
export function stateFolder(given?: string, sources: StateFolderSources = ownSources()): string {
  const { platform, environment, user, home } = sources;
  const paths = platform === 'win32' ? path.win32 : path.posix;
  const chosen = given || environment.FIRN_STATE;
  if (chosen) return paths.resolve(chosen);
  if (platform === 'win32') {
    return paths.join(environment.ProgramData || 'C:\\ProgramData', 'Firn');
  }
  if (user === 0) return '/var/lib/firn';
  // The XDG base directory specification has relative paths ignored.
  const { XDG_STATE_HOME: state = '' } = environment;
  return paths.join(paths.isAbsolute(state) ? state : paths.join(home, '.local/state'), 'firn');
}

function ownSources(): StateFolderSources {
  return {
    platform: process.platform,
    environment: process.env,
    user: process.geteuid?.(),
    home: homedir(),
  };
}
