// Jobs that are cancelled at any moment: they end soon, leave nothing half made, and the next one
// works.
#include <chrono>
#include <functional>
#include <thread>

#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::DiskContent;
using test::Identity;
using test::SmallTuning;
using test::TestRepository;

// Tells what has got its final name, on the thread that gave it.
class NamingFileSystem final : public FileSystem {
 public:
  using Named = std::function<void(const std::string& path)>;
  explicit NamingFileSystem(Named named) : named_(std::move(named)) {}

  Result<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override {
    return base_.Open(path, options);
  }
  Result<std::unique_ptr<MappedFile>> Map(const std::string& path) override {
    return base_.Map(path);
  }
  Status Rename(const std::string& from, const std::string& to) override {
    return base_.Rename(from, to);
  }
  Status RenameNew(const std::string& from, const std::string& to) override {
    FIRN_RETURN_IF_ERROR(base_.RenameNew(from, to));
    named_(to);
    return Status::Ok();
  }
  Status Remove(const std::string& path) override { return base_.Remove(path); }
  Status CreateDirectory(const std::string& path) override { return base_.CreateDirectory(path); }
  Status SyncDirectory(const std::string& path) override { return base_.SyncDirectory(path); }
  bool Exists(const std::string& path) override { return base_.Exists(path); }
  Result<std::string> RealPath(const std::string& path) override { return base_.RealPath(path); }
  Result<uint64_t> FreeBytes(const std::string& path) override { return base_.FreeBytes(path); }
  Result<std::vector<std::string>> List(const std::string& path) override {
    return base_.List(path);
  }
  Result<std::unique_ptr<IoQueue>> NewQueue(const IoQueueOptions& options) override {
    return base_.NewQueue(options);
  }

 private:
  FileSystem& base_ = FileSystem::Default();
  const Named named_;
};

class CancelTest : public ::testing::Test {
 protected:
  CancelTest() : content_(40 * kMiB) {
    content_.Scatter(&random_, 90);
    content_.WriteRaw(folder_ / "disk.raw");
  }

  // Runs the job and cancels it at a random moment of its run.
  Status RunAndCancel(Job* job) {
    const auto delay = std::chrono::microseconds(random_.Below(random_.OneIn(3) ? 60'000 : 8'000));
    std::thread canceller([job, delay] {
      std::this_thread::sleep_for(delay);
      job->Cancel();
    });
    Status status = job->Run();
    canceller.join();
    return status;
  }
  // Whether a job that makes an image was cancelled in time; if not, the image is whole, and goes.
  bool WasAborted(const Status& status, const std::string& path) {
    if (!status.ok()) {
      EXPECT_EQ(status.code(), Code::kAborted) << status.ToString();
      return true;
    }
    EXPECT_EQ(test::ImageDifference(path, content_), "");
    std::filesystem::remove(path);
    return false;
  }
  // The first round is held back so far that it can only end by being cancelled, however late that
  // comes; the others may be done before.
  static Tuning TuningOf(int round) {
    Tuning tuning = SmallTuning(1 + static_cast<uint32_t>(round) % 3,
                                round % 2 == 0 ? IoBackend::kAuto : IoBackend::kThreads);
    if (round == 0) tuning.bytes_per_second = 16 * kKiB;
    return tuning;
  }

  test::TestFolder folder_;
  test::Random random_{211};
  DiskContent content_;
};

TEST_F(CancelTest, ABackupLeavesOnlyWholeObjectsAndTheNextOneSucceeds) {
  int aborted = 0;
  for (int round = 0; round < 14; ++round) {
    TestRepository repository(static_cast<uint64_t>(round));
    {
      BackupJob job(FileSystem::Default(), TuningOf(round),
                    repository.Options({folder_ / "disk.raw"}));
      const Status status = RunAndCancel(&job);
      ASSERT_TRUE(status.ok() || status.code() == Code::kAborted) << status.ToString();
      aborted += status.ok() ? 0 : 1;
    }
    EXPECT_FALSE(repository.HasPartialFiles());
    EXPECT_EQ(repository.Problems({}), "") << "what is left is whole";
    const auto next = repository.Backup({folder_ / "disk.raw"});
    FIRN_ASSERT_OK(next.status);
    EXPECT_EQ(repository.Problems({next.root()}), "");
    if (round % 4 == 0) {
      EXPECT_EQ(repository.RestoreDifference(next.root(), content_), "");
    }
  }
  EXPECT_GT(aborted, 0) << "nothing was ever cancelled in time";
}

TEST_F(CancelTest, WhatACancelledBackupFinishedIsNotStoredAgain) {
  // Three packs: whichever of them is whole first, and whatever one worker holds back of another,
  // there is more to do then.
  DiskContent content(192 * kMiB);
  for (uint64_t page = 0; page < content.page_count(); ++page) {
    content.Set(page, random_.Bytes(kPageBytes));
  }
  content.WriteRaw(folder_ / "large.raw");
  TestRepository repository;
  uint64_t stored = 0;
  {
    std::function<void()> cancel;
    NamingFileSystem fs([&](const std::string& path) {
      if (path.ends_with(".pack")) cancel();
    });
    BackupJob job(fs, SmallTuning(), repository.Options({folder_ / "large.raw"}));
    cancel = [&job] { job.Cancel(); };
    const Status status = job.Run();
    ASSERT_EQ(status.code(), Code::kAborted) << status.ToString();
    stored = job.stats().new_chunks;
  }
  ASSERT_FALSE(repository.View().listing.packs.empty());
  ASSERT_EQ(repository.View().listing.index_runs.size(), 1u);
  const auto next = repository.Backup({folder_ / "large.raw"});
  FIRN_ASSERT_OK(next.status);
  EXPECT_LT(next.stats.new_chunks, next.stats.chunks);
  EXPECT_GT(next.stats.new_chunks, next.stats.chunks - stored);
  EXPECT_FALSE(next.result.relied_packs.empty());
  EXPECT_EQ(repository.Problems({next.root()}), "");
  EXPECT_EQ(repository.RestoreDifference(next.root(), content), "");
}

TEST_F(CancelTest, ARestoreLeavesNoFile) {
  TestRepository repository;
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  test::TestFolder target;
  int aborted = 0;
  for (int round = 0; round < 14; ++round) {
    const std::string path = target / "back.vhdx";
    Status status;
    {
      RestoreJob job(FileSystem::Default(), TuningOf(round),
                     repository.RestoreOptionsFor(backup.root(), path, content_.bytes(),
                                                  Identity(DiskFormat::kVhdx)));
      status = RunAndCancel(&job);
    }
    aborted += WasAborted(status, path);
    EXPECT_TRUE(test::FilesBelow(target.path()).empty());
  }
  EXPECT_GT(aborted, 0) << "nothing was ever cancelled in time";
}

TEST_F(CancelTest, ACopyLeavesNoFile) {
  test::TestFolder target;
  int aborted = 0;
  for (int round = 0; round < 14; ++round) {
    const std::string path = target / "copy.vhdx";
    Status status;
    {
      CopyJob job(FileSystem::Default(), TuningOf(round),
                  test::CopyOptionsFor(folder_ / "disk.raw", path, Identity(DiskFormat::kVhdx),
                                       content_.bytes()));
      status = RunAndCancel(&job);
    }
    aborted += WasAborted(status, path);
    EXPECT_TRUE(test::FilesBelow(target.path()).empty());
  }
  EXPECT_GT(aborted, 0) << "nothing was ever cancelled in time";
}

TEST_F(CancelTest, AVerificationEndsWithNothingInFlight) {
  TestRepository repository;
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  int aborted = 0;
  for (int round = 0; round < 20; ++round) {
    VerifyJob job(FileSystem::Default(), TuningOf(round),
                  {repository.View(), {backup.root()}, true});
    const Status status = RunAndCancel(&job);
    EXPECT_TRUE(status.ok() || status.code() == Code::kAborted) << status.ToString();
    aborted += status.ok() ? 0 : 1;
    EXPECT_EQ(job.result().problem_count, 0u);
  }
  EXPECT_GT(aborted, 0) << "nothing was ever cancelled in time";
}

TEST_F(CancelTest, AJobThatIsCancelledBeforeItRunsDoesNothing) {
  TestRepository repository;
  BackupJob job(FileSystem::Default(), SmallTuning(), repository.Options({folder_ / "disk.raw"}));
  job.Cancel();
  EXPECT_EQ(job.Run().code(), Code::kAborted);
  EXPECT_TRUE(repository.Files().empty());
}

}  // namespace
}  // namespace firn
