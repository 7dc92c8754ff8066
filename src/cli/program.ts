/**
 * The command line's grammar: global options, the list of commands, the help that teaches them.
 *
 * Each commands/<verb>.ts defines one command and imports what does the work only when it runs, so `firn --help` loads neither the
 * jobs nor the addon. Commander exits and prints on its own by default; here it throws, and main.ts decides what is printed.
 */

import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { IO_MODES, WORKERS_MAX } from '../engine/options.js';
import {
  type Action,
  type ActionResult,
  type Context,
  type GlobalOptions,
  PROGRESS_MODES,
  parse,
  type Register,
} from './context.js';

/**
 * The commands in the order of the help. Each is loaded by itself, because loading all of them takes longer than some of them run:
 * `createProgram` loads the one that is called, and all only for help and mistakes.
 */
const COMMANDS: readonly CommandGroup[] = [
  {
    title: 'Make and use points:',
    commands: {
      init: async () => (await import('./commands/init.js')).defineInit,
      backup: async () => (await import('./commands/backup.js')).defineBackup,
      restore: async () => (await import('./commands/restore.js')).defineRestore,
      verify: async () => (await import('./commands/verify.js')).defineVerify,
    },
  },
  {
    title: 'Look:',
    commands: {
      list: async () => (await import('./commands/list.js')).defineList,
      show: async () => (await import('./commands/show.js')).defineShow,
      stats: async () => (await import('./commands/stats.js')).defineStats,
      inspect: async () => (await import('./commands/inspect.js')).defineInspect,
    },
  },
  {
    title: 'Keep and forget:',
    commands: {
      forget: async () => (await import('./commands/forget.js')).defineForget,
      hold: async () => (await import('./commands/hold.js')).defineHold,
      release: async () => (await import('./commands/hold.js')).defineRelease,
      tag: async () => (await import('./commands/tag.js')).defineTag,
      prune: async () => (await import('./commands/prune.js')).definePrune,
      key: async () => (await import('./commands/key.js')).defineKey,
    },
  },
  {
    title: 'Machines:',
    commands: {
      vm: async () => (await import('./commands/vm.js')).defineVm,
      runs: async () => (await import('./commands/runs.js')).defineRuns,
      reconcile: async () => (await import('./commands/reconcile.js')).defineReconcile,
      doctor: async () => (await import('./commands/doctor.js')).defineDoctor,
      lab: async () => (await import('./commands/lab.js')).defineLab,
    },
  },
  {
    title: 'Between repositories:',
    commands: {
      'copy-points': async () => (await import('./commands/copy-points.js')).defineCopyPoints,
      send: async () => (await import('./commands/send.js')).defineSend,
      receive: async () => (await import('./commands/receive.js')).defineReceive,
    },
  },
  {
    title: 'Convert and mend:',
    commands: {
      copy: async () => (await import('./commands/copy.js')).defineCopy,
      repair: async () => (await import('./commands/repair.js')).defineRepair,
      rescue: async () => (await import('./commands/rescue.js')).defineRescue,
    },
  },
  {
    title: 'Measure:',
    commands: {
      bench: async () => (await import('./commands/bench.js')).defineBench,
    },
  },
];

type Define = (program: Command, register: Register) => void;

interface CommandGroup {
  title: string;
  commands: Readonly<Record<string, () => Promise<Define>>>;
}

// Commander wraps a description unless it has indented lines.
const HELP_BEFORE = `Firn backs up running virtual machines and their disks (VHDX, VHD, raw) into a
deduplicated repository, and gives back every point whole and checked.

Quick start:
  firn init /backup                                    make a repository
  firn backup -r /backup --vm web --disk web.vhdx      make a restore point
  firn verify -r /backup --read-data                   check every stored byte
  firn restore -r /backup latest:web --to /restored    get its disks back

Running machines:
  firn doctor --host hyperv                            what could be in the way
  firn vm list --host hyperv                           which there are
  firn backup -r /backup --host hyperv web db          a point of each
  firn reconcile                                       after a crash: clean up`;

const HELP_AFTER = `
A POINT is an id, the unique beginning of one, "latest", or "latest:VM".
A SIZE is bytes, or 64K, 1M, 2GiB (powers of 1024), or 10MB (powers of 1000).
A HOST is hyperv (this computer), hyperv:wsman://COMPUTER, hyperv:ssh://USER@COMPUTER,
qemu:DIR, or lab:DIR (see firn lab).

Environment:
  FIRN_REPOSITORY  the repository, when --repo is not given
  FIRN_PASSWORD_FILE  as --password-file: the passphrase of a sealed repository
  FIRN_HOST        the host, when --host is not given
  FIRN_STATE       the folder with the journal of runs, when --state is not given
  FIRN_MEMORY, FIRN_WORKERS, FIRN_IO, FIRN_PROGRESS  as the options of that name
  FIRN_EVENT_LOG   1 is --event-log for every command
  FIRN_ADDON       the native engine's file, instead of the one that was built
  NO_COLOR         no colours

Exit codes:
  0 done   1 failed   2 usage   3 done in part   10 not found   11 in use, try again
  12 not allowed   20 read or write failed   25 the host failed   30 damaged data
  40 not on this platform or version   70 defect in Firn   130 interrupted
  docs/errors.md has a section for every error code.`;

export function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

/**
 * The program, with the command that `argv` begins with or, if it begins with anything else, all commands. `run` is called with a
 * command's global options, what to do, and the words that name the command.
 */
export async function createProgram(
  argv: readonly string[],
  run: (
    options: GlobalOptions,
    action: (context: Context) => ActionResult,
    name: string,
  ) => Promise<void>,
): Promise<Command> {
  const program = new Command('firn')
    .description(HELP_BEFORE)
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help for a command')
    .configureHelp({
      showGlobalOptions: true,
      commandUsage: usageOf,
      subcommandTerm: termOf,
    })
    .showHelpAfterError(false)
    .addHelpText('after', ({ command }) => (command.name() === 'firn' ? HELP_AFTER : ''));
  addGlobalOptions(program);

  const register: Register =
    <Arguments extends unknown[]>(action: Action<Arguments>) =>
    async (...parameters: unknown[]) => {
      // Commander passes the arguments, the options and the command itself.
      const command = parameters.pop() as Command;
      await run(
        command.optsWithGlobals<GlobalOptions>(),
        (context) => action(context, ...(parameters as Arguments)),
        namesOf(command).slice(1).join(' '),
      );
    };

  const called = argv[0] ?? '';
  const isKnown = COMMANDS.some(({ commands }) => Object.hasOwn(commands, called));
  for (const { title, commands } of COMMANDS) {
    program.commandsGroup(title);
    for (const [name, load] of Object.entries(commands)) {
      if (!isKnown || name === called) (await load())(program, register);
    }
  }
  program.commandsGroup('Help:').helpCommand('help [command]', 'print help for a command');
  inheritToAll(program);
  return program;
}

function addGlobalOptions(program: Command): void {
  program
    .addOption(new Option('-r, --repo <dir>', 'the repository (or FIRN_REPOSITORY)'))
    .option('--password-file <file>', 'its first line opens a sealed repository')
    .option('--password-command <command>', 'the first line that it prints does')
    .option('--json', 'machine-readable output, see docs/cli.md')
    .option('-q, --quiet', 'no progress and no notes')
    .addOption(
      new Option('--progress <when>', 'auto, always or never').argParser(
        parse.oneOf('--progress', PROGRESS_MODES),
      ),
    )
    .addOption(
      new Option('--memory <size>', 'what the process may take, 256M by default').argParser(
        parse.size('--memory'),
      ),
    )
    .addOption(
      new Option('--workers <n>', 'threads, as many as cores by default').argParser(
        parse.integer('--workers', 1, WORKERS_MAX),
      ),
    )
    .addOption(
      new Option('--io <mode>', 'auto, direct (around the cache) or buffered').argParser(
        parse.oneOf('--io', IO_MODES),
      ),
    )
    .option('--event-log', 'tell the Windows event log how it ended')
    .option('--debug', 'print stacks of errors');
}

// Commander's own form repeats the parent's options as "firn [options] backup [options]".
function usageOf(command: Command): string {
  const rest = command.parent === null ? '<command> [options]' : command.usage();
  return `${namesOf(command).join(' ')} ${rest}`;
}

/** The command's name after those of the commands that it belongs to: "firn", "key", "add". */
function namesOf(command: Command): string[] {
  const names: string[] = [];
  for (let each: Command | null = command; each !== null; each = each.parent)
    names.unshift(each.name());
  return names;
}

// Every command has options, so its term in a list need not say so.
function termOf(command: Command): string {
  const names = [command.name(), ...command.aliases()].join('|');
  const parameters = command.registeredArguments.map((each) => {
    const name = each.name() + (each.variadic ? '...' : '');
    return each.required ? `<${name}>` : `[${name}]`;
  });
  return [names, ...parameters].join(' ');
}

function inheritToAll(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    inheritToAll(child);
  }
}
