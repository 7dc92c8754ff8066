#include "pipeline/scrub_job.h"

#include <array>
#include <chrono>
#include <set>
#include <thread>

#include "io/fault_file_system.h"
#include "pipeline/repository_test_util.h"
#include "pipeline/trace_job.h"

namespace firn {
namespace {

using test::DiskContent;
using test::Must;
using test::SmallTuning;
using test::TestRepository;

// One point of incompressible pages, so that every record has its place to itself.
class ScrubJobTest : public ::testing::Test {
 protected:
  ScrubJobTest() : content_(20 * kMiB) {
    for (uint64_t page : {100, 101, 300, 2100, 4100}) content_.Set(page, random_.Bytes(kPageBytes));
    content_.WriteRaw(folder_ / "disk.raw");
    root_ = Backup();
  }

  // Backs the disk up with what is known of damage; its root.
  Id Backup(const std::vector<PackDamage>& damaged = {}) {
    BackupOptions options = repository_.Options({folder_ / "disk.raw"});
    options.repository.listing.damaged = damaged;
    const auto outcome = TestRepository::Run(std::move(options));
    FIRN_EXPECT_OK(outcome.status);
    return outcome.root();
  }
  ScrubOptions Options() const {
    ScrubOptions options;
    options.repository = repository_.View();
    options.packs = options.repository.listing.packs;
    return options;
  }
  ScrubResult Scrub(ScrubOptions options, FileSystem& fs = FileSystem::Default()) const {
    ScrubJob job(fs, SmallTuning(1, IoBackend::kAuto, IoMode::kBuffered), std::move(options));
    FIRN_EXPECT_OK(job.Run());
    return job.result();
  }
  std::string PathOf(const PackName& pack) const {
    return JoinPath(repository_.root(), pack.RelativePath());
  }
  PackTable TableOf(const PackName& pack) const {
    return Must(ReadPackTable(Must(FileSystem::Default().Open(PathOf(pack), {})).get()));
  }
  PackName PackOfClass(RecordClass record_class) const {
    for (const PackName& pack : repository_.View().listing.packs) {
      if (TableOf(pack).records.at(0).record_class == record_class) return pack;
    }
    ADD_FAILURE() << "no such pack";
    return {};
  }
  void Damage(const PackName& pack, const PackRecord& record) {
    test::FlipBit(PathOf(pack), (uint64_t{record.offset} + kRecordHeaderBytes + 3) * 8);
  }

  test::TestFolder folder_;
  test::Random random_{77};
  DiskContent content_;
  TestRepository repository_;
  Id root_{};
};

TEST_F(ScrubJobTest, ReadsEachPackAndFindsASoundOneSound) {
  const ScrubResult result = Scrub(Options());
  ASSERT_EQ(result.packs.size(), 2u);
  EXPECT_EQ(result.problem_count, 0u);
  for (const ScrubbedPack& pack : result.packs) {
    EXPECT_TRUE(pack.is_sound && !pack.gone && !pack.whole && pack.damaged.empty());
    EXPECT_EQ(pack.bytes, std::filesystem::file_size(PathOf(pack.name)));
  }
}

TEST_F(ScrubJobTest, NamesEachDamagedRecordAndNoOther) {
  const PackName pack = PackOfClass(RecordClass::kChunk);
  const PackTable table = TableOf(pack);
  ASSERT_GE(table.records.size(), 3u);
  Damage(pack, table.records[0]);
  // And one that has lost its header.
  test::FlipBit(PathOf(pack), uint64_t{table.records[2].offset} * 8);
  const ScrubResult result = Scrub(Options());
  std::set<Id> damaged;
  for (const ScrubbedPack& row : result.packs) {
    EXPECT_EQ(row.is_sound, row.name != pack);
    damaged.insert(row.damaged.begin(), row.damaged.end());
  }
  EXPECT_EQ(damaged, (std::set<Id>{table.records[0].id, table.records[2].id}));
}

TEST_F(ScrubJobTest, WithoutItsTableAPackIsReadByWhatTheIndexSays) {
  const PackName pack = PackOfClass(RecordClass::kChunk);
  const PackTable table = TableOf(pack);
  Damage(pack, table.records[1]);
  test::FlipBit(PathOf(pack), (table.file_bytes - 50) * 8);
  const ScrubResult result = Scrub(Options());
  for (const ScrubbedPack& row : result.packs) {
    if (row.name != pack) continue;
    EXPECT_FALSE(row.is_sound || row.whole);
    EXPECT_EQ(row.damaged, std::vector<Id>{table.records[1].id});
  }
}

TEST_F(ScrubJobTest, AFailureThatDoesNotComeBackIsNoDamage) {
  size_t fired = 0;
  for (uint64_t n = 1; n < 60; ++n) {
    FaultFileSystem fs(
        FileSystem::Default(),
        {.kind = FaultPlan::Kind::kRead, .fail_at = n, .persistent = false, .code = Code::kRead});
    ScrubJob job(fs, SmallTuning(1, IoBackend::kAuto, IoMode::kBuffered), Options());
    const Status status = job.Run();
    if (!fs.fired()) break;
    ++fired;
    if (!status.ok()) continue;
    for (const ScrubbedPack& pack : job.result().packs) EXPECT_TRUE(pack.is_sound) << "call " << n;
  }
  EXPECT_GT(fired, 3u);
}

TEST_F(ScrubJobTest, APackThatACollectionDeletedIsPassedOver) {
  ScrubOptions options = Options();
  options.packs.push_back(PackName{{9}, 0, 0});
  options.repository.listing.packs.push_back(options.packs.back());
  const ScrubResult result = Scrub(std::move(options));
  EXPECT_EQ(result.problem_count, 0u);
  ASSERT_EQ(result.packs.size(), 3u);
  EXPECT_TRUE(result.packs.back().gone);
}

TEST_F(ScrubJobTest, WhenTheTimeIsUpNoPackIsBegunAndTheOrderIsKept) {
  ScrubOptions options = Options();
  std::swap(options.packs[0], options.packs[1]);
  const PackName first = options.packs[0];
  // More than can be read in that time.
  options.packs.resize(5000, options.packs[1]);
  options.stop_after_ms = 5;
  const ScrubResult result = Scrub(std::move(options));
  ASSERT_GE(result.packs.size(), 1u);
  EXPECT_LT(result.packs.size(), 5000u);
  EXPECT_EQ(result.packs[0].name, first);
}

TEST_F(ScrubJobTest, CancellingKeepsWhatIsDone) {
  ScrubOptions options = Options();
  // Far more than is read until it is cancelled, however late that comes.
  options.packs.resize(100'000, options.packs[0]);
  Tuning tuning = SmallTuning(1);
  tuning.bytes_per_second = 128 * kKiB;
  ScrubJob job(FileSystem::Default(), tuning, std::move(options));
  std::thread canceller([&] {
    while (job.stats().done_bytes == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    job.Cancel();
  });
  FIRN_EXPECT_OK(job.Run());
  canceller.join();
  ASSERT_GE(job.result().packs.size(), 1u);
  EXPECT_LT(job.result().packs.size(), 100'000u);
  for (const ScrubbedPack& pack : job.result().packs) EXPECT_TRUE(pack.is_sound);
}

TEST_F(ScrubJobTest, ADamagedCopyIsNotReliedOnAndTheNextBackupHeals) {
  const PackName pack = PackOfClass(RecordClass::kChunk);
  const PackRecord record = TableOf(pack).records[1];
  Damage(pack, record);
  EXPECT_NE(repository_.RestoreDifference(root_, content_), "");
  // Unknown, it is relied on as before.
  EXPECT_EQ(Backup(), root_);
  EXPECT_NE(repository_.RestoreDifference(root_, content_), "");
  EXPECT_EQ(Backup({{.pack = pack, .whole = false, .ids = {record.id}}}), root_);
  // Whoever does not know of the damage finds the other copy all the same.
  EXPECT_EQ(repository_.RestoreDifference(root_, content_), "");
  ASSERT_EQ(repository_.View().listing.packs.size(), 3u);
}

TEST_F(ScrubJobTest, ADamagedMapObjectIsReadFromItsOtherCopy) {
  const PackName pack = PackOfClass(RecordClass::kMap);
  for (const PackRecord& record : TableOf(pack).records) Damage(pack, record);
  EXPECT_NE(repository_.RestoreDifference(root_, content_), "");
  EXPECT_EQ(Backup({{.pack = pack, .whole = true, .ids = {}}}), root_);
  EXPECT_EQ(repository_.RestoreDifference(root_, content_), "");
}

TEST_F(ScrubJobTest, APackThatIsGoneIsDoneWithoutWhereAnotherHasItsRecords) {
  const PackName pack = PackOfClass(RecordClass::kChunk);
  Backup({{.pack = pack, .whole = true, .ids = {}}});
  RestoreOptions options = repository_.RestoreOptionsFor(root_, folder_ / "back.raw", 20 * kMiB,
                                                         test::Identity(DiskFormat::kRaw));
  // The old index run comes first where only it was listed when the pack was there.
  std::filesystem::remove(PathOf(pack));
  FIRN_EXPECT_OK(RestoreJob(FileSystem::Default(), SmallTuning(), std::move(options)).Run());
  EXPECT_EQ(test::ImageDifference(folder_ / "back.raw", content_), "");
}

TEST_F(ScrubJobTest, ATraceSaysWhichBytesARecordCosts) {
  const PackName pack = PackOfClass(RecordClass::kChunk);
  const PackTable table = TableOf(pack);
  Damage(pack, table.records[0]);
  TraceOptions options;
  options.repository = repository_.View();
  options.roots = {root_};
  for (const PackRecord& record : table.records) options.ids.push_back(record.id);
  TraceJob job(FileSystem::Default(), SmallTuning(1), options);
  FIRN_ASSERT_OK(job.Run());
  ASSERT_EQ(job.records().size(), table.records.size());
  for (size_t i = 1; i < job.records().size(); ++i) {
    EXPECT_TRUE(job.records()[i].is_readable);
    EXPECT_TRUE(job.records()[i].losses.empty());
  }
  const TracedRecord& lost = job.records()[0];
  EXPECT_FALSE(lost.is_readable);
  ASSERT_EQ(lost.losses.size(), 1u);
  EXPECT_EQ(lost.losses[0].root, root_);
  EXPECT_EQ(lost.losses[0].bytes, table.records[0].raw_length);
  ASSERT_EQ(lost.losses[0].ranges.size(), 1u);
  // What lies there in the disk is what the record held.
  const auto [offset, length] = lost.losses[0].ranges[0];
  const RepositoryKeys keys(repository_.id_key());
  EXPECT_EQ(Blake3Keyed(keys.chunk, content_.Read(offset, length)), lost.id);
}

TEST_F(ScrubJobTest, ATraceOfALostMapObjectNamesWhatItMaps) {
  const PackName pack = PackOfClass(RecordClass::kMap);
  // Workers write leaves in any order, so each object below the root is lost in turn.
  std::set<std::array<uint64_t, 3>> lost;  // offset, length, bytes of data
  for (const PackRecord& record : TableOf(pack).records) {
    if (record.id == root_) continue;
    TraceOptions options;
    options.repository = repository_.View();
    options.roots = {root_};
    options.ids = {record.id};
    Damage(pack, record);
    TraceJob job(FileSystem::Default(), SmallTuning(1), options);
    FIRN_ASSERT_OK(job.Run());
    Damage(pack, record);  // mended again
    const std::vector<TracedLoss>& losses = job.records()[0].losses;
    ASSERT_EQ(losses.size(), 1u);
    ASSERT_EQ(losses[0].ranges.size(), 1u);
    lost.insert({losses[0].ranges[0].offset, losses[0].ranges[0].length, losses[0].bytes});
  }
  const uint64_t segment = kSegmentBytes;
  EXPECT_EQ(lost, (std::set<std::array<uint64_t, 3>>{
                      {0, segment, 3 * kPageBytes},
                      {segment, segment, kPageBytes},
                      {2 * segment, 20 * kMiB - 2 * segment, kPageBytes},
                      {0, 20 * kMiB, 5 * kPageBytes},  // the node that names all three
                  }));
}

}  // namespace
}  // namespace firn
