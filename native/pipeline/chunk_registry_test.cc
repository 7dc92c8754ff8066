#include "pipeline/chunk_registry.h"

#include <atomic>
#include <filesystem>
#include <thread>

#include "io/fault_file_system.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using test::Must;

class ChunkRegistryTest : public ::testing::Test {
 protected:
  ChunkRegistryTest() {
    std::filesystem::create_directory(folder_ / "index");
    random_.Fill(run_);
  }

  std::unique_ptr<ChunkIndex> OpenIndex(FileSystem& fs = FileSystem::Default()) {
    RepositoryListing listing;
    listing.root = folder_.path();
    return Must(ChunkIndex::Open(fs, listing));
  }
  // A pack's table with a record for each id.
  static PackTable TableOf(const std::vector<Id>& ids) {
    PackTable table;
    table.file_bytes = kMiB;
    for (const Id& id : ids)
      table.records.push_back({id, 64, 10, 20, RecordClass::kChunk, Codec::kRaw, 0});
    return table;
  }
  std::vector<Id> Ids(size_t count) {
    std::vector<Id> ids;
    for (size_t i = 0; i < count; ++i) ids.push_back(random_.Id());
    return ids;
  }

  test::TestFolder folder_;
  test::Random random_{171};
  RunId run_;
};

TEST_F(ChunkRegistryTest, OneOfManyClaimsAChunkAlsoAfterItsIndexRunIsWritten) {
  auto index = OpenIndex();
  ChunkRegistry registry(index.get(), run_, 0, 1000);
  const std::vector<Id> ids = Ids(2000);
  std::atomic<int> claims = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (const Id& id : ids) claims += registry.Claim(id) ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(claims, 2000);
  FIRN_ASSERT_OK(registry.AddPack({run_, 0, 0}, TableOf({ids.begin(), ids.begin() + 900})));
  EXPECT_TRUE(registry.index_runs().empty()) << "below the bound";
  int synced = 0;
  registry.set_sync_packs([&] {
    ++synced;
    EXPECT_TRUE(test::FilesBelow(folder_.path()).empty()) << "names are durable before the index";
    return Status::Ok();
  });
  FIRN_ASSERT_OK(registry.AddPack({run_, 0, 1}, TableOf({ids.begin() + 900, ids.end()})));
  EXPECT_EQ(synced, 1);
  ASSERT_EQ(registry.index_runs().size(), 1u);
  for (const Id& id : ids) EXPECT_FALSE(registry.Claim(id)) << "the index took over";
  EXPECT_TRUE(registry.Claim(random_.Id()));
  FIRN_ASSERT_OK(registry.Finish());
  EXPECT_EQ(registry.index_runs().size(), 1u) << "nothing was left to write";
  EXPECT_EQ(registry.packs().size(), 2u);
}

TEST_F(ChunkRegistryTest, NobodyClaimsAChunkAgainWhileItsIndexRunTakesOver) {
  auto index = OpenIndex();
  ChunkRegistry registry(index.get(), run_, 0, 1);
  registry.set_sync_packs([] { return Status::Ok(); });
  for (uint32_t pack = 0; pack < 100; ++pack) {
    const std::vector<Id> ids = Ids(4);
    for (const Id& id : ids) ASSERT_TRUE(registry.Claim(id));
    std::atomic<bool> written = false;
    std::atomic<int> claims = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        while (!written)
          for (const Id& id : ids) claims += registry.Claim(id) ? 1 : 0;
      });
    }
    const Status added = registry.AddPack({run_, 0, pack}, TableOf(ids));
    written = true;
    for (std::thread& thread : threads) thread.join();
    FIRN_ASSERT_OK(added);
    ASSERT_EQ(claims, 0) << "in round " << pack;
  }
}

TEST_F(ChunkRegistryTest, EveryPacksRecordsAreInExactlyOneOfItsIndexRuns) {
  auto index = OpenIndex();
  ChunkRegistry registry(index.get(), run_, 3, 50);
  registry.set_sync_packs([] { return Status::Ok(); });
  std::map<Id, uint32_t> expected;
  for (uint32_t pack = 0; pack < 20; ++pack) {
    const std::vector<Id> ids = Ids(random_.Between(1, 30));
    for (const Id& id : ids) expected[id] = pack;
    FIRN_ASSERT_OK(registry.AddPack({run_, 3, pack}, TableOf(ids)));
  }
  FIRN_ASSERT_OK(registry.Finish());
  EXPECT_GT(registry.index_runs().size(), 3u);
  EXPECT_EQ(test::FilesBelow(folder_ / "index").size(), registry.index_runs().size());
  size_t entries = 0;
  for (const std::string& name : registry.index_runs()) {
    EXPECT_TRUE(name.starts_with(ToHex(run_) + "-0003-")) << name;
    auto run = Must(IndexRun::Open(FileSystem::Default(), folder_ / ("index/" + name)));
    FIRN_EXPECT_OK(run->Verify());
    entries += run->entries();
    for (uint64_t i = 0; i < run->entries(); ++i) {
      const IndexEntry entry = run->Entry(i);
      EXPECT_EQ(run->packs()[entry.pack].name.sequence, expected.at(entry.id));
    }
  }
  EXPECT_EQ(entries, expected.size());
}

TEST_F(ChunkRegistryTest, ARunThatCannotBeWrittenIsAFailureAndLeavesNoPartialFile) {
  for (uint64_t n = 1; n < 4; ++n) {
    FaultFileSystem fs(FileSystem::Default(),
                       {.kind = FaultPlan::Kind::kWrite, .fail_at = n, .code = Code::kDiskFull});
    auto index = OpenIndex(fs);
    ChunkRegistry registry(index.get(), run_, 0, 1'000'000);
    FIRN_ASSERT_OK(registry.AddPack({run_, 0, 0}, TableOf(Ids(100))));
    EXPECT_EQ(registry.Finish().code(), Code::kDiskFull);
    EXPECT_TRUE(test::FilesBelow(folder_.path()).empty());
  }
}

}  // namespace
}  // namespace firn
