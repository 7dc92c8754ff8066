#include "disk/vhd_format.h"

#include <algorithm>
#include <cassert>

namespace firn::vhd {

uint32_t StructureChecksum(std::span<const uint8_t> structure, size_t checksum_offset) {
  assert(checksum_offset + 4 <= structure.size());
  uint32_t sum = 0;
  for (size_t i = 0; i < structure.size(); ++i) {
    if (i < checksum_offset || i >= checksum_offset + 4) sum += structure[i];
  }
  return ~sum;
}

bool ChecksumMatches(std::span<const uint8_t> structure, size_t checksum_offset) {
  return LoadBe<uint32_t>(structure.data() + checksum_offset) ==
         StructureChecksum(structure, checksum_offset);
}

void SealChecksum(std::span<uint8_t> structure, size_t checksum_offset) {
  StoreBe<uint32_t>(structure.data() + checksum_offset,
                    StructureChecksum(structure, checksum_offset));
}

Geometry GeometryOf(uint64_t bytes) {
  constexpr uint64_t kSectorsMax = uint64_t{65535} * 16 * 255;
  const uint64_t sectors = std::min(bytes / kSectorBytes, kSectorsMax);
  uint64_t sectors_per_track = 255;
  uint64_t heads = 16;
  uint64_t cylinders_times_heads = sectors / sectors_per_track;
  if (sectors < uint64_t{65535} * 16 * 63) {
    sectors_per_track = 17;
    cylinders_times_heads = sectors / sectors_per_track;
    heads = std::max<uint64_t>(4, (cylinders_times_heads + 1023) / 1024);
    if (cylinders_times_heads >= heads * 1024 || heads > 16) {
      sectors_per_track = 31;
      heads = 16;
      cylinders_times_heads = sectors / sectors_per_track;
    }
    if (cylinders_times_heads >= heads * 1024) {
      sectors_per_track = 63;
      heads = 16;
      cylinders_times_heads = sectors / sectors_per_track;
    }
  }
  return {static_cast<uint16_t>(cylinders_times_heads / heads), static_cast<uint8_t>(heads),
          static_cast<uint8_t>(sectors_per_track)};
}

}  // namespace firn::vhd
