/** `firn hold`, `firn release`: a held point is forgotten by no policy, and by name only with --force. Without points, lists those held. */

import type { Command } from 'commander';
import type { LabelledPoint } from '../../repository/retention.js';
import type { Context, Register } from '../context.js';
import { ID_DIGITS } from '../machines.js';
import { formatNumberOf } from '../ui/bytes.js';
import { formatTime, printable, table } from '../ui/text.js';

export function defineHold(program: Command, register: Register): void {
  program
    .command('hold')
    .description('keep points whatever a policy says, or list those held')
    .argument('[points...]', 'which')
    .option('--reason <text>', 'why; firn forget shows it')
    .action(register(hold));
}

export function defineRelease(program: Command, register: Register): void {
  program
    .command('release')
    .description('take the holds of points away')
    .argument('<points...>', 'which')
    .action(register(release));
}

async function hold(context: Context, selectors: string[], flags: HoldFlags) {
  const { output } = context;
  const labels = await import('../../repository/labels.js');
  const repository = await context.openRepository();
  if (selectors.length === 0) {
    let damaged = 0;
    const all = await labels.labelledPoints(repository, (point, { code, message }) => {
      damaged += 1;
      output.problem({ code, message: `point ${point}: ${message}` });
    });
    const held = all.filter((each) => each.held !== undefined);
    output.document({ points: held.map(heldJson), damaged });
    if (held.length > 0) output.text(...heldTable(held));
    else output.note('no points are held');
    return damaged > 0 ? 3 : 0;
  }
  let unsure = 0;
  const points = await resolveAll(repository, selectors);
  for (const point of points) {
    const isSure = await labels.holdPoint(repository, point, flags.reason);
    output.text(`held ${point.id.slice(0, ID_DIGITS)} of ${printable(point.vm.name)}`);
    if (isSure) continue;
    unsure += 1;
    output.warning(
      `A forget of point ${point.id} was announced before and has not ended. If it is still under way the point may go; if it died, the hold is good.`,
      { point: point.id },
    );
  }
  output.message('summary', { held: points.map(({ id }) => id), unsure });
  return unsure > 0 ? 3 : 0;
}

interface HoldFlags {
  reason?: string;
}

async function release(context: Context, selectors: string[]) {
  const { output } = context;
  const { releasePoint } = await import('../../repository/labels.js');
  const repository = await context.openRepository();
  const points = await resolveAll(repository, selectors);
  let holds = 0;
  for (const point of points) {
    const released = await releasePoint(repository, point);
    holds += released;
    const what = released > 0 ? `released (${formatNumberOf(released, 'hold')})` : 'was not held';
    output.text(`${point.id.slice(0, ID_DIGITS)} of ${printable(point.vm.name)}: ${what}`);
  }
  output.message('summary', { released: points.map(({ id }) => id), holds });
  return 0;
}

/** All of them before the first is changed: a mistake in the last one changes nothing. */
async function resolveAll(
  repository: import('../../repository/repository.js').Repository,
  selectors: readonly string[],
) {
  const points = [];
  for (const selector of selectors) points.push(await repository.resolvePoint(selector));
  return points;
}

function heldJson({ point: { id, vm, created }, tags, held }: LabelledPoint) {
  return { id, vm, created, tags, held };
}

function heldTable(held: readonly LabelledPoint[]): string[] {
  const columns = [{ title: 'POINT' }, { title: 'TIME' }, { title: 'VM' }, { title: '' }];
  const rows = held.map(({ point, held: why = '' }) => [
    point.id.slice(0, ID_DIGITS),
    formatTime(point.created),
    point.vm.name,
    why,
  ]);
  return table(columns, rows);
}
