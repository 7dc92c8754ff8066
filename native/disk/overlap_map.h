// Which MiB of an image are spoken for: finds structures that overlap, in one bit for each MiB of
// the file.
//
// Not thread-safe. Costs 32 MiB of memory for the largest VHDX there can be, 256 TiB.
#ifndef FIRN_DISK_OVERLAP_MAP_H_
#define FIRN_DISK_OVERLAP_MAP_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/bytes.h"

namespace firn {

class OverlapMap {
 public:
  explicit OverlapMap(uint64_t file_bytes)
      : units_(DivideUp(file_bytes, kMiB)), words_(DivideUp(units_, 64)) {}

  // Takes the MiB that [offset, offset + length) touches, as far as they lie in the file; false if
  // any was taken before.
  [[nodiscard]] bool Take(uint64_t offset, uint64_t length) {
    uint64_t unit = offset / kMiB;
    const uint64_t end = std::min(DivideUp(offset + length, kMiB), units_);
    bool was_free = true;
    while (unit < end) {
      const uint64_t bit = unit % 64;
      const uint64_t count = std::min(end - unit, 64 - bit);
      const uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << bit;
      uint64_t& word = words_[unit / 64];
      if ((word & mask) != 0) was_free = false;
      word |= mask;
      unit += count;
    }
    return was_free;
  }

 private:
  const uint64_t units_;
  std::vector<uint64_t> words_;
};

}  // namespace firn

#endif  // FIRN_DISK_OVERLAP_MAP_H_
