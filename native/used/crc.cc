#include "used/crc.h"

#include <array>

#include "core/crc32c.h"

namespace firn {
namespace {

template <typename T, T polynomial>
constexpr std::array<T, 256> MakeTable() {
  std::array<T, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    T value = static_cast<T>(i);
    for (int bit = 0; bit < 8; ++bit) {
      const bool carry = (value & 1) != 0;
      value = static_cast<T>(value >> 1);
      if (carry) value = static_cast<T>(value ^ polynomial);
    }
    table[i] = value;
  }
  return table;
}

constexpr auto kCrc32Table = MakeTable<uint32_t, 0xEDB88320>();
constexpr auto kCrc16Table = MakeTable<uint16_t, 0xA001>();

template <typename T>
T Update(const std::array<T, 256>& table, std::span<const uint8_t> bytes, T value) {
  for (const uint8_t byte : bytes) {
    value = static_cast<T>(value >> 8 ^ table[(value ^ byte) & 0xFF]);
  }
  return value;
}

}  // namespace

uint32_t Crc32(std::span<const uint8_t> bytes) { return ~Update(kCrc32Table, bytes, ~uint32_t{0}); }

uint16_t Crc16(std::span<const uint8_t> bytes, uint16_t previous) {
  return Update(kCrc16Table, bytes, previous);
}

uint32_t Ext4Crc32c(uint32_t seed, std::span<const uint8_t> bytes) { return ~Crc32c(bytes, ~seed); }

}  // namespace firn
