// Goal: what the newest layers of a chain are said to have changed holds every byte that differs
// from the layer below them, and is refused when the chain is not what was recorded.
//
// Chains are built state by state, and by the differencing writer; the truth is what the disk reads
// as with those layers and without them.

#include "disk/layer_changes.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "disk/disk_writer.h"
#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;
using Range = LayerChanges::Range;

Guid IdOf(size_t layer) { return MakeGuid(static_cast<uint8_t>(layer + 1)); }

class LayerChangesTest : public ::testing::Test {
 protected:
  std::string PathOf(size_t layer) const { return folder_ / (std::to_string(layer) + ".avhdx"); }

  // Layer 0 is the base.
  VhdxOptions OptionsOf(size_t layer, uint64_t size = 8 * kMiB) const {
    VhdxOptions options;
    options.virtual_size = size;
    options.data_write_guid = IdOf(layer);
    if (layer > 0) {
      options.locator = LocatorFor(std::to_string(layer - 1) + ".avhdx", IdOf(layer - 1));
    }
    return options;
  }

  Result<LayerChanges> Read(size_t top, uint32_t layers, uint32_t max_ranges = 1 << 16) const {
    LayerChangesOptions options;
    options.open.direct = false;
    options.layers = layers;
    options.base_linkage = GuidToString(IdOf(top - layers));
    options.max_ranges = max_ranges;
    return ReadLayerChanges(FileSystem::Default(), PathOf(top), options);
  }

  std::vector<Range> MustRead(size_t top, uint32_t layers, uint32_t max_ranges = 1 << 16) const {
    const Result<LayerChanges> changes = Read(top, layers, max_ranges);
    EXPECT_TRUE(changes.ok()) << changes.status().ToString();
    return changes.ok() ? changes->ranges : std::vector<Range>{};
  }

  // EXPECTs that the ranges are in order and apart, and hold every byte in which the two differ.
  // What one disk has beyond the other's end differs.
  static void ExpectCover(const std::vector<Range>& ranges, const Bytes& before,
                          const Bytes& after) {
    uint64_t end = 0;
    uint64_t passed = 0;
    const auto expect_same = [&](uint64_t from, uint64_t to) {
      to = std::min<uint64_t>(to, std::max(before.size(), after.size()));
      if (from >= to) return;
      const bool in_both = to <= std::min(before.size(), after.size());
      const bool same = in_both && std::memcmp(&before[from], &after[from], to - from) == 0;
      EXPECT_TRUE(same) << "a byte in [" << from << ", " << to << ") differs and is in no range";
    };
    for (const Range& range : ranges) {
      ASSERT_GT(range.length, 0u);
      if (end > 0) {
        ASSERT_GT(range.offset, end);
      }
      expect_same(passed, range.offset);
      passed = end = range.offset + range.length;
    }
    expect_same(passed, std::max(before.size(), after.size()));
  }

  const TestFolder folder_;
};

TEST_F(LayerChangesTest, EveryStateButNotPresentIsAChange) {
  VhdxImage(OptionsOf(0)).WriteTo(PathOf(0));
  VhdxImage child(OptionsOf(1));
  child.AddBitmap(0);
  child.SetState(0, PayloadState::kNotPresent);
  child.SetState(1, PayloadState::kUndefined);
  child.SetState(2, PayloadState::kNotPresent);
  child.SetState(3, PayloadState::kZero);
  child.SetState(4, PayloadState::kUnmapped);
  child.AddBlock(6, 1);
  child.AddBlock(7, 2, PayloadState::kPartiallyPresent);
  child.SetPresent(7 * 2048 + 9, 1);     // inside page 1
  child.SetPresent(7 * 2048 + 15, 2);    // across pages 1 and 2
  child.SetPresent(7 * 2048 + 2047, 1);  // the disk's last sector
  child.WriteTo(PathOf(1));
  const std::vector<Range> expected = {{kMiB, kMiB},
                                       {3 * kMiB, 2 * kMiB},
                                       {6 * kMiB, kMiB},
                                       {7 * kMiB + 4096, 8192},
                                       {8 * kMiB - 4096, 4096}};
  EXPECT_EQ(MustRead(1, 1), expected);
}

TEST_F(LayerChangesTest, AnEmptyLayerHasChangedNothing) {
  VhdxImage base(OptionsOf(0));
  base.AddBlock(2, 1);
  base.WriteTo(PathOf(0));
  VhdxImage(OptionsOf(1)).WriteTo(PathOf(1));
  EXPECT_EQ(MustRead(1, 1), std::vector<Range>{});
}

TEST_F(LayerChangesTest, OnlyTheLayersAskedForCount) {
  for (size_t layer = 0; layer < 4; ++layer) {
    VhdxImage image(OptionsOf(layer));
    image.AddBlock(layer * 2, layer + 1);
    image.WriteTo(PathOf(layer));
  }
  EXPECT_EQ(MustRead(3, 1), (std::vector<Range>{{6 * kMiB, kMiB}}));
  EXPECT_EQ(MustRead(3, 2), (std::vector<Range>{{4 * kMiB, kMiB}, {6 * kMiB, kMiB}}));
  EXPECT_EQ(MustRead(3, 3),
            (std::vector<Range>{{2 * kMiB, kMiB}, {4 * kMiB, kMiB}, {6 * kMiB, kMiB}}));
}

TEST_F(LayerChangesTest, ADirtyLogIsReplayedFirst) {
  VhdxImage(OptionsOf(0)).WriteTo(PathOf(0));
  VhdxOptions options = OptionsOf(1);
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
  child.WriteTo(PathOf(1));
  EXPECT_EQ(MustRead(1, 1), (std::vector<Range>{{kMiB, 4096}}));
}

TEST_F(LayerChangesTest, WhatALayerIsLongerOrShorterCountsAsChanged) {
  VhdxImage(OptionsOf(0, 6 * kMiB)).WriteTo(PathOf(0));
  VhdxImage(OptionsOf(1, 4 * kMiB + 512)).WriteTo(PathOf(1));
  VhdxImage top(OptionsOf(2, 7 * kMiB));
  top.AddBlock(1, 1);
  top.WriteTo(PathOf(2));
  EXPECT_EQ(MustRead(2, 2), (std::vector<Range>{{kMiB, kMiB}, {4 * kMiB, 3 * kMiB}}));
  EXPECT_EQ(Read(2, 2)->identity.size, 7 * kMiB);
}

TEST_F(LayerChangesTest, ManyRangesAreJoinedWhereTheyLieNearest) {
  VhdxImage(OptionsOf(0)).WriteTo(PathOf(0));
  VhdxImage child(OptionsOf(1));
  child.AddBitmap(0);
  for (uint64_t block = 0; block < 8; ++block) {
    child.AddBlock(block, block + 1, PayloadState::kPartiallyPresent);
  }
  // Every second page of block 2, and a single one far away.
  for (uint64_t page = 0; page < 256; page += 2) child.SetPresent(2 * 2048 + page * 8, 1);
  child.SetPresent(7 * 2048, 1);
  child.WriteTo(PathOf(1));
  EXPECT_EQ(MustRead(1, 1).size(), 129u);
  EXPECT_EQ(MustRead(1, 1, 8), (std::vector<Range>{{2 * kMiB, kMiB - 4096}, {7 * kMiB, 4096}}));
  EXPECT_EQ(MustRead(1, 1, 1), (std::vector<Range>{{2 * kMiB, 5 * kMiB + 4096}}));
}

TEST_F(LayerChangesTest, AnotherBaseThanTheRecordedOneIsRefused) {
  VhdxImage(OptionsOf(0)).WriteTo(PathOf(0));
  VhdxImage(OptionsOf(1)).WriteTo(PathOf(1));
  LayerChangesOptions options;
  options.open.direct = false;
  for (const std::string& linkage : {GuidToString(IdOf(1)), std::string(), std::string("\n")}) {
    options.base_linkage = linkage;
    const Status status = ReadLayerChanges(FileSystem::Default(), PathOf(1), options).status();
    EXPECT_EQ(CodeName(status.code()), CodeName(Code::kParentMismatch)) << status.ToString();
  }
}

TEST_F(LayerChangesTest, AChainWhoseLinkIsBrokenIsRefused) {
  VhdxOptions changed = OptionsOf(0);
  changed.data_write_guid = MakeGuid(0x77);  // as after a write from elsewhere
  VhdxImage(changed).WriteTo(PathOf(0));
  VhdxImage(OptionsOf(1)).WriteTo(PathOf(1));
  const Status status = Read(1, 1).status();
  EXPECT_EQ(CodeName(status.code()), CodeName(Code::kParentMismatch)) << status.ToString();
}

TEST_F(LayerChangesTest, MoreLayersThanThereAreToldApartIsRefused) {
  VhdxImage(OptionsOf(0)).WriteTo(PathOf(0));
  VhdxImage(OptionsOf(1)).WriteTo(PathOf(1));
  LayerChangesOptions options;
  options.open.direct = false;
  options.base_linkage = GuidToString(IdOf(0));
  for (const uint32_t layers : {0u, 2u, 0xFFFFFFFFu}) {
    options.layers = layers;
    const Status status = ReadLayerChanges(FileSystem::Default(), PathOf(1), options).status();
    EXPECT_EQ(CodeName(status.code()), CodeName(Code::kUnsupported)) << status.ToString();
  }
}

TEST_F(LayerChangesTest, RandomChainsDifferOnlyInTheirRanges) {
  std::mt19937_64 random(20250117);
  for (int round = 0; round < 10; ++round) {
    const size_t layers = 2 + random() % 3;
    for (size_t i = 0; i < layers; ++i) {
      VhdxOptions options = OptionsOf(i, 6 * kMiB + 512 * (random() % 5));
      options.block_size = static_cast<uint32_t>(kMiB << random() % 3);
      VhdxImage image(options);
      if (i > 0) image.AddBitmap(0);
      for (uint64_t block = 0; block < image.layout().payload_blocks; ++block) {
        const uint64_t seed = i * 100 + block;
        switch (random() % (i > 0 ? 8 : 3)) {
          case 0:
            image.AddBlock(block, seed);
            break;
          case 1:
            image.SetState(block, PayloadState::kZero);
            break;
          case 2:
            image.SetState(block, PayloadState::kUnmapped);
            break;
          case 3:
          case 4: {
            image.AddBlock(block, seed, PayloadState::kPartiallyPresent);
            const uint64_t sectors = image.layout().BytesInBlock(block) / 512;
            for (uint64_t sector = random() % sectors; sector < sectors;
                 sector += 1 + random() % 500) {
              image.SetPresent(block * options.block_size / 512 + sector,
                               std::min(1 + random() % 40, sectors - sector));
            }
            break;
          }
          default:
            break;
        }
      }
      image.WriteTo(PathOf(i));
    }
    const auto whole = MustOpen(PathOf(layers - 1));
    ASSERT_NE(whole, nullptr);
    const Bytes after = ReadAll(*whole);
    for (uint32_t asked = 1; asked < layers; ++asked) {
      SCOPED_TRACE("round " + std::to_string(round) + ", " + std::to_string(asked) + " layers");
      const auto below = MustOpen(PathOf(layers - 1 - asked));
      ASSERT_NE(below, nullptr);
      const Bytes before = ReadAll(*below);
      ExpectCover(MustRead(layers - 1, asked), before, after);
      ExpectCover(MustRead(layers - 1, asked, 2), before, after);
    }
  }
}

// What the writer of the lab's and of instant recovery's layers makes, in sectors of both sizes.
TEST_F(LayerChangesTest, WhatTheDifferencingWriterWroteAreThePagesThatChanged) {
  std::mt19937_64 random(7);
  for (const uint32_t sector : {512u, 4096u}) {
    const std::string base = folder_ / ("base" + std::to_string(sector) + ".vhdx");
    const std::string child = folder_ / ("child" + std::to_string(sector) + ".avhdx");
    CreateDiskOptions create;
    create.direct = false;
    create.identity = {.format = DiskFormat::kVhdx,
                       .kind = DiskKind::kDynamic,
                       .size = 64 * kMiB,
                       .block_size = 4 * kMiB,
                       .logical_sector_size = sector,
                       .physical_sector_size = 4096};
    auto writer = DiskWriter::Create(FileSystem::Default(), base, create);
    ASSERT_TRUE(writer.ok()) << writer.status().ToString();
    ASSERT_TRUE((*writer)->Write(0, Pattern(1, 0, 24 * kMiB)).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    create.identity.kind = DiskKind::kDifferencing;
    create.identity.block_size = 2 * kMiB;
    create.parent_path = base;
    writer = DiskWriter::Create(FileSystem::Default(), child, create);
    ASSERT_TRUE(writer.ok()) << writer.status().ToString();
    std::vector<bool> written(64 * kMiB / 4096);
    for (int i = 0; i < 60; ++i) {
      const uint64_t offset = random() % (64 * kMiB / sector) * sector;
      const uint64_t length = std::min(64 * kMiB - offset, (1 + random() % 40) * sector);
      ASSERT_TRUE((*writer)->Write(offset, Pattern(random(), offset, length)).ok());
      for (uint64_t at = offset; at < offset + length; ++at) written[at / 4096] = true;
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    const auto disk = MustOpen(base);
    ASSERT_NE(disk, nullptr);
    LayerChangesOptions options;
    options.open.direct = false;
    options.base_linkage = disk->layers().front().data_write_guid;
    const auto changes = ReadLayerChanges(FileSystem::Default(), child, options);
    ASSERT_TRUE(changes.ok()) << changes.status().ToString();
    std::vector<bool> reported(written.size());
    for (const Range& range : changes->ranges) {
      ASSERT_EQ(range.offset % 4096, 0u);
      for (uint64_t at = range.offset; at < range.offset + range.length; at += 4096) {
        reported[at / 4096] = true;
      }
    }
    EXPECT_TRUE(reported == written);
    EXPECT_EQ(changes->identity.disk_id, disk->identity().disk_id);
  }
}

}  // namespace
}  // namespace firn
