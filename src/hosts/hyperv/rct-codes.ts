/**
 * What Windows says when change tracking cannot tell what changed (winerror.h, facility of virtual disks). Each means: read the disk as a
 * whole. Whatever is not in this table means the same.
 */

export const RCT_CODES: Readonly<Record<string, string>> = {
  '0xC03A0020': 'its change tracking was not begun',
  '0xC03A0021': 'its change log has grown beyond its limit',
  '0xC03A0022': 'it was changed while its machine was off, beside its change tracking',
  '0xC03A0023': 'its change tracking is in a state that does not allow to ask',
  '0xC03A0024': 'its change tracking file does not belong to it',
  '0xC03A0029': 'its change tracking does not know the reference point any more',
  '0xC03A002A': 'its change tracking is switched off',
  '0xC03A0030': 'its change tracking has lost what was written since the reference point',
};

/** An error's message as a reason to read the whole disk; with the sentence for a code that is known. */
export function explainRct(message: string): string {
  const code = /0xC03A00[0-9A-F]{2}/i.exec(message)?.[0];
  const known =
    code === undefined ? undefined : RCT_CODES[`0xC03A00${code.slice(-2).toUpperCase()}`];
  return known === undefined
    ? `the host does not tell what changed: ${message}`
    : `${known} (${code})`;
}
