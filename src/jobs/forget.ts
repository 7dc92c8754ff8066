/**
 * Forget: points go, those that are named or those that a policy does not keep. Space comes back with the collection after it.
 *
 * Everything is decided before the first point goes, and refused as a whole where it would leave a machine without any point. Each point
 * then goes by itself: after a crash some of them are gone, the others are whole, and the same call again does the rest. A point is looked at
 * for holds once more at the moment it goes, and spared if somebody has held it since.
 */

import { throwIfAborted } from '../engine/engine.js';
import { type FirnError, firnError } from '../errors.js';
import type { PointObject } from '../repository/format/objects.js';
import {
  clearLabels,
  forgetPoint,
  labelledPoints,
  readLabels,
  withLabels,
} from '../repository/labels.js';
import type { Repository } from '../repository/repository.js';
import {
  applyPolicy,
  byVm,
  isEmptyPolicy,
  type LabelledPoint,
  type RetentionPolicy,
  type Verdict,
  type VmVerdicts,
} from '../repository/retention.js';
import { type Freed, freedBy } from './freed.js';

export interface ForgetOptions {
  /** Selectors of points to forget; then there is no policy. */
  points?: readonly string[] | undefined;
  policy?: RetentionPolicy | undefined;
  /** The policy looks at the points of these machines alone, by name or id; at all when not given. */
  vms?: readonly string[] | undefined;
  /** The policy looks at the points alone that have one of these tags; at all when not given. */
  tags?: readonly string[] | undefined;
  /** Ids of points that stay whatever the policy's rules say of them. */
  keep?: readonly string[] | undefined;
  /** Decides, and changes nothing. */
  dryRun?: boolean | undefined;
  /** Forgets points that are held, if they are named. */
  force?: boolean | undefined;
  /** Lets a policy keep no point of a machine. A policy without rules also needs `vms` or `tags`. */
  forceEmpty?: boolean | undefined;
  /** Finds out what a dry run would free, which takes reading all maps. */
  estimate?: boolean | undefined;
  /** Whose days a policy counts, such as "Europe/Berlin"; this computer's zone when not given. */
  timeZone?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface ForgetResult {
  dryRun: boolean;
  /** What became of each point that was looked at, by machine, newest first; no reasons means that it goes. */
  vms: VmVerdicts[];
  /** The points that went, or would. */
  forgotten: PointObject[];
  /** Points that were to go, but somebody held them or removed them meanwhile. */
  spared: PointObject[];
  /** Points and labels that could not be read: they are neither counted nor forgotten. */
  damaged: { point: string; error: FirnError }[];
  /** Asked for with `estimate`. */
  freed: Freed | undefined;
}

/**
 * Forgets points. ERR_INVALID_ARGUMENT for what is too much to ask for, ERR_POINT_HELD, ERR_POINT_NOT_FOUND, ERR_POINT_AMBIGUOUS; then
 * nothing has been done. ERR_ABORTED between two points.
 */
export async function forget(
  repository: Repository,
  options: ForgetOptions,
): Promise<ForgetResult> {
  throwIfAborted(options.signal);
  const damaged: ForgetResult['damaged'] = [];
  const onDamaged = (point: string, error: FirnError) => damaged.push({ point, error });
  const dryRun = options.dryRun === true;
  const vms =
    options.points === undefined
      ? await judgeByPolicy(repository, options, onDamaged)
      : await judgeNamed(repository, options.points, options);
  const doomed = vms.flatMap(({ verdicts }) => verdicts).filter(isDoomed);
  const freed =
    options.estimate === true
      ? await freedBy(repository, new Set(doomed.map(({ point }) => point.id)), options.signal)
      : undefined;
  const forgotten: PointObject[] = [];
  const spared: PointObject[] = [];
  for (const { point } of doomed) {
    if (!dryRun) throwIfAborted(options.signal);
    const isGone = dryRun || (await forgetPoint(repository, point.id, { force: options.force }));
    (isGone ? forgotten : spared).push(point);
  }
  if (!dryRun) await clearLabels(repository);
  return { dryRun, vms, forgotten, spared, damaged, freed };
}

function isDoomed({ reasons }: Verdict): boolean {
  return reasons.length === 0;
}

async function judgeNamed(
  repository: Repository,
  selectors: readonly string[],
  options: ForgetOptions,
): Promise<VmVerdicts[]> {
  if ((options.policy ?? options.vms ?? options.tags ?? options.keep) !== undefined) {
    throw firnError('ERR_INVALID_ARGUMENT', 'Expected points or a policy, not both');
  }
  const named = new Map<string, LabelledPoint>();
  const labels = await readLabels(repository);
  for (const selector of selectors) {
    const point = await repository.resolvePoint(selector);
    named.set(point.id, withLabels(point, labels));
  }
  for (const { point, held } of named.values()) {
    if (held !== undefined && options.force !== true) {
      throw firnError('ERR_POINT_HELD', `Point ${point.id} of ${point.vm.name} is ${held}`);
    }
  }
  return byVm([...named.values()]).map(({ vm, points }) => ({
    vm,
    verdicts: points.map((each) => ({ ...each, reasons: [] })),
  }));
}

async function judgeByPolicy(
  repository: Repository,
  options: ForgetOptions,
  onDamaged: (point: string, error: FirnError) => void,
): Promise<VmVerdicts[]> {
  const { policy = {}, vms, tags, keep = [], forceEmpty, force } = options;
  if (force === true) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'A policy never forgets what is held: force is for points that are named',
    );
  }
  if (isEmptyPolicy(policy) && (forceEmpty !== true || (vms ?? tags) === undefined)) {
    throw firnError(
      'ERR_INVALID_ARGUMENT',
      'Expected points to forget, or a rule that keeps some',
      {
        hint: 'Name points, or pass --keep-last, --keep-daily and so on. To forget all points of a VM: --vm NAME --force-empty.',
      },
    );
  }
  const all = await labelledPoints(repository, onDamaged);
  const isOfVms = vms === undefined ? () => true : vmFilter(vms, all);
  const isMeant = ({ point, tags: own }: LabelledPoint) =>
    isOfVms(point) && (tags === undefined || tags.some((tag) => own.includes(tag)));
  const judged = applyPolicy(all.filter(isMeant), policy, options.timeZone, Date.now());
  for (const { point, reasons } of judged.flatMap(({ verdicts }) => verdicts)) {
    if (keep.includes(point.id)) reasons.push('new');
  }
  const emptied = judged.filter(({ verdicts }) => verdicts.every(isDoomed));
  if (emptied.length > 0 && forceEmpty !== true) {
    const names = emptied.map(({ vm }) => vm.name).join(', ');
    throw firnError('ERR_INVALID_ARGUMENT', `The policy would keep no point of ${names}`, {
      hint: 'Nothing was forgotten. Add a rule that keeps some, or pass --force-empty if that is what you want.',
    });
  }
  return judged;
}

/** True for the points of these machines, by name or id. What is the id of a machine means no other one that is called so. */
function vmFilter(vms: readonly string[], all: readonly LabelledPoint[]) {
  const known = new Set(all.map(({ point }) => point.vm.id?.toLowerCase()));
  const ids = new Set(vms.map((vm) => vm.toLowerCase()).filter((vm) => known.has(vm)));
  const names = new Set(vms.filter((vm) => !ids.has(vm.toLowerCase())));
  return ({ vm }: PointObject): boolean =>
    names.has(vm.name) || (vm.id !== undefined && ids.has(vm.id.toLowerCase()));
}
