#include "disk/vhd_writer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <vector>

#include "core/bytes.h"
#include "disk/image_writer.h"
#include "disk/vhd_format.h"

namespace firn {

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kDynamicHeaderOffset = vhd::footer::kBytes;
constexpr uint64_t kBatOffset = kDynamicHeaderOffset + vhd::dynamic_header::kBytes;
constexpr int64_t kEpoch = 946684800;  // 2000-01-01 00:00 UTC in Unix time

using Footer = std::array<uint8_t, vhd::footer::kBytes>;

uint32_t Now() {
  using std::chrono::system_clock;
  const int64_t seconds =
      std::chrono::duration_cast<std::chrono::seconds>(system_clock::now().time_since_epoch())
          .count();
  return static_cast<uint32_t>(std::max<int64_t>(0, seconds - kEpoch));
}

template <size_t kSize>
void PutText(std::array<uint8_t, kSize>* bytes, size_t offset, std::string_view text) {
  std::ranges::copy(text, bytes->begin() + offset);
}

Footer EncodeFooter(const DiskIdentity& identity) {
  namespace field = vhd::footer;
  const bool fixed = identity.kind == DiskKind::kFixed;
  const vhd::Geometry geometry = vhd::GeometryOf(identity.size);
  Footer footer{};
  PutText(&footer, 0, field::kSignature);
  StoreBe<uint32_t>(&footer[field::kFeatures], field::kFeaturesReserved);
  StoreBe<uint32_t>(&footer[field::kVersion], field::kSupportedVersion);
  StoreBe<uint64_t>(&footer[field::kDataOffset],
                    fixed ? field::kNoDataOffset : kDynamicHeaderOffset);
  StoreBe<uint32_t>(&footer[field::kTimestamp], Now());
  // Windows' own name and version: readers such as QEMU choose by it between the size and the
  // (smaller) geometry.
  PutText(&footer, field::kCreatorApp, "win ");
  StoreBe<uint32_t>(&footer[field::kCreatorVersion], 0x000A0000);
  PutText(&footer, field::kCreatorHost, "Wi2k");
  StoreBe<uint64_t>(&footer[field::kOriginalSize], identity.size);
  StoreBe<uint64_t>(&footer[field::kCurrentSize], identity.size);
  StoreBe<uint16_t>(&footer[field::kGeometry], geometry.cylinders);
  footer[field::kGeometry + 2] = geometry.heads;
  footer[field::kGeometry + 3] = geometry.sectors_per_track;
  StoreBe<uint32_t>(&footer[field::kType],
                    static_cast<uint32_t>(fixed ? vhd::Type::kFixed : vhd::Type::kDynamic));
  std::ranges::copy(identity.disk_id, footer.begin() + field::kUuid);
  vhd::SealChecksum(footer, field::kChecksum);
  return footer;
}

class VhdFixedWriter final : public LinearWriter {
 public:
  VhdFixedWriter(const DiskIdentity& identity, std::unique_ptr<ImageFile> image)
      : LinearWriter(identity, std::move(image), 0) {}

 private:
  Status WriteTables() override {
    FIRN_RETURN_IF_ERROR(image().SetSize(identity().size + vhd::footer::kBytes));
    return image().WriteAt(identity().size, EncodeFooter(identity()));
  }
};

class VhdDynamicWriter final : public ImageWriter {
 public:
  VhdDynamicWriter(const DiskIdentity& identity, std::unique_ptr<ImageFile> image)
      : ImageWriter(identity, std::move(image)),
        bitmap_bytes_(vhd::BitmapBytes(identity.block_size)),
        bat_(DivideUp(identity.size, identity.block_size), vhd::kBatAbsent),
        end_(kBatOffset + bat_bytes()) {}

  // How long the file may become; what a table of sector numbers can't reach must be refused before
  // anything is written.
  static uint64_t FileBytesMax(const DiskIdentity& identity) {
    const uint64_t blocks = DivideUp(identity.size, identity.block_size);
    const uint64_t stride =
        identity.block_size + RoundUp(vhd::BitmapBytes(identity.block_size), kPage);
    return RoundUp(kBatOffset + blocks * vhd::kBatEntryBytes, kPage) + blocks * stride;
  }

  Status MapWrite(uint64_t offset, uint64_t length, std::vector<TargetExtent>* extents) override {
    FIRN_RETURN_IF_ERROR(CheckRange(offset, length));
    const uint64_t block_size = identity().block_size;
    const uint64_t end = offset + length;
    std::lock_guard lock(mutex_);
    FIRN_RETURN_IF_ERROR(GrowFor(offset, end));
    while (offset < end) {
      const uint64_t block = offset / block_size;
      const uint64_t piece = std::min(end, (block + 1) * block_size) - offset;
      if (bat_[block] == vhd::kBatAbsent) Allocate(block);
      AppendTarget({offset, piece, DataOffset(block) + offset % block_size}, extents);
      offset += piece;
    }
    return Status::Ok();
  }

  Status MarkZero(uint64_t offset, uint64_t length) override { return CheckRange(offset, length); }

 private:
  uint64_t bat_bytes() const {
    return RoundUp(bat_.size() * vhd::kBatEntryBytes, vhd::kSectorBytes);
  }
  uint64_t DataOffset(uint64_t block) const {
    return bat_[block] * vhd::kSectorBytes + bitmap_bytes_;
  }
  // Where the data of a block goes that is placed after `end`.
  uint64_t NextDataOffset(uint64_t end) const { return RoundUp(end + bitmap_bytes_, kPage); }

  // Makes the file long enough for all blocks of [offset, end), so that Allocate can't fail.
  Status GrowFor(uint64_t offset, uint64_t end) {
    uint64_t file_end = end_;
    const uint64_t block_size = identity().block_size;
    for (uint64_t block = offset / block_size; block * block_size < end; ++block) {
      if (bat_[block] == vhd::kBatAbsent) file_end = NextDataOffset(file_end) + block_size;
    }
    return file_end == end_ ? Status::Ok() : image().GrowTo(file_end);
  }

  void Allocate(uint64_t block) {
    const uint64_t data_offset = NextDataOffset(end_);
    bat_[block] = static_cast<uint32_t>((data_offset - bitmap_bytes_) / vhd::kSectorBytes);
    end_ = data_offset + identity().block_size;
  }

  Status WriteTables() override;
  std::array<uint8_t, vhd::dynamic_header::kBytes> EncodeDynamicHeader() const;

  const uint64_t bitmap_bytes_;
  std::mutex mutex_;
  // Guarded by mutex_ until Finish.
  std::vector<uint32_t> bat_;  // first sector of each block's bitmap; at most 16 MiB of it
  uint64_t end_;               // of the last block
};

std::array<uint8_t, vhd::dynamic_header::kBytes> VhdDynamicWriter::EncodeDynamicHeader() const {
  namespace field = vhd::dynamic_header;
  std::array<uint8_t, field::kBytes> header{};
  PutText(&header, 0, field::kSignature);
  StoreBe<uint64_t>(&header[field::kNextOffset], vhd::footer::kNoDataOffset);
  StoreBe<uint64_t>(&header[field::kTableOffset], kBatOffset);
  StoreBe<uint32_t>(&header[field::kVersion], field::kSupportedVersion);
  StoreBe<uint32_t>(&header[field::kMaxTableEntries], static_cast<uint32_t>(bat_.size()));
  StoreBe<uint32_t>(&header[field::kBlockSize], identity().block_size);
  vhd::SealChecksum(header, field::kChecksum);
  return header;
}

Status VhdDynamicWriter::WriteTables() {
  FIRN_RETURN_IF_ERROR(image().SetSize(end_ + vhd::footer::kBytes));
  const std::vector<uint8_t> all_present(bitmap_bytes_, 0xFF);
  std::vector<uint8_t> table(bat_bytes(), 0xFF);
  for (size_t block = 0; block < bat_.size(); ++block) {
    StoreBe<uint32_t>(&table[block * vhd::kBatEntryBytes], bat_[block]);
    if (bat_[block] == vhd::kBatAbsent) continue;
    FIRN_RETURN_IF_ERROR(image().WriteAt(bat_[block] * vhd::kSectorBytes, all_present));
  }
  const Footer footer = EncodeFooter(identity());
  FIRN_RETURN_IF_ERROR(image().WriteAt(end_, footer));
  FIRN_RETURN_IF_ERROR(image().WriteAt(0, footer));
  FIRN_RETURN_IF_ERROR(image().WriteAt(kDynamicHeaderOffset, EncodeDynamicHeader()));
  return image().WriteAt(kBatOffset, table);
}

// Fills in what the options leave open; says why not, if it is not for a VHD.
Status CompleteIdentity(const CreateDiskOptions& options, DiskIdentity* identity) {
  *identity = options.identity;
  const bool dynamic = identity->kind == DiskKind::kDynamic;
  if (identity->kind == DiskKind::kDifferencing) {
    return Status::Error(Code::kUnsupported,
                         "differencing VHDs are only read; write a differencing VHDX, or a dynamic "
                         "or fixed VHD");
  }
  if (!options.parent_path.empty()) {
    return Status::Error(Code::kInvalidArgument, "only a differencing disk has a parent");
  }
  if (identity->logical_sector_size != vhd::kSectorBytes) {
    return Status::Error(Code::kUnsupported,
                         "a VHD has sectors of 512 bytes; restore this disk as vhdx");
  }
  if (identity->size > vhd::kVirtualSizeMax) {
    return Status::Error(Code::kUnsupported,
                         "a VHD holds at most 2040 GiB; restore this disk as vhdx");
  }
  if (identity->size == 0 || !IsAligned(identity->size, vhd::kSectorBytes)) {
    return Status::Error(Code::kInvalidArgument,
                         "the size of a VHD disk must be a multiple of 512 bytes, and not zero");
  }
  if (identity->block_size == 0) identity->block_size = vhd::kDefaultBlockSize;
  if (dynamic && identity->block_size != vhd::kDefaultBlockSize &&
      identity->block_size != vhd::kBlockSizeMin) {
    return Status::Error(Code::kUnsupported, "the blocks of a VHD are 2 MiB or 512 KiB");
  }
  constexpr uint64_t kReach = uint64_t{vhd::kBatAbsent} * vhd::kSectorBytes;
  if (dynamic && VhdDynamicWriter::FileBytesMax(*identity) > kReach) {
    return Status::Error(Code::kUnsupported,
                         "with blocks this small a VHD can't hold so large a disk");
  }
  if (!dynamic) identity->block_size = 0;
  identity->physical_sector_size = vhd::kSectorBytes;
  if (identity->disk_id == Guid{}) identity->disk_id = RandomGuid();
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<DiskWriter>> CreateVhdWriter(FileSystem& file_system,
                                                    const std::string& path,
                                                    const CreateDiskOptions& options) {
  DiskIdentity identity;
  Status status = CompleteIdentity(options, &identity);
  if (!status.ok()) return std::move(status).During("create").At(path);
  FIRN_ASSIGN_OR_RETURN(std::unique_ptr<ImageFile> image,
                        ImageFile::Create(file_system, path, options.overwrite, options.direct));
  if (identity.kind == DiskKind::kDynamic) {
    return std::unique_ptr<DiskWriter>(new VhdDynamicWriter(identity, std::move(image)));
  }
  FIRN_RETURN_IF_ERROR(image->SetSize(identity.size));
  FIRN_RETURN_IF_ERROR(image->Reserve(0, identity.size));
  return std::unique_ptr<DiskWriter>(new VhdFixedWriter(identity, std::move(image)));
}

}  // namespace firn
