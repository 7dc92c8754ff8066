#include "used/bitmap.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(BitmapTest, EveryFunctionDoesWhatBitByBitDoes) {
  test::Random random(1);
  constexpr uint64_t kBits = 320;
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint8_t> bits(kBits / 8);
    if (round % 3 == 0) random.Fill(bits);
    if (round % 3 == 1) std::fill(bits.begin(), bits.end(), uint8_t{0xFF});
    const uint64_t begin = random.Below(kBits);
    const uint64_t end = random.Between(begin, kBits);
    uint64_t count = 0;
    uint64_t first_set = end;
    uint64_t first_clear = end;
    for (uint64_t i = end; i-- > begin;) {
      count += HasBit(bits, i) ? 1 : 0;
      (HasBit(bits, i) ? first_set : first_clear) = i;
    }
    ASSERT_EQ(CountSetBits(bits, begin, end), count);
    ASSERT_EQ(FindBit(bits, begin, end, true), first_set);
    ASSERT_EQ(FindBit(bits, begin, end, false), first_clear);
    ASSERT_EQ(AnyBitSet(bits, begin, end), count > 0);
    ASSERT_EQ(AllBitsSet(bits, begin, end), count == end - begin);
    std::vector<uint8_t> set = bits;
    std::vector<uint8_t> cleared = bits;
    SetBits(set, begin, end);
    ClearBits(cleared, begin, end);
    for (uint64_t i = 0; i < kBits; ++i) {
      const bool inside = i >= begin && i < end;
      ASSERT_EQ(HasBit(set, i), inside || HasBit(bits, i));
      ASSERT_EQ(HasBit(cleared, i), !inside && HasBit(bits, i));
    }
  }
}

}  // namespace
}  // namespace firn
