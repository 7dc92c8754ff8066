/**
 * CRC-32C (Castagnoli), which guards record headers and stored bytes.
 *
 * Eight tables in one array, eight bytes a step ("slicing by 8"): byte by byte it would be the slowest stage of a rescue. Node's
 * zlib offers CRC-32 with another polynomial only, and the few lines here are not worth a dependency.
 */

const POLYNOMIAL = 0x82f63b78;

// TABLE[256 * k + byte] is the CRC of that byte followed by k zero bytes.
const TABLE = new Uint32Array(8 * 256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1;
  TABLE[byte] = crc;
}
for (let index = 256; index < TABLE.length; index++) {
  const previous = at(TABLE, index - 256);
  TABLE[index] = (previous >>> 8) ^ at(TABLE, previous & 255);
}

/** The CRC-32C of `bytes`, as an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  let i = 0;
  for (const end = bytes.length - 7; i < end; i += 8) {
    crc =
      at(TABLE, 1792 + ((crc ^ at(bytes, i)) & 255)) ^
      at(TABLE, 1536 + (((crc >>> 8) ^ at(bytes, i + 1)) & 255)) ^
      at(TABLE, 1280 + (((crc >>> 16) ^ at(bytes, i + 2)) & 255)) ^
      at(TABLE, 1024 + ((crc >>> 24) ^ at(bytes, i + 3))) ^
      at(TABLE, 768 + at(bytes, i + 4)) ^
      at(TABLE, 512 + at(bytes, i + 5)) ^
      at(TABLE, 256 + at(bytes, i + 6)) ^
      at(TABLE, at(bytes, i + 7));
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ at(TABLE, (crc ^ at(bytes, i)) & 255);
  return ~crc >>> 0;
}

// Every index above is in range by construction; one function says so to the compiler, and is inlined.
function at(array: Uint8Array | Uint32Array, index: number): number {
  return array[index] as number;
}
