#include "core/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace firn {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected 0x1EDC6F41

// Slicing by 8: table[k][b] is the CRC of byte b followed by k zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 8> MakeTables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = (crc >> 8) ^ tables[0][crc & 0xFF];
    }
  }
  return tables;
}

constexpr auto kTables = MakeTables();

#if defined(__x86_64__)
// x^exponent modulo the polynomial, bit-reflected: the factor by which a CRC moves when bits follow
// it.
constexpr uint32_t PowerOfX(uint64_t exponent) {
  uint32_t value = 0x80000000;  // x^0
  for (; exponent > 0; --exponent) value = (value >> 1) ^ ((value & 1) ? kPolynomial : 0);
  return value;
}

// The crc32 instruction takes a new word every cycle but answers after three, so three blocks are
// summed at once and joined by carry-less multiplication. A product of two reflected values stands
// one bit low, and the final crc32 multiplies by x^32: hence the 33.
constexpr size_t kLaneBytes = 1024;
constexpr uint32_t kShiftOneLane = PowerOfX(kLaneBytes * 8 - 33);
constexpr uint32_t kShiftTwoLanes = PowerOfX(2 * kLaneBytes * 8 - 33);

uint64_t Word(const uint8_t* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

__attribute__((target("sse4.2,pclmul"))) uint64_t Shift(uint64_t crc, uint32_t factor) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<long long>(crc)),
                                               _mm_cvtsi32_si128(static_cast<int>(factor)), 0);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
}

__attribute__((target("sse4.2,pclmul"))) uint32_t Crc32cSse42(const uint8_t* p, size_t n,
                                                              uint32_t crc) {
  uint64_t a = crc;
  for (; n >= 3 * kLaneBytes; n -= 3 * kLaneBytes, p += 3 * kLaneBytes) {
    uint64_t b = 0, c = 0;
    for (size_t i = 0; i < kLaneBytes - 8; i += 8) {
      a = _mm_crc32_u64(a, Word(p + i));
      b = _mm_crc32_u64(b, Word(p + kLaneBytes + i));
      c = _mm_crc32_u64(c, Word(p + 2 * kLaneBytes + i));
    }
    a = _mm_crc32_u64(a, Word(p + kLaneBytes - 8));
    b = _mm_crc32_u64(b, Word(p + 2 * kLaneBytes - 8));
    const uint64_t joined = Shift(a, kShiftTwoLanes) ^ Shift(b, kShiftOneLane);
    a = _mm_crc32_u64(c, Word(p + 3 * kLaneBytes - 8) ^ joined);
  }
  for (; n >= 8; n -= 8, p += 8) a = _mm_crc32_u64(a, Word(p));
  auto last = static_cast<uint32_t>(a);
  for (; n > 0; --n, ++p) last = _mm_crc32_u8(last, *p);
  return last;
}
#endif

}  // namespace

uint32_t Crc32cPortable(std::span<const uint8_t> bytes, uint32_t previous) {
  uint32_t crc = ~previous;
  const uint8_t* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    word ^= crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
  }
  for (; n > 0; --n, ++p) crc = (crc >> 8) ^ kTables[0][(crc ^ *p) & 0xFF];
  return ~crc;
}

uint32_t Crc32c(std::span<const uint8_t> bytes, uint32_t previous) {
#if defined(__x86_64__)
  static const bool fast = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
  if (fast) return ~Crc32cSse42(bytes.data(), bytes.size(), ~previous);
#endif
  return Crc32cPortable(bytes, previous);
}

}  // namespace firn
