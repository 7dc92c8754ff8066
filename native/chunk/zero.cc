#include "chunk/zero.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace firn {

namespace {

#if defined(__x86_64__)
__attribute__((target("avx2"))) bool IsZeroAvx2(const uint8_t* data, size_t size) {
  for (size_t i = 0; i < size; i += 64) {
    const auto* p = reinterpret_cast<const __m256i*>(data + i);
    __m256i bits = _mm256_or_si256(_mm256_loadu_si256(p), _mm256_loadu_si256(p + 1));
    if (!_mm256_testz_si256(bits, bits)) return false;
  }
  return true;
}
#endif

}  // namespace

bool IsZeroPortable(const uint8_t* data, size_t size) {
  for (size_t i = 0; i < size; i += 64) {
    uint64_t words[8];
    std::memcpy(words, data + i, sizeof words);
    uint64_t bits = 0;
    for (uint64_t word : words) bits |= word;
    if (bits != 0) return false;
  }
  return true;
}

bool IsZero(const uint8_t* data, size_t size) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) return IsZeroAvx2(data, size);
#endif
  return IsZeroPortable(data, size);
}

}  // namespace firn
