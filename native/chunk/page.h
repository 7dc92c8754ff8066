// Pages and segments: the grains that everything above the disk counts in.
#ifndef FIRN_CHUNK_PAGE_H_
#define FIRN_CHUNK_PAGE_H_

#include <array>
#include <bit>
#include <cstdint>

namespace firn {

inline constexpr uint32_t kPageBytes = 4096;
inline constexpr uint32_t kSegmentPages = 2048;
inline constexpr uint32_t kSegmentBytes = kSegmentPages * kPageBytes;  // 8 MiB

// A set of the pages of one segment.
class PageSet {
 public:
  void Clear() { words_.fill(0); }
  bool Has(uint32_t page) const { return (words_[page / 64] >> (page % 64)) & 1; }
  void Add(uint32_t page) { words_[page / 64] |= uint64_t{1} << (page % 64); }
  // Adds [begin, end).
  void AddRange(uint32_t begin, uint32_t end) {
    for (; begin < end && begin % 64 != 0; ++begin) Add(begin);
    for (; begin + 64 <= end; begin += 64) words_[begin / 64] = ~uint64_t{0};
    for (; begin < end; ++begin) Add(begin);
  }
  // Whether any page of [begin, end) is in it.
  bool HasAny(uint32_t begin, uint32_t end) const {
    while (begin < end && !Has(begin)) ++begin;
    return begin < end;
  }
  bool empty() const {
    for (uint64_t word : words_) {
      if (word != 0) return false;
    }
    return true;
  }
  uint32_t count() const {
    uint32_t total = 0;
    for (uint64_t word : words_) total += static_cast<uint32_t>(std::popcount(word));
    return total;
  }

 private:
  std::array<uint64_t, kSegmentPages / 64> words_{};
};

}  // namespace firn

#endif  // FIRN_CHUNK_PAGE_H_
