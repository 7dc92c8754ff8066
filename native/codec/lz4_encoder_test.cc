#include "codec/lz4_encoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/core_test_util.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;

// Half of it repeats at distances up to all of it.
Bytes Repetitive(test::Random* random, size_t length) {
  Bytes bytes = random->Bytes(length);
  for (size_t at = 1; at < length;) {
    const size_t run = std::min<size_t>(random->Between(1, 300), length - at);
    const size_t from = random->Below(at);
    if (random->OneIn(2)) {
      for (size_t i = 0; i < run; ++i) bytes[at + i] = bytes[from + i];
    }
    at += run;
  }
  return bytes;
}

Bytes BlockOf(Lz4Encoder* encoder, std::span<const uint8_t> input) {
  Bytes block(Lz4Encoder::BlockBytesMax(input.size()));
  block.resize(encoder->Encode(input, block));
  return block;
}

Bytes Decoded(const Bytes& block, size_t length) {
  Bytes out(length);
  const int got = LZ4_decompress_safe(reinterpret_cast<const char*>(block.data()),
                                      reinterpret_cast<char*>(out.data()),
                                      static_cast<int>(block.size()), static_cast<int>(out.size()));
  return got == static_cast<int>(length) ? out : Bytes();
}

TEST(Lz4EncoderTest, BlocksOfAnyLengthDecodeToTheirInput) {
  test::Random random(31);
  Lz4Encoder encoder(2);
  for (size_t length : {1, 4, 13, 4096, 65535, 65536, 65537, 65547, 262144, 1048576}) {
    const Bytes input = Repetitive(&random, length);
    EXPECT_EQ(Decoded(BlockOf(&encoder, input), length), input) << length;
    const Bytes noise = random.Bytes(length);
    EXPECT_EQ(Decoded(BlockOf(&encoder, noise), length), noise) << length;
  }
}

TEST(Lz4EncoderTest, ABlockDoesNotDependOnWhatWasEncodedBefore) {
  test::Random random(32);
  Lz4Encoder used(1);
  for (int round = 0; round < 50; ++round) {
    // Side by side in memory, as the chunks of a segment are: the first would be found again.
    const Bytes both = Repetitive(&random, 2 * random.Between(64, 100'000));
    const auto [first, second] =
        std::pair(std::span(both).first(both.size() / 2), std::span(both).subspan(both.size() / 2));
    (void)BlockOf(&used, first);
    Lz4Encoder fresh(1);
    const Bytes block = BlockOf(&used, second);
    EXPECT_EQ(block, BlockOf(&fresh, second));
    EXPECT_TRUE(std::ranges::equal(Decoded(block, second.size()), second));
  }
}

TEST(Lz4EncoderTest, MoreAccelerationMakesLargerBlocks) {
  test::Random random(33);
  const Bytes input = Repetitive(&random, 60'000);
  Lz4Encoder small(1), fast(64);
  EXPECT_LT(BlockOf(&small, input).size(), BlockOf(&fast, input).size());
  EXPECT_LT(BlockOf(&small, input).size(), input.size());
}

}  // namespace
}  // namespace firn
