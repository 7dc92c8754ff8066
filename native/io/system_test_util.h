// For tests that every file system must pass: the file systems there are.
#ifndef FIRN_IO_SYSTEM_TEST_UTIL_H_
#define FIRN_IO_SYSTEM_TEST_UTIL_H_

#include <memory>

#include "io/file.h"
#ifdef _WIN32
#include "io/calls_win_test_util.h"
#include "io/file_win.h"
#endif

namespace firn::test {

// kHarsh: with calls that do what the system may do and seldom does. Windows alone.
enum class SystemKind : uint8_t { kReal, kHarsh };

#ifdef _WIN32
inline constexpr SystemKind kSystems[] = {SystemKind::kReal, SystemKind::kHarsh};

class TestSystem {
 public:
  explicit TestSystem(SystemKind kind) {
    if (kind == SystemKind::kHarsh) harsh_ = std::make_unique<Harsh>();
  }
  FileSystem& fs() { return harsh_ ? harsh_->fs : FileSystem::Default(); }

 private:
  struct Harsh {
    TestCalls calls;
    HarshSystem system{&calls};
    WinFileSystem fs{calls.table()};
  };
  std::unique_ptr<Harsh> harsh_;
};
#else
inline constexpr SystemKind kSystems[] = {SystemKind::kReal};

class TestSystem {
 public:
  explicit TestSystem(SystemKind) {}
  FileSystem& fs() { return FileSystem::Default(); }
};
#endif

inline const char* NameOf(SystemKind kind) { return kind == SystemKind::kReal ? "Real" : "Harsh"; }

}  // namespace firn::test

#endif  // FIRN_IO_SYSTEM_TEST_UTIL_H_
