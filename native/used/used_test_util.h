// For the tests of used blocks: disks in memory, partition tables, commands, and what a backup of
// only the used ranges restores to.
#ifndef FIRN_USED_USED_TEST_UTIL_H_
#define FIRN_USED_USED_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/core_test_util.h"
#include "disk/image_test_util.h"
#include "used/crc.h"
#include "used/used.h"
#include "used/used_disk.h"

namespace firn::used_test {

using image_test::Bytes;
using image_test::SparseBytes;

// Reads a SparseBytes; writes are for the test to do there.
class MemoryFile final : public File {
 public:
  explicit MemoryFile(const SparseBytes& bytes) : File("memory", false, {}), bytes_(bytes) {}
  Result<size_t> ReadSome(uint64_t offset, std::span<uint8_t> out) override {
    const Bytes bytes = bytes_.Read(offset, out.size());
    std::ranges::copy(bytes, out.begin());
    return out.size();
  }
  Status WriteAt(uint64_t, std::span<const uint8_t>) override { return ReadOnly(); }
  Result<uint64_t> Size() override { return bytes_.size(); }
  Status Truncate(uint64_t) override { return ReadOnly(); }
  Status Preallocate(uint64_t, uint64_t) override { return ReadOnly(); }
  Status Sync() override { return Status::Ok(); }
  Result<std::optional<DataRange>> NextData(uint64_t offset) override {
    return std::optional<DataRange>(DataRange{offset, bytes_.size()});
  }
  Result<FileIdentity> Identity() override { return FileIdentity{}; }
  bool IsCached(uint64_t, uint64_t) override { return true; }
  void DropCache() override {}
  intptr_t native_handle() const override { return -1; }

 private:
  static Status ReadOnly() { return Status::Error(Code::kUnsupported, "read-only"); }
  const SparseBytes& bytes_;
};

// A disk of any size that is one file in memory. Fails the test when it is asked for what is not
// inside it.
class MemoryDisk final : public Disk {
 public:
  explicit MemoryDisk(const SparseBytes& bytes, uint32_t sector_bytes = 512) : file_(bytes) {
    identity_.size = bytes.size();
    identity_.logical_sector_size = sector_bytes;
    source_.buffered = &file_;
  }
  const DiskIdentity& identity() const override { return identity_; }
  const std::vector<LayerInfo>& layers() const override { return layers_; }
  Status Map(uint64_t offset, uint64_t length, std::vector<Extent>* extents) const override {
    EXPECT_TRUE(RangeInside(offset, length, size())) << offset << " " << length;
    if (!RangeInside(offset, length, size())) {
      return Status::Error(Code::kInvalidArgument, "outside the disk");
    }
    if (length > 0) extents->push_back({offset, length, &source_, offset});
    return Status::Ok();
  }
  Result<uint64_t> NextPresent(uint64_t offset) const override { return offset; }
  Status CheckUnchanged() const override { return Status::Ok(); }

 private:
  mutable MemoryFile file_;
  DiskIdentity identity_;
  std::vector<LayerInfo> layers_;
  SourceFile source_;
};

inline UsedMap Find(const Disk& disk, const UsedOptions& options = {}) {
  Result<UsedMap> map = FindUsed(disk, options);
  EXPECT_TRUE(map.ok()) << map.status().ToString();
  return map.ok() ? std::move(*map) : UsedMap{};
}

inline UsedMap Find(const SparseBytes& bytes, const UsedOptions& options = {}) {
  return Find(MemoryDisk(bytes), options);
}

// EXPECTs what every UsedMap promises.
inline void ExpectWellFormed(const UsedMap& map) {
  uint64_t total = 0;
  for (size_t i = 0; i < map.skipped.size(); ++i) {
    const ByteRange& range = map.skipped[i];
    EXPECT_LT(range.begin, range.end);
    EXPECT_LE(range.end, map.disk_bytes);
    EXPECT_TRUE(IsAligned(range.begin, 4096) && IsAligned(range.end, 4096));
    if (i > 0) {
      EXPECT_GT(range.begin, map.skipped[i - 1].end);
    }
    const bool in_partition = std::ranges::any_of(map.partitions, [&](const UsedPartition& p) {
      return p.reason_code.empty() && range.begin >= p.offset && range.end <= p.offset + p.length;
    });
    EXPECT_TRUE(in_partition);
    total += range.length();
  }
  EXPECT_EQ(total, map.skipped_bytes);
  for (const UsedPartition& partition : map.partitions) {
    EXPECT_EQ(partition.reason_code.empty(), partition.reason.empty());
    if (!partition.reason_code.empty()) {
      EXPECT_EQ(partition.skipped_bytes, 0u);
    }
  }
}

// EXPECTs that the one volume of a disk is copied whole for this reason.
inline void ExpectKept(const UsedMap& map, const std::string& code) {
  ExpectWellFormed(map);
  EXPECT_EQ(map.skipped_bytes, 0u);
  ASSERT_EQ(map.partitions.size(), 1u) << map.reason;
  EXPECT_EQ(map.partitions[0].reason_code, code) << map.partitions[0].reason;
}

// Whether all of [begin, end) is skipped, or any.
inline bool SkipsAll(const UsedMap& map, uint64_t begin, uint64_t end) {
  return std::ranges::any_of(map.skipped,
                             [&](const ByteRange& r) { return r.begin <= begin && r.end >= end; });
}
inline bool SkipsAny(const UsedMap& map, uint64_t begin, uint64_t end) {
  const auto range = std::ranges::upper_bound(map.skipped, begin, {}, &ByteRange::end);
  return range != map.skipped.end() && range->begin < end;
}

// Writes what a restore of only the used ranges gives: everything skipped is zero.
inline void Restore(const std::string& source, const UsedMap& map, const std::string& target) {
  std::unique_ptr<Disk> disk = image_test::MustOpen(source);
  ASSERT_NE(disk, nullptr);
  const UsedDisk used(std::move(disk), map.skipped);
  auto file = FileSystem::Default().Open(target, {.access = Access::kCreateAlways});
  ASSERT_TRUE(file.ok());
  FIRN_ASSERT_OK((*file)->Truncate(used.size()));
  std::vector<Extent> extents;
  FIRN_ASSERT_OK(used.Map(0, used.size(), &extents));
  Bytes buffer(kMiB);
  for (const Extent& extent : extents) {
    if (extent.source == nullptr) continue;
    for (uint64_t done = 0; done < extent.length;) {
      const uint64_t count = std::min<uint64_t>(buffer.size(), extent.length - done);
      const std::span<uint8_t> piece = std::span(buffer).first(count);
      FIRN_ASSERT_OK(extent.source->buffered->ReadAt(extent.source_offset + done, piece));
      FIRN_ASSERT_OK((*file)->WriteAt(extent.offset + done, piece));
      done += count;
    }
  }
}

// What a backup goes through: everything that is not skipped, holes of the image included.
inline uint64_t CopiedBytes(const UsedMap& map) { return map.disk_bytes - map.skipped_bytes; }

// A command's output, or nothing if it failed.
inline std::optional<std::string> Output(const std::string& command) {
  FILE* pipe = popen((command + " 2>/dev/null").c_str(), "r");
  if (pipe == nullptr) return {};
  std::string output;
  char buffer[65536];
  size_t count = 0;
  while ((count = fread(buffer, 1, sizeof buffer, pipe)) > 0) output.append(buffer, count);
  return pclose(pipe) == 0 ? std::optional(output) : std::nullopt;
}

// Runs quietly.
inline bool Quietly(const std::string& command) {
  return image_test::RunCommand("(" + command + ") >/dev/null 2>&1");
}

// System programs may lie where an ordinary user's path does not lead.
inline bool HasProgram(const std::string& name) {
  return Quietly("PATH=$PATH:/usr/sbin:/sbin command -v " + name);
}

inline std::string WithSystemPath(const std::string& command) {
  return "PATH=$PATH:/usr/sbin:/sbin; export PATH; " + command;
}

// --- Partition tables ---

struct TestPartition {
  uint8_t type = 0;
  uint32_t first = 0;  // sectors
  uint32_t count = 0;
};

// A boot record at `sector` with up to four entries.
inline void WriteBootRecord(SparseBytes* disk, uint64_t sector,
                            const std::vector<TestPartition>& entries) {
  Bytes bytes(512);
  for (size_t i = 0; i < entries.size(); ++i) {
    uint8_t* entry = &bytes[446 + i * 16];
    entry[4] = entries[i].type;
    StoreLe<uint32_t>(entry + 8, entries[i].first);
    StoreLe<uint32_t>(entry + 12, entries[i].count);
  }
  bytes[510] = 0x55;
  bytes[511] = 0xAA;
  disk->Write(sector * 512, bytes);
}

struct TestGptPartition {
  std::string type;
  uint64_t first = 0;
  uint64_t last = 0;
};

// A whole GPT with its backup, for a disk of its present size.
inline void WriteGpt(SparseBytes* disk, const std::vector<TestGptPartition>& partitions,
                     uint32_t sector_bytes = 512) {
  const uint64_t size = disk->size();
  const uint64_t sectors = size / sector_bytes;
  const uint64_t array_sectors = 16 * kKiB / sector_bytes;
  Bytes array(16 * kKiB);
  for (size_t i = 0; i < partitions.size(); ++i) {
    uint8_t* entry = &array[i * 128];
    Guid type{};
    ASSERT_TRUE(GuidFromString(partitions[i].type, &type));
    std::ranges::copy(type, entry);
    entry[16] = static_cast<uint8_t>(i + 1);
    StoreLe<uint64_t>(entry + 32, partitions[i].first);
    StoreLe<uint64_t>(entry + 40, partitions[i].last);
  }
  const auto header = [&](uint64_t mine, uint64_t other, uint64_t array_at) {
    Bytes bytes(sector_bytes);
    std::memcpy(bytes.data(), "EFI PART\0\0\1\0\x5c\0\0\0", 16);
    StoreLe<uint64_t>(&bytes[24], mine);
    StoreLe<uint64_t>(&bytes[32], other);
    StoreLe<uint64_t>(&bytes[40], 2 + array_sectors);
    StoreLe<uint64_t>(&bytes[48], sectors - 2 - array_sectors);
    bytes[56] = 7;
    StoreLe<uint64_t>(&bytes[72], array_at);
    StoreLe<uint32_t>(&bytes[80], 128);
    StoreLe<uint32_t>(&bytes[84], 128);
    StoreLe<uint32_t>(&bytes[88], Crc32(array));
    StoreLe<uint32_t>(&bytes[16], Crc32(std::span(bytes).first(92)));
    disk->Write(mine * sector_bytes, bytes);
    disk->Write(array_at * sector_bytes, array);
  };
  header(1, sectors - 1, 2);
  header(sectors - 1, 1, sectors - 1 - array_sectors);
  WriteBootRecord(disk, 0,
                  {{0xEE, 1, static_cast<uint32_t>(std::min<uint64_t>(sectors - 1, ~0u))}});
}

// A swap space, the simplest thing that is skipped.
inline void WriteSwap(SparseBytes* disk, uint64_t offset, uint64_t length) {
  Bytes page(4096);
  StoreLe<uint32_t>(&page[1024], 1);
  StoreLe<uint32_t>(&page[1028], static_cast<uint32_t>(length / 4096 - 1));
  std::memcpy(&page[4086], "SWAPSPACE2", 10);
  disk->Write(offset, page);
}

inline constexpr char kSwapType[] = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f";
inline constexpr char kLinuxType[] = "0fc63daf-8483-4772-8e79-3d69d8477de4";
inline constexpr char kBasicType[] = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";

}  // namespace firn::used_test

#endif  // FIRN_USED_USED_TEST_UTIL_H_
