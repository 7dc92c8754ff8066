// Runs of equal bits in the sector bitmaps of differencing disks: VHDX counts bits from the least
// significant, VHD from the most.
#ifndef FIRN_DISK_SECTOR_BITMAP_H_
#define FIRN_DISK_SECTOR_BITMAP_H_

#include <cstdint>
#include <span>

namespace firn {

enum class BitOrder : uint8_t { kLeastSignificantFirst, kMostSignificantFirst };

inline bool TestBit(std::span<const uint8_t> bytes, uint64_t bit, BitOrder order) {
  const unsigned within = bit % 8;
  const unsigned shift = order == BitOrder::kLeastSignificantFirst ? within : 7 - within;
  return (bytes[bit / 8] >> shift & 1) != 0;
}

// The end of the run of equal bits that starts at `bit`, at most `end`. REQUIRES: bit < end <=
// bytes.size() * 8.
inline uint64_t BitRunEnd(std::span<const uint8_t> bytes, uint64_t bit, uint64_t end,
                          BitOrder order) {
  const bool value = TestBit(bytes, bit, order);
  const uint8_t whole = value ? 0xFF : 0x00;
  while (bit < end) {
    if (bit % 8 == 0 && end - bit >= 8 && bytes[bit / 8] == whole) {
      bit += 8;
      continue;
    }
    if (TestBit(bytes, bit, order) != value) return bit;
    ++bit;
  }
  return end;
}

}  // namespace firn

#endif  // FIRN_DISK_SECTOR_BITMAP_H_
