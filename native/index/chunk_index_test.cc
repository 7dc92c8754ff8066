#include "index/chunk_index.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <thread>

#include "io/folder_test_util.h"

namespace firn {
namespace {

using test::Must;

class ChunkIndexTest : public ::testing::Test {
 protected:
  ChunkIndexTest() {
    std::filesystem::create_directory(folder_ / "index");
    random_.Fill(run_);
    listing_.root = folder_.path();
  }

  PackName Pack(uint32_t sequence) const { return {run_, 0, sequence}; }

  // An index run of the given ids in each of the packs; not listed.
  std::string WriteRun(const std::vector<PackName>& packs, const std::vector<Id>& ids) {
    std::vector<IndexPack> rows;
    std::vector<IndexEntry> entries;
    for (const PackName& pack : packs) {
      for (const Id& id : ids) {
        entries.push_back({id, static_cast<uint32_t>(rows.size()), 64 + pack.sequence, 100, 4096,
                           RecordClass::kChunk});
      }
      rows.push_back({pack, kMiB, random_.Id()});
    }
    const std::string name = "run" + std::to_string(next_name_++) + ".idx";
    Must(WriteIndexRun(fs_, JoinPath(folder_ / "index", name), rows, &entries));
    return name;
  }
  std::vector<Id> Ids(size_t count) {
    std::vector<Id> ids;
    for (size_t i = 0; i < count; ++i) ids.push_back(random_.Id());
    return ids;
  }
  std::unique_ptr<ChunkIndex> Open() { return Must(ChunkIndex::Open(fs_, listing_)); }

  FileSystem& fs_ = FileSystem::Default();
  test::TestFolder folder_;
  test::Random random_{141};
  RunId run_;
  RepositoryListing listing_;
  int next_name_ = 0;
};

TEST_F(ChunkIndexTest, AnEmptyRepositoryKnowsNothing) {
  auto index = Open();
  EXPECT_FALSE(index->Find(random_.Id()));
  EXPECT_FALSE(index->Rely(random_.Id()));
  EXPECT_EQ(index->entries(), 0u);
  EXPECT_TRUE(index->ReliedPacks().empty());
}

TEST_F(ChunkIndexTest, FindsWhatAnyRunKnows) {
  const auto a = Ids(100), b = Ids(100);
  listing_.packs = {Pack(1), Pack(2)};
  listing_.index_runs = {WriteRun({Pack(1)}, a), WriteRun({Pack(2)}, b)};
  auto index = Open();
  EXPECT_EQ(index->entries(), 200u);
  for (const auto& [ids, sequence] : {std::pair(a, 1u), std::pair(b, 2u)}) {
    for (const Id& id : ids) {
      const auto place = index->Find(id);
      ASSERT_TRUE(place);
      EXPECT_EQ(index->pack_name(place->pack), Pack(sequence));
      EXPECT_EQ(place->offset, 64 + sequence);
      EXPECT_EQ(place->stored_length, 100u);
      EXPECT_EQ(place->raw_length, 4096u);
      EXPECT_EQ(place->record_class, RecordClass::kChunk);
    }
  }
  EXPECT_FALSE(index->Find(random_.Id()));
}

TEST_F(ChunkIndexTest, WhatLiesInPacksThatAreGoneIsForgotten) {
  const auto gone = Ids(50), both = Ids(50);
  listing_.packs = {Pack(2)};
  listing_.index_runs = {WriteRun({Pack(1)}, gone), WriteRun({Pack(1), Pack(2)}, both)};
  auto index = Open();
  for (const Id& id : gone) {
    EXPECT_FALSE(index->Find(id));
    EXPECT_FALSE(index->Rely(id));
  }
  for (const Id& id : both) {
    ASSERT_TRUE(index->Find(id));
    EXPECT_EQ(index->pack_name(index->Find(id)->pack), Pack(2));
    EXPECT_TRUE(index->Rely(id));
  }
  EXPECT_EQ(index->ReliedPacks(), std::vector<PackName>{Pack(2)});
}

TEST_F(ChunkIndexTest, CondemnedPacksAreReadFromButNotReliedOn) {
  const auto only = Ids(20), both = Ids(20);
  listing_.packs = {Pack(1), Pack(2)};
  listing_.condemned = {Pack(2), Pack(77)};
  listing_.index_runs = {WriteRun({Pack(1)}, both), WriteRun({Pack(2)}, both),
                         WriteRun({Pack(2)}, only)};
  auto index = Open();
  for (const Id& id : only) {
    ASSERT_TRUE(index->Find(id));
    EXPECT_EQ(index->pack_name(index->Find(id)->pack), Pack(2));
    EXPECT_FALSE(index->Rely(id));
  }
  for (const Id& id : both) {
    ASSERT_TRUE(index->Find(id));
    EXPECT_EQ(index->pack_name(index->Find(id)->pack), Pack(1)) << "one that stays is preferred";
    EXPECT_TRUE(index->Rely(id));
  }
  EXPECT_EQ(index->ReliedPacks(), std::vector<PackName>{Pack(1)});
}

TEST_F(ChunkIndexTest, DamagedCopiesAreReadLastAndNotReliedOn) {
  const auto ids = Ids(10);
  listing_.packs = {Pack(1), Pack(2), Pack(3)};
  listing_.index_runs = {WriteRun({Pack(1)}, ids), WriteRun({Pack(2)}, ids),
                         WriteRun({Pack(3)}, ids)};
  listing_.condemned = {Pack(2)};
  // Records of one pack in two pieces, and all of another.
  listing_.damaged = {{Pack(1), false, {ids[0]}}, {Pack(3), true, {}}, {Pack(1), false, {ids[1]}}};
  auto index = Open();
  const auto order = [&](const Id& id) {
    std::vector<uint32_t> sequences;
    for (const ChunkPlace& place : index->FindAll(id)) {
      sequences.push_back(index->pack_name(place.pack).sequence);
    }
    EXPECT_EQ(index->pack_name(index->Find(id)->pack).sequence, sequences.at(0));
    return sequences;
  };
  EXPECT_EQ(order(ids[2]), (std::vector<uint32_t>{1, 2, 3}));
  // The whole copy is in a condemned pack: it is read, and not relied on.
  for (size_t i : {0, 1}) {
    EXPECT_EQ(order(ids[i]), (std::vector<uint32_t>{2, 3, 1}));
    EXPECT_FALSE(index->Rely(ids[i]));
    EXPECT_FALSE(index->RelyOnChunk(ids[i], 4096));
  }
  EXPECT_TRUE(index->Rely(ids[2]));
  EXPECT_EQ(index->ReliedPacks(), std::vector<PackName>{Pack(1)});
  EXPECT_TRUE(index->IsDamaged(0, ids[1]) && index->IsDamaged(2, ids[5]));
  EXPECT_FALSE(index->IsDamaged(0, ids[2]) || index->IsDamaged(1, ids[0]));
}

TEST_F(ChunkIndexTest, FindingIsNotRelying) {
  const auto ids = Ids(5);
  listing_.packs = {Pack(1)};
  listing_.index_runs = {WriteRun({Pack(1)}, ids)};
  auto index = Open();
  EXPECT_TRUE(index->Find(ids[0]));
  EXPECT_TRUE(index->ReliedPacks().empty());
}

TEST_F(ChunkIndexTest, ARunThatIsTakenInBringsItsPacksAndIsNotReliedOn) {
  const auto old_ids = Ids(10), new_ids = Ids(10);
  listing_.packs = {Pack(1)};
  listing_.index_runs = {WriteRun({Pack(1)}, old_ids)};
  auto index = Open();
  FIRN_ASSERT_OK(index->AddRun(WriteRun({Pack(9)}, new_ids)));
  for (const Id& id : new_ids) {
    ASSERT_TRUE(index->Find(id));
    EXPECT_EQ(index->pack_name(index->Find(id)->pack), Pack(9));
    EXPECT_TRUE(index->Rely(id));
  }
  EXPECT_TRUE(index->Rely(old_ids[0]));
  EXPECT_EQ(index->ReliedPacks(), std::vector<PackName>{Pack(1)}) << "only those listed count";
  EXPECT_EQ(index->entries(), 20u);
  EXPECT_EQ(index->AddRun("none.idx").code(), Code::kNotFound);
}

TEST_F(ChunkIndexTest, ADamagedOrMissingRunIsAnErrorThatNamesIt) {
  listing_.packs = {Pack(1)};
  listing_.index_runs = {WriteRun({Pack(1)}, Ids(10))};
  const std::string path = JoinPath(folder_ / "index", listing_.index_runs[0]);
  test::FlipBit(path, 8 * 30);
  const Status damaged = ChunkIndex::Open(fs_, listing_).status();
  EXPECT_EQ(damaged.code(), Code::kCorruptIndex);
  EXPECT_EQ(damaged.path(), path);
  std::filesystem::remove(path);
  EXPECT_EQ(ChunkIndex::Open(fs_, listing_).status().code(), Code::kNotFound);
}

TEST_F(ChunkIndexTest, LookupsGoOnWhileRunsAreTakenIn) {
  const auto known = Ids(500);
  listing_.packs = {Pack(0)};
  listing_.index_runs = {WriteRun({Pack(0)}, known)};
  auto index = Open();
  constexpr size_t kRuns = 40;
  std::vector<std::vector<Id>> later;
  std::vector<std::string> names;
  for (uint32_t i = 0; i < kRuns; ++i) {
    later.push_back(Ids(50));
    names.push_back(WriteRun({Pack(100 + i)}, later.back()));
  }
  std::atomic<size_t> added = 0;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      test::Random random(t);
      while (true) {
        const size_t sure = added;
        const Id& id = known[random.Below(known.size())];
        EXPECT_TRUE(index->Find(id));
        EXPECT_TRUE(index->Rely(id));
        EXPECT_FALSE(index->Find(random.Id()));
        if (sure > 0) {
          const size_t run = random.Below(sure);
          const auto place = index->Find(later[run][random.Below(50)]);
          ASSERT_TRUE(place);
          EXPECT_EQ(index->pack_name(place->pack).sequence, 100 + run);
        }
        if (sure == kRuns) return;
      }
    });
  }
  for (const std::string& name : names) {
    FIRN_EXPECT_OK(index->AddRun(name));
    ++added;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(index->ReliedPacks(), std::vector<PackName>{Pack(0)});
}

}  // namespace
}  // namespace firn
