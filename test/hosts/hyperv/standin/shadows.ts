/**
 * The stand-in's VSS: sessions of DiskShadow and what they make. A shadow copy is a folder with copies of the volume's files, and with the
 * AutoRecovery layers of the guests that were frozen for it. It goes when its session ends, however it ends.
 */

import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import path from 'node:path';
import type { Hypervisor, StandinVolume } from './hypervisor.js';
import { addLayer, type Layer, type StandinDisk, writeChild } from './layers.js';
import { type Machine, mergeInto, STATUS } from './machines.js';

const WRITER = '{66841cd4-6ded-4f4b-8f17-fd23f8ddc3de}';

interface ShadowCopy {
  id: string;
  set: string;
  volume: StandinVolume;
  folder: string;
  made: Date;
}

interface Session {
  writers: boolean;
  inBackup: boolean;
  verified: string[];
  excluded: string[];
  volumes: StandinVolume[];
  copies: ShadowCopy[];
  /** Disks with a layer that the guest writes to during the session, and the layer below it. */
  running: { machine: Machine; disk: StandinDisk; below: Layer }[];
}

export class Shadows {
  readonly #hypervisor: Hypervisor;
  #copies: ShadowCopy[] = [];
  #number = 0;
  /** Commands as they came, of all sessions. */
  readonly commands: string[] = [];
  /** How many sessions are open. */
  sessions = 0;

  constructor(hypervisor: Hypervisor) {
    this.#hypervisor = hypervisor;
  }

  instances(): Record<string, unknown>[] {
    return this.#copies.map(({ id, set, volume, folder, made }) => ({
      StandinReference: `shadow:${id}`,
      ID: id.toUpperCase(),
      SetID: set,
      VolumeName: volume.device,
      DeviceObject: folder,
      InstallDate: { date: made.toISOString() },
    }));
  }

  async remove(reference: string): Promise<void> {
    const copy = this.#copies.find(({ id }) => `shadow:${id}` === reference);
    if (copy !== undefined) await this.#drop([copy]);
  }

  /** Serves one DiskShadow until its connection ends. */
  async serve(lines: AsyncIterator<string>, socket: Socket): Promise<void> {
    const session: Session = {
      writers: true,
      inBackup: false,
      verified: [],
      excluded: [],
      volumes: [],
      copies: [],
      running: [],
    };
    this.sessions += 1;
    try {
      for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
        const command = line.value.trim();
        if (command === 'eof') break;
        this.commands.push(command);
        if (command === 'exit') break;
        const answer = await this.#run(command, session);
        // The zero byte ends the answer, and is not printed.
        if (!socket.destroyed) socket.write(`DISKSHADOW> ${answer}\n\0`);
      }
      socket.end();
    } finally {
      await this.#end(session);
      this.sessions -= 1;
    }
  }

  async #run(command: string, session: Session): Promise<string> {
    const quoted = /"([^"]*)"/.exec(command)?.[1];
    const [first, second] = command.split(' ');
    if (command.startsWith('set context volatile'))
      session.writers = !command.endsWith('nowriters');
    else if (command === `writer verify ${WRITER}`) session.verified.push(WRITER);
    else if (command.startsWith('writer exclude')) session.excluded.push(quoted ?? '');
    else if (command === 'begin backup') session.inBackup = true;
    else if (command === 'end backup') await this.#end(session);
    else if (command.startsWith('add volume')) return this.#addVolume(command, session);
    else if (command === 'create') return this.#create(session);
    else if (first === 'exec') return this.#execute(quoted ?? '');
    else if (!(first === 'set' && (second === 'verbose' || second === 'metadata'))) {
      return `Ungültiger Befehl: ${command}`;
    }
    return '';
  }

  #addVolume(command: string, session: Session): string {
    const name = /^add volume (?:"([^"]*)"|(\S+)) alias \w+$/.exec(command);
    const text = name?.[1] ?? name?.[2] ?? '';
    const volume = this.#hypervisor.volumes.find((candidate) => candidate.name === `${text}/`);
    if (volume === undefined) return `Das Volume "${text}" ist ungültig. 0x80042308`;
    if (session.volumes.includes(volume)) return 'Das Volume ist bereits hinzugefügt. 0x8004230D';
    session.volumes.push(volume);
    return '';
  }

  /** Runs a command file of the one form that it knows: @echo TEXT>"%~dp0NAME". */
  async #execute(file: string): Promise<string> {
    const echo = /^@echo (\w+)>"%~dp0(\w+)"\r\n$/.exec(await readFile(file, 'latin1'));
    if (echo === null) return 'Der Befehl kann nicht ausgeführt werden.';
    await writeFile(path.join(path.dirname(file), echo[2] ?? ''), `${echo[1]}\r\n`);
    return '';
  }

  async #create(session: Session): Promise<string> {
    const { faults, machines } = this.#hypervisor;
    const code = faults.vssCodes.shift();
    if (code !== undefined) return `Fehler: ${code}\n\tVSS_E_IRGENDWAS`;
    if (!session.writers && faults.guestVssFails !== undefined) {
      return 'Nicht genügend Speicherplatz. 0x8004231f';
    }
    const included = session.writers
      ? machines.filter((machine) => this.#isIncluded(machine, session))
      : [];
    this.#hypervisor.sets.push({ writers: session.writers, vms: included.map(({ name }) => name) });
    const culprit = included.find((machine) => faults.vssSpoiledBy.has(machine.name));
    if (culprit !== undefined)
      return `Der Verfasser meldet ${faults.vssSpoiledBy.get(culprit.name)}`;
    const outside = included.some(
      (machine) => !session.volumes.some((volume) => holds(volume, machine)),
    );
    if (outside) return 'Fehler 0x800423F0';
    const frozen = included.filter(
      (machine) => machine.state === 'Running' && machine.guest !== 'none',
    );
    // Machines without guest VSS that are part of a set are saved: what Firn must not let happen.
    for (const machine of included) {
      if (machine.state === 'Running' && machine.guest === 'none') machine.state = 'Saved';
    }
    const set = `{${randomUUID()}}`;
    await this.#freeze(frozen, session, set);
    const lines = session.copies.map(
      ({ id }, index) => `Der Alias FIRN${index} für die Schattenkopie-ID ${id} wurde festgelegt.`,
    );
    return [`Schattenkopiesatz-ID ${set}`, ...lines].join('\n');
  }

  #isIncluded(machine: Machine, session: Session): boolean {
    const component = `Microsoft Hyper-V VSS Writer:\\${machine.id.toUpperCase()}`;
    return (
      !session.excluded.includes(component) &&
      session.volumes.some((volume) => holds(volume, machine))
    );
  }

  async #freeze(machines: readonly Machine[], session: Session, set: string): Promise<void> {
    const made = new Date();
    for (const volume of session.volumes) {
      this.#number += 1;
      const folder = path.join(this.#hypervisor.folder, 'shadows', `Copy${this.#number}`);
      await cp(volume.name, folder, { recursive: true, mode: constants.COPYFILE_FICLONE });
      session.copies.push({ id: `{${randomUUID()}}`, set, volume, folder, made });
    }
    this.#copies.push(...session.copies);
    for (const machine of machines) {
      for (const disk of machine.disks) {
        const below = disk.chain.at(-1) as Layer;
        const copy = session.copies.find(({ volume }) => below.path.startsWith(volume.name));
        if (copy === undefined) continue;
        const inCopy = path.join(copy.folder, below.path.slice(copy.volume.name.length));
        const { dir, name } = path.parse(inCopy);
        // What programs in the guest brought to disk in the freeze.
        if (!this.#hypervisor.faults.noAutoRecovery) {
          await writeChild(
            path.join(dir, `${name}-AutoRecovery.avhdx`),
            inCopy,
            new Map([[777, 0x77]]),
          );
        }
        session.running.push({ machine, disk, below });
        machine.generation += 1;
        await addLayer(disk, new Map([[500, 0x55]]));
      }
    }
  }

  /** The end of a backup: shadow copies go, and the layers that guests wrote to meanwhile are merged. */
  async #end(session: Session): Promise<void> {
    await this.#drop(session.copies.splice(0));
    for (const { machine, disk, below } of session.running.splice(0)) {
      machine.status = STATUS.merging;
      await mergeInto(machine, disk, below);
      machine.status = undefined;
    }
  }

  async #drop(copies: readonly ShadowCopy[]): Promise<void> {
    // One may be removed by its id while its session ends.
    const left = copies.filter((copy) => this.#copies.includes(copy));
    this.#copies = this.#copies.filter((copy) => !copies.includes(copy));
    for (const { folder } of left) await rm(folder, { recursive: true, force: true });
  }
}

function holds(volume: StandinVolume, machine: Machine): boolean {
  return machine.folder.startsWith(volume.name);
}
