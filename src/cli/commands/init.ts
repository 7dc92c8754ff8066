/** `firn init`: makes a repository. How disks are cut into chunks is decided here, once. */

import type { Command } from 'commander';
import { type ChunkingOptions, expected, parseSize } from '../../engine/options.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { fields } from '../ui/text.js';

interface InitFlags {
  chunking?: string;
  min?: number;
  average?: number;
  max?: number;
}

export function defineInit(program: Command, register: Register): void {
  program
    .command('init')
    .description('make a repository in an empty folder')
    .argument('[dir]', 'the folder, instead of --repo')
    .option('--chunking <scheme>', 'content (finds moved data), or fixed:SIZE', 'content')
    .option('--min <size>', 'smallest chunk, 32K by default', parse.size('--min'))
    .option('--average <size>', 'average chunk, 64K by default', parse.size('--average'))
    .option('--max <size>', 'largest chunk, 256K by default', parse.size('--max'))
    .action(register(init));
}

async function init(context: Context, folder: string | undefined, flags: InitFlags) {
  const chunking = chunkingOf(flags);
  const path = folder ?? context.repository;
  const { Repository } = await import('../../repository/repository.js');
  const repository = await Repository.create(path, { chunking });
  const { repositoryId, created, chunking: kept } = repository.config;
  context.output.document({ path: repository.path, repositoryId, created, chunking: kept });
  const pages =
    kept.scheme === 'fixed' ? [kept.pages] : [kept.minPages, kept.averagePages, kept.maxPages];
  context.output.text(
    `made a repository in ${repository.path}`,
    ...fields(
      [
        ['id', repositoryId],
        ['chunks', `${kept.scheme}, ${pages.map((each) => formatBytes(each * 4096)).join(' / ')}`],
      ],
      '  ',
    ),
  );
  return 0;
}

function chunkingOf({ chunking = 'content', min, average, max }: InitFlags): ChunkingOptions {
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
