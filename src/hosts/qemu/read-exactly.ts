import type { FileHandle } from 'node:fs/promises';

/** That many bytes of a disk image; undefined if it does not have them, as one that is cut short or that names places far outside. */
export async function readExactly(
  handle: FileHandle,
  offset: number,
  length: number,
): Promise<Buffer | undefined> {
  const { size } = await handle.stat();
  if (!Number.isSafeInteger(offset) || offset + length > size) return undefined;
  const buffer = Buffer.alloc(length);
  const { bytesRead } = await handle.read(buffer, 0, length, offset);
  return bytesRead === length ? buffer : undefined;
}
