#include "core/crc32c.h"

#include <string_view>

#include "core/core_test_util.h"

namespace firn {
namespace {

std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(Crc32cTest, GivesTheCheckValuesOfTheFormat) {
  const std::vector<uint8_t> zeros(32, 0x00), ones(32, 0xFF);
  for (auto* crc : {&Crc32c, &Crc32cPortable}) {
    EXPECT_EQ(crc({}, 0), 0u);
    EXPECT_EQ(crc(BytesOf("123456789"), 0), 0xE3069283u);
    EXPECT_EQ(crc(zeros, 0), 0x8A9136AAu);
    EXPECT_EQ(crc(ones, 0), 0x62A8AB43u);
  }
}

TEST(Crc32cTest, TheFastWayAgreesWithTheTableOnEveryLengthAndAlignment) {
  test::Random random(3);
  const std::vector<uint8_t> bytes = random.Bytes(600);
  for (size_t start = 0; start < 16; ++start) {
    for (size_t length = 0; length < 300; ++length) {
      const auto piece = std::span(bytes).subspan(start, length);
      const auto previous = static_cast<uint32_t>(random.Next());
      ASSERT_EQ(Crc32c(piece, previous), Crc32cPortable(piece, previous))
          << "start " << start << " length " << length;
    }
  }
  // Around the lengths at which the fast way takes several pieces at once.
  const std::vector<uint8_t> many = random.Bytes(40'000);
  for (int i = 0; i < 4000; ++i) {
    const size_t start = random.Below(64);
    const size_t length = random.OneIn(2) ? random.Below(30'000)
                                          : random.Between(1, 9) * 1024 + random.Below(20) - 10;
    const auto piece = std::span(many).subspan(start, length);
    const auto previous = static_cast<uint32_t>(random.Next());
    ASSERT_EQ(Crc32c(piece, previous), Crc32cPortable(piece, previous))
        << "start " << start << " length " << length;
  }
  const std::vector<uint8_t> large = random.Bytes(1'000'003);
  EXPECT_EQ(Crc32c(large), Crc32cPortable(large));
}

TEST(Crc32cTest, PiecesContinueToTheWhole) {
  test::Random random(4);
  const std::vector<uint8_t> bytes = random.Bytes(1000);
  const uint32_t whole = Crc32c(bytes);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const auto head = std::span(bytes).first(cut);
    const auto tail = std::span(bytes).subspan(cut);
    ASSERT_EQ(Crc32c(tail, Crc32c(head)), whole) << cut;
    ASSERT_EQ(Crc32cPortable(tail, Crc32cPortable(head)), whole) << cut;
  }
}

TEST(Crc32cTest, EveryBitCounts) {
  test::Random random(5);
  std::vector<uint8_t> bytes = random.Bytes(64);
  const uint32_t whole = Crc32c(bytes);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ 1u << (bit % 8));
    ASSERT_NE(Crc32c(bytes), whole) << bit;
    bytes[bit / 8] = static_cast<uint8_t>(bytes[bit / 8] ^ 1u << (bit % 8));
  }
}

}  // namespace
}  // namespace firn
