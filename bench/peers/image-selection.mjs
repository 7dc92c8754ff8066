/**
 * Chooses the files that the benchmark images hold.
 *
 * The unit of choice is the installed package, because that is how two machines of one distribution
 * differ: they share whole packages, not single files. Packages are ranked by the hash of their
 * name, so the choice is the same on every run on one machine and favours nothing; files keep the
 * order in which their package lists them, which is the order in which an installation writes them.
 * Where no package database exists, each folder two levels below /usr stands in for a package;
 * where the machine has too little, generated files fill up and the summary says how much.
 */
import { createHash } from 'node:crypto';
import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

const BLOCK_BYTES = 4096;
const PACKAGE_DATABASE = '/var/lib/dpkg/info';
const SOURCE_ROOT = '/usr';
/** Larger packages (compilers, vendors' toolkits) would make one program the whole image. */
const PACKAGE_BYTES_MAX = 64 * 2 ** 20;
/** Names that the debugfs script language cannot carry safely are left out. */
const SAFE_PATH = /^[\x20-\x7e]+$/;
const UNSAFE_CHARACTERS = /["\\]/;

/**
 * @typedef {{ path: string, source: string, bytes: number, target?: string }} Entry
 *   `path` inside the image, `source` on this machine, `bytes` in whole blocks, `target` of a symbolic link.
 * @typedef {{ name: string, entries: Entry[], bytes: number }} Package
 */

function rank(name) {
  return createHash('sha256').update(name).digest('hex');
}

/** Describes one path, or returns undefined for what an image cannot or need not hold. */
function describe(path) {
  if (!SAFE_PATH.test(path) || UNSAFE_CHARACTERS.test(path)) return undefined;
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status?.isSymbolicLink()) {
    const target = readlinkSync(path);
    if (!SAFE_PATH.test(target) || UNSAFE_CHARACTERS.test(target)) return undefined;
    return { path, source: path, bytes: 0, target };
  }
  if (!status?.isFile()) return undefined;
  return { path, source: path, bytes: Math.ceil(status.size / BLOCK_BYTES) * BLOCK_BYTES };
}

function packageOf(name, paths) {
  const entries = paths.map(describe).filter((entry) => entry !== undefined);
  return { name, entries, bytes: entries.reduce((sum, entry) => sum + entry.bytes, 0) };
}

function* walk(folder) {
  const children = readdirSync(folder, { withFileTypes: true });
  children.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const child of children) {
    const path = join(folder, child.name);
    if (child.isDirectory()) yield* walk(path);
    else yield path;
  }
}

function packagesFromDatabase() {
  const lists = readdirSync(PACKAGE_DATABASE).filter((name) => name.endsWith('.list'));
  return lists.map((list) => {
    const paths = readFileSync(join(PACKAGE_DATABASE, list), 'utf8').split('\n');
    return packageOf(
      list.slice(0, -'.list'.length),
      paths.filter((path) => path.startsWith(`${SOURCE_ROOT}/`)),
    );
  });
}

function packagesFromFolders() {
  const packages = new Map();
  for (const path of walk(SOURCE_ROOT)) {
    const name = path.split('/').slice(2, 4).join('/');
    if (!packages.has(name)) packages.set(name, []);
    packages.get(name).push(path);
  }
  return [...packages].map(([name, paths]) => packageOf(name, paths));
}

/** All packages fit to choose from, in ranked order, no path twice. */
export function listPackages() {
  let packages;
  try {
    packages = packagesFromDatabase();
  } catch {
    packages = packagesFromFolders();
  }
  packages.sort((a, b) => (rank(a.name) < rank(b.name) ? -1 : 1));
  const seen = new Set();
  for (const item of packages) {
    item.entries = item.entries.filter(({ path }) => !seen.has(path) && seen.add(path));
    item.bytes = item.entries.reduce((sum, entry) => sum + entry.bytes, 0);
  }
  return packages.filter((item) => item.bytes > 0 && item.bytes <= PACKAGE_BYTES_MAX);
}

/** A generator of 32-bit numbers; the same seed gives the same numbers everywhere (xorshift32). */
export function randomNumbers(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}

/**
 * Writes one file of `bytes` that compresses about as program text does: words from a skewed
 * vocabulary.
 */
function writeGeneratedFile(path, bytes, seed) {
  const next = randomNumbers(seed);
  const words = Array.from({ length: 4096 }, () => next().toString(36));
  const parts = [];
  let length = 0;
  while (length < bytes) {
    const word = words[(next() % 4096) & (next() % 4096)];
    parts.push(word);
    length += word.length + 1;
  }
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, parts.join(' ').slice(0, bytes));
}

/**
 * Fills a share up to `bytes` with generated files under `folder`; returns how many bytes that
 * took.
 */
function fillUp(share, name, bytes, folder) {
  const missing = Math.floor((bytes - share.bytes) / BLOCK_BYTES) * BLOCK_BYTES;
  if (missing < 2 ** 20) return 0;
  const seed = Number.parseInt(rank(name).slice(0, 8), 16);
  const entries = [];
  for (let made = 0; made < missing; ) {
    const size = Math.min(missing - made, BLOCK_BYTES * (1 + ((seed + made) % 256)));
    const path = `/usr/share/generated-${name}/${entries.length % 64}/${entries.length}`;
    const source = join(folder, path);
    writeGeneratedFile(source, size, seed + entries.length);
    entries.push({ path, source, bytes: size });
    made += size;
  }
  share.packages.push({ name: `generated-${name}`, entries, bytes: missing });
  share.bytes += missing;
  return missing;
}

/**
 * Deals the packages into four shares: in both roots, in the first alone, in the second alone, and
 * a spare from which churn takes what it writes. Each of the first three gets half of `dataBytes`;
 * the spare needs an eighth of it.
 *
 * @returns {{ common: Package[], first: Package[], second: Package[], spare: Package[], generatedBytes: number }}
 */
export function choosePackages(dataBytes, generatedFolder) {
  const wanted = {
    common: dataBytes / 2,
    first: dataBytes / 2,
    second: dataBytes / 2,
    spare: dataBytes / 8,
  };
  const queue = listPackages();
  const chosen = {};
  let generatedBytes = 0;
  for (const [name, bytes] of Object.entries(wanted)) {
    const share = { packages: [], bytes: 0 };
    while (share.bytes < bytes && queue.length > 0) {
      const item = queue.shift();
      share.packages.push(item);
      share.bytes += item.bytes;
    }
    generatedBytes += fillUp(share, name, bytes, generatedFolder);
    chosen[name] = share.packages;
  }
  return { ...chosen, generatedBytes };
}

/**
 * Two roots list their common packages in different places, as two machines with different
 * histories would.
 */
export function installOrder(packages, salt) {
  return packages.toSorted((a, b) => (rank(salt + a.name) < rank(salt + b.name) ? -1 : 1));
}
