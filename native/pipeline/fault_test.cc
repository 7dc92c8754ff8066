// Jobs on a file system whose n-th call fails, for every n: the failure is told with its code,
// nothing half made has a name, what was sealed before still restores, and the next run works.
#include <functional>

#include "io/fault_file_system.h"
#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using Kind = FaultPlan::Kind;
using test::DiskContent;
using test::Identity;
using test::SmallTuning;
using test::TestRepository;

struct FaultCase {
  Kind kind;
  bool persistent;
  Code code;
};

std::string NameOf(const ::testing::TestParamInfo<FaultCase>& info) {
  const char* kind = info.param.kind == Kind::kRead    ? "Read"
                     : info.param.kind == Kind::kWrite ? "Write"
                     : info.param.kind == Kind::kSync  ? "Sync"
                                                       : "Name";
  return std::string(kind) + (info.param.persistent ? "ForGood" : "Once");
}

class FaultTest : public ::testing::TestWithParam<FaultCase> {
 protected:
  FaultTest() : content_(18 * kMiB) {
    for (uint64_t page : {7, 8, 9, 500, 2047, 2048, 4100}) {
      content_.Set(page, random_.Bytes(kPageBytes));
    }
    content_.WriteImage(folder_ / "disk.vhdx", Identity(DiskFormat::kVhdx));
  }

  // Calls `attempt` with file systems that fail at the first, second, ... call until one is not
  // reached any more. An attempt answers with its job's status.
  void ForEveryCall(const std::function<Status(FileSystem&, const Tuning&)>& attempt,
                    const std::function<void()>& check) {
    for (uint64_t n = 1;; ++n) {
      ASSERT_LT(n, 400u) << "the calls never end";
      FaultFileSystem fs(FileSystem::Default(), {.kind = GetParam().kind,
                                                 .fail_at = n,
                                                 .persistent = GetParam().persistent,
                                                 .code = GetParam().code});
      const Tuning tuning =
          SmallTuning(1 + n % 2, n % 3 == 0 ? IoBackend::kThreads : IoBackend::kAuto);
      const Status status = attempt(fs, tuning);
      if (!status.ok()) {
        ASSERT_TRUE(fs.fired()) << status.ToString();
        ASSERT_EQ(status.code(), GetParam().code) << "call " << n << ": " << status.ToString();
        ASSERT_FALSE(status.path().empty()) << status.ToString();
      }
      check();
      if (HasFatalFailure()) FAIL() << "at call " << n;
      if (!fs.fired()) {
        FIRN_ASSERT_OK(status);
        ASSERT_GT(n, 1u) << "no call was counted";
        return;
      }
    }
  }
  // Where removing fails there may be left-overs, but under names that say so.
  bool MayLeavePartialFiles() const {
    return GetParam().kind == Kind::kName && GetParam().persistent;
  }

  // After a success there is the whole image under its name; else at most what may be left over.
  // Empties the folder.
  void ExpectWholeOrNothing(const test::TestFolder& target, const std::string& name,
                            const Status& status) {
    for (const std::string& file : test::FilesBelow(target.path())) {
      if (file == name && status.ok()) {
        ASSERT_EQ(test::ImageDifference(target / name, content_), "");
      } else {
        ASSERT_TRUE(MayLeavePartialFiles() && file != name) << file;
      }
      std::filesystem::remove(target / file);
    }
  }

  test::TestFolder folder_;
  test::Random random_{221};
  DiskContent content_;
};

TEST_P(FaultTest, BackupsFailCleanly) {
  std::unique_ptr<TestRepository> repository;
  DiskContent old(3 * kMiB);
  old.Set(5, random_.Bytes(kPageBytes));
  old.WriteRaw(folder_ / "old.raw");
  Id old_root{};
  TestRepository::BackupOutcome outcome;
  ForEveryCall(
      [&](FileSystem& fs, const Tuning& tuning) {
        repository = std::make_unique<TestRepository>();
        const auto before = repository->Backup({folder_ / "old.raw"});
        EXPECT_TRUE(test::IsOk(before.status));
        old_root = before.root();
        outcome = TestRepository::Run(repository->Options({folder_ / "disk.vhdx"}), tuning, fs);
        return outcome.status;
      },
      [&] {
        if (!MayLeavePartialFiles()) {
          ASSERT_FALSE(repository->HasPartialFiles());
        }
        std::vector<Id> roots = {old_root};
        if (outcome.status.ok()) roots.push_back(outcome.root());
        ASSERT_EQ(repository->Problems(roots), "");
        ASSERT_EQ(repository->RestoreDifference(old_root, old), "");
        const auto next = repository->Backup({folder_ / "disk.vhdx"});
        FIRN_ASSERT_OK(next.status);
        ASSERT_EQ(repository->RestoreDifference(next.root(), content_), "");
      });
}

// A base map that can't be read costs time, not the backup; whatever is sealed has the right root.
TEST_P(FaultTest, IncrementalBackupsFailCleanlyOrAreRight) {
  std::unique_ptr<TestRepository> repository;
  DiskContent changed = content_;
  for (uint64_t page : {8, 499, 4099}) changed.Set(page, random_.Bytes(kPageBytes));
  changed.Set(2048, {});
  const std::vector<ChangedRange> ranges = {{8 * kPageBytes, kPageBytes},
                                            {499 * kPageBytes, 1},
                                            {2048 * kPageBytes, 1},
                                            {4099 * kPageBytes, kPageBytes}};
  changed.WriteImage(folder_ / "changed.vhdx", Identity(DiskFormat::kVhdx));
  // Repositories made alike have the same key.
  const Id expected = TestRepository().Backup({folder_ / "changed.vhdx"}).root();
  Id old_root{};
  TestRepository::BackupOutcome outcome;
  const auto options = [&] {
    BackupOptions made = repository->Options({folder_ / "changed.vhdx"});
    made.disks[0].base = BackupBase{old_root, ranges};
    return made;
  };
  ForEveryCall(
      [&](FileSystem& fs, const Tuning& tuning) {
        repository = std::make_unique<TestRepository>();
        const auto before = repository->Backup({folder_ / "disk.vhdx"});
        EXPECT_TRUE(test::IsOk(before.status));
        old_root = before.root();
        outcome = TestRepository::Run(options(), tuning, fs);
        return outcome.status;
      },
      [&] {
        if (!MayLeavePartialFiles()) {
          ASSERT_FALSE(repository->HasPartialFiles());
        }
        if (outcome.status.ok()) {
          ASSERT_EQ(outcome.root(), expected);
        }
        const auto next = TestRepository::Run(options());
        FIRN_ASSERT_OK(next.status);
        ASSERT_EQ(next.result.disks[0].base_refused, "");
        ASSERT_EQ(next.root(), expected);
        ASSERT_EQ(repository->Problems({old_root, next.root()}), "");
      });
}

TEST_P(FaultTest, RestoresFailWithoutAFile) {
  TestRepository repository;
  const auto backup = repository.Backup({folder_ / "disk.vhdx"});
  FIRN_ASSERT_OK(backup.status);
  for (const DiskIdentity& identity : {Identity(DiskFormat::kRaw), Identity(DiskFormat::kVhdx)}) {
    test::TestFolder target;
    const std::string name = identity.format == DiskFormat::kRaw ? "back.raw" : "back.vhdx";
    Status status;
    ForEveryCall(
        [&](FileSystem& fs, const Tuning& tuning) {
          status = repository.Restore(backup.root(), target / name, content_.bytes(), identity,
                                      tuning, fs);
          return status;
        },
        [&] { ExpectWholeOrNothing(target, name, status); });
  }
}

TEST_P(FaultTest, CopiesFailWithoutAFile) {
  for (const DiskIdentity& identity : {Identity(DiskFormat::kRaw), Identity(DiskFormat::kVhdx)}) {
    test::TestFolder target;
    const std::string name = identity.format == DiskFormat::kRaw ? "copy.raw" : "copy.vhdx";
    Status status;
    ForEveryCall(
        [&](FileSystem& fs, const Tuning& tuning) {
          status = CopyJob(fs, tuning,
                           test::CopyOptionsFor(folder_ / "disk.vhdx", target / name, identity,
                                                content_.bytes()))
                       .Run();
          return status;
        },
        [&] { ExpectWholeOrNothing(target, name, status); });
  }
}

INSTANTIATE_TEST_SUITE_P(All, FaultTest,
                         ::testing::Values(FaultCase{Kind::kRead, false, Code::kRead},
                                           FaultCase{Kind::kRead, true, Code::kRead},
                                           FaultCase{Kind::kWrite, false, Code::kWrite},
                                           FaultCase{Kind::kWrite, true, Code::kDiskFull},
                                           FaultCase{Kind::kSync, false, Code::kWrite},
                                           FaultCase{Kind::kName, false, Code::kAccessDenied},
                                           FaultCase{Kind::kName, true, Code::kAccessDenied}),
                         NameOf);

}  // namespace
}  // namespace firn
