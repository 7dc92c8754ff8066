#include "chunk/map_format.h"

#include <functional>

#include "core/core_test_util.h"

namespace firn {
namespace {

using Bytes = std::vector<uint8_t>;

ChunkingParameters Content(uint32_t min, uint32_t average, uint32_t max) {
  return {.min_pages = min, .average_pages = average, .max_pages = max};
}

LeafRun Hole(uint32_t pages) { return {static_cast<uint16_t>(pages), true, {}}; }

class MapFormatTest : public ::testing::Test {
 protected:
  LeafRun Chunk(uint32_t pages) { return {static_cast<uint16_t>(pages), false, random_.Id()}; }

  // As a chunker could have left it.
  MapLeaf RandomLeaf(const ChunkingParameters& parameters) {
    MapLeaf leaf;
    uint32_t left = kSegmentPages;
    while (left > 0) {
      const bool may_hole = leaf.runs.empty() || !leaf.runs.back().hole;
      const bool must_hole = !leaf.runs.empty() && !leaf.runs.back().hole &&
                             leaf.runs.back().pages < parameters.min_pages;
      if (must_hole || (may_hole && random_.OneIn(3))) {
        leaf.runs.push_back(Hole(static_cast<uint32_t>(random_.Between(1, std::min(left, 300u)))));
      } else {
        leaf.runs.push_back(
            Chunk(static_cast<uint32_t>(random_.Between(1, std::min(left, parameters.max_pages)))));
      }
      left -= leaf.runs.back().pages;
    }
    if (leaf.data_pages() == 0) leaf.runs = {Chunk(5), Hole(kSegmentPages - 5)};
    return leaf;
  }
  MapNode RandomNode() {
    MapNode node;
    const uint64_t density = random_.Between(1, 100);
    for (uint32_t i = 0; i < kNodeLeaves; ++i) {
      if (!random_.OneIn(density) && !(i == 255 && node.leaves.empty())) continue;
      node.leaves.push_back({static_cast<uint8_t>(i), random_.Id(),
                             static_cast<uint32_t>(random_.Between(1, kSegmentPages))});
    }
    return node;
  }
  MapRoot RandomRoot() {
    MapRoot root;
    root.disk_bytes = random_.Between(0, kDiskBytesMax);
    const uint64_t nodes = DivideUp(root.disk_bytes, kNodeBytes);
    for (uint64_t i = random_.Below(100); i < nodes; i += random_.Between(1, 2000)) {
      const auto leaves = static_cast<uint32_t>(random_.Between(1, kNodeLeaves));
      root.nodes.push_back({static_cast<uint32_t>(i), leaves, random_.Id(),
                            random_.Between(1, uint64_t{leaves} * kSegmentPages)});
    }
    return root;
  }

  // Damages `bytes` in many ways; whatever `decode` accepts must encode to those same bytes.
  void ExpectCanonicalOnly(const Bytes& bytes,
                           const std::function<Result<Bytes>(std::span<const uint8_t>)>& decode) {
    Result<Bytes> same = decode(bytes);
    FIRN_ASSERT_OK(same);
    ASSERT_EQ(*same, bytes);
    for (size_t length = 0; length < bytes.size(); ++length) {
      if (bytes.size() > 4000 && length > 200 && !random_.OneIn(50)) continue;
      const Status status = decode(std::span(bytes).first(length)).status();
      ASSERT_EQ(status.code(), Code::kCorruptObject) << length;
    }
    for (int i = 0; i < 400; ++i) {
      Bytes damaged = bytes;
      if (random_.OneIn(8)) damaged.resize(damaged.size() + random_.Between(1, 64));
      for (uint64_t flips = random_.Between(1, 3); flips > 0; --flips) {
        // The head, where the structure is, more often than the ids.
        const size_t end = random_.OneIn(2) ? std::min<size_t>(64, damaged.size()) : damaged.size();
        damaged[random_.Below(end)] ^= static_cast<uint8_t>(1u << random_.Below(8));
      }
      Result<Bytes> again = decode(damaged);
      if (again.ok()) {
        ASSERT_EQ(*again, damaged);
      } else {
        const Code code = again.status().code();
        ASSERT_TRUE(code == Code::kCorruptObject || code == Code::kVersion);
      }
    }
  }

  void ExpectRefused(const MapLeaf& leaf, const ChunkingParameters& parameters) {
    EXPECT_EQ(DecodeLeaf(EncodeLeaf(leaf), parameters).status().code(), Code::kCorruptObject);
  }
  void ExpectRefused(const MapNode& node) {
    EXPECT_EQ(DecodeNode(EncodeNode(node)).status().code(), Code::kCorruptObject);
  }
  void ExpectRefused(const MapRoot& root) {
    EXPECT_EQ(DecodeRoot(EncodeRoot(root)).status().code(), Code::kCorruptObject);
  }

  test::Random random_{61};
};

TEST_F(MapFormatTest, ALeafStandsAsTheFormatPageSays) {
  const MapLeaf leaf{{Hole(3), Chunk(10), Hole(2035)}};
  const Bytes bytes = EncodeLeaf(leaf);
  ASSERT_EQ(bytes.size(), 8u + 3 * 2 + 32);
  const Bytes head = {'F', 'L', 1, 0, 3, 0, 1, 0, 3, 0, 10, 0x80, 0xF3, 0x07};
  EXPECT_TRUE(std::equal(head.begin(), head.end(), bytes.begin()));
  EXPECT_TRUE(std::equal(bytes.begin() + 14, bytes.end(), leaf.runs[1].id.begin()));
  EXPECT_EQ(leaf.data_pages(), 10u);
}

TEST_F(MapFormatTest, LeavesGoThereAndBackAndNothingElseIsAccepted) {
  for (const auto& parameters : {Content(8, 16, 64), Content(1, 1, 1), Content(1, 100, 2048)}) {
    for (int i = 0; i < 6; ++i) {
      ExpectCanonicalOnly(EncodeLeaf(RandomLeaf(parameters)),
                          [&](std::span<const uint8_t> bytes) -> Result<Bytes> {
                            FIRN_ASSIGN_OR_RETURN(MapLeaf leaf, DecodeLeaf(bytes, parameters));
                            return EncodeLeaf(leaf);
                          });
    }
  }
}

TEST_F(MapFormatTest, ALeafThatNoChunkerMakesIsRefused) {
  const ChunkingParameters parameters = Content(8, 16, 64);
  FIRN_EXPECT_OK(DecodeLeaf(EncodeLeaf({{Chunk(8), Chunk(64), Chunk(1), Hole(1975)}}), parameters));
  FIRN_EXPECT_OK(DecodeLeaf(EncodeLeaf({{Hole(2047), Chunk(1)}}), parameters));
  ExpectRefused({{Hole(2048)}}, parameters);                               // no chunk
  ExpectRefused({{}}, parameters);                                         // nothing
  ExpectRefused({{Chunk(8), Hole(2039)}}, parameters);                     // short of a segment
  ExpectRefused({{Chunk(8), Hole(2041)}}, parameters);                     // more than a segment
  ExpectRefused({{Chunk(8), Hole(0), Chunk(8), Hole(2032)}}, parameters);  // an empty hole
  ExpectRefused({{Chunk(0), Hole(2048)}}, parameters);                     // an empty chunk
  ExpectRefused({{Chunk(8), Hole(1000), Hole(1040)}}, parameters);         // two holes side by side
  ExpectRefused({{Chunk(65), Hole(1983)}}, parameters);                    // over the maximum
  ExpectRefused({{Chunk(7), Chunk(8), Hole(2033)}}, parameters);  // a short chunk before another
  // The segment's end and a hole may cut a chunk short, and the fixed scheme knows no minimum.
  ChunkingParameters fixed = Content(16, 16, 16);
  fixed.fixed = true;
  FIRN_EXPECT_OK(DecodeLeaf(EncodeLeaf({{Hole(9), Chunk(7), Chunk(16), Hole(2016)}}), fixed));
}

TEST_F(MapFormatTest, ALeafsCountsAndReservedBitsMustAgree) {
  const ChunkingParameters parameters = Content(8, 16, 64);
  const Bytes good = EncodeLeaf({{Chunk(8), Chunk(9), Hole(2031)}});
  const auto refused_with = [&](size_t at, uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    return DecodeLeaf(bytes, parameters).status().code();
  };
  EXPECT_EQ(refused_with(0, 'G'), Code::kCorruptObject);
  EXPECT_EQ(refused_with(1, 'N'), Code::kCorruptObject);
  EXPECT_EQ(refused_with(2, 2), Code::kVersion);
  EXPECT_EQ(refused_with(2, 0), Code::kCorruptObject);
  EXPECT_EQ(refused_with(3, 1), Code::kCorruptObject);
  EXPECT_EQ(refused_with(4, 4), Code::kCorruptObject);     // runs
  EXPECT_EQ(refused_with(6, 1), Code::kCorruptObject);     // chunks
  EXPECT_EQ(refused_with(9, 0x90), Code::kCorruptObject);  // a reserved bit
  EXPECT_EQ(refused_with(9, 0x00), Code::kCorruptObject);  // a chunk's bit gone
  // As many ids as the chunks, but another run is the chunk.
  Bytes moved = good;
  moved[11] = 0x00;
  moved[13] = static_cast<uint8_t>(moved[13] | 0x80);
  EXPECT_EQ(DecodeLeaf(moved, parameters).status().code(), Code::kCorruptObject);
}

TEST_F(MapFormatTest, ANodeStandsAsTheFormatPageSays) {
  const MapNode node{{{0, random_.Id(), 5}, {9, random_.Id(), 2048}, {255, random_.Id(), 0x102}}};
  const Bytes bytes = EncodeNode(node);
  ASSERT_EQ(bytes.size(), 8u + 32 + 3 * 36);
  const Bytes head = {'F', 'N', 1, 0, 3, 0, 0, 0, 0x01, 0x02};
  EXPECT_TRUE(std::equal(head.begin(), head.end(), bytes.begin()));
  EXPECT_EQ(bytes[39], 0x80);
  EXPECT_TRUE(std::equal(node.leaves[1].id.begin(), node.leaves[1].id.end(), &bytes[40 + 36]));
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[40 + 2 * 36 + 32]), 0x102u);
}

TEST_F(MapFormatTest, NodesGoThereAndBackAndNothingElseIsAccepted) {
  for (int i = 0; i < 12; ++i) {
    ExpectCanonicalOnly(EncodeNode(RandomNode()),
                        [](std::span<const uint8_t> bytes) -> Result<Bytes> {
                          FIRN_ASSIGN_OR_RETURN(MapNode node, DecodeNode(bytes));
                          return EncodeNode(node);
                        });
  }
}

TEST_F(MapFormatTest, ANodeThatNoBackupMakesIsRefused) {
  ExpectRefused(MapNode{});                                        // no leaf
  ExpectRefused(MapNode{{{4, random_.Id(), 0}}});                  // a leaf of holes
  ExpectRefused(MapNode{{{4, random_.Id(), kSegmentPages + 1}}});  // more pages than a segment has
  Bytes bytes = EncodeNode({{{4, random_.Id(), 1}}});
  Bytes bit_lost = bytes, bit_more = bytes, reserved = bytes;
  bit_lost[8] = 0;
  bit_more[20] = 1;
  reserved[6] = 1;
  for (const Bytes& bad : {bit_lost, bit_more, reserved}) {
    EXPECT_EQ(DecodeNode(bad).status().code(), Code::kCorruptObject);
  }
}

TEST_F(MapFormatTest, ARootStandsAsTheFormatPageSays) {
  const MapRoot root{10 * kGiB + 512, {{0, 1, random_.Id(), 7}, {5, 256, random_.Id(), 300'000}}};
  const Bytes bytes = EncodeRoot(root);
  ASSERT_EQ(bytes.size(), 16u + 2 * 48);
  const Bytes head = {'F', 'R', 1, 0, 2, 0, 0, 0};
  EXPECT_TRUE(std::equal(head.begin(), head.end(), bytes.begin()));
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[8]), 10 * kGiB + 512);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[64]), 5u);
  EXPECT_EQ(LoadLe<uint32_t>(&bytes[68]), 256u);
  EXPECT_TRUE(std::equal(root.nodes[1].id.begin(), root.nodes[1].id.end(), &bytes[72]));
  EXPECT_EQ(LoadLe<uint64_t>(&bytes[104]), 300'000u);
}

TEST_F(MapFormatTest, RootsGoThereAndBackAndNothingElseIsAccepted) {
  for (int i = 0; i < 12; ++i) {
    ExpectCanonicalOnly(EncodeRoot(RandomRoot()),
                        [](std::span<const uint8_t> bytes) -> Result<Bytes> {
                          FIRN_ASSIGN_OR_RETURN(MapRoot root, DecodeRoot(bytes));
                          return EncodeRoot(root);
                        });
  }
}

TEST_F(MapFormatTest, ARootThatNoBackupMakesIsRefused) {
  const auto node = [&](uint32_t index, uint32_t leaves = 1, uint64_t pages = 1) {
    return MapRoot::Node{index, leaves, random_.Id(), pages};
  };
  FIRN_EXPECT_OK(DecodeRoot(EncodeRoot({0, {}})));
  FIRN_EXPECT_OK(DecodeRoot(EncodeRoot({kDiskBytesMax, {node(32767, 256, 524288)}})));
  ExpectRefused(MapRoot{kDiskBytesMax + 1, {}});
  ExpectRefused(MapRoot{kNodeBytes, {node(1)}});  // beyond the disk's end
  ExpectRefused(MapRoot{kNodeBytes, {node(~0u)}});
  ExpectRefused(MapRoot{8 * kGiB, {node(1), node(1)}});  // twice
  ExpectRefused(MapRoot{8 * kGiB, {node(2), node(1)}});  // out of order
  ExpectRefused(MapRoot{8 * kGiB, {node(0, 0)}});        // no leaf
  ExpectRefused(MapRoot{8 * kGiB, {node(0, 257)}});      // more leaves than a node has
  ExpectRefused(MapRoot{8 * kGiB, {node(0, 1, 0)}});     // no data
  ExpectRefused(MapRoot{8 * kGiB, {node(0, 1, 2049)}});  // more data than its leaves hold
  Bytes many = EncodeRoot({8 * kGiB, {node(0)}});
  StoreLe<uint32_t>(&many[4], 0xFFFFFFFF);  // a count that no memory holds
  EXPECT_EQ(DecodeRoot(many).status().code(), Code::kCorruptObject);
}

}  // namespace
}  // namespace firn
