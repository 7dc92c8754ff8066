// For the tests of the disk readers: a folder that goes away, whole-disk reads and digests, and a
// sparse file in memory to build images in.
#ifndef FIRN_DISK_IMAGE_TEST_UTIL_H_
#define FIRN_DISK_IMAGE_TEST_UTIL_H_

#include <blake3.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn::image_test {

using Bytes = std::vector<uint8_t>;

class TestFolder {
 public:
  TestFolder() {
    std::random_device device;
    const std::string name = "firn-disk-" + std::to_string(uint64_t{device()} << 32 | device());
    // Links in the name of the system's folder would hide what the resolver does with ours.
    path_ = std::filesystem::canonical(std::filesystem::temp_directory_path()) / name;
    if (!std::filesystem::create_directory(path_)) std::abort();
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path() const { return path_.string(); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string MakeFolder(const std::string& name) const {
    std::filesystem::create_directories(path_ / name);
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

// A file in memory of which only the 4 KiB pages that were written exist.
class SparseBytes {
 public:
  void Write(uint64_t offset, std::span<const uint8_t> bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const uint64_t at = offset + done;
      Bytes& page = pages_[at / kPage];
      page.resize(kPage);
      const size_t count = std::min<size_t>(kPage - at % kPage, bytes.size() - done);
      std::copy_n(bytes.data() + done, count, page.data() + at % kPage);
      done += count;
    }
    size_ = std::max(size_, offset + bytes.size());
  }

  Bytes Read(uint64_t offset, size_t length) const {
    Bytes bytes(length);
    for (size_t done = 0; done < length;) {
      const uint64_t at = offset + done;
      const size_t count = std::min<size_t>(kPage - at % kPage, length - done);
      const auto page = pages_.find(at / kPage);
      if (page != pages_.end()) {
        std::copy_n(page->second.data() + at % kPage, count, bytes.data() + done);
      }
      done += count;
    }
    return bytes;
  }

  uint64_t size() const { return size_; }
  void Resize(uint64_t size) {
    pages_.erase(pages_.lower_bound(DivideUp(size, kPage)), pages_.end());
    size_ = size;
  }

  // Pages that were never written are holes of the file.
  void WriteTo(const std::string& path) const {
    auto file = FileSystem::Default().Open(path, {.access = Access::kCreateAlways});
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    for (const auto& [index, page] : pages_) {
      const uint64_t offset = index * kPage;
      if (offset >= size_) break;
      const size_t count = std::min<uint64_t>(kPage, size_ - offset);
      ASSERT_TRUE((*file)->WriteAt(offset, std::span(page).first(count)).ok());
    }
    ASSERT_TRUE((*file)->Truncate(size_).ok());
  }

 private:
  static constexpr uint64_t kPage = 4096;
  std::map<uint64_t, Bytes> pages_;
  uint64_t size_ = 0;
};

// What block data looks like in these tests: never zero, different for each seed and sector.
inline uint8_t PatternByte(uint64_t seed, uint64_t offset) {
  return static_cast<uint8_t>(1 + (seed * 37 + offset / 512 * 11 + offset % 251) % 255);
}

inline Bytes Pattern(uint64_t seed, uint64_t offset, size_t length) {
  Bytes bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = PatternByte(seed, offset + i);
  return bytes;
}

// What a disk is expected to read as, for disks that fit in memory.
class Expected {
 public:
  explicit Expected(uint64_t size) : bytes_(size) {}
  void Fill(uint64_t seed, uint64_t offset, uint64_t length) {
    for (uint64_t i = offset; i < std::min<uint64_t>(offset + length, bytes_.size()); ++i) {
      bytes_[i] = PatternByte(seed, i);
    }
  }
  void Zero(uint64_t offset, uint64_t length) {
    const uint64_t end = std::min<uint64_t>(offset + length, bytes_.size());
    std::fill(bytes_.begin() + static_cast<ptrdiff_t>(offset),
              bytes_.begin() + static_cast<ptrdiff_t>(end), uint8_t{0});
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

inline OpenDiskOptions Buffered() {
  OpenDiskOptions options;
  options.direct = false;
  return options;
}

inline Result<std::unique_ptr<Disk>> OpenDisk(const std::string& path,
                                              const OpenDiskOptions& options = Buffered()) {
  return Disk::Open(FileSystem::Default(), path, options);
}

inline std::unique_ptr<Disk> MustOpen(const std::string& path,
                                      const OpenDiskOptions& options = Buffered()) {
  Result<std::unique_ptr<Disk>> disk = OpenDisk(path, options);
  EXPECT_TRUE(disk.ok()) << disk.status().ToString();
  return disk.ok() ? std::move(*disk) : nullptr;
}

inline Status OpenError(const std::string& path, const OpenDiskOptions& options = Buffered()) {
  return OpenDisk(path, options).status();
}

inline Inspection Inspect(const std::string& path, const OpenDiskOptions& options = Buffered()) {
  Result<Inspection> inspection = InspectDisk(FileSystem::Default(), path, options);
  EXPECT_TRUE(inspection.ok()) << inspection.status().ToString();
  return inspection.ok() ? std::move(*inspection) : Inspection{};
}

inline bool HasFinding(const LayerInfo& layer, const std::string& code) {
  return std::ranges::any_of(layer.findings,
                             [&](const DiskFinding& finding) { return finding.code == code; });
}

// EXPECTs that the image is refused with `code`, and that inspection finds `finding` in its first
// layer.
inline void ExpectRefused(const std::string& path, Code code, const std::string& finding) {
  const Status status = OpenError(path);
  EXPECT_EQ(CodeName(status.code()), CodeName(code)) << status.ToString();
  EXPECT_EQ(status.data_loss(), code == Code::kDiskTruncated) << status.ToString();
  const Inspection inspection = Inspect(path);
  EXPECT_EQ(CodeName(inspection.error.code()), CodeName(code)) << inspection.error.ToString();
  ASSERT_FALSE(inspection.layers.empty());
  EXPECT_TRUE(HasFinding(inspection.layers[0], finding)) << status.ToString();
}

inline Bytes ReadRange(const Disk& disk, uint64_t offset, uint64_t length) {
  Bytes bytes(length);
  const Status status = disk.Read(offset, bytes);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return bytes;
}

inline Bytes ReadAll(const Disk& disk) { return ReadRange(disk, 0, disk.size()); }

// Says where two byte strings differ, instead of printing them.
inline void ExpectSameBytes(const Bytes& actual, const Bytes& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  if (actual == expected) return;
  const auto [a, b] = std::ranges::mismatch(actual, expected);
  if (a != actual.end()) {
    FAIL() << "first difference at byte " << a - actual.begin() << ": is " << int{*a}
           << ", should be " << int{*b};
  }
}

// EXPECTs that Map covers [offset, offset + length) in order and without gaps, and has joined what
// it can.
inline std::vector<Extent> MapRange(const Disk& disk, uint64_t offset, uint64_t length) {
  std::vector<Extent> extents;
  const Status status = disk.Map(offset, length, &extents);
  EXPECT_TRUE(status.ok()) << status.ToString();
  uint64_t position = offset;
  for (size_t i = 0; i < extents.size(); ++i) {
    EXPECT_EQ(extents[i].offset, position);
    EXPECT_GT(extents[i].length, 0u);
    position += extents[i].length;
    if (i == 0 || extents[i].source != extents[i - 1].source) continue;
    EXPECT_NE(extents[i].source, nullptr) << "two holes side by side";
    EXPECT_NE(extents[i].source_offset, extents[i - 1].source_offset + extents[i - 1].length);
  }
  EXPECT_EQ(position, offset + length);
  return extents;
}

// BLAKE3 of the whole content. Holes are hashed from a buffer of zeros, so a sparse disk costs no
// reads.
inline std::string ContentDigest(const Disk& disk) {
  constexpr uint64_t kPiece = 8 * kMiB;
  blake3_hasher hasher;
  blake3_hasher_init(&hasher);
  const Bytes zeros(kPiece);
  Bytes buffer(kPiece);
  for (uint64_t offset = 0; offset < disk.size(); offset += kPiece) {
    for (const Extent& extent : MapRange(disk, offset, std::min(kPiece, disk.size() - offset))) {
      if (extent.source == nullptr) {
        blake3_hasher_update(&hasher, zeros.data(), extent.length);
        continue;
      }
      const std::span<uint8_t> piece(buffer.data(), extent.length);
      const Status status = extent.source->buffered->ReadAt(extent.source_offset, piece);
      EXPECT_TRUE(status.ok()) << status.ToString();
      blake3_hasher_update(&hasher, piece.data(), piece.size());
    }
  }
  uint8_t digest[BLAKE3_OUT_LEN];
  blake3_hasher_finalize(&hasher, digest, sizeof digest);
  return ToHex(digest);
}

// Every byte of data that NextPresent passes over must read as zero: walks the disk by it and
// EXPECTs that.
inline void ExpectHolesAreZero(const Disk& disk, const Bytes& content) {
  uint64_t position = 0;
  while (position < disk.size()) {
    const Result<uint64_t> next = disk.NextPresent(position);
    ASSERT_TRUE(next.ok()) << next.status().ToString();
    ASSERT_GE(*next, position);
    // Comparing the bytes with themselves shifted by one is quick even in a debug build.
    const uint8_t* passed = content.data() + position;
    const size_t length = *next - position;
    const bool zero =
        length == 0 || (passed[0] == 0 && std::memcmp(passed, passed + 1, length - 1) == 0);
    ASSERT_TRUE(zero) << "NextPresent(" << position << ") passed over data before " << *next;
    position = *next + 4096;
  }
}

// True if the command ran and succeeded.
inline bool RunCommand(const std::string& command) { return std::system(command.c_str()) == 0; }

}  // namespace firn::image_test

#endif  // FIRN_DISK_IMAGE_TEST_UTIL_H_
