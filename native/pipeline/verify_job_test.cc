#include "pipeline/verify_job.h"

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "codec/record.h"
#include "io/fault_file_system.h"
#include "pipeline/repair_job.h"
#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::DiskContent;
using test::Must;
using test::SmallTuning;
using test::TestRepository;

// Two points that share most of what they have.
class VerifyJobTest : public ::testing::Test {
 protected:
  VerifyJobTest() : first_(20 * kMiB), second_(20 * kMiB) {
    for (uint64_t page : {100, 101, 102, 300, 2100, 4100}) first_.Set(page, random_.Bytes(2000));
    second_ = first_;
    second_.Set(2100, random_.Bytes(2000));
    first_.WriteRaw(folder_ / "disk.raw");
    const auto one = repository_.Backup({folder_ / "disk.raw"});
    second_.WriteRaw(folder_ / "disk.raw");
    const auto two = repository_.Backup({folder_ / "disk.raw"});
    EXPECT_TRUE(test::IsOk(one.status) && test::IsOk(two.status));
    roots_ = {one.root(), two.root()};
    first_packs_ = one.result.packs;
  }

  std::string PathOf(const std::string& file) const { return JoinPath(repository_.root(), file); }
  VerifyResult Verify(bool read_data = true) {
    return Must(repository_.Verify(roots_, read_data, SmallTuning(1)));
  }
  // The roots that any problem names.
  static std::set<Id> Blamed(const VerifyResult& result) {
    std::set<Id> roots;
    for (const Problem& problem : result.problems) {
      roots.insert(problem.roots.begin(), problem.roots.end());
    }
    return roots;
  }
  // The roots that the problems of one record name.
  static std::set<Id> RootsOf(const VerifyResult& result, const Id& id) {
    std::set<Id> roots;
    for (const Problem& problem : result.problems) {
      if (problem.id == id) roots.insert(problem.roots.begin(), problem.roots.end());
    }
    return roots;
  }
  // Damages the stored bytes of a record, wherever it is.
  void Damage(const Id& id) {
    auto index = Must(ChunkIndex::Open(FileSystem::Default(), repository_.View().listing));
    const auto place = index->Find(id);
    ASSERT_TRUE(place);
    test::FlipBit(PathOf(index->pack_name(place->pack).RelativePath()),
                  (uint64_t{place->offset} + kRecordHeaderBytes + place->stored_length / 2) * 8);
  }
  MapReader* Maps() {
    index_ = Must(ChunkIndex::Open(FileSystem::Default(), repository_.View().listing));
    packs_ = std::make_unique<PackFiles>(FileSystem::Default(), repository_.root(), false);
    maps_ = std::make_unique<MapReader>(
        index_.get(), packs_.get(), RepositoryKeys(repository_.id_key()), repository_.chunking());
    return maps_.get();
  }
  MapNode NodeOf(const Id& root_id) {
    const MapRoot root = Must(Maps()->ReadRoot(root_id));
    return Must(Maps()->ReadNode(root.nodes.at(0).id));
  }

  test::TestFolder folder_;
  test::Random random_{201};
  DiskContent first_, second_;
  TestRepository repository_;
  std::vector<Id> roots_;
  std::vector<PackName> first_packs_;
  std::unique_ptr<ChunkIndex> index_;
  std::unique_ptr<PackFiles> packs_;
  std::unique_ptr<MapReader> maps_;
};

TEST_F(VerifyJobTest, FindsNothingWhereNothingIsWrong) {
  for (bool read_data : {false, true}) {
    const VerifyResult result = Verify(read_data);
    EXPECT_EQ(result.problem_count, 0u);
    EXPECT_GT(result.chunks, 0u);
    EXPECT_EQ(result.packs, read_data ? repository_.View().listing.packs.size() : 0u);
  }
}

TEST_F(VerifyJobTest, NoBitOfAPackOrAnIndexRunCanChangeUnnoticed) {
  for (const std::string& file : repository_.Files()) {
    const uint64_t bits = std::filesystem::file_size(PathOf(file)) * 8;
    std::vector<uint64_t> flips;
    for (int i = 0; i < 70; ++i) flips.push_back(random_.Below(bits));
    // Heads and tails, where the structure is.
    for (uint64_t i = 0; i < 25; ++i)
      flips.push_back(random_.Below(std::min<uint64_t>(bits, 1024)));
    for (uint64_t i = 0; i < 25; ++i)
      flips.push_back(bits - 1 - random_.Below(std::min<uint64_t>(bits, 1024)));
    for (uint64_t bit : flips) {
      test::FlipBit(PathOf(file), bit);
      const VerifyResult result = Verify();
      ASSERT_GT(result.problem_count, 0u) << file << " bit " << bit;
      ASSERT_TRUE(std::ranges::any_of(
          result.problems, [&](const Problem& problem) { return problem.object == file; }))
          << file << " bit " << bit << ": " << result.problems[0].status.ToString();
      test::FlipBit(PathOf(file), bit);
    }
  }
  EXPECT_EQ(Verify().problem_count, 0u);
}

TEST_F(VerifyJobTest, ADamagedChunkIsBlamedOnEveryRootThatNeedsIt) {
  const MapNode node = NodeOf(roots_[0]);
  const MapLeaf shared = Must(Maps()->ReadLeaf(node.leaves.at(0).id));
  const MapLeaf own = Must(Maps()->ReadLeaf(node.leaves.at(1).id));
  const auto first_chunk = [](const MapLeaf& leaf) {
    return std::ranges::find_if(leaf.runs, [](const LeafRun& run) { return !run.hole; })->id;
  };
  Damage(first_chunk(own));
  Damage(first_chunk(shared));
  const VerifyResult result = Verify();
  EXPECT_EQ(RootsOf(result, first_chunk(own)), std::set<Id>{roots_[0]});
  EXPECT_EQ(RootsOf(result, first_chunk(shared)), std::set<Id>(roots_.begin(), roots_.end()));
  for (const Problem& problem : result.problems) {
    if (!problem.id) continue;
    EXPECT_EQ(problem.status.code(), Code::kCorruptChunk);
    EXPECT_TRUE(problem.status.data_loss());
    EXPECT_FALSE(problem.object.empty());
  }
}

TEST_F(VerifyJobTest, ADamagedMapObjectIsBlamedOnEveryRootThatNeedsIt) {
  // The leaf of a segment that both points have, and a root, which is one point's alone.
  const Id leaf = NodeOf(roots_[0]).leaves.at(0).id;
  ASSERT_EQ(NodeOf(roots_[1]).leaves.at(0).id, leaf);
  const Id node = Must(Maps()->ReadRoot(roots_[0])).nodes.at(0).id;
  for (bool read_data : {false, true}) {
    Damage(leaf);
    EXPECT_EQ(RootsOf(Verify(read_data), leaf), std::set<Id>(roots_.begin(), roots_.end()));
    Damage(leaf);
    Damage(node);
    EXPECT_EQ(RootsOf(Verify(read_data), node), std::set<Id>{roots_[0]});
    Damage(node);
    Damage(roots_[1]);
    EXPECT_EQ(RootsOf(Verify(read_data), roots_[1]), std::set<Id>{roots_[1]});
    Damage(roots_[1]);
    ASSERT_EQ(Verify().problem_count, 0u);
  }
}

TEST_F(VerifyJobTest, DamageBehindDamageIsFoundToo) {
  const MapNode node = NodeOf(roots_[0]);
  const MapLeaf last = Must(Maps()->ReadLeaf(node.leaves.at(2).id));
  const Id chunk =
      std::ranges::find_if(last.runs, [](const LeafRun& run) { return !run.hole; })->id;
  Damage(chunk);
  Damage(node.leaves.at(0).id);  // before it in both maps
  EXPECT_EQ(RootsOf(Verify(), chunk), std::set<Id>(roots_.begin(), roots_.end()));
}

TEST_F(VerifyJobTest, AMissingPackIsBlamedOnTheRootsThatNeedIt) {
  for (const PackName& pack : first_packs_) {
    const std::string path = PathOf(pack.RelativePath());
    std::filesystem::rename(path, path + ".partial");
    for (bool read_data : {false, true}) {
      const VerifyResult result = Verify(read_data);
      EXPECT_GT(result.problem_count, 0u);
      EXPECT_EQ(Blamed(result), std::set<Id>(roots_.begin(), roots_.end())) << pack.ToString();
    }
    // Listed, but gone since.
    VerifyOptions options{repository_.View(), roots_, false};
    options.repository.listing.packs.push_back(pack);
    VerifyJob job(FileSystem::Default(), SmallTuning(1), std::move(options));
    FIRN_ASSERT_OK(job.Run());
    EXPECT_EQ(Blamed(job.result()), std::set<Id>(roots_.begin(), roots_.end()));
    EXPECT_TRUE(std::ranges::any_of(job.result().problems, [&](const Problem& problem) {
      return problem.object == pack.RelativePath();
    }));
    std::filesystem::rename(path + ".partial", path);
  }
}

TEST_F(VerifyJobTest, ATruncatedPackIsNamed) {
  for (const PackName& pack : repository_.View().listing.packs) {
    const std::string path = PathOf(pack.RelativePath());
    const test::Bytes whole = test::ReadWholeFile(path);
    for (uint64_t length :
         {uint64_t{0}, uint64_t{100}, uint64_t{4096}, whole.size() - 4096, whole.size() - 1}) {
      test::WriteWholeFile(path, std::span(whole).first(length));
      for (bool read_data : {false, true}) {
        const VerifyResult result = Verify(read_data);
        EXPECT_TRUE(std::ranges::any_of(result.problems, [&](const Problem& problem) {
          return problem.object == pack.RelativePath();
        })) << length;
      }
    }
    test::WriteWholeFile(path, whole);
  }
}

TEST_F(VerifyJobTest, AMissingChunkIsAProblemAlsoWithoutReadingData) {
  VerifyOptions options{repository_.View(), roots_, false};
  // The second run's index alone: what the first point brought is unknown.
  std::erase_if(options.repository.listing.index_runs, [&](const std::string& name) {
    return name.starts_with(ToHex(first_packs_[0].run));
  });
  VerifyJob job(FileSystem::Default(), SmallTuning(1), std::move(options));
  FIRN_ASSERT_OK(job.Run());
  EXPECT_EQ(Blamed(job.result()), std::set<Id>(roots_.begin(), roots_.end()));
  for (const Problem& problem : job.result().problems) {
    EXPECT_EQ(problem.status.code(), Code::kChunkMissing) << problem.status.ToString();
  }
}

TEST_F(VerifyJobTest, AReadThatFailsIsNeverPassedOver) {
  for (bool persistent : {false, true}) {
    for (uint64_t n = 1;; ++n) {
      ASSERT_LT(n, 400u);
      FaultFileSystem fs(FileSystem::Default(), {.kind = FaultPlan::Kind::kRead,
                                                 .fail_at = n,
                                                 .persistent = persistent,
                                                 .code = Code::kRead});
      // Buffered: a second handle that can't be opened is rightly done without.
      VerifyJob job(fs, SmallTuning(1 + n % 2, IoBackend::kAuto, IoMode::kBuffered),
                    {repository_.View(), roots_, true});
      const Status status = job.Run();
      if (!fs.fired()) break;
      EXPECT_TRUE(!status.ok() || job.result().problem_count > 0) << "call " << n;
    }
  }
}

// A stripe that can't be read hides its own records and no other's.
TEST_F(VerifyJobTest, TheRecordsBehindAnUnreadableStripeAreStillLookedAt) {
  TestRepository repository(
      5, {.fixed = true, .min_pages = 256, .average_pages = 256, .max_pages = 256});
  DiskContent content(12 * kMiB);
  for (uint64_t page = 0; page < content.page_count(); ++page) {
    content.Set(page, random_.Bytes(kPageBytes));
  }
  content.WriteRaw(folder_ / "large.raw");
  const auto backup = repository.Backup({folder_ / "large.raw"}, SmallTuning(1));
  FIRN_ASSERT_OK(backup.status);
  const PackName data = backup.result.packs.front();
  const std::string path = JoinPath(repository.root(), data.RelativePath());
  const PackTable table = Must(ReadPackTable(Must(FileSystem::Default().Open(path, {})).get()));
  ASSERT_GT(table.stripes.size(), 2u);
  const PackRecord& last = table.records.back();
  test::FlipBit(path, (uint64_t{last.offset} + kRecordHeaderBytes + 100) * 8);
  bool unreadable_stripe = false;
  for (uint64_t n = 1;; ++n) {
    FaultFileSystem fs(FileSystem::Default(),
                       {.kind = FaultPlan::Kind::kRead, .fail_at = n, .code = Code::kRead});
    VerifyOptions options{repository.View(), {}, true};
    VerifyJob job(fs, SmallTuning(1, IoBackend::kAuto, IoMode::kBuffered), std::move(options));
    const Status status = job.Run();
    if (!fs.fired()) break;
    const auto& problems = job.result().problems;
    const bool in_stripe = status.ok() && std::ranges::any_of(problems, [&](const Problem& one) {
                             // Reads of the table name no offset.
                             return one.status.code() == Code::kRead && one.status.offset() &&
                                    *one.status.offset() < table.stripes.back().offset;
                           });
    if (!in_stripe) continue;
    unreadable_stripe = true;
    EXPECT_TRUE(
        std::ranges::any_of(problems, [&](const Problem& one) { return one.id == last.id; }))
        << "call " << n;
  }
  EXPECT_TRUE(unreadable_stripe);
}

TEST_F(VerifyJobTest, CancellingAtAnyMomentEndsCleanly) {
  for (IoBackend backend : {IoBackend::kAuto, IoBackend::kThreads}) {
    for (int i = 0; i < 30; ++i) {
      VerifyJob job(FileSystem::Default(), SmallTuning(2, backend),
                    {repository_.View(), roots_, true});
      std::thread canceller([&] {
        std::this_thread::sleep_for(std::chrono::microseconds(random_.Below(1500)));
        job.Cancel();
      });
      const Status status = job.Run();
      canceller.join();
      EXPECT_TRUE(status.ok() || status.code() == Code::kAborted) << status.ToString();
    }
  }
}

class RepairJobTest : public VerifyJobTest {
 protected:
  RepairResult Repair() {
    RepairOptions options;
    options.repository = repository_.View();
    random_.Fill(options.run);
    RepairJob job(FileSystem::Default(), SmallTuning(), std::move(options));
    FIRN_EXPECT_OK(job.Run());
    return job.result();
  }
  void DropIndexRuns(const std::vector<std::string>& keep) {
    for (const std::string& name : repository_.View().listing.index_runs) {
      if (std::ranges::find(keep, name) != keep.end()) continue;
      std::filesystem::remove(PathOf("index/" + name));
    }
  }
};

TEST_F(RepairJobTest, AnIndexMadeFromPacksAloneRestoresEverything) {
  DropIndexRuns({});
  EXPECT_EQ(repository_.Restore(roots_[0], folder_ / "back.raw", first_.bytes()).code(),
            Code::kChunkMissing);
  const RepairResult result = Repair();
  EXPECT_TRUE(result.problems.empty());
  EXPECT_EQ(result.packs, repository_.View().listing.packs.size());
  EXPECT_EQ(result.index_runs, repository_.View().listing.index_runs);
  EXPECT_EQ(repository_.RestoreDifference(roots_[0], first_), "");
  EXPECT_EQ(repository_.RestoreDifference(roots_[1], second_), "");
  EXPECT_EQ(repository_.Problems(roots_), "");
}

TEST_F(RepairJobTest, PacksWithoutTheirFooterAreScanned) {
  for (const PackName& pack : repository_.View().listing.packs) {
    const std::string path = PathOf(pack.RelativePath());
    test::FlipBit(path, (std::filesystem::file_size(path) - 40) * 8);
  }
  const RepairResult result = Repair();
  EXPECT_EQ(result.problems.size(), repository_.View().listing.packs.size());
  DropIndexRuns(result.index_runs);
  EXPECT_EQ(repository_.RestoreDifference(roots_[0], first_), "");
  EXPECT_EQ(repository_.RestoreDifference(roots_[1], second_), "");
}

TEST_F(RepairJobTest, APackThatIsGoneIsNamedAndTheOthersAreIndexed) {
  RepairOptions options;
  options.repository = repository_.View();
  const PackName gone{{9}, 0, 0};
  options.repository.listing.packs.push_back(gone);
  random_.Fill(options.run);
  RepairJob job(FileSystem::Default(), SmallTuning(), std::move(options));
  FIRN_ASSERT_OK(job.Run());
  ASSERT_EQ(job.result().problems.size(), 1u);
  EXPECT_EQ(job.result().problems[0].object, gone.RelativePath());
  DropIndexRuns(job.result().index_runs);
  EXPECT_EQ(repository_.RestoreDifference(roots_[1], second_), "");
}

}  // namespace
}  // namespace firn
