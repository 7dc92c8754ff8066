/** What the facts of a host mean for backups, as the checks of `firn doctor`. */

import type { Check, Leftover, Vm, Volume } from '../host.js';
import { whyUntracked } from './reference-points.js';
import type { Facts, Info } from './replies.js';

export const BUILD_2012_R2 = 9600;
export const BUILD_2016 = 14393;

/** From here on a chain slows its machine down, and something has kept its layers from being merged. */
const LAYERS_MANY = 10;
const FREE_SHARE_LOW = 0.1;
/** A backup program keeps one reference point of a machine, or two for a while. */
const FOREIGN_POINTS_MANY = 4;

export interface DoctorInput {
  info: Info;
  facts: Facts;
  vms: readonly Vm[];
  volumes: readonly Volume[];
  leftovers: readonly Leftover[];
  /** The method is the VSS set. */
  vss: boolean;
}

export function diagnose(input: DoctorInput): Check[] {
  return [
    checkVersion(input.info),
    checkElevation(input.facts),
    ...(input.facts.module ? [] : [NO_MODULE]),
    ...(input.vss ? [checkWriter(input.facts)] : []),
    ...input.vms.flatMap((vm) => checkVm(vm, input)),
    ...input.volumes.map(checkVolume),
    ...input.leftovers.map(checkLeftover),
  ];
}

const NO_MODULE: Check = {
  name: 'Hyper-V module',
  state: 'error',
  message: 'The PowerShell module for Hyper-V is not installed on the host',
  hint: 'Run "Install-WindowsFeature Hyper-V-PowerShell" on the host.',
};

function checkVersion({ caption, version, build }: Info): Check {
  const known = build >= BUILD_2012_R2;
  return {
    name: 'version',
    state: known ? 'ok' : 'error',
    message: `${caption} (${version})`,
    ...(!known && { hint: 'Firn backs up Windows Server 2012 R2 and later.' }),
  };
}

function checkElevation({ elevated }: Facts): Check {
  if (elevated === null) {
    return {
      name: 'elevation',
      state: 'unknown',
      message: 'Whether Firn runs as an administrator there cannot be told',
      hint: 'If calls are refused, use an account in the group Administrators.',
    };
  }
  return {
    name: 'elevation',
    state: elevated ? 'ok' : 'error',
    message: elevated ? 'Runs as an administrator' : 'Does not run as an administrator',
    ...(!elevated && { hint: 'Start Firn in an elevated shell, or with an account that may.' }),
  };
}

function checkWriter({ writer }: Facts): Check {
  const name = 'Hyper-V VSS writer';
  if (!writer?.found) {
    return {
      name,
      state: 'error',
      message: 'The Hyper-V VSS writer is not there',
      hint: 'It lives in the service "vmms": see that it runs; restart it when it suits, machines run on.',
    };
  }
  // 1 is stable; 5 waits for the end of a backup that goes on; the others are failures of a backup that was.
  if (writer.state === 1) return { name, state: 'ok', message: 'Stable' };
  return {
    name,
    state: 'warning',
    message: `Its state is ${writer.state}, not 1 (stable)`,
    hint: 'If no backup is running, restart the service "vmms" when it suits; machines run on.',
  };
}

function checkVm(vm: Vm, { facts, vss }: DoctorInput): Check[] {
  const name = `machine ${vm.name}`;
  const fact = facts.vms.find((candidate) => candidate.id === vm.id);
  const warnings: Omit<Check, 'name' | 'state'>[] = [];
  if (vm.reachable !== 'application') {
    warnings.push({
      message: `Reaches ${vm.reachable} consistency: ${vm.reachableReason ?? 'the host does not say why'}`,
      hint: 'Switch on the integration service for backups, and see that its service runs in the guest.',
    });
  }
  for (const disk of vm.disks) {
    if (disk.unsupported !== undefined) {
      warnings.push({
        message: `The disk ${disk.name} cannot be backed up from the host: ${disk.unsupported}`,
        hint: 'Back it up from inside the guest, or exclude it from the job.',
      });
    }
    if (disk.layers >= LAYERS_MANY) {
      warnings.push({
        message: `The disk ${disk.name} has ${disk.layers} layers`,
        hint: 'Find out why its checkpoints are not merged: look for the event 19100 in the log of Hyper-V-VMMS.',
      });
    }
  }
  if (fact !== undefined) warnings.push(...vmFactWarnings(vm, fact, vss));
  if (warnings.length === 0) return [{ name, state: 'ok', message: 'Can be backed up as it is' }];
  return warnings.map((warning) => ({ name, state: 'warning', ...warning }));
}

function vmFactWarnings(
  vm: Vm,
  fact: Facts['vms'][number],
  vss: boolean,
): Omit<Check, 'name' | 'state'>[] {
  const warnings: Omit<Check, 'name' | 'state'>[] = [];
  if (fact.busy !== undefined) {
    warnings.push({ message: `Now ${fact.busy}`, hint: 'Wait until that is done.' });
  }
  if (fact.checkpointType === 'Disabled') {
    warnings.push({
      message: 'Checkpoints are disabled for it',
      hint: 'If its backups fail, allow production checkpoints: Set-VM -CheckpointType Production.',
    });
  }
  const replication = fact.replication;
  if (replication && /initial|resync/i.test(replication.state)) {
    warnings.push({
      message: `Its replication is in the state ${replication.state}`,
      hint: 'Back it up when that is done: layers cannot be merged meanwhile.',
    });
  }
  if (!vss) warnings.push(...trackingWarnings(fact.tracking));
  if (vss && fact.scsiControllers === 0) {
    warnings.push({
      message: 'It has no SCSI controller, without which 2012 R2 cannot freeze it (event 10103)',
      hint: 'Add a SCSI controller to the machine; it needs no disk.',
    });
  }
  const outside = vm.disks.find(
    (disk) => !(fact.snapshotLocation ?? '').toLowerCase().startsWith(disk.volume.toLowerCase()),
  );
  if (vss && outside !== undefined) {
    warnings.push({
      message: `Its checkpoint folder is on another volume than the disk ${outside.name}`,
      hint: 'Set-VM -SnapshotFileLocation: otherwise 2012 R2 saves the machine instead of freezing it.',
    });
  }
  return warnings;
}

function trackingWarnings({
  version,
  foreign,
}: Facts['vms'][number]['tracking']): Omit<Check, 'name' | 'state'>[] {
  const warnings: Omit<Check, 'name' | 'state'>[] = [];
  const untracked = whyUntracked(version);
  if (untracked !== undefined) {
    warnings.push({
      message: `Every run reads the whole of its disks: ${untracked}`,
      hint: 'Update-VMVersion while it is off. It cannot go back to an older host after that.',
    });
  }
  if (foreign >= FOREIGN_POINTS_MANY) {
    warnings.push({
      message: `It has ${foreign} reference points that are not known as Firn's`,
      hint: 'Ask the backup program that made them to clean up; a machine that moved here may have brought those of its last host.',
    });
  }
  return warnings;
}

function checkVolume({ name, sizeBytes, freeBytes }: Volume): Check {
  const share = sizeBytes === 0 ? 0 : freeBytes / sizeBytes;
  const low = share < FREE_SHARE_LOW;
  return {
    name: `volume ${name}`,
    state: low ? 'warning' : 'ok',
    message: `${Math.floor(share * 100)} % is free`,
    ...(low && {
      hint: 'Free space: layers grow during a backup, and merging them takes room too.',
    }),
  };
}

function checkLeftover({ kind, name, vm, mark, detail }: Leftover): Check {
  const where = vm === undefined ? '' : ` at ${vm.name}`;
  const about = detail === undefined ? '' : ` (${detail})`;
  if (mark !== undefined) {
    return {
      name: 'left over',
      state: 'warning',
      message: `A ${kind}${where} of the run ${mark}: ${name}${about}`,
      hint: 'If no run of Firn is at it, run "firn reconcile".',
    };
  }
  return {
    name: 'left over',
    state: 'warning',
    message: `A ${kind}${where} that is not Firn's: ${name}${about}`,
    hint: 'Ask the backup program that made it to clean up. Firn leaves it alone, and does not back up beside it.',
  };
}
