/** `firn vm`: the machines of a host, what a backup of each could promise now, and what is kept there to tell what changed. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import { type Host, refOf, type Vm, type VmDisk, type VmRef } from '../../hosts/host.js';
import type { KeptReference } from '../../hosts/tracking.js';
import { type Context, parse, type Register } from '../context.js';
import { addHostOption, type HostFlags, requiredHost, withHost } from '../machines.js';
import { formatBytes, formatNumberOf } from '../ui/bytes.js';
import { fields, paint, printable, type TextStream, table } from '../ui/text.js';

export function defineVm(program: Command, register: Register): void {
  const group = program.command('vm').description('show the machines of a host');
  addHostOption(
    group
      .command('list')
      .description('list the machines, and the most that each can promise')
      .action(register(listVms)),
  );
  addHostOption(
    group
      .command('show')
      .description('show one machine with its disks')
      .argument('<vm>', 'its name or id')
      .action(register(showVm)),
  );
  addHostOption(
    group
      .command('untrack')
      .description('drop what is kept at a machine to tell what changed; the next backup reads all')
      .argument('<vm>', 'its name or id')
      .argument('[references...]', 'as "vm show" names them; all when none is given')
      .option(
        '--merge-deadline <time>',
        'how long merging a checkpoint may take, 1h by default',
        parse.duration('--merge-deadline'),
      )
      .action(register(untrack)),
  );
}

async function listVms(context: Context, flags: HostFlags) {
  await withHost(requiredHost(flags), async (host) => {
    const info = await host.info();
    const vms = await host.listVms();
    context.output.document({ host: info, vms });
    if (vms.length === 0) context.output.note(`no machines on ${printable(info.name)}`);
    else context.output.text(...vmTable(vms), ...reasonLines(vms, context.output.stdout));
  });
  return 0;
}

function vmTable(vms: readonly Vm[]): string[] {
  const columns = [
    { title: 'VM' },
    { title: 'ID' },
    { title: 'STATE' },
    { title: 'DISKS', align: 'right' },
    { title: 'SIZE', align: 'right' },
    { title: 'OCCUPIED', align: 'right' },
    { title: 'LAYERS', align: 'right' },
    { title: 'CONSISTENCY' },
  ] as const;
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const rows = vms.map(({ name, id, state, disks, reachable }) => [
    name,
    id,
    state,
    String(disks.length),
    formatBytes(sum(disks.map(({ sizeBytes }) => sizeBytes))),
    formatBytes(sum(disks.map(({ fileBytes }) => fileBytes))),
    String(Math.max(0, ...disks.map(({ layers }) => layers))),
    reachable,
  ]);
  return table(columns, rows);
}

/** Why machines reach less than they might, and which disks cannot be backed up: below the table, where there is room for words. */
function reasonLines(vms: readonly Vm[], stream: TextStream): string[] {
  const lines = vms.flatMap(({ name, reachable, reachableReason, disks }) => [
    ...(reachable === 'application'
      ? []
      : [`${name}: ${reachable} at most: ${reachableReason ?? 'the host does not say why'}`]),
    ...disks.flatMap(({ name: disk, unsupported }) =>
      unsupported === undefined ? [] : [`${name}: disk ${disk} is left out: ${unsupported}`],
    ),
  ]);
  return lines.map((line) => paint(stream, 'yellow', printable(line)));
}

async function showVm(context: Context, wanted: string, flags: HostFlags) {
  const { findVm } = await import('../../jobs/runs/plan.js');
  await withHost(requiredHost(flags), async (host) => {
    const vm = findVm(await host.listVms(), wanted);
    const references = await referencesAt(host, vm);
    context.output.document({ ...vm, references });
    context.output.text(...describeVm(vm), ...references.flatMap(describeReference));
  });
  return 0;
}

async function referencesAt(host: Host, vm: VmRef): Promise<KeptReference[]> {
  const all = (await host.tracking?.references()) ?? [];
  return all.filter((reference) => reference.vm.id === vm.id);
}

async function untrack(
  context: Context,
  wanted: string,
  names: readonly string[],
  flags: HostFlags & { mergeDeadline?: number },
) {
  const { findVm } = await import('../../jobs/runs/plan.js');
  const { VM_BACKUP_DEFAULTS } = await import('../../jobs/runs/types.js');
  await withHost(requiredHost(flags), async (host) => {
    const vm = refOf(findVm(await host.listVms(), wanted));
    const { tracking } = host;
    if (tracking === undefined) {
      throw firnError('ERR_UNSUPPORTED', `${host.spec} keeps nothing to tell what changed`);
    }
    const deadline = flags.mergeDeadline ?? VM_BACKUP_DEFAULTS.mergeDeadlineMs;
    const doomed =
      names.length > 0 ? names : (await referencesAt(host, vm)).map(({ name }) => name);
    for (const name of doomed) {
      await tracking.drop(vm, name, deadline);
      context.output.note(`${printable(vm.name)}: ${printable(name)} is dropped`);
    }
    context.output.document({ vm, dropped: doomed });
    if (doomed.length === 0) context.output.note(`nothing is kept at ${printable(vm.name)}`);
  });
  return 0;
}

function describeReference({ name, method, made, bytes }: KeptReference): string[] {
  return [
    `  reference ${printable(name)}`,
    ...fields(
      [
        ['method', method],
        ['since', made],
        ['takes', bytes === undefined ? undefined : formatBytes(bytes)],
      ],
      '    ',
    ),
  ];
}

function describeVm(vm: Vm): string[] {
  const reason = vm.reachableReason === undefined ? '' : `: ${vm.reachableReason}`;
  return [
    `vm ${printable(vm.name)}`,
    ...fields(
      [
        ['id', vm.id],
        ['state', vm.state],
        ['reaches', `${vm.reachable} consistency${reason}`],
      ],
      '  ',
    ),
    ...vm.disks.flatMap(describeDisk),
  ];
}

function describeDisk({ name, path, layers, sizeBytes, fileBytes, volume, unsupported }: VmDisk) {
  return [
    `  disk ${printable(name)}`,
    ...fields(
      [
        [
          'size',
          `${formatBytes(sizeBytes)} (${sizeBytes} bytes), ${formatBytes(fileBytes)} in use`,
        ],
        ['file', path],
        ['chain', formatNumberOf(layers, 'layer')],
        ['volume', volume],
        ['left out', unsupported],
      ],
      '    ',
    ),
  ];
}
