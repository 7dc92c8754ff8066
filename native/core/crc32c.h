// CRC-32C (Castagnoli), as VHDX headers and Firn's records use it.
//
// Thread-safe. Uses SSE4.2 and PCLMUL where the CPU has it, a table otherwise; never needs the
// whole build to be compiled for a CPU level.
#ifndef FIRN_CORE_CRC32C_H_
#define FIRN_CORE_CRC32C_H_

#include <cstdint>
#include <span>

namespace firn {

// The checksum of `bytes`; pass the checksum of what came before to continue it.
uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t previous = 0);

// The table-driven way, for tests and for CPUs without SSE4.2.
uint32_t Crc32cPortable(std::span<const uint8_t> bytes, uint32_t previous = 0);

}  // namespace firn

#endif  // FIRN_CORE_CRC32C_H_
