/**
 * The objects of a sealed repository: what they show, who opens them, and that each way to change, swap or put back one is refused by its
 * own name. Files are changed as somebody would who knows the format and has no key: with all checksums right.
 */

import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { addRecoveryKey, removeKey, rotateKey } from '../../../src/jobs/keys.js';
import { newId } from '../../../src/repository/format/names.js';
import { encodeObject, type PointObject } from '../../../src/repository/format/objects.js';
import { encodeRecord } from '../../../src/repository/format/record.js';
import { Repository } from '../../../src/repository/repository.js';
import { readConfig } from '../../../src/repository/seal/access.js';
import { codeOf } from '../../helpers/errors.js';
import { temporaryFolder } from '../../helpers/folder.js';
import {
  CHEAP,
  change,
  mendChecksums,
  newSealed,
  openSealed,
  openWriteOnly,
  PASSPHRASE,
  passphrase,
} from '../../helpers/sealed.js';

function newPoint(name = 'payroll-server'): PointObject {
  return {
    type: 'point',
    version: 1,
    id: newId(),
    vm: { name },
    created: '2026-11-22T10:00:00Z',
    consistency: 'crash',
    method: 'files',
    run: newId(),
    attempt: 0,
    disks: [],
  };
}

/** All bytes of a repository's files, one after the other. */
async function allBytes(folder: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) parts.push(await readFile(path.join(entry.parentPath, entry.name)));
  }
  return Buffer.concat(parts);
}

describe('a sealed repository', () => {
  test('opens with its passphrase and gives its points back', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await repository.seal(point);
    expect(await (await openSealed(repository)).points()).toEqual([point]);
  });

  test('names no machine, no label and no key in any of its files', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await repository.writePending(point);
    await repository.seal(point);
    const label = { id: newId(), point: point.id, created: point.created, kind: 'hold' } as const;
    await repository.writeLabel({ type: 'label', version: 1, ...label, reason: 'quarterly audit' });
    const bytes = await allBytes(repository.path);
    for (const secret of ['payroll', 'quarterly', PASSPHRASE, repository.idKey]) {
      expect(bytes.includes(secret), secret).toBe(false);
    }
    expect(bytes.includes(Buffer.from(repository.idKey, 'hex'))).toBe(false);
  });

  test('shows no key when it is printed, or made JSON', async () => {
    const repository = await newSealed();
    const { idKey } = repository;
    const hidden = [idKey, PASSPHRASE, Buffer.from(idKey, 'hex').toString('base64')];
    const printed = inspect(repository, { depth: 9, showHidden: true });
    for (const secret of hidden) {
      expect(printed).not.toContain(secret);
      expect(JSON.stringify(repository)).not.toContain(secret);
      expect(JSON.stringify(repository.keyring)).toBe(
        JSON.stringify({
          capability: 'full',
          configHash: repository.keyring.configHash,
        }),
      );
    }
  });

  test('asks for a passphrase, refuses a wrong one, and one that is not needed', async () => {
    const repository = await newSealed();
    expect(await codeOf(() => Repository.open(repository.path))).toBe('ERR_KEY_REQUIRED');
    expect(await codeOf(() => openSealed(repository, 'wrong'))).toBe('ERR_KEY_WRONG');
    const plain = await Repository.create(path.join(await temporaryFolder(), 'plain'));
    expect(await codeOf(() => openSealed(plain))).toBe('ERR_NOT_SEALED');
  });

  test('that was opened without a key tells its keys and nothing else', async () => {
    const repository = await newSealed();
    await repository.seal(newPoint());
    const locked = await Repository.openLocked(repository.path);
    expect(await locked.listKeys()).toHaveLength(1);
    expect(await codeOf(() => locked.points())).toBe('ERR_KEY_REQUIRED');
    expect(await codeOf(() => locked.seal(newPoint()))).toBe('ERR_KEY_REQUIRED');
  });

  test('is made again after an init that died, whose key does not open it', async () => {
    const repository = await newSealed();
    await rm(path.join(repository.path, 'config'));
    const options = { passphrase: passphrase('second'), scryptCost: CHEAP };
    const again = await Repository.create(repository.path, options);
    expect(await codeOf(() => openSealed(again))).toBe('ERR_TAMPERED');
    expect((await openSealed(again, 'second')).id).toBe(again.id);
  });
});

test('a folder with files of somebody else is left alone, whatever their names', async () => {
  const folder = await temporaryFolder();
  await mkdir(path.join(folder, 'keys'));
  await writeFile(path.join(folder, 'keys', 'id_ed25519'), 'mine');
  expect(await codeOf(() => Repository.create(folder))).toBe('ERR_EXISTS');
  expect(await readFile(path.join(folder, 'keys', 'id_ed25519'), 'utf8')).toBe('mine');
});

describe('what somebody changes in a sealed repository', () => {
  test('every flipped bit of a point is refused, its checksums mended or not', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await repository.seal(point);
    const name = `points/${point.id}`;
    const whole = await readFile(path.join(repository.path, name));
    const tampered: string[] = [];
    for (let bit = 0; bit < whole.length * 8; bit++) {
      for (const mend of [false, true]) {
        const bytes = Buffer.from(whole);
        bytes.writeUInt8(bytes.readUInt8(bit >>> 3) ^ (1 << (bit & 7)), bit >>> 3);
        if (mend) mendChecksums(bytes);
        if (bytes.equals(whole)) continue;
        await writeFile(path.join(repository.path, name), bytes);
        const code = await codeOf(() => repository.readPoint(point.id));
        if (mend && bit >= 64 * 8) tampered.push(code);
      }
    }
    expect(new Set(tampered)).toEqual(new Set(['ERR_TAMPERED']));
  }, 300_000);

  test('every flipped bit of a key is a wrong or a tampered key, and of the config refused', async () => {
    const repository = await newSealed();
    const [key] = await repository.listKeys();
    for (const name of [`keys/${key?.id}`, 'config']) {
      const whole = await readFile(path.join(repository.path, name));
      for (let bit = 3; bit < whole.length * 8; bit += 7) {
        const bytes = Buffer.from(whole);
        bytes.writeUInt8(bytes.readUInt8(bit >>> 3) ^ (1 << (bit & 7)), bit >>> 3);
        if (mendChecksums(bytes).equals(whole)) continue;
        await writeFile(path.join(repository.path, name), bytes);
        // The id of an object that no key protects is its plain hash; the JSON is what matters.
        expect(await codeOf(() => openSealed(repository)), `${name} bit ${bit}`).toMatch(/^ERR_/);
      }
      await writeFile(path.join(repository.path, name), whole);
    }
    await openSealed(repository);
  });

  test('a wrapped key that was changed is told from a wrong passphrase', async () => {
    const repository = await newSealed();
    const [key] = await repository.listKeys();
    if (key === undefined) throw new Error('there is no key');
    const digit = key.wrapped.startsWith('0') ? '1' : '0';
    const changed = { ...key, wrapped: digit + key.wrapped.slice(1) };
    await change(repository, `keys/${key.id}`, () =>
      encodeRecord('object', undefined, encodeObject(changed)),
    );
    expect(await codeOf(() => openSealed(repository))).toBe('ERR_TAMPERED');
  });

  test('a config with other chunk sizes is not the one that the key was made for', async () => {
    const repository = await newSealed();
    const chunking = { scheme: 'fixed', pages: 1 } as const;
    await change(repository, 'config', () =>
      encodeRecord('object', undefined, encodeObject({ ...repository.config, chunking })),
    );
    expect(await codeOf(() => openSealed(repository))).toBe('ERR_TAMPERED');
  });

  test('a key object that asks for too much memory is refused before it gets it', async () => {
    const repository = await newSealed();
    const [key] = await repository.listKeys();
    if (key === undefined) throw new Error('there is no key');
    const scrypt = { cost: 2 ** 20, blockSize: 16, parallelization: 1 };
    await change(repository, `keys/${key.id}`, () =>
      encodeRecord('object', undefined, encodeObject({ ...key, scrypt })),
    );
    expect(await codeOf(() => openSealed(repository))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('an object in the place of another of its kind is swapped', async () => {
    const repository = await newSealed();
    const [a, b] = [newPoint('a'), newPoint('b')];
    await repository.seal(a);
    await repository.seal(b);
    const file = (name: string) => path.join(repository.path, name);
    await cp(file(`points/${a.id}`), file(`points/${b.id}`));
    expect(await codeOf(() => repository.readPoint(b.id))).toBe('ERR_SWAPPED');
  });

  test('a pending point that was made a sealed one is swapped', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await repository.writePending(point);
    const file = (name: string) => path.join(repository.path, name);
    await rename(file(`pending/${point.id}`), file(`points/${point.id}`));
    expect(await codeOf(() => repository.readPoint(point.id))).toBe('ERR_SWAPPED');
  });

  test('an object that is not sealed is tampered, though its id is right', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await writeFile(
      path.join(repository.path, 'points', point.id),
      encodeRecord('object', repository.keys.object, encodeObject(point)),
    );
    expect(await codeOf(() => repository.readPoint(point.id))).toBe('ERR_TAMPERED');
  });

  test('a key under the name of another is swapped, and the others still open', async () => {
    const repository = await newSealed();
    const other = await repository.addKey(passphrase('other'), { capability: 'full', cost: CHEAP });
    const [first] = (await repository.listKeys()).filter(({ id }) => id !== other.id);
    const file = (id: string) => path.join(repository.path, 'keys', id);
    await cp(file(other.id), file(first?.id ?? ''));
    expect(await codeOf(() => repository.checkObject(`keys/${first?.id}`))).toBe('ERR_SWAPPED');
    await openSealed(repository, 'other');
  });
});

describe('what somebody puts back', () => {
  const open = (repository: Repository, memory: string) =>
    Repository.open(repository.path, undefined, { passphrase: passphrase(), memory });

  test('an old generation is replayed, for a computer that has seen a newer one', async () => {
    const memory = await temporaryFolder();
    const repository = await open(await newSealed(), memory);
    const file = path.join(repository.path, 'generation');
    await repository.moveGeneration();
    await repository.generation();
    const old = await readFile(file);
    await repository.moveGeneration();
    await repository.generation();
    await writeFile(file, old);
    expect(await codeOf(() => repository.generation())).toBe('ERR_REPLAYED');
    expect(await codeOf(async () => (await open(repository, memory)).view())).toBe('ERR_REPLAYED');
    await rm(file);
    expect(await codeOf(async () => (await open(repository, memory)).view())).toBe('ERR_REPLAYED');
  });

  test('generations that move under many readers at a time are none', async () => {
    const memory = await temporaryFolder();
    const repository = await open(await newSealed(), memory);
    for (let round = 0; round < 10; round++) {
      const reads = Array.from({ length: 8 }, () => repository.generation());
      await Promise.all([...reads, repository.moveGeneration(), repository.generation()]);
    }
    await (await open(repository, memory)).generation();
  });

  test('a point that this computer has forgotten is replayed', async () => {
    const memory = await temporaryFolder();
    const repository = await open(await newSealed(), memory);
    const point = newPoint();
    await repository.seal(point);
    const file = path.join(repository.path, 'points', point.id);
    const old = await readFile(file);
    await repository.removePoint(point.id);
    await writeFile(file, old);
    const again = await open(repository, memory);
    expect(await codeOf(() => again.readPoint(point.id))).toBe('ERR_REPLAYED');
  });

  test('a config that is not sealed any more is tampered, for a computer that knows better', async () => {
    const memory = await temporaryFolder();
    const repository = await open(await newSealed(), memory);
    const { config } = await readConfig(repository.path, repository.store);
    const plain = { ...config, sealed: false, idKey: 'a'.repeat(64) };
    await change(repository, 'config', () =>
      encodeRecord('object', undefined, encodeObject(plain)),
    );
    const ask = async () => passphrase();
    const access = { passphrase: ask, memory };
    expect(await codeOf(() => Repository.open(repository.path, undefined, access))).toBe(
      'ERR_TAMPERED',
    );
  });
});

describe('keys', () => {
  test('are added, opened with, and removed', async () => {
    const repository = await newSealed();
    const added = await repository.addKey(passphrase('two'), { capability: 'full', cost: CHEAP });
    const point = newPoint();
    await (await openSealed(repository, 'two')).seal(point);
    expect(await repository.points()).toEqual([point]);
    await removeKey(repository, added.id.slice(0, 8));
    expect(await codeOf(() => openSealed(repository, 'two'))).toBe('ERR_KEY_WRONG');
  });

  test('the one that is used stays, so one that reads always does', async () => {
    const repository = await newSealed();
    await openWriteOnly(repository);
    const [first] = (await repository.listKeys()).filter(({ capability }) => capability === 'full');
    expect(await codeOf(() => removeKey(repository, first?.id ?? ''))).toBe('ERR_INVALID_ARGUMENT');
  });

  test('rotating gives the used key another passphrase and leaves the others', async () => {
    const repository = await newSealed();
    await repository.addKey(passphrase('two'), { capability: 'full', cost: CHEAP });
    await rotateKey(await openSealed(repository), passphrase('new'), { cost: CHEAP });
    expect(await codeOf(() => openSealed(repository))).toBe('ERR_KEY_WRONG');
    await openSealed(repository, 'new');
    await openSealed(repository, 'two');
    expect(await repository.listKeys()).toHaveLength(2);
  });

  test('a recovery key opens the repository however it is typed, and tells a slip of the pen', async () => {
    const repository = await newSealed();
    const { text } = await addRecoveryKey(repository);
    const typed = text.toLowerCase().replaceAll('-', ' ').replace('firn', 'FIRN ');
    expect((await openSealed(repository, text)).canRead).toBe(true);
    expect((await openSealed(repository, typed)).canRead).toBe(true);
    const digit = text.at(-1) === '0' ? '1' : '0';
    const slip = text.slice(0, -1) + digit;
    expect(await codeOf(() => openSealed(repository, slip))).toBe('ERR_KEY_WRONG');
    expect(await codeOf(() => repository.addKey(passphrase(text), { capability: 'full' }))).toBe(
      'ERR_INVALID_ARGUMENT',
    );
  });
});

describe('a write-only key', () => {
  test('adds points, which it cannot read, and who holds a full key can', async () => {
    const repository = await newSealed();
    const host = await openWriteOnly(repository);
    const point = newPoint();
    await host.writePending(point);
    await host.seal(point);
    expect(await codeOf(() => host.readPoint(point.id))).toBe('ERR_KEY_WRITE_ONLY');
    expect(await repository.points()).toEqual([point]);
    expect(await repository.readPending(point.id)).toEqual(point);
  });

  test('sees what writers must: the generation and the condemned sets', async () => {
    const repository = await newSealed();
    await repository.moveGeneration();
    const pack = `${newId()}/0000-00000000`;
    await repository.condemn([pack]);
    const host = await openWriteOnly(repository);
    expect(await host.generation()).toBe(await repository.generation());
    expect([...(await host.condemnedPacks())]).toEqual([pack]);
  });

  test('is refused everything else by name', async () => {
    const repository = await newSealed();
    const point = newPoint();
    await repository.seal(point);
    const host = await openWriteOnly(repository);
    const refused = [
      () => host.points(),
      () => host.removePoint(point.id),
      () => host.condemn([]),
      () => host.moveGeneration(),
      () => host.removeLabel(`${point.id}-${point.id}`),
      () => addRecoveryKey(host),
      () => removeKey(host, 'a'),
    ];
    for (const action of refused) expect(await codeOf(action)).toBe('ERR_KEY_WRITE_ONLY');
    expect(
      await codeOf(() => host.addKey(passphrase('x'), { capability: 'full', cost: CHEAP })),
    ).toBe('ERR_KEY_WRITE_ONLY');
  });

  test('names its runs so that they are told from all others', async () => {
    const repository = await newSealed();
    const host = await openWriteOnly(repository);
    for (let i = 0; i < 20; i++) {
      expect(host.newRun()).toMatch(/^f[0-9a-f]{31}$/);
      expect(repository.newRun()).toMatch(/^[0-9a-e][0-9a-f]{31}$/);
    }
  });
});

describe('a sibling', () => {
  test('of a sealed repository has its id key, and is sealed', async () => {
    const repository = await newSealed();
    const like = { ...repository.config, idKey: repository.idKey };
    expect((await newSealed({ like })).idKey).toBe(repository.idKey);
    const folder = path.join(await temporaryFolder(), 'plain');
    expect(await codeOf(() => Repository.create(folder, { like }))).toBe('ERR_INVALID_ARGUMENT');
  });
});
