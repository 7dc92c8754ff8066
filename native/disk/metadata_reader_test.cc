#include "disk/metadata_reader.h"

#include <gtest/gtest.h>

#include "disk/image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

constexpr uint64_t kPage = MetadataReader::kPageBytes;

class MetadataReaderTest : public ::testing::Test {
 protected:
  void Write(uint64_t page, uint8_t value) {
    ASSERT_TRUE(file_->WriteAt(page * kPage, Bytes(16, value)).ok());
  }
  uint8_t First(const MetadataReader& reader, uint64_t page) {
    const auto bytes = reader.ReadPage(page);
    EXPECT_TRUE(bytes.ok()) << bytes.status().ToString();
    return bytes.ok() ? (**bytes)[0] : uint8_t{0};
  }

  TestFolder folder_;
  std::unique_ptr<File> file_ =
      std::move(*FileSystem::Default().Open(folder_ / "file", {.access = Access::kCreateNew}));
};

TEST_F(MetadataReaderTest, TheCacheForgetsWhatWasUsedLongestAgo) {
  const uint64_t pages = MetadataReader::kCachedPagesMax + 10;
  for (uint64_t page = 0; page < pages; ++page) Write(page, 1);
  const MetadataReader reader(*file_, pages * kPage, LogOverlay());
  EXPECT_EQ(First(reader, 0), 1);
  for (uint64_t page = 1; page < MetadataReader::kCachedPagesMax; ++page) First(reader, page);
  First(reader, 0);  // used again, so page 1 is the oldest now
  First(reader, MetadataReader::kCachedPagesMax);
  // What is cached does not see the change; what was forgotten is read anew.
  for (uint64_t page = 0; page < pages; ++page) Write(page, 2);
  EXPECT_EQ(First(reader, 0), 1);
  EXPECT_EQ(First(reader, 2), 1);
  EXPECT_EQ(First(reader, 1), 2);
}

TEST_F(MetadataReaderTest, ZeroPagesShareOne) {
  ASSERT_TRUE(file_->Truncate(8 * kPage).ok());
  const MetadataReader reader(*file_, 8 * kPage, LogOverlay());
  EXPECT_EQ(reader.ReadPage(1).value(), reader.ReadPage(5).value());
}

TEST_F(MetadataReaderTest, WhatAReplayWouldHaveAppendedIsZero) {
  Write(0, 7);
  const MetadataReader reader(*file_, 2 * kPage, LogOverlay());
  Bytes bytes(kPage, 9);
  EXPECT_TRUE(reader.ReadAt(kPage, bytes).ok());
  EXPECT_EQ(bytes, Bytes(kPage));
  EXPECT_EQ(reader.ReadAt(kPage + 1, bytes).code(), Code::kDiskTruncated);
  EXPECT_EQ(reader.ReadAt(~uint64_t{0}, bytes).code(), Code::kDiskTruncated);
}

TEST_F(MetadataReaderTest, ReadsMayCrossPages) {
  Write(0, 1);
  Write(1, 2);
  const MetadataReader reader(*file_, 2 * kPage, LogOverlay());
  Bytes bytes(kPage + 16);
  EXPECT_TRUE(reader.ReadCached(8, bytes).ok());
  EXPECT_EQ(bytes[7], 1);
  EXPECT_EQ(bytes[8], 0);
  EXPECT_EQ(bytes[kPage - 8], 2);
}

TEST_F(MetadataReaderTest, TheNextNonZeroByteMayBeTheFilesOrTheLogs) {
  Write(10, 1);
  ASSERT_TRUE(file_->Truncate(20 * kPage).ok());
  LogOverlay overlay;
  overlay.SetPage(4 * kPage, {});
  overlay.SetZero(6 * kPage, 7 * kPage);
  const MetadataReader reader(*file_, 20 * kPage, std::move(overlay));
  if (file_->NextData(0).value()->begin == 0) {
    GTEST_SKIP() << "holes can't be asked for in " << folder_.path();
  }
  EXPECT_EQ(reader.NextNonZero(0).value(), 4 * kPage);
  EXPECT_EQ(reader.NextNonZero(5 * kPage).value(), 10 * kPage);
  EXPECT_EQ(reader.NextNonZero(11 * kPage).value(), 20 * kPage);
}

}  // namespace
}  // namespace firn
