/**
 * A Hyper-V host for tests: answers what Firn's scripts ask, from a real PowerShell, through modules of the same names as Windows' own
 * (modules/). Behind the answers are folders of real VHDX files. What it answers is made after Microsoft's pages, never after a real host.
 *
 * Stand-in commands connect to a port of this process, one connection for each question. DiskShadow's connection lasts as long as it does.
 */

import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Cim } from './cim.js';
import { readLayer, topOf } from './layers.js';
import {
  type Checkpoint,
  endCheckpoint,
  type Machine,
  type MachineSpec,
  makeCheckpoint,
  makeMachine,
  STATUS,
} from './machines.js';
import { Shadows } from './shadows.js';
import type { ReferencePoint } from './tracking.js';

export interface StandinVolume {
  /** Ends with a separator. */
  name: string;
  device: string;
}

/** What is to go wrong; machines by name. */
export interface Faults {
  guestVssFails?: string | undefined;
  checkpointFails?: string | undefined;
  jobWarns?: string | undefined;
  mergeStalls?: string | undefined;
  /** Merges begin so much later than their checkpoints are gone, and nothing tells of them meanwhile. */
  mergeLateMs?: number | undefined;
  mergeFails?: string | undefined;
  /** Converting its checkpoints fails. */
  convertFails?: string | undefined;
  /** The job of a conversion tells nobody what it made: as if it were looked for after its object is gone. */
  convertForgets?: boolean;
  /** Asking what changed fails with this text. */
  changesFail?: string | undefined;
  renameFails?: boolean;
  slowJobMs?: number | undefined;
  /** Jobs that make checkpoints go on until then. */
  jobHeld?: Promise<void> | undefined;
  /** Who has asked for a checkpoint is not told of the job until then. */
  answerHeld?: Promise<void> | undefined;
  /** When the cmdlet is called, before it looks at anything. */
  cmdletCalled: Map<string, (given: Record<string, unknown>) => Promise<void>>;
  /** Between a look at all settings and the answer. */
  settingsListed?: (() => Promise<void>) | undefined;
  /** The next sets fail with these codes. */
  vssCodes: string[];
  /** Sets with the machine fail with the code. */
  vssSpoiledBy: Map<string, string>;
  noAutoRecovery?: boolean;
  /** The cmdlet throws this text. */
  cmdletFails: Map<string, string>;
  /** The cmdlet warns with this text. */
  cmdletWarns: Map<string, string>;
  /** The cmdlet never answers. */
  cmdletHangs?: string | undefined;
  mergeEvents: string[];
}

const STANDIN = fileURLToPath(new URL('.', import.meta.url));
const JOB_MS = 15;

export class Hypervisor {
  readonly folder: string;
  readonly build: number;
  readonly machines: Machine[] = [];
  readonly volumes: StandinVolume[];
  readonly shadows = new Shadows(this);
  readonly cim = new Cim(this);
  readonly faults: Faults = {
    vssCodes: [],
    vssSpoiledBy: new Map(),
    cmdletFails: new Map(),
    cmdletWarns: new Map(),
    cmdletCalled: new Map(),
    mergeEvents: [],
  };
  readonly jobMs = JOB_MS;
  /** What the cluster says of where a machine is: id to node. Machines of other nodes are not listed. */
  readonly owners = new Map<string, string>();
  /** How the cluster's service starts. */
  clusterService: 'Auto' | 'Disabled' = 'Auto';
  /** What happened, for tests to look at. */
  readonly asked: { vm: string; level: number; settings: Record<string, string> }[] = [];
  readonly destroyed: string[] = [];
  readonly converted: string[] = [];
  /** How many questions never get their answer. */
  unanswered = 0;
  readonly sets: { writers: boolean; vms: string[] }[] = [];
  readonly events: Record<string, unknown>[] = [];
  /** What Microsoft Defender answers. */
  defender = { realTime: true, paths: [] as string[], processes: [] as string[] };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #following = new Set<Promise<void>>();
  readonly #heart: NodeJS.Timeout;

  private constructor(folder: string, build: number) {
    this.folder = folder;
    this.build = build;
    this.volumes = ['D', 'E with space'].map((name) => ({
      name: `${path.join(folder, name)}/`,
      device: `\\\\?\\Volume{${randomUUID()}}\\`,
    }));
    this.#server = createServer((socket) => this.#accept(socket));
    this.#heart = setInterval(() => {
      for (const machine of this.machines) if (machine.state === 'Running') machine.generation += 1;
    }, 10);
  }

  static async start(build: number, specs: readonly MachineSpec[]): Promise<Hypervisor> {
    const folder = await mkdtemp(path.join(tmpdir(), 'firn-standin-'));
    const hypervisor = new Hypervisor(folder, build);
    for (const { name } of hypervisor.volumes) await mkdir(name, { recursive: true });
    await mkdir(path.join(folder, 'shadows'));
    await hypervisor.setWriterState(1);
    await hypervisor.setAccount({});
    for (const spec of specs) await hypervisor.add(spec);
    await new Promise<void>((resolve) => hypervisor.#server.listen(0, '127.0.0.1', resolve));
    return hypervisor;
  }

  /** Adds a machine on the first volume, or on another. */
  async add(spec: MachineSpec, volume = 0): Promise<Machine> {
    const extensions = this.build < 14393 ? ['.xml'] : ['.vmcx', '.vmrs'];
    const home = this.volumes[volume]?.name ?? '';
    const machine = await makeMachine(home, this.machines.length + 1, spec, extensions);
    this.machines.push(machine);
    return machine;
  }

  /** For the PowerShell that is to find this host. */
  environment({ cluster = false } = {}): Record<string, string> {
    const { port } = this.#server.address() as { port: number };
    const modules = [path.join(STANDIN, 'modules')];
    if (cluster) modules.push(path.join(STANDIN, 'cluster'));
    return {
      FIRN_STANDIN_PORT: String(port),
      FIRN_STANDIN_WRITERS: path.join(this.folder, 'writers.txt'),
      FIRN_STANDIN_FOLDER: this.folder,
      FIRN_STANDIN_SSH_LOG: path.join(this.folder, 'ssh.log'),
      PSModulePath: modules.join(path.delimiter),
      PSModuleAnalysisCachePath: path.join(this.folder, 'module-cache'),
      PATH: `${path.join(STANDIN, 'bin')}${path.delimiter}${process.env.PATH}`,
      ProgramData: path.join(this.folder, 'ProgramData'),
    };
  }

  machine(name: string): Machine {
    const found = this.machines.find((candidate) => candidate.name === name);
    if (found === undefined) throw new Error(`there is no machine ${name}`);
    return found;
  }

  depth(name: string): number {
    return Math.max(...this.machine(name).disks.map((disk) => disk.chain.length));
  }

  async userCheckpoint(name: string, type: Checkpoint['type'] = 'Realized'): Promise<Checkpoint> {
    const machine = this.machine(name);
    const label = type === 'Recovery' ? 'OtherBackup 17' : 'before the update';
    machine.status = STATUS.creating;
    try {
      return await makeCheckpoint(machine, type, label);
    } finally {
      machine.status = undefined;
    }
  }

  async endCheckpoint(name: string, checkpoint: Checkpoint): Promise<void> {
    await endCheckpoint(this.machine(name), checkpoint);
  }

  async setWriterState(state: number): Promise<void> {
    const text = [
      "Verfassername: 'Microsoft Hyper-V VSS Writer'",
      '   Verfasserkennung: {66841cd4-6ded-4f4b-8f17-fd23f8ddc3de}',
      `   Status: [${state}] Stabil`,
    ];
    await writeFile(path.join(this.folder, 'writers.txt'), text.join('\r\n'));
  }

  /** Who runs Firn, as whoami.exe on a German system tells it, and the values in the registry that reg.exe finds. */
  async setAccount({
    user = ['nt-autorität\\system', 'S-1-5-18'],
    groups = ['S-1-16-16384', 'S-1-5-32-544'],
    privileges = ['SeBackupPrivilege', 'SeManageVolumePrivilege', 'SeSecurityPrivilege'],
    longPaths = false,
    eventSource = true,
  }): Promise<void> {
    const row = (...cells: string[]) => `${cells.map((cell) => `"${cell}"`).join(',')}\r\n`;
    const write = (name: string, text: string) => writeFile(path.join(this.folder, name), text);
    const rows = (table: string[]) => table.join('');
    await write('user.txt', row(...user));
    await write('groups.txt', rows(groups.map((sid) => row('Gruppe', 'Typ', sid, 'Aktiviert'))));
    await write('priv.txt', rows(privileges.map((name) => row(name, 'Recht', 'Deaktiviert'))));
    const value = `    LongPathsEnabled    REG_DWORD    0x${longPaths ? 1 : 0}\r\n`;
    await write('LongPathsEnabled.txt', value);
    if (eventSource) await write('Firn.txt', 'HKEY_LOCAL_MACHINE\\...\\Firn\r\n');
    else await rm(path.join(this.folder, 'Firn.txt'), { force: true });
  }

  /** Waits for work that goes on by itself before the host is stopped. */
  follow(work: Promise<void>): void {
    this.#following.add(work);
    void work.finally(() => this.#following.delete(work));
  }

  async settle(): Promise<void> {
    while (this.#following.size > 0) await Promise.all(this.#following);
  }

  async stop(): Promise<void> {
    clearInterval(this.#heart);
    this.faults.mergeStalls = undefined;
    await this.settle();
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await this.settle();
    // A shell on another machine sees a moment later that the one that began it has ended, and may write until then.
    await rm(this.folder, { recursive: true, force: true, maxRetries: 10 });
  }

  machineOf(argument: unknown): Machine | undefined {
    const id = /^(?:system|vm):(.+)$/.exec(referenceOf(argument))?.[1];
    return this.machines.find((machine) => machine.id === id);
  }

  checkpointOf(argument: unknown): { machine: Machine; checkpoint: Checkpoint } | undefined {
    const id = /^(?:settings:Microsoft|snapshot):(.+)$/.exec(referenceOf(argument))?.[1];
    for (const machine of this.machines) {
      const checkpoint = machine.checkpoints.find((candidate) => candidate.id === id);
      if (checkpoint !== undefined) return { machine, checkpoint };
    }
    return undefined;
  }

  pointOf(argument: unknown): { machine: Machine; point: ReferencePoint } | undefined {
    const id = /^point:(.+)$/.exec(referenceOf(argument))?.[1];
    for (const machine of this.machines) {
      const point = machine.points.find((candidate) => candidate.id === id);
      if (point !== undefined) return { machine, point };
    }
    return undefined;
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    // Who asks must not wait for an answer that does not come.
    this.follow(
      this.#serve(socket).catch(() => {
        socket.destroy();
      }),
    );
  }

  async #serve(socket: Socket): Promise<void> {
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done === true) return;
    if (first.value === 'diskshadow') {
      await this.shadows.serve(lines, socket);
      return;
    }
    const {
      command,
      arguments: given,
      node,
    } = JSON.parse(Buffer.from(first.value, 'base64').toString('utf8')) as {
      command: string;
      arguments: Record<string, unknown>;
      node: string;
    };
    if (this.faults.cmdletHangs === command) {
      this.unanswered += 1;
      return;
    }
    const warning = this.faults.cmdletWarns.get(command);
    const warnings = warning === undefined ? [] : [warning];
    let answer: Record<string, unknown>;
    try {
      await this.faults.cmdletCalled.get(command)?.(given);
      const failure = this.faults.cmdletFails.get(command);
      if (failure !== undefined) throw new Error(failure);
      answer = { result: await this.#answer(command, given, node), warnings };
      if (given.MethodName === 'CreateSnapshot') await this.faults.answerHeld;
    } catch (error) {
      answer = { error: (error as Error).message, warnings };
    }
    socket.end(`${Buffer.from(JSON.stringify(answer)).toString('base64')}\n`);
  }

  async #answer(command: string, given: Record<string, unknown>, node: string): Promise<unknown> {
    const vm = given.VM === undefined ? undefined : this.machineOf(given.VM);
    switch (command) {
      case 'Get-VM':
        return this.machines
          .filter(({ id }) => (this.owners.get(id) ?? node) === node)
          .map((machine) => this.#vm(machine));
      case 'Get-VMHardDiskDrive':
        return this.#drives(given);
      case 'Get-VHD':
        return [await readLayer(String(given.Path))];
      case 'Get-VMSnapshot':
        return (vm?.checkpoints ?? [])
          .filter(({ type }) => type === given.SnapshotType)
          .map(({ id, name }) => ({ StandinReference: `snapshot:${id}`, Id: id, Name: name }));
      case 'Get-VMScsiController':
        return [{ ControllerNumber: 0 }];
      case 'Get-VMReplication':
        if (vm?.replication === undefined) throw new Error('Die Replikation ist nicht aktiviert.');
        return [vm.replication];
      case 'Get-CimInstance':
        if (given.InputObject !== undefined)
          return [await this.cim.instance(referenceOf(given.InputObject))];
        return this.cim.instances(String(given.ClassName));
      case 'Get-CimClass':
        return [this.cim.classOf(String(given.ClassName))];
      case 'Get-CimAssociatedInstance':
        return this.cim.associated(referenceOf(given.InputObject), String(given.ResultClassName));
      case 'Invoke-CimMethod':
        return [
          this.cim.invoke(
            referenceOf(given.InputObject),
            String(given.MethodName),
            (given.Arguments ?? {}) as Record<string, unknown>,
          ),
        ];
      case 'Remove-CimInstance':
        await this.shadows.remove(referenceOf(given.InputObject));
        return [];
      case 'Get-WinEvent':
        if (this.faults.mergeEvents.length === 0)
          throw new Error('Es wurden keine Ereignisse gefunden.');
        return this.faults.mergeEvents.map((Message) => ({ Id: 19100, Message }));
      case 'Get-MpPreference':
        return [{ ExclusionPath: this.defender.paths, ExclusionProcess: this.defender.processes }];
      case 'Get-MpComputerStatus':
        return [{ RealTimeProtectionEnabled: this.defender.realTime }];
      case 'Write-EventLog':
        this.events.push(given);
        return [];
      case 'Get-ClusterGroup':
        return given.VMId === undefined
          ? [...this.owners.values()].map((OwnerNode) => ({ OwnerNode }))
          : this.#clusterGroup(String(given.VMId));
      case 'Get-ClusterSharedVolume':
        return [];
      default:
        throw new Error(`${command} ist hier unbekannt.`);
    }
  }

  #vm({ id, name, state, folder, checkpointType, version }: Machine): Record<string, unknown> {
    return {
      StandinReference: `vm:${id}`,
      Id: id,
      Name: name,
      State: state,
      Path: folder,
      ConfigurationLocation: folder,
      SnapshotFileLocation: folder,
      SmartPagingFilePath: folder,
      CheckpointType: checkpointType,
      Version: version,
    };
  }

  #drives({ VM, VMSnapshot }: Record<string, unknown>): Record<string, unknown>[] {
    const drive = (name: string, file: string) => {
      const [ControllerType, ControllerNumber, ControllerLocation] = name.split('-');
      return {
        ControllerType: ControllerType?.toUpperCase(),
        ControllerNumber: Number(ControllerNumber),
        ControllerLocation: Number(ControllerLocation),
        Path: file,
        DiskNumber: null,
        SupportPersistentReservations: false,
      };
    };
    if (VMSnapshot !== undefined) {
      const frozen = this.checkpointOf(VMSnapshot)?.checkpoint.frozen ?? new Map();
      return [...frozen].map(([disk, layer]) => drive(disk.name, layer.path));
    }
    const machine = this.machineOf(VM);
    return [
      ...(machine?.disks ?? []).map((disk) => drive(disk.name, topOf(disk).path)),
      ...(machine?.extraDrives ?? []),
    ];
  }

  #clusterGroup(id: string): Record<string, unknown>[] {
    const owner = this.owners.get(id.toLowerCase());
    if (owner === undefined) throw new Error('Die Gruppe wurde nicht gefunden.');
    return [{ OwnerNode: owner }];
  }
}

function referenceOf(argument: unknown): string {
  return String((argument as { reference?: unknown } | undefined)?.reference ?? '');
}
