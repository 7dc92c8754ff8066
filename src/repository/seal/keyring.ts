/**
 * The keys of a sealed repository, once a passphrase has opened them. docs/repository-format.md section 12.
 *
 * Everything is derived from two secrets: the id key, which whoever adds to the repository needs, and the master key, which reads. A
 * write-only keyring has the id key and a public key instead of the master: what it seals it cannot open.
 *
 * Buffers of secrets stay in private fields, so that printing or serializing anything that holds a keyring shows none, and `wipe`
 * overwrites them. JavaScript may have moved copies of them; a process that must not be looked into is the operating system's to protect.
 */

import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject as PlatformKey,
} from 'node:crypto';
import type { NativeSeal } from '../../engine/binding.js';
import { firnError } from '../../errors.js';
import { openBytes, sealBytes, TAG_BYTES } from '../format/aead.js';
import {
  blake3,
  deriveKey,
  deriveKeyFrom,
  deriveKeys,
  KEY_BYTES,
  type RepositoryKeys,
} from '../format/keys.js';
import { newId } from '../format/names.js';
import {
  RECORD_FLAGS,
  type RecordHeader,
  type RecordOpener,
  type RecordSealer,
} from '../format/record.js';

/** Objects are of two kinds: the state that every writer reads, and what only readers may know. */
export type ObjectKind = 'state' | 'content';
export type Capability = 'full' | 'write';

const PUBLIC_KEY_BYTES = 32;
const RUN_BYTES = 16;
// DER of an X25519 key up to its 32 bytes (RFC 8410).
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');
const PUBLIC_PREFIX = Buffer.from('302a300506032b656e032100', 'hex');
const CAPABILITY_BYTES: Readonly<Record<Capability, number>> = { full: 1, write: 2 };
/** Of a keyring, written out: capability, hash of the config, id key, master or public key. */
export const PAYLOAD_BYTES = 1 + 3 * KEY_BYTES;

interface WriteOnlyRun {
  key: Buffer;
  publicTail: Buffer;
}

export class Keyring {
  readonly capability: Capability;
  /** The hash of the config's content: a repository whose config is another one is refused. */
  readonly configHash: Buffer;
  readonly #idKey: Buffer;
  readonly #master: Buffer | undefined;
  readonly #publicKey: Buffer;
  readonly #runKey: Buffer | undefined;
  readonly #objectKeys: Readonly<Record<ObjectKind, Buffer | undefined>>;
  /** Runs of write-only keys: of a full keyring those it was told of, of a write-only one its own. */
  readonly #runs = new Map<string, WriteOnlyRun>();

  private constructor(
    configHash: Buffer,
    idKey: Buffer,
    secret: { master: Buffer } | { publicKey: Buffer },
  ) {
    this.configHash = configHash;
    this.#idKey = idKey;
    const master = 'master' in secret ? secret.master : undefined;
    this.#master = master;
    this.capability = master === undefined ? 'write' : 'full';
    this.#publicKey = 'master' in secret ? publicKeyOf(secret.master) : secret.publicKey;
    this.#runKey = master && deriveKey('firn 2026-11 seal runs', master);
    this.#objectKeys = {
      state: deriveKey('firn 2026-11 seal state', idKey),
      content: master && deriveKey('firn 2026-11 seal objects', master),
    };
  }

  /** New secrets. `idKey` is another repository's when its chunks are to have the same ids. */
  static create(configHash: Buffer, idKey: Buffer, master: Buffer): Keyring {
    return new Keyring(configHash, idKey, { master });
  }

  /** What `payload` wrote. `bytes` must be its own; ERR_TAMPERED if it is not that. */
  static read(bytes: Buffer): Keyring {
    const [configHash, idKey, secret] = [0, 1, 2].map((part) =>
      Buffer.from(bytes.subarray(1 + part * KEY_BYTES, 1 + (part + 1) * KEY_BYTES)),
    ) as [Buffer, Buffer, Buffer];
    const capability = bytes[0];
    if (capability === CAPABILITY_BYTES.full) {
      return new Keyring(configHash, idKey, { master: secret });
    }
    if (capability === CAPABILITY_BYTES.write) {
      return new Keyring(configHash, idKey, { publicKey: secret });
    }
    throw firnError('ERR_TAMPERED', 'A key holds what no key holds');
  }

  /** The secrets of this keyring, or less of them, to be wrapped; the caller wipes it. */
  payload(capability: Capability): Buffer {
    const secret = capability === 'full' ? this.#master : this.#publicKey;
    if (secret === undefined) throw this.refusal('make a key that reads');
    const head = Buffer.from([CAPABILITY_BYTES[capability]]);
    return Buffer.concat([head, this.configHash, this.#idKey, secret]);
  }

  /** What ids are made with. */
  keys(): RepositoryKeys {
    return deriveKeys(this.#idKey);
  }

  idKeyHex(): string {
    return this.#idKey.toString('hex');
  }

  /** What the native side seals and opens with. Its buffers are this keyring's own. */
  native(): NativeSeal {
    return {
      ...(this.#runKey !== undefined && { runKey: this.#runKey }),
      runs: [...this.#runs].map(([run, { key, publicTail }]) => ({ run, key, publicTail })),
      locked: false,
    };
  }

  /**
   * The id of a new run. A write-only keyring makes a key pair for it and forgets the private half: the run's id is the first half of
   * the public one, so that the packs themselves tell the rest. Such ids, and no others, begin with "f".
   */
  newRun(): string {
    if (this.#master !== undefined) {
      for (;;) {
        const id = newId();
        if (!isWriteOnlyRun(id)) return id;
      }
    }
    for (;;) {
      const pair = generateKeyPairSync('x25519');
      const ephemeral = rawPublicKey(pair.publicKey);
      const run = ephemeral.subarray(0, RUN_BYTES).toString('hex');
      if (!isWriteOnlyRun(run)) continue;
      const shared = diffieHellman({
        privateKey: pair.privateKey,
        publicKey: importPublicKey(this.#publicKey),
      });
      this.#runs.set(run, {
        key: sharedKey('firn 2026-11 write run', shared, ephemeral, this.#publicKey),
        publicTail: Buffer.from(ephemeral.subarray(RUN_BYTES)),
      });
      return run;
    }
  }

  /** True if packs of this run can be opened only after `learnRun`. */
  needsRun(run: string): boolean {
    return this.#master !== undefined && isWriteOnlyRun(run) && !this.#runs.has(run);
  }

  /** Takes in what the stripes of a write-only key's run say of it: the second half of its public key. */
  learnRun(run: string, publicTail: Buffer): void {
    const ephemeral = Buffer.concat([Buffer.from(run, 'hex'), publicTail]);
    const key = this.#sharedWith('firn 2026-11 write run', ephemeral);
    if (key !== undefined) this.#runs.set(run, { key, publicTail: Buffer.from(publicTail) });
  }

  /** Opens the records in a pack of this run and attempt. */
  packOpener({ run, attempt }: { run: string; attempt: number }): RecordOpener {
    return {
      open: (header, associated, stored) => {
        const runKey =
          this.#runs.get(run)?.key ??
          (this.#runKey && blake3(Buffer.from(run, 'hex'), this.#runKey));
        if (runKey === undefined) throw this.refusal('read');
        const number = Buffer.alloc(4);
        number.writeUInt32LE(attempt);
        const key = blake3(number, runKey);
        return orTampered(openBytes(key, header.nonce, associated, stored));
      },
    };
  }

  objectOpener(kind: ObjectKind): RecordOpener {
    return {
      open: (header, associated, stored) => {
        const isToPublicKey = header.flags === RECORD_FLAGS.toPublicKey;
        const sealed = isToPublicKey ? stored.subarray(PUBLIC_KEY_BYTES) : stored;
        const key = isToPublicKey
          ? this.#messageKey(kind, stored)
          : this.#objectKey(kind, header.id);
        if (key === undefined) throw this.refusal('read');
        return orTampered(openBytes(key, header.nonce, associated, sealed));
      },
    };
  }

  objectSealer(kind: ObjectKind): RecordSealer {
    // Each object's key is its id's: a function of the content, under a key, so that no key seals two different contents.
    if (this.#objectKeys[kind] !== undefined) {
      return {
        flags: RECORD_FLAGS.sealed,
        overheadBytes: TAG_BYTES,
        seal: (id, associated, stored) =>
          sealBytes(this.#objectKey(kind, id) as Buffer, 0n, associated, stored),
      };
    }
    const pair = generateKeyPairSync('x25519');
    const ephemeral = rawPublicKey(pair.publicKey);
    const shared = diffieHellman({
      privateKey: pair.privateKey,
      publicKey: importPublicKey(this.#publicKey),
    });
    const key = sharedKey('firn 2026-11 write object', shared, ephemeral, this.#publicKey);
    return {
      flags: RECORD_FLAGS.toPublicKey,
      overheadBytes: PUBLIC_KEY_BYTES + TAG_BYTES,
      seal: (_id, associated, stored) =>
        Buffer.concat([ephemeral, sealBytes(key, 0n, associated, stored)]),
    };
  }

  /** The error for what a write-only key may not do. */
  refusal(action: string) {
    return firnError('ERR_KEY_WRITE_ONLY', `This key can add to the repository, but not ${action}`);
  }

  /** Overwrites the secrets; the keyring is of no use after that. */
  wipe(): void {
    const secrets = [this.#idKey, this.#master, this.#runKey, ...Object.values(this.#objectKeys)];
    for (const secret of secrets) secret?.fill(0);
    for (const { key } of this.#runs.values()) key.fill(0);
  }

  #objectKey(kind: ObjectKind, id: Buffer): Buffer | undefined {
    const parent = this.#objectKeys[kind];
    return parent && blake3(id, parent);
  }

  // Only points are written by those who cannot read them.
  #messageKey(kind: ObjectKind, stored: RecordHeader['id']): Buffer | undefined {
    if (kind !== 'content') throw tampered();
    return this.#sharedWith('firn 2026-11 write object', stored.subarray(0, PUBLIC_KEY_BYTES));
  }

  #sharedWith(context: string, ephemeral: Buffer): Buffer | undefined {
    if (this.#master === undefined) return undefined;
    try {
      const shared = diffieHellman({
        privateKey: importPrivateKey(privateKeyOf(this.#master)),
        publicKey: importPublicKey(ephemeral),
      });
      return sharedKey(context, shared, ephemeral, this.#publicKey);
    } catch {
      // No public key at all, or one of those that make every secret the same.
      throw tampered();
    }
  }
}

/** What the native side is told where there is no key: stored bytes can be checked, content cannot be read. */
export const LOCKED_SEAL: NativeSeal = { runs: [], locked: true };

/** True for a run that a write-only key wrote. */
export function isWriteOnlyRun(run: string): boolean {
  return run.startsWith('f');
}

function orTampered(opened: Buffer | undefined): Buffer {
  if (opened === undefined) throw tampered();
  return opened;
}

function tampered() {
  return firnError('ERR_TAMPERED', 'A sealed record is not what was sealed');
}

function sharedKey(context: string, shared: Buffer, ephemeral: Buffer, own: Buffer): Buffer {
  const key = deriveKeyFrom(context, Buffer.concat([shared, ephemeral, own]));
  shared.fill(0);
  return key;
}

function privateKeyOf(master: Buffer): Buffer {
  return deriveKey('firn 2026-11 write private', master);
}

function publicKeyOf(master: Buffer): Buffer {
  return rawPublicKey(createPublicKey(importPrivateKey(privateKeyOf(master))));
}

function importPrivateKey(bytes: Buffer): PlatformKey {
  const key = Buffer.concat([PRIVATE_PREFIX, bytes]);
  return createPrivateKey({ key, format: 'der', type: 'pkcs8' });
}

function importPublicKey(bytes: Buffer): PlatformKey {
  const key = Buffer.concat([PUBLIC_PREFIX, bytes]);
  return createPublicKey({ key, format: 'der', type: 'spki' });
}

function rawPublicKey(key: PlatformKey): Buffer {
  return key.export({ format: 'der', type: 'spki' }).subarray(PUBLIC_PREFIX.length);
}
