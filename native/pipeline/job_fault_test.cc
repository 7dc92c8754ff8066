// Every call to the file system fails once, in turn: what does a job leave behind?
//
// Method: a job runs once over a FaultFileSystem to count its calls of a kind, then once for each
// of them with that call failing. After every such run the outcome is looked at through the real
// file system.

#include <gtest/gtest.h>

#include <filesystem>

#include "disk/disk_writer.h"
#include "io/fault_file_system.h"
#include "io/folder_test_util.h"
#include "pipeline/backup_job.h"
#include "pipeline/copy_job.h"
#include "pipeline/restore_job.h"
#include "pipeline/verify_job.h"

namespace firn {
namespace {

using test::FilesBelow;
using test::IsOk;
using test::Must;
namespace fs = std::filesystem;

constexpr uint64_t kDiskBytes = 18 * kMiB + 1024;
constexpr FaultPlan::Kind kKinds[] = {FaultPlan::Kind::kRead, FaultPlan::Kind::kWrite,
                                      FaultPlan::Kind::kSync, FaultPlan::Kind::kName};

class JobFaultTest : public ::testing::Test {
 protected:
  JobFaultTest() {
    for (const char* folder : {"repository", "repository/packs", "repository/index"}) {
      fs::create_directory(folder_ / folder);
    }
    content_.resize(kDiskBytes);
    // Data and holes, some of it repetitive, in three segments.
    test::Random random(77);
    for (uint64_t offset : {uint64_t{0}, 9 * kMiB, 17 * kMiB - 512}) {
      std::span<uint8_t> piece(&content_[offset], kMiB + 512);
      random.Fill(piece.first(kMiB / 2));
      std::fill(piece.begin() + kMiB / 2, piece.end(), uint8_t{0x5A});
    }
    WriteDisk(disk_path_);
  }

  void WriteDisk(const std::string& path) {
    CreateDiskOptions options;
    options.identity = {.format = DiskFormat::kVhdx,
                        .kind = DiskKind::kDynamic,
                        .size = kDiskBytes,
                        .block_size = static_cast<uint32_t>(kMiB)};
    options.overwrite = true;
    auto writer = Must(DiskWriter::Create(real_, path, options));
    for (uint64_t offset = 0; offset < kDiskBytes; offset += kMiB) {
      const std::span<const uint8_t> piece(&content_[offset], std::min(kMiB, kDiskBytes - offset));
      if (std::any_of(piece.begin(), piece.end(), [](uint8_t byte) { return byte != 0; })) {
        Must(writer->Write(offset, piece));
      }
    }
    Must(writer->Finish());
  }

  // The repository as it lies in its folder at this moment.
  RepositoryView View() {
    RepositoryView view;
    view.id_key.fill(7);
    view.chunking.seed = RepositoryKeys(view.id_key).cut_seed;
    view.listing.root = repository_;
    for (const std::string& name : FilesBelow(repository_)) {
      if (name.ends_with(".idx")) view.listing.index_runs.push_back(fs::path(name).filename());
      if (name.ends_with(".pack")) {
        view.listing.packs.push_back(Must(PackName::Parse(name.substr(6, 46))));
      }
    }
    return view;
  }

  Tuning SmallTuning() { return {.workers = 2, .memory_bytes = 32 * kMiB, .io = IoMode::kDirect}; }

  Status Backup(FileSystem& file_system, BackupResult* result) {
    BackupOptions options;
    options.repository = View();
    options.disks.push_back({disk_path_, {}});
    StoreLe(options.run.data(), ++runs_);
    BackupJob job(file_system, SmallTuning(), std::move(options));
    Status status = job.Run();
    if (status.ok()) *result = job.result();
    return status;
  }

  Status Restore(FileSystem& file_system, const Id& root) {
    RestoreOptions options;
    options.repository = View();
    CreateDiskOptions create;
    create.identity.size = kDiskBytes;
    options.disks.push_back({root, target_path_, create});
    RestoreJob job(file_system, SmallTuning(), std::move(options));
    return job.Run();
  }

  Status Copy(FileSystem& file_system) {
    CopyOptions options;
    options.source_path = disk_path_;
    options.target_path = target_path_;
    options.target.identity = {.format = DiskFormat::kVhdx,
                               .kind = DiskKind::kDynamic,
                               .size = kDiskBytes,
                               .block_size = static_cast<uint32_t>(2 * kMiB)};
    CopyJob job(file_system, SmallTuning(), std::move(options));
    return job.Run();
  }

  void ExpectNoDefects(const Id& root) {
    VerifyOptions options;
    options.repository = View();
    options.roots = {root};
    options.read_data = true;
    VerifyJob job(real_, SmallTuning(), std::move(options));
    ASSERT_TRUE(IsOk(job.Run()));
    for (const Problem& problem : job.result().problems) {
      ADD_FAILURE() << problem.object << ": " << problem.status.ToString();
    }
  }

  void ExpectRestores(const Id& root) {
    ASSERT_TRUE(IsOk(Restore(real_, root)));
    EXPECT_TRUE(test::ReadWholeFile(target_path_) == content_);
    fs::remove(target_path_);
  }

  // Files in the test's folder that are neither the repository's nor the disk: what a failed job
  // must not leave.
  std::vector<std::string> Litter() {
    std::vector<std::string> litter;
    for (const std::string& name : FilesBelow(folder_.path())) {
      const bool belongs = name == "disk.vhdx" || name.ends_with(".pack") || name.ends_with(".idx");
      if (!belongs) litter.push_back(name);
    }
    return litter;
  }

  // Runs `job` with the n-th call of each kind failing, for every n, and `check` after each.
  template <typename Run, typename Check>
  void FailEachCall(const FaultPlan& plan, Run run, Check check) {
    for (FaultPlan::Kind kind : kKinds) {
      uint64_t calls = 0;
      for (uint64_t n = 1;; ++n) {
        FaultPlan nth = plan;
        nth.kind = kind;
        nth.fail_at = n;
        FaultFileSystem faulty(real_, nth);
        const Status status = run(faulty);
        if (!faulty.fired()) {
          fs::remove(target_path_);
          break;
        }
        ++calls;
        SCOPED_TRACE("kind " + std::to_string(static_cast<int>(kind)) + ", call " +
                     std::to_string(n) + ": " + status.ToString());
        if (!status.ok()) {
          EXPECT_EQ(status.code(), plan.code);
        }
        check(status);
        if (HasFailure()) return;
      }
      EXPECT_GT(calls, 0u) << "a kind of call that the job never makes";
    }
  }

  FileSystem& real_ = FileSystem::Default();
  test::TestFolder folder_;
  const std::string repository_ = folder_ / "repository";
  const std::string disk_path_ = folder_ / "disk.vhdx";
  const std::string target_path_ = folder_ / "target";
  std::vector<uint8_t> content_;
  uint64_t runs_ = 0;
};

TEST_F(JobFaultTest, ABackupThatFailsAnywhereLeavesTheRepositoryWholeAndTheNextOneNeedsNoRepair) {
  BackupResult first;
  ASSERT_TRUE(IsOk(Backup(real_, &first)));
  const Id sealed = first.disks[0].root;
  const std::string sealed_repository = folder_ / "sealed";
  fs::copy(repository_, sealed_repository, fs::copy_options::recursive);
  content_[kMiB / 4] ^= 0xFF;
  WriteDisk(disk_path_);
  FailEachCall(
      {.code = Code::kWrite},
      [&](FileSystem& faulty) {
        // Each run finds the repository as the first left it, so that the number of calls stays the
        // same.
        fs::remove_all(repository_);
        fs::copy(sealed_repository, repository_, fs::copy_options::recursive);
        BackupResult result;
        return Backup(faulty, &result);
      },
      [&](const Status&) {
        EXPECT_EQ(Litter(), std::vector<std::string>{});
        ExpectNoDefects(sealed);
        BackupResult next;
        ASSERT_TRUE(IsOk(Backup(real_, &next)));
        ExpectNoDefects(next.disks[0].root);
      });
  BackupResult last;
  ASSERT_TRUE(IsOk(Backup(real_, &last)));
  ExpectRestores(last.disks[0].root);
}

TEST_F(JobFaultTest, AFullDiskWhileBackingUpIsSaidAndLeavesTheRepositoryWhole) {
  BackupResult first;
  ASSERT_TRUE(IsOk(Backup(real_, &first)));
  content_[0] ^= 0xFF;
  WriteDisk(disk_path_);
  for (uint64_t n = 1; n < 40; ++n) {
    FaultFileSystem faulty(real_, {.kind = FaultPlan::Kind::kWrite,
                                   .fail_at = n,
                                   .persistent = true,
                                   .code = Code::kDiskFull});
    BackupResult result;
    const Status status = Backup(faulty, &result);
    if (!faulty.fired()) return;
    EXPECT_EQ(status.code(), Code::kDiskFull) << status.ToString();
    EXPECT_EQ(Litter(), std::vector<std::string>{});
    ExpectNoDefects(first.disks[0].root);
  }
}

TEST_F(JobFaultTest, ARestoreThatFailsAnywhereLeavesNoImage) {
  BackupResult backup;
  ASSERT_TRUE(IsOk(Backup(real_, &backup)));
  FailEachCall(
      {.code = Code::kRead},
      [&](FileSystem& faulty) { return Restore(faulty, backup.disks[0].root); },
      [&](const Status& status) {
        // A failure to make the folder durable comes when the image has its name already.
        if (status.ok() || fs::exists(target_path_)) {
          EXPECT_TRUE(test::ReadWholeFile(target_path_) == content_);
          fs::remove(target_path_);
        }
        EXPECT_EQ(Litter(), std::vector<std::string>{});
      });
  ExpectRestores(backup.disks[0].root);
}

TEST_F(JobFaultTest, ACopyThatFailsAnywhereLeavesNoImage) {
  FailEachCall(
      {.code = Code::kRead}, [&](FileSystem& faulty) { return Copy(faulty); },
      [&](const Status&) {
        if (fs::exists(target_path_)) {
          auto disk = Must(Disk::Open(real_, target_path_, {}));
          std::vector<uint8_t> bytes(disk->size());
          Must(disk->Read(0, bytes));
          EXPECT_TRUE(bytes == content_);
          fs::remove(target_path_);
        }
        EXPECT_EQ(Litter(), std::vector<std::string>{});
      });
}

}  // namespace
}  // namespace firn
