#include "disk/vhd_format.h"

#include <gtest/gtest.h>

#include <vector>

namespace firn::vhd {
namespace {

TEST(VhdFormatTest, GeometryIsWhatTheSpecificationComputes) {
  struct Case {
    uint64_t bytes;
    int cylinders, heads, sectors;
  };
  const Case cases[] = {{10 * kMiB, 301, 4, 17},
                        {100 * kMiB, 1003, 12, 17},
                        {kGiB, 2080, 16, 63},
                        {136365211648, 65278, 16, 255},
                        {2000 * kGiB, 65535, 16, 255}};
  for (const Case& c : cases) {
    const Geometry geometry = GeometryOf(c.bytes);
    EXPECT_EQ(geometry.cylinders, c.cylinders) << c.bytes;
    EXPECT_EQ(geometry.heads, c.heads) << c.bytes;
    EXPECT_EQ(geometry.sectors_per_track, c.sectors) << c.bytes;
  }
}

TEST(VhdFormatTest, TheChecksumIsTheComplementOfTheSumWithoutItsField) {
  std::vector<uint8_t> bytes(512, 0);
  EXPECT_EQ(StructureChecksum(bytes, 64), 0xFFFFFFFFu);
  bytes[0] = 3;
  bytes[64] = 200;
  EXPECT_EQ(StructureChecksum(bytes, 64), ~3u);
  SealChecksum(bytes, 64);
  EXPECT_TRUE(ChecksumMatches(bytes, 64));
  EXPECT_EQ(bytes[67], 0xFC);  // big-endian
  bytes[511] = 1;
  EXPECT_FALSE(ChecksumMatches(bytes, 64));
}

TEST(VhdFormatTest, ABitmapTakesWholeSectors) {
  EXPECT_EQ(BitmapBytes(512 * kKiB), 512u);
  EXPECT_EQ(BitmapBytes(2 * kMiB), 512u);
  EXPECT_EQ(BitmapBytes(4 * kMiB), 1024u);
}

}  // namespace
}  // namespace firn::vhd
