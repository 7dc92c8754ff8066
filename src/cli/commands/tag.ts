/** `firn tag`: adds tags to points and takes others away; without either, shows them. The points themselves do not change. */

import type { Command } from 'commander';
import { type Context, parse, type Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { printable } from '../ui/text.js';

interface TagFlags {
  add?: string[];
  remove?: string[];
}

export function defineTag(program: Command, register: Register): void {
  program
    .command('tag')
    .description('show or change the tags of points')
    .argument('<points...>', 'which')
    .option('--add <tag>', 'a tag that they get; may be given again', parse.list)
    .option('--remove <tag>', 'a tag that they lose; may be given again', parse.list)
    .action(register(tag));
}

async function tag(context: Context, selectors: string[], flags: TagFlags) {
  const { output } = context;
  const { changeTags } = await import('../../repository/labels.js');
  const { parseTag } = await import('../../repository/retention.js');
  const changes = {
    add: flags.add?.map((text) => parseTag(text, '--add')),
    remove: flags.remove?.map((text) => parseTag(text, '--remove')),
  };
  const repository = await context.openRepository();
  const points = [];
  for (const selector of selectors) points.push(await repository.resolvePoint(selector));
  const tagged = [];
  for (const point of points) {
    const tags = await changeTags(repository, point, changes);
    tagged.push({ id: point.id, vm: point.vm, tags });
    const shown = tags.length > 0 ? tags.join(', ') : 'no tags';
    output.text(printable(`${point.id.slice(0, ID_DIGITS)} of ${point.vm.name}: ${shown}`));
  }
  output.document({ points: tagged });
  return 0;
}
