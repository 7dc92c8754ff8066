/** From the text of --host to the machine that PowerShell is told to reach. */

import { firnError } from '../../errors.js';

/** Where the work is done: in the PowerShell that Firn starts itself, or in a session that this one opens. */
export type Target =
  | { kind: 'local' }
  | { kind: 'wsman'; computer: string; port?: number }
  | { kind: 'ssh'; computer: string; port?: number; user?: string };

const FORMS = 'hyperv, hyperv:wsman://COMPUTER[:PORT] or hyperv:ssh://[USER@]COMPUTER[:PORT]';

// Names begin with a letter or digit, as "-oProxyCommand=..." would be an option to ssh. A user may be "DOMAIN\name" or "name@domain".
const USER = String.raw`(?:(?<user>[\p{L}\p{N}_][\p{L}\p{N}._@\\ -]*)@)?`;
const COMPUTER = String.raw`(?<computer>[\p{L}\p{N}][\p{L}\p{N}._-]*|\[[0-9A-Fa-f:.]+\])`;
const REMOTE = new RegExp(
  `^hyperv:(?<kind>wsman|ssh)://${USER}${COMPUTER}(?::(?<port>\\d{1,5}))?/?$`,
  'u',
);

/** ERR_INVALID_ARGUMENT for what is no host of this kind. */
export function parseTarget(spec: string): Target {
  if (spec === 'hyperv') return { kind: 'local' };
  const groups = REMOTE.exec(spec)?.groups;
  const computer = groups?.computer?.replace(/^\[|\]$/g, '');
  const port = groups?.port === undefined ? undefined : Number(groups.port);
  if (computer === undefined || port === 0 || (port ?? 0) > 65535) {
    throw firnError('ERR_INVALID_ARGUMENT', `Expected a host (${FORMS}) but received "${spec}"`);
  }
  const place = { computer, ...(port !== undefined && { port }) };
  if (groups?.kind === 'ssh') {
    return { kind: 'ssh', ...place, ...(groups.user !== undefined && { user: groups.user }) };
  }
  if (groups?.user !== undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', `A user cannot be named for WinRM: "${spec}"`, {
      hint: 'WinRM takes the user that Firn runs as. Run Firn as a user who may, or use ssh.',
    });
  }
  return { kind: 'wsman', ...place };
}

/** The same way to another node of the cluster. From the machine itself that is WinRM, which every server has. */
export function targetOfNode(target: Target, computer: string): Target {
  return target.kind === 'local' ? { kind: 'wsman', computer } : { ...target, computer };
}
