import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { DirectoryStore } from '../../../src/repository/stores/directory.js';
import { codeOf } from '../../helpers/errors.js';
import { firn, MAIN, said } from '../../helpers/firn.js';
import { temporaryFolder } from '../../helpers/folder.js';

async function makeStore(): Promise<DirectoryStore> {
  const store = new DirectoryStore(path.join(await temporaryFolder(), 'deep', 'store'));
  await store.prepare(['points', 'packs']);
  return store;
}

describe('directory store', () => {
  test('gives back what was put, and leaves no other file', async () => {
    const store = await makeStore();
    await store.putNew('points/a', Buffer.from('one'));
    expect((await store.get('points/a')).toString()).toBe('one');
    expect(await readdir(path.join(store.root, 'points'))).toEqual(['a']);
  });

  test('never overwrites', async () => {
    const store = await makeStore();
    await store.putNew('points/a', Buffer.from('one'));
    expect(await codeOf(() => store.putNew('points/a', Buffer.from('two')))).toBe('ERR_EXISTS');
    expect((await store.get('points/a')).toString()).toBe('one');
    expect(await readdir(path.join(store.root, 'points'))).toEqual(['a']);
  });

  test('of many who put one name at a time, one alone succeeds, and its content stays whole', async () => {
    const store = await makeStore();
    const contents = Array.from({ length: 20 }, (_, index) => Buffer.alloc(50_000, index + 1));
    const outcomes = await Promise.allSettled(
      contents.map((content) => store.putNew('points/a', content)),
    );
    const winners = outcomes.flatMap(({ status }, index) =>
      status === 'fulfilled' ? [index] : [],
    );
    expect(winners).toHaveLength(1);
    expect((await store.get('points/a')).equals(contents[winners[0] as number] as Buffer)).toBe(
      true,
    );
    expect(await readdir(path.join(store.root, 'points'))).toEqual(['a']);
  });

  test('replaces at once: a reader sees the old content or the new, never a part', async () => {
    const store = await makeStore();
    await store.replace('generation', Buffer.alloc(100_000, 1));
    const seen = new Set<string>();
    const writing = (async () => {
      for (let byte = 2; byte < 40; byte++)
        await store.replace('generation', Buffer.alloc(100_000, byte));
    })();
    let done = false;
    void writing.then(() => {
      done = true;
    });
    while (!done) {
      const content = await store.get('generation');
      expect(content.length).toBe(100_000);
      expect(content.equals(Buffer.alloc(100_000, content[0]))).toBe(true);
      seen.add(String(content[0]));
    }
    await writing;
    expect(seen.size).toBeGreaterThan(0);
  });

  test('lists files at any depth, and leaves out what is still being written', async () => {
    const store = await makeStore();
    await mkdir(path.join(store.root, 'packs', 'run'));
    for (const name of ['run/0000.pack', 'run/.tmp-1', 'run/0001.pack.partial', '.tmp-2', 'x']) {
      await writeFile(path.join(store.root, 'packs', name), '');
    }
    expect((await store.list('packs')).sort()).toEqual(['run/0000.pack', 'x']);
    expect(await store.list('nowhere')).toEqual([]);
  });

  test('deletes, and what is not there is deleted already', async () => {
    const store = await makeStore();
    await store.putNew('points/a', Buffer.from('one'));
    await store.delete('points/a');
    await store.delete('points/a');
    expect(await codeOf(() => store.get('points/a'))).toBe('ERR_NOT_FOUND');
  });

  test('refuses an object that is longer than any can be, without reading it', async () => {
    const store = await makeStore();
    const file = path.join(store.root, 'points', 'huge');
    await writeFile(file, '');
    await truncate(file, 3 * 1024 ** 4);
    expect(await codeOf(() => store.get('points/huge'))).toBe('ERR_CORRUPT_OBJECT');
  });

  test('a folder in the place of an object is an error, not a crash', async () => {
    const store = await makeStore();
    await mkdir(path.join(store.root, 'points', 'a'));
    expect(await codeOf(() => store.get('points/a'))).toBe('ERR_READ');
    expect(await codeOf(() => store.putNew('points/a', Buffer.alloc(1)))).toBe('ERR_EXISTS');
  });

  test('symbolic links are not listed', async () => {
    const store = await makeStore();
    await symlink('/etc/hostname', path.join(store.root, 'points', 'link'));
    expect(await store.list('points')).toEqual([]);
  });

  test('a writer killed at any moment leaves names free or whole', async () => {
    const store = await makeStore();
    // Writes objects as fast as it can, in a process of its own, with the compiled store.
    expect((await firn(['--version'])).status).toBe(0);
    const compiled = pathToFileURL(path.join(MAIN, '../../repository/stores/directory.js')).href;
    const script = `
      import { DirectoryStore } from ${JSON.stringify(compiled)};
      const store = new DirectoryStore(process.argv[1]);
      process.stdout.write('ready');
      for (let number = 0; ; number++) {
        await store.putNew('points/' + process.pid + '-' + number, Buffer.alloc(300000, number));
        await store.replace('generation', Buffer.alloc(300000, number));
        if (number === 0) process.stdout.write('written');
      }`;
    for (let round = 0; round < 8; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script, store.root]);
      // One of them has written something, however slow the disk is.
      await said(child, round === 0 ? 'written' : 'ready');
      await new Promise((resolve) => setTimeout(resolve, 3 + round * 17));
      child.kill('SIGKILL');
      await once(child, 'exit');
      expect(child.signalCode).toBe('SIGKILL');
    }
    expect((await store.list('points')).length).toBeGreaterThan(0);
    const isUniform = (bytes: Buffer) => bytes.equals(Buffer.alloc(300_000, bytes[0]));
    expect(isUniform(await store.get('generation'))).toBe(true);
    for (const name of await store.list('points')) {
      const content = await readFile(path.join(store.root, 'points', name));
      expect(isUniform(content)).toBe(true);
    }
    await store.putNew('points/after', Buffer.from('still works'));
  });
});
