/** `firn runs`: the journal, which knows of every run what it took up and how far it came. */

import type { Command } from 'commander';
import { firnError } from '../../errors.js';
import type { RunRecord, StepRecord } from '../../jobs/runs/types.js';
import { type Context, parse, type Register } from '../context.js';
import { addStateOption, ID_DIGITS, nameList, type StateFlags, withJournal } from '../machines.js';
import { formatSeconds } from '../ui/bytes.js';
import { fields, formatTime, printable, table } from '../ui/text.js';

const LISTED = 20;

export function defineRuns(program: Command, register: Register): void {
  const group = program.command('runs').description('show what runs did');
  addStateOption(
    group
      .command('list')
      .description('list the newest runs')
      .option('--limit <n>', 'how many', parse.integer('--limit', 1, 100_000), LISTED)
      .action(register(listRuns)),
  );
  addStateOption(
    group
      .command('show')
      .description('show one run, step by step')
      .argument('[run]', 'its id or the beginning of it, or latest', 'latest')
      .action(register(showRun)),
  );
}

async function listRuns(context: Context, { limit, ...flags }: StateFlags & { limit: number }) {
  const runs = await withJournal(flags, (journal) => journal.runs(limit));
  context.output.document({ runs });
  if (runs.length === 0) context.output.note('no runs yet');
  else context.output.text(...runTable(runs));
  return 0;
}

function runTable(runs: readonly RunRecord[]): string[] {
  const columns = [
    { title: 'RUN' },
    { title: 'BEGUN' },
    { title: 'TOOK', align: 'right' },
    { title: 'STATE' },
    { title: 'POINTS', align: 'right' },
    { title: 'MACHINES' },
    { title: 'JOB' },
    { title: 'HOST' },
  ] as const;
  const rows = runs.map(({ id, begun, ended, state, vms, job, host }) => [
    id.slice(0, ID_DIGITS),
    formatTime(begun),
    tookText(begun, ended),
    state,
    `${vms.filter(({ point }) => point !== undefined).length}/${vms.length}`,
    nameList(vms, 3),
    job ?? '-',
    host,
  ]);
  return table(columns, rows);
}

async function showRun(context: Context, wanted: string, flags: StateFlags) {
  const found = await withJournal(flags, (journal) => {
    if (wanted !== 'latest') return journal.run(wanted);
    const [newest] = journal.runs(1);
    if (newest !== undefined) return journal.run(newest.id);
    throw firnError('ERR_RUN_NOT_FOUND', `There are no runs in ${journal.folder}`);
  });
  context.output.document(found);
  context.output.text(...describeRun(found.run, found.steps));
  return 0;
}

function describeRun(run: RunRecord, steps: readonly StepRecord[]): string[] {
  return [
    `run ${run.id}`,
    ...fields(
      [
        ['state', `${run.state}${stateHint(run)}`],
        ['job', run.job],
        ['host', run.host],
        ['repository', run.repository],
        ['begun', `${formatTime(run.begun)} (${run.begun})`],
        ['took', run.ended === undefined ? undefined : tookText(run.begun, run.ended)],
        ...run.vms.map(({ name, state, point }): [string, string] => [
          `vm ${printable(name)}`,
          point === undefined
            ? `${state}, no point`
            : `${state}, point ${point.slice(0, ID_DIGITS)}`,
        ]),
      ],
      '  ',
    ),
    ...(steps.length === 0 ? [] : ['', ...stepTable(steps)]),
  ];
}

function stateHint({ state }: RunRecord): string {
  return state === 'dead' ? ': its process is gone; "firn reconcile" finishes it' : '';
}

function stepTable(steps: readonly StepRecord[]): string[] {
  const columns = [
    { title: 'BEGUN' },
    { title: 'VM' },
    { title: 'STEP' },
    { title: 'TOOK', align: 'right' },
    { title: 'STATE' },
    { title: 'BY' },
    { title: '' },
  ] as const;
  const rows = steps.map(({ begun, ended, vm, step, state, reconciled, error }) => [
    formatTime(begun),
    vm.name,
    step,
    tookText(begun, ended),
    state,
    reconciled ? 'reconciler' : 'run',
    error === undefined ? '' : `${error.code} ${error.message}`,
  ]);
  return table(columns, rows);
}

function tookText(begun: string, ended: string | undefined): string {
  return ended === undefined ? '-' : formatSeconds((Date.parse(ended) - Date.parse(begun)) / 1000);
}
