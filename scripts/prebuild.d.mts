/** Types of prebuild.mjs, for the tests that use it. */

export function sourcesDigest(): string;
export function placeOf(target: string): string;
export function whyUnfit(place: string, sources?: string): string | undefined;
