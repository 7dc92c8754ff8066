/** `firn show`: one point, all of it. Loads no addon. */

import type { Command } from 'commander';
import {
  disksOf,
  filesOf,
  type PointDisk,
  type PointObject,
} from '../../repository/format/objects.js';
import type { Context, Register } from '../context.js';
import { formatBytes } from '../ui/bytes.js';
import { fields, formatTime, printable } from '../ui/text.js';
import { statText } from './list.js';

export function defineShow(program: Command, register: Register): void {
  program
    .command('show')
    .description('show one point with its disks')
    .argument('[point]', 'which', 'latest')
    .action(register(show));
}

async function show(context: Context, selector: string) {
  const { Repository } = await import('../../repository/repository.js');
  const repository = await Repository.open(context.repository);
  const point = await repository.resolvePoint(selector);
  context.output.document(point);
  context.output.text(...describePoint(point));
  return 0;
}

function describePoint(point: PointObject): string[] {
  const lines = [
    `point ${point.id}`,
    ...fields(
      [
        ['vm', point.vm.name + (point.vm.id === undefined ? '' : ` (${point.vm.id})`)],
        ['time', `${formatTime(point.created)} (${point.created})`],
        ['consistency', `${point.consistency}, by ${point.method}`],
        ['host', point.host],
        ['made by', point.firn === undefined ? undefined : `Firn ${point.firn}`],
        ['run', `${point.run}, attempt ${point.attempt}`],
        ['data', statText(point, 'dataBytes')],
        ['new then', `${statText(point, 'newBytes')}, stored as ${statText(point, 'storedBytes')}`],
      ],
      '  ',
    ),
  ];
  for (const disk of disksOf(point)) lines.push(...describeDisk(disk));
  for (const file of filesOf(point)) {
    lines.push(`  file ${printable(file.name)} (${formatBytes(file.fileBytes)})`);
  }
  return lines;
}

function describeDisk({ name, sizeBytes, identity, source, root }: PointDisk): string[] {
  const { format, kind, blockBytes, logicalSectorBytes, physicalSectorBytes, diskId } = identity;
  const blocks = blockBytes > 0 ? `, blocks of ${formatBytes(blockBytes)}` : '';
  return [
    `  disk ${printable(name)}`,
    ...fields(
      [
        ['size', `${formatBytes(sizeBytes)} (${sizeBytes} bytes)`],
        ['was', `${format} ${kind}${blocks}, sectors ${logicalSectorBytes}/${physicalSectorBytes}`],
        ['disk id', diskId],
        ['source', source],
        ['content', root],
      ],
      '    ',
    ),
  ];
}
