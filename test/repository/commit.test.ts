import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { firnError } from '../../src/errors.js';
import { commitRun, isQuiet, readSteadily } from '../../src/repository/commit.js';
import { Repository } from '../../src/repository/repository.js';
import {
  backupChunks,
  brokenPoints,
  chunkPoint,
  chunksOf,
  collect,
  condemn,
  memoryRepository,
  putPack,
} from '../helpers/collector.js';
import { codeOf } from '../helpers/errors.js';
import { type Around, type MemoryStore, wrapStore } from '../helpers/memory-store.js';

async function openThrough(memory: MemoryStore, around: Around): Promise<Repository> {
  return Repository.open('/nowhere', wrapStore(memory, around));
}

describe('the order of a commit', () => {
  test('is generation, condemned sets, index runs, packs, damage, work, pending, condemned sets, generation, seal', async () => {
    const { memory } = await memoryRepository();
    const steps: string[] = [];
    const repository = await openThrough(memory, (method, name, call) => {
      steps.push(`${method} ${name.replace(/[0-9a-f]{32}.*/, '*')}`);
      return call();
    });
    steps.length = 0;
    await backupChunks(repository, ['a']);
    expect(steps).toEqual([
      'get generation',
      'list condemned',
      'list index',
      'list packs',
      'list damage',
      'putNew packs/*',
      'putNew pending/*',
      'list condemned',
      'get generation',
      'putNew points/*',
      'delete pending/*',
    ]);
  });

  test('the work starts over when a pack it relies on is condemned before the seal', async () => {
    const { memory, repository } = await memoryRepository();
    const old = await putPack(memory, ['a', 'b']);
    let works = 0;
    const { point, attempts } = await commitRun(repository, {
      async store(view, attempt) {
        works++;
        expect(attempt).toBe(works - 1);
        if (attempt === 0) {
          await condemn(repository, [old]);
          return { packs: [], reliedPacks: [old] };
        }
        expect(view.condemned).toEqual([old]);
        return { packs: [await putPack(memory, ['a'])], reliedPacks: [] };
      },
      point: () => chunkPoint(['a']),
    });
    expect(attempts).toBe(2);
    expect((await repository.points()).map((each) => each.id)).toEqual([point.id]);
    expect(await repository.listIds('pending')).toEqual([]);
  });

  test('a pack that the run wrote itself and that was condemned counts as well', async () => {
    const { memory, repository } = await memoryRepository();
    const { attempts } = await commitRun(repository, {
      async store(_, attempt) {
        const pack = await putPack(memory, ['a']);
        if (attempt === 0) await condemn(repository, [pack]);
        return { packs: [pack], reliedPacks: [] };
      },
      point: () => chunkPoint(['a']),
    });
    expect(attempts).toBe(2);
  });

  test('a moved generation matters only if a pack has gone', async () => {
    for (const goes of [false, true]) {
      const { memory, repository } = await memoryRepository();
      const old = await putPack(memory, ['a']);
      const { attempts } = await commitRun(repository, {
        async store(view, attempt) {
          if (attempt > 0) expect(view.packs).toEqual([]);
          if (goes) await memory.delete(`packs/${old}.pack`);
          if (attempt === 0) await repository.moveGeneration();
          return { packs: [], reliedPacks: attempt === 0 ? [old] : [] };
        },
        point: () => chunkPoint([]),
      });
      expect(attempts).toBe(goes ? 2 : 1);
    }
  });

  test('the pending point of an earlier attempt goes only when the next one stands', async () => {
    const { memory } = await memoryRepository();
    const seen: number[] = [];
    const repository = await openThrough(memory, (method, name, call) => {
      if (name.startsWith('pending/') && method === 'delete') {
        seen.push([...memory.objects.keys()].filter((key) => key.startsWith('pending/')).length);
      }
      return call();
    });
    await commitRun(repository, {
      async store(_, attempt) {
        const pack = await putPack(memory, ['a']);
        if (attempt < 2) await condemn(repository, [pack]);
        return { packs: [pack], reliedPacks: [] };
      },
      point: () => chunkPoint(['a']),
    });
    // Two are there whenever an earlier attempt's goes; the last one goes when its point is sealed.
    expect(seen).toEqual([2, 2, 1]);
  });

  test('a run that is overtaken every time gives up, and says that it may be tried again', async () => {
    const { memory, repository } = await memoryRepository();
    const run = commitRun(repository, {
      async store() {
        const pack = await putPack(memory, ['a']);
        await condemn(repository, [pack]);
        return { packs: [pack], reliedPacks: [] };
      },
      point: () => chunkPoint(['a']),
    });
    await expect(run).rejects.toMatchObject({ code: 'ERR_REPOSITORY_CHANGED', retryable: true });
    expect(await repository.points()).toEqual([]);
    expect(await repository.listIds('pending')).toEqual([]);
  });

  test('work that fails because its packs went is done again; other failures come out', async () => {
    const { repository } = await memoryRepository();
    const { attempts } = await commitRun(repository, {
      async store(_, attempt) {
        if (attempt > 0) return { packs: [], reliedPacks: [] };
        await repository.moveGeneration();
        throw firnError('ERR_PACK_MISSING', 'gone');
      },
      point: () => chunkPoint([]),
    });
    expect(attempts).toBe(2);
    for (const code of ['ERR_PACK_MISSING', 'ERR_DISK_FULL'] as const) {
      const failing = () =>
        commitRun(repository, {
          store: () => Promise.reject(firnError(code, 'no')),
          point: () => chunkPoint([]),
        });
      expect(await codeOf(failing)).toBe(code);
    }
  });

  test('a signal that fires before the seal leaves neither a point nor a pending one', async () => {
    const { memory } = await memoryRepository();
    const controller = new AbortController();
    const repository = await openThrough(memory, async (method, name, call) => {
      const result = await call();
      if (method === 'putNew' && name.startsWith('pending/')) controller.abort();
      return result;
    });
    expect(await codeOf(() => backupChunks(repository, ['a'], controller.signal))).toBe(
      'ERR_ABORTED',
    );
    expect(await repository.points()).toEqual([]);
    expect(await repository.listIds('pending')).toEqual([]);
  });
});

describe('a store that fails', () => {
  test.each(['before', 'after'] as const)(
    'at any step, %s its effect, leaves every point whole and the next run works',
    async (when) => {
      let failed = 0;
      for (let failAt = 0; ; failAt++) {
        const { memory, repository: sound } = await memoryRepository();
        const first = await backupChunks(sound, ['a', 'b']);
        let step = -1;
        const failing = await openThrough(memory, async (_method, _name, call) => {
          step++;
          // Opening reads the config: that is step 0, and none of the commit's.
          if (step - 1 !== failAt) return call();
          if (when === 'after') await call();
          throw firnError('ERR_WRITE', 'the cable was pulled');
        });
        const outcome = await backupChunks(failing, ['b', 'c']).then(
          () => 'sealed',
          () => 'failed',
        );
        if (outcome === 'failed') failed++;
        const points = (await sound.points()).map((point) => point.id);
        expect(points).toContain(first.id);
        if (outcome === 'sealed') expect(points).toHaveLength(2);
        expect(await brokenPoints(memory)).toEqual([]);
        const next = await backupChunks(sound, ['b', 'c']);
        expect((await sound.points()).map((point) => point.id)).toContain(next.id);
        expect(await brokenPoints(memory)).toEqual([]);
        if (step - 1 < failAt) break;
      }
      expect(failed).toBeGreaterThan(6);
    },
  );
});

describe('writers and collectors at one time', () => {
  /** Two writers, a collector and any interleaving of their steps; `around` may make the store lie. */
  async function race(scheduler: fc.Scheduler, lie: (name: string, seen: string[]) => string[]) {
    const { memory, repository: sound } = await memoryRepository();
    await putPack(memory, ['a', 'b']);
    await putPack(memory, ['c']);
    await sound.seal(chunkPoint(['c']));
    const through = () =>
      openThrough(memory, (method, name, call) =>
        scheduler.schedule(Promise.resolve(), `${method} ${name}`).then(async () => {
          const result = await call();
          return method === 'list' ? lie(name, result as string[]) : result;
        }),
      );
    const actors = Promise.all([
      through().then((repository) => backupChunks(repository, ['a', 'd'])),
      through().then((repository) => backupChunks(repository, ['d', 'c', 'b'])),
      openThrough(memory, (method, name, call) =>
        scheduler.schedule(Promise.resolve(), `collector ${method} ${name}`).then(call),
      ).then(collect),
    ]);
    await scheduler.waitFor(actors);
    return brokenPoints(memory);
  }

  test('no interleaving makes a sealed point lose a chunk', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        expect(await race(scheduler, (_, seen) => seen)).toEqual([]);
      }),
      { numRuns: 1500 },
    );
  });

  test('a writer that never sees a condemned set does lose one: the race is real', async () => {
    const details = await fc.check(
      fc.asyncProperty(fc.scheduler(), async (scheduler) => {
        const blind = (name: string, seen: string[]) => (name === 'condemned' ? [] : seen);
        return (await race(scheduler, blind)).length === 0;
      }),
      { numRuns: 5000, endOnFailure: true },
    );
    expect(details.failed).toBe(true);
  });
});

describe('reading while packs move', () => {
  test('what was missing is looked for again until nothing moved', async () => {
    const { repository } = await memoryRepository();
    let rounds = 0;
    const result = await readSteadily(repository, async () => {
      rounds++;
      if (rounds === 3) return 'found';
      await repository.moveGeneration();
      throw firnError('ERR_CHUNK_MISSING', 'moved');
    });
    expect(result).toBe('found');
    rounds = 0;
    const lost = () =>
      readSteadily(repository, () => {
        rounds++;
        return Promise.reject(firnError('ERR_CHUNK_MISSING', 'lost'));
      });
    expect(await codeOf(lost)).toBe('ERR_CHUNK_MISSING');
    expect(rounds).toBe(1);
  });

  test('a repository is quiet only if no set stands, no index run went and the generation stood', async () => {
    const { memory, repository } = await memoryRepository();
    const name = `index/${'a'.repeat(32)}-0000-00000000.idx`;
    await memory.putNew(name, Buffer.alloc(1));
    expect(await isQuiet(repository, await repository.view())).toBe(true);
    const before = await repository.view();
    await memory.delete(name);
    expect(await isQuiet(repository, before)).toBe(false);
    const between = await repository.view();
    await repository.moveGeneration();
    expect(await isQuiet(repository, between)).toBe(false);
    await condemn(repository, [`${'b'.repeat(32)}/0000-00000000`]);
    expect(await isQuiet(repository, await repository.view())).toBe(false);
  });
});

describe('the pretence collector', () => {
  test('deletes what no point needs and keeps what one does', async () => {
    const { memory, repository } = await memoryRepository();
    await putPack(memory, ['garbage']);
    const point = await backupChunks(repository, ['a']);
    await collect(repository);
    expect(await memory.list('packs')).toHaveLength(1);
    expect(chunksOf(await repository.readPoint(point.id))).toEqual(['a']);
    expect(await brokenPoints(memory)).toEqual([]);
    expect(await memory.list('condemned')).toEqual([]);
  });
});
