// A long table of bytes of which most are zero: only the pages that were touched take memory.
//
// Not thread-safe. Made for allocation tables and sector bitmaps of disks up to 64 TiB, whose full
// size would be half a gigabyte and sixteen: what is held follows what was written to the disk.
#ifndef FIRN_DISK_SPARSE_TABLE_H_
#define FIRN_DISK_SPARSE_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>

namespace firn {

class SparseTable {
 public:
  // REQUIRES: page_bytes is a power of two.
  explicit SparseTable(uint32_t page_bytes) : page_bytes_(page_bytes) {}

  uint32_t page_bytes() const { return page_bytes_; }

  // The page that holds the byte at `offset`, made if it is not there.
  std::span<uint8_t> Touch(uint64_t offset) {
    std::unique_ptr<uint8_t[]>& page = pages_[offset / page_bytes_];
    if (!page) page = std::make_unique<uint8_t[]>(page_bytes_);
    return {page.get(), page_bytes_};
  }

  // The page that holds the byte at `offset`; empty if it was never touched, so all of it is zero.
  std::span<const uint8_t> Find(uint64_t offset) const {
    auto found = pages_.find(offset / page_bytes_);
    if (found == pages_.end()) return {};
    return {found->second.get(), page_bytes_};
  }

  // Calls visit(offset of the page, its bytes) in order until one returns an error, and returns
  // that.
  template <typename Visit>
  auto ForEachPage(Visit visit) const -> decltype(visit(uint64_t{}, std::span<const uint8_t>{})) {
    for (const auto& [index, page] : pages_) {
      auto status = visit(index * page_bytes_, std::span<const uint8_t>(page.get(), page_bytes_));
      if (!status.ok()) return status;
    }
    return {};
  }

 private:
  const uint32_t page_bytes_;
  std::map<uint64_t, std::unique_ptr<uint8_t[]>> pages_;  // by page number
};

// Bits of a table, least significant first in each byte, as VHDX sector bitmaps have them. Sets, or
// asks for, all of [first, first + count).
void SetBits(SparseTable* table, uint64_t first, uint64_t count);
bool AllBitsSet(const SparseTable& table, uint64_t first, uint64_t count);

}  // namespace firn

#endif  // FIRN_DISK_SPARSE_TABLE_H_
