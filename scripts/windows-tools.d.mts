/** Types of windows-tools.mjs, for the tests that use it. */

export const SAMPLES: string;
export const BUILD: string;
export const ADDON: string;

export function wineEnvironment(options?: {
  standIn?: boolean;
}): Record<string, string | undefined>;
export function windowsPath(path: string): string;
export function ensureWindows(): void;
export function installLibraries(): void;
/** The name of a share of `folder` in Wine, and how to end it. */
export function shareFolder(folder: string): { path: string; remove(): void };
export function keepTemporaryFilesInMemory(): { remove(): void };
export function keepServer(): { stop(): void };
export function windowsNode(
  parameters: readonly string[],
  options?: { timeoutMs?: number; env?: Record<string, string> },
): { status: number | null; signal: string | null; stdout: string; stderr: string };
