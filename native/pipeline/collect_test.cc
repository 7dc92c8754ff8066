// Collections on real packs: what is marked, what is copied, what the new index runs say.

#include <gtest/gtest.h>

#include <map>

#include "io/fault_file_system.h"
#include "pipeline/collect_mark.h"
#include "pipeline/collect_merge.h"
#include "pipeline/collect_rescue.h"
#include "pipeline/repository_test_util.h"

namespace firn::test {
namespace {

constexpr uint64_t kDiskBytes = 24 * kMiB;

DiskContent Content(uint64_t seed, unsigned share = 60) {
  Random random(seed);
  DiskContent content(kDiskBytes);
  content.Scatter(&random, share);
  return content;
}

class CollectTest : public testing::Test {
 protected:
  Id BackUp(const DiskContent& content) {
    const std::string path = folder_ / "disk.raw";
    content.WriteRaw(path);
    auto outcome = repository_.Backup({path});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.ToString();
    return outcome.root();
  }

  MarkOptions Mark(const std::vector<Id>& roots, const std::vector<PackName>& victims = {}) const {
    MarkOptions options;
    options.repository = repository_.View();
    options.roots = roots;
    options.victims = victims;
    return options;
  }

  static std::shared_ptr<LiveIndex> MustMark(MarkOptions options) {
    MarkJob job(FileSystem::Default(), SmallTuning(), std::move(options));
    const Status status = job.Run();
    EXPECT_TRUE(status.ok()) << status.ToString();
    return job.live();
  }

  RescueOptions Rescue(std::shared_ptr<LiveIndex> live, const std::vector<PackName>& victims) {
    RescueOptions options;
    options.root = repository_.root();
    options.chunking = repository_.chunking();
    options.live = std::move(live);
    options.victims = victims;
    random_.Fill(options.run);
    return options;
  }

  MergeOptions Merge(std::shared_ptr<LiveIndex> live, const std::vector<PackName>& dropped) {
    MergeOptions options;
    options.root = repository_.root();
    options.index_runs = repository_.View().listing.index_runs;
    options.live = std::move(live);
    options.dropped = dropped;
    random_.Fill(options.run);
    return options;
  }

  void Remove(const std::string& relative) {
    std::filesystem::remove(std::filesystem::path(repository_.root()) / relative);
  }

  static std::vector<PackName> Names(const std::vector<CollectPack>& packs, bool dead) {
    std::vector<PackName> names;
    for (const CollectPack& pack : packs) {
      if ((pack.owned_bytes == 0) == dead) names.push_back(pack.name);
    }
    return names;
  }

  TestFolder folder_;
  TestRepository repository_;
  Random random_{99};
};

TEST_F(CollectTest, EveryRecordOfWholePointsIsLiveAndOwnedOnce) {
  const std::vector<Id> roots = {BackUp(Content(1)), BackUp(Content(2)), BackUp(Content(1))};
  const auto live = MustMark(Mark(roots));
  ASSERT_FALSE(live->packs().empty());
  for (const CollectPack& pack : live->packs()) {
    EXPECT_TRUE(pack.named && pack.known);
    EXPECT_FALSE(pack.needed);
    EXPECT_EQ(pack.owned_bytes, pack.record_bytes);
    EXPECT_EQ(pack.owned_records, pack.records);
  }
}

TEST_F(CollectTest, RecordsThatNoRootNeedsAreWaste) {
  const Id kept = BackUp(Content(1));
  const Id gone = BackUp(Content(2));
  const auto live = MustMark(Mark({kept}));
  EXPECT_FALSE(Names(live->packs(), true).empty());
  for (const PackName& name : Names(live->packs(), true)) Remove(name.RelativePath());
  EXPECT_EQ(repository_.RestoreDifference(kept, Content(1)), "");
  EXPECT_NE(repository_.RestoreDifference(gone, Content(2)), "");
}

TEST_F(CollectTest, WhatOnlyVictimsHoldIsCopiedAndNamedAndEverythingRestores) {
  const Id kept = BackUp(Content(1));
  BackUp(Content(2));
  const auto live = MustMark(Mark({kept}));
  const std::vector<PackName> victims = repository_.View().listing.packs;
  RescueJob job(FileSystem::Default(), SmallTuning(), Rescue(live, victims));
  ASSERT_TRUE(job.Run().ok());
  EXPECT_TRUE(job.result().damaged.empty());
  EXPECT_FALSE(job.result().index_runs.empty());
  // The second look: with the copies in place nothing in a victim is needed.
  const auto again = MustMark(Mark({kept}, victims));
  for (const CollectPack& pack : again->packs()) EXPECT_FALSE(pack.needed);
  MergeJob merge(FileSystem::Default(), SmallTuning(), Merge(again, victims));
  const std::vector<std::string> replaced = repository_.View().listing.index_runs;
  ASSERT_TRUE(merge.Run().ok());
  for (const PackName& name : victims) Remove(name.RelativePath());
  for (const std::string& name : replaced) Remove("index/" + name);
  EXPECT_EQ(repository_.Problems({kept}), "");
  EXPECT_EQ(repository_.RestoreDifference(kept, Content(1)), "");
  const auto last = MustMark(Mark({kept}));
  for (const CollectPack& pack : last->packs()) EXPECT_EQ(pack.owned_bytes, pack.record_bytes);
}

TEST_F(CollectTest, AVictimThatHoldsTheOnlyCopyIsNeeded) {
  const Id kept = BackUp(Content(1));
  const std::vector<PackName> victims = repository_.View().listing.packs;
  const auto live = MustMark(Mark({kept}, victims));
  for (const CollectPack& pack : live->packs()) EXPECT_TRUE(pack.needed);
}

TEST_F(CollectTest, ACopyInACondemnedPackIsNoCopy) {
  const Id kept = BackUp(Content(1));
  const PackName pack = repository_.View().listing.packs.front();
  repository_.Condemn(pack);
  const auto live = MustMark(Mark({kept}));
  const CollectPack& row = live->packs()[live->Position(pack)];
  EXPECT_TRUE(row.needed);
  EXPECT_EQ(row.owned_bytes, 0u);
  EXPECT_EQ(row.live_bytes, row.record_bytes);
}

TEST_F(CollectTest, PacksThatNoRunNamesAreReadAndTheirLiveRecordsSaved) {
  const Id kept = BackUp(Content(1));
  const RepositoryView named = repository_.View();
  // The same disk again, by a run that could not see the first and died before its index.
  BackupOptions blind = repository_.Options({folder_ / "disk.raw"});
  blind.repository.listing.packs.clear();
  blind.repository.listing.index_runs.clear();
  ASSERT_TRUE(TestRepository::Run(blind).status.ok());
  for (const std::string& name : repository_.View().listing.index_runs) {
    const auto& known = named.listing.index_runs;
    if (std::ranges::find(known, name) == known.end()) Remove("index/" + name);
  }
  const auto live = MustMark(Mark({kept}));
  for (const CollectPack& pack : live->packs()) {
    EXPECT_TRUE(pack.known);
    EXPECT_EQ(pack.live_bytes, pack.record_bytes);
    EXPECT_EQ(pack.owned_bytes, pack.named ? pack.record_bytes : 0);
  }
}

TEST_F(CollectTest, AMissingChunkOrMapFailsForASealedPointAndIsCountedForAPendingOne) {
  BackUp(Content(1));
  const Id lost = random_.Id();
  MarkJob sealed(FileSystem::Default(), SmallTuning(), Mark({lost}));
  EXPECT_EQ(sealed.Run().code(), Code::kChunkMissing);
  MarkOptions options = Mark({});
  options.pending_roots = {lost};
  MarkJob pending(FileSystem::Default(), SmallTuning(), options);
  EXPECT_TRUE(pending.Run().ok());
  EXPECT_EQ(pending.missing(), 1u);
}

TEST_F(CollectTest, AnIndexRunThatDoesNotMatchItsHashIsRefused) {
  const Id kept = BackUp(Content(1));
  const std::string path =
      repository_.root() + "/index/" + repository_.View().listing.index_runs[0];
  FlipBit(path, (std::filesystem::file_size(path) - 70) * 8);
  MarkJob job(FileSystem::Default(), SmallTuning(), Mark({kept}));
  EXPECT_EQ(job.Run().code(), Code::kCorruptIndex);
}

TEST_F(CollectTest, MergedRunsAreCutToSizeWithoutTearingAPackApart) {
  std::vector<Id> roots;
  for (uint64_t seed = 1; seed <= 5; ++seed) roots.push_back(BackUp(Content(seed, 20)));
  const auto live = MustMark(Mark(roots));
  const std::vector<std::string> replaced = repository_.View().listing.index_runs;
  MergeJob merge(FileSystem::Default(), SmallTuning(), Merge(live, {}), 200);
  ASSERT_TRUE(merge.Run().ok());
  EXPECT_GT(merge.index_runs().size(), 1u);
  for (const std::string& name : replaced) Remove("index/" + name);
  EXPECT_EQ(repository_.Problems(roots), "");
  const auto again = MustMark(Mark(roots));
  uint64_t packs = 0;
  for (const auto& run : again->index().runs()) packs += run->packs().size();
  EXPECT_EQ(packs, again->packs().size());
}

TEST_F(CollectTest, AMergedRunHasWhatTheOldOnesHadInOrder) {
  std::vector<Id> roots;
  for (uint64_t seed = 1; seed <= 5; ++seed) roots.push_back(BackUp(Content(seed, 20)));
  const auto live = MustMark(Mark(roots));
  std::multimap<Id, uint32_t> before;
  for (const auto& run : live->index().runs()) {
    for (uint64_t i = 0; i < run->entries(); ++i) {
      before.emplace(run->Entry(i).id, run->Entry(i).stored_length);
    }
  }
  ASSERT_GT(live->index().runs().size(), 1u);
  const std::vector<std::string> replaced = repository_.View().listing.index_runs;
  MergeJob merge(FileSystem::Default(), SmallTuning(), Merge(live, {}));
  ASSERT_TRUE(merge.Run().ok());
  ASSERT_EQ(merge.index_runs().size(), 1u);
  for (const std::string& name : replaced) Remove("index/" + name);
  const auto again = MustMark(Mark(roots));
  const IndexRun& run = *again->index().runs().front();
  EXPECT_TRUE(run.Verify().ok());
  std::multimap<Id, uint32_t> after;
  for (uint64_t i = 0; i < run.entries(); ++i) {
    after.emplace(run.Entry(i).id, run.Entry(i).stored_length);
  }
  EXPECT_EQ(after, before);
}

TEST_F(CollectTest, ARescueThatFailsAtAnyWriteLeavesWhatWasThere) {
  const Id kept = BackUp(Content(1));
  const RepositoryView before = repository_.View();
  const std::vector<PackName> victims = before.listing.packs;
  MarkOptions first = Mark({kept});
  bool done = false;
  for (uint64_t fail_at = 1; !done && fail_at < 500; ++fail_at) {
    FaultFileSystem fs(FileSystem::Default(), {.fail_at = fail_at, .code = Code::kWrite});
    RescueJob job(fs, SmallTuning(1), Rescue(MustMark(first), victims));
    const bool ok = job.Run().ok();
    done = ok && !fs.fired();
    // What passes for success is: with what this run wrote, nothing of the victims is needed.
    if (ok && job.result().damaged.empty()) {
      MarkOptions after = Mark({kept}, victims);
      after.repository.listing = before.listing;
      for (const PackName& name : job.result().packs) {
        after.repository.listing.packs.push_back(name);
      }
      for (const std::string& name : job.result().index_runs) {
        after.repository.listing.index_runs.push_back(name);
      }
      const auto live = MustMark(after);
      for (const CollectPack& pack : live->packs()) EXPECT_FALSE(pack.needed) << fail_at;
    }
    EXPECT_FALSE(repository_.HasPartialFiles()) << fail_at;
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(repository_.RestoreDifference(kept, Content(1)), "");
}

TEST_F(CollectTest, ACopyThatIsKnownToBeDamagedIsNeitherKeptForNorCopied) {
  const Id kept = BackUp(Content(1));
  const std::vector<PackName> first = repository_.View().listing.packs;
  MarkOptions options = Mark({kept});
  for (const PackName& pack : first) {
    options.repository.listing.damaged.push_back({.pack = pack, .whole = true, .ids = {}});
  }
  const auto alone = MustMark(options);
  for (const CollectPack& pack : alone->packs()) {
    EXPECT_TRUE(pack.damaged && pack.unhealed && pack.needed);
  }
  RescueJob none(FileSystem::Default(), SmallTuning(), Rescue(alone, first));
  ASSERT_TRUE(none.Run().ok());
  EXPECT_EQ(none.result().records, 0u);
  // The same content once more, as a backup that knows of the damage stores it.
  const std::string path = folder_ / "disk.raw";
  BackupOptions again = repository_.Options({path});
  again.repository.listing.damaged = options.repository.listing.damaged;
  ASSERT_TRUE(TestRepository::Run(std::move(again)).status.ok());
  options.repository.listing.packs = repository_.View().listing.packs;
  options.repository.listing.index_runs = repository_.View().listing.index_runs;
  const auto healed = MustMark(options);
  for (const CollectPack& pack : healed->packs()) {
    EXPECT_FALSE(pack.unhealed || pack.needed);
    EXPECT_EQ(pack.owned_bytes, pack.damaged ? 0 : pack.record_bytes);
  }
  // Without the whole copy the damaged ones are needed again, whatever they are worth.
  for (const CollectPack& pack : healed->packs()) {
    if (!pack.damaged) options.victims.push_back(pack.name);
  }
  const auto doomed = MustMark(options);
  for (const CollectPack& pack : doomed->packs()) EXPECT_TRUE(pack.needed);
}

TEST_F(CollectTest, ADamagedVictimIsNamedAndNothingOfItIsTakenForSaved) {
  const Id kept = BackUp(Content(1));
  const std::vector<PackName> victims = repository_.View().listing.packs;
  const auto live = MustMark(Mark({kept}));
  for (const PackName& name : victims) {
    FlipBit(repository_.root() + "/" + name.RelativePath(), (64 + 64 + 5) * 8);
  }
  RescueJob job(FileSystem::Default(), SmallTuning(), Rescue(live, victims));
  ASSERT_TRUE(job.Run().ok());
  ASSERT_EQ(job.result().damaged.size(), victims.size());
  for (const auto& damaged : job.result().damaged) {
    EXPECT_EQ(damaged.status.code(), Code::kCorruptChunk);
  }
}

}  // namespace
}  // namespace firn::test
