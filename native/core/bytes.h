// Integers in byte order, alignment and checked arithmetic: the small change of every format.
//
// Loads and stores work on any alignment. The checked functions return false on overflow, because
// sizes and offsets come from images and repositories that may be hostile.
#ifndef FIRN_CORE_BYTES_H_
#define FIRN_CORE_BYTES_H_

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace firn {

static_assert(std::endian::native == std::endian::little, "Firn's formats are read in place");

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;
inline constexpr uint64_t kTiB = 1024 * kGiB;

template <std::unsigned_integral T>
T LoadLe(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <std::unsigned_integral T>
void StoreLe(uint8_t* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

template <std::unsigned_integral T>
constexpr T SwapBytes(T value) {
  T swapped = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    swapped = static_cast<T>((swapped << (sizeof(T) > 1 ? 8 : 0)) | (value & 0xFF));
    if constexpr (sizeof(T) > 1) value = static_cast<T>(value >> 8);
  }
  return swapped;
}

template <std::unsigned_integral T>
T LoadBe(const uint8_t* p) {
  return SwapBytes(LoadLe<T>(p));
}

template <std::unsigned_integral T>
void StoreBe(uint8_t* p, T value) {
  StoreLe(p, SwapBytes(value));
}

// REQUIRES: alignment is a power of two.
constexpr uint64_t RoundDown(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr uint64_t RoundUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr bool IsAligned(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}
constexpr uint64_t DivideUp(uint64_t value, uint64_t divisor) {
  return value / divisor + (value % divisor != 0 ? 1 : 0);
}

[[nodiscard]] inline bool CheckedAdd(uint64_t a, uint64_t b, uint64_t* sum) {
  return !__builtin_add_overflow(a, b, sum);
}
[[nodiscard]] inline bool CheckedMul(uint64_t a, uint64_t b, uint64_t* product) {
  return !__builtin_mul_overflow(a, b, product);
}

// Whether [offset, offset + length) lies inside [0, size), without overflow.
[[nodiscard]] inline bool RangeInside(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

// 32 bytes that name a chunk, a map object or a stored object.
using Id = std::array<uint8_t, 32>;

// 16 bytes as they stand on disk.
using Guid = std::array<uint8_t, 16>;

std::string ToHex(std::span<const uint8_t> bytes);

// False unless `hex` is exactly out.size() * 2 lower-case hexadecimal digits.
[[nodiscard]] bool FromHex(std::string_view hex, std::span<uint8_t> out);

// "beca12ab-b2e6-4523-93ef-c309e000c746": the first three fields little-endian, as Microsoft writes
// GUIDs.
std::string GuidToString(const Guid& guid);

// Accepts either case, with or without braces.
[[nodiscard]] bool GuidFromString(std::string_view text, Guid* guid);

}  // namespace firn

#endif  // FIRN_CORE_BYTES_H_
