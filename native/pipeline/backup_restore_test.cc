// Backup and restore over real images: what goes in comes out, and the root depends on the content
// alone.
#include <set>

#include "pipeline/map_disk.h"
#include "pipeline/reference_map_test_util.h"
#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::DiskContent;
using test::Identity;
using test::Must;
using test::SmallTuning;
using test::TestRepository;

class BackupRestoreTest : public ::testing::Test {
 protected:
  DiskContent RandomDisk(uint64_t bytes, unsigned share) {
    DiskContent content(bytes);
    content.Scatter(&random_, share);
    return content;
  }

  test::TestFolder folder_;
  test::Random random_{181};
};

TEST_F(BackupRestoreTest, DisksOfAnySizeAndFillingComeBackByteForByte) {
  struct Case {
    uint64_t bytes;
    unsigned share;
    uint64_t dense;
  };
  const std::vector<Case> cases = {
      {1, 100, 0},
      {511, 100, 0},
      {4096, 100, 0},
      {4097, 100, 0},
      {8 * kMiB, 0, 0},    // nothing in it
      {8 * kMiB, 100, 0},  // everything
      {8 * kMiB - 1, 60, 3},
      {8 * kMiB + 1, 60, 1},  // zeros that are there
      {21 * kMiB + 12'345, 30, 7},
      {30 * kMiB + 512, 5, 2},
  };
  for (const Case& one : cases) {
    TestRepository repository(one.bytes);
    DiskContent content(one.bytes);
    if (one.share > 0) content.Scatter(&random_, one.share);
    const std::string path = folder_ / "disk.raw";
    content.WriteRaw(path, one.dense);
    const auto backup = repository.Backup({path});
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.root(),
              test::ReferenceRoot(content, repository.chunking(), repository.id_key()))
        << one.bytes;
    EXPECT_EQ(backup.result.disks[0].data_bytes, content.pages().size() * kPageBytes);
    EXPECT_EQ(backup.result.disks[0].identity.size, one.bytes);
    EXPECT_EQ(repository.RestoreDifference(backup.root(), content), "") << one.bytes;
    EXPECT_EQ(repository.Problems({backup.root()}), "");
    EXPECT_FALSE(repository.HasPartialFiles());
  }
}

TEST_F(BackupRestoreTest, HugeSparseDisksNeedSeveralNodesAndNoTime) {
  TestRepository repository;
  DiskContent content(9 * kGiB + 4096 * 3 + 512);
  for (uint64_t page : {uint64_t{0}, kNodeBytes / kPageBytes - 1, kNodeBytes / kPageBytes,
                        3 * kNodeBytes / kPageBytes + 77, content.page_count() - 1}) {
    content.Set(page, random_.Bytes(kPageBytes));
  }
  content.WriteRaw(folder_ / "disk.raw");
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.root(),
            test::ReferenceRoot(content, repository.chunking(), repository.id_key()));
  EXPECT_EQ(repository.RestoreDifference(backup.root(), content), "");
  content.WriteImage(folder_ / "disk.vhdx", Identity(DiskFormat::kVhdx));
  const auto second = repository.Backup({folder_ / "disk.vhdx"});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), backup.root());
}

TEST_F(BackupRestoreTest, EveryChunkingSchemeStoresAndRestores) {
  const DiskContent content = RandomDisk(20 * kMiB, 70);
  content.WriteRaw(folder_ / "disk.raw");
  const std::vector<ChunkingParameters> all = {
      {.min_pages = 1, .average_pages = 1, .max_pages = 1},
      {.min_pages = 4, .average_pages = 8, .max_pages = 32},
      {.min_pages = 64, .average_pages = 512, .max_pages = 2048},
      {.fixed = true, .min_pages = 1, .average_pages = 1, .max_pages = 1},
      {.fixed = true, .min_pages = 16, .average_pages = 16, .max_pages = 16},
      {.fixed = true, .min_pages = 1024, .average_pages = 1024, .max_pages = 1024},
      {.fixed = true, .min_pages = 2048, .average_pages = 2048, .max_pages = 2048}};
  for (const ChunkingParameters& chunking : all) {
    TestRepository repository(7, chunking);
    const auto backup = repository.Backup({folder_ / "disk.raw"});
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.root(), test::ReferenceRoot(content, chunking, repository.id_key()))
        << chunking.max_pages;
    EXPECT_EQ(repository.RestoreDifference(backup.root(), content), "") << chunking.max_pages;
    EXPECT_EQ(repository.Problems({backup.root()}), "");
  }
}

// The largest record that there is: a whole segment that does not compress.
TEST_F(BackupRestoreTest, AChunkMayBeAWholeSegmentThatDoesNotCompress) {
  DiskContent content(24 * kMiB);
  for (uint64_t page = 0; page < content.page_count(); ++page) {
    content.Set(page, random_.Bytes(kPageBytes));
  }
  content.WriteRaw(folder_ / "disk.raw");
  for (Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    TestRepository repository(
        8, {.fixed = true, .min_pages = 2048, .average_pages = 2048, .max_pages = 2048});
    const auto backup = TestRepository::Run(repository.Options({folder_ / "disk.raw"}, {codec, 1}));
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.stats.new_chunks, 3u);
    EXPECT_EQ(repository.RestoreDifference(backup.root(), content), "");
    EXPECT_EQ(repository.Problems({backup.root()}), "");
  }
}

TEST_F(BackupRestoreTest, TheRootDependsOnTheContentAlone) {
  DiskContent content = RandomDisk(26 * kMiB, 50);
  std::vector<std::string> paths = {folder_ / "a.raw", folder_ / "b.raw"};
  content.WriteRaw(paths[0]);
  content.WriteRaw(paths[1], 1);  // zeros written out
  const std::vector<std::pair<const char*, DiskIdentity>> images = {
      {"dynamic.vhdx", Identity(DiskFormat::kVhdx)},
      {"fixed.vhdx", Identity(DiskFormat::kVhdx, DiskKind::kFixed)},
      {"dynamic.vhd", Identity(DiskFormat::kVhd)},
      {"fixed.vhd", Identity(DiskFormat::kVhd, DiskKind::kFixed)}};
  for (const auto& [name, identity] : images) {
    paths.push_back(folder_ / name);
    content.WriteImage(paths.back(), identity);
  }
  TestRepository repository;
  const Id expected = test::ReferenceRoot(content, repository.chunking(), repository.id_key());
  for (const std::string& path : paths) {
    const auto backup = repository.Backup({path});
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.root(), expected) << path;
  }
  for (uint32_t workers : {1u, 2u, 5u}) {
    for (uint64_t memory : {1 * kMiB, 64 * kMiB, 400 * kMiB}) {
      for (IoMode io : {IoMode::kAuto, IoMode::kDirect, IoMode::kBuffered}) {
        for (IoBackend backend : {IoBackend::kAuto, IoBackend::kThreads}) {
          BackupOptions options = repository.Options({paths[workers % 2 == 0 ? 0 : 2]});
          options.store = false;
          const auto backup = TestRepository::Run(
              std::move(options),
              {.workers = workers, .memory_bytes = memory, .io = io, .backend = backend});
          FIRN_ASSERT_OK(backup.status);
          ASSERT_EQ(backup.root(), expected) << workers << " " << memory;
        }
      }
    }
  }
}

TEST_F(BackupRestoreTest, EveryCodecTuningAndFormatRestores) {
  DiskContent content = RandomDisk(19 * kMiB + 512, 60);
  content.WriteRaw(folder_ / "disk.raw");
  int tried = 0;
  for (const CompressionOptions& compression :
       {CompressionOptions{Codec::kRaw, 0}, {Codec::kLz4, 1}, {Codec::kZstd, 3}}) {
    for (IoBackend backend : {IoBackend::kAuto, IoBackend::kThreads}) {
      for (IoMode io : {IoMode::kDirect, IoMode::kBuffered}) {
        TestRepository repository;
        const Tuning tuning = SmallTuning(1 + tried++ % 3, backend, io);
        const auto backup =
            TestRepository::Run(repository.Options({folder_ / "disk.raw"}, compression), tuning);
        FIRN_ASSERT_OK(backup.status);
        const Id expected =
            test::ReferenceRoot(content, repository.chunking(), repository.id_key());
        EXPECT_EQ(backup.root(), expected);
        EXPECT_EQ(repository.RestoreDifference(backup.root(), content, tuning), "");
        for (const auto& identity :
             {Identity(DiskFormat::kVhdx), Identity(DiskFormat::kVhdx, DiskKind::kFixed),
              Identity(DiskFormat::kVhd)}) {
          const std::string path =
              folder_ / (identity.format == DiskFormat::kVhd ? "back.vhd" : "back.vhdx");
          FIRN_ASSERT_OK(
              repository.Restore(backup.root(), path, content.bytes(), identity, tuning));
          EXPECT_EQ(test::ImageDifference(path, content), "");
          std::filesystem::remove(path);
        }
      }
    }
  }
}

TEST_F(BackupRestoreTest, LittleMemoryRestoresInManyWindows) {
  // Single pages as chunks: more references than a window of the least memory holds.
  TestRepository repository(3, {.min_pages = 1, .average_pages = 1, .max_pages = 1});
  DiskContent content(260 * kMiB);
  for (uint64_t page = 0; page < content.page_count(); ++page) {
    test::Bytes bytes(kPageBytes);
    StoreLe<uint64_t>(bytes.data(), page % 500 + 1);
    content.Set(page, std::move(bytes));
  }
  ASSERT_GT(content.page_count() * sizeof(ChunkReference), 4 * kMiB);
  content.WriteRaw(folder_ / "disk.raw");
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.stats.new_chunks, 500u);
  EXPECT_EQ(
      repository.RestoreDifference(backup.root(), content, {.workers = 2, .memory_bytes = kMiB}),
      "");
}

TEST_F(BackupRestoreTest, ASecondBackupOfTheSameContentStoresNothing) {
  TestRepository repository;
  DiskContent content = RandomDisk(20 * kMiB, 50);
  content.WriteRaw(folder_ / "disk.raw");
  const auto first = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(first.status);
  EXPECT_GT(first.stats.new_chunks, 0u);
  EXPECT_TRUE(first.result.relied_packs.empty());
  const std::vector<std::string> files = repository.Files();
  content.WriteImage(folder_ / "disk.vhdx", Identity(DiskFormat::kVhdx));
  const auto second = repository.Backup({folder_ / "disk.vhdx"});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first.root());
  EXPECT_EQ(second.stats.new_chunks, 0u);
  EXPECT_EQ(second.stats.stored_bytes, 0u);
  EXPECT_EQ(second.stats.chunks, first.stats.chunks);
  EXPECT_TRUE(second.result.packs.empty());
  EXPECT_TRUE(second.result.index_runs.empty());
  EXPECT_EQ(repository.Files(), files);
  std::set<PackName> relied(second.result.relied_packs.begin(), second.result.relied_packs.end());
  EXPECT_EQ(relied, std::set<PackName>(first.result.packs.begin(), first.result.packs.end()));
}

TEST_F(BackupRestoreTest, ASmallChangeStoresLittleAndBothPointsRestore) {
  TestRepository repository;
  DiskContent content = RandomDisk(30 * kMiB, 60);
  content.WriteRaw(folder_ / "disk.raw");
  const auto first = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(first.status);
  DiskContent changed = content;
  changed.Set(1000, random_.Bytes(kPageBytes));
  changed.Set(5000, {});
  changed.WriteRaw(folder_ / "disk.raw");
  const auto second = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(second.status);
  EXPECT_LE(second.stats.new_chunks, 6u);
  EXPECT_EQ(second.root(),
            test::ReferenceRoot(changed, repository.chunking(), repository.id_key()));
  EXPECT_EQ(repository.RestoreDifference(first.root(), content), "");
  EXPECT_EQ(repository.RestoreDifference(second.root(), changed), "");
}

TEST_F(BackupRestoreTest, WithoutStoringTheRootIsTheSameAndTheRepositoryIsLeftAlone) {
  TestRepository repository;
  const DiskContent content = RandomDisk(20 * kMiB, 50);
  content.WriteRaw(folder_ / "disk.raw");
  BackupOptions options = repository.Options({folder_ / "disk.raw"});
  options.store = false;
  options.repository.listing.root = "/no/such/repository";
  const auto computed = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(computed.status);
  EXPECT_EQ(computed.root(),
            test::ReferenceRoot(content, repository.chunking(), repository.id_key()));
  EXPECT_TRUE(repository.Files().empty());
  EXPECT_TRUE(computed.result.packs.empty());
}

TEST_F(BackupRestoreTest, DisksOfOneJobShareWhatTheyHaveInCommon) {
  TestRepository repository;
  const DiskContent content = RandomDisk(20 * kMiB, 50);
  DiskContent other = content;
  other.Set(17, random_.Bytes(kPageBytes));
  std::vector<std::string> paths;
  for (int i = 0; i < 3; ++i) {
    paths.push_back(folder_ / ("disk" + std::to_string(i) + ".raw"));
    (i == 2 ? other : content).WriteRaw(paths.back());
  }
  const auto single = TestRepository::Run(repository.Options({paths[0]}));
  FIRN_ASSERT_OK(single.status);
  TestRepository together(2);
  const auto backup = together.Backup(paths, SmallTuning(3));
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.root(0), backup.root(1));
  EXPECT_NE(backup.root(0), backup.root(2));
  EXPECT_LE(backup.stats.new_chunks, single.stats.new_chunks + 3);
  EXPECT_EQ(together.RestoreDifference(backup.root(1), content), "");
  EXPECT_EQ(together.RestoreDifference(backup.root(2), other), "");
  EXPECT_EQ(together.Problems({backup.root(0), backup.root(2)}), "");
}

TEST_F(BackupRestoreTest, WhatLiesInCondemnedPacksIsStoredAnew) {
  TestRepository repository;
  const DiskContent content = RandomDisk(10 * kMiB, 50);
  content.WriteRaw(folder_ / "disk.raw");
  const auto first = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(first.status);
  for (const PackName& pack : first.result.packs) repository.Condemn(pack);
  const auto second = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.stats.new_chunks, first.stats.new_chunks);
  EXPECT_TRUE(second.result.relied_packs.empty());
  for (const PackName& pack : first.result.packs) {
    std::filesystem::remove(JoinPath(repository.root(), pack.RelativePath()));
  }
  EXPECT_EQ(repository.RestoreDifference(second.root(), content), "");
}

TEST_F(BackupRestoreTest, ATinyRegistryWritesManyIndexRunsAndAllRestores) {
  // Four MiB is the least that the plan gives the registry: single-page chunks fill it.
  TestRepository repository(4, {.min_pages = 1, .average_pages = 1, .max_pages = 1});
  DiskContent content(180 * kMiB);
  for (uint64_t page = 0; page < content.page_count(); ++page) {
    content.Set(page, random_.Bytes(3100));
  }
  content.WriteRaw(folder_ / "disk.raw");
  const Tuning tuning{.workers = 2, .memory_bytes = kMiB};
  const auto first = repository.Backup({folder_ / "disk.raw"}, tuning);
  FIRN_ASSERT_OK(first.status);
  EXPECT_GT(first.result.packs.size(), 2u);
  EXPECT_EQ(first.stats.new_chunks, content.page_count());
  EXPECT_EQ(repository.View().listing.index_runs.size(), first.result.index_runs.size());
  EXPECT_GE(first.result.index_runs.size(), 2u);
  EXPECT_EQ(repository.RestoreDifference(first.root(), content), "");
  const auto again = repository.Backup({folder_ / "disk.raw"});
  EXPECT_EQ(again.stats.new_chunks, 0u);
}

TEST_F(BackupRestoreTest, WhatIsMissingOrWrongIsAnErrorWithItsName) {
  TestRepository repository;
  const auto no_file = repository.Backup({folder_ / "none.raw"});
  EXPECT_EQ(no_file.status.code(), Code::kNotFound);
  EXPECT_EQ(no_file.status.path(), folder_ / "none.raw");
  const DiskContent content = RandomDisk(kMiB, 50);
  content.WriteRaw(folder_ / "disk.raw");
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  const auto restore = [&](const Id& root, const std::string& name, uint64_t bytes) {
    return repository.Restore(root, folder_ / name, bytes).code();
  };
  EXPECT_EQ(restore(random_.Id(), "back.raw", kMiB), Code::kChunkMissing);
  EXPECT_EQ(restore(backup.root(), "back.raw", 2 * kMiB), Code::kCorruptObject);
  EXPECT_EQ(restore(backup.root(), "disk.raw", kMiB), Code::kExists);
  EXPECT_EQ(test::ImageDifference(folder_ / "disk.raw", content), "");
  EXPECT_EQ(restore(backup.root(), "no/folder.raw", kMiB), Code::kNotFound);
  EXPECT_EQ(test::FilesBelow(folder_.path()), std::vector<std::string>{"disk.raw"});
  BackupOptions bad = repository.Options({folder_ / "disk.raw"});
  bad.repository.chunking.max_pages = 4096;
  EXPECT_EQ(TestRepository::Run(std::move(bad)).status.code(), Code::kInvalidArgument);
}

TEST_F(BackupRestoreTest, RandomReadsOfAStoredDiskGiveItsBytes) {
  TestRepository repository;
  DiskContent content = RandomDisk(50 * kMiB + 777, 40);
  content.WriteRaw(folder_ / "disk.raw");
  const auto backup = repository.Backup({folder_ / "disk.raw"});
  FIRN_ASSERT_OK(backup.status);
  auto disk = Must(MapDisk::Open(FileSystem::Default(), repository.View(), backup.root()));
  ASSERT_EQ(disk->size(), content.bytes());
  for (int i = 0; i < 400; ++i) {
    const uint64_t offset = random_.Below(content.bytes());
    const uint64_t most = random_.OneIn(20) ? 20 * kMiB : 100 * kKiB;
    test::Bytes bytes(random_.Between(0, std::min(most, content.bytes() - offset)), 0xEE);
    FIRN_ASSERT_OK(disk->Read(offset, bytes));
    ASSERT_EQ(bytes, content.Read(offset, bytes.size())) << offset;
  }
  EXPECT_EQ(MapDisk::Open(FileSystem::Default(), repository.View(), random_.Id()).status().code(),
            Code::kChunkMissing);
}

}  // namespace
}  // namespace firn
