/** Which points are to be sent or copied: those that are named, or those of machines, with tags, the newest. */

import { firnError } from '../../errors.js';
import { ignoreDamage } from '../../repository/commit.js';
import { labelledPoints, readLabels, withLabels } from '../../repository/labels.js';
import { byOrder } from '../../repository/point-order.js';
import type { Repository } from '../../repository/repository.js';
import type { LabelledPoint } from '../../repository/retention.js';

export interface PointSelection {
  /** Selectors; then there is nothing else. */
  points?: readonly string[] | undefined;
  all?: boolean | undefined;
  /** Of these machines, by name or id. */
  vms?: readonly string[] | undefined;
  /** With one of these tags. */
  tags?: readonly string[] | undefined;
  /** So many of each machine, the newest. */
  latest?: number | undefined;
}

/** The points, oldest first, with their labels. ERR_INVALID_ARGUMENT, ERR_POINT_NOT_FOUND, ERR_POINT_AMBIGUOUS. */
export async function selectPoints(
  repository: Repository,
  selection: PointSelection,
): Promise<LabelledPoint[]> {
  const { points = [], all = false, vms, tags, latest } = selection;
  const byRule = all || vms !== undefined || tags !== undefined || latest !== undefined;
  if (points.length > 0 && byRule) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected points, or a choice of them, but received both',
    );
  }
  if (points.length > 0) return namedPoints(repository, points);
  if (!byRule) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected at least one point', {
      hint: 'Name points, or pass --all, --vm, --tag or --latest.',
    });
  }
  const chosen = (await labelledPoints(repository, ignoreDamage)).filter(
    (each) =>
      (vms === undefined || vms.some((vm) => isOfVm(each, vm))) &&
      (tags === undefined || tags.some((tag) => each.tags.includes(tag))),
  );
  return latest === undefined ? chosen : newestOfEach(chosen, latest);
}

async function namedPoints(
  repository: Repository,
  selectors: readonly string[],
): Promise<LabelledPoint[]> {
  const points = new Map<string, LabelledPoint>();
  for (const selector of selectors) {
    const point = await repository.resolvePoint(selector);
    points.set(point.id, withLabels(point, await readLabels(repository, point.id)));
  }
  return [...points.values()].sort((a, b) => byOrder(a.point, b.point));
}

function isOfVm({ point }: LabelledPoint, vm: string): boolean {
  return point.vm.name === vm || point.vm.id === vm;
}

function newestOfEach(points: readonly LabelledPoint[], count: number): LabelledPoint[] {
  const left = new Map<string, number>();
  const isKept = ({ point }: LabelledPoint) => {
    const vm = point.vm.id ?? point.vm.name;
    const rest = left.get(vm) ?? count;
    left.set(vm, rest - 1);
    return rest > 0;
  };
  return points.toReversed().filter(isKept).toReversed();
}
