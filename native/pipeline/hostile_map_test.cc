// Maps whose every record is sound and whose sense is not: made by hand, as an attacker would. A
// restore refuses them, a random read survives them, a verification calls none of them whole that a
// restore would refuse, and a backup that starts from them makes a point that is whole.
#include <memory>

#include "chunk/map_format.h"
#include "pack/pack_test_util.h"
#include "pipeline/chunk_registry.h"
#include "pipeline/map_disk.h"
#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::Bytes;
using test::Must;
using test::SmallTuning;
using test::StripeFiller;
using test::TestRepository;

class HostileMapTest : public ::testing::Test {
 protected:
  HostileMapTest() : keys_(repository_.id_key()) {}

  // Records to be stored; their ids are true.
  Id Chunk(uint32_t pages) {
    Bytes content = random_.Bytes(uint64_t{pages} * kPageBytes);
    const Id id = Blake3Keyed(keys_.chunk, content);
    chunks_.emplace_back(id, std::move(content));
    return id;
  }
  Id Map(std::vector<uint8_t> content) {
    const Id id = Blake3Keyed(keys_.map, content);
    maps_.emplace_back(id, std::move(content));
    return id;
  }
  LeafRun Data(uint32_t pages) { return {static_cast<uint16_t>(pages), false, Chunk(pages)}; }
  static LeafRun Hole(uint32_t pages) { return {static_cast<uint16_t>(pages), true, {}}; }

  // A disk of two segments and a half: leaf, node and root, each as the test wants it.
  MapLeaf GoodLeaf() { return {{Data(10), Hole(kSegmentPages - 10)}}; }
  MapNode::Leaf Row(uint8_t index, const MapLeaf& leaf) {
    return {index, Map(EncodeLeaf(leaf)), leaf.data_pages()};
  }
  Id RootOf(const MapNode& node, uint32_t leaves, uint64_t data_pages) {
    return Map(EncodeRoot({kDiskBytes, {{0, leaves, Map(EncodeNode(node)), data_pages}}}));
  }
  Id RootOf(const MapNode& node) {
    uint64_t pages = 0;
    for (const MapNode::Leaf& leaf : node.leaves) pages += leaf.data_pages;
    return RootOf(node, static_cast<uint32_t>(node.leaves.size()), pages);
  }

  // Writes what was put together into packs and an index run.
  void Store() {
    RunId run;
    random_.Fill(run);
    RepositoryListing listing;
    listing.root = repository_.root();
    auto index = Must(ChunkIndex::Open(FileSystem::Default(), listing));
    ChunkRegistry registry(index.get(), run, 0, 1'000'000);
    PackWriter writer(FileSystem::Default(), repository_.root(), run, 0, false, 64 * kMiB,
                      [&](const PackName& name, const PackTable& table) {
                        return registry.AddPack(name, table);
                      });
    StripeFiller data(&writer, PackClass::kData, {Codec::kLz4, 1}, kMiB);
    StripeFiller maps(&writer, PackClass::kMap, {Codec::kLz4, 1}, kMiB);
    for (const auto& [id, content] : chunks_) FIRN_ASSERT_OK(data.Add(id, content));
    for (const auto& [id, content] : maps_) FIRN_ASSERT_OK(maps.Add(id, content));
    FIRN_ASSERT_OK(data.Flush());
    FIRN_ASSERT_OK(maps.Flush());
    FIRN_ASSERT_OK(writer.Close());
    FIRN_ASSERT_OK(registry.Finish());
  }

  void ExpectRefusedEverywhere(const Id& root) {
    Store();
    test::TestFolder target;
    const Status restored = repository_.Restore(root, target / "back.raw", kDiskBytes);
    EXPECT_FALSE(restored.ok());
    EXPECT_TRUE(restored.code() == Code::kCorruptObject || restored.code() == Code::kCorruptIndex ||
                restored.code() == Code::kChunkMissing)
        << restored.ToString();
    EXPECT_TRUE(test::FilesBelow(target.path()).empty());
    for (bool read_data : {false, true}) {
      const VerifyResult result = Must(repository_.Verify({root}, read_data));
      EXPECT_GT(result.problem_count, 0u) << "refused (" << restored.ToString() << ") but verified";
    }
    ExpectNoHarmAsBase(root);
    auto disk = MapDisk::Open(FileSystem::Default(), repository_.View(), root);
    if (!disk.ok()) return;
    Bytes bytes(kDiskBytes);
    (void)(*disk)->Read(0, bytes);  // an error or bytes, and nothing worse
  }

  // Whether all, some or none of the disk changed since: what an incremental backup makes of such a
  // base restores, and where all changed it is what a full one makes.
  void ExpectNoHarmAsBase(const Id& root) {
    test::TestFolder source;
    test::DiskContent content(kDiskBytes);
    content.Scatter(&random_, 30);
    content.WriteRaw(source / "disk.raw");
    const Id full = repository_.Backup({source / "disk.raw"}).root();
    const std::vector<std::vector<ChangedRange>> all = {
        {{0, kDiskBytes}}, {{5 * kPageBytes, 1}, {kSegmentBytes, 20 * kPageBytes}}, {}};
    for (const std::vector<ChangedRange>& changed : all) {
      BackupOptions options = repository_.Options({source / "disk.raw"});
      options.disks[0].base = BackupBase{root, changed};
      const auto backup = TestRepository::Run(std::move(options));
      FIRN_ASSERT_OK(backup.status);
      if (&changed == &all.front()) {
        EXPECT_EQ(backup.root(), full);
      }
      FIRN_EXPECT_OK(repository_.Restore(backup.root(), source / "back.raw", kDiskBytes));
      std::filesystem::remove(source / "back.raw");
      base_refused_ = backup.result.disks[0].base_refused;
      const VerifyResult result = Must(repository_.Verify({backup.root()}, false));
      EXPECT_EQ(result.problem_count, 0u) << "the base's defect is in the new map";
    }
  }

  static constexpr uint64_t kDiskBytes = 2 * kSegmentBytes + kSegmentBytes / 2;

  test::Random random_{231};
  TestRepository repository_;
  const RepositoryKeys keys_;
  std::vector<std::pair<Id, Bytes>> chunks_;
  std::vector<std::pair<Id, Bytes>> maps_;
  std::string base_refused_;  // where nothing was said to have changed
};

TEST_F(HostileMapTest, ASoundMapMadeByHandIsAccepted) {
  const Id root = RootOf({{Row(0, GoodLeaf()), Row(2, GoodLeaf())}});
  Store();
  test::TestFolder target;
  FIRN_EXPECT_OK(repository_.Restore(root, target / "back.raw", kDiskBytes));
  EXPECT_EQ(repository_.Problems({root}), "");
  auto disk = Must(MapDisk::Open(FileSystem::Default(), repository_.View(), root));
  Bytes bytes(10 * kPageBytes);
  FIRN_EXPECT_OK(disk->Read(2 * kSegmentBytes, bytes));
  EXPECT_EQ(bytes, chunks_[1].second);
}

TEST_F(HostileMapTest, ALeafBeyondTheDisksEndIsRefused) {
  ExpectRefusedEverywhere(RootOf({{Row(0, GoodLeaf()), Row(3, GoodLeaf())}}));
}

TEST_F(HostileMapTest, DataBeyondTheDisksEndIsRefused) {
  const MapLeaf last{{Hole(1500), Data(10), Hole(kSegmentPages - 1510)}};
  ExpectRefusedEverywhere(RootOf({{Row(0, GoodLeaf()), Row(2, last)}}));
}

TEST_F(HostileMapTest, AChunkThatReachesOverTheDisksEndIsRefused) {
  const MapLeaf last{{Hole(1020), Data(10), Hole(kSegmentPages - 1030)}};
  ExpectRefusedEverywhere(RootOf({{Row(2, last)}}));
}

TEST_F(HostileMapTest, ALeafThatHoldsMoreThanItsNodeSaysIsRefused) {
  MapNode::Leaf row = Row(0, GoodLeaf());
  row.data_pages += 1;
  ExpectRefusedEverywhere(RootOf({{row}}));
}

TEST_F(HostileMapTest, ANodeThatHoldsOtherThanItsRootSaysIsRefused) {
  const MapNode node{{Row(0, GoodLeaf()), Row(1, GoodLeaf())}};
  ExpectRefusedEverywhere(RootOf(node, 2, 21));
  EXPECT_NE(base_refused_, "");
}

TEST_F(HostileMapTest, ANodeOfFewerLeavesThanItsRootSaysIsRefused) {
  const MapNode node{{Row(0, GoodLeaf()), Row(1, GoodLeaf())}};
  ExpectRefusedEverywhere(RootOf(node, 3, 20));
  EXPECT_NE(base_refused_, "");
}

TEST_F(HostileMapTest, AChunkOfAnotherLengthThanItsRunIsRefused) {
  MapLeaf leaf = GoodLeaf();
  leaf.runs[0].id = Chunk(9);
  ExpectRefusedEverywhere(RootOf({{Row(0, leaf)}}));
}

TEST_F(HostileMapTest, AMapObjectInAChunksPlaceIsRefused) {
  MapLeaf leaf = GoodLeaf();
  leaf.runs[0].id = Map(random_.Bytes(10 * kPageBytes));
  ExpectRefusedEverywhere(RootOf({{Row(0, leaf)}}));
}

TEST_F(HostileMapTest, ObjectsOfTheWrongKindAreRefused) {
  const MapNode::Leaf leaf = Row(0, GoodLeaf());
  const Id node = Map(EncodeNode({{leaf}}));
  // A leaf where a node should be, a node where a leaf should be, a node for a root.
  const Id leaf_as_node = Map(EncodeRoot({kDiskBytes, {{0, 1, leaf.id, 10}}}));
  const Id node_as_leaf = RootOf({{{0, node, 10}}});
  Store();
  for (const Id& root : {leaf_as_node, node_as_leaf, node, leaf.id}) {
    test::TestFolder target;
    const Status restored = repository_.Restore(root, target / "back.raw", kDiskBytes);
    EXPECT_EQ(restored.code(), Code::kCorruptObject) << restored.ToString();
    EXPECT_GT(Must(repository_.Verify({root}, false)).problem_count, 0u);
    ExpectNoHarmAsBase(root);
  }
}

TEST_F(HostileMapTest, AnIdThatNoContentHasIsMissingLikeAnyOther) {
  MapLeaf zero_chunk = GoodLeaf();
  zero_chunk.runs[0].id = Id{};
  ExpectRefusedEverywhere(RootOf({{Row(0, zero_chunk)}}));
}

TEST_F(HostileMapTest, ALeafWhoseIdIsAllZeroIsMissingLikeAnyOther) {
  ExpectRefusedEverywhere(RootOf({{{0, Id{}, 10}}}));
}

TEST_F(HostileMapTest, ALeafThatNoChunkerOfThisRepositoryMakesIsRefused) {
  ExpectRefusedEverywhere(RootOf({{Row(0, {{Data(7), Data(8), Hole(kSegmentPages - 15)}})}}));
}

}  // namespace
}  // namespace firn
