/** `firn show`: one point, all of it. Loads no addon. */

import type { Command } from 'commander';
import {
  disksOf,
  filesOf,
  type PointDisk,
  type PointObject,
} from '../../repository/format/objects.js';
import type { holdsOf } from '../../repository/labels.js';
import type { LabelledPoint } from '../../repository/retention.js';
import type { Context, Register } from '../context.js';
import { formatBytes, formatSeconds } from '../ui/bytes.js';
import { fields, formatTime, printable } from '../ui/text.js';
import { leftOutText, partitionLines } from '../ui/unused.js';
import { pointJson, statText } from './list.js';

type AnyHold = ReturnType<typeof holdsOf>[number];

export function defineShow(program: Command, register: Register): void {
  program
    .command('show')
    .description('show one point with its disks')
    .argument('[point]', 'which', 'latest')
    .action(register(show));
}

async function show(context: Context, selector: string) {
  const { holdsOf, readLabels, withLabels } = await import('../../repository/labels.js');
  const repository = await context.openRepository();
  const point = await repository.resolvePoint(selector);
  const labels = await readLabels(repository, point.id);
  const labelled = withLabels(point, labels);
  const holds = holdsOf(point, labels);
  context.output.document({ ...pointJson(labelled), holds });
  context.output.text(...describePoint(labelled, holds));
  return holds.some((hold) => 'error' in hold) ? 3 : 0;
}

function describePoint({ point, tags }: LabelledPoint, holds: readonly AnyHold[]): string[] {
  const lines = [
    `point ${point.id}`,
    ...fields(
      [
        ['vm', point.vm.name + (point.vm.id === undefined ? '' : ` (${point.vm.id})`)],
        ['time', `${formatTime(point.created)} (${point.created})`],
        ['consistency', `${point.consistency}, by ${point.method}`],
        ['tags', tags.length > 0 ? tags.join(', ') : undefined],
        ...holds.map((hold): [string, string] => ['held', holdText(hold)]),
        ...captureFields(point),
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

function holdText(hold: AnyHold): string {
  if ('error' in hold) return `by a label that cannot be read: ${hold.error.message}`;
  const { reason, created, host } = hold;
  const by = host === undefined ? '' : ` by ${host}`;
  return `${reason === undefined ? '' : `${reason}, `}since ${formatTime(created)}${by}`;
}

/** How a running machine was captured: what was wanted, what it cost the guest, how long each step took. */
function captureFields({ consistency, capture }: PointObject): [string, string | undefined][] {
  if (capture === undefined) return [];
  const { wanted, required, reason, frozenMs, job, steps } = capture;
  const least = required === wanted ? '' : `, ${required} at least`;
  const why = reason === undefined || consistency === wanted ? '' : `; less because: ${reason}`;
  const taken = steps.map(({ step, elapsedMs }) => `${step} ${formatSeconds(elapsedMs / 1000)}`);
  return [
    ['wanted', printable(`${wanted}${least}${why}`)],
    [
      'frozen',
      `${frozenMs === undefined ? '' : `for ${formatSeconds(frozenMs / 1000)}, `}at ${capture.frozenAt}`,
    ],
    ['steps', taken.join(' · ')],
    ['job', job === undefined ? undefined : printable(job)],
    ['run of VMs', capture.run],
    ['host is', printable(capture.hostVersion)],
  ];
}

function describeDisk({ name, sizeBytes, identity, source, root, unused }: PointDisk): string[] {
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
        ['unused', unused && leftOutText(unused)],
      ],
      '    ',
    ),
    ...(unused === undefined ? [] : partitionLines(unused, '      ')),
  ];
}
