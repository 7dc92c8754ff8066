/** The names of references: found without a journal, told from runs' marks, and from those of other repositories. */

import { describe, expect, test } from 'vitest';
import { markOf, runOfMark, withoutMark } from '../../src/hosts/host.js';
import { isSucceededBy, ownerOfReference, referenceName } from '../../src/hosts/tracking.js';

const [ONE, OTHER] = ['a', 'b'].map((digit) => digit.repeat(32)) as [string, string];
const [FIRST, SECOND] = ['1', '2'].map((digit) => digit.repeat(32)) as [string, string];

describe("a reference's name", () => {
  const name = referenceName(ONE, FIRST);

  test('is no mark, and bears none: no reconciler takes it for a left-over', () => {
    expect(runOfMark(name)).toBeUndefined();
    expect(runOfMark(`scsi-0-0_${name}.avhdx`)).toBeUndefined();
    expect(withoutMark(name)).toBe(name);
  });

  test('says whose it is', () => {
    expect(ownerOfReference(name)).toBe(ownerOfReference(referenceName(ONE, SECOND)));
    expect(ownerOfReference(name)).not.toBe(ownerOfReference(referenceName(OTHER, FIRST)));
  });

  test.each([markOf(FIRST), `${name}0`, ` ${name}`, `${name}\n`, name.toUpperCase(), '', '../x'])(
    'is not %j',
    (text) => {
      expect(ownerOfReference(text)).toBeUndefined();
      expect(isSucceededBy(text, name)).toBe(false);
      expect(isSucceededBy(name, text)).toBe(false);
    },
  );

  test('is succeeded by another one of its repository, not by itself nor by that of another repository', () => {
    expect(isSucceededBy(name, referenceName(ONE, SECOND))).toBe(true);
    expect(isSucceededBy(name, name)).toBe(false);
    expect(isSucceededBy(name, referenceName(OTHER, SECOND))).toBe(false);
  });
});
