// What a replayed log would have written, kept beside the file instead of in it.
//
// Holds for each 4 KiB page where in the log its content lies, not the content: a log of the
// largest size costs some 20 MiB. Zeroed ranges are intervals and cost nothing whatever their
// length. Built by one thread, then immutable and safe for concurrent use.
#ifndef FIRN_DISK_LOG_OVERLAY_H_
#define FIRN_DISK_LOG_OVERLAY_H_

#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "core/status.h"
#include "io/file.h"

namespace firn {

class LogOverlay {
 public:
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kNone = ~uint64_t{0};

  // A page is eight bytes of its descriptor, 4084 of a data sector, four of its descriptor
  // (MS-VHDX 2.3.1.3).
  struct DataPage {
    uint64_t sector_offset = 0;  // of the data sector in the file
    std::array<uint8_t, 8> leading{};
    std::array<uint8_t, 4> trailing{};
  };

  // In the order of the log; later calls win. REQUIRES: offsets are multiples of the page size.
  void SetPage(uint64_t offset, const DataPage& page) { pages_[offset] = page; }
  void SetZero(uint64_t begin, uint64_t end);

  bool empty() const { return pages_.empty() && zeros_.empty(); }
  uint64_t page_count() const { return pages_.size(); }
  uint64_t zero_range_count() const { return zeros_.size(); }
  const std::map<uint64_t, DataPage>& pages() const { return pages_; }

  bool Touches(uint64_t begin, uint64_t end) const { return NextTouched(begin) < end; }
  // The first byte at or after `offset` that the overlay replaces, or kNone.
  uint64_t NextTouched(uint64_t offset) const;
  // The first byte at or after `offset` that the overlay replaces with something that may not be
  // zero, or kNone.
  uint64_t NextData(uint64_t offset) const;

  // Replaces what the log replaces of `bytes`, which were read at `offset` of `file`.
  // kSourceChanged if the log moved meanwhile.
  Status Apply(File& file, uint64_t offset, std::span<uint8_t> bytes) const;

 private:
  // A page that lies in a zeroed range was written after it, so pages always win.
  std::map<uint64_t, DataPage> pages_;
  std::map<uint64_t, uint64_t> zeros_;  // begin -> end, disjoint
};

}  // namespace firn

#endif  // FIRN_DISK_LOG_OVERLAY_H_
