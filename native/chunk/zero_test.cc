#include "chunk/zero.h"

#include <cstring>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(IsZeroTest, SeesEverySingleBitOfAPage) {
  alignas(64) uint8_t page[4096] = {};
  ASSERT_TRUE(IsZero(page, sizeof page));
  ASSERT_TRUE(IsZeroPortable(page, sizeof page));
  for (size_t bit = 0; bit < sizeof page * 8; ++bit) {
    page[bit / 8] = static_cast<uint8_t>(1u << (bit % 8));
    ASSERT_FALSE(IsZero(page, sizeof page)) << bit;
    ASSERT_FALSE(IsZeroPortable(page, sizeof page)) << bit;
    page[bit / 8] = 0;
  }
}

TEST(IsZeroTest, LooksAtItsRangeOnlyWhateverItsAlignmentAndSize) {
  std::vector<uint8_t> memory(8192 + 256, 0xFF);
  for (size_t start : {0, 1, 7, 31, 33, 63, 100}) {
    for (size_t size = 0; size <= 8192; size += 64) {
      std::memset(&memory[start], 0, size);
      ASSERT_TRUE(IsZero(&memory[start], size)) << start << " " << size;
      ASSERT_TRUE(IsZeroPortable(&memory[start], size)) << start << " " << size;
      std::memset(&memory[start], 0xFF, size);
    }
  }
}

TEST(IsZeroTest, BothWaysAgreeOnSparseMemory) {
  test::Random random(31);
  std::vector<uint8_t> memory(64 * 64);
  for (int i = 0; i < 5000; ++i) {
    std::fill(memory.begin(), memory.end(), uint8_t{0});
    if (random.OneIn(2)) memory[random.Below(memory.size())] = static_cast<uint8_t>(random.Next());
    const size_t from = random.Below(64) * 64;
    const size_t size = random.Below((memory.size() - from) / 64 + 1) * 64;
    bool expected = true;
    for (size_t j = from; j < from + size; ++j) expected = expected && memory[j] == 0;
    ASSERT_EQ(IsZero(&memory[from], size), expected);
    ASSERT_EQ(IsZeroPortable(&memory[from], size), expected);
  }
}

}  // namespace
}  // namespace firn
