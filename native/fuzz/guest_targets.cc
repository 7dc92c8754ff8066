// Partition tables and file systems that a guest wrote: what is skipped of a disk.
#include <algorithm>
#include <vector>

#include "disk/disk.h"
#include "fuzz/fuzz_input.h"
#include "fuzz/fuzz_target.h"
#include "fuzz/memory_file_system.h"
#include "used/crc.h"
#include "used/ext4_format.h"
#include "used/used.h"

namespace firn::fuzz {
namespace {

// --- Checksums, so that what is behind them is reached ---

constexpr uint64_t kSector = 512;

void SealGptHeader(SparseImage* image, uint64_t sector) {
  std::optional<std::vector<uint8_t>> header = image->TryRead(sector * kSector, kSector);
  if (sector >= image->size() / kSector || !header) return;
  std::vector<uint8_t>& bytes = *header;
  const uint64_t array_sector = LoadLe<uint64_t>(&bytes[72]);
  const uint64_t array_bytes =
      uint64_t{LoadLe<uint32_t>(&bytes[80])} * LoadLe<uint32_t>(&bytes[84]);
  if (array_sector < image->size() / kSector && array_bytes <= kMiB) {
    const auto array = image->TryRead(array_sector * kSector, array_bytes);
    if (array) StoreLe<uint32_t>(&bytes[88], Crc32(*array));
  }
  const uint32_t length = LoadLe<uint32_t>(&bytes[12]);
  if (length < 92 || length > kSector) return;
  StoreLe<uint32_t>(&bytes[16], 0);
  StoreLe<uint32_t>(&bytes[16], Crc32(std::span(bytes).first(length)));
  image->Write(sector * kSector, bytes);
}

void SealGpt(SparseImage* image) {
  if (image->size() < 3 * kSector) return;
  SealGptHeader(image, 1);
  SealGptHeader(image, image->size() / kSector - 1);
  SealGptHeader(image, LoadLe<uint64_t>(&image->Read(kSector, kSector)[32]));
}

struct Ext4Seal {
  uint32_t block_bytes = 0;
  uint32_t descriptor_bytes = 32;
  uint32_t seed = 0;
  uint32_t bitmap_bytes = 0;
};

void SealExt4Group(SparseImage* image, const Ext4Seal& seal, uint32_t group, uint64_t place) {
  namespace gd = ext4::descriptor;
  auto descriptor = image->TryRead(place, seal.descriptor_bytes);
  if (!descriptor) return;
  std::vector<uint8_t>& bytes = *descriptor;
  const bool wide = seal.descriptor_bytes >= gd::kBytes64;
  uint64_t bitmap = LoadLe<uint32_t>(&bytes[gd::kBlockBitmap]);
  if (wide) bitmap |= uint64_t{LoadLe<uint32_t>(&bytes[gd::kHigh])} << 32;
  if (bitmap < image->size() / seal.block_bytes) {
    if (const auto bits = image->TryRead(bitmap * seal.block_bytes, seal.bitmap_bytes)) {
      const uint32_t crc = Ext4Crc32c(seal.seed, *bits);
      StoreLe(&bytes[gd::kBitmapChecksum], static_cast<uint16_t>(crc));
      if (wide) StoreLe(&bytes[gd::kBitmapChecksumHigh], static_cast<uint16_t>(crc >> 16));
    }
  }
  uint8_t number[4];
  StoreLe(number, group);
  StoreLe<uint16_t>(&bytes[gd::kChecksum], 0);
  const uint32_t crc = Ext4Crc32c(Ext4Crc32c(seal.seed, number), bytes);
  StoreLe(&bytes[gd::kChecksum], static_cast<uint16_t>(crc));
  image->Write(place, bytes);
}

// Of file systems with metadata_csum; the others have next to none.
void SealExt4(SparseImage* image) {
  namespace sb = ext4::superblock;
  auto super = image->TryRead(ext4::kSuperblockAt, ext4::kSuperblockBytes);
  if (!super) return;
  const auto word = [&](uint32_t at) { return LoadLe<uint32_t>(&(*super)[at]); };
  if ((word(sb::kReadOnlyCompat) & ext4::read_only_compat::kMetadataChecksum) == 0) return;
  StoreLe(&(*super)[sb::kChecksum],
          Ext4Crc32c(~uint32_t{0}, std::span(*super).first(sb::kChecksum)));
  image->Write(ext4::kSuperblockAt, *super);
  if (word(sb::kLogBlockSize) > 6) return;
  Ext4Seal seal;
  seal.block_bytes = 1024u << word(sb::kLogBlockSize);
  if ((word(sb::kIncompat) & ext4::incompat::k64Bit) != 0) {
    seal.descriptor_bytes = LoadLe<uint16_t>(&(*super)[sb::kDescriptorSize]);
  }
  seal.seed = (word(sb::kIncompat) & ext4::incompat::kChecksumSeed) != 0
                  ? word(sb::kChecksumSeed)
                  : Ext4Crc32c(~uint32_t{0}, std::span(*super).subspan(sb::kUuid, 16));
  seal.bitmap_bytes = word(sb::kClustersPerGroup) / 8;
  if (seal.descriptor_bytes < 32 || seal.descriptor_bytes > 1024 ||
      seal.bitmap_bytes > seal.block_bytes) {
    return;
  }
  const uint64_t table = (uint64_t{word(sb::kFirstDataBlock)} + 1) * seal.block_bytes;
  for (uint32_t group = 0; group < 16; ++group) {
    SealExt4Group(image, seal, group, table + uint64_t{group} * seal.descriptor_bytes);
  }
}

// --- The search, and what every answer promises ---

class RawDisk final : public Disk {
 public:
  RawDisk(MemoryFileSystem& files, const std::string& path, uint32_t sector_bytes) {
    file_ = std::move(*files.Open(path, {}));
    source_.buffered = file_.get();
    identity_.size = *file_->Size();
    identity_.logical_sector_size = sector_bytes;
  }
  const DiskIdentity& identity() const override { return identity_; }
  const std::vector<LayerInfo>& layers() const override { return layers_; }
  Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const override {
    FIRN_FUZZ_CHECK(RangeInside(offset, length, size()));
    if (length > 0) extents->push_back({offset, length, &source_, offset});
    return Status::Ok();
  }
  Result<uint64_t> NextPresent(uint64_t offset) const override { return offset; }
  Status CheckUnchanged() const override { return Status::Ok(); }

 private:
  std::unique_ptr<File> file_;
  DiskIdentity identity_;
  std::vector<LayerInfo> layers_;
  SourceFile source_;
};

void CheckUsedMap(const UsedMap& map) {
  uint64_t total = 0;
  uint64_t end = 0;
  for (const ByteRange& range : map.skipped) {
    FIRN_FUZZ_CHECK(range.begin < range.end && range.end <= map.disk_bytes);
    FIRN_FUZZ_CHECK(IsAligned(range.begin, 4096) && IsAligned(range.end, 4096));
    FIRN_FUZZ_CHECK(end == 0 || range.begin > end);
    // Only inside a volume that was believed.
    FIRN_FUZZ_CHECK(std::ranges::any_of(map.partitions, [&](const UsedPartition& partition) {
      return partition.reason_code.empty() && range.begin >= partition.offset &&
             range.end <= partition.offset + partition.length;
    }));
    end = range.end;
    total += range.length();
  }
  FIRN_FUZZ_CHECK(total == map.skipped_bytes);
  for (const UsedPartition& partition : map.partitions) {
    FIRN_FUZZ_CHECK(partition.reason_code.empty() == partition.reason.empty());
    FIRN_FUZZ_CHECK(partition.reason_code.empty() || partition.skipped_bytes == 0);
    FIRN_FUZZ_CHECK(RangeInside(partition.offset, partition.length, map.disk_bytes));
  }
}

void RunGuest(Input bytes, void (*seal)(SparseImage* image)) {
  const FuzzInput input = FuzzInput::Decode(bytes);
  SparseImage image = std::move(input.Build()[0]);
  if (image.size() == 0) return;
  if ((input.flags & kUnsealed) == 0 && seal != nullptr) seal(&image);
  MemoryFileSystem files;
  files.Add("/disk", std::move(image));
  const RawDisk disk(files, "/disk", (input.flags & kOption3) != 0 ? 4096 : 512);
  UsedOptions options;
  options.quiesced = (input.flags & kOption1) != 0;
  options.keep_shadow_copies = (input.flags & kOption2) == 0;
  const Result<UsedMap> map = FindUsed(disk, options);
  // Every byte of this disk can be read, so whatever is wrong is a reason to copy it.
  FIRN_FUZZ_CHECK(map.ok());
  CheckUsedMap(*map);
}

}  // namespace

void RunMbr(Input input) { RunGuest(input, nullptr); }
void RunGpt(Input input) { RunGuest(input, SealGpt); }
void RunNtfs(Input input) { RunGuest(input, nullptr); }
void RunExt4(Input input) { RunGuest(input, SealExt4); }

}  // namespace firn::fuzz
