// A cap on bytes a second, for one thread that asks before each piece of work.
#ifndef FIRN_BENCH_PACE_H_
#define FIRN_BENCH_PACE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

#include "pipeline/job_stats.h"

namespace firn {

class Pace {
 public:
  // 0: no cap.
  explicit Pace(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // How long until `bytes` more may be moved: 0 is at once, and then they are counted.
  uint64_t TakeTurn(uint64_t bytes) {
    if (bytes_per_second_ == 0) return 0;
    const uint64_t now = NowNs();
    if (begun_ns_ == 0) begun_ns_ = now;
    const double due = static_cast<double>(granted_) / static_cast<double>(bytes_per_second_) * 1e9;
    const auto elapsed = static_cast<double>(now - begun_ns_);
    if (elapsed < due) return static_cast<uint64_t>(due - elapsed) + 1;
    granted_ += bytes;
    return 0;
  }

  // The same, asleep for a while if it is not time: then true, and the caller asks again.
  bool WaitTurn(uint64_t bytes) {
    const uint64_t wait = TakeTurn(bytes);
    if (wait > 0) Nap(wait);
    return wait > 0;
  }

  // Sleeps, but never so long that a cancelled job would be missed.
  static void Nap(uint64_t ns) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::min<uint64_t>(ns, 50'000'000)));
  }

 private:
  uint64_t bytes_per_second_;
  uint64_t begun_ns_ = 0;
  uint64_t granted_ = 0;
};

}  // namespace firn

#endif  // FIRN_BENCH_PACE_H_
