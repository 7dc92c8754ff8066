#include "io/aligned_buffer.h"

#include <algorithm>
#include <utility>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(AlignedBufferTest, IsAlignedZeroedAndRoundedUpToPages) {
  for (size_t size : {size_t{1}, size_t{4096}, size_t{4097}, size_t{5 * kMiB}}) {
    AlignedBuffer buffer = test::Must(AlignedBuffer::Allocate(size));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 4096, 0u);
    EXPECT_EQ(buffer.size(), RoundUp(size, 4096));
    EXPECT_TRUE(std::ranges::all_of(buffer.span(), [](uint8_t byte) { return byte == 0; }));
    buffer.span().back() = 1;
  }
}

TEST(AlignedBufferTest, SaysSoWhenMemoryIsNotToBeHad) {
  EXPECT_EQ(AlignedBuffer::Allocate(size_t{1} << 60).status().code(), Code::kInternal);
  EXPECT_FALSE(AlignedBuffer::Allocate(~size_t{0}).ok());
}

TEST(AlignedBufferTest, MovingHandsTheMemoryOver) {
  AlignedBuffer first = test::Must(AlignedBuffer::Allocate(4096));
  uint8_t* const memory = first.data();
  AlignedBuffer second = std::move(first);
  EXPECT_EQ(first.data(), nullptr);  // NOLINT: what is left behind is what is asked about
  EXPECT_EQ(first.size(), 0u);
  EXPECT_EQ(second.data(), memory);
  AlignedBuffer third;
  EXPECT_EQ(third.size(), 0u);
  third = std::move(second);
  EXPECT_EQ(third.data(), memory);
  third.data()[4095] = 7;
}

TEST(AlignedBufferTest, MovingOntoItselfLosesNothing) {
  AlignedBuffer buffer = test::Must(AlignedBuffer::Allocate(4096));
  uint8_t* const memory = buffer.data();
  AlignedBuffer& alias = buffer;
  buffer = std::move(alias);
  EXPECT_EQ(buffer.data(), memory);
  EXPECT_EQ(buffer.size(), 4096u);
}

}  // namespace
}  // namespace firn
