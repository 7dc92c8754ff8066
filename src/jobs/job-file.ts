/**
 * Job files: what to back up and how, in YAML. docs/jobs.md has every member with an example, which a test reads.
 *
 * A job file runs unattended, months after somebody wrote it, so nothing in it is guessed: a member that is not known, a value of the
 * wrong kind or a machine that is named twice over is refused, with line, column and what was expected. Only what the file says is in the
 * result; the command line and the environment fill in the rest.
 */

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { CODECS, expected, integerIn, oneOf, parseSize, WORKERS_MAX } from '../engine/options.js';
import { type FirnError, firnError, fromFileSystem } from '../errors.js';
import { RETENTION_MEMBERS, retentionSchema } from '../repository/retention.js';
import { parseTag, parseTags } from '../repository/tags.js';
import {
  PARALLEL_VMS_MAX,
  parseConsistency,
  parseDuration,
  parseExclusion,
  parsePercent,
  parseTracking,
  parseUnused,
} from './settings.js';

const FILE_BYTES_MAX = 1024 * 1024;
const PROBLEMS_SHOWN = 20;

/** The members of a job file. Durations are milliseconds, sizes bytes, churn is a share of 0..1. */
export type JobMembers = z.infer<typeof JOB_SCHEMA>;

export interface JobFile extends Omit<JobMembers, 'map'> {
  path: string;
  /** The file's name without extension. */
  name: string;
  map?: { from: string; to: string }[] | undefined;
}

const JOB_SCHEMA = z.strictObject(
  {
    host: member('host', text),
    repository: member('repository', text),
    state: member('state', text),
    vms: list('vms', text),
    all: member('all', isTrue),
    exclude: list('exclude', (value, name) => parseExclusion(text(value, name), name)),
    consistency: member('consistency', (value, name) => parseConsistency(text(value, name), name)),
    freezeDeadline: member('freezeDeadline', duration),
    mergeDeadline: member('mergeDeadline', duration),
    tracking: member('tracking', (value, name) => parseTracking(text(value, name), name)),
    parallelVms: member('parallelVms', (value, name) =>
      integerIn(name, value, 1, PARALLEL_VMS_MAX),
    ),
    minimumFree: member('minimumFree', size),
    churn: member('churn', (value, name) => parsePercent(textOrNumber(value, name), name)),
    window: member('window', duration),
    map: z
      .record(z.string(), z.unknown().transform(checked('map', text)), {
        error: () => 'Expected members FROM: TO for map',
      })
      .optional(),
    unused: member('unused', (value, name) => parseUnused(text(value, name), name)),
    guestShadowCopies: member('guestShadowCopies', (value, name) =>
      oneOf(name, value, ['keep', 'drop'] as const),
    ),
    codec: member('codec', (value, name) => oneOf(name, value, CODECS)),
    level: member('level', (value, name) => integerIn(name, value, 0, 64)),
    memory: member('memory', size),
    workers: member('workers', (value, name) => integerIn(name, value, 1, WORKERS_MAX)),
    limit: member('limit', size),
    tags: list('tags', parseTag),
    retention: retentionSchema.optional(),
  },
  {
    error: ({ code }) =>
      code === 'unrecognized_keys' ? undefined : 'Expected members such as host, repository, vms',
  },
);

/** The names of all members, as docs/jobs.md has them. */
export const JOB_MEMBERS: readonly string[] = Object.keys(JOB_SCHEMA.shape);

/**
 * Reads and checks a job file. Throws ERR_JOB_INVALID, whose message has a line "FILE:LINE:COLUMN: what" for each mistake, or what kept the
 * file from being read.
 */
export async function readJobFile(file: string): Promise<JobFile> {
  let content: string;
  try {
    content = await readFile(file, 'utf8');
  } catch (error) {
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
  return parseJobFile(content, file);
}

/** The same of a file's content. Relative paths in it are below the folder of `file`. */
export function parseJobFile(content: string, file: string): JobFile {
  const lineCounter = new LineCounter();
  if (Buffer.byteLength(content) > FILE_BYTES_MAX) {
    throw invalid(file, [{ offset: 0, message: 'Expected a job file of at most 1 MiB' }]);
  }
  const document = parseDocument(content, { lineCounter, prettyErrors: false });
  const syntax = [...document.errors, ...document.warnings];
  if (syntax.length > 0) {
    const problems = syntax.map(({ message, pos }) => ({ offset: pos[0], message }));
    throw invalid(file, problems, lineCounter);
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw invalid(file, [{ offset: 0, message: (error as Error).message }]);
  }
  const parsed = JOB_SCHEMA.safeParse(value);
  const problems = parsed.success
    ? contradictions(parsed.data)
    : parsed.error.issues.flatMap(problemsOf);
  if (!parsed.success || problems.length > 0) {
    throw invalid(
      file,
      problems.map(({ message, path: at, member: key }) => ({
        offset: offsetOf(document, at, key),
        message,
      })),
      lineCounter,
    );
  }
  return resolvePaths(parsed.data, file);
}

/** Where the members stand in each other's way, though each is right by itself. */
function contradictions({ vms = [], all, tags = [] }: JobMembers): Problem[] {
  const problems: Problem[] = [];
  if (vms.length > 0 && all !== undefined) {
    problems.push({ path: ['all'], message: 'Expected either vms or all: true, not both' });
  }
  problems.push(...repetitions('vms', 'machine', vms), ...repetitions('tags', 'tag', tags));
  try {
    parseTags(tags, 'tags');
  } catch (error) {
    problems.push({ path: ['tags'], message: (error as Error).message });
  }
  return problems;
}

function repetitions(name: string, what: string, values: readonly string[]): Problem[] {
  const seen = new Set<string>();
  return values.flatMap((value, index) => {
    if (!seen.has(value)) {
      seen.add(value);
      return [];
    }
    return [{ path: [name, index], message: `Expected each ${what} once, "${value}" came before` }];
  });
}

/** What may stand where, by the path to it. */
const MEMBERS_OF: Readonly<Record<string, readonly string[]>> = {
  '': JOB_MEMBERS,
  retention: RETENTION_MEMBERS,
};

interface Problem {
  message: string;
  path: readonly PropertyKey[];
  /** The member of what `path` leads to that should not be there. */
  member?: string;
}

function problemsOf(issue: z.core.$ZodIssue): Problem[] {
  if (issue.code !== 'unrecognized_keys') return [{ message: issue.message, path: issue.path }];
  return issue.keys.map((key) => {
    const similar = mostSimilar(key, MEMBERS_OF[issue.path.join('.')] ?? []);
    const hint = similar === undefined ? '' : `; did you mean "${similar}"?`;
    return { message: `Unknown member "${key}"${hint}`, path: issue.path, member: key };
  });
}

/** Where in the text a value is, or the name of a member; the nearest thing around it when it has no place of its own. */
function offsetOf(
  document: ReturnType<typeof parseDocument>,
  at: readonly PropertyKey[],
  member: string | undefined,
): number {
  for (let length = at.length; length >= 0; length -= 1) {
    const node = document.getIn(at.slice(0, length), true);
    if (length === at.length && member !== undefined && isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === member);
      if (isNode(pair?.key) && pair.key.range) return pair.key.range[0];
    }
    if (isNode(node) && node.range) return node.range[0];
  }
  return 0;
}

function invalid(
  file: string,
  problems: readonly { offset: number; message: string }[],
  lineCounter?: LineCounter,
): FirnError {
  const inOrder = problems.toSorted((first, second) => first.offset - second.offset);
  const lines = inOrder.slice(0, PROBLEMS_SHOWN).map(({ offset, message }) => {
    const { line, col } = lineCounter?.linePos(offset) ?? { line: 1, col: 1 };
    return `${file}:${Math.max(1, line)}:${Math.max(1, col)}: ${message}`;
  });
  const rest = problems.length - lines.length;
  if (rest > 0) lines.push(`... and ${rest} more`);
  return firnError('ERR_JOB_INVALID', lines.join('\n'), {
    path: file,
    offset: inOrder[0]?.offset,
  });
}

/** A job is run from anywhere, by a timer: what it names relatively lies beside it. */
function resolvePaths({ map, ...members }: JobMembers, file: string): JobFile {
  const folder = path.dirname(path.resolve(file));
  const { host, repository, state } = members;
  // Only hosts that are folders have a path in them.
  const [, kind, place] = /^(lab|qemu):(.+)$/.exec(host ?? '') ?? [];
  return {
    ...members,
    ...(kind && place ? { host: `${kind}:${path.resolve(folder, place)}` } : {}),
    ...(repository === undefined ? {} : { repository: path.resolve(folder, repository) }),
    ...(state === undefined ? {} : { state: path.resolve(folder, state) }),
    ...(map === undefined
      ? {}
      : {
          map: Object.entries(map).map(([from, to]) => ({ from, to: path.resolve(folder, to) })),
        }),
    path: file,
    name: path.basename(file, path.extname(file)),
  };
}

type Parse<Value> = (value: unknown, name: string) => Value;

function member<Value>(name: string, parse: Parse<Value>) {
  return z.unknown().transform(checked(name, parse)).optional();
}

function list<Value>(name: string, parse: Parse<Value>) {
  const error = () => `Expected a list of one or more for ${name}`;
  return z
    .array(z.unknown().transform(checked(name, parse)), { error })
    .min(1, { error })
    .optional();
}

/** Makes of a parser that throws a transform that reports. */
function checked<Value>(name: string, parse: Parse<Value>) {
  return (value: unknown, context: z.RefinementCtx): Value => {
    try {
      return parse(value, name);
    } catch (error) {
      context.addIssue({ code: 'custom', message: (error as Error).message, input: value });
      return z.NEVER;
    }
  };
}

function text(value: unknown, name: string): string {
  if (typeof value === 'string' && value !== '' && value.length <= 4096) return value;
  const what = typeof value === 'number' ? 'a text (put it in quotes)' : 'a text';
  throw expected(name, what, value);
}

/** What a person writes as a bare number or with a unit: YAML makes a number of the one and a text of the other. */
function textOrNumber(value: unknown, name: string): string {
  return typeof value === 'number' ? String(value) : text(value, name);
}

function duration(value: unknown, name: string): number {
  return parseDuration(textOrNumber(value, name), name);
}

function size(value: unknown, name: string): number {
  return parseSize(textOrNumber(value, name), name);
}

function isTrue(value: unknown, name: string): true {
  if (value === true) return value;
  throw expected(name, 'true', value);
}

/** The candidate that `name` was most likely meant to be: at most a third of it is different. */
function mostSimilar(name: string, candidates: readonly string[]): string | undefined {
  const plain = (each: string) => each.toLowerCase().replace(/[-_ ]/g, '');
  const distances = candidates.map((each) => editDistance(plain(name), plain(each)));
  const least = Math.min(...distances);
  const found = candidates[distances.indexOf(least)] ?? '';
  return least <= Math.max(name.length, found.length) / 3 ? found : undefined;
}

/** How many letters have to be added, left out, replaced or swapped with their neighbour to make one of the other. */
function editDistance(first: string, second: string): number {
  // A name from a hostile file may be long; what is far longer than any member is like none of them.
  if (first.length > 64) return first.length;
  const rows = [Array.from({ length: second.length + 1 }, (_, column) => column)];
  const at = (row: number, column: number) => rows[row]?.[column] ?? 0;
  for (let row = 1; row <= first.length; row += 1) {
    rows.push([row]);
    for (let column = 1; column <= second.length; column += 1) {
      const isSame = first[row - 1] === second[column - 1];
      const isSwapped =
        row > 1 &&
        column > 1 &&
        first[row - 1] === second[column - 2] &&
        first[row - 2] === second[column - 1];
      rows[row]?.push(
        Math.min(
          at(row - 1, column - 1) + (isSame ? 0 : 1),
          at(row - 1, column) + 1,
          at(row, column - 1) + 1,
          isSwapped ? at(row - 2, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
  }
  return at(first.length, second.length);
}
