/**
 * The order in which the points of a machine were made, whatever clocks said meanwhile.
 *
 * A point has the time of its writer's clock, for people. That clock may have been wrong: a point that was made a year ahead of all others
 * would be the newest one for a year, one that was made with the clock set back would be the oldest at once. So a writer that finds a point of
 * the same machine at its own time or later gives the new one an `order` just after it, and points are put in order by that where it is
 * there. It stays a time, so that points with and without it, and of several repositories, have one order.
 *
 * Who cannot read points (a write-only key) cannot see that, and is known by its clock alone.
 */

import type { PointObject } from './format/objects.js';

/** RFC 3339 has four digits for a year. */
const ORDER_MAX_MS = Date.parse('9999-12-31T23:59:59.999Z');

type Ordered = Pick<PointObject, 'id' | 'created' | 'order'>;

/** Milliseconds of the epoch: where the point stands among others. */
export function orderMs({ created, order }: Pick<PointObject, 'created' | 'order'>): number {
  return Date.parse(order ?? created);
}

/** For sorting points, those made first first. */
export function byOrder(a: Ordered, b: Ordered): number {
  return orderMs(a) - orderMs(b) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** What tells machines apart: a machine is its id, or its name where a point has none. */
export function machineKey({ id, name }: PointObject['vm']): string {
  return id === undefined ? `name ${name}` : `id ${id.toLowerCase()}`;
}

/** Of each machine, by its key, where its last point stands. */
export type LastOrders = ReadonlyMap<string, number>;

export function lastOrders(points: readonly PointObject[]): LastOrders {
  const last = new Map<string, number>();
  for (const point of points) {
    const key = machineKey(point.vm);
    last.set(key, Math.max(orderMs(point), last.get(key) ?? Number.NEGATIVE_INFINITY));
  }
  return last;
}

/** The member of a new point that puts it after those that are there; nothing where its time already does. */
export function orderAfter(
  last: LastOrders,
  { vm, created }: Pick<PointObject, 'vm' | 'created'>,
): Pick<PointObject, 'order'> {
  const before = last.get(machineKey(vm));
  if (before === undefined || before < Date.parse(created)) return {};
  return { order: new Date(Math.min(before + 1, ORDER_MAX_MS)).toISOString() };
}
