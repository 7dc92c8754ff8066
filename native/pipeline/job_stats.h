// What a running job can be asked at any moment: how far, how fast, and which stage holds it back.
//
// Counters are atomics that workers add to and anyone reads. Two kinds of time are kept: what
// workers spend (scan, hash, compress, waiting for the source, waiting for the target), as a share
// of all workers' time; and for how long reads or writes were in flight at all, as a share of wall
// time. A device that always has work while workers wait for it is the bottleneck; workers that
// never wait are.
#ifndef FIRN_PIPELINE_JOB_STATS_H_
#define FIRN_PIPELINE_JOB_STATS_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>

namespace firn {

// kStarved waits for the source, kBlocked for the target, kLimited for a turn under the cap on
// reads.
enum class Stage : uint8_t { kScan, kHash, kCompress, kStarved, kBlocked, kLimited };
inline constexpr size_t kStages = 6;

// kSearch looks for unused blocks, before anything is copied.
enum class Phase : uint8_t { kOpen, kSearch, kCopy, kFinish, kDone };

// A copy of the numbers of one moment. Times are nanoseconds.
struct StatsSnapshot {
  Phase phase = Phase::kOpen;
  uint64_t elapsed_ns = 0;
  uint64_t total_bytes = 0, done_bytes = 0, read_bytes = 0, zero_bytes = 0;
  uint64_t new_bytes = 0, stored_bytes = 0, written_bytes = 0;
  uint64_t chunks = 0, new_chunks = 0;
  uint32_t workers = 0;
  const char* backend = "";
  uint64_t memory_bytes = 0;
  std::array<double, kStages> shares{};     // of all workers' time
  double source_busy = 0, target_busy = 0;  // of wall time
  const char* bottleneck = "none";
};

// For how long at least one of something was in flight. Thread-safe.
class BusyMeter {
 public:
  void Begin();
  void End();
  uint64_t busy_ns() const;

 private:
  mutable std::mutex mutex_;
  uint32_t in_flight_ = 0;
  uint64_t since_ns_ = 0;
  uint64_t total_ns_ = 0;
};

uint64_t NowNs();

class JobStats {
 public:
  std::atomic<uint64_t> total_bytes = 0, done_bytes = 0, read_bytes = 0, zero_bytes = 0;
  std::atomic<uint64_t> new_bytes = 0, stored_bytes = 0, written_bytes = 0;
  std::atomic<uint64_t> chunks = 0, new_chunks = 0;
  std::atomic<uint32_t> workers = 0;
  std::atomic<const char*> backend = "";
  std::atomic<uint64_t> memory_bytes = 0;
  std::atomic<Phase> phase = Phase::kOpen;
  BusyMeter source, target;

  void Start() { start_ns_ = NowNs(); }
  // The job is over: the clocks stop.
  void Stop();
  void Add(Stage stage, uint64_t ns) {
    stage_ns_[static_cast<size_t>(stage)].fetch_add(ns, std::memory_order_relaxed);
  }
  StatsSnapshot Snapshot() const;

 private:
  std::atomic<uint64_t> start_ns_ = 0, stop_ns_ = 0;
  std::array<std::atomic<uint64_t>, kStages> stage_ns_{};
};

// Charges a worker's time to one stage after another, with one clock reading for each change.
class StageClock {
 public:
  explicit StageClock(JobStats* stats) : stats_(stats), last_ns_(NowNs()) {}
  // What has passed since the last call was `stage`.
  void Charge(Stage stage) {
    const uint64_t now = NowNs();
    pending_[static_cast<size_t>(stage)] += now - last_ns_;
    last_ns_ = now;
  }
  // So much of what has passed since the last call was `stage`; the rest is still to be charged.
  void ChargePart(Stage stage, uint64_t ns) {
    pending_[static_cast<size_t>(stage)] += ns;
    last_ns_ += ns;
  }
  // What has passed since the last call is nobody's.
  void Skip() { last_ns_ = NowNs(); }
  // Hands over what was charged; seldom, because the shared counters are contended.
  void Flush() {
    for (size_t i = 0; i < kStages; ++i) {
      if (pending_[i] != 0) stats_->Add(static_cast<Stage>(i), pending_[i]);
      pending_[i] = 0;
    }
  }

 private:
  JobStats* const stats_;
  uint64_t last_ns_;
  std::array<uint64_t, kStages> pending_{};
};

}  // namespace firn

#endif  // FIRN_PIPELINE_JOB_STATS_H_
