/**
 * Plain text for a terminal: tables, name-value lists, colour.
 *
 * Names in a repository and in disk images come from elsewhere, so whatever is printed goes through printable(): a VM's name must not be
 * able to move the cursor or to retitle the window.
 */

import { styleText } from 'node:util';

/** What colour needs to know of a stream. */
export interface TextStream {
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

type Style = 'bold' | 'dim' | 'red' | 'yellow' | 'green';

/** The text in a style when the stream is a terminal that may have colours (NO_COLOR, TERM=dumb). */
export function paint(stream: TextStream, style: Style, text: string): string {
  const { NO_COLOR, TERM } = process.env;
  if (stream.isTTY !== true || TERM === 'dumb' || (NO_COLOR !== undefined && NO_COLOR !== '')) {
    return text;
  }
  return styleText(style, text, { validateStream: false });
}

/** Control characters and bidirectional overrides become visible escapes; line feeds too, unless `keepLines`. */
export function printable(text: string, keepLines = false): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (c) =>
    keepLines && c === '\n' ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

/** Rows under titles, columns two spaces apart; no lines longer than they need to be. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const cells = [
    columns.map(({ title }) => title),
    ...rows.map((row) => row.map((cell) => printable(cell))),
  ];
  const widths = columns.map((_, index) =>
    Math.max(...cells.map((row) => displayWidth(row[index] ?? ''))),
  );
  return cells.map((row) =>
    columns
      .map(({ align }, index) => {
        const cell = row[index] ?? '';
        const padding = ' '.repeat((widths[index] ?? 0) - displayWidth(cell));
        return align === 'right' ? padding + cell : cell + padding;
      })
      .join('  ')
      .trimEnd(),
  );
}

export type Field = readonly [name: string, value: string | undefined];

/** "name   value" lines, values in one column; pairs without a value are left out. */
export function fields(pairs: readonly Field[], indent = ''): string[] {
  const present = pairs.filter((pair): pair is [string, string] => pair[1] !== undefined);
  const width = Math.max(0, ...present.map(([name]) => displayWidth(name)));
  return present.map(([name, value]) =>
    `${indent}${name}${' '.repeat(width - displayWidth(name))}  ${printable(value)}`.trimEnd(),
  );
}

/** Columns that a text takes: wide East Asian characters take two, combining marks none. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text) {
    if (/\p{Mark}/u.test(character)) continue;
    width += WIDE.test(character) ? 2 : 1;
  }
  return width;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}]/u;

/** A time of a point in the local zone: "2026-11-22 14:05:09". */
export function formatTime(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const two = (value: number) => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}
