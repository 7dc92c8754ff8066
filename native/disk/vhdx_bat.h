// The block allocation table of a VHDX (MS-VHDX 2.5): what state each block is in and where it
// lies.
//
// Open walks the whole table once and checks every entry; after that, pages of it are read on
// demand through the reader's cache. The table is up to 513 MiB long, so it is never held: what
// stays in memory is one byte for each 64 KiB of it, which says what kinds of block occur there, so
// that a search for the next present block skips what can't hold one. Holes of the file are skipped
// unread.
//
// Immutable after Open and safe for concurrent use. Entries are checked again when they are used,
// because the cache may read them anew and the file may have changed.
#ifndef FIRN_DISK_VHDX_BAT_H_
#define FIRN_DISK_VHDX_BAT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/status.h"
#include "disk/layer.h"
#include "disk/metadata_reader.h"
#include "disk/vhdx_format.h"
#include "disk/vhdx_header.h"

namespace firn {

class VhdxBat {
 public:
  // Kinds of block, as a set.
  static constexpr uint8_t kAbsent = 1;  // NOT_PRESENT: the parent's, or zero
  static constexpr uint8_t kZero = 2;    // ZERO, UNDEFINED, UNMAPPED
  static constexpr uint8_t kData = 4;    // FULLY_PRESENT, PARTIALLY_PRESENT

  static uint8_t KindOf(vhdx::PayloadState state);

  // Checks states, reserved bits, offsets, overlaps, and that the log's overlay hits no payload.
  // `reader` must outlive the table.
  static Result<std::unique_ptr<VhdxBat>> Open(const MetadataReader& reader,
                                               const vhdx::BatLayout& layout, bool has_parent,
                                               const VhdxHeader& header, const VhdxRegions& regions,
                                               LayerInfo* info);

  const vhdx::BatLayout& layout() const { return layout_; }

  // The entry of a payload block. REQUIRES: block < layout().payload_blocks.
  Result<uint64_t> PayloadEntry(uint64_t block) const;

  // Where the sector bitmap of a chunk lies. REQUIRES: chunk < layout().chunks, the disk has a
  // parent.
  Result<uint64_t> BitmapOffset(uint64_t chunk) const;

  // The first block at or after `block` that is of one of the kinds, or layout().payload_blocks.
  Result<uint64_t> FindBlock(uint64_t block, uint8_t kinds) const;

 private:
  VhdxBat(const MetadataReader& reader, const vhdx::BatLayout& layout, uint64_t offset,
          std::vector<uint8_t> page_kinds)
      : reader_(reader), layout_(layout), offset_(offset), page_kinds_(std::move(page_kinds)) {}

  Result<uint64_t> ReadEntry(uint64_t index) const;

  const MetadataReader& reader_;
  const vhdx::BatLayout layout_;
  const uint64_t offset_;                  // of the region in the file
  const std::vector<uint8_t> page_kinds_;  // of each page, which kinds of block it has
};

}  // namespace firn

#endif  // FIRN_DISK_VHDX_BAT_H_
