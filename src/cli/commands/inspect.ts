/**
 * `firn inspect`: what a disk image is, layer by layer, and what is wrong with it. Reads no repository.
 *
 * All that could be found out is printed even when the image would not open; then the reason follows, with its exit code: 30 for a
 * broken image, 10 for a parent that is not there.
 */

import type { Command } from 'commander';
import type { NativeFinding, NativeLayer } from '../../engine/binding.js';
import { fromNative } from '../../errors.js';
import { type Context, parse, type Register } from '../context.js';
import { formatBytes, formatCount, formatNumberOf } from '../ui/bytes.js';
import { fields, paint, printable, type TextStream } from '../ui/text.js';

export function defineInspect(program: Command, register: Register): void {
  program
    .command('inspect')
    .description('show what a disk image is, and what is wrong with it')
    .argument('<file>', 'VHDX, VHD or raw')
    .option('--parent-folder <dir>', 'where else parents may lie; may be given again', parse.list)
    .action(register(inspect));
}

async function inspect(context: Context, file: string, flags: { parentFolder?: string[] }) {
  const { inspectDisk } = await import('../../jobs/disk.js');
  const inspection = await inspectDisk(file, { parentFolders: flags.parentFolder });
  context.output.document(inspection);
  inspection.layers.forEach((layer, index) => {
    context.output.text(...describeLayer(layer, index, context.output.stdout));
  });
  if (inspection.error !== undefined) {
    throw fromNative(Object.assign(new Error(inspection.error.message), inspection.error));
  }
  return 0;
}

function describeLayer(layer: NativeLayer, depth: number, stream: TextStream): string[] {
  const { identity, log, blocks } = layer;
  const differencing = identity.kind === 'differencing';
  return [
    `${depth === 0 ? 'disk' : `parent ${depth}`}  ${printable(layer.path)}`,
    ...fields(
      [
        ['format', `${identity.format}, ${identity.kind}`],
        ['size', `${formatBytes(identity.sizeBytes)} (${identity.sizeBytes} bytes)`],
        ['file', `${formatBytes(layer.fileBytes)} (${layer.fileBytes} bytes)`],
        ['blocks', identity.format === 'raw' ? undefined : blockText(layer)],
        [
          'sectors',
          `${identity.logicalSectorBytes} logical, ${identity.physicalSectorBytes} physical`,
        ],
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
