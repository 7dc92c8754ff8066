#include "used/bitmap.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "core/bytes.h"

namespace firn {
namespace {

// The bits of byte `index` that belong to [begin, end).
uint8_t Mask(uint64_t index, uint64_t begin, uint64_t end) {
  uint32_t mask = 0xFF;
  if (index == begin / 8) mask &= 0xFFu << (begin % 8);
  if (index == end / 8) mask &= 0xFFu >> (8 - end % 8);
  return static_cast<uint8_t>(mask);
}

}  // namespace

void SetBits(std::span<uint8_t> bits, uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  const uint64_t last = (end - 1) / 8;
  assert(last < bits.size());
  for (uint64_t i = begin / 8; i <= last; ++i) {
    bits[i] = static_cast<uint8_t>(bits[i] | Mask(i, begin, end));
  }
}

void ClearBits(std::span<uint8_t> bits, uint64_t begin, uint64_t end) {
  if (begin >= end) return;
  const uint64_t last = (end - 1) / 8;
  assert(last < bits.size());
  for (uint64_t i = begin / 8; i <= last; ++i) {
    bits[i] = static_cast<uint8_t>(bits[i] & ~Mask(i, begin, end));
  }
}

uint64_t CountSetBits(std::span<const uint8_t> bits, uint64_t begin, uint64_t end) {
  uint64_t count = 0;
  for (uint64_t at = begin; at < end;) {
    if (at % 64 == 0 && end - at >= 64) {
      count += static_cast<uint64_t>(std::popcount(LoadLe<uint64_t>(&bits[at / 8])));
      at += 64;
    } else {
      count += HasBit(bits, at) ? 1 : 0;
      ++at;
    }
  }
  return count;
}

bool AllBitsSet(std::span<const uint8_t> bits, uint64_t begin, uint64_t end) {
  return FindBit(bits, begin, end, false) >= end;
}

bool AnyBitSet(std::span<const uint8_t> bits, uint64_t begin, uint64_t end) {
  return FindBit(bits, begin, end, true) < end;
}

uint64_t FindBit(std::span<const uint8_t> bits, uint64_t begin, uint64_t end, bool value) {
  const uint64_t other = value ? 0 : ~uint64_t{0};
  for (uint64_t at = begin; at < end;) {
    if (at % 64 == 0 && end - at >= 64 && LoadLe<uint64_t>(&bits[at / 8]) == other) {
      at += 64;
    } else if (HasBit(bits, at) == value) {
      return at;
    } else {
      ++at;
    }
  }
  return end;
}

}  // namespace firn
