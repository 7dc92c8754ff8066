// Keeps the addon that is given away loadable where the C library is older than where it was built.
//
// The C++ library that is linked into it takes its random numbers from arc4random, which glibc has
// since 2.36 only; with this definition of the same contract it asks glibc for nothing newer than
// the rest does. Part of no other build.

#include <sys/random.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>

// Like its model: never fails. Without the kernel's generator nothing could be kept secret.
extern "C" uint32_t arc4random() noexcept {
  uint32_t value = 0;
  for (;;) {
    if (getrandom(&value, sizeof value, 0) == static_cast<ssize_t>(sizeof value)) return value;
    if (errno != EINTR) std::abort();
  }
}
