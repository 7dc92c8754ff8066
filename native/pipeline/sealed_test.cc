// Jobs on a sealed repository: backup, restore, verify, collection, scrub; and what is refused.
#include <filesystem>
#include <fstream>
#include <set>

#include "codec/seal.h"
#include "pack/pack_reader.h"
#include "pack/pack_test_util.h"
#include "pipeline/collect_mark.h"
#include "pipeline/collect_rescue.h"
#include "pipeline/repair_job.h"
#include "pipeline/repository_test_util.h"
#include "pipeline/scrub_job.h"

namespace firn {
namespace {

using namespace test;
namespace fs = std::filesystem;

class SealedTest : public ::testing::Test {
 protected:
  SealedTest() : keys_(Keys(random_.Id())) {
    repository_.SealWith(keys_);
    content_.Scatter(&random_, 60);
    content_.WriteRaw(image());
  }

  static std::shared_ptr<const SealKeys> Keys(const Key& run_key) {
    SealKeys::Options options;
    options.run_key = run_key;
    return std::make_shared<SealKeys>(std::move(options));
  }
  std::string image() const { return folder_ / "disk.raw"; }
  Id BackUp() {
    const auto outcome = repository_.Backup({image()});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.ToString();
    return outcome.root();
  }
  std::vector<RecordHeader> Headers() const {
    std::vector<RecordHeader> headers;
    for (const PackName& name : repository_.View().listing.packs) {
      auto file = OpenToRead(JoinPath(repository_.root(), name.RelativePath()));
      for (const PackRecord& record : Must(ReadPackTable(file.get())).records) {
        uint8_t bytes[kRecordHeaderBytes];
        Must(file->ReadAt(record.offset, bytes));
        headers.push_back(Must(RecordHeader::Decode(bytes)));
      }
    }
    return headers;
  }
  static void Flip(const std::string& path, uint64_t offset, uint8_t mask) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const auto byte = static_cast<char>(file.get() ^ mask);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  TestFolder folder_;
  Random random_{7};
  TestRepository repository_;
  std::shared_ptr<const SealKeys> keys_;
  DiskContent content_{24 * kMiB};
};

TEST_F(SealedTest, ADiskComesBackAsItWasAndEverythingVerifies) {
  const Id root = BackUp();
  EXPECT_EQ(repository_.RestoreDifference(root, content_), "");
  EXPECT_EQ(repository_.Problems({root}), "");
}

TEST_F(SealedTest, ASecondBackupFindsAllChunksOfTheFirst) {
  const Id root = BackUp();
  const auto second = repository_.Backup({image()});
  EXPECT_EQ(second.root(), root);
  EXPECT_EQ(second.stats.new_chunks, 0u);
}

TEST_F(SealedTest, EveryRecordIsSealedUnderANonceOfItsOwn) {
  BackUp();
  std::set<uint64_t> nonces;
  const std::vector<RecordHeader> headers = Headers();
  for (const RecordHeader& header : headers) {
    EXPECT_TRUE(header.is_sealed());
    nonces.insert(header.nonce);
  }
  EXPECT_GT(headers.size(), 10u);
  EXPECT_EQ(nonces.size(), headers.size());
}

TEST_F(SealedTest, WithAnotherKeyNothingIsRead) {
  const Id root = BackUp();
  repository_.SealWith(Keys(random_.Id()));
  const Status status =
      repository_.Restore(root, folder_ / "out.raw", content_.bytes(), Identity(DiskFormat::kRaw));
  EXPECT_EQ(status.code(), Code::kTampered);
}

TEST_F(SealedTest, AnIndexRunThatSomebodyChangedIsNotBelieved) {
  const Id root = BackUp();
  const std::string run = repository_.View().listing.index_runs.at(0);
  const std::string path = JoinPath(JoinPath(repository_.root(), "index"), run);
  Flip(path, fs::file_size(path) / 2, 1);
  const Status status =
      repository_.Restore(root, folder_ / "out.raw", content_.bytes(), Identity(DiskFormat::kRaw));
  EXPECT_EQ(status.code(), Code::kTampered);
}

TEST_F(SealedTest, AnIndexRunOfAStrangerIsNotBelievedThoughItsPlainHashIsRight) {
  const Id root = BackUp();
  const RepositoryView view = repository_.View();
  const std::string path =
      JoinPath(JoinPath(repository_.root(), "index"), view.listing.index_runs.at(0));
  auto run = Must(IndexRun::Open(FileSystem::Default(), path, view.listing.index_key));
  std::vector<IndexEntry> entries;
  for (uint64_t i = 0; i < run->entries(); ++i) entries.push_back(run->Entry(i));
  const std::vector<IndexPack> packs = run->packs();
  run.reset();
  fs::remove(path);
  Must(WriteIndexRun(FileSystem::Default(), path, packs, &entries));
  EXPECT_EQ(
      repository_.Restore(root, folder_ / "out.raw", content_.bytes(), Identity(DiskFormat::kRaw))
          .code(),
      Code::kTampered);
}

TEST_F(SealedTest, APackUnderTheNameOfAnotherIsNamedByAVerification) {
  const Id root = BackUp();
  const std::vector<PackName> packs = repository_.View().listing.packs;
  ASSERT_GE(packs.size(), 2u);
  const auto path = [&](size_t i) {
    return fs::path(repository_.root()) / packs[i].RelativePath();
  };
  fs::rename(path(0), folder_ / "aside");
  fs::rename(path(1), path(0));
  fs::rename(folder_ / "aside", path(1));
  const VerifyResult result = Must(repository_.Verify({root}));
  EXPECT_TRUE(std::ranges::any_of(result.problems, [](const Problem& problem) {
    return problem.status.code() == Code::kSwapped;
  }));
}

TEST_F(SealedTest, CollectionSealsWhatItMovesUnderItsOwnRun) {
  const Id root = BackUp();
  MarkOptions mark;
  mark.repository = repository_.View();
  mark.roots = {root};
  MarkJob marking(FileSystem::Default(), SmallTuning(), mark);
  Must(marking.Run());
  RescueOptions options;
  options.root = repository_.root();
  options.chunking = repository_.chunking();
  options.index_key = mark.repository.listing.index_key;
  options.seal = keys_;
  options.live = marking.live();
  options.victims = mark.repository.listing.packs;
  random_.Fill(options.run);
  RescueJob rescue(FileSystem::Default(), SmallTuning(), options);
  Must(rescue.Run());
  EXPECT_TRUE(rescue.result().damaged.empty());
  for (const PackName& pack : options.victims) {
    fs::remove(fs::path(repository_.root()) / pack.RelativePath());
  }
  EXPECT_EQ(repository_.RestoreDifference(root, content_), "");
  std::set<uint64_t> nonces;
  const std::vector<RecordHeader> headers = Headers();
  for (const RecordHeader& header : headers) nonces.insert(header.nonce);
  EXPECT_EQ(nonces.size(), headers.size());
}

TEST_F(SealedTest, AWriteOnlyKeyAddsAndItsRunCanBeReadByWhoIsToldItsKey) {
  SealKeys::Options own;
  auto options = repository_.Options({image()});
  const Key run_key = random_.Id();
  own.runs[options.run] = {.key = run_key, .public_tail = {1, 2, 3}};
  const auto write_only = std::make_shared<SealKeys>(own);
  options.repository.seal = write_only;
  const auto outcome = TestRepository::Run(std::move(options));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  // Its stripes say what the run's key is found with.
  const PackName pack = repository_.View().listing.packs.at(0);
  uint8_t header[kStripeHeaderBytes];
  Must(OpenToRead(JoinPath(repository_.root(), pack.RelativePath()))->ReadAt(0, header));
  EXPECT_EQ(Must(StripeHeader::Decode(header)).public_tail, (std::array<uint8_t, 16>{1, 2, 3}));

  SealKeys::Options none;
  repository_.SealWith(std::make_shared<SealKeys>(none));
  EXPECT_EQ(repository_
                .Restore(outcome.root(), folder_ / "out.raw", content_.bytes(),
                         Identity(DiskFormat::kRaw))
                .code(),
            Code::kKeyWriteOnly);

  SealKeys::Options reader;
  reader.run_key = random_.Id();
  reader.runs = own.runs;
  repository_.SealWith(std::make_shared<SealKeys>(reader));
  EXPECT_EQ(repository_.RestoreDifference(outcome.root(), content_), "");
}

TEST_F(SealedTest, TheIndexIsMadeAgainFromPacks) {
  const Id root = BackUp();
  RepositoryView view = repository_.View();
  for (const std::string& run : view.listing.index_runs) {
    fs::remove(fs::path(repository_.root()) / "index" / run);
  }
  view.listing.index_runs.clear();
  RepairOptions options;
  options.repository = view;
  random_.Fill(options.run);
  RepairJob repair(FileSystem::Default(), SmallTuning(), options);
  Must(repair.Run());
  EXPECT_EQ(repository_.RestoreDifference(root, content_), "");
}

class LockedScrubTest : public SealedTest {
 protected:
  ScrubResult Scrub(std::optional<PackName> pack = std::nullopt) {
    SealKeys::Options options;
    options.locked = true;
    repository_.SealWith(std::make_shared<SealKeys>(std::move(options)));
    ScrubOptions scrub;
    scrub.repository = repository_.View();
    scrub.repository.listing.index_runs.clear();
    scrub.packs = pack ? std::vector{*pack} : scrub.repository.listing.packs;
    ScrubJob job(FileSystem::Default(), SmallTuning(), scrub);
    Must(job.Run());
    return job.result();
  }
};

TEST_F(LockedScrubTest, WholePacksAreSoundWithoutAnyKey) {
  BackUp();
  const ScrubResult result = Scrub();
  EXPECT_FALSE(result.packs.empty());
  EXPECT_EQ(result.problem_count, 0u);
}

TEST_F(LockedScrubTest, AFlippedBitAnywhereInAPackIsFoundWithoutAnyKey) {
  BackUp();
  // The smaller one: map objects.
  PackName pack;
  std::string path;
  uint64_t bytes = ~uint64_t{0};
  for (const PackName& name : repository_.View().listing.packs) {
    const std::string candidate = JoinPath(repository_.root(), name.RelativePath());
    if (fs::file_size(candidate) >= bytes) continue;
    bytes = fs::file_size(candidate);
    path = candidate;
    pack = name;
  }
  for (uint64_t offset = 0; offset < bytes; offset += 97) {
    const auto mask = static_cast<uint8_t>(1 << (offset % 8));
    Flip(path, offset, mask);
    EXPECT_GT(Scrub(pack).problem_count, 0u) << "byte " << offset;
    Flip(path, offset, mask);
  }
}

}  // namespace
}  // namespace firn
