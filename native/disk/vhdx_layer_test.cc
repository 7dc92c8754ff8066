// What blocks read as: states, places in the table, sizes. Differencing disks are in
// disk_chain_test.cc.

#include "disk/vhdx_layer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "core/core_test_util.h"
#include "disk/vhdx_image_test_util.h"
#include "io/aligned_buffer.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;

class VhdxLayerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Disk> Open(const VhdxImage& image) {
    image.WriteTo(path_);
    return MustOpen(path_);
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
};

TEST_F(VhdxLayerTest, TheIdentityIsWhatTheMetadataSays) {
  const auto disk = Open(VhdxImage({.virtual_size = 5 * kMiB + 512, .block_size = 2 * kMiB}));
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().format, DiskFormat::kVhdx);
  EXPECT_EQ(disk->identity().kind, DiskKind::kDynamic);
  EXPECT_EQ(disk->size(), 5 * kMiB + 512);
  EXPECT_EQ(disk->identity().block_size, 2 * kMiB);
  EXPECT_EQ(disk->identity().logical_sector_size, 512u);
  EXPECT_EQ(disk->identity().physical_sector_size, 4096u);
  EXPECT_EQ(disk->identity().disk_id, MakeGuid(0x1D));
  ASSERT_EQ(disk->layers().size(), 1u);
  EXPECT_EQ(disk->layers()[0].creator, "firn tests");
  EXPECT_EQ(disk->layers()[0].data_write_guid, GuidToString(MakeGuid(0xD0)));
  EXPECT_EQ(disk->layers()[0].log.state, LogInfo::State::kClean);
  EXPECT_TRUE(disk->layers()[0].findings.empty());

  const auto fixed = Open(VhdxImage({.fixed = true}));
  ASSERT_NE(fixed, nullptr);
  EXPECT_EQ(fixed->identity().kind, DiskKind::kFixed);
}

TEST_F(VhdxLayerTest, OnlyPresentBlocksOfADiskWithoutParentHoldData) {
  for (const bool fixed : {false, true}) {
    VhdxImage image({.virtual_size = 6 * kMiB, .fixed = fixed});
    image.SetState(0, PayloadState::kNotPresent);
    image.AddBlock(1, 1, PayloadState::kUndefined);  // their space is only kept for them
    image.SetState(2, PayloadState::kZero);
    image.AddBlock(3, 3, PayloadState::kUnmapped);
    image.AddBlock(4, 4);
    Expected expected(6 * kMiB);
    expected.Fill(4, 4 * kMiB, kMiB);
    const auto disk = Open(image);
    ASSERT_NE(disk, nullptr);
    ExpectSameBytes(ReadAll(*disk), expected.bytes());
    const LayerInfo& info = disk->layers()[0];
    EXPECT_EQ(info.blocks, 6u);
    EXPECT_EQ(info.blocks_full, 1u);
    EXPECT_EQ(info.blocks_partial, 0u);
    EXPECT_EQ(info.blocks_zero, 3u);
    EXPECT_EQ(disk->NextPresent(0).value(), 4 * kMiB);
    EXPECT_EQ(disk->NextPresent(4 * kMiB + 5).value(), 4 * kMiB + 5);
    EXPECT_EQ(disk->NextPresent(5 * kMiB).value(), 6 * kMiB);
  }
}

TEST_F(VhdxLayerTest, BlocksOnBothSidesOfABitmapSlotAreFound) {
  // Blocks 4095 and 4096 stand before and after the first slot, 8191 and 8192 around the second.
  VhdxImage image({.virtual_size = 9 * kGiB});
  for (const uint64_t block : {4095, 4096, 8191, 8192}) image.AddBlock(block, block);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  for (const uint64_t block : {4095, 4096, 8191, 8192}) {
    const uint64_t offset = block * kMiB;
    ExpectSameBytes(ReadRange(*disk, offset, kMiB), Pattern(block, offset, kMiB));
  }
  EXPECT_EQ(disk->NextPresent(0).value(), 4095 * kMiB);
  EXPECT_EQ(disk->NextPresent(4097 * kMiB).value(), 8191 * kMiB);
  EXPECT_EQ(ReadRange(*disk, 4094 * kMiB, 16), Bytes(16));
  EXPECT_EQ(ReadRange(*disk, 4097 * kMiB, 16), Bytes(16));
}

TEST_F(VhdxLayerTest, ASectorSizeOf4096MovesTheBitmapSlots) {
  VhdxImage image({.virtual_size = 33 * kGiB, .block_size = kMiB, .logical_sector_size = 4096});
  ASSERT_EQ(image.layout().chunk_ratio, 32768u);
  for (const uint64_t block : {4096, 32767, 32768}) image.AddBlock(block, block);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().logical_sector_size, 4096u);
  for (const uint64_t block : {4096, 32767, 32768}) {
    const uint64_t offset = block * kMiB;
    ExpectSameBytes(ReadRange(*disk, offset, kMiB), Pattern(block, offset, kMiB));
  }
}

TEST_F(VhdxLayerTest, TheLargestBlocksWork) {
  VhdxImage image({.virtual_size = 5 * kGiB, .block_size = 256 * kMiB});
  ASSERT_EQ(image.layout().chunk_ratio, 16u);
  // Block 16 is the first of the second chunk; only its ends have content.
  const uint64_t offset = image.AddHollowBlock(16);
  const uint64_t begin = 16 * 256 * kMiB;
  image.Patch(offset, Pattern(1, begin, 4096));
  image.Patch(offset + 256 * kMiB - 4096, Pattern(1, begin + 256 * kMiB - 4096, 4096));
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(ReadRange(*disk, begin, 4096), Pattern(1, begin, 4096));
  EXPECT_EQ(ReadRange(*disk, begin + 256 * kMiB - 4096, 8192).front(),
            PatternByte(1, begin + 256 * kMiB - 4096));
  EXPECT_EQ(ReadRange(*disk, begin + 256 * kMiB, 4096), Bytes(4096));
  EXPECT_EQ(ReadRange(*disk, begin - 4096, 4096), Bytes(4096));
}

TEST_F(VhdxLayerTest, TheLastBlockMayReachPastTheDisk) {
  VhdxImage image({.virtual_size = 3 * kMiB + 512, .block_size = 2 * kMiB});
  image.AddBlock(0, 5);
  image.AddBlock(1, 6);
  Expected expected(3 * kMiB + 512);
  expected.Fill(5, 0, 2 * kMiB);
  expected.Fill(6, 2 * kMiB, 2 * kMiB);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
  std::vector<Extent> extents;
  EXPECT_EQ(disk->Map(3 * kMiB, 1024, &extents).code(), Code::kInvalidArgument);
}

TEST_F(VhdxLayerTest, AFileThatEndsInsideTheLastBlockIsWholeIfTheDiskEndsThere) {
  VhdxImage image({.virtual_size = 3 * kMiB + 512, .block_size = 2 * kMiB});
  const uint64_t offset = image.AddBlock(1, 6);
  Expected expected(3 * kMiB + 512);
  expected.Fill(6, 2 * kMiB, 2 * kMiB);
  image.file().Resize(offset + kMiB + 512);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadAll(*disk), expected.bytes());
  EXPECT_TRUE(HasFinding(disk->layers()[0], "short-last-block"));

  image.file().Resize(offset + kMiB + 511);
  image.WriteTo(path_);
  ExpectRefused(path_, Code::kDiskTruncated, "block-truncated");
}

TEST_F(VhdxLayerTest, NeighboursInTheFileBecomeOneExtent) {
  VhdxImage image({.virtual_size = 8 * kMiB});
  for (uint64_t block = 0; block < 8; ++block) {
    if (block != 5) image.AddBlock(block, block);
  }
  image.AddBlock(5, 5);  // lies last in the file
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  const std::vector<Extent> extents = MapRange(*disk, 0, 8 * kMiB);
  ASSERT_EQ(extents.size(), 3u);
  EXPECT_EQ(extents[0].length, 5 * kMiB);
  EXPECT_EQ(extents[1].length, kMiB);
  EXPECT_EQ(extents[2].length, 2 * kMiB);
  EXPECT_EQ(extents[0].source->buffered->path(), path_);
}

TEST_F(VhdxLayerTest, EveryRangeMapsToTheSameBytes) {
  VhdxImage image({.virtual_size = 6 * kMiB + 512, .block_size = kMiB});
  image.AddBlock(1, 1);
  image.AddBlock(2, 2);
  image.AddBlock(6, 6);
  image.AddBlock(4, 4);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  const Bytes whole = ReadAll(*disk);
  ExpectHolesAreZero(*disk, whole);
  uint64_t offset = 1;
  for (uint64_t length = 1; offset + length <= disk->size(); length = length * 3 + 1) {
    MapRange(*disk, offset, length);
    const Bytes part = ReadRange(*disk, offset, length);
    ExpectSameBytes(part, Bytes(whole.begin() + static_cast<ptrdiff_t>(offset),
                                whole.begin() + static_cast<ptrdiff_t>(offset + length)));
    offset += kMiB / 2 - 77;
  }
  EXPECT_TRUE(disk->Map(disk->size(), 0, nullptr).ok());
}

TEST_F(VhdxLayerTest, PayloadCanBeReadPastTheCache) {
  VhdxImage image;
  image.AddBlock(3, 3);
  image.WriteTo(path_);
  OpenDiskOptions options;
  options.direct = true;
  const auto disk = MustOpen(path_, options);
  ASSERT_NE(disk, nullptr);
  const std::vector<Extent> extents = MapRange(*disk, 3 * kMiB, kMiB);
  ASSERT_EQ(extents.size(), 1u);
  const SourceFile& source = *extents[0].source;
  if (source.direct == nullptr) GTEST_SKIP() << "no unbuffered I/O in " << folder_.path();
  AlignedBuffer memory = test::Must(AlignedBuffer::Allocate(kMiB));
  const std::span<uint8_t> buffer = memory.span();
  EXPECT_TRUE(source.direct->ReadAt(extents[0].source_offset, buffer).ok());
  ExpectSameBytes(Bytes(buffer.begin(), buffer.end()), Pattern(3, 3 * kMiB, kMiB));
}

TEST_F(VhdxLayerTest, SeveralThreadsMayReadAtOnce) {
  VhdxImage image({.virtual_size = 300 * kGiB});
  std::vector<uint64_t> blocks;
  for (uint64_t i = 0; i < 40; ++i) blocks.push_back(i * 7001);
  for (const uint64_t block : blocks)
    image.Patch(image.AddHollowBlock(block), Pattern(1, block * kMiB, 4096));
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 400; ++i) {
        const uint64_t block = blocks[(i * (t + 3)) % blocks.size()];
        Bytes bytes(4096);
        const bool read = disk->Read(block * kMiB, bytes).ok();
        const bool found = disk->NextPresent(block * kMiB).value() == block * kMiB;
        if (!read || !found || bytes != Pattern(1, block * kMiB, 4096)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(VhdxLayerTest, AHeaderThatMovesIsAChangedSource) {
  VhdxImage image;
  image.AddBlock(0, 1);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(disk->CheckUnchanged().ok());
  image.ChangeHeader(0, [](Bytes& bytes) {
    StoreLe<uint64_t>(bytes.data() + 8, 9);
    bytes[16] = 0x55;  // FileWriteGuid
  });
  const auto file = FileSystem::Default().Open(path_, {.access = Access::kReadWrite});
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(65536, image.file().Read(65536, 4096)).ok());
  EXPECT_EQ(disk->CheckUnchanged().code(), Code::kSourceChanged);
}

TEST_F(VhdxLayerTest, AFileThatGrowsIsAChangedSource) {
  const auto disk = Open(VhdxImage());
  ASSERT_NE(disk, nullptr);
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) + kMiB);
  EXPECT_EQ(disk->CheckUnchanged().code(), Code::kSourceChanged);
}

TEST_F(VhdxLayerTest, ATableThatMovesUnderTheReaderIsNoticedNotBelieved) {
  VhdxImage image;
  image.AddBlock(0, 1);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  // Nothing of the table is cached yet: Open only walked it.
  const auto file = FileSystem::Default().Open(path_, {.access = Access::kReadWrite});
  ASSERT_TRUE(file.ok());
  Bytes entry(8);
  StoreLe<uint64_t>(entry.data(), vhdx::MakeBatEntry(PayloadState::kFullyPresent, 900 * kMiB));
  ASSERT_TRUE((*file)->WriteAt(image.BatEntryOffset(0), entry).ok());
  std::vector<Extent> extents;
  EXPECT_EQ(disk->Map(0, 4096, &extents).code(), Code::kSourceChanged);
}

TEST_F(VhdxLayerTest, OpeningChangesNothing) {
  VhdxImage image;
  image.AddBlock(0, 1);
  image.WriteTo(path_);
  std::filesystem::permissions(path_, std::filesystem::perms::owner_read);
  const auto before = std::filesystem::last_write_time(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  ReadAll(*disk);
  EXPECT_EQ(std::filesystem::last_write_time(path_), before);
  // Windows removes no file that can't be written to.
  std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
}

}  // namespace
}  // namespace firn
