/**
 * `firn inspect`: what a disk image is, layer by layer, and what is wrong with it. Reads no repository.
 *
 * All that could be found out is printed even when the image would not open; then the reason follows, with its exit code: 30 for a
 * broken image, 10 for a parent that is not there.
 */

import type { Command } from 'commander';
import type { NativeFinding, NativeLayer } from '../../engine/binding.js';
import { firnError, fromNative } from '../../errors.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { type Field, fields, paint, printable, type TextStream } from '../ui/text.js';
import { leftOutText, partitionLines } from '../ui/unused.js';

export function defineInspect(program: Command, register: Register): void {
  program
    .command('inspect')
    .description('show what a disk image is, and what is wrong with it')
    .argument('<file>', 'VHDX, VHD or raw')
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .option('--driver', "what Windows' own driver for virtual disks says of it, on Windows")
    .option('--changed-since <id>', 'with --driver: what was written since this tracking id')
    .option('--unused', 'also show what a backup with --skip-unused leaves out, and why not more')
    .option('--drop-guest-shadow-copies', 'with --unused: as backup does with this option')
    .action(register(inspect));
}

interface InspectFlags {
  parentFolder?: string[];
  driver?: boolean;
  changedSince?: string;
  unused?: boolean;
  dropGuestShadowCopies?: boolean;
}

async function inspect(context: Context, file: string, flags: InspectFlags) {
  if (flags.dropGuestShadowCopies === true && flags.unused !== true) {
    throw firnError('ERR_INVALID_ARGUMENT', '--drop-guest-shadow-copies needs --unused');
  }
  if (flags.driver === true) return inspectWithDriver(context, file, flags);
  if (flags.changedSince !== undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', '--changed-since needs --driver');
  }
  const { inspectDisk } = await import('../../jobs/disk.js');
  const inspection = await inspectDisk(file, { parentFolders: flags.parentFolder });
  const unused = inspection.error === undefined ? await unusedOf(context, file, flags) : undefined;
  context.output.document({ ...inspection, ...(unused !== undefined && { unused }) });
  inspection.layers.forEach((layer, index) => {
    context.output.text(...describeLayer(layer, index, context.output.stdout));
  });
  if (unused !== undefined) {
    context.output.text(`unused  ${leftOutText(unused)}`, ...partitionLines(unused, '  '));
  }
  if (inspection.error !== undefined) {
    throw fromNative(Object.assign(new Error(inspection.error.message), inspection.error));
  }
  return 0;
}

async function inspectWithDriver(context: Context, file: string, flags: InspectFlags) {
  const { driverChanges, openDriverDisk } = await import('../../jobs/disk.js');
  const { disk, tracking } = await openDriverDisk(file);
  const { identity } = disk;
  disk.close();
  const { changedSince: since } = flags;
  const ranges = since === undefined ? undefined : await driverChanges(file, since);
  context.output.document({
    path: file,
    identity,
    ...(tracking !== undefined && { tracking }),
    ...(ranges !== undefined && { changes: { since, ranges } }),
  });
  const changed = ranges?.reduce((sum, [, length]) => sum + length, 0);
  context.output.text(
    `disk  ${printable(file)}, as the driver sees it`,
    ...fields(
      [
        ...identityRows(identity),
        ['sectors', sectorText(identity)],
        ['disk id', identity.diskId || undefined],
        ['tracking', tracking?.enabled === true ? 'on' : 'off'],
        ['newest id', tracking?.mostRecentId || undefined],
        [
          'changed',
          changed === undefined
            ? undefined
            : `${formatBytes(changed)} in ${formatNumberOf(ranges?.length ?? 0, 'range')}`,
        ],
      ],
      '  ',
    ),
  );
  return 0;
}

async function unusedOf(context: Context, file: string, flags: InspectFlags) {
  if (flags.unused !== true) return undefined;
  const { findUnused } = await import('../../jobs/unused.js');
  const { parentFolder: parentFolders, dropGuestShadowCopies } = flags;
  const { signal, tuning } = context;
  return findUnused(file, { parentFolders, dropGuestShadowCopies, signal, tuning });
}

function describeLayer(layer: NativeLayer, depth: number, stream: TextStream): string[] {
  const { identity, log, blocks } = layer;
  const differencing = identity.kind === 'differencing';
  return [
    `${depth === 0 ? 'disk' : `parent ${depth}`}  ${printable(layer.path)}`,
    ...fields(
      [
        ...identityRows(identity),
        ['file', `${formatBytes(layer.fileBytes)} (${layer.fileBytes} bytes)`],
        ['blocks', identity.format === 'raw' ? undefined : blockText(layer)],
        ['sectors', sectorText(identity)],
        ['log', identity.format === 'vhdx' ? logText(log) : undefined],
        ['disk id', identity.diskId || undefined],
        ['data write', layer.dataWriteGuid || undefined],
        ['made by', layer.creator || undefined],
        ['linked to', differencing ? layer.parentLinkage : undefined],
        ...layer.parentLocator.map(([key, value]): [string, string] => [`  ${key}`, value]),
        [
          'partial',
          blocks.partial > 0
            ? `${formatNumberOf(blocks.partial, 'block')} over the parent's`
            : undefined,
        ],
      ],
      '  ',
    ),
    ...layer.findings.map((finding) => findingLine(finding, stream)),
  ];
}

function identityRows({ format, kind, sizeBytes }: NativeLayer['identity']): Field[] {
  return [
    ['format', `${format}, ${kind}`],
    ['size', `${formatBytes(sizeBytes)} (${sizeBytes} bytes)`],
  ];
}

function sectorText(identity: NativeLayer['identity']): string {
  return `${identity.logicalSectorBytes} logical, ${identity.physicalSectorBytes} physical`;
}

function blockText({ identity, blocks }: NativeLayer): string {
  const { total, full, zero } = blocks;
  const of = `${formatCount(full)} of ${formatCount(total)}`;
  return `${of} present, ${formatCount(zero)} zero, ${formatBytes(identity.blockBytes)} each`;
}

function logText(log: NativeLayer['log']): string {
  if (log.state === 'replayed') {
    return `dirty: ${formatCount(log.entries)} log entries, ${formatNumberOf(log.pages, 'page')}, applied on reading`;
  }
  return log.state === 'clean'
    ? `clean (${formatBytes(log.lengthBytes)} at ${log.offset})`
    : 'none';
}

function findingLine(
  { severity, code, message, offset }: NativeFinding,
  stream: TextStream,
): string {
  const style = ({ info: 'dim', warning: 'yellow', error: 'red' } as const)[severity];
  const place = offset === undefined ? '' : ` at ${offset}`;
  return `  ${paint(stream, style, `${severity}: ${code}`)}${place}: ${printable(message)}`;
}
