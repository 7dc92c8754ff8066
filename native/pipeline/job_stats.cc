#include "pipeline/job_stats.h"

#include <algorithm>

namespace firn {

uint64_t NowNs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

void BusyMeter::Begin() {
  std::lock_guard lock(mutex_);
  if (in_flight_++ == 0) since_ns_ = NowNs();
}

void BusyMeter::End() {
  std::lock_guard lock(mutex_);
  if (--in_flight_ == 0) total_ns_ += NowNs() - since_ns_;
}

uint64_t BusyMeter::busy_ns() const {
  std::lock_guard lock(mutex_);
  return total_ns_ + (in_flight_ > 0 ? NowNs() - since_ns_ : 0);
}

void JobStats::Stop() {
  stop_ns_ = NowNs();
  phase = Phase::kDone;
}

namespace {

// Workers that wait name what they wait for; workers that do not, their own largest stage.
const char* NameBottleneck(const StatsSnapshot& snapshot) {
  const auto share = [&](Stage stage) { return snapshot.shares[static_cast<size_t>(stage)]; };
  const double compute = share(Stage::kScan) + share(Stage::kHash) + share(Stage::kCompress);
  const double starved = share(Stage::kStarved);
  const double blocked = share(Stage::kBlocked);
  const double limited = share(Stage::kLimited);
  if (compute + starved + blocked + limited == 0) return "none";
  if (starved + blocked + limited > compute) {
    if (limited >= std::max(starved, blocked)) return "limit";
    return starved >= blocked ? "source" : "target";
  }
  if (share(Stage::kCompress) >= std::max(share(Stage::kHash), share(Stage::kScan))) {
    return "compress";
  }
  return share(Stage::kHash) >= share(Stage::kScan) ? "hash" : "scan";
}

}  // namespace

StatsSnapshot JobStats::Snapshot() const {
  StatsSnapshot snapshot;
  snapshot.phase = phase;
  const uint64_t start = start_ns_;
  const uint64_t stop = stop_ns_ != 0 ? stop_ns_.load() : NowNs();
  snapshot.elapsed_ns = start == 0 ? 0 : stop - start;
  snapshot.total_bytes = total_bytes;
  snapshot.done_bytes = done_bytes;
  snapshot.read_bytes = read_bytes;
  snapshot.zero_bytes = zero_bytes;
  snapshot.new_bytes = new_bytes;
  snapshot.stored_bytes = stored_bytes;
  snapshot.written_bytes = written_bytes;
  snapshot.chunks = chunks;
  snapshot.new_chunks = new_chunks;
  snapshot.workers = workers;
  snapshot.backend = backend;
  snapshot.memory_bytes = memory_bytes;
  const double wall = std::max<double>(1, static_cast<double>(snapshot.elapsed_ns));
  const double all = wall * std::max<uint32_t>(1, snapshot.workers);
  for (size_t i = 0; i < kStages; ++i) {
    snapshot.shares[i] = std::min(1.0, static_cast<double>(stage_ns_[i].load()) / all);
  }
  snapshot.source_busy = std::min(1.0, static_cast<double>(source.busy_ns()) / wall);
  snapshot.target_busy = std::min(1.0, static_cast<double>(target.busy_ns()) / wall);
  snapshot.bottleneck = NameBottleneck(snapshot);
  return snapshot;
}

}  // namespace firn
