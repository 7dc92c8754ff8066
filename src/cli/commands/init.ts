/** `firn init`: makes a repository. How disks are cut into chunks is decided here, once. */

import type { Command } from 'commander';
import { type ChunkingOptions, expected, parseSize } from '../../engine/options.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { fields } from '../ui/text.js';
import { recoveryLines } from './key.js';

interface InitFlags {
  chunking?: string;
  min?: number;
  average?: number;
  max?: number;
  like?: string;
  sealed?: boolean;
  recoveryKey?: boolean;
}

export function defineInit(program: Command, register: Register): void {
  program
    .command('init')
    .description('make a repository in an empty folder')
    .argument('[dir]', 'the folder, instead of --repo')
    .option('--chunking <scheme>', 'content (finds moved data, the default), or fixed:SIZE')
    .option('--min <size>', 'smallest chunk, 32K by default', parse.size('--min'))
    .option('--average <size>', 'average chunk, 64K by default', parse.size('--average'))
    .option('--max <size>', 'largest chunk, 256K by default', parse.size('--max'))
    .option('--like <dir>', 'a sibling of this repository: points can be copied between the two')
    .option('--sealed', 'seal it: without a passphrase nothing in it can be read')
    .option('--no-recovery-key', 'make and print no recovery key')
    .action(register(init));
}

async function init(context: Context, folder: string | undefined, flags: InitFlags) {
  const chunking = chunkingOf(flags);
  const path = folder ?? context.repository;
  const { Repository } = await import('../../repository/repository.js');
  const sibling = flags.like === undefined ? undefined : await context.openRepository(flags.like);
  const like = sibling && { ...sibling.config, idKey: sibling.idKey };
  const passphrase = flags.sealed === true ? await context.newPassphrase() : undefined;
  const repository = await Repository.create(path, { chunking, like, passphrase });
  passphrase?.fill(0);
  const recovery =
    passphrase !== undefined && flags.recoveryKey !== false
      ? (await (await import('../../jobs/keys.js')).addRecoveryKey(repository)).text
      : undefined;
  const { repositoryId, created, chunking: kept } = repository.config;
  context.output.document({
    path: repository.path,
    repositoryId,
    created,
    chunking: kept,
    sealed: repository.isSealed,
    ...(recovery !== undefined && { recoveryKey: recovery }),
  });
  const pages =
    kept.scheme === 'fixed' ? [kept.pages] : [kept.minPages, kept.averagePages, kept.maxPages];
  context.output.text(
    `made a repository in ${repository.path}`,
    ...fields(
      [
        ['id', repositoryId],
        ['sealed', repository.isSealed ? 'yes' : 'no'],
        ['chunks', `${kept.scheme}, ${pages.map((each) => formatBytes(each * 4096)).join(' / ')}`],
      ],
      '  ',
    ),
    ...(recovery === undefined ? [] : recoveryLines(recovery)),
  );
  return 0;
}

function chunkingOf(flags: InitFlags): ChunkingOptions {
  const { chunking = 'content', min, average, max, like } = flags;
  if (like !== undefined && (flags.chunking ?? min ?? average ?? max) !== undefined) {
    throw expected('--like', 'no chunk sizes, which are those of the sibling,', like);
  }
  if (chunking === 'content') {
    return { scheme: 'content', minBytes: min, averageBytes: average, maxBytes: max };
  }
  const size = /^fixed:(.+)$/.exec(chunking)?.[1];
  if (size === undefined) throw expected('--chunking', 'content or fixed:SIZE', chunking);
  if ((min ?? average ?? max) !== undefined) {
    throw expected('--chunking', 'content together with --min, --average or --max', chunking);
  }
  return { scheme: 'fixed', chunkBytes: parseSize(size, '--chunking fixed:SIZE') };
}
