/**
 * Tags as people write them. Apart from retention.ts, whose parsers take longer to load than most commands take to run, so that an option
 * can be checked where it is read.
 */

import { expected } from '../engine/options.js';
import { isTag, isTags } from './format/objects.js';

/** A tag as people write it. ERR_INVALID_ARGUMENT. */
export function parseTag(value: unknown, name: string): string {
  if (isTag(value)) return value;
  throw expected(name, 'a tag of 1 to 128 characters without commas', value);
}

/** The tags of a point, each once. ERR_INVALID_ARGUMENT if one cannot be a tag, or there are more than a point may have. */
export function parseTags(values: readonly unknown[], name: string): string[] {
  const tags = new Set(values.map((value) => parseTag(value, name)));
  const each = [...tags];
  if (isTags(each)) return each;
  throw expected(name, 'at most 64 tags', tags.size);
}
