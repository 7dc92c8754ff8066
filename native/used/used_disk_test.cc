#include "used/used_disk.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "used/used_test_util.h"

namespace firn {
namespace {

using namespace used_test;             // NOLINT: test support
using image_test::ExpectHolesAreZero;  // NOLINT
using image_test::ExpectSameBytes;     // NOLINT
using image_test::MapRange;            // NOLINT
using image_test::MustOpen;            // NOLINT
using image_test::Pattern;             // NOLINT
using image_test::ReadAll;             // NOLINT
using image_test::ReadRange;           // NOLINT

constexpr uint64_t kPage = 4096;

TEST(UsedDiskTest, SkippedRangesAreHolesAndAllElseIsAsItWas) {
  image_test::TestFolder folder;
  test::Random random(11);
  for (int round = 0; round < 30; ++round) {
    // Data and holes of the image's own, in runs of a few pages.
    constexpr uint64_t kPages = 512;
    SparseBytes bytes;
    for (uint64_t page = 0; page < kPages;) {
      const uint64_t end = std::min(kPages, page + random.Between(1, 24));
      if (!random.OneIn(3)) {
        bytes.Write(page * kPage, Pattern(1, page * kPage, (end - page) * kPage));
      }
      page = end;
    }
    bytes.Resize(kPages * kPage + 100);
    const std::string path = folder / ("disk" + std::to_string(round) + ".raw");
    bytes.WriteTo(path);
    std::vector<ByteRange> skipped;
    Bytes expected = bytes.Read(0, bytes.size());
    for (uint64_t page = random.Below(20); page < kPages;) {
      const uint64_t end = std::min(kPages, page + random.Between(1, 20));
      skipped.push_back({page * kPage, end * kPage});
      std::fill(expected.begin() + static_cast<ptrdiff_t>(page * kPage),
                expected.begin() + static_cast<ptrdiff_t>(end * kPage), uint8_t{0});
      page = end + random.Between(1, 30);
    }
    const UsedDisk disk(MustOpen(path), skipped);
    ExpectSameBytes(ReadAll(disk), expected);
    ExpectHolesAreZero(disk, expected);
    const std::vector<Extent> extents = MapRange(disk, 0, disk.size());
    for (const Extent& extent : extents) {
      if (extent.source == nullptr) continue;
      for (const ByteRange& range : skipped) {
        ASSERT_TRUE(extent.offset + extent.length <= range.begin || extent.offset >= range.end);
      }
    }
    for (int i = 0; i < 50; ++i) {
      const uint64_t offset = random.Below(disk.size());
      const uint64_t length = random.Below(disk.size() - offset + 1);
      MapRange(disk, offset, length);
      const Bytes part(expected.begin() + static_cast<ptrdiff_t>(offset),
                       expected.begin() + static_cast<ptrdiff_t>(offset + length));
      ExpectSameBytes(ReadRange(disk, offset, length), part);
    }
  }
}

TEST(UsedDiskTest, TheSearchForDataPassesOverWhatIsSkipped) {
  SparseBytes bytes;
  bytes.Resize(64 * kMiB);
  const UsedDisk disk(std::make_unique<MemoryDisk>(bytes),
                      {{0, kMiB}, {2 * kMiB, 3 * kMiB}, {60 * kMiB, 64 * kMiB}});
  EXPECT_EQ(disk.NextPresent(0).value(), kMiB);
  EXPECT_EQ(disk.NextPresent(kMiB + 5).value(), kMiB + 5);
  EXPECT_EQ(disk.NextPresent(2 * kMiB).value(), 3 * kMiB);
  EXPECT_EQ(disk.NextPresent(60 * kMiB).value(), 64 * kMiB);
  EXPECT_EQ(disk.NextPresent(64 * kMiB).value(), 64 * kMiB);
}

TEST(UsedDiskTest, ARangeOutsideTheDiskIsRefused) {
  image_test::TestFolder folder;
  SparseBytes bytes;
  bytes.Resize(kMiB);
  bytes.WriteTo(folder / "disk.raw");
  const UsedDisk disk(MustOpen(folder / "disk.raw"), {{0, kMiB}});
  std::vector<Extent> extents;
  EXPECT_EQ(disk.Map(kMiB - 10, 11, &extents).code(), Code::kInvalidArgument);
  EXPECT_EQ(disk.Map(~uint64_t{0}, 2, &extents).code(), Code::kInvalidArgument);
  FIRN_EXPECT_OK(disk.Map(kMiB, 0, &extents));
  EXPECT_TRUE(extents.empty());
}

}  // namespace
}  // namespace firn
