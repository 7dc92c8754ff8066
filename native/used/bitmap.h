// Bitmaps as file systems have them: bit i of byte i / 8, least significant first.
#ifndef FIRN_USED_BITMAP_H_
#define FIRN_USED_BITMAP_H_

#include <cstdint>
#include <span>

namespace firn {

inline bool HasBit(std::span<const uint8_t> bits, uint64_t i) {
  return (bits[i / 8] >> (i % 8) & 1) != 0;
}

// [begin, end). REQUIRES: they lie inside `bits`.
void SetBits(std::span<uint8_t> bits, uint64_t begin, uint64_t end);
void ClearBits(std::span<uint8_t> bits, uint64_t begin, uint64_t end);
uint64_t CountSetBits(std::span<const uint8_t> bits, uint64_t begin, uint64_t end);
bool AllBitsSet(std::span<const uint8_t> bits, uint64_t begin, uint64_t end);
bool AnyBitSet(std::span<const uint8_t> bits, uint64_t begin, uint64_t end);

// The first bit at or after `begin` that is `value`, or `end`.
uint64_t FindBit(std::span<const uint8_t> bits, uint64_t begin, uint64_t end, bool value);

}  // namespace firn

#endif  // FIRN_USED_BITMAP_H_
