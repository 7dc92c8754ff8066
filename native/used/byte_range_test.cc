#include "used/byte_range.h"

#include <gtest/gtest.h>

#include <vector>

namespace firn {
namespace {

using Ranges = std::vector<ByteRange>;

TEST(SkipListTest, OnlyWholePagesAreKept) {
  SkipList list(100);
  list.Add(1, 4096);
  list.Add(5000, 12288);
  list.Add(16384, 20480);
  EXPECT_EQ(list.Take(), (Ranges{{8192, 12288}, {16384, 20480}}));
}

TEST(SkipListTest, TouchingRangesMakeUpPagesTogether) {
  SkipList list(100);
  for (uint64_t at = 1024; at < 9216; at += 1024) list.Add(at, at + 1024);
  EXPECT_EQ(list.Take(), (Ranges{{4096, 8192}}));
}

TEST(SkipListTest, NothingIsSkippedByDefault) {
  SkipList list(100);
  list.Add(0, 0);
  list.Add(10, 10);
  EXPECT_TRUE(list.Take().empty());
}

TEST(SkipListTest, ALargeNumberOfRangesGivesUpTheSmallestAndSaysHowMuch) {
  SkipList list(64);
  uint64_t at = 0;
  uint64_t added = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const uint64_t length = (i % 100 == 0 ? 64 : 1) * 4096;
    list.Add(at, at + length);
    at += length + 4096;
    added += length;
  }
  const uint64_t dropped = list.dropped_bytes();
  const Ranges ranges = list.Take();
  EXPECT_LE(ranges.size(), 64u);
  EXPECT_GE(ranges.size(), 16u);
  uint64_t kept = 0;
  for (const ByteRange& range : ranges) {
    EXPECT_GE(range.length(), 64u * 4096);
    kept += range.length();
  }
  EXPECT_EQ(kept + list.dropped_bytes(), added);
  EXPECT_LE(dropped, list.dropped_bytes());
}

}  // namespace
}  // namespace firn
