// Ranges of bytes, and a bounded list of those that may be skipped.
#ifndef FIRN_USED_BYTE_RANGE_H_
#define FIRN_USED_BYTE_RANGE_H_

#include <cstdint>
#include <vector>

namespace firn {

// [begin, end).
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t length() const { return end - begin; }
  bool operator==(const ByteRange&) const = default;
};

// Collects unused ranges in order and keeps what of them is whole pages. When there are more than
// the limit, the smallest are given up, which is always safe.
//
// For one thread.
class SkipList {
 public:
  explicit SkipList(uint64_t max_ranges) : max_ranges_(max_ranges < 16 ? 16 : max_ranges) {}

  // Appends an unused range; touching ranges are joined before they are cut to pages.
  // REQUIRES: begin <= end, and begin is not before the end of the last one.
  void Add(uint64_t begin, uint64_t end);

  // Ends the list: page-aligned, in order, not touching.
  std::vector<ByteRange> Take();

  // Whole pages that were given up for the limit.
  uint64_t dropped_bytes() const { return dropped_bytes_; }

 private:
  void Flush();
  void Thin();

  const uint64_t max_ranges_;
  ByteRange pending_;
  std::vector<ByteRange> ranges_;
  uint64_t min_length_ = 1;
  uint64_t dropped_bytes_ = 0;
};

}  // namespace firn

#endif  // FIRN_USED_BYTE_RANGE_H_
