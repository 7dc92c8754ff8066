// Chains of VHDX layers: what shows through. Which files may be parents at all is in
// layer_chain_test.cc.

#include <gtest/gtest.h>

#include <random>

#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;

const Guid kParentId = MakeGuid(0xAA);
const Guid kChildId = MakeGuid(0xBB);

class DiskChainTest : public ::testing::Test {
 protected:
  VhdxOptions ParentOptions(uint64_t size = 8 * kMiB) {
    return {.virtual_size = size, .data_write_guid = kParentId};
  }
  VhdxOptions ChildOptions(uint64_t size = 8 * kMiB, const std::string& parent = "parent.vhdx",
                           const Guid& linkage = kParentId) {
    return {
        .virtual_size = size, .locator = LocatorFor(parent, linkage), .data_write_guid = kChildId};
  }

  std::unique_ptr<Disk> OpenPair(const VhdxImage& child, const VhdxImage& parent) {
    parent.WriteTo(folder_ / "parent.vhdx");
    child.WriteTo(child_path_);
    return MustOpen(child_path_);
  }

  TestFolder folder_;
  const std::string child_path_ = folder_ / "child.avhdx";
};

TEST_F(DiskChainTest, EveryStateOfTheChildMeetsEveryStateOfTheParent) {
  const PayloadState parent_states[] = {PayloadState::kNotPresent, PayloadState::kUndefined,
                                        PayloadState::kZero, PayloadState::kUnmapped,
                                        PayloadState::kFullyPresent};
  const PayloadState child_states[] = {
      PayloadState::kNotPresent, PayloadState::kUndefined,    PayloadState::kZero,
      PayloadState::kUnmapped,   PayloadState::kFullyPresent, PayloadState::kPartiallyPresent};
  const uint64_t size = std::size(parent_states) * std::size(child_states) * kMiB;
  VhdxImage parent(ParentOptions(size));
  VhdxImage child(ChildOptions(size));
  child.AddBitmap(0);
  // Bits of blocks that are not partly present are garbage: a reader that looks at them shows the
  // wrong layer.
  child.SetPresent(0, 10);
  Expected expected(size);
  uint64_t block = 0;
  for (const PayloadState below : parent_states) {
    for (const PayloadState above : child_states) {
      const uint64_t begin = block * kMiB;
      const bool parent_has_data = below == PayloadState::kFullyPresent;
      // Soft anchors: a block that is not present may keep its space, with old data in it.
      if (below == PayloadState::kZero || below == PayloadState::kNotPresent) {
        parent.SetState(block, below);
      } else {
        parent.AddBlock(block, 100 + block, below);
      }
      const bool in_parent =
          above == PayloadState::kNotPresent || above == PayloadState::kPartiallyPresent;
      if (parent_has_data && in_parent) expected.Fill(100 + block, begin, kMiB);
      if (above == PayloadState::kZero || above == PayloadState::kNotPresent) {
        child.SetState(block, above);
      } else {
        child.AddBlock(block, block, above);
      }
      if (above == PayloadState::kFullyPresent) expected.Fill(block, begin, kMiB);
      if (above == PayloadState::kPartiallyPresent) {
        child.SetPresent(begin / 512 + 3, 98);
        expected.Fill(block, begin + 3 * 512, 98 * 512);
        child.SetPresent(begin / 512 + 2047, 1);
        expected.Fill(block, begin + 2047 * 512, 512);
      }
      ++block;
    }
  }
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().kind, DiskKind::kDifferencing);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
  EXPECT_EQ(disk->layers()[0].blocks_partial, std::size(parent_states));
  EXPECT_EQ(disk->layers()[0].blocks_full, std::size(parent_states));
  EXPECT_EQ(disk->layers()[0].blocks_zero, 3 * std::size(parent_states));
}

TEST_F(DiskChainTest, BitmapEdgesFallWhereTheBitsSay) {
  VhdxImage parent(ParentOptions());
  for (uint64_t block = 0; block < 8; ++block) parent.AddBlock(block, 50 + block);
  VhdxImage child(ChildOptions());
  child.AddBitmap(0);
  Expected expected(8 * kMiB);
  for (uint64_t block = 0; block < 8; ++block) expected.Fill(50 + block, block * kMiB, kMiB);
  // First and last bit of a block, of a byte, of a 64 KiB page of bits; alternating; all; none.
  const std::vector<std::vector<uint64_t>> sectors = {
      {0}, {2047}, {7, 8, 15, 16}, {0, 1, 2046, 2047}, {}, {63, 64, 65}};
  for (uint64_t block = 0; block < sectors.size(); ++block) {
    child.AddBlock(block, block, PayloadState::kPartiallyPresent);
    for (const uint64_t sector : sectors[block]) {
      child.SetPresent(block * 2048 + sector, 1);
      expected.Fill(block, block * kMiB + sector * 512, 512);
    }
  }
  child.AddBlock(6, 6, PayloadState::kPartiallyPresent);
  for (uint64_t sector = 0; sector < 2048; sector += 2) {
    child.SetPresent(6 * 2048 + sector, 1);
    expected.Fill(6, 6 * kMiB + sector * 512, 512);
  }
  child.AddBlock(7, 7, PayloadState::kPartiallyPresent);
  child.SetPresent(7 * 2048, 2048);
  expected.Fill(7, 7 * kMiB, kMiB);
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
  // Ranges that start and end inside sectors.
  std::mt19937_64 random(7);
  for (int i = 0; i < 300; ++i) {
    const uint64_t offset = random() % (8 * kMiB);
    const uint64_t length = random() % std::min<uint64_t>(8 * kMiB - offset, 70000);
    MapRange(*disk, offset, length);
    const auto begin = expected.bytes().begin() + static_cast<ptrdiff_t>(offset);
    ExpectSameBytes(ReadRange(*disk, offset, length),
                    Bytes(begin, begin + static_cast<ptrdiff_t>(length)));
  }
}

TEST_F(DiskChainTest, ThePartlyPresentBlockOfALaterChunkUsesItsOwnBitmap) {
  // 4 GiB at 512 bytes a sector: block 4096 is the first of the second chunk.
  const uint64_t size = 4098 * kMiB;
  VhdxImage parent(ParentOptions(size));
  parent.AddBlock(4096, 1);
  VhdxImage child(ChildOptions(size));
  child.AddBitmap(0);
  child.AddBitmap(1);
  child.AddBlock(4096, 2, PayloadState::kPartiallyPresent);
  child.SetPresent(4096 * 2048 + 5, 2);
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  Bytes expected = Pattern(1, 4096 * kMiB, kMiB);
  std::ranges::copy(Pattern(2, 4096 * kMiB + 5 * 512, 1024), expected.begin() + 5 * 512);
  ExpectSameBytes(ReadRange(*disk, 4096 * kMiB, kMiB), expected);
  EXPECT_EQ(disk->NextPresent(0).value(), 4096 * kMiB);
}

TEST_F(DiskChainTest, SectorsOf4096BytesHaveOneBitEach) {
  VhdxOptions parent_options = ParentOptions();
  parent_options.logical_sector_size = 4096;
  VhdxOptions child_options = ChildOptions();
  child_options.logical_sector_size = 4096;
  VhdxImage parent(parent_options);
  parent.AddBlock(1, 1);
  VhdxImage child(child_options);
  child.AddBitmap(0);
  child.AddBlock(1, 2, PayloadState::kPartiallyPresent);
  child.SetPresent(256 + 3, 1);  // sector 3 of the second block
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  Bytes expected = Pattern(1, kMiB, kMiB);
  std::ranges::copy(Pattern(2, kMiB + 3 * 4096, 4096), expected.begin() + 3 * 4096);
  ExpectSameBytes(ReadRange(*disk, kMiB, kMiB), expected);
}

TEST_F(DiskChainTest, AMissingBitmapIsRefused) {
  VhdxImage(ParentOptions()).WriteTo(folder_ / "parent.vhdx");
  VhdxImage child(ChildOptions());
  child.AddBlock(1, 1, PayloadState::kPartiallyPresent);
  child.WriteTo(child_path_);
  ExpectRefused(child_path_, Code::kDiskInvalid, "bitmap-missing");

  // The slot that is missed may stand in a later 64 KiB of the table, all of which is a hole.
  VhdxImage far(ChildOptions(127 * kGiB));
  ASSERT_LT(far.layout().PayloadIndex(20480), 3u * 8192);
  ASSERT_GE(far.layout().BitmapIndex(far.layout().ChunkOf(20480)), 3u * 8192);
  far.AddBlock(20480, 1, PayloadState::kPartiallyPresent);
  far.WriteTo(child_path_);
  ExpectRefused(child_path_, Code::kDiskInvalid, "bitmap-missing");
}

TEST_F(DiskChainTest, ABitmapAtAnImpossiblePlaceIsRefused) {
  VhdxImage(ParentOptions()).WriteTo(folder_ / "parent.vhdx");
  VhdxImage child(ChildOptions());
  const uint64_t block = child.AddBlock(1, 1);
  child.AddBitmap(0);
  const auto refuse = [&](uint64_t entry, Code code, const std::string& finding) {
    child.Patch64(child.BitmapEntryOffset(0), entry);
    child.WriteTo(child_path_);
    ExpectRefused(child_path_, code, finding);
  };
  refuse(6, Code::kDiskInvalid, "bat-offset");
  refuse(block | 6, Code::kDiskInvalid, "bat-overlap");
  refuse(child.end() | 6, Code::kDiskTruncated, "bitmap-truncated");
  refuse(block | 2, Code::kDiskInvalid, "bat-state");
  refuse(block | 0x40 | 6, Code::kDiskInvalid, "bat-reserved-bits");
}

TEST_F(DiskChainTest, LayersMayDifferInBlockSize) {
  for (const auto& [child_block, parent_block] :
       std::vector<std::pair<uint32_t, uint32_t>>{{kMiB, 8 * kMiB}, {8 * kMiB, kMiB}}) {
    const uint64_t size = 16 * kMiB;
    VhdxOptions parent_options = ParentOptions(size);
    parent_options.block_size = parent_block;
    VhdxOptions child_options = ChildOptions(size);
    child_options.block_size = child_block;
    VhdxImage parent(parent_options);
    VhdxImage child(child_options);
    Expected expected(size);
    parent.AddBlock(0, 1);
    expected.Fill(1, 0, parent_block);
    if (parent_block == kMiB) {
      parent.AddBlock(9, 2);
      expected.Fill(2, 9 * kMiB, kMiB);
    }
    child.AddBitmap(0);
    const uint64_t block = 8 * kMiB / child_block;  // the block at 8 MiB
    child.AddBlock(block, 3, PayloadState::kPartiallyPresent);
    child.SetPresent(8 * kMiB / 512 + 100, 50);
    expected.Fill(3, 8 * kMiB + 100 * 512, 50 * 512);
    const auto disk = OpenPair(child, parent);
    ASSERT_NE(disk, nullptr);
    const Bytes content = ReadAll(*disk);
    ExpectSameBytes(content, expected.bytes());
    ExpectHolesAreZero(*disk, content);
  }
}

TEST_F(DiskChainTest, WhatAShorterParentLacksIsZero) {
  VhdxImage parent(ParentOptions(3 * kMiB + 512));
  for (uint64_t block = 0; block < 4; ++block) parent.AddBlock(block, block);
  VhdxImage child(ChildOptions(8 * kMiB));
  child.AddBlock(6, 6);
  Expected expected(8 * kMiB);
  for (uint64_t block = 0; block < 3; ++block) expected.Fill(block, block * kMiB, kMiB);
  expected.Fill(3, 3 * kMiB, 512);
  expected.Fill(6, 6 * kMiB, kMiB);
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "parent-size-differs"));
}

TEST_F(DiskChainTest, WhatALongerParentHasMoreDoesNotShow) {
  VhdxImage parent(ParentOptions(8 * kMiB));
  parent.AddBlock(7, 7);
  parent.AddBlock(3, 3);
  VhdxImage child(ChildOptions(3 * kMiB + 512));
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  Expected expected(3 * kMiB + 512);
  expected.Fill(3, 3 * kMiB, 512);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
  EXPECT_EQ(disk->NextPresent(0).value(), 3 * kMiB);
}

TEST_F(DiskChainTest, AGrandparentDoesNotShowPastAShorterParent) {
  VhdxImage(ChildOptions(8 * kMiB, "middle.vhdx", MakeGuid(0xCC))).WriteTo(child_path_);
  VhdxOptions middle = ChildOptions(2 * kMiB);
  middle.data_write_guid = MakeGuid(0xCC);
  VhdxImage(middle).WriteTo(folder_ / "middle.vhdx");
  VhdxImage parent(ParentOptions());
  parent.AddBlock(1, 1);
  parent.AddBlock(5, 5);
  parent.WriteTo(folder_ / "parent.vhdx");
  const auto disk = MustOpen(child_path_);
  ASSERT_NE(disk, nullptr);
  Expected expected(8 * kMiB);
  expected.Fill(1, kMiB, kMiB);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
  EXPECT_EQ(disk->NextPresent(2 * kMiB).value(), disk->size());
}

TEST_F(DiskChainTest, AParentWithADirtyLogIsReplayedToo) {
  VhdxOptions options = ParentOptions();
  options.log_guid = MakeGuid(0x4C);
  VhdxImage parent(options);
  const uint64_t offset = parent.AddBlock(2, 2);
  parent.SetState(2, PayloadState::kNotPresent);
  LogEntrySpec spec;
  spec.descriptors.push_back(
      parent.BatPageWith(2, vhdx::MakeBatEntry(PayloadState::kFullyPresent, offset)));
  parent.PutLogEntry(0, spec);
  const auto disk = OpenPair(VhdxImage(ChildOptions()), parent);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadRange(*disk, 2 * kMiB, kMiB), Pattern(2, 2 * kMiB, kMiB));
  EXPECT_EQ(disk->layers()[1].log.state, LogInfo::State::kReplayed);
}

TEST_F(DiskChainTest, ABitmapInTheLogDecidesToo) {
  VhdxImage parent(ParentOptions());
  parent.AddBlock(1, 1);
  VhdxOptions options = ChildOptions();
  options.log_guid = MakeGuid(0x4C);
  VhdxImage child(options);
  const uint64_t bitmap = child.AddBitmap(0);
  child.AddBlock(1, 2, PayloadState::kPartiallyPresent);
  LogEntrySpec spec;
  LogDescriptor page;
  page.target = bitmap;
  page.page = Bytes(4096);
  page.page[256] = 0x0C;  // sectors 2 and 3 of block 1
  spec.descriptors.push_back(page);
  child.PutLogEntry(0, spec);
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  Bytes expected = Pattern(1, kMiB, kMiB);
  std::ranges::copy(Pattern(2, kMiB + 1024, 1024), expected.begin() + 1024);
  ExpectSameBytes(ReadRange(*disk, kMiB, kMiB), expected);
  EXPECT_FALSE(HasFinding(disk->layers()[0], "log-target-unused"));
}

TEST_F(DiskChainTest, RandomChainsReadAsTheirModelSays) {
  std::mt19937_64 random(20240607);
  for (int round = 0; round < 12; ++round) {
    TestFolder folder;
    const uint64_t size = 6 * kMiB + 512 * (random() % 5);
    const size_t layers = 2 + random() % 3;
    Expected expected(size);
    for (size_t i = 0; i < layers; ++i) {  // the oldest first
      VhdxOptions options;
      options.virtual_size = size;
      options.block_size = static_cast<uint32_t>(kMiB << random() % 3);
      options.data_write_guid = MakeGuid(static_cast<uint8_t>(i + 1));
      if (i > 0) {
        options.locator =
            LocatorFor(std::to_string(i - 1) + ".vhdx", MakeGuid(static_cast<uint8_t>(i)));
      }
      VhdxImage image(options);
      if (i > 0) image.AddBitmap(0);
      for (uint64_t block = 0; block < image.layout().payload_blocks; ++block) {
        const uint64_t begin = block * options.block_size;
        const uint64_t seed = i * 100 + block;
        switch (random() % (i > 0 ? 6 : 3)) {
          case 0:
            image.AddBlock(block, seed);
            expected.Fill(seed, begin, options.block_size);
            break;
          case 1:
            image.SetState(block, PayloadState::kZero);
            expected.Zero(begin, std::min<uint64_t>(options.block_size, size - begin));
            break;
          case 3:
          case 4: {
            image.AddBlock(block, seed, PayloadState::kPartiallyPresent);
            const uint64_t sectors = image.layout().BytesInBlock(block) / 512;
            for (uint64_t sector = random() % sectors; sector < sectors;
                 sector += 1 + random() % 500) {
              const uint64_t count = std::min(1 + random() % 40, sectors - sector);
              image.SetPresent(begin / 512 + sector, count);
              expected.Fill(seed, begin + sector * 512, count * 512);
            }
            break;
          }
          default:
            break;
        }
      }
      image.WriteTo(folder / (std::to_string(i) + ".vhdx"));
    }
    const auto disk = MustOpen(folder / (std::to_string(layers - 1) + ".vhdx"));
    ASSERT_NE(disk, nullptr);
    ASSERT_EQ(disk->layers().size(), layers);
    const Bytes content = ReadAll(*disk);
    ExpectSameBytes(content, expected.bytes());
    ExpectHolesAreZero(*disk, content);
  }
}

TEST_F(DiskChainTest, ZerosOfTheChildHideAWholeParentQuickly) {
  const uint64_t size = 200 * kGiB;
  VhdxImage parent(ParentOptions(size));
  const uint64_t data = parent.Reserve(64 * kMiB);
  for (uint64_t block = 0; block < 64; ++block) parent.SetEntry(block, (data + block * kMiB) | 6);
  parent.SetEntry(150000, parent.Reserve(kMiB) | 6);
  VhdxImage child(ChildOptions(size));
  for (uint64_t block = 0; block < 64; ++block) child.SetState(block, PayloadState::kZero);
  const auto disk = OpenPair(child, parent);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->NextPresent(0).value(), 150000 * kMiB);
}

}  // namespace
}  // namespace firn
