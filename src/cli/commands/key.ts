/** `firn key`: who can open a sealed repository. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { KeyObject } from '../../repository/format/objects.js';
import type { Context, Register } from '../context.js';
import {
  askNewPassphrase,
  canAsk,
  type PassphraseOptions,
  passphraseOptions,
  readPassphrase,
} from '../passphrase.js';
import { fields, formatTime, table } from '../ui/text.js';

interface NewPassphraseFlags {
  newPasswordFile?: string;
  newPasswordCommand?: string;
}

interface AddFlags extends NewPassphraseFlags {
  label?: string;
  writeOnly?: boolean;
}

const ID_SHOWN = 8;

export function defineKey(program: Command, register: Register): void {
  const group = program.command('key').description('who can open a sealed repository');
  group.command('list').description('list the keys; needs none').action(register(listKeys));
  addNewPassphrase(group.command('add').description('add a key with a passphrase of its own'))
    .option('--label <text>', 'what it is for; anybody who sees the repository can read it')
    .option('--write-only', 'it can back up, and neither read nor forget anything')
    .action(register(add));
  group
    .command('remove')
    .description('take a key away')
    .argument('<key>', 'its id, or the beginning of it')
    .action(register(remove));
  addNewPassphrase(
    group.command('rotate').description('give the key that is used another passphrase'),
  ).action(register(rotate));
  group
    .command('recovery')
    .description('make a recovery key and print it, once')
    .action(register(recovery));
}

function addNewPassphrase(command: Command): Command {
  return command
    .option('--new-password-file <file>', 'its first line is the new passphrase')
    .option('--new-password-command <command>', 'the first line that it prints is it');
}

async function listKeys(context: Context) {
  const { Repository } = await import('../../repository/repository.js');
  const keys = await (await Repository.openLocked(context.repository)).listKeys();
  context.output.document(keys.map(publicOf));
  const rows = keys.map(({ id, capability, unlock, created, label }) => [
    id.slice(0, ID_SHOWN),
    capability === 'full' ? 'reads and writes' : 'writes only',
    unlock,
    formatTime(created),
    label ?? '',
  ]);
  context.output.text(
    ...table(
      ['key', 'can', 'opens with', 'made', 'label'].map((title) => ({ title })),
      rows,
    ),
  );
  return 0;
}

async function add(context: Context, { label, writeOnly = false, ...flags }: AddFlags) {
  const job = await import('../../jobs/keys.js');
  const repository = await context.openRepository();
  const passphrase = await newPassphrase(flags);
  const capability = writeOnly ? 'write' : 'full';
  const key = await job.addKey(repository, passphrase, { capability, label });
  passphrase.fill(0);
  tell(context, `added key ${key.id.slice(0, ID_SHOWN)}`, key);
  return 0;
}

async function remove(context: Context, selector: string) {
  const job = await import('../../jobs/keys.js');
  const key = await job.removeKey(await context.openRepository(), selector);
  tell(context, `removed key ${key.id.slice(0, ID_SHOWN)}`, key);
  return 0;
}

async function rotate(context: Context, flags: NewPassphraseFlags) {
  const job = await import('../../jobs/keys.js');
  const repository = await context.openRepository();
  const passphrase = await newPassphrase(flags);
  const { added, removed } = await job.rotateKey(repository, passphrase);
  passphrase.fill(0);
  context.output.document({ added: publicOf(added), removed: publicOf(removed) });
  context.output.text(
    `key ${added.id.slice(0, ID_SHOWN)} has taken the place of ${removed.id.slice(0, ID_SHOWN)}`,
  );
  return 0;
}

async function recovery(context: Context) {
  const job = await import('../../jobs/keys.js');
  const { key, text } = await job.addRecoveryKey(await context.openRepository());
  context.output.document({ ...publicOf(key), recoveryKey: text });
  context.output.text(...recoveryLines(text));
  return 0;
}

/** A recovery key as people get to see it, once. */
export function recoveryLines(text: string): string[] {
  return [
    'recovery key, shown this once; it opens the repository if all passphrases are lost:',
    ...fields([['', text]], '  '),
  ];
}

async function newPassphrase(flags: NewPassphraseFlags): Promise<Buffer> {
  const { newPasswordFile: passwordFile, newPasswordCommand: passwordCommand } = flags;
  const options: PassphraseOptions = { passwordFile, passwordCommand };
  const chosen = passphraseOptions(options, {});
  if (chosen !== undefined) return readPassphrase(chosen);
  if (canAsk()) return askNewPassphrase();
  throw firnError('ERR_KEY_REQUIRED', 'No new passphrase was given', {
    hint: 'Pass --new-password-file or --new-password-command.',
  });
}

function tell({ output }: Context, line: string, key: KeyObject): void {
  output.document(publicOf(key));
  output.text(line);
}

/** What may be shown of a key: nothing that helps to open it. */
function publicOf({ id, created, capability, unlock, label }: KeyObject) {
  return { id, created, capability, unlock, label: label ?? null };
}
