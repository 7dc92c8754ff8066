// A file in memory of which only the 4 KiB pages that were written exist, so that a small input can
// be a large image. For one thread.
#ifndef FIRN_FUZZ_SPARSE_IMAGE_H_
#define FIRN_FUZZ_SPARSE_IMAGE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "core/bytes.h"

namespace firn::fuzz {

class SparseImage {
 public:
  // What was never written reads as zero. REQUIRES: the range lies inside the image.
  void Read(uint64_t offset, std::span<uint8_t> out) const;
  std::vector<uint8_t> Read(uint64_t offset, uint64_t length) const;
  // Grows the image where it has to.
  void Write(uint64_t offset, std::span<const uint8_t> bytes);
  void Resize(uint64_t size);
  uint64_t size() const { return size_; }

  // The first page at or after `offset` that exists, as [begin, end) inside the image.
  std::optional<std::pair<uint64_t, uint64_t>> NextPage(uint64_t offset) const;

  // The bytes at `offset`, or nothing where they are not all inside the image.
  std::optional<std::vector<uint8_t>> TryRead(uint64_t offset, uint64_t length) const {
    if (!RangeInside(offset, length, size_)) return {};
    return Read(offset, length);
  }

 private:
  static constexpr uint64_t kPage = 4096;
  std::map<uint64_t, std::vector<uint8_t>> pages_;
  uint64_t size_ = 0;
};

}  // namespace firn::fuzz

#endif  // FIRN_FUZZ_SPARSE_IMAGE_H_
