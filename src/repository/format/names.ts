/**
 * Names of files in a repository. docs/repository-format.md section 1.
 *
 * A name is believed only if it is exactly what the format says; whatever else lies in the folders is not part of the repository.
 */

import { randomBytes } from 'node:crypto';

const HEX_32 = /^[0-9a-f]{32}$/;
const LABEL = /^[0-9a-f]{32}-[0-9a-f]{32}$/;
const PACK = /^[0-9a-f]{32}\/[0-9a-f]{4}-[0-9a-f]{8}$/;
const PACK_FILE = /^([0-9a-f]{32}\/[0-9a-f]{4}-[0-9a-f]{8})\.pack$/;
const INDEX_FILE = /^[0-9a-f]{32}-[0-9a-f]{4}-[0-9a-f]{8}\.idx$/;

export const CONFIG_NAME = 'config';
export const GENERATION_NAME = 'generation';
/** The folders of a repository; every one is there from the start. */
export const FOLDERS = [
  'packs',
  'index',
  'pending',
  'points',
  'condemned',
  'labels',
  'checks',
  'damage',
  'keys',
] as const;
export type ObjectFolder = 'pending' | 'points' | 'condemned' | 'checks' | 'damage' | 'keys';

/** Attempts of a run have four hexadecimal digits. */
export const ATTEMPT_MAX = 0xffff;

/** A name never used before: 32 hexadecimal digits for a run, a point, a label, a condemned set, a record of checks or of damage. */
export function newId(): string {
  return randomBytes(16).toString('hex');
}

/** True for the id of a run, point, condemned set or repository. */
export function isId(text: string): boolean {
  return HEX_32.test(text);
}

/** The run and the attempt of a pack. */
export function writerOfPack(pack: string): { run: string; attempt: number } {
  return { run: pack.slice(0, 32), attempt: Number.parseInt(pack.slice(33, 37), 16) };
}

/** True for "RUN/ATTEMPT-SEQ". */
export function isPackName(text: string): boolean {
  return PACK.test(text);
}

/** True for the name of a label in labels/. */
export function isLabelName(text: string): boolean {
  return LABEL.test(text);
}

/** "POINT-LABEL": a listing tells which points have labels. */
export function labelName({ point, id }: { point: string; id: string }): string {
  return `${point}-${id}`;
}

/** The id of the point that a label is about. */
export function pointOfLabel(name: string): string {
  return name.slice(0, name.indexOf('-'));
}

/** "RUN/ATTEMPT-SEQ" of a file listed in packs/, or undefined if it is no pack. */
export function packOfFile(file: string): string | undefined {
  return PACK_FILE.exec(file)?.[1];
}

export function packFile(pack: string): string {
  return `packs/${pack}.pack`;
}

export function isIndexFile(file: string): boolean {
  return INDEX_FILE.test(file);
}

/** True for files that are not part of the repository: their writers are still at work, or died. */
export function isUnfinished(fileName: string): boolean {
  return fileName.startsWith('.tmp-') || fileName.endsWith('.partial');
}

/**
 * True if a disk of a point may have this name: a restore makes a file of it, so it must be one plain name on every system. 1 to 128
 * characters, no control characters or halves of characters, none of / \ : * ? " < > |, no dot or space at the end.
 */
export function isDiskName(name: string): boolean {
  return name.length >= 1 && name.length <= 128 && !/[\p{Cc}\p{Cs}/\\:*?"<>|]|[. ]$/u.test(name);
}

/**
 * The name of the file that a restore makes of a disk's name, with its extension or without. Some names mean a device to Windows in every
 * folder and with every extension ("aux.vhdx"); they get a "_" before them, everywhere, as restored files are moved between systems.
 */
export function restoredName(name: string): string {
  return /^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)/i.test(name)
    ? `_${name}`
    : name;
}
