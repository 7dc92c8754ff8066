#include "used/byte_range.h"

#include <algorithm>
#include <cassert>
#include <functional>
#include <utility>

#include "chunk/page.h"
#include "core/bytes.h"

namespace firn {

void SkipList::Add(uint64_t begin, uint64_t end) {
  assert(begin <= end && begin >= pending_.end);
  if (begin == end) return;
  if (begin == pending_.end && pending_.length() > 0) {
    pending_.end = end;
    return;
  }
  Flush();
  pending_ = {begin, end};
}

void SkipList::Flush() {
  const uint64_t begin = DivideUp(pending_.begin, kPageBytes) * kPageBytes;
  const uint64_t end = RoundDown(pending_.end, kPageBytes);
  if (begin >= end) return;
  if (end - begin < min_length_) {
    dropped_bytes_ += end - begin;
    return;
  }
  ranges_.push_back({begin, end});
  if (ranges_.size() > max_ranges_) Thin();
}

// Keeps the larger half, so that it costs a constant time for each range. From then on what is
// shorter than all of that half is given up at once.
void SkipList::Thin() {
  const size_t keep = static_cast<size_t>(max_ranges_ / 2);
  std::vector<uint64_t> lengths;
  lengths.reserve(ranges_.size());
  for (const ByteRange& range : ranges_) lengths.push_back(range.length());
  std::ranges::nth_element(lengths, lengths.begin() + static_cast<ptrdiff_t>(keep) - 1,
                           std::greater<>());
  min_length_ = lengths[keep - 1];
  // Many may be as long as the shortest that stays.
  size_t ties = keep - static_cast<size_t>(std::ranges::count_if(
                           lengths, [this](uint64_t length) { return length > min_length_; }));
  std::erase_if(ranges_, [&](const ByteRange& range) {
    if (range.length() > min_length_) return false;
    if (range.length() == min_length_ && ties > 0) {
      --ties;
      return false;
    }
    dropped_bytes_ += range.length();
    return true;
  });
}

std::vector<ByteRange> SkipList::Take() {
  Flush();
  pending_ = {};
  return std::move(ranges_);
}

}  // namespace firn
