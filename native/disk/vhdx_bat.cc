#include "disk/vhdx_bat.h"

#include <algorithm>
#include <array>
#include <utility>

#include "disk/overlap_map.h"

namespace firn {
namespace {

constexpr uint64_t kPageBytes = MetadataReader::kPageBytes;
constexpr uint64_t kEntriesPerPage = kPageBytes / vhdx::kBatEntryBytes;
constexpr uint64_t kErrorsMax = 16;

// Empty if a data block's place is possible, else what is wrong with it. Truncation is the caller's
// to check.
const char* WrongWithOffset(uint64_t offset) {
  if (offset < vhdx::kHeaderSectionBytes) return "lies over the headers";
  if (offset >= vhdx::kFileOffsetEnd) return "lies further out than any VHDX reaches";
  return nullptr;
}

// Walks the table in order, once.
class BatWalk {
 public:
  BatWalk(const MetadataReader& reader, const vhdx::BatLayout& layout, bool has_parent,
          const VhdxRegions& regions, const VhdxHeader& header, LayerInfo* info)
      : reader_(reader),
        layout_(layout),
        has_parent_(has_parent),
        regions_(regions),
        info_(info),
        taken_(reader.bytes()) {
    // The front sections were found not to overlap when they were read.
    (void)taken_.Take(0, vhdx::kHeaderSectionBytes);
    if (header.log_length > 0) (void)taken_.Take(header.log_offset, header.log_length);
    for (const VhdxRegion& region : regions.all) (void)taken_.Take(region.offset, region.length);
  }

  Result<std::vector<uint8_t>> Run() {
    const uint64_t pages = DivideUp(layout_.entries, kEntriesPerPage);
    std::vector<uint8_t> kinds(pages);
    auto page = std::make_unique<MetadataReader::Page>();
    uint64_t next_non_zero = 0;
    for (uint64_t i = 0; i < pages; ++i) {
      const uint64_t begin = regions_.bat.offset + i * kPageBytes;
      if (next_non_zero <= begin) {
        FIRN_ASSIGN_OR_RETURN(next_non_zero, reader_.NextNonZero(begin));
      }
      if (next_non_zero >= begin + kPageBytes) {
        kinds[i] = SkipAbsentPage(i);
        continue;
      }
      FIRN_RETURN_IF_ERROR(reader_.ReadAt(begin, *page));
      kinds[i] = CheckPage(i, *page);
    }
    CheckLogPages();
    Summarize();
    if (!first_error_.ok()) return first_error_;
    return kinds;
  }

 private:
  uint64_t EntryOffset(uint64_t index) const {
    return regions_.bat.offset + index * vhdx::kBatEntryBytes;
  }

  // Keeps the first error; says no more than some of them.
  void Report(const char* finding, std::string message, uint64_t index, bool truncated = false) {
    if (++errors_ > kErrorsMax) return;
    Status error = truncated ? Truncated(info_, finding, std::move(message), EntryOffset(index))
                             : Invalid(info_, finding, std::move(message), EntryOffset(index));
    if (first_error_.ok()) first_error_ = std::move(error);
  }

  // A page without any entry set still ends chunks.
  uint8_t SkipAbsentPage(uint64_t page) {
    const uint64_t first = page * kEntriesPerPage;
    const uint64_t end = std::min(first + kEntriesPerPage, layout_.entries);
    const uint64_t next_bitmap = layout_.BitmapIndex(first / (layout_.chunk_ratio + 1));
    if (next_bitmap < end) CheckBitmapEntry(next_bitmap, 0);
    return VhdxBat::kAbsent;
  }

  uint8_t CheckPage(uint64_t page, const MetadataReader::Page& bytes) {
    const uint64_t first = page * kEntriesPerPage;
    const uint64_t end = std::min(first + kEntriesPerPage, layout_.entries);
    uint8_t kinds = 0;
    for (uint64_t index = first; index < end; ++index) {
      const auto entry = LoadLe<uint64_t>(bytes.data() + (index - first) * vhdx::kBatEntryBytes);
      if (layout_.IsBitmapIndex(index)) {
        CheckBitmapEntry(index, entry);
        continue;
      }
      const uint64_t block = layout_.BlockAtOrAfter(index);
      if (block >= layout_.payload_blocks)
        continue;  // the rest of a differencing disk's last chunk
      CheckPayloadEntry(block, index, entry);
      kinds |= VhdxBat::KindOf(vhdx::PayloadStateOf(entry));
    }
    return kinds;
  }

  void CheckPayloadEntry(uint64_t block, uint64_t index, uint64_t entry) {
    const auto name = [block] { return "block " + std::to_string(block); };
    if (vhdx::BatReservedOf(entry) != 0) {
      return Report("bat-reserved-bits", name() + " has reserved bits set in the BAT", index);
    }
    switch (vhdx::PayloadStateOf(entry)) {
      case vhdx::PayloadState::kNotPresent:
        return;
      case vhdx::PayloadState::kZero:
        if (vhdx::BatOffsetOf(entry) != 0) ++zero_with_offset_;
        ++info_->blocks_zero;
        return;
      case vhdx::PayloadState::kUndefined:
      case vhdx::PayloadState::kUnmapped:
        ++info_->blocks_zero;  // their offset is only a reservation
        return;
      case vhdx::PayloadState::kReserved4:
      case vhdx::PayloadState::kReserved5:
        return Report("bat-state", name() + " is in a reserved state", index);
      case vhdx::PayloadState::kPartiallyPresent:
        if (!has_parent_) {
          return Report("bat-state", name() + " is partly present in a disk without a parent",
                        index);
        }
        chunk_has_partial_ = true;
        ++info_->blocks_partial;
        break;
      case vhdx::PayloadState::kFullyPresent:
        ++info_->blocks_full;
        break;
    }
    CheckPayloadPlace(block, index, vhdx::BatOffsetOf(entry));
  }

  void CheckPayloadPlace(uint64_t block, uint64_t index, uint64_t offset) {
    const auto name = [block, offset] {
      return "block " + std::to_string(block) + " (at " + std::to_string(offset) + " of the file) ";
    };
    if (const char* wrong = WrongWithOffset(offset)) {
      return Report("bat-offset", name() + wrong, index);
    }
    const uint64_t needed = layout_.BytesInBlock(block);
    if (!RangeInside(offset, needed, reader_.bytes())) {
      return Report("block-truncated", name() + "reaches past the end of the file", index, true);
    }
    // The last block may lie beyond the disk's end in part, and some writers leave that part out of
    // the file.
    if (!RangeInside(offset, layout_.block_size, reader_.bytes())) {
      AddFinding(info_, DiskFinding::Severity::kInfo, "short-last-block",
                 name() + "ends with the disk instead of being whole", EntryOffset(index));
    }
    if (!taken_.Take(offset, layout_.block_size)) {
      return Report("bat-overlap", name() + "overlaps another structure or block", index);
    }
    if (reader_.overlay().Touches(offset, offset + needed)) {
      return Report("log-target", name() + "is written to by the log, which never holds payload",
                    index);
    }
  }

  void CheckBitmapEntry(uint64_t index, uint64_t entry) {
    const bool needed = std::exchange(chunk_has_partial_, false);
    const uint64_t chunk = index / (layout_.chunk_ratio + 1);
    const auto name = [chunk] { return "the sector bitmap of chunk " + std::to_string(chunk); };
    const uint64_t state = entry & vhdx::kBatStateMask;
    const uint64_t offset = vhdx::BatOffsetOf(entry);
    if (vhdx::BatReservedOf(entry) != 0) {
      return Report("bat-reserved-bits", name() + " has reserved bits set in the BAT", index);
    }
    if (state == static_cast<uint64_t>(vhdx::BitmapState::kNotPresent)) {
      if (needed) {
        Report("bitmap-missing", name() + " is missing, but a block of it is partly present",
               index);
      }
      return;
    }
    if (state != static_cast<uint64_t>(vhdx::BitmapState::kPresent)) {
      return Report("bat-state", name() + " is in a reserved state", index);
    }
    if (!has_parent_) {
      ++bitmaps_without_parent_;
      return;
    }
    if (const char* wrong = WrongWithOffset(offset)) {
      return Report("bat-offset", name() + " " + wrong, index);
    }
    if (!RangeInside(offset, vhdx::kSectorBitmapBytes, reader_.bytes())) {
      return Report("bitmap-truncated", name() + " reaches past the end of the file", index, true);
    }
    if (!taken_.Take(offset, vhdx::kSectorBitmapBytes)) {
      return Report("bat-overlap", name() + " overlaps another structure or block", index);
    }
    if (!reader_.overlay().empty()) bitmaps_.push_back(offset);
  }

  // Says if the log holds pages of nothing that is known. They do no harm: nothing reads them.
  void CheckLogPages() {
    std::ranges::sort(bitmaps_);
    for (const auto& [offset, page] : reader_.overlay().pages()) {
      if (offset < vhdx::kRegionTablesEnd) continue;
      const auto holds = [at = offset](const VhdxRegion& region) {
        return at >= region.offset && at < region.offset + region.length;
      };
      if (std::ranges::any_of(regions_.all, holds)) continue;
      if (std::ranges::binary_search(bitmaps_, RoundDown(offset, kMiB))) continue;
      Warn(info_, "log-target-unused", "the log writes to space that nothing uses", offset);
      return;
    }
  }

  void Summarize() {
    if (errors_ > kErrorsMax) {
      AddFinding(info_, DiskFinding::Severity::kError, "bat-more",
                 std::to_string(errors_ - kErrorsMax) + " more errors in the BAT");
    }
    if (zero_with_offset_ > 0) {
      Warn(info_, "zero-block-with-offset",
           std::to_string(zero_with_offset_) +
               " blocks that are zero have an offset, which Hyper-V refuses");
    }
    if (bitmaps_without_parent_ > 0) {
      Warn(info_, "bitmap-without-parent",
           std::to_string(bitmaps_without_parent_) +
               " sector bitmaps in a disk without a parent; they are ignored");
    }
  }

  const MetadataReader& reader_;
  const vhdx::BatLayout& layout_;
  const bool has_parent_;
  const VhdxRegions& regions_;
  LayerInfo* const info_;
  OverlapMap taken_;
  std::vector<uint64_t> bitmaps_;
  bool chunk_has_partial_ = false;
  uint64_t zero_with_offset_ = 0;
  uint64_t bitmaps_without_parent_ = 0;
  uint64_t errors_ = 0;
  Status first_error_;
};

Status Moved(const MetadataReader& reader, uint64_t offset) {
  return Status::Error(Code::kSourceChanged, "the BAT was written to while it was in use")
      .At(reader.path(), offset);
}

}  // namespace

uint8_t VhdxBat::KindOf(vhdx::PayloadState state) {
  switch (state) {
    case vhdx::PayloadState::kNotPresent:
      return kAbsent;
    case vhdx::PayloadState::kFullyPresent:
    case vhdx::PayloadState::kPartiallyPresent:
      return kData;
    default:
      return kZero;
  }
}

Result<std::unique_ptr<VhdxBat>> VhdxBat::Open(const MetadataReader& reader,
                                               const vhdx::BatLayout& layout, bool has_parent,
                                               const VhdxHeader& header, const VhdxRegions& regions,
                                               LayerInfo* info) {
  info->blocks = layout.payload_blocks;
  if (layout.entries * vhdx::kBatEntryBytes > regions.bat.length) {
    return Invalid(info, "bat-too-short",
                   "the BAT region (" + std::to_string(regions.bat.length) +
                       " bytes) is too short for the " + std::to_string(layout.entries) +
                       " entries that the disk's size needs",
                   regions.bat.offset);
  }
  BatWalk walk(reader, layout, has_parent, regions, header, info);
  FIRN_ASSIGN_OR_RETURN(std::vector<uint8_t> kinds, walk.Run());
  return std::unique_ptr<VhdxBat>(
      new VhdxBat(reader, layout, regions.bat.offset, std::move(kinds)));
}

Result<uint64_t> VhdxBat::ReadEntry(uint64_t index) const {
  std::array<uint8_t, vhdx::kBatEntryBytes> bytes;
  FIRN_RETURN_IF_ERROR(reader_.ReadCached(offset_ + index * vhdx::kBatEntryBytes, bytes));
  return LoadLe<uint64_t>(bytes.data());
}

Result<uint64_t> VhdxBat::PayloadEntry(uint64_t block) const {
  const uint64_t index = layout_.PayloadIndex(block);
  FIRN_ASSIGN_OR_RETURN(const uint64_t entry, ReadEntry(index));
  if (KindOf(vhdx::PayloadStateOf(entry)) == kData) {
    const uint64_t offset = vhdx::BatOffsetOf(entry);
    if (WrongWithOffset(offset) != nullptr ||
        !RangeInside(offset, layout_.BytesInBlock(block), reader_.bytes())) {
      return Moved(reader_, offset_ + index * vhdx::kBatEntryBytes);
    }
  }
  return entry;
}

Result<uint64_t> VhdxBat::BitmapOffset(uint64_t chunk) const {
  const uint64_t index = layout_.BitmapIndex(chunk);
  FIRN_ASSIGN_OR_RETURN(const uint64_t entry, ReadEntry(index));
  const uint64_t offset = vhdx::BatOffsetOf(entry);
  if ((entry & vhdx::kBatStateMask) != static_cast<uint64_t>(vhdx::BitmapState::kPresent) ||
      WrongWithOffset(offset) != nullptr ||
      !RangeInside(offset, vhdx::kSectorBitmapBytes, reader_.bytes())) {
    return Moved(reader_, offset_ + index * vhdx::kBatEntryBytes);
  }
  return offset;
}

Result<uint64_t> VhdxBat::FindBlock(uint64_t block, uint8_t kinds) const {
  while (block < layout_.payload_blocks) {
    uint64_t index = layout_.PayloadIndex(block);
    uint64_t page = index / kEntriesPerPage;
    if ((page_kinds_[page] & kinds) == 0) {
      while (page < page_kinds_.size() && (page_kinds_[page] & kinds) == 0) ++page;
      block = std::max(block, layout_.BlockAtOrAfter(page * kEntriesPerPage));
      continue;
    }
    FIRN_ASSIGN_OR_RETURN(const std::shared_ptr<const MetadataReader::Page> bytes,
                          reader_.ReadPage(offset_ / kPageBytes + page));
    const uint64_t first = page * kEntriesPerPage;
    for (; block < layout_.payload_blocks; ++block) {
      index = layout_.PayloadIndex(block);
      if (index >= first + kEntriesPerPage) break;
      const auto entry = LoadLe<uint64_t>(bytes->data() + (index - first) * vhdx::kBatEntryBytes);
      if ((KindOf(vhdx::PayloadStateOf(entry)) & kinds) != 0) return block;
    }
  }
  return layout_.payload_blocks;
}

}  // namespace firn
