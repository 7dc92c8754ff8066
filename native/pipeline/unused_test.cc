// Backups that leave unused blocks out: what they read, what a restore has, and that an incremental
// one gives the root of a full one, however the blocks in use have moved. The file systems here are
// swap spaces, which cost nothing to make, in partition tables that change.
#include <chrono>
#include <functional>
#include <set>
#include <thread>

#include "io/fault_file_system.h"
#include "pipeline/reference_map_test_util.h"
#include "pipeline/repository_test_util.h"
#include "used/used_test_util.h"

namespace firn {
namespace {

using test::Bytes;
using test::DiskContent;
using test::Identity;
using test::Must;
using test::SmallTuning;
using test::TestRepository;
using used_test::kLinuxType;
using used_test::kSwapType;

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kPageSectors = kPageBytes / kSectorBytes;
constexpr uint64_t kFirstPage = 16;      // partitions begin here
constexpr uint64_t kPagesAtEnd = 8;      // and end so many before the disk's end
constexpr uint64_t kSwapHeadPages = 16;  // always kept

// A partition in whole pages.
struct Part {
  uint64_t first = 0;
  uint64_t pages = 0;
  bool is_swap = false;
};

// A disk with a GPT, and what a backup without its unused blocks has of it.
class PartitionedDisk {
 public:
  PartitionedDisk(test::Random* random, uint64_t bytes) : random_(*random), content_(bytes) {}

  const DiskContent& content() const { return content_; }

  DiskContent used() const {
    DiskContent used(content_.bytes());
    for (const auto& [page, bytes] : content_.pages()) {
      if (!IsSkipped(page)) used.Set(page, bytes);
    }
    return used;
  }
  uint64_t SkippedPages() const {
    uint64_t pages = 0;
    for (const Part& part : parts_) pages += part.is_swap ? part.pages - kSwapHeadPages : 0;
    return pages;
  }

  // Makes these the partitions. What is written for that is added to `changed`; what the swap
  // spaces cover is not written to.
  void SetParts(std::vector<Part> parts, std::vector<ChangedRange>* changed) {
    parts_ = std::move(parts);
    image_test::SparseBytes bytes;
    bytes.Resize(content_.bytes());
    std::vector<used_test::TestGptPartition> table;
    for (const Part& part : parts_) {
      table.push_back({part.is_swap ? kSwapType : kLinuxType, part.first * kPageSectors,
                       (part.first + part.pages) * kPageSectors - 1});
    }
    used_test::WriteGpt(&bytes, table);
    const uint64_t last = content_.page_count() - kPagesAtEnd;
    Take(bytes, 0, kFirstPage, changed);
    Take(bytes, last, content_.page_count() - last, changed);
    for (const Part& part : parts_) {
      if (!part.is_swap) continue;
      used_test::WriteSwap(&bytes, part.first * kPageBytes, part.pages * kPageBytes);
      Take(bytes, part.first, 1, changed);
    }
  }
  // A random table: partitions of any kind side by side, with gaps.
  void Repartition(std::vector<ChangedRange>* changed) {
    std::vector<Part> parts;
    const uint64_t end = content_.page_count() - kPagesAtEnd;
    for (uint64_t at = kFirstPage + random_.Below(200); at + 40 < end && parts.size() < 100;) {
      const uint64_t most = random_.OneIn(3) ? 3000 : 200;
      const uint64_t pages = std::min(random_.Between(kSwapHeadPages + 1, most), end - at);
      parts.push_back({at, pages, pages > kSwapHeadPages && !random_.OneIn(3)});
      at += pages + (random_.OneIn(2) ? 0 : random_.Below(300));
    }
    SetParts(std::move(parts), changed);
  }
  // Guest writes, those into unused space included.
  void Scribble(std::vector<ChangedRange>* changed) {
    const uint64_t first = random_.Between(kFirstPage, content_.page_count() - kPagesAtEnd - 1);
    const uint64_t pages =
        std::min(random_.Between(1, 60), content_.page_count() - kPagesAtEnd - first);
    for (uint64_t page = first; page < first + pages; ++page) {
      if (IsHead(page)) continue;
      content_.Set(page, random_.OneIn(4) ? Bytes{} : random_.Bytes(kPageBytes));
    }
    changed->push_back({first * kPageBytes, pages * kPageBytes});
  }
  void Fill(unsigned share) {
    DiskContent scattered(content_.bytes());
    scattered.Scatter(&random_, share);
    const uint64_t last = content_.page_count() - kPagesAtEnd;
    for (const auto& [page, bytes] : scattered.pages()) {
      if (page >= kFirstPage && page < last && !IsHead(page)) content_.Set(page, bytes);
    }
  }

 private:
  void Take(const image_test::SparseBytes& bytes, uint64_t first, uint64_t pages,
            std::vector<ChangedRange>* changed) {
    for (uint64_t page = first; page < first + pages; ++page) {
      content_.Set(page, bytes.Read(page * kPageBytes, kPageBytes));
    }
    changed->push_back({first * kPageBytes, pages * kPageBytes});
  }
  // The page that makes a swap space one.
  bool IsHead(uint64_t page) const {
    return std::ranges::any_of(
        parts_, [&](const Part& part) { return part.is_swap && part.first == page; });
  }
  bool IsSkipped(uint64_t page) const {
    return std::ranges::any_of(parts_, [&](const Part& part) {
      return part.is_swap && page >= part.first + kSwapHeadPages && page < part.first + part.pages;
    });
  }

  test::Random& random_;
  DiskContent content_;
  std::vector<Part> parts_;
};

class UnusedTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_ / "disk.raw"; }

  static Id Reference(const TestRepository& repository, const DiskContent& content) {
    return test::ReferenceRoot(content, repository.chunking(), repository.id_key());
  }
  BackupOptions Skipping(TestRepository* repository, const std::vector<std::string>& paths) {
    BackupOptions options = repository->Options(paths);
    for (BackupDisk& disk : options.disks) disk.unused = UnusedOptions{};
    return options;
  }
  // 24 MiB, of which a swap space covers [8, 16).
  PartitionedDisk OneSwap(unsigned share = 100) {
    PartitionedDisk disk(&random_, 24 * kMiB);
    std::vector<ChangedRange> changed;
    disk.SetParts({{kFirstPage, 2048 - kFirstPage, false}, {2048, 2048, true}, {4096, 1000, false}},
                  &changed);
    disk.Fill(share);
    return disk;
  }

  test::TestFolder folder_;
  test::Random random_{503};
};

TEST_F(UnusedTest, WhatIsSkippedIsNotReadAndRestoresAsZero) {
  PartitionedDisk disk = OneSwap();
  TestRepository repository;
  for (const DiskFormat format : {DiskFormat::kRaw, DiskFormat::kVhdx}) {
    const std::string image = folder_ / (format == DiskFormat::kRaw ? "disk.raw" : "disk.vhdx");
    if (format == DiskFormat::kRaw) {
      disk.content().WriteRaw(image);
    } else {
      disk.content().WriteImage(image, Identity(format));
    }
    const auto backup = TestRepository::Run(Skipping(&repository, {image}));
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.root(), Reference(repository, disk.used()));
    const auto& row = backup.result.disks[0];
    const uint64_t skipped = disk.SkippedPages() * kPageBytes;
    ASSERT_TRUE(row.unused.has_value());
    EXPECT_EQ(row.unused->skipped_bytes, skipped);
    EXPECT_EQ(row.unused->table, "gpt");
    ASSERT_EQ(row.unused->partitions.size(), 3u);
    EXPECT_EQ(row.unused->partitions[0].reason_code, "unknown-file-system");
    EXPECT_EQ(row.unused->partitions[1].file_system, "swap");
    EXPECT_EQ(row.unused->partitions[1].skipped_bytes, skipped);
    EXPECT_EQ(row.data_bytes, disk.used().pages().size() * kPageBytes);
    // What it took to find out is counted, and little.
    EXPECT_EQ(backup.stats.read_bytes, row.data_bytes + row.unused->read_bytes);
    EXPECT_LT(row.unused->read_bytes, 512 * kKiB);
    EXPECT_EQ(repository.RestoreDifference(backup.root(), disk.used()), "");
    EXPECT_EQ(repository.Problems({backup.root()}), "");
  }
}

TEST_F(UnusedTest, ADryRunLeavesOutTheSame) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  BackupOptions options = Skipping(&repository, {path()});
  options.store = false;
  const auto dry = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(dry.status);
  EXPECT_EQ(dry.root(), Reference(repository, disk.used()));
  EXPECT_TRUE(repository.Files().empty());
}

// The heart of it. A tracker names what was written; which blocks are in use moves besides, and
// with it what a backup shows of pages that nobody wrote to.
class MovingMaskTest : public UnusedTest,
                       public ::testing::WithParamInterface<ChunkingParameters> {};

TEST_P(MovingMaskTest, TheRootIsThatOfAFullBackupAfterEveryStep) {
  const uint64_t seeds = test::RunningUnderSanitizer() ? 1 : 2;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    TestRepository repository(seed + 1, GetParam());
    const DiskFormat format = seed % 2 == 0 ? DiskFormat::kRaw : DiskFormat::kVhdx;
    const std::string image = folder_ / (format == DiskFormat::kRaw ? "disk.raw" : "disk.vhdx");
    PartitionedDisk disk(&random_, 33 * kMiB);
    std::vector<ChangedRange> changed;
    disk.Repartition(&changed);
    disk.Fill(70);
    std::optional<BackupBase> base;
    std::vector<Id> roots;
    for (int step = 0; step < 12; ++step) {
      if (!random_.OneIn(4)) disk.Repartition(&changed);
      for (uint64_t i = random_.Below(5); i > 0; --i) disk.Scribble(&changed);
      std::filesystem::remove(image);
      if (format == DiskFormat::kRaw) {
        disk.content().WriteRaw(image, random_.Below(4));
      } else {
        disk.content().WriteImage(image, Identity(format));
      }
      // Skipping goes on and off.
      const bool skips = !random_.OneIn(4);
      BackupOptions options = repository.Options({image});
      if (skips) options.disks[0].unused = UnusedOptions{};
      if (base) base->changed = changed;
      options.disks[0].base = base;
      const auto backup = TestRepository::Run(
          std::move(options), SmallTuning(1 + static_cast<uint32_t>(random_.Below(3)),
                                          step % 2 == 0 ? IoBackend::kAuto : IoBackend::kThreads));
      FIRN_ASSERT_OK(backup.status);
      ASSERT_EQ(backup.result.disks[0].base_refused, "");
      ASSERT_LE(backup.stats.done_bytes, backup.stats.total_bytes);
      const DiskContent expected = skips ? disk.used() : disk.content();
      ASSERT_EQ(backup.root(), Reference(repository, expected))
          << "seed " << seed << " step " << step;
      BackupOptions full = repository.Options({image});
      full.store = false;
      if (skips) full.disks[0].unused = UnusedOptions{};
      ASSERT_EQ(TestRepository::Run(std::move(full)).root(), backup.root());
      base = BackupBase{backup.root(), {}, skips};
      changed.clear();
      roots.push_back(backup.root());
      if (step == 11) {
        EXPECT_EQ(repository.RestoreDifference(backup.root(), expected), "");
      }
    }
    EXPECT_EQ(repository.Problems(roots), "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, MovingMaskTest,
    ::testing::Values(ChunkingParameters{},
                      ChunkingParameters{.min_pages = 4, .average_pages = 8, .max_pages = 32},
                      ChunkingParameters{
                          .fixed = true, .min_pages = 16, .average_pages = 16, .max_pages = 16},
                      ChunkingParameters{.min_pages = 1, .average_pages = 2, .max_pages = 3}),
    [](const auto& scheme) { return "Scheme" + std::to_string(scheme.index); });

TEST_F(UnusedTest, WhereNothingMovedAnIncrementalBackupReadsNoMoreThanTheSearchDoes) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  const auto first = TestRepository::Run(Skipping(&repository, {path()}));
  FIRN_ASSERT_OK(first.status);
  BackupOptions options = Skipping(&repository, {path()});
  options.disks[0].base = BackupBase{first.root(), {}, true};
  const auto second = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first.root());
  EXPECT_EQ(second.stats.read_bytes, second.result.disks[0].unused->read_bytes);
  EXPECT_EQ(second.stats.chunks, 0u);
}

// Without this flag the holes of the base would pass for zeros; the test above would not notice.
TEST_F(UnusedTest, BlocksThatCameIntoUseAreReadThoughNoWriteWasReported) {
  PartitionedDisk disk = OneSwap();
  disk.content().WriteRaw(path());
  TestRepository repository;
  const auto first = TestRepository::Run(Skipping(&repository, {path()}));
  std::vector<ChangedRange> changed;
  disk.SetParts({{kFirstPage, 2048 - kFirstPage, false}, {2048, 100, true}, {2200, 2896, false}},
                &changed);
  disk.content().WriteRaw(path());
  for (const bool skips : {false, true}) {
    BackupOptions options = Skipping(&repository, {path()});
    options.disks[0].base = BackupBase{first.root(), changed, skips};
    const auto second = TestRepository::Run(std::move(options));
    FIRN_ASSERT_OK(second.status);
    EXPECT_EQ(second.root() == Reference(repository, disk.used()), skips);
  }
}

// Of segments that were left out in full the base has nothing at all.
TEST_F(UnusedTest, WholeSegmentsThatCameIntoUseAreReadThoughNoWriteWasReported) {
  PartitionedDisk disk(&random_, 48 * kMiB);
  std::vector<ChangedRange> changed;
  disk.SetParts({{1024, 9000, true}}, &changed);
  disk.Fill(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  const auto first = TestRepository::Run(Skipping(&repository, {path()}));
  changed.clear();
  disk.SetParts({{1024, 100, true}, {3000, 1200, true}}, &changed);
  // The new head lies in a segment of its own, so nothing else leads to the one after it.
  disk.content().WriteRaw(path());
  BackupOptions options = Skipping(&repository, {path()});
  options.disks[0].base = BackupBase{first.root(), changed, true};
  const auto second = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), Reference(repository, disk.used()));
  EXPECT_EQ(repository.RestoreDifference(second.root(), disk.used()), "");
}

// --- Machines of several disks ---

TEST_F(UnusedTest, AHibernatedSystemOnOneDiskKeepsAllDisksOfTheMachineWhole) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  PartitionedDisk other = OneSwap(60);
  DiskContent asleep = other.content();
  Bytes head = asleep.Read(2048 * kPageBytes, kPageBytes);
  std::copy_n("S1SUSPEND", 10, head.begin() + 4086);
  asleep.Set(2048, std::move(head));
  asleep.WriteRaw(folder_ / "asleep.raw");
  TestRepository repository;
  const auto backup =
      TestRepository::Run(Skipping(&repository, {path(), folder_ / "asleep.raw", path()}));
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.root(0), Reference(repository, disk.content()));
  EXPECT_EQ(backup.root(1), Reference(repository, asleep));
  EXPECT_EQ(backup.root(2), backup.root(0));
  for (const auto& row : backup.result.disks) {
    ASSERT_TRUE(row.unused.has_value());
    EXPECT_EQ(row.unused->skipped_bytes, 0u);
    EXPECT_EQ(row.unused->partitions.at(1).reason_code, "hibernated");
    EXPECT_EQ(row.unused->partitions.at(1).skipped_bytes, 0u);
  }
  EXPECT_NE(backup.result.disks[0].unused->partitions[1].reason.find("another disk"),
            std::string::npos);
  // The disk alone is believed: nobody says that the other one is there.
  EXPECT_EQ(TestRepository::Run(Skipping(&repository, {path()})).root(),
            Reference(repository, disk.used()));
}

TEST_F(UnusedTest, ManyDisksGiveTheSameRootsWithAnyTuning) {
  TestRepository repository;
  std::vector<std::string> paths;
  std::vector<Id> expected;
  for (int i = 0; i < 7; ++i) {
    PartitionedDisk disk(&random_, 9 * kMiB + kPageBytes * random_.Below(900));
    std::vector<ChangedRange> changed;
    disk.Repartition(&changed);
    disk.Fill(50);
    paths.push_back(folder_ / ("disk" + std::to_string(i) + ".raw"));
    disk.content().WriteRaw(paths.back());
    expected.push_back(Reference(repository, disk.used()));
  }
  for (const uint32_t workers : {1u, 4u}) {
    for (const uint64_t memory : {1 * kMiB, 400 * kMiB}) {
      const auto backup = TestRepository::Run(Skipping(&repository, paths),
                                              {.workers = workers, .memory_bytes = memory});
      FIRN_ASSERT_OK(backup.status);
      for (size_t i = 0; i < paths.size(); ++i) EXPECT_EQ(backup.root(i), expected[i]);
    }
  }
}

TEST_F(UnusedTest, DisksThatAreToBeKeptWholeAreNotSearched) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  BackupOptions options = Skipping(&repository, {path(), path()});
  options.disks[0].unused.reset();
  const auto backup = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.root(0), Reference(repository, disk.content()));
  EXPECT_EQ(backup.root(1), Reference(repository, disk.used()));
  EXPECT_FALSE(backup.result.disks[0].unused.has_value());
}

TEST_F(UnusedTest, TheSearchAloneSaysWhatABackupWouldLeaveOut) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  UnusedJob job(FileSystem::Default(), SmallTuning(), {{path(), {}, {}}, {path(), {}, {}}});
  FIRN_ASSERT_OK(job.Run());
  const auto backup = TestRepository::Run(Skipping(&repository, {path()}));
  ASSERT_EQ(job.maps().size(), 2u);
  for (const UsedMap& map : job.maps()) {
    EXPECT_EQ(map.skipped_bytes, backup.result.disks[0].unused->skipped_bytes);
    EXPECT_EQ(map.partitions.size(), 3u);
  }
  EXPECT_EQ(job.stats().read_bytes, job.maps()[0].read_bytes + job.maps()[1].read_bytes);
  UnusedJob missing(FileSystem::Default(), SmallTuning(), {{folder_ / "none.raw", {}, {}}});
  EXPECT_EQ(missing.Run().code(), Code::kNotFound);
}

// --- Failures ---

TEST_F(UnusedTest, AReadThatFailsInTheSearchFailsTheBackup) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  uint64_t in_search = 0;
  for (uint64_t n = 1; n < 100; ++n) {
    FaultFileSystem fs(
        FileSystem::Default(),
        {.kind = FaultPlan::Kind::kRead, .fail_at = n, .persistent = true, .code = Code::kRead});
    BackupOptions options = Skipping(&repository, {path()});
    options.store = false;
    const auto backup = TestRepository::Run(std::move(options), SmallTuning(), fs);
    if (!fs.fired()) break;
    ASSERT_EQ(backup.status.code(), Code::kRead) << n;
    ASSERT_EQ(backup.status.path(), path());
    const auto& disks = backup.result.disks;
    in_search += !disks.empty() && !disks[0].unused.has_value() ? 1u : 0u;
  }
  EXPECT_GT(in_search, 2u);
}

TEST_F(UnusedTest, ACancelledSearchStops) {
  PartitionedDisk disk = OneSwap(60);
  disk.content().WriteRaw(path());
  TestRepository repository;
  BackupJob backup(FileSystem::Default(), SmallTuning(), Skipping(&repository, {path()}));
  backup.Cancel();
  EXPECT_EQ(backup.Run().code(), Code::kAborted);
  EXPECT_TRUE(repository.Files().empty());
  UnusedJob search(FileSystem::Default(), SmallTuning(), {{path(), {}, {}}});
  search.Cancel();
  EXPECT_EQ(search.Run().code(), Code::kAborted);
  EXPECT_EQ(search.stats().read_bytes, 0u);
}

}  // namespace
}  // namespace firn
