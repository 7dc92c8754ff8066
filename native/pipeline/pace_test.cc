#include "pipeline/pace.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

// A clock that stands still until it is told otherwise.
struct TestClock {
  uint64_t now = 5 * kSecond;
  Pace Make(uint64_t bytes_per_second) {
    return Pace(
        bytes_per_second, [] { return Status::Ok(); }, [this] { return now; });
  }
};

// Takes turns for `bytes` each until `ns` have passed on the clock. Returns what was granted.
uint64_t RunFor(uint64_t ns, const std::vector<uint64_t>& bytes, Pace* pace, TestClock* clock) {
  const uint64_t end = clock->now + ns;
  uint64_t granted = 0;
  for (size_t i = 0;; ++i) {
    const uint64_t wanted = bytes[i % bytes.size()];
    for (uint64_t wait = pace->TakeTurn(wanted); wait > 0; wait = pace->TakeTurn(wanted)) {
      clock->now += wait;
      if (clock->now >= end) return granted;
    }
    granted += wanted;
  }
}

TEST(PaceTest, WithoutACapNobodyWaits) {
  TestClock clock;
  Pace pace = clock.Make(0);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(pace.TakeTurn(kGiB), 0u);
}

TEST(PaceTest, TheRateIsKeptWhateverTheRequestsAreLike) {
  for (const std::vector<uint64_t>& bytes :
       {std::vector<uint64_t>{4096}, {kMiB}, {kMiB, 4096, 100'000}}) {
    TestClock clock;
    Pace pace = clock.Make(10 * kMiB);
    const uint64_t granted = RunFor(60 * kSecond, bytes, &pace, &clock);
    // The last turn that was granted is not paid for yet.
    EXPECT_LE(granted, 600 * kMiB + kMiB);
    EXPECT_GE(granted, 599 * kMiB);
  }
}

TEST(PaceTest, ARequestOfManySecondsIsGrantedAtOnceAndTheNextOneWaitsForAllOfThem) {
  TestClock clock;
  Pace pace = clock.Make(1000);
  EXPECT_EQ(pace.TakeTurn(60'000), 0u);
  EXPECT_EQ(pace.TakeTurn(1), 60 * kSecond);
  clock.now += 59 * kSecond;
  EXPECT_EQ(pace.TakeTurn(1), kSecond);
  clock.now += kSecond;
  EXPECT_EQ(pace.TakeTurn(1), 0u);
}

TEST(PaceTest, AJobThatStoodStillMakesUpForATenthOfASecondAndNoMore) {
  TestClock clock;
  Pace pace = clock.Make(10 * kMiB);
  EXPECT_EQ(pace.TakeTurn(kMiB), 0u);
  clock.now += 3600 * kSecond;
  uint64_t granted = 0;
  while (pace.TakeTurn(4096) == 0) granted += 4096;
  EXPECT_NEAR(static_cast<double>(granted), 1.0 * kMiB, 8192);
}

TEST(PaceTest, AHostileRateDoesNotOverflow) {
  TestClock clock;
  Pace pace = clock.Make(1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(pace.TakeTurn(UINT64_MAX), 0u);
    const uint64_t wait = pace.TakeTurn(1);
    EXPECT_GT(wait, 3600 * kSecond);
    clock.now += wait;
  }
}

TEST(PaceTest, ThreadsShareOneCap) {
  std::atomic<uint64_t> now = kSecond;
  Pace pace(
      1000, [] { return Status::Ok(); }, [&] { return now.load(); });
  std::atomic<uint64_t> granted = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 5000; ++turn) {
        if (pace.TakeTurn(10) == 0) {
          granted += 10;
        } else {
          now += 1'000'000;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const uint64_t elapsed_ms = (now - kSecond) / 1'000'000;
  // A thread may be granted a turn on a clock that it read a little earlier; never on a later one.
  EXPECT_LE(granted, elapsed_ms + Pace::kCreditNs / 1'000'000 + 10);
  EXPECT_GT(granted, 0u);
}

TEST(PaceTest, WhoeverWaitsIsToldToStopAndIsGrantedNothing) {
  std::atomic<bool> stopped = false;
  Pace pace(1, [&] { return stopped ? Status::Error(Code::kAborted, "stopped") : Status::Ok(); });
  FIRN_EXPECT_OK(pace.AwaitTurn(kGiB));
  int naps = 0;
  const Status status = pace.AwaitTurn(1, [&] {
    if (++naps == 2) stopped = true;
    return Status::Ok();
  });
  EXPECT_EQ(status.code(), Code::kAborted);
  EXPECT_EQ(naps, 2);
}

class LimitedJobTest : public ::testing::Test {
 protected:
  LimitedJobTest() : content_(24 * kMiB) {
    for (uint64_t page = 0; page < content_.page_count(); ++page) {
      content_.Set(page, random_.Bytes(kPageBytes));
    }
    content_.WriteRaw(folder_ / "disk.raw");
  }
  static Tuning Limited(uint64_t bytes_per_second) {
    Tuning tuning = test::SmallTuning(3, IoBackend::kAuto);
    tuning.bytes_per_second = bytes_per_second;
    return tuning;
  }
  void ExpectLimited(const StatsSnapshot& stats, uint64_t bytes_per_second) {
    // How large a share it is, and so what is named as the bottleneck, is the machine's affair: one
    // that is slow enough needs no cap.
    EXPECT_GT(stats.shares[static_cast<size_t>(Stage::kLimited)], 0.0);
    // Sleeping takes at least as long as it should, so this holds on any machine. The last request
    // of up to 1 MiB is not waited for.
    const double seconds = static_cast<double>(stats.elapsed_ns) / 1e9 + 0.1;
    EXPECT_LE(static_cast<double>(stats.read_bytes),
              seconds * static_cast<double>(bytes_per_second) + 1.0 * kMiB);
  }

  test::TestFolder folder_;
  test::Random random_{7};
  test::DiskContent content_;
  test::TestRepository repository_;
};

TEST_F(LimitedJobTest, AllWorkersOfABackupOrACopyKeepToOneCapAndCountWhatTheyWaitForIt) {
  constexpr uint64_t kRate = 40 * kMiB;
  BackupJob backup(FileSystem::Default(), Limited(kRate),
                   repository_.Options({folder_ / "disk.raw"}));
  FIRN_ASSERT_OK(backup.Run());
  EXPECT_GE(backup.stats().read_bytes, 24 * kMiB);
  ExpectLimited(backup.stats(), kRate);
  CopyJob copy(FileSystem::Default(), Limited(kRate),
               test::CopyOptionsFor(folder_ / "disk.raw", folder_ / "copy.raw",
                                    test::Identity(DiskFormat::kRaw), content_.bytes()));
  FIRN_ASSERT_OK(copy.Run());
  ExpectLimited(copy.stats(), kRate);
  EXPECT_EQ(test::ImageDifference(folder_ / "copy.raw", content_), "");
}

TEST_F(LimitedJobTest, AJobThatWaitsForItsTurnEndsSoonAfterItIsCancelled) {
  BackupJob job(FileSystem::Default(), Limited(1024), repository_.Options({folder_ / "disk.raw"}));
  std::thread canceller([&] {
    while (job.stats().read_bytes == 0) std::this_thread::yield();
    job.Cancel();
  });
  // Unless it is told, it takes hours.
  EXPECT_EQ(job.Run().code(), Code::kAborted);
  canceller.join();
}

}  // namespace
}  // namespace firn
