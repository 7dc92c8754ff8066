/** Types of windows-tools.mjs, for the tests that use it. */

export const SAMPLES: string;
export const BUILD: string;
export const ADDON: string;

export function wineEnvironment(): Record<string, string | undefined>;
export function windowsPath(path: string): string;
export function ensureWindows(): void;
export function installLibraries(): void;
export function keepServer(): { stop(): void };
export function windowsNode(
  parameters: readonly string[],
  options?: { timeoutMs?: number; env?: Record<string, string> },
): { status: number | null; signal: string | null; stdout: string; stderr: string };
