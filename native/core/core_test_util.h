// For tests: statuses that explain themselves when they are not OK, and seeded randomness.
#ifndef FIRN_CORE_CORE_TEST_UTIL_H_
#define FIRN_CORE_CORE_TEST_UTIL_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/status.h"

namespace firn::test {

inline ::testing::AssertionResult IsOk(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.ToString();
}

template <typename T>
::testing::AssertionResult IsOk(const Result<T>& result) {
  return IsOk(result.status());
}

#define FIRN_EXPECT_OK(expression) EXPECT_TRUE(::firn::test::IsOk(expression))
#define FIRN_ASSERT_OK(expression) ASSERT_TRUE(::firn::test::IsOk(expression))

// The value, for set-up that a test can't go on without.
template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "a test's set-up failed: %s\n", result.status().ToString().c_str());
    std::abort();
  }
  return std::move(*result);
}

inline void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "a test's set-up failed: %s\n", status.ToString().c_str());
  std::abort();
}

// Tests that go through very many cases take fewer of them then: each is several times as slow.
inline bool RunningUnderSanitizer() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

// Reproducible: a test names its seed.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  uint64_t Next() { return engine_(); }
  // In [0, end). REQUIRES: end > 0.
  uint64_t Below(uint64_t end) { return engine_() % end; }
  // In [first, last].
  uint64_t Between(uint64_t first, uint64_t last) { return first + Below(last - first + 1); }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  void Fill(std::span<uint8_t> out) {
    size_t i = 0;
    for (; i + 8 <= out.size(); i += 8) StoreLe(&out[i], engine_());
    for (; i < out.size(); ++i) out[i] = static_cast<uint8_t>(engine_());
  }
  std::vector<uint8_t> Bytes(size_t length) {
    std::vector<uint8_t> bytes(length);
    Fill(bytes);
    return bytes;
  }
  firn::Id Id() {
    firn::Id id;
    Fill(id);
    return id;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace firn::test

#endif  // FIRN_CORE_CORE_TEST_UTIL_H_
