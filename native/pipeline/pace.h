// A cap on bytes a second, shared by all threads of a job.
//
// Who is about to move bytes takes a turn for them: it is granted as soon as what was granted
// before is paid for by time, however many bytes it is for, so large and small requests get along
// without a queue. What was not used lately can be made up for, but not more than kCreditNs of it:
// a job that stood still does not rush afterwards. Thread-safe.
#ifndef FIRN_PIPELINE_PACE_H_
#define FIRN_PIPELINE_PACE_H_

#include <cstdint>
#include <functional>
#include <mutex>

#include "core/status.h"
#include "pipeline/job_stats.h"

namespace firn {

class Pace {
 public:
  static constexpr uint64_t kCreditNs = 100'000'000;
  // Naps are no longer than this, so that a cancelled job is not missed.
  static constexpr uint64_t kNapNsMax = 50'000'000;
  using Stop = std::function<Status()>;  // an error: the job is to end
  using Clock = std::function<uint64_t()>;

  // 0: no cap. `now` is in nanoseconds.
  explicit Pace(
      uint64_t bytes_per_second, Stop stop = [] { return Status::Ok(); }, Clock now = NowNs)
      : bytes_per_second_(bytes_per_second), stop_(std::move(stop)), now_(std::move(now)) {}

  // How long until `bytes` more may be moved, in nanoseconds: 0 is at once, and then they are
  // granted.
  uint64_t TakeTurn(uint64_t bytes);
  // Waits for that, with `idle` called before each nap. Fails soon after the job is told to end;
  // then nothing is granted.
  Status AwaitTurn(uint64_t bytes, const Stop& idle = {});

  static void Nap(uint64_t ns);

 private:
  const uint64_t bytes_per_second_;
  const Stop stop_;
  const Clock now_;
  std::mutex mutex_;
  bool has_begun_ = false;
  uint64_t due_ns_ = 0;  // when the next turn is granted
};

}  // namespace firn

#endif  // FIRN_PIPELINE_PACE_H_
