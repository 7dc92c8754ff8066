// Checksums of guests' structures: CRC-32 as in zlib (GPT) and CRC-16 as in ext4's older descriptor
// checksums. Table-driven: they are used on headers only.
#ifndef FIRN_USED_CRC_H_
#define FIRN_USED_CRC_H_

#include <cstdint>
#include <span>

namespace firn {

// Reflected polynomial EDB88320, inverted at both ends (UEFI 5.3.2).
uint32_t Crc32(std::span<const uint8_t> bytes);

// Reflected polynomial A001, not inverted; pass what came before to continue. ext4 starts with
// FFFF.
uint16_t Crc16(std::span<const uint8_t> bytes, uint16_t previous);

// CRC-32C as ext4 keeps it: not inverted at either end, continued from `seed`.
uint32_t Ext4Crc32c(uint32_t seed, std::span<const uint8_t> bytes);

}  // namespace firn

#endif  // FIRN_USED_CRC_H_
