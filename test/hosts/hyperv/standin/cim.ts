/**
 * The stand-in's root\virtualization\v2 and root\cimv2: the classes, methods, codes and jobs that Firn uses, as Microsoft's pages describe
 * them. What is strict there is strict here: unknown properties, wrong types and second deletions are refused.
 */

import { randomUUID } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Hypervisor } from './hypervisor.js';
import {
  type Checkpoint,
  endCheckpoint,
  type Machine,
  makeCheckpoint,
  STATUS,
} from './machines.js';
import {
  changesOf,
  endPoint,
  makePoint,
  pointOf,
  type ReferencePoint,
  storagesOf,
} from './tracking.js';

type Values = Record<string, unknown>;

export interface Job {
  id: string;
  state: number;
  errorCode: number;
  description: string;
  errors: string[];
  result?: Checkpoint | undefined;
  point?: ReferencePoint | undefined;
  machine: Machine;
}

export const RECOVERY = 'Microsoft:Hyper-V:Snapshot:Recovery';

export function escapeXml(text: string): string {
  return text.replace(/[<>&"']/g, (character) => `&#${character.codePointAt(0)};`);
}

function unescapeXml(text: string): string {
  const names: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" };
  return text.replace(/&(\w+);/g, (_whole, name: string) => names[name] ?? '?');
}

/** The properties of an embedded instance of the class, or nothing if it is none. */
function parseInstance(text: unknown, className: string): Map<string, string> | undefined {
  const whole = /^<INSTANCE CLASSNAME="(\w+)">(.*)<\/INSTANCE>$/s.exec(String(text));
  if (whole?.[1] !== className) return undefined;
  const property = /<PROPERTY NAME="(\w+)" TYPE="\w+"><VALUE>([^<]*)<\/VALUE><\/PROPERTY>/gs;
  const properties = [...(whole[2] ?? '').matchAll(property)];
  return new Map(properties.map(([, name, value]) => [name ?? '', unescapeXml(value ?? '')]));
}

export class Cim {
  readonly #hypervisor: Hypervisor;
  readonly jobs = new Map<string, Job>();

  constructor(hypervisor: Hypervisor) {
    this.#hypervisor = hypervisor;
  }

  async instances(className: string): Promise<Values[]> {
    const { machines } = this.#hypervisor;
    switch (className) {
      case 'Win32_OperatingSystem':
        return [this.#operatingSystem()];
      case 'Win32_Volume':
        return this.#volumes();
      case 'Win32_Service':
        return [{ Name: 'ClusSvc', StartMode: this.#hypervisor.clusterService }];
      case 'Win32_ShadowCopy':
        return this.#hypervisor.shadows.instances();
      case 'Msvm_ComputerSystem':
        return [
          { StandinReference: 'host', Name: 'THEHOST', OperationalStatus: [2] },
          ...machines.map(systemOf),
        ];
      case 'Msvm_VssComponent':
        return machines.filter(({ guest }) => guest !== 'none').map(vssComponentOf);
      case 'Msvm_KvpExchangeComponent':
        return machines.filter(({ guest }) => guest !== 'none').map(exchangeOf);
      case 'Msvm_VirtualSystemSettingData':
        return this.#settings();
      case 'Msvm_StorageAllocationSettingData':
        return machines.flatMap(storagesOf);
      case 'Msvm_VirtualSystemReferencePoint':
        if (this.#hypervisor.build < 14393) throw new Error(`Ungültige Klasse ${className}`);
        return machines.flatMap((machine) =>
          machine.points.map((point) => pointOf(machine, point)),
        );
      case 'Msvm_ConcreteJob':
        return [...this.jobs.values()].map(jobOf);
      case 'Msvm_VirtualSystemSnapshotService':
      case 'Msvm_VirtualSystemManagementService':
      case 'Msvm_VirtualSystemReferencePointService':
      case 'Msvm_ImageManagementService':
        return [{ StandinReference: `service:${className}` }];
      default:
        throw new Error(`Ungültige Klasse ${className}`);
    }
  }

  async instance(reference: string): Promise<Values> {
    const [kind, id = ''] = splitReference(reference);
    if (kind === 'job') {
      const job = this.jobs.get(id);
      if (job === undefined) throw new Error('Nicht gefunden');
      return jobOf(job);
    }
    if (kind === 'settings') {
      const all = await this.instances('Msvm_VirtualSystemSettingData');
      const found = all.find((settings) => settings.StandinReference === reference);
      if (found !== undefined) return found;
    }
    throw new Error('Nicht gefunden');
  }

  classOf(className: string): Values {
    if (className !== 'Msvm_VirtualSystemSnapshotSettingData') throw new Error('Nicht gefunden');
    return { CimClassProperties: this.#snapshotProperties().map((Name) => ({ Name })) };
  }

  associated(reference: string, resultClass: string): Values[] {
    const [kind, id = ''] = splitReference(reference);
    const job = kind === 'job' ? this.jobs.get(id) : undefined;
    if (resultClass === 'Msvm_VirtualSystemReferencePoint') {
      return job?.point === undefined ? [] : [pointOf(job.machine, job.point)];
    }
    return job?.result === undefined ? [] : [checkpointOf(job.machine, job.result)];
  }

  invoke(reference: string, method: string, parameters: Values): Values {
    const [kind, id = ''] = splitReference(reference);
    if (kind === 'job' && method === 'GetErrorEx') {
      const message = (text: string) =>
        `<INSTANCE CLASSNAME="Msvm_Error"><PROPERTY NAME="Message" TYPE="string"><VALUE>${escapeXml(text)}</VALUE></PROPERTY></INSTANCE>`;
      return { ReturnValue: 0, Errors: (this.jobs.get(id)?.errors ?? []).map(message) };
    }
    switch (method) {
      case 'CreateSnapshot':
        return this.#createSnapshot(parameters);
      case 'DestroySnapshot':
        return this.#destroySnapshot(parameters);
      case 'ConvertToReferencePoint':
        return this.#convert(parameters);
      case 'DestroyReferencePoint':
        return this.#destroyPoint(parameters);
      case 'GetVirtualDiskChanges':
        return this.#changes(parameters);
      case 'ModifySystemSettings':
        return this.#rename(parameters);
      default:
        throw new Error(`Ungültige Methode ${method}`);
    }
  }

  #snapshotProperties(): string[] {
    const since2019 = this.#hypervisor.build >= 17763 ? ['GuestBackupType'] : [];
    return ['ConsistencyLevel', 'IgnoreNonSnapshottableDisks', ...since2019];
  }

  #createSnapshot({ AffectedSystem, SnapshotSettings, SnapshotType }: Values): Values {
    const machine = this.#hypervisor.machineOf(AffectedSystem);
    const settings = parseInstance(SnapshotSettings, 'Msvm_VirtualSystemSnapshotSettingData');
    if (machine === undefined || settings === undefined || SnapshotType !== 32768) {
      return { ReturnValue: 4 };
    }
    const known = this.#snapshotProperties();
    if ([...settings.keys()].some((name) => !known.includes(name))) return { ReturnValue: 4 };
    if (machine.status !== undefined) return { ReturnValue: 5 };
    const level = Number(settings.get('ConsistencyLevel'));
    this.#hypervisor.asked.push({
      vm: machine.name,
      level,
      settings: Object.fromEntries(settings),
    });
    return this.#start(machine, (job) => this.#makeSnapshot(machine, level, job));
  }

  async #makeSnapshot(machine: Machine, level: number, job: Job): Promise<void> {
    const { faults, jobMs } = this.#hypervisor;
    machine.status = STATUS.creating;
    await sleep(faults.slowJobMs ?? jobMs);
    await faults.jobHeld;
    const guestFails =
      level === 1 && (machine.guest === 'none' || faults.guestVssFails === machine.name);
    if (guestFails || faults.checkpointFails === machine.name) {
      job.errorCode = 32768;
      job.description = `Fehler beim Prüfpunktvorgang für "${machine.name}".`;
      job.errors = [
        'Der Vorgang konnte für den virtuellen Computer nicht ausgeführt werden: VSS im Gast (0x80070539).',
      ];
      job.state = 10;
      machine.status = undefined;
      return;
    }
    job.result = await makeCheckpoint(machine, 'Recovery', `${machine.name} - Sicherung`);
    machine.status = undefined;
    if (faults.jobWarns === machine.name) {
      job.description = 'Ein Datenträger wurde ausgelassen.';
      job.state = 32768;
    } else {
      job.state = 7;
    }
  }

  #destroySnapshot({ AffectedSnapshot }: Values): Values {
    const found = this.#hypervisor.checkpointOf(AffectedSnapshot);
    if (found === undefined) return { ReturnValue: 4 };
    const { machine, checkpoint } = found;
    if (machine.status !== undefined) return { ReturnValue: 5 };
    const { faults } = this.#hypervisor;
    this.#hypervisor.destroyed.push(checkpoint.name);
    return this.#start(machine, async (job) => {
      machine.status = STATUS.deleting;
      await sleep(this.#hypervisor.jobMs);
      if (faults.mergeFails === machine.name) {
        machine.status = undefined;
        job.errors = ['Die Datei wird von einem anderen Prozess verwendet (0x80070020).'];
        job.errorCode = 32768;
        job.state = 10;
        return;
      }
      const merging = async () => {
        await sleep(this.#hypervisor.jobMs);
        while (faults.mergeStalls === machine.name) await sleep(10);
      };
      const gone = async () => {
        if (faults.mergeLateMs === undefined) return;
        machine.status = undefined;
        job.state = 7;
        await sleep(faults.mergeLateMs);
      };
      await endCheckpoint(machine, checkpoint, merging, gone);
      job.state = 7;
    });
  }

  /** The job ends when the reference point is there; the merge goes on after it. */
  #convert({ AffectedSnapshot }: Values): Values {
    const found = this.#hypervisor.checkpointOf(AffectedSnapshot);
    if (found?.checkpoint.type !== 'Recovery') return { ReturnValue: 4 };
    const { machine, checkpoint } = found;
    if (machine.status !== undefined) return { ReturnValue: 5 };
    if (Number.parseInt(machine.version, 10) < 8) return { ReturnValue: 1 };
    const { faults, jobMs } = this.#hypervisor;
    this.#hypervisor.converted.push(checkpoint.name);
    return this.#start(machine, async (job) => {
      machine.status = STATUS.deleting;
      await sleep(jobMs);
      if (faults.convertFails === machine.name) {
        machine.status = undefined;
        fail(job, 'Die Konvertierung ist fehlgeschlagen (0x80070020).');
        return;
      }
      const point = makePoint(machine);
      if (faults.convertForgets !== true) job.point = point;
      await endCheckpoint(machine, checkpoint, async () => {
        job.state = 7;
        await sleep(jobMs);
        while (faults.mergeStalls === machine.name) await sleep(10);
      });
    });
  }

  #destroyPoint({ AffectedReferencePoint }: Values): Values {
    const found = this.#hypervisor.pointOf(AffectedReferencePoint);
    if (found === undefined) return { ReturnValue: 32773 };
    if (found.machine.status !== undefined) return { ReturnValue: 32775 };
    return this.#start(found.machine, async (job) => {
      await sleep(this.#hypervisor.jobMs);
      endPoint(found.machine, found.point);
      job.state = 7;
    });
  }

  #changes(parameters: Values): Values {
    const { machines, faults } = this.#hypervisor;
    const known = ['Path', 'LimitId', 'TargetSnapshotId', 'ByteOffset', 'ByteLength'];
    if (Object.keys(parameters).some((name) => !known.includes(name))) {
      return { ReturnValue: 32773 };
    }
    const [machine] = machines;
    const disks = machines.flatMap((each) => each.disks);
    const answer = faults.changesFail ?? changesOf(disks, parameters);
    if (typeof answer !== 'string' || machine === undefined) return answer as Values;
    return this.#start(machine, async (job) => fail(job, answer));
  }

  #rename({ SystemSettings }: Values): Values {
    const settings = parseInstance(SystemSettings, 'Msvm_VirtualSystemSettingData');
    const instance = settings?.get('InstanceID') ?? '';
    const found = this.#hypervisor.checkpointOf({ reference: `settings:${instance}` });
    if (found === undefined || this.#hypervisor.faults.renameFails) return { ReturnValue: 32773 };
    found.checkpoint.name = settings?.get('ElementName') ?? '';
    return { ReturnValue: 0 };
  }

  #start(machine: Machine, work: (job: Job) => Promise<void>): Values {
    const id = randomUUID();
    const job: Job = { id, state: 4, errorCode: 0, description: '', errors: [], machine };
    this.jobs.set(id, job);
    this.#hypervisor.follow(
      work(job).catch((error: unknown) => {
        job.errors = [String(error)];
        job.state = 10;
      }),
    );
    return { ReturnValue: 4096, Job: { StandinReference: `job:${id}`, InstanceID: id } };
  }

  async #settings(): Promise<Values[]> {
    const seen = this.#hypervisor.machines.flatMap((machine) => [
      settingsOf(machine),
      ...machine.checkpoints.map((checkpoint) => checkpointOf(machine, checkpoint)),
    ]);
    await this.#hypervisor.faults.settingsListed?.();
    return seen;
  }

  #operatingSystem(): Values {
    const { build } = this.#hypervisor;
    const [year, version] = build < 14393 ? ['2012 R2', '6.3'] : ['2016', '10.0'];
    return { Caption: `Microsoft Windows Server ${year} Standard`, Version: `${version}.${build}` };
  }

  async #volumes(): Promise<Values[]> {
    return Promise.all(
      this.#hypervisor.volumes.map(async ({ name, device }) => {
        const { blocks, bavail, bsize } = await statfs(name);
        return {
          Name: name,
          DeviceID: device,
          Capacity: blocks * bsize,
          FreeSpace: bavail * bsize,
        };
      }),
    );
  }
}

function fail(job: Job, text: string): void {
  job.errors = [text];
  job.errorCode = 32768;
  job.state = 10;
}

function splitReference(reference: string): [string, string] {
  const colon = reference.indexOf(':');
  return [reference.slice(0, colon), reference.slice(colon + 1)];
}

function systemOf({ id, name, status }: Machine): Values {
  return {
    StandinReference: `system:${id}`,
    Name: id.toUpperCase(),
    ElementName: name,
    OperationalStatus: status === undefined ? [2] : [11, status],
  };
}

function vssComponentOf({ id }: Machine): Values {
  return { SystemName: id.toUpperCase(), EnabledState: 2, OperationalStatus: [2, 32896] };
}

function exchangeOf({ id, guest }: Machine): Values {
  const os = guest === 'windows' ? 'Windows Server 2016 <"&\'>' : 'Debian GNU/Linux';
  const item = (name: string, data: string) =>
    `<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem"><PROPERTY NAME="Data" TYPE="string"><VALUE>${escapeXml(data)}</VALUE></PROPERTY>` +
    `<PROPERTY NAME="Name" TYPE="string"><VALUE>${name}</VALUE></PROPERTY></INSTANCE>`;
  const items = [item('FullyQualifiedDomainName', 'guest'), item('OSName', os)];
  return { SystemName: id.toUpperCase(), GuestIntrinsicExchangeItems: items };
}

function settingsOf(machine: Machine): Values {
  const { id, name, configuration, folder } = machine;
  return {
    StandinReference: `settings:Microsoft:${id}`,
    InstanceID: `Microsoft:${id}`,
    ElementName: name,
    VirtualSystemType: 'Microsoft:Hyper-V:System:Realized',
    VirtualSystemIdentifier: id,
    ConfigurationDataRoot: folder,
    ConfigurationFile: path.relative(folder, configuration[0] ?? ''),
    CreationTime: { date: new Date().toISOString() },
  };
}

export function checkpointOf(machine: Machine, checkpoint: Checkpoint): Values {
  return {
    StandinReference: `settings:Microsoft:${checkpoint.id}`,
    InstanceID: `Microsoft:${checkpoint.id}`,
    ElementName: checkpoint.name,
    VirtualSystemType:
      checkpoint.type === 'Recovery' ? RECOVERY : 'Microsoft:Hyper-V:Snapshot:Realized',
    VirtualSystemIdentifier: machine.id.toUpperCase(),
    ConfigurationDataRoot: machine.folder,
    ConfigurationFile: path.relative(machine.folder, checkpoint.configuration[0] ?? ''),
    CreationTime: { date: checkpoint.created.toISOString() },
  };
}

function jobOf({ id, state, errorCode, description }: Job): Values {
  return {
    StandinReference: `job:${id}`,
    InstanceID: id,
    JobState: state,
    ErrorCode: errorCode,
    ErrorDescription: description,
    ErrorSummaryDescription: description,
    PercentComplete: state === 7 ? 100 : 50,
  };
}
