#include "disk/vhdx_writer.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "disk/image_writer.h"
#include "disk/sparse_table.h"
#include "disk/vhdx_encode.h"
#include "disk/vhdx_format.h"
#include "disk/vhdx_parent.h"

namespace firn {

namespace {

using vhdx::PayloadState;

constexpr uint32_t kBatPageBytes = 64 * kKiB;
constexpr uint64_t kBatPageEntries = kBatPageBytes / vhdx::kBatEntryBytes;
constexpr uint32_t kBitmapPageBytes = 4 * kKiB;  // covers 16 MiB of a disk with 512-byte sectors

// Everything that is settled before the file is created.
struct Plan {
  DiskIdentity identity;
  vhdx::BatLayout bat;
  std::vector<uint8_t> parent_locator;  // empty unless differencing

  uint64_t bat_length() const { return RoundUp(bat.entries * vhdx::kBatEntryBytes, kMiB); }
  uint64_t payload_offset() const { return kVhdxBatOffset + bat_length(); }
};

Status WriteHead(ImageFile& image, const Plan& plan) {
  VhdxHead head;
  head.identity = plan.identity;
  head.parent_locator = plan.parent_locator;
  head.bat_length = plan.bat_length();
  head.file_write_guid = RandomGuid();
  head.data_write_guid = RandomGuid();
  for (const FilePart& part : EncodeVhdxHead(head)) {
    FIRN_RETURN_IF_ERROR(image.WriteAt(part.file_offset, part.bytes));
  }
  return Status::Ok();
}

// All blocks present, one after another.
class VhdxFixedWriter final : public LinearWriter {
 public:
  VhdxFixedWriter(Plan plan, std::unique_ptr<ImageFile> image)
      : LinearWriter(plan.identity, std::move(image), plan.payload_offset()),
        plan_(std::move(plan)) {}

 private:
  Status WriteTables() override {
    FIRN_RETURN_IF_ERROR(WriteBat());
    return WriteHead(image(), plan_);
  }

  Status WriteBat() {
    const vhdx::BatLayout& bat = plan_.bat;
    std::vector<uint8_t> page(kBatPageBytes);
    for (uint64_t first = 0; first < bat.entries; first += kBatPageEntries) {
      std::ranges::fill(page, uint8_t{0});
      const uint64_t end = std::min(first + kBatPageEntries, bat.entries);
      for (uint64_t index = first; index < end; ++index) {
        if (bat.IsBitmapIndex(index)) continue;
        const uint64_t block = bat.BlockAtOrAfter(index);
        const uint64_t offset = plan_.payload_offset() + block * bat.block_size;
        StoreLe<uint64_t>(&page[(index - first) * vhdx::kBatEntryBytes],
                          vhdx::MakeBatEntry(PayloadState::kFullyPresent, offset));
      }
      FIRN_RETURN_IF_ERROR(image().WriteAt(kVhdxBatOffset + first * vhdx::kBatEntryBytes, page));
    }
    return Status::Ok();
  }

  const Plan plan_;
};

// Dynamic and differencing images: blocks are placed at the end of the file as they are first asked
// for.
class VhdxSparseWriter final : public ImageWriter {
 public:
  VhdxSparseWriter(Plan plan, std::unique_ptr<ImageFile> image)
      : ImageWriter(plan.identity, std::move(image)),
        plan_(std::move(plan)),
        next_offset_(plan_.payload_offset()) {}

  Status MapWrite(uint64_t offset, uint64_t length, std::vector<TargetExtent>* extents) override {
    FIRN_RETURN_IF_ERROR(CheckRange(offset, length));
    std::lock_guard lock(mutex_);
    return MapLocked(offset, length, extents);
  }

  Status MarkZero(uint64_t offset, uint64_t length) override;

 private:
  // The part of a range that lies in one block.
  struct Piece {
    uint64_t block = 0;
    uint64_t begin = 0;  // in the virtual disk
    uint64_t end = 0;
    bool whole = false;  // all of the block that lies inside the disk
  };

  Piece PieceAt(uint64_t offset, uint64_t end) const;
  uint64_t Entry(uint64_t index) const;
  void SetEntry(uint64_t index, uint64_t entry);
  uint64_t BlockEntry(uint64_t block) const { return Entry(plan_.bat.PayloadIndex(block)); }
  bool differencing() const { return plan_.identity.kind == DiskKind::kDifferencing; }

  Status MapLocked(uint64_t offset, uint64_t length, std::vector<TargetExtent>* extents);
  Status GrowFor(uint64_t offset, uint64_t end);
  uint64_t MapPiece(const Piece& piece);
  uint64_t Allocate(uint64_t bytes) { return std::exchange(next_offset_, next_offset_ + bytes); }
  bool HasAllSectors(uint64_t block) const;

  Status WriteTables() override;
  Status WriteBitmaps();

  const Plan plan_;
  std::mutex mutex_;
  // Guarded by mutex_ until Finish.
  SparseTable bat_{kBatPageBytes};
  SparseTable bitmaps_{kBitmapPageBytes};  // of all chunks in a row: bit n is sector n of the disk
  std::vector<uint64_t> partial_blocks_;   // that were made partially present
  uint64_t next_offset_;                   // where the next block goes
};

VhdxSparseWriter::Piece VhdxSparseWriter::PieceAt(uint64_t offset, uint64_t end) const {
  const uint64_t block_size = plan_.bat.block_size;
  Piece piece;
  piece.block = offset / block_size;
  const uint64_t block_begin = piece.block * block_size;
  const uint64_t block_end = std::min(block_begin + block_size, plan_.identity.size);
  piece.begin = offset;
  piece.end = std::min(end, block_end);
  piece.whole = piece.begin == block_begin && piece.end == block_end;
  return piece;
}

uint64_t VhdxSparseWriter::Entry(uint64_t index) const {
  const uint64_t offset = index * vhdx::kBatEntryBytes;
  std::span<const uint8_t> page = bat_.Find(offset);
  return page.empty() ? 0 : LoadLe<uint64_t>(&page[offset % kBatPageBytes]);
}

void VhdxSparseWriter::SetEntry(uint64_t index, uint64_t entry) {
  const uint64_t offset = index * vhdx::kBatEntryBytes;
  StoreLe<uint64_t>(&bat_.Touch(offset)[offset % kBatPageBytes], entry);
}

// Either all of the range is mapped or nothing changes, so that a caller may make room on a full
// disk and ask again.
Status VhdxSparseWriter::MapLocked(uint64_t offset, uint64_t length,
                                   std::vector<TargetExtent>* extents) {
  const uint64_t end = offset + length;
  FIRN_RETURN_IF_ERROR(GrowFor(offset, end));
  while (offset < end) {
    const Piece piece = PieceAt(offset, end);
    const uint64_t block_offset = MapPiece(piece);
    AppendTarget(
        {piece.begin, piece.end - piece.begin, block_offset + piece.begin % plan_.bat.block_size},
        extents);
    offset = piece.end;
  }
  return Status::Ok();
}

// Makes the file long enough for all that MapPiece may allocate in [offset, end).
Status VhdxSparseWriter::GrowFor(uint64_t offset, uint64_t end) {
  uint64_t bytes = 0;
  uint64_t counted_chunk = UINT64_MAX;
  while (offset < end) {
    const Piece piece = PieceAt(offset, end);
    offset = piece.end;
    if (vhdx::PayloadStateOf(BlockEntry(piece.block)) == PayloadState::kFullyPresent) continue;
    if (vhdx::PayloadStateOf(BlockEntry(piece.block)) != PayloadState::kPartiallyPresent) {
      bytes += plan_.bat.block_size;
    }
    const uint64_t chunk = plan_.bat.ChunkOf(piece.block);
    if (differencing() && !piece.whole && chunk != counted_chunk) {
      bytes += vhdx::kSectorBitmapBytes;
      counted_chunk = chunk;
    }
  }
  return bytes == 0 ? Status::Ok() : image().GrowTo(next_offset_ + bytes);
}

// Makes the piece present and returns where its block lies in the file. REQUIRES: GrowFor has made
// room.
uint64_t VhdxSparseWriter::MapPiece(const Piece& piece) {
  const vhdx::BatLayout& bat = plan_.bat;
  const uint64_t index = bat.PayloadIndex(piece.block);
  const uint64_t entry = Entry(index);
  uint64_t offset = vhdx::BatOffsetOf(entry);
  PayloadState state = vhdx::PayloadStateOf(entry);
  if (state == PayloadState::kFullyPresent) return offset;

  if (state != PayloadState::kPartiallyPresent) {
    // Only a block that showed the parent so far may become partial: in any other, the sectors that
    // are not written now are zero, and a clear bit would make them the parent's. Fresh file space
    // is zero.
    const bool shows_parent = differencing() && state == PayloadState::kNotPresent;
    state = shows_parent && !piece.whole ? PayloadState::kPartiallyPresent
                                         : PayloadState::kFullyPresent;
    if (state == PayloadState::kPartiallyPresent) {
      const uint64_t bitmap_index = bat.BitmapIndex(bat.ChunkOf(piece.block));
      if (Entry(bitmap_index) == 0) {
        SetEntry(bitmap_index, vhdx::MakeBitmapEntry(vhdx::BitmapState::kPresent,
                                                     Allocate(vhdx::kSectorBitmapBytes)));
      }
      partial_blocks_.push_back(piece.block);
    }
    offset = Allocate(bat.block_size);
  }
  if (state == PayloadState::kPartiallyPresent) {
    if (piece.whole) {
      state = PayloadState::kFullyPresent;
    } else {
      const uint64_t sector = bat.sector_size;
      SetBits(&bitmaps_, piece.begin / sector, (piece.end - piece.begin) / sector);
    }
  }
  SetEntry(index, vhdx::MakeBatEntry(state, offset));
  return offset;
}

Status VhdxSparseWriter::MarkZero(uint64_t offset, uint64_t length) {
  FIRN_RETURN_IF_ERROR(CheckRange(offset, length));
  if (!differencing()) return Status::Ok();
  std::vector<TargetExtent> to_overwrite;
  {
    std::lock_guard lock(mutex_);
    const uint64_t end = offset + length;
    while (offset < end) {
      const Piece piece = PieceAt(offset, end);
      offset = piece.end;
      const PayloadState state = vhdx::PayloadStateOf(BlockEntry(piece.block));
      if (state == PayloadState::kZero) continue;
      if (state == PayloadState::kNotPresent && piece.whole) {
        SetEntry(plan_.bat.PayloadIndex(piece.block), vhdx::MakeBatEntry(PayloadState::kZero, 0));
        continue;
      }
      std::vector<TargetExtent> targets;
      FIRN_RETURN_IF_ERROR(MapLocked(piece.begin, piece.end - piece.begin, &targets));
      if (state == PayloadState::kNotPresent) continue;  // fresh file space is zero
      for (const TargetExtent& target : targets) AppendTarget(target, &to_overwrite);
    }
  }
  static constexpr uint64_t kStep = kMiB;
  const std::vector<uint8_t> zeros(to_overwrite.empty() ? 0 : kStep);
  for (const TargetExtent& target : to_overwrite) {
    for (uint64_t done = 0; done < target.length; done += kStep) {
      const uint64_t piece = std::min(kStep, target.length - done);
      FIRN_RETURN_IF_ERROR(
          image().WriteAt(target.file_offset + done, std::span(zeros).first(piece)));
    }
  }
  return Status::Ok();
}

bool VhdxSparseWriter::HasAllSectors(uint64_t block) const {
  const uint64_t begin = block * plan_.bat.block_size;
  const uint64_t end = std::min(begin + plan_.bat.block_size, plan_.identity.size);
  const uint64_t sector = plan_.bat.sector_size;
  return AllBitsSet(bitmaps_, begin / sector, (end - begin) / sector);
}

Status VhdxSparseWriter::WriteTables() {
  for (uint64_t block : partial_blocks_) {
    const uint64_t entry = BlockEntry(block);
    if (vhdx::PayloadStateOf(entry) == PayloadState::kPartiallyPresent && HasAllSectors(block)) {
      SetEntry(plan_.bat.PayloadIndex(block),
               vhdx::MakeBatEntry(PayloadState::kFullyPresent, vhdx::BatOffsetOf(entry)));
    }
  }
  FIRN_RETURN_IF_ERROR(image().SetSize(next_offset_));
  FIRN_RETURN_IF_ERROR(WriteBitmaps());
  FIRN_RETURN_IF_ERROR(bat_.ForEachPage([&](uint64_t offset, std::span<const uint8_t> page) {
    return image().WriteAt(kVhdxBatOffset + offset, page);
  }));
  return WriteHead(image(), plan_);
}

Status VhdxSparseWriter::WriteBitmaps() {
  return bitmaps_.ForEachPage([&](uint64_t offset, std::span<const uint8_t> page) {
    const uint64_t chunk = offset / vhdx::kSectorBitmapBytes;
    const uint64_t entry = Entry(plan_.bat.BitmapIndex(chunk));
    return image().WriteAt(vhdx::BatOffsetOf(entry) + offset % vhdx::kSectorBitmapBytes, page);
  });
}

Status Refuse(const std::string& path, const char* message) {
  return Status::Error(Code::kInvalidArgument, message).During("create").At(path);
}

// Fills in what the options leave open.
Result<Plan> MakePlan(FileSystem& file_system, const std::string& path,
                      const CreateDiskOptions& options) {
  Plan plan;
  DiskIdentity& identity = plan.identity;
  identity = options.identity;
  const bool differencing = identity.kind == DiskKind::kDifferencing;
  if (differencing) {
    FIRN_ASSIGN_OR_RETURN(VhdxParentLink link,
                          LinkToVhdxParent(file_system, path, options.parent_path));
    if (identity.size != 0 && identity.size != link.identity.size) {
      return Refuse(path, "a differencing disk must be as large as its parent");
    }
    identity.size = link.identity.size;
    identity.logical_sector_size = link.identity.logical_sector_size;
    identity.physical_sector_size = link.identity.physical_sector_size;
    identity.disk_id = link.identity.disk_id;
    FIRN_ASSIGN_OR_RETURN(plan.parent_locator, EncodeParentLocator(link.locator));
  } else if (!options.parent_path.empty()) {
    return Refuse(path, "only a differencing disk has a parent");
  }
  if (identity.disk_id == Guid{}) identity.disk_id = RandomGuid();
  if (identity.block_size == 0) {
    identity.block_size = static_cast<uint32_t>(differencing ? 2 * kMiB : 32 * kMiB);
  }
  if (!vhdx::ValidBlockSize(identity.block_size)) {
    return Refuse(path, "a VHDX block is a power of two from 1 to 256 MiB");
  }
  if (identity.size == 0 || identity.size > vhdx::kVirtualSizeMax) {
    return Refuse(path, "a VHDX disk holds from one sector to 64 TiB");
  }
  if (!IsAligned(identity.size, identity.logical_sector_size)) {
    return Refuse(path, "the size of a VHDX disk must be a multiple of its logical sector size");
  }
  plan.bat = vhdx::MakeBatLayout(identity.size, identity.block_size, identity.logical_sector_size,
                                 differencing);
  return plan;
}

}  // namespace

Result<std::unique_ptr<DiskWriter>> CreateVhdxWriter(FileSystem& file_system,
                                                     const std::string& path,
                                                     const CreateDiskOptions& options) {
  FIRN_ASSIGN_OR_RETURN(Plan plan, MakePlan(file_system, path, options));
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ImageFile> image,
                        ImageFile::Create(file_system, path, options.overwrite, options.direct));
  if (plan.identity.kind != DiskKind::kFixed) {
    return std::unique_ptr<DiskWriter>(new VhdxSparseWriter(std::move(plan), std::move(image)));
  }
  const uint64_t payload_bytes = plan.bat.payload_blocks * plan.bat.block_size;
  FIRN_RETURN_IF_ERROR(image->SetSize(plan.payload_offset() + payload_bytes));
  FIRN_RETURN_IF_ERROR(image->Reserve(plan.payload_offset(), payload_bytes));
  return std::unique_ptr<DiskWriter>(new VhdxFixedWriter(std::move(plan), std::move(image)));
}

}  // namespace firn
