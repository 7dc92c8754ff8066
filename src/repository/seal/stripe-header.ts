/**
 * What a pack says of the write-only key's run that wrote it: the second half of the run's public key, which stands in the header of each
 * of its stripes. docs/repository-format.md sections 6 and 12.
 */

import { open } from 'node:fs/promises';
import { crc32c } from '../../crc32c.js';

const MAGIC = Buffer.from('FIRNPACK', 'latin1');
const HEADER_BYTES = 64;
const ALIGNMENT = 4096;
const TAIL_BYTES = 16;
/** As far as the second stripe begins at the latest, so that one damaged header is not the loss of a run. */
const SEARCH_BYTES = 2 * 16 * 2 ** 20;

/** From any whole stripe header at the beginning of a pack of this run; undefined if there is none, or the pack is gone. */
export async function readPublicTail(file: string, run: string): Promise<Buffer | undefined> {
  const runId = Buffer.from(run, 'hex');
  const header = Buffer.alloc(HEADER_BYTES);
  try {
    const pack = await open(file, 'r');
    try {
      for (let offset = 0; offset < SEARCH_BYTES; offset += ALIGNMENT) {
        const { bytesRead } = await pack.read(header, 0, HEADER_BYTES, offset);
        if (bytesRead < HEADER_BYTES) return undefined;
        const isWhole =
          header.subarray(0, 8).equals(MAGIC) &&
          header.readUInt32LE(60) === crc32c(header.subarray(0, 60)) &&
          header.subarray(24, 40).equals(runId);
        if (isWhole) return Buffer.from(header.subarray(40, 40 + TAIL_BYTES));
      }
      return undefined;
    } finally {
      await pack.close();
    }
  } catch {
    // Gone, or not to be read: another pack of the run may do, and who needs this one will say what is wrong.
    return undefined;
  }
}
