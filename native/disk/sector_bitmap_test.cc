#include "disk/sector_bitmap.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace firn {
namespace {

TEST(SectorBitmapTest, TheOrderOfBitsDiffersBetweenTheFormats) {
  const std::vector<uint8_t> bytes = {0x01, 0x80};
  EXPECT_TRUE(TestBit(bytes, 0, BitOrder::kLeastSignificantFirst));
  EXPECT_FALSE(TestBit(bytes, 7, BitOrder::kLeastSignificantFirst));
  EXPECT_TRUE(TestBit(bytes, 15, BitOrder::kLeastSignificantFirst));
  EXPECT_TRUE(TestBit(bytes, 7, BitOrder::kMostSignificantFirst));
  EXPECT_TRUE(TestBit(bytes, 8, BitOrder::kMostSignificantFirst));
  EXPECT_FALSE(TestBit(bytes, 15, BitOrder::kMostSignificantFirst));
}

TEST(SectorBitmapTest, RunsEndWhereTheBitsChange) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint8_t> bytes(16);
    // Mostly whole bytes, so that runs cross them.
    for (uint8_t& byte : bytes) {
      const unsigned kind = random() % 4;
      byte = static_cast<uint8_t>(kind == 0 ? random() : kind == 1 ? 0 : 0xFF);
    }
    for (const BitOrder order :
         {BitOrder::kLeastSignificantFirst, BitOrder::kMostSignificantFirst}) {
      const uint64_t begin = random() % 127;
      const uint64_t end = begin + 1 + random() % (128 - begin);
      uint64_t expected = begin;
      while (expected < end && TestBit(bytes, expected, order) == TestBit(bytes, begin, order)) {
        ++expected;
      }
      EXPECT_EQ(BitRunEnd(bytes, begin, end, order), expected);
    }
  }
}

}  // namespace
}  // namespace firn
