#include "core/bytes.h"

#include <limits>

#include "core/core_test_util.h"

namespace firn {
namespace {

constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

TEST(BytesTest, IntegersLieLittleEndianUnlessAskedOtherwise) {
  uint8_t bytes[9] = {};
  StoreLe<uint32_t>(bytes + 1, 0x11223344);  // not aligned
  EXPECT_EQ(bytes[1], 0x44);
  EXPECT_EQ(bytes[4], 0x11);
  EXPECT_EQ(LoadLe<uint32_t>(bytes + 1), 0x11223344u);
  StoreBe<uint64_t>(bytes + 1, 0x0102030405060708);
  EXPECT_EQ(bytes[1], 1);
  EXPECT_EQ(bytes[8], 8);
  EXPECT_EQ(LoadBe<uint64_t>(bytes + 1), 0x0102030405060708u);
  EXPECT_EQ(LoadBe<uint16_t>(bytes + 1), 0x0102u);
  EXPECT_EQ(SwapBytes<uint8_t>(0xAB), 0xAB);
  EXPECT_EQ(SwapBytes<uint16_t>(0xABCD), 0xCDAB);
}

TEST(BytesTest, RoundingKeepsMultiples) {
  EXPECT_EQ(RoundUp(0, 4096), 0u);
  EXPECT_EQ(RoundUp(1, 4096), 4096u);
  EXPECT_EQ(RoundUp(4096, 4096), 4096u);
  EXPECT_EQ(RoundDown(4095, 4096), 0u);
  EXPECT_EQ(RoundDown(4096, 4096), 4096u);
  EXPECT_TRUE(IsAligned(8192, 4096));
  EXPECT_FALSE(IsAligned(8191, 4096));
  EXPECT_EQ(DivideUp(0, 3), 0u);
  EXPECT_EQ(DivideUp(1, 3), 1u);
  EXPECT_EQ(DivideUp(3, 3), 1u);
  EXPECT_EQ(DivideUp(kMax, 2), kMax / 2 + 1);
}

TEST(BytesTest, CheckedArithmeticTellsOfOverflow) {
  uint64_t result = 0;
  EXPECT_TRUE(CheckedAdd(kMax - 1, 1, &result));
  EXPECT_EQ(result, kMax);
  EXPECT_FALSE(CheckedAdd(kMax, 1, &result));
  EXPECT_TRUE(CheckedMul(kMax / 2, 2, &result));
  EXPECT_EQ(result, kMax - 1);
  EXPECT_FALSE(CheckedMul(kMax / 2 + 1, 2, &result));
}

TEST(BytesTest, RangeInsideHoldsAtItsEdgesAndAgainstOverflow) {
  EXPECT_TRUE(RangeInside(0, 0, 0));
  EXPECT_TRUE(RangeInside(10, 0, 10));
  EXPECT_TRUE(RangeInside(3, 7, 10));
  EXPECT_FALSE(RangeInside(3, 8, 10));
  EXPECT_FALSE(RangeInside(11, 0, 10));
  EXPECT_FALSE(RangeInside(kMax, 2, kMax));
  EXPECT_FALSE(RangeInside(2, kMax, kMax));
  EXPECT_TRUE(RangeInside(0, kMax, kMax));
}

TEST(HexTest, GoesThereAndBack) {
  test::Random random(1);
  for (size_t length = 0; length < 70; ++length) {
    const std::vector<uint8_t> bytes = random.Bytes(length);
    const std::string hex = ToHex(bytes);
    std::vector<uint8_t> back(length, 0xEE);
    ASSERT_TRUE(FromHex(hex, back)) << hex;
    EXPECT_EQ(back, bytes);
  }
  EXPECT_EQ(ToHex(std::vector<uint8_t>{0x00, 0x9a, 0xff}), "009aff");
}

TEST(HexTest, RefusesEverythingButLowerCaseDigitsOfTheRightNumber) {
  std::array<uint8_t, 2> out;
  EXPECT_TRUE(FromHex("0aff", out));
  for (const char* bad : {"", "0af", "0aff0", "0aff00", "0AFF", "0afg", "0a f", "+aff", "0x0a"}) {
    EXPECT_FALSE(FromHex(bad, out)) << bad;
  }
  EXPECT_FALSE(FromHex(std::string_view("0a\0f", 4), out));
}

TEST(GuidTest, IsWrittenAsMicrosoftWritesIt) {
  const Guid guid = {0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
                     0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46};
  EXPECT_EQ(GuidToString(guid), "beca12ab-b2e6-4523-93ef-c309e000c746");
  for (const char* text :
       {"beca12ab-b2e6-4523-93ef-c309e000c746", "{BECA12AB-B2E6-4523-93EF-C309E000C746}",
        "BeCa12ab-b2e6-4523-93ef-c309e000c746"}) {
    Guid parsed{};
    ASSERT_TRUE(GuidFromString(text, &parsed)) << text;
    EXPECT_EQ(parsed, guid);
  }
}

TEST(GuidTest, RefusesWhatIsNotOne) {
  Guid guid;
  for (const char* text :
       {"", "{}", "beca12ab-b2e6-4523-93ef-c309e000c74", "beca12ab-b2e6-4523-93ef-c309e000c7466",
        "beca12ab-b2e6-4523-93efc309e000c746-", "beca12ab b2e6-4523-93ef-c309e000c746",
        "{beca12ab-b2e6-4523-93ef-c309e000c746", "beca12ab-b2e6-4523-93ef-c309e000c746}",
        "(beca12ab-b2e6-4523-93ef-c309e000c746)", "geca12ab-b2e6-4523-93ef-c309e000c746",
        "-eca12ab-b2e6-4523-93ef-c309e000c746"}) {
    EXPECT_FALSE(GuidFromString(text, &guid)) << text;
  }
}

TEST(GuidTest, RandomOnesGoThereAndBack) {
  test::Random random(2);
  for (int i = 0; i < 200; ++i) {
    Guid guid, back;
    random.Fill(guid);
    ASSERT_TRUE(GuidFromString(GuidToString(guid), &back));
    EXPECT_EQ(back, guid);
  }
}

}  // namespace
}  // namespace firn
