// Builds VHDX images for tests, honest ones and broken ones, without any code of the writer's: the
// layout is written out here by hand from the specification, so that reader and writer can't agree
// on a mistake.
//
// Layout: log at 1 MiB, metadata after it, BAT after that, then blocks in the order in which they
// are added. Everything is a plain field or a patch of bytes; Finish computes the checksums, and
// Patch after Finish breaks them or not, as the test wants.
#ifndef FIRN_DISK_VHDX_IMAGE_TEST_UTIL_H_
#define FIRN_DISK_VHDX_IMAGE_TEST_UTIL_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "disk/image_test_util.h"
#include "disk/vhdx_format.h"

namespace firn::image_test {

inline Guid MakeGuid(uint8_t fill) {
  Guid guid;
  guid.fill(fill);
  return guid;
}

inline std::string Braced(const Guid& guid) { return "{" + GuidToString(guid) + "}"; }

inline Bytes Utf16(const std::string& text) {
  const std::optional<std::string> units = vhdx::Utf8ToUtf16Le(text);
  EXPECT_TRUE(units.has_value());
  return Bytes(units->begin(), units->end());
}

using KeyValues = std::vector<std::pair<std::string, std::string>>;

inline Bytes MakeLocator(const KeyValues& entries) {
  Bytes item(20 + 12 * entries.size());
  std::ranges::copy(vhdx::kParentLocatorType, item.begin());
  StoreLe<uint16_t>(item.data() + 18, static_cast<uint16_t>(entries.size()));
  for (size_t i = 0; i < entries.size(); ++i) {
    const Bytes key = Utf16(entries[i].first);
    const Bytes value = Utf16(entries[i].second);
    const auto key_offset = static_cast<uint32_t>(item.size());
    item.insert(item.end(), key.begin(), key.end());
    const auto value_offset = static_cast<uint32_t>(item.size());
    item.insert(item.end(), value.begin(), value.end());
    uint8_t* entry = item.data() + 20 + 12 * i;
    StoreLe<uint32_t>(entry, key_offset);
    StoreLe<uint32_t>(entry + 4, value_offset);
    StoreLe<uint16_t>(entry + 8, static_cast<uint16_t>(key.size()));
    StoreLe<uint16_t>(entry + 10, static_cast<uint16_t>(value.size()));
  }
  return item;
}

struct LogDescriptor {
  uint64_t target = 0;
  uint64_t zero_length = 0;  // a zero descriptor if not 0
  Bytes page{};              // 4096 bytes otherwise
};

struct LogEntrySpec {
  Guid guid = MakeGuid(0x4C);
  uint64_t sequence_number = 1;
  uint32_t tail = 0;
  uint64_t flushed_file_offset = 0;
  uint64_t last_file_offset = 0;
  std::vector<LogDescriptor> descriptors{};
};

inline Bytes MakeLogEntry(const LogEntrySpec& spec) {
  const size_t descriptor_bytes = RoundUp(64 + 32 * spec.descriptors.size(), 4096);
  Bytes entry(descriptor_bytes);
  std::copy_n("loge", 4, entry.begin());
  StoreLe<uint32_t>(entry.data() + 12, spec.tail);
  StoreLe<uint64_t>(entry.data() + 16, spec.sequence_number);
  StoreLe<uint32_t>(entry.data() + 24, static_cast<uint32_t>(spec.descriptors.size()));
  std::ranges::copy(spec.guid, entry.begin() + 32);
  StoreLe<uint64_t>(entry.data() + 48, spec.flushed_file_offset);
  StoreLe<uint64_t>(entry.data() + 56, spec.last_file_offset);
  for (size_t i = 0; i < spec.descriptors.size(); ++i) {
    const LogDescriptor& descriptor = spec.descriptors[i];
    uint8_t* at = entry.data() + 64 + 32 * i;
    StoreLe<uint64_t>(at + 16, descriptor.target);
    StoreLe<uint64_t>(at + 24, spec.sequence_number);
    if (descriptor.page.empty()) {
      std::copy_n("zero", 4, at);
      StoreLe<uint64_t>(at + 8, descriptor.zero_length);
      continue;
    }
    std::copy_n("desc", 4, at);
    std::copy_n(descriptor.page.end() - 4, 4, at + 4);
    std::copy_n(descriptor.page.begin(), 8, at + 8);
    Bytes sector = descriptor.page;
    std::copy_n("data", 4, sector.begin());
    StoreLe<uint32_t>(sector.data() + 4, static_cast<uint32_t>(spec.sequence_number >> 32));
    StoreLe<uint32_t>(sector.data() + 4092, static_cast<uint32_t>(spec.sequence_number));
    entry.insert(entry.end(), sector.begin(), sector.end());
  }
  StoreLe<uint32_t>(entry.data() + 8, static_cast<uint32_t>(entry.size()));
  vhdx::SealChecksum(entry, 4);
  return entry;
}

struct VhdxOptions {
  uint64_t virtual_size = 8 * kMiB;
  uint32_t block_size = kMiB;
  uint32_t logical_sector_size = 512;
  uint32_t physical_sector_size = 4096;
  bool fixed = false;
  KeyValues locator{};  // makes the disk differencing
  Guid data_write_guid = MakeGuid(0xD0);
  Guid log_guid{};
  uint32_t log_length = kMiB;
  uint64_t bat_length = 0;  // 0: what is needed
};

class VhdxImage {
 public:
  static constexpr uint64_t kLogOffset = kMiB;

  explicit VhdxImage(VhdxOptions options = {})
      : options_(std::move(options)),
        layout_(vhdx::MakeBatLayout(options_.virtual_size, options_.block_size,
                                    options_.logical_sector_size, !options_.locator.empty())) {
    metadata_offset_ = kLogOffset + options_.log_length;
    bat_offset_ = metadata_offset_ + kMiB;
    bat_length_ =
        options_.bat_length != 0 ? options_.bat_length : RoundUp(layout_.entries * 8, kMiB);
    end_ = bat_offset_ + bat_length_;
    file_.Resize(end_);
    PutFront();
    PutMetadata();
  }

  const vhdx::BatLayout& layout() const { return layout_; }
  uint64_t metadata_offset() const { return metadata_offset_; }
  uint64_t bat_offset() const { return bat_offset_; }
  uint64_t BatEntryOffset(uint64_t block) const {
    return bat_offset_ + layout_.PayloadIndex(block) * 8;
  }
  uint64_t BitmapEntryOffset(uint64_t chunk) const {
    return bat_offset_ + layout_.BitmapIndex(chunk) * 8;
  }
  uint64_t end() const { return end_; }
  SparseBytes& file() { return file_; }
  const SparseBytes& file() const { return file_; }

  void SetEntry(uint64_t block, uint64_t entry) { Patch64(BatEntryOffset(block), entry); }
  void SetState(uint64_t block, vhdx::PayloadState state) {
    SetEntry(block, vhdx::MakeBatEntry(state, 0));
  }

  // Takes file space without writing to it.
  uint64_t Reserve(uint64_t bytes) {
    const uint64_t offset = end_;
    end_ += RoundUp(bytes, kMiB);
    file_.Resize(end_);
    return offset;
  }

  // Adds a block of the pattern `seed` and returns where it lies.
  uint64_t AddBlock(uint64_t block, uint64_t seed,
                    vhdx::PayloadState state = vhdx::PayloadState::kFullyPresent) {
    const uint64_t offset = Reserve(options_.block_size);
    const uint64_t begin = block * options_.block_size;
    file_.Write(offset, Pattern(seed, begin, options_.block_size));
    SetEntry(block, vhdx::MakeBatEntry(state, offset));
    return offset;
  }

  // Adds a block without content, for disks that are too large to fill.
  uint64_t AddHollowBlock(uint64_t block) {
    const uint64_t offset = Reserve(options_.block_size);
    SetEntry(block, vhdx::MakeBatEntry(vhdx::PayloadState::kFullyPresent, offset));
    return offset;
  }

  uint64_t AddBitmap(uint64_t chunk) {
    const uint64_t offset = Reserve(kMiB);
    Patch64(BitmapEntryOffset(chunk), offset | 6);
    return offset;
  }

  // Sets the bits of `count` sectors of the disk from `sector` on. REQUIRES: their chunk has a
  // bitmap.
  void SetPresent(uint64_t sector, uint64_t count) {
    for (uint64_t i = sector; i < sector + count; ++i) {
      const uint64_t chunk = i / vhdx::kSectorsPerChunk;
      const uint64_t bit = i % vhdx::kSectorsPerChunk;
      const uint64_t bitmap =
          vhdx::BatOffsetOf(LoadLe<uint64_t>(file_.Read(BitmapEntryOffset(chunk), 8).data()));
      Bytes byte = file_.Read(bitmap + bit / 8, 1);
      byte[0] = static_cast<uint8_t>(byte[0] | 1 << bit % 8);
      file_.Write(bitmap + bit / 8, byte);
    }
  }

  // Writes an entry into the log's ring at `position` and returns the position after it.
  uint64_t PutLogEntry(uint64_t position, const LogEntrySpec& spec) {
    return PutLogBytes(position, MakeLogEntry(spec));
  }
  uint64_t PutLogBytes(uint64_t position, const Bytes& entry) {
    for (size_t i = 0; i < entry.size(); i += 4096) {
      file_.Write(kLogOffset + (position + i) % options_.log_length,
                  std::span(entry).subspan(i, 4096));
    }
    return (position + entry.size()) % options_.log_length;
  }

  // The page of the BAT that holds a block's entry, with that entry changed: what a log entry
  // carries.
  LogDescriptor BatPageWith(uint64_t block, uint64_t entry) const {
    const uint64_t at = BatEntryOffset(block);
    LogDescriptor descriptor;
    descriptor.target = RoundDown(at, 4096);
    descriptor.page = file_.Read(descriptor.target, 4096);
    StoreLe<uint64_t>(descriptor.page.data() + at % 4096, entry);
    return descriptor;
  }

  void Patch(uint64_t offset, const Bytes& bytes) { file_.Write(offset, bytes); }
  void Patch64(uint64_t offset, uint64_t value) {
    Bytes bytes(8);
    StoreLe(bytes.data(), value);
    Patch(offset, bytes);
  }
  void Patch32(uint64_t offset, uint32_t value) {
    Bytes bytes(4);
    StoreLe(bytes.data(), value);
    Patch(offset, bytes);
  }

  // Changes header `copy` (0 or 1) and computes its checksum.
  template <typename Change>
  void ChangeHeader(int copy, Change change) {
    const uint64_t offset = vhdx::kHeaderOffsets[copy];
    Bytes bytes = file_.Read(offset, 4096);
    change(bytes);
    vhdx::SealChecksum(bytes, 4);
    file_.Write(offset, bytes);
  }
  template <typename Change>
  void ChangeRegionTable(int copy, Change change) {
    const uint64_t offset = vhdx::kRegionTableOffsets[copy];
    Bytes bytes = file_.Read(offset, 65536);
    change(bytes);
    vhdx::SealChecksum(bytes, 4);
    file_.Write(offset, bytes);
  }
  template <typename Change>
  void ChangeBothRegionTables(Change change) {
    ChangeRegionTable(0, change);
    ChangeRegionTable(1, change);
  }

  // Adds an item to the metadata table; its bytes go to the end of what is used.
  void AddItem(const Guid& id, uint32_t flags, const Bytes& value) {
    const uint64_t entry = metadata_offset_ + 32 + 32 * uint64_t{items_};
    Bytes bytes(32);
    std::ranges::copy(id, bytes.begin());
    StoreLe<uint32_t>(bytes.data() + 16, value.empty() ? 0 : next_item_);
    StoreLe<uint32_t>(bytes.data() + 20, static_cast<uint32_t>(value.size()));
    StoreLe<uint32_t>(bytes.data() + 24, flags);
    Patch(entry, bytes);
    Patch(metadata_offset_ + next_item_, value);
    next_item_ += static_cast<uint32_t>(value.size());
    ++items_;
    Bytes count(2);
    StoreLe<uint16_t>(count.data(), items_);
    Patch(metadata_offset_ + 10, count);
  }
  // The table entry of the i-th item: file parameters, disk size, disk id, logical and physical
  // sector size, locator.
  uint64_t ItemEntryOffset(uint64_t item) const { return metadata_offset_ + 32 + 32 * item; }

  void WriteTo(const std::string& path) const { file_.WriteTo(path); }

 private:
  void PutFront() {
    Bytes id(8 + 512);
    std::copy_n("vhdxfile", 8, id.begin());
    std::ranges::copy(Utf16("firn tests"), id.begin() + 8);
    file_.Write(0, id);
    for (int copy = 0; copy < 2; ++copy) {
      file_.Write(vhdx::kHeaderOffsets[copy], Bytes(4096));
      ChangeHeader(copy, [&](Bytes& bytes) {
        std::copy_n("head", 4, bytes.begin());
        StoreLe<uint64_t>(bytes.data() + 8, static_cast<uint64_t>(7 + copy));
        std::ranges::copy(MakeGuid(0xF0), bytes.begin() + 16);
        std::ranges::copy(options_.data_write_guid, bytes.begin() + 32);
        std::ranges::copy(options_.log_guid, bytes.begin() + 48);
        StoreLe<uint16_t>(bytes.data() + 66, 1);
        StoreLe<uint32_t>(bytes.data() + 68, options_.log_length);
        StoreLe<uint64_t>(bytes.data() + 72, kLogOffset);
      });
    }
    ChangeBothRegionTables([&](Bytes& bytes) {
      std::copy_n("regi", 4, bytes.begin());
      StoreLe<uint32_t>(bytes.data() + 8, 2);
      std::ranges::copy(vhdx::kBatRegion, bytes.begin() + 16);
      StoreLe<uint64_t>(bytes.data() + 32, bat_offset_);
      StoreLe<uint32_t>(bytes.data() + 40, static_cast<uint32_t>(bat_length_));
      StoreLe<uint32_t>(bytes.data() + 44, 1);
      std::ranges::copy(vhdx::kMetadataRegion, bytes.begin() + 48);
      StoreLe<uint64_t>(bytes.data() + 64, metadata_offset_);
      StoreLe<uint32_t>(bytes.data() + 72, static_cast<uint32_t>(kMiB));
      StoreLe<uint32_t>(bytes.data() + 76, 1);
    });
  }

  void PutMetadata() {
    Bytes table(65536);
    std::copy_n("metadata", 8, table.begin());
    Patch(metadata_offset_, table);
    const auto number = [](auto value) {
      Bytes bytes(sizeof value);
      StoreLe(bytes.data(), value);
      return bytes;
    };
    Bytes parameters = number(options_.block_size);
    const uint32_t has_parent = options_.locator.empty() ? 0 : 2;
    const Bytes flags = number((options_.fixed ? 1 : 0) | has_parent);
    parameters.insert(parameters.end(), flags.begin(), flags.end());
    const Guid id = MakeGuid(0x1D);
    AddItem(vhdx::kFileParameters, 4, parameters);
    AddItem(vhdx::kVirtualDiskSize, 6, number(options_.virtual_size));
    AddItem(vhdx::kVirtualDiskId, 6, Bytes(id.begin(), id.end()));
    AddItem(vhdx::kLogicalSectorSize, 6, number(options_.logical_sector_size));
    AddItem(vhdx::kPhysicalSectorSize, 6, number(options_.physical_sector_size));
    if (has_parent != 0) AddItem(vhdx::kParentLocator, 4, MakeLocator(options_.locator));
  }

  const VhdxOptions options_;
  const vhdx::BatLayout layout_;
  uint64_t metadata_offset_ = 0;
  uint64_t bat_offset_ = 0;
  uint64_t bat_length_ = 0;
  uint64_t end_ = 0;
  uint32_t next_item_ = 65536;
  uint16_t items_ = 0;
  SparseBytes file_;
};

// A locator as Windows writes it, with all five keys.
inline KeyValues LocatorFor(const std::string& parent_name, const Guid& data_write_guid) {
  return {
      {"parent_linkage", Braced(data_write_guid)},
      {"absolute_win32_path", "C:\\vm\\" + parent_name},
      {"relative_path", ".\\" + parent_name},
      {"volume_path", "\\\\?\\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\\vm\\" + parent_name},
      {"parent_linkage2", Braced(Guid{})}};
}

}  // namespace firn::image_test

#endif  // FIRN_DISK_VHDX_IMAGE_TEST_UTIL_H_
