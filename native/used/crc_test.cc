#include "used/crc.h"

#include <gtest/gtest.h>

#include <string_view>

namespace firn {
namespace {

constexpr std::string_view kCheck = "123456789";

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(CrcTest, TheChecksumsMatchTheirCatalogues) {
  EXPECT_EQ(Crc32(AsBytes(kCheck)), 0xCBF43926u);
  EXPECT_EQ(Crc16(AsBytes(kCheck), 0xFFFF), 0x4B37u);
  EXPECT_EQ(Ext4Crc32c(~uint32_t{0}, AsBytes(kCheck)), ~0xE3069283u);
}

TEST(CrcTest, AChecksumContinuesWhereAnotherStopped) {
  const uint16_t first = Crc16(AsBytes(kCheck.substr(0, 4)), 0xFFFF);
  EXPECT_EQ(Crc16(AsBytes(kCheck.substr(4)), first), 0x4B37u);
  const uint32_t head = Ext4Crc32c(~uint32_t{0}, AsBytes(kCheck.substr(0, 4)));
  EXPECT_EQ(Ext4Crc32c(head, AsBytes(kCheck.substr(4))), ~0xE3069283u);
}

}  // namespace
}  // namespace firn
