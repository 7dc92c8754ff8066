// Incremental backups over real images: whatever happened to the disk since, the root is that of a
// full backup, little is read, and the packs that the point needs are all named.
#include <functional>
#include <set>

#include "pipeline/reference_map_test_util.h"
#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::Bytes;
using test::DiskContent;
using test::Identity;
using test::Must;
using test::SmallTuning;
using test::TestRepository;

using Ranges = std::vector<ChangedRange>;

constexpr ChunkingParameters kSmallChunks{.min_pages = 4, .average_pages = 8, .max_pages = 32};
constexpr ChunkingParameters kFixed{
    .fixed = true, .min_pages = 16, .average_pages = 16, .max_pages = 16};

class IncrementalTest : public ::testing::Test {
 protected:
  std::string path() const { return folder_ / "disk.raw"; }

  TestRepository::BackupOutcome Incremental(TestRepository* repository, const std::string& image,
                                            const Id& base, const Ranges& changed,
                                            const Tuning& tuning = SmallTuning()) {
    BackupOptions options = repository->Options({image});
    options.disks[0].base = BackupBase{base, changed};
    return TestRepository::Run(std::move(options), tuning);
  }
  static Id Reference(const TestRepository& repository, const DiskContent& content) {
    return test::ReferenceRoot(content, repository.chunking(), repository.id_key());
  }
  DiskContent Full(uint64_t bytes) {
    DiskContent content(bytes);
    for (uint64_t page = 0; page < content.page_count(); ++page) {
      content.Set(page, random_.Bytes(kPageBytes));
    }
    return content;
  }
  // One page of the content and of the raw image.
  void Overwrite(DiskContent* content, uint64_t page) {
    content->Set(page, random_.Bytes(kPageBytes));
    auto file = Must(FileSystem::Default().Open(path(), {.access = Access::kReadWrite}));
    Must(file->WriteAt(page * kPageBytes, content->pages().at(page)));
  }
  static ChangedRange PageRange(uint64_t page, uint64_t pages = 1) {
    return {page * kPageBytes, pages * kPageBytes};
  }

  test::TestFolder folder_;
  test::Random random_{401};
};

// The packs of every record that a map needs.
std::set<PackName> PacksOf(const TestRepository& repository, const Id& root) {
  const RepositoryView view = repository.View();
  auto index = Must(ChunkIndex::Open(FileSystem::Default(), view.listing));
  PackFiles packs(FileSystem::Default(), view.listing.root, false);
  const RepositoryKeys keys(repository.id_key());
  MapReader maps(index.get(), &packs, keys, view.chunking);
  std::set<PackName> names;
  const auto add = [&](const Id& id) { names.insert(index->pack_name(index->Find(id)->pack)); };
  add(root);
  for (const MapRoot::Node& node : Must(maps.ReadRoot(root)).nodes) {
    add(node.id);
    for (const MapNode::Leaf& leaf : Must(maps.ReadNode(node.id)).leaves) {
      add(leaf.id);
      for (const LeafRun& run : Must(maps.ReadLeaf(leaf.id)).runs) {
        if (!run.hole) add(run.id);
      }
    }
  }
  return names;
}

std::set<PackName> NamedPacks(const BackupResult& result) {
  std::set<PackName> names(result.packs.begin(), result.packs.end());
  names.insert(result.relied_packs.begin(), result.relied_packs.end());
  return names;
}

// --- Histories ---

// What a guest and its host do to a disk between two backups, and what a tracker says of it.
class History {
 public:
  History(test::Random* random, uint64_t bytes) : random_(*random), content_(bytes) {
    content_.Scatter(random, 60);
  }

  const DiskContent& content() const { return content_; }

  Ranges Step() {
    Ranges changed;
    if (random_.OneIn(4)) Resize();
    for (uint64_t i = random_.Below(6); i > 0; --i) Touch(&changed);
    // A tracker may name too much, twice, in any order and beyond the end.
    for (uint64_t i = random_.Below(3); i > 0; --i) {
      changed.push_back({random_.Below(2 * content_.bytes()), random_.Below(200'000)});
    }
    if (random_.OneIn(10)) changed.push_back({random_.Below(content_.bytes()), ~uint64_t{0}});
    if (!changed.empty()) std::swap(changed.front(), changed[random_.Below(changed.size())]);
    return changed;
  }

 private:
  // Writes, overwrites with zeros or lets go of some pages.
  void Touch(Ranges* changed) {
    const uint64_t first = random_.Below(content_.page_count());
    const uint64_t most = random_.OneIn(5) ? 700 : 12;
    const uint64_t pages = std::min(random_.Between(1, most), content_.page_count() - first);
    const uint64_t kind = random_.Below(3);
    for (uint64_t page = first; page < first + pages; ++page) {
      if (kind == 0) content_.Set(page, {});
      if (kind == 1) content_.Set(page, random_.Bytes(kPageBytes));
      if (kind == 2) Scribble(page);
    }
    // As few bytes as the writes may have had.
    const uint64_t begin = first * kPageBytes;
    const uint64_t end = std::min(begin + pages * kPageBytes, content_.bytes());
    changed->push_back({begin + kind * 100, end - begin - std::min(end - begin, kind * 100)});
  }
  // Changes a few bytes after the first 200 of the page.
  void Scribble(uint64_t page) {
    Bytes bytes = content_.Read(page * kPageBytes, kPageBytes);
    bytes[200 + random_.Below(kPageBytes - 200)] = static_cast<uint8_t>(random_.Between(1, 255));
    content_.Set(page, std::move(bytes));
  }
  // What comes with new space is nobody's to name, nor is what goes with the old.
  void Resize() {
    const uint64_t old_bytes = content_.bytes();
    const uint64_t step = random_.OneIn(2) ? 3000 : 9 * kMiB;
    const uint64_t bytes = random_.OneIn(2) ? old_bytes + random_.Between(1, step)
                                            : old_bytes - std::min(old_bytes - kMiB, step / 3);
    DiskContent resized(bytes);
    for (const auto& [page, content] : content_.pages()) {
      if (page < resized.page_count()) resized.Set(page, content);
    }
    if (bytes > old_bytes) {
      const uint64_t last = (old_bytes - 1) / kPageBytes;
      Bytes tail = resized.Read(last * kPageBytes, kPageBytes);
      for (uint64_t i = old_bytes - last * kPageBytes; i < kPageBytes; ++i) tail[i] = 0xCD;
      resized.Set(last, std::move(tail));
      for (uint64_t page = last + 1; page < resized.page_count(); page += random_.Between(1, 40)) {
        resized.Set(page, random_.Bytes(kPageBytes));
      }
    }
    content_ = std::move(resized);
  }

  test::Random& random_;
  DiskContent content_;
};

class HistoryTest : public IncrementalTest,
                    public ::testing::WithParamInterface<ChunkingParameters> {
 protected:
  void Write(const DiskContent& content, const std::string& image, DiskFormat format) {
    std::filesystem::remove(image);
    if (format == DiskFormat::kRaw) {
      content.WriteRaw(image, random_.Below(4));  // some zeros are there, some are not
    } else {
      content.WriteImage(image, Identity(format));
    }
  }
};

TEST_P(HistoryTest, TheRootIsThatOfAFullBackupAfterEveryStep) {
  const uint64_t seeds = test::RunningUnderSanitizer() ? 1 : 4;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    TestRepository repository(seed + 1, GetParam());
    const DiskFormat format = seed % 2 == 0 ? DiskFormat::kRaw : DiskFormat::kVhdx;
    const std::string image = folder_ / (format == DiskFormat::kRaw ? "disk.raw" : "disk.vhdx");
    // VHDX disks are of whole sectors; their sizes stay.
    History history(&random_, format == DiskFormat::kRaw ? 27 * kMiB + 777 : 30 * kMiB);
    Write(history.content(), image, format);
    const auto first = repository.Backup({image});
    FIRN_ASSERT_OK(first.status);
    Id root = first.root();
    std::vector<Id> roots = {root};
    for (int step = 0; step < 10; ++step) {
      Ranges changed = history.Step();
      DiskContent content = history.content();
      if (format == DiskFormat::kVhdx) {  // grown to whole sectors
        DiskContent whole(RoundUp(content.bytes(), 512));
        for (const auto& [page, bytes] : content.pages()) whole.Set(page, bytes);
        content = std::move(whole);
      }
      Write(content, image, format);
      const Tuning tuning = SmallTuning(1 + static_cast<uint32_t>(random_.Below(3)),
                                        step % 2 == 0 ? IoBackend::kAuto : IoBackend::kThreads);
      const auto backup = Incremental(&repository, image, root, changed, tuning);
      FIRN_ASSERT_OK(backup.status);
      ASSERT_EQ(backup.result.disks[0].base_refused, "");
      root = backup.root();
      ASSERT_EQ(root, Reference(repository, content)) << "seed " << seed << " step " << step;
      ASSERT_TRUE(std::ranges::includes(NamedPacks(backup.result), PacksOf(repository, root)));
      roots.push_back(root);
      if (step == 9) {
        EXPECT_EQ(repository.RestoreDifference(root, content), "");
      }
    }
    EXPECT_EQ(repository.Problems(roots), "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, HistoryTest,
    ::testing::Values(ChunkingParameters{}, kSmallChunks, kFixed,
                      ChunkingParameters{.min_pages = 1, .average_pages = 2, .max_pages = 3}),
    [](const auto& scheme) { return "Scheme" + std::to_string(scheme.index); });

// --- What it costs ---

TEST_F(IncrementalTest, WithoutChangesNothingIsReadOrWrittenAndEveryPackIsNamed) {
  TestRepository repository;
  DiskContent content(60 * kMiB);
  content.Scatter(&random_, 70);
  content.WriteRaw(path());
  const auto first = repository.Backup({path()});
  FIRN_ASSERT_OK(first.status);
  const auto files = repository.Files();
  const auto second = Incremental(&repository, path(), first.root(), {});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first.root());
  EXPECT_EQ(second.stats.read_bytes, 0u);
  EXPECT_EQ(second.stats.total_bytes, 0u);
  EXPECT_EQ(second.stats.chunks, 0u);
  EXPECT_EQ(repository.Files(), files);
  EXPECT_EQ(second.result.disks[0].data_bytes, first.result.disks[0].data_bytes);
  EXPECT_EQ(second.result.disks[0].changed_bytes, 0u);
  const std::set<PackName> packs(first.result.packs.begin(), first.result.packs.end());
  EXPECT_EQ(NamedPacks(second.result), packs);
  EXPECT_EQ(PacksOf(repository, second.root()), packs);
}

TEST_F(IncrementalTest, AChangedPageCostsItsChunkAndSeldomTheNext) {
  TestRepository repository;
  DiskContent content = Full(64 * kMiB);
  content.WriteRaw(path());
  Id root = repository.Backup({path()}).root();
  uint64_t read = 0, stored = 0;
  constexpr int kRounds = 40;
  for (int i = 0; i < kRounds; ++i) {
    const uint64_t page = random_.Below(content.page_count());
    Overwrite(&content, page);
    const auto backup = Incremental(&repository, path(), root, {PageRange(page)});
    FIRN_ASSERT_OK(backup.status);
    root = backup.root();
    ASSERT_EQ(backup.result.disks[0].changed_bytes, kPageBytes);
    ASSERT_EQ(backup.stats.done_bytes, kSegmentBytes);
    ASSERT_EQ(backup.stats.total_bytes, kSegmentBytes);
    read += backup.stats.read_bytes;
    stored += backup.stats.new_bytes;
  }
  EXPECT_EQ(root, Reference(repository, content));
  // The rule's measured mean is 22 pages a change, read and stored.
  EXPECT_LT(read / kPageBytes / kRounds, 35u);
  EXPECT_EQ(stored, read);
}

TEST_F(IncrementalTest, SpaceThatIsAddedAndNeverWrittenCostsNothing) {
  TestRepository repository;
  DiskContent content(10 * kMiB);
  content.Scatter(&random_, 50);
  content.WriteRaw(path());
  const auto first = repository.Backup({path()});
  DiskContent grown(40 * kGiB + 512);
  for (const auto& [page, bytes] : content.pages()) grown.Set(page, bytes);
  grown.Set(grown.page_count() - 1, random_.Bytes(512));
  grown.WriteRaw(path());
  const auto second = Incremental(&repository, path(), first.root(), {});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), Reference(repository, grown));
  EXPECT_LT(second.stats.read_bytes, 9 * kMiB);
  content.WriteRaw(path());
  const auto third = Incremental(&repository, path(), second.root(), {});
  FIRN_ASSERT_OK(third.status);
  EXPECT_EQ(third.root(), first.root());
}

// The page that the smaller disk's end cuts is padded with zeros there; nobody has to name it.
TEST_F(IncrementalTest, ThePageThatADisksEndCutsChangesWithTheDisksSize) {
  TestRepository repository;
  DiskContent grown(11 * kPageBytes);
  for (uint64_t page = 0; page < 11; ++page) grown.Set(page, random_.Bytes(kPageBytes));
  DiskContent cut(9 * kPageBytes + 100);
  for (uint64_t page = 0; page < 10; ++page) cut.Set(page, grown.pages().at(page));
  cut.WriteRaw(path());
  const auto first = repository.Backup({path()});
  grown.WriteRaw(path());
  const auto second = Incremental(&repository, path(), first.root(), {});
  EXPECT_EQ(second.root(), Reference(repository, grown));
  cut.WriteRaw(path());
  const auto third = Incremental(&repository, path(), second.root(), {});
  EXPECT_EQ(third.root(), first.root());
  EXPECT_EQ(third.result.disks[0].base_refused, "");
}

TEST_F(IncrementalTest, DisksOfSeveralNodesKeepThoseThatDidNotChange) {
  TestRepository repository;
  DiskContent content(9 * kGiB + 4096 * 3);
  const uint64_t node_pages = kNodeBytes / kPageBytes;
  for (uint64_t page : {uint64_t{0}, node_pages - 1, node_pages, 3 * node_pages + 77}) {
    content.Set(page, random_.Bytes(kPageBytes));
  }
  content.WriteRaw(path());
  const auto first = repository.Backup({path()});
  content.Set(node_pages - 1, {});
  content.Set(2 * node_pages + 5, random_.Bytes(kPageBytes));
  content.Set(3 * node_pages + 78, random_.Bytes(kPageBytes));
  content.WriteRaw(path());
  const auto second = Incremental(
      &repository, path(), first.root(),
      {PageRange(3 * node_pages + 78), PageRange(node_pages - 1), PageRange(2 * node_pages + 5)});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), Reference(repository, content));
  EXPECT_LE(second.stats.read_bytes, 4 * kPageBytes);
  EXPECT_EQ(repository.Problems({first.root(), second.root()}), "");
}

TEST_F(IncrementalTest, EveryTuningGivesTheSameRoot) {
  TestRepository repository(5, kSmallChunks);
  DiskContent content(50 * kMiB);
  content.Scatter(&random_, 80);
  content.WriteRaw(path());
  const auto first = repository.Backup({path()});
  Ranges changed;
  for (int i = 0; i < 300; ++i) {
    const uint64_t page = random_.Below(content.page_count());
    content.Set(page, random_.OneIn(3) ? Bytes{} : random_.Bytes(kPageBytes));
    changed.push_back(PageRange(page));
  }
  content.WriteRaw(path(), 3);
  const Id expected = Reference(repository, content);
  std::set<uint64_t> read;
  for (uint32_t workers : {1u, 2u, 5u}) {
    for (uint64_t memory : {1 * kMiB, 400 * kMiB}) {
      for (IoMode io : {IoMode::kAuto, IoMode::kDirect, IoMode::kBuffered}) {
        for (IoBackend backend : {IoBackend::kAuto, IoBackend::kThreads}) {
          const auto backup = Incremental(
              &repository, path(), first.root(), changed,
              {.workers = workers, .memory_bytes = memory, .io = io, .backend = backend});
          FIRN_ASSERT_OK(backup.status);
          ASSERT_EQ(backup.root(), expected);
          read.insert(backup.stats.read_bytes);
        }
      }
    }
  }
  EXPECT_EQ(read.size(), 1u) << "what is read depends on the tuning";
}

TEST_F(IncrementalTest, WhatIsCancelledStopsThoughNothingIsRead) {
  TestRepository repository;
  DiskContent content(30 * kMiB);
  content.Scatter(&random_, 60);
  content.WriteRaw(path());
  BackupOptions options = repository.Options({path()});
  options.disks[0].base = BackupBase{repository.Backup({path()}).root(), {}};
  options.repository = repository.View();
  BackupJob job(FileSystem::Default(), SmallTuning(), std::move(options));
  job.Cancel();
  EXPECT_EQ(job.Run().code(), Code::kAborted);
}

TEST_F(IncrementalTest, DisksWithAndWithoutABaseGoTogether) {
  TestRepository repository;
  DiskContent content(20 * kMiB);
  content.Scatter(&random_, 60);
  content.WriteRaw(path());
  const auto first = repository.Backup({path()});
  content.Set(99, random_.Bytes(kPageBytes));
  content.WriteRaw(path());
  DiskContent other(12 * kMiB);
  other.Scatter(&random_, 60);
  other.WriteRaw(folder_ / "other.raw");
  BackupOptions options = repository.Options({folder_ / "other.raw", path(), path()});
  options.disks[1].base = BackupBase{first.root(), {PageRange(99)}};
  options.disks[2].base = BackupBase{random_.Id(), {}};
  const auto backup = TestRepository::Run(std::move(options), SmallTuning(3));
  FIRN_ASSERT_OK(backup.status);
  EXPECT_EQ(backup.root(0), Reference(repository, other));
  EXPECT_EQ(backup.root(1), Reference(repository, content));
  EXPECT_EQ(backup.root(2), backup.root(1));
  EXPECT_EQ(backup.result.disks[0].changed_bytes, std::nullopt);
  EXPECT_EQ(backup.result.disks[1].base_refused, "");
  EXPECT_NE(backup.result.disks[2].base_refused, "");
  EXPECT_EQ(repository.Problems({backup.root(0), backup.root(1)}), "");
}

// --- Bases that are not what they should be ---

class BadBaseTest : public IncrementalTest {
 protected:
  BadBaseTest() : content_(40 * kMiB) {
    content_.Scatter(&random_, 60);
    content_.WriteRaw(path());
    first_ = repository_.Backup({path()});
    Must(first_.status);
  }
  // A point that is whole, and says why not all of the base was used.
  void ExpectWhole(const TestRepository::BackupOutcome& backup) {
    FIRN_ASSERT_OK(backup.status);
    EXPECT_EQ(backup.root(), Reference(repository_, content_));
    EXPECT_NE(backup.result.disks[0].base_refused, "");
    EXPECT_EQ(repository_.Problems({backup.root()}), "");
    EXPECT_TRUE(
        std::ranges::includes(NamedPacks(backup.result), PacksOf(repository_, backup.root())));
  }
  std::string PathOf(const PackName& pack) const {
    return JoinPath(repository_.root(), pack.RelativePath());
  }
  // The packs of the first backup that hold data, or maps.
  std::vector<PackName> PacksWith(RecordClass record_class) const {
    std::vector<PackName> names;
    for (const PackName& name : first_.result.packs) {
      auto file = Must(FileSystem::Default().Open(PathOf(name), {}));
      const PackTable table = Must(ReadPackTable(file.get()));
      if (table.records.at(0).record_class == record_class) names.push_back(name);
    }
    return names;
  }

  TestRepository repository_;
  DiskContent content_;
  TestRepository::BackupOutcome first_;
};

TEST_F(BadBaseTest, ARootThatIsNoneMakesAFullBackup) {
  const auto second = Incremental(&repository_, path(), random_.Id(), {});
  ExpectWhole(second);
  EXPECT_EQ(second.stats.read_bytes, first_.stats.read_bytes);
  EXPECT_EQ(second.stats.new_chunks, 0u);
  EXPECT_EQ(second.result.disks[0].changed_bytes, std::nullopt);
}

TEST_F(BadBaseTest, WhereNothingIsStoredTheRepositoryIsNotLookedAt) {
  BackupOptions options = repository_.Options({path()});
  options.store = false;
  options.repository.listing.root = "/no/such/repository";
  options.disks[0].base = BackupBase{first_.root(), {}};
  const auto second = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first_.root());
  EXPECT_NE(second.result.disks[0].base_refused, "");
}

TEST_F(BadBaseTest, ChunksInPacksThatAreGoneAreReadAndStoredAgain) {
  ASSERT_FALSE(PacksWith(RecordClass::kChunk).empty());
  for (const PackName& pack : PacksWith(RecordClass::kChunk)) std::filesystem::remove(PathOf(pack));
  ASSERT_NE(repository_.Problems({first_.root()}), "");
  ExpectWhole(Incremental(&repository_, path(), first_.root(), {}));
  // The map is the same, so the old point is whole again too.
  EXPECT_EQ(repository_.RestoreDifference(first_.root(), content_), "");
}

TEST_F(BadBaseTest, OnlyTheChunksThatAreGoneAreRead) {
  // A second point, whose few chunks are in a pack of their own.
  content_.Set(3000, random_.Bytes(kPageBytes));
  content_.WriteRaw(path());
  const auto second = Incremental(&repository_, path(), first_.root(), {PageRange(3000)});
  FIRN_ASSERT_OK(second.status);
  for (const PackName& pack : second.result.packs) {
    auto file = Must(FileSystem::Default().Open(PathOf(pack), {}));
    const PackTable table = Must(ReadPackTable(file.get()));
    if (table.records.at(0).record_class == RecordClass::kChunk) {
      std::filesystem::remove(PathOf(pack));
    }
  }
  const auto third = Incremental(&repository_, path(), second.root(), {});
  ExpectWhole(third);
  EXPECT_EQ(third.stats.new_bytes, second.stats.new_bytes);
  EXPECT_LE(third.stats.read_bytes, second.stats.read_bytes);
}

TEST_F(BadBaseTest, AMapInAPackThatIsGoneMakesAFullBackup) {
  for (const PackName& pack : PacksWith(RecordClass::kMap)) std::filesystem::remove(PathOf(pack));
  const auto second = Incremental(&repository_, path(), first_.root(), {});
  ExpectWhole(second);
  EXPECT_EQ(second.stats.read_bytes, first_.stats.read_bytes);
}

TEST_F(BadBaseTest, ADamagedLeafCostsItsSegment) {
  {
    // Asked of the map: in what order workers store leaves and their node is chance.
    const RepositoryView view = repository_.View();
    auto index = Must(ChunkIndex::Open(FileSystem::Default(), view.listing));
    PackFiles packs(FileSystem::Default(), view.listing.root, false);
    MapReader maps(index.get(), &packs, RepositoryKeys(repository_.id_key()), view.chunking);
    const MapRoot root = Must(maps.ReadRoot(first_.root()));
    const Id leaf = Must(maps.ReadNode(root.nodes.at(0).id)).leaves.at(1).id;
    const ChunkPlace place = index->Find(leaf).value();
    test::FlipBit(PathOf(index->pack_name(place.pack)),
                  (uint64_t{place.offset} + kRecordHeaderBytes + place.stored_length / 2) * 8);
  }
  const auto second = Incremental(&repository_, path(), first_.root(), {});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first_.root());
  EXPECT_NE(second.result.disks[0].base_refused, "");
  EXPECT_GT(second.stats.read_bytes, 0u);
  EXPECT_LE(second.stats.read_bytes, kSegmentBytes);
}

TEST_F(BadBaseTest, CondemnedPacksAreNotReliedOn) {
  for (const PackName& pack : first_.result.packs) repository_.Condemn(pack);
  const auto second = Incremental(&repository_, path(), first_.root(), {});
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), first_.root());
  EXPECT_TRUE(second.result.relied_packs.empty());
  EXPECT_EQ(second.stats.new_chunks, first_.stats.new_chunks);
  for (const PackName& pack : first_.result.packs) std::filesystem::remove(PathOf(pack));
  EXPECT_EQ(repository_.RestoreDifference(second.root(), content_), "");
}

// The same packs under other parameters: what a leaf holds is not what they make. Its chunks are
// short enough for both.
TEST_F(BadBaseTest, ABaseOfAnotherChunkingIsNotTakenOver) {
  TestRepository repository(7, {.min_pages = 4, .average_pages = 8, .max_pages = 16});
  const auto first = repository.Backup({path()});
  FIRN_ASSERT_OK(first.status);
  BackupOptions options = repository.Options({path()});
  options.repository.chunking = kFixed;
  options.disks[0].base = BackupBase{first.root(), {}};
  const auto second = TestRepository::Run(std::move(options));
  FIRN_ASSERT_OK(second.status);
  EXPECT_EQ(second.root(), test::ReferenceRoot(content_, kFixed, repository.id_key()));
  EXPECT_NE(second.result.disks[0].base_refused, "");
}

}  // namespace
}  // namespace firn
