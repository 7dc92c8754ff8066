/**
 * Where the command line has passphrases from: a file, a command's output, or a person. Never the command line itself, which every user of
 * the computer can read, and never a variable that holds it, which children inherit.
 *
 * A passphrase is the first line, without its end. It stays in buffers, which are overwritten where they are made here.
 */

import { spawn } from 'node:child_process';
import { open } from 'node:fs/promises';
import { firnError, fromFileSystem } from '../errors.js';

export interface PassphraseOptions {
  passwordFile?: string | undefined;
  passwordCommand?: string | undefined;
}

const PASSPHRASE_BYTES_MAX = 4096;
const CONTROL = { interrupt: 3, end: 4, backspace: 8, newline: 10, enter: 13, delete: 127 };

/** What the options name, or else the environment; undefined if neither does. */
export function passphraseOptions(
  { passwordFile, passwordCommand }: PassphraseOptions,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): PassphraseOptions | undefined {
  if (passwordFile !== undefined && passwordCommand !== undefined) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected --password-file or --password-command, not both',
    );
  }
  if (passwordFile !== undefined || passwordCommand !== undefined) {
    return { passwordFile, passwordCommand };
  }
  const file = environment.FIRN_PASSWORD_FILE;
  return file ? { passwordFile: file } : undefined;
}

/** The passphrase in a file or of a command. ERR_READ and the like; ERR_CONFIG_INVALID if there is none in it. */
export async function readPassphrase(options: PassphraseOptions): Promise<Buffer> {
  if (options.passwordFile !== undefined) {
    return firstLine(await readHead(options.passwordFile), options.passwordFile);
  }
  return firstLine(await outputOf(options.passwordCommand ?? ''), 'the password command');
}

/** True if a person can be asked. */
export function canAsk(): boolean {
  return process.stdin.isTTY === true && process.stderr.isTTY === true;
}

/** Asks a person, without showing what is typed. ERR_ABORTED for Ctrl-C. REQUIRES: canAsk(). */
export async function askPassphrase(question: string): Promise<Buffer> {
  const { stdin, stderr } = process;
  const typed: number[] = [];
  // In this order: whoever answers at once is not shown either.
  stdin.setRawMode(true);
  stderr.write(question);
  stdin.resume();
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      const onData = (bytes: Buffer) => {
        for (const byte of bytes) {
          const isEnd = [CONTROL.enter, CONTROL.newline, CONTROL.end].includes(byte);
          if (isEnd || byte === CONTROL.interrupt) {
            stdin.off('data', onData);
            if (isEnd) resolve(Buffer.from(typed));
            else reject(firnError('ERR_ABORTED', 'No passphrase was given'));
            return;
          }
          if (byte !== CONTROL.backspace && byte !== CONTROL.delete) typed.push(byte);
          // A character may have several bytes: those after the first begin with binary 10.
          else while (((typed.pop() ?? 0) & 0xc0) === 0x80);
        }
      };
      stdin.on('data', onData);
    });
  } finally {
    typed.fill(0);
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write('\n');
  }
}

/** Asks for a new passphrase, twice. ERR_INVALID_ARGUMENT if the two differ. */
export async function askNewPassphrase(): Promise<Buffer> {
  const first = await askPassphrase('New passphrase: ');
  const second = await askPassphrase('The same again: ');
  const isSame = first.equals(second);
  second.fill(0);
  if (isSame) return first;
  first.fill(0);
  throw firnError('ERR_INVALID_ARGUMENT', 'The two passphrases differ');
}

async function readHead(path: string): Promise<Buffer> {
  try {
    const file = await open(path, 'r');
    try {
      const bytes = Buffer.alloc(PASSPHRASE_BYTES_MAX + 1);
      let length = 0;
      // A pipe gives what it has, piece by piece.
      for (;;) {
        const { bytesRead } = await file.read(bytes, length, bytes.length - length, null);
        length += bytesRead;
        if (bytesRead === 0 || length === bytes.length) return bytes.subarray(0, length);
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fromFileSystem(error, 'read', 'ERR_READ');
  }
}

function outputOf(command: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let length = 0;
    const child = spawn(command, { shell: true, stdio: ['ignore', 'pipe', 'inherit'] });
    child.stdout.on('data', (piece: Buffer) => {
      if (length <= PASSPHRASE_BYTES_MAX) pieces.push(piece);
      length += piece.length;
    });
    child.on('error', (error) => reject(fromFileSystem(error, 'start', 'ERR_READ')));
    child.on('close', (code) => {
      const output = Buffer.concat(pieces);
      for (const piece of pieces) piece.fill(0);
      if (code === 0) resolve(output);
      else reject(firnError('ERR_READ', `The password command ended with exit code ${code}`));
    });
  });
}

function firstLine(bytes: Buffer, source: string): Buffer {
  const end = bytes.indexOf('\n');
  const line = bytes.subarray(0, end < 0 ? bytes.length : end);
  const passphrase = Buffer.from(line.at(-1) === CONTROL.enter ? line.subarray(0, -1) : line);
  bytes.fill(0);
  if (passphrase.length > 0 && passphrase.length <= PASSPHRASE_BYTES_MAX) return passphrase;
  throw firnError('ERR_CONFIG_INVALID', `There is no passphrase in ${source}`, {
    hint: 'The first line is the passphrase: 1 to 4096 bytes.',
  });
}
