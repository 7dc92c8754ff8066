// Reads the tables of an image: through the log's overlay, as long as the file would be after a
// replay, with a bounded cache.
//
// Safe for concurrent use. The cache holds at most 16 MiB of 64 KiB pages, whatever the tables'
// size; pages that are all zero share one page and so cost nothing.
#ifndef FIRN_DISK_METADATA_READER_H_
#define FIRN_DISK_METADATA_READER_H_

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <utility>

#include "core/bytes.h"
#include "core/status.h"
#include "disk/log_overlay.h"
#include "io/file.h"

namespace firn {

class MetadataReader {
 public:
  static constexpr uint64_t kPageBytes = 64 * kKiB;
  static constexpr size_t kCachedPagesMax = 256;
  using Page = std::array<uint8_t, kPageBytes>;

  // `bytes`: how long the file counts as; what lies past its real end reads as zero. `file` must
  // outlive the reader.
  MetadataReader(File& file, uint64_t bytes, LogOverlay overlay)
      : file_(file), bytes_(bytes), overlay_(std::move(overlay)) {}

  uint64_t bytes() const { return bytes_; }
  const LogOverlay& overlay() const { return overlay_; }
  const std::string& path() const { return file_.path(); }

  // Not cached. kDiskTruncated if the range does not lie inside the file.
  Status ReadAt(uint64_t offset, std::span<uint8_t> out) const;

  // Cached.
  Status ReadCached(uint64_t offset, std::span<uint8_t> out) const;

  // Cached: bytes [index * kPageBytes, ...) of the file; zero past its end.
  Result<std::shared_ptr<const Page>> ReadPage(uint64_t index) const;

  // The first byte at or after `offset` that may not be zero, or bytes().
  Result<uint64_t> NextNonZero(uint64_t offset) const;

 private:
  using Cached = std::pair<uint64_t, std::shared_ptr<const Page>>;

  // Reads what there is and zeroes the rest.
  Status ReadPadded(uint64_t offset, std::span<uint8_t> out) const;
  std::shared_ptr<const Page> FindCached(uint64_t index) const;
  void Remember(uint64_t index, std::shared_ptr<const Page> page) const;

  File& file_;
  const uint64_t bytes_;
  const LogOverlay overlay_;

  mutable std::mutex mutex_;
  mutable std::list<Cached> recent_;  // the most recently used stands first
  mutable std::unordered_map<uint64_t, std::list<Cached>::iterator> cached_;
};

}  // namespace firn

#endif  // FIRN_DISK_METADATA_READER_H_
