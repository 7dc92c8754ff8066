#include "pipeline/job.h"

#include <atomic>
#include <thread>

#include "core/core_test_util.h"

namespace firn {
namespace {

// A job whose workers do what a test says.
class TestJob final : public Job {
 public:
  using Worker = std::function<Status(TestJob*, uint32_t)>;
  TestJob(uint32_t workers, Worker worker)
      : Job(FileSystem::Default(), {.workers = workers}), worker_(std::move(worker)) {}
  Status Stopped() const { return CheckStopped(); }
  JobStats& counters() { return stats_; }

 private:
  Status DoRun() override {
    return RunWorkers(tuning_.workers, [this](uint32_t i) { return worker_(this, i); });
  }
  const Worker worker_;
};

TEST(JobTest, RunsEveryWorkerOnceAndWaitsForAll) {
  std::vector<std::atomic<int>> runs(7);
  TestJob job(7, [&](TestJob*, uint32_t i) {
    std::this_thread::yield();
    ++runs[i];
    return Status::Ok();
  });
  FIRN_EXPECT_OK(job.Run());
  for (const auto& run : runs) EXPECT_EQ(run, 1);
  EXPECT_EQ(job.stats().phase, Phase::kDone);
}

TEST(JobTest, TheFailureThatStoppedTheOthersIsTheOneReported) {
  for (uint32_t failing : {0u, 1u, 3u}) {
    TestJob job(4, [&](TestJob* self, uint32_t i) -> Status {
      if (i == failing) return Status::Error(Code::kDiskFull, "full");
      while (self->Stopped().ok()) std::this_thread::yield();
      return self->Stopped();
    });
    EXPECT_EQ(job.Run().code(), Code::kDiskFull);
  }
}

TEST(JobTest, CancelEndsTheWorkersAsAborted) {
  TestJob job(3, [&](TestJob* self, uint32_t) {
    while (self->Stopped().ok()) std::this_thread::yield();
    return self->Stopped();
  });
  std::thread canceller([&] { job.Cancel(); });
  EXPECT_EQ(job.Run().code(), Code::kAborted);
  canceller.join();
}

TEST(JobTest, StatsMayBeAskedForWhileWorkersCount) {
  std::atomic<bool> stop = false;
  TestJob job(2, [&](TestJob* self, uint32_t) {
    StageClock clock(&self->counters());
    while (!stop) {
      self->counters().source.Begin();
      self->counters().done_bytes += 10;
      clock.Charge(Stage::kHash);
      clock.Flush();
      self->counters().source.End();
    }
    return Status::Ok();
  });
  std::thread runner([&] { FIRN_EXPECT_OK(job.Run()); });
  uint64_t last = 0;
  for (int i = 0; i < 200; ++i) {
    const StatsSnapshot now = job.stats();
    EXPECT_GE(now.done_bytes, last);
    last = now.done_bytes;
    EXPECT_LE(now.source_busy, 1.0);
    for (double share : now.shares) EXPECT_LE(share, 1.0);
  }
  stop = true;
  runner.join();
  const StatsSnapshot end = job.stats();
  EXPECT_EQ(end.elapsed_ns, job.stats().elapsed_ns) << "the clock stops with the job";
}

TEST(JobStatsTest, TheBottleneckIsWhatTheWorkersSpendTheirTimeOn) {
  const auto bottleneck_of = [](std::initializer_list<std::pair<Stage, uint64_t>> times) {
    JobStats stats;
    stats.Start();
    for (const auto& [stage, ns] : times) stats.Add(stage, ns);
    // Shares end at 1: the job has to take longer than what was added, by any clock.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stats.Stop();
    return std::string(stats.Snapshot().bottleneck);
  };
  EXPECT_EQ(bottleneck_of({}), "none");
  constexpr uint64_t kLong = 40, kShort = 10;
  EXPECT_EQ(bottleneck_of({{Stage::kStarved, kLong}, {Stage::kHash, kShort}}), "source");
  EXPECT_EQ(bottleneck_of({{Stage::kBlocked, kLong}, {Stage::kHash, kShort}}), "target");
  EXPECT_EQ(bottleneck_of({{Stage::kLimited, kLong}, {Stage::kStarved, kShort}}), "limit");
  EXPECT_EQ(bottleneck_of({{Stage::kStarved, kLong}, {Stage::kLimited, kShort}}), "source");
  EXPECT_EQ(bottleneck_of({{Stage::kHash, kLong}, {Stage::kLimited, kShort}}), "hash");
  EXPECT_EQ(bottleneck_of({{Stage::kHash, kLong}, {Stage::kStarved, kShort}}), "hash");
  EXPECT_EQ(bottleneck_of({{Stage::kCompress, kLong}, {Stage::kHash, kShort}}), "compress");
  EXPECT_EQ(bottleneck_of({{Stage::kScan, kLong}, {Stage::kHash, kShort}}), "scan");
}

// How long it lasted by the meter's own clock: a sleep may be shorter than it should be by another
// one.
uint64_t LetTimePass() {
  const uint64_t begun = NowNs();
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  } while (NowNs() == begun);
  return NowNs() - begun;
}

TEST(BusyMeterTest, CountsTimeWhileAnythingIsInFlight) {
  BusyMeter meter;
  EXPECT_EQ(meter.busy_ns(), 0u);
  meter.Begin();
  meter.Begin();
  meter.End();
  const uint64_t passed = LetTimePass();
  EXPECT_GE(meter.busy_ns(), passed);
  meter.End();
  const uint64_t busy = meter.busy_ns();
  LetTimePass();
  EXPECT_EQ(meter.busy_ns(), busy);
}

}  // namespace
}  // namespace firn
