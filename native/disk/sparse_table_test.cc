#include "disk/sparse_table.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/status.h"

namespace firn {

namespace {

constexpr uint32_t kPageBytes = 64;

TEST(SparseTable, HoldsNothingForWhatWasNeverTouched) {
  SparseTable table(kPageBytes);
  EXPECT_TRUE(table.Find(0).empty());
  table.Touch(1'000'000'000'000)[0] = 7;
  EXPECT_TRUE(table.Find(0).empty());
  ASSERT_FALSE(table.Find(1'000'000'000'000).empty());
  int pages = 0;
  Status status = table.ForEachPage([&](uint64_t offset, std::span<const uint8_t> page) {
    EXPECT_EQ(offset, 1'000'000'000'000);
    EXPECT_EQ(page.size(), kPageBytes);
    EXPECT_EQ(page[0], 7);
    ++pages;
    return Status::Ok();
  });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(pages, 1);
}

TEST(SparseTable, VisitsPagesInOrderAndStopsAtTheFirstError) {
  SparseTable table(kPageBytes);
  for (uint64_t page : {5, 1, 3}) table.Touch(page * kPageBytes);
  std::vector<uint64_t> visited;
  Status status = table.ForEachPage([&](uint64_t offset, std::span<const uint8_t>) {
    visited.push_back(offset / kPageBytes);
    return visited.size() == 2 ? Status::Error(Code::kDiskFull, "full") : Status::Ok();
  });
  EXPECT_EQ(status.code(), Code::kDiskFull);
  EXPECT_EQ(visited, (std::vector<uint64_t>{1, 3}));
}

TEST(SparseTable, BitsAreLeastSignificantFirst) {
  SparseTable table(kPageBytes);
  SetBits(&table, 0, 1);
  SetBits(&table, 11, 1);
  EXPECT_EQ(table.Find(0)[0], 0x01);
  EXPECT_EQ(table.Find(0)[1], 0x08);
}

TEST(SparseTable, SetsAndFindsExactlyTheBitsOfARange) {
  constexpr uint64_t kBits = 5 * kPageBytes * 8;
  std::mt19937_64 engine(1);
  auto below = [&](uint64_t end) { return engine() % end; };
  for (int round = 0; round < 200; ++round) {
    SparseTable table(kPageBytes);
    std::vector<bool> model(kBits);
    for (int i = 0; i < 4; ++i) {
      const uint64_t first = below(kBits);
      const uint64_t count = below(i % 2 == 0 ? 20 : kBits) % (kBits - first + 1);
      SetBits(&table, first, count);
      for (uint64_t bit = first; bit < first + count; ++bit) model[bit] = true;
    }
    for (uint64_t bit = 0; bit < kBits; ++bit) {
      ASSERT_EQ(AllBitsSet(table, bit, 1), model[bit]) << "round " << round << " bit " << bit;
    }
    for (int i = 0; i < 50; ++i) {
      const uint64_t first = below(kBits);
      const uint64_t count = below(kBits - first + 1);
      bool all = true;
      for (uint64_t bit = first; bit < first + count; ++bit) all = all && model[bit];
      ASSERT_EQ(AllBitsSet(table, first, count), all) << first << " + " << count;
    }
  }
}

}  // namespace

}  // namespace firn
