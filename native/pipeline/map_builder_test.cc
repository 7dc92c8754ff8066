#include "pipeline/map_builder.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <set>
#include <thread>

#include "core/core_test_util.h"

namespace firn {
namespace {

// The id under which a test stores a node: its encoding says all.
Id IdOf(const MapNode& node) { return Id{static_cast<uint8_t>(node.leaves.size() % 256)}; }

void StoreFinished(MapBuilder* builder) {
  for (const FinishedNode& finished : builder->TakeFinished()) {
    builder->AddNode(finished, IdOf(finished.node));
  }
}

class MapBuilderTest : public ::testing::Test {
 protected:
  std::optional<MapNode::Leaf> Leaf(uint64_t segment) {
    // Some segments turn out to be holes.
    if (segment % 5 == 3) return std::nullopt;
    return MapNode::Leaf{static_cast<uint8_t>(segment % kNodeLeaves),
                         Id{static_cast<uint8_t>(segment)},
                         static_cast<uint32_t>(segment % kSegmentPages + 1)};
  }
  std::vector<uint64_t> RandomSegments(size_t nodes) {
    std::set<uint64_t> segments;
    for (size_t i = 0; i < nodes; ++i) {
      const uint64_t node = random_.Below(1000);
      for (uint64_t j = random_.Between(1, 60); j > 0; --j) {
        segments.insert(node * kNodeLeaves + random_.Below(kNodeLeaves));
      }
    }
    return {segments.begin(), segments.end()};
  }
  MapRoot Expected(const std::vector<uint64_t>& segments, uint64_t disk_bytes) {
    std::map<uint64_t, MapNode> nodes;
    for (uint64_t segment : segments) {
      if (const auto leaf = Leaf(segment)) nodes[segment / kNodeLeaves].leaves.push_back(*leaf);
    }
    MapRoot root{disk_bytes, {}};
    for (const auto& [index, node] : nodes) {
      uint64_t pages = 0;
      for (const auto& leaf : node.leaves) pages += leaf.data_pages;
      root.nodes.push_back({static_cast<uint32_t>(index), static_cast<uint32_t>(node.leaves.size()),
                            IdOf(node), pages});
    }
    return root;
  }

  test::Random random_{151};
};

TEST_F(MapBuilderTest, ADiskOfHolesHasARootWithoutNodes) {
  MapBuilder builder;
  builder.ExpectNoMore();
  EXPECT_TRUE(builder.TakeFinished().empty());
  const MapRoot root = builder.Finish(12'345);
  EXPECT_EQ(root.disk_bytes, 12'345u);
  EXPECT_TRUE(root.nodes.empty());
}

TEST_F(MapBuilderTest, TheOrderInWhichLeavesArriveLeavesNoTrace) {
  for (int round = 0; round < 30; ++round) {
    const std::vector<uint64_t> segments = RandomSegments(random_.Between(1, 8));
    const std::vector<uint8_t> expected = EncodeRoot(Expected(segments, kTiB));
    MapBuilder builder;
    std::deque<uint64_t> announced;
    size_t next = 0;
    bool ended = false;
    while (next < segments.size() || !announced.empty() || !ended) {
      if (next < segments.size() && (announced.empty() || random_.OneIn(2))) {
        builder.Expect(segments[next]);
        announced.push_back(segments[next++]);
      } else if (next == segments.size() && !ended && (announced.empty() || random_.OneIn(3))) {
        builder.ExpectNoMore();
        ended = true;
      } else {
        const size_t pick = random_.Below(std::min<size_t>(announced.size(), 9));
        builder.AddLeaf(announced[pick], Leaf(announced[pick]));
        announced.erase(announced.begin() + static_cast<ptrdiff_t>(pick));
      }
      if (random_.OneIn(2)) StoreFinished(&builder);
    }
    StoreFinished(&builder);
    ASSERT_EQ(EncodeRoot(builder.Finish(kTiB)), expected);
  }
}

TEST_F(MapBuilderTest, ANodeIsHandedOutAsSoonAsItIsWholeAndOnlyOnce) {
  MapBuilder builder;
  builder.Expect(0);
  builder.Expect(1);
  builder.AddLeaf(1, Leaf(1));
  builder.AddLeaf(0, Leaf(0));
  EXPECT_TRUE(builder.TakeFinished().empty()) << "more of the node may come";
  builder.Expect(kNodeLeaves);
  std::vector<FinishedNode> finished = builder.TakeFinished();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].index, 0u);
  ASSERT_EQ(finished[0].node.leaves.size(), 2u);
  EXPECT_EQ(finished[0].node.leaves[0].index, 0);
  EXPECT_EQ(finished[0].node.leaves[1].index, 1);
  EXPECT_TRUE(builder.TakeFinished().empty());
}

TEST_F(MapBuilderTest, ServesManyThreads) {
  const std::vector<uint64_t> segments = RandomSegments(40);
  MapBuilder builder;
  std::mutex mutex;
  size_t next = 0;
  const auto take = [&]() -> std::optional<uint64_t> {
    std::lock_guard lock(mutex);
    if (next == segments.size()) {
      if (++next == segments.size() + 1) builder.ExpectNoMore();
      return std::nullopt;
    }
    if (next > segments.size()) return std::nullopt;
    builder.Expect(segments[next]);
    return segments[next++];
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (const auto segment = take()) {
        std::this_thread::yield();
        builder.AddLeaf(*segment, Leaf(*segment));
        StoreFinished(&builder);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  StoreFinished(&builder);
  EXPECT_EQ(EncodeRoot(builder.Finish(kTiB)), EncodeRoot(Expected(segments, kTiB)));
}

}  // namespace
}  // namespace firn
