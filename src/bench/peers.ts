/**
 * Other programs at the same work in the same rounds, where they are installed: as ratios, since a ratio inside a round stays when the machine
 * gets slower. What they are told stands in peer-commands.ts.
 *
 * The peers take the file; Firn takes the disk that is in it. All of them are given the disk's allocated bytes as their work, so that rates are
 * comparable. What a tool leaves to the kernel to write back is waited for and counted.
 */

import { spawnSync } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { isFirnError } from '../errors.js';
import { type BackupProgram, borg, cp, qemuImgConvert, restic } from './peer-commands.js';
import { type Command, settle, timeCommand } from './process.js';
import type { Measurement, PeerRatio, Suite } from './report.js';
import { type BenchSession, type Cell, runCells } from './rounds.js';
import type { Scratch } from './scratch.js';
import { summarize } from './statistics.js';

export interface Peer {
  name: string;
  version: string;
  /** Done before each round, and not timed. */
  prepare?(folder: string): Command;
  /** Writes inside `folder`, which is new. */
  command(source: string, folder: string): Command;
}

interface PeerKind extends Omit<Peer, 'version'> {
  versionArgs: string[];
}

const COPY_PEERS: readonly PeerKind[] = [
  {
    name: 'qemu-img',
    versionArgs: ['--version'],
    command: (source, folder) => qemuImgConvert(source, path.join(folder, 'copy.raw')),
  },
  {
    name: 'cp',
    versionArgs: ['--version'],
    command: (source, folder) => cp(source, path.join(folder, 'copy')),
  },
  {
    name: 'dd',
    versionArgs: ['--version'],
    command: (source, folder) => ({
      program: 'dd',
      args: [
        `if=${source}`,
        `of=${path.join(folder, 'copy')}`,
        'bs=1M',
        'conv=sparse',
        'status=none',
      ],
    }),
  },
];

const READ_PEERS: readonly PeerKind[] = [
  {
    name: 'dd',
    versionArgs: ['--version'],
    command: (source) => ({
      program: 'dd',
      args: [`if=${source}`, 'of=/dev/null', 'bs=1M', 'iflag=direct', 'status=none'],
    }),
  },
];

const BACKUP_PEERS: readonly PeerKind[] = [
  backupPeer('restic', ['version'], restic),
  backupPeer('borg', ['--version'], (home) => borg(home, 'lz4')),
];

/** With its repository, and whatever it keeps beside that, inside the folder of the round. */
function backupPeer(
  name: string,
  versionArgs: string[],
  programOf: (home: string) => BackupProgram,
): PeerKind {
  const program = (folder: string) => programOf(path.join(folder, 'home'));
  const repository = (folder: string) => path.join(folder, 'repository');
  return {
    name,
    versionArgs,
    prepare: (folder) => program(folder).init(repository(folder)),
    command: (source, folder) => program(folder).backup(repository(folder), source, 'point'),
  };
}

/** Those that are installed. */
export function installedPeers(suite: Suite): Peer[] {
  const kinds = { copy: COPY_PEERS, read: READ_PEERS, backup: BACKUP_PEERS }[suite as string] ?? [];
  return kinds.flatMap((kind) => {
    const { status, stdout } = spawnSync(kind.name, kind.versionArgs, { encoding: 'utf8' });
    return status === 0 ? [{ ...kind, version: stdout.split('\n')[0]?.trim() ?? '' }] : [];
  });
}

/**
 * Runs `own` and all peers, round by round; the ratios are of the same round. A peer that fails drops out of the ratios, with its reason, and
 * its measurement with it.
 */
export async function runWithPeers(
  own: Cell,
  source: string,
  bytes: number,
  scratch: Scratch | undefined,
  rounds: number,
  session: BenchSession,
): Promise<{ measurements: Measurement[]; peers: PeerRatio[] }> {
  const failures = new Map<string, string>();
  const peers = installedPeers(own.suite);
  const cells = peers.map((peer) => peerCell(peer, own, source, bytes, scratch, failures, session));
  const [first, ...others] = await runCells([own, ...cells], rounds, session);
  const ownRounds = first?.rounds ?? [];
  return {
    measurements: [
      ...(first === undefined ? [] : [first]),
      ...others.filter((_, index) => !failures.has(peers[index]?.name ?? '')),
    ],
    peers: peers.map(({ name, version }, index) => {
      const failure = failures.get(name);
      const ratios =
        others[index]?.rounds.map((rate, round) => (ownRounds[round] ?? 0) / rate) ?? [];
      return {
        name,
        version,
        work: own.suite,
        ...(failure === undefined ? { summary: summarize(ratios) } : { failure }),
      };
    }),
  };
}

function peerCell(
  peer: Peer,
  own: Cell,
  source: string,
  bytes: number,
  scratch: Scratch | undefined,
  failures: Map<string, string>,
  { signal }: BenchSession,
): Cell {
  return {
    id: `${own.suite}/${peer.name}`,
    suite: own.suite,
    label: peer.name,
    parameters: { peer: peer.name, version: peer.version },
    external: true,
    async run(round) {
      // Peers that only read have no folder and need none.
      const folder = scratch?.path(`peer-${peer.name}-${round}`) ?? path.dirname(source);
      if (scratch !== undefined) await mkdir(folder);
      try {
        if (failures.has(peer.name)) return { bytes, seconds: Number.POSITIVE_INFINITY };
        if (peer.prepare !== undefined) await timeCommand(peer.prepare(folder), signal);
        const seconds = await timeCommand(peer.command(source, folder), signal);
        const settled = scratch === undefined ? 0 : await settle(folder);
        return { bytes, seconds: seconds + settled };
      } catch (error) {
        if (signal.aborted || !isFirnError(error)) throw error;
        failures.set(peer.name, error.message);
        return { bytes, seconds: Number.POSITIVE_INFINITY };
      } finally {
        if (scratch !== undefined) await rm(folder, { recursive: true, force: true });
      }
    },
  };
}
