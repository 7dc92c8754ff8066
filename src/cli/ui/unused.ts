/** What a backup leaves out of a disk as unused, in words: how much, of which partitions, and why not of the others. */

import type { PointPartition, PointUnused } from '../../repository/format/objects.js';
import { formatBytes, formatCount } from './bytes.js';
import { printable, table } from './text.js';

/** More of a hostile disk's partitions say nothing to a person. */
const PARTITIONS_SHOWN = 16;

/** "37.4 GiB left out", with what was believed: one line. */
export function leftOutText(unused: PointUnused): string {
  const { skippedBytes, quiesced, keepShadowCopies, skipPageFiles } = unused;
  const conditions = [
    quiesced
      ? 'the guest had frozen its file systems'
      : 'only what was unmounted cleanly is believed',
    ...(keepShadowCopies ? [] : ['shadow copies inside the guest given up']),
    ...(skipPageFiles ? [] : ['page files kept']),
  ];
  return `${formatBytes(skippedBytes)} left out; ${conditions.join(', ')}`;
}

/** A table of the partitions, or why there is none. */
export function partitionLines(unused: PointUnused, indent: string): string[] {
  const { partitions, reason } = unused;
  if (reason !== undefined) return [`${indent}${printable(`copied whole: ${whyOf(unused)}`)}`];
  const shown = partitions.slice(0, PARTITIONS_SHOWN);
  const rows = shown.map((partition, index) => [
    String(index + 1),
    partition.fileSystem ?? '-',
    formatBytes(partition.sizeBytes),
    partition.reasonCode === undefined ? formatBytes(partition.usedBytes) : '-',
    partition.reasonCode === undefined ? formatBytes(partition.skippedBytes) : '-',
    partition.reasonCode === undefined
      ? pageFileText(partition)
      : `copied whole: ${whyOf(partition)}`,
  ]);
  const more = partitions.length - shown.length;
  return [
    ...table(COLUMNS, rows).map((line) => indent + line),
    ...(more > 0 ? [`${indent}and ${formatCount(more)} more`] : []),
  ];
}

const COLUMNS = [
  { title: 'PARTITION' },
  { title: 'HAS' },
  { title: 'SIZE', align: 'right' },
  { title: 'USED', align: 'right' },
  { title: 'LEFT OUT', align: 'right' },
  { title: '' },
] as const;

function pageFileText({ pageFileBytes = 0 }: PointPartition): string {
  return pageFileBytes > 0 ? `${formatBytes(pageFileBytes)} of it page files` : '';
}

/**
 * What a person should hear of without asking: that a partition with a file system Firn knows was copied whole, and why. Others, such as a
 * boot partition, always are.
 */
export function keptPartitionLines(name: string, { partitions }: PointUnused): string[] {
  return partitions.flatMap((partition, index) => {
    const { fileSystem, reasonCode } = partition;
    if (reasonCode === undefined || (fileSystem === undefined && reasonCode !== 'hibernated')) {
      return [];
    }
    const what = `${fileSystem ?? 'partition'} of ${formatBytes(partition.sizeBytes)}`;
    const text = `${name}: partition ${index + 1}, ${what}, was copied whole: ${whyOf(partition)}`;
    return [printable(text)];
  });
}

function whyOf({ reason, reasonCode }: { reason?: string; reasonCode?: string }): string {
  return `${reason ?? 'no reason is known'} (${reasonCode ?? 'unknown'})`;
}
