#include "chunk/page.h"

#include <set>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(PageSetTest, HoldsWhatASetOfNumbersHolds) {
  test::Random random(41);
  for (int round = 0; round < 50; ++round) {
    PageSet pages;
    std::set<uint32_t> model;
    EXPECT_TRUE(pages.empty());
    for (int i = 0; i < 6; ++i) {
      const auto begin = static_cast<uint32_t>(random.Below(kSegmentPages + 1));
      const auto end = static_cast<uint32_t>(random.Between(begin, kSegmentPages));
      const auto short_end = random.OneIn(2) ? std::min(end, begin + 70) : end;
      pages.AddRange(begin, short_end);
      for (uint32_t page = begin; page < short_end; ++page) model.insert(page);
      const auto single = static_cast<uint32_t>(random.Below(kSegmentPages));
      pages.Add(single);
      model.insert(single);
    }
    ASSERT_EQ(pages.count(), model.size());
    ASSERT_FALSE(pages.empty());
    for (uint32_t page = 0; page < kSegmentPages; ++page) {
      ASSERT_EQ(pages.Has(page), model.contains(page)) << page;
    }
    pages.Clear();
    ASSERT_TRUE(pages.empty());
    ASSERT_EQ(pages.count(), 0u);
  }
}

}  // namespace
}  // namespace firn
