#include "disk/vhdx_format.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace firn::vhdx {
namespace {

struct LayoutCase {
  uint64_t virtual_size, block_size, sector_size;
  uint64_t chunk_ratio, blocks, chunks, entries, entries_with_parent;
};

TEST(VhdxFormatTest, TheBatOfADiskHasTheKnownSizes) {
  const LayoutCase cases[] = {
      {kGiB, 32 * kMiB, 512, 128, 32, 1, 32, 129},
      {10 * kGiB, 4 * kMiB, 512, 1024, 2560, 3, 2562, 3075},
      {127 * kGiB, 32 * kMiB, 512, 128, 4064, 32, 4095, 4128},
      {127 * kGiB, 2 * kMiB, 512, 2048, 65024, 32, 65055, 65568},
      {4097 * kMiB, kMiB, 512, 4096, 4097, 2, 4098, 8194},
      {64 * kTiB, kMiB, 512, 4096, 67108864, 16384, 67125247, 67125248},
      {64 * kGiB, 256 * kMiB, 512, 16, 256, 16, 271, 272},
      {64 * kGiB, kMiB, 4096, 32768, 65536, 2, 65537, 65538},
  };
  for (const LayoutCase& c : cases) {
    const BatLayout plain = MakeBatLayout(c.virtual_size, c.block_size, c.sector_size, false);
    EXPECT_EQ(plain.chunk_ratio, c.chunk_ratio);
    EXPECT_EQ(plain.payload_blocks, c.blocks);
    EXPECT_EQ(plain.chunks, c.chunks);
    EXPECT_EQ(plain.entries, c.entries);
    const BatLayout child = MakeBatLayout(c.virtual_size, c.block_size, c.sector_size, true);
    EXPECT_EQ(child.entries, c.entries_with_parent);
  }
}

TEST(VhdxFormatTest, BlocksAndIndicesMapToEachOtherAroundBitmapSlots) {
  const BatLayout layout = MakeBatLayout(16 * kGiB, kMiB, 512, true);
  ASSERT_EQ(layout.chunk_ratio, 4096u);
  EXPECT_EQ(layout.PayloadIndex(4095), 4095u);
  EXPECT_EQ(layout.PayloadIndex(4096), 4097u);
  EXPECT_EQ(layout.BitmapIndex(0), 4096u);
  EXPECT_EQ(layout.BitmapIndex(1), 8193u);
  for (uint64_t block : {0, 1, 4095, 4096, 4097, 8191, 8192, 16383}) {
    EXPECT_EQ(layout.BlockAtOrAfter(layout.PayloadIndex(block)), block);
    EXPECT_FALSE(layout.IsBitmapIndex(layout.PayloadIndex(block)));
  }
  EXPECT_TRUE(layout.IsBitmapIndex(4096));
  EXPECT_EQ(layout.BlockAtOrAfter(4096), 4096u);
  EXPECT_EQ(layout.FirstBit(4097), 2048u);
}

TEST(VhdxFormatTest, TheLastBlockHoldsWhatIsLeftOfTheDisk) {
  const BatLayout layout = MakeBatLayout(5 * kMiB + 512, 2 * kMiB, 512, false);
  EXPECT_EQ(layout.payload_blocks, 3u);
  EXPECT_EQ(layout.BytesInBlock(1), 2 * kMiB);
  EXPECT_EQ(layout.BytesInBlock(2), kMiB + 512);
}

TEST(VhdxFormatTest, TheChecksumCountsItsOwnFieldAsZero) {
  std::vector<uint8_t> bytes(32, 0);
  EXPECT_EQ(StructureChecksum(bytes, 4), 0x8A9136AAu);
  bytes[4] = 0xFF;
  EXPECT_EQ(StructureChecksum(bytes, 4), 0x8A9136AAu);
  EXPECT_FALSE(ChecksumMatches(bytes, 4));
  SealChecksum(bytes, 4);
  EXPECT_TRUE(ChecksumMatches(bytes, 4));
  bytes[31] = 1;
  EXPECT_FALSE(ChecksumMatches(bytes, 4));
}

TEST(VhdxFormatTest, GuidsAreTheOnesTheSpecificationNames) {
  EXPECT_EQ(GuidToString(kBatRegion), "2dc27766-f623-4200-9d64-115e9bfd4a08");
  EXPECT_EQ(GuidToString(kMetadataRegion), "8b7ca206-4790-4b9a-b8fe-575f050f886e");
  EXPECT_EQ(GuidToString(kFileParameters), "caa16737-fa36-4d43-b3b6-33f0aa44e76b");
  EXPECT_EQ(GuidToString(kVirtualDiskSize), "2fa54224-cd1b-4876-b211-5dbed83bf4b8");
  EXPECT_EQ(GuidToString(kVirtualDiskId), "beca12ab-b2e6-4523-93ef-c309e000c746");
  EXPECT_EQ(GuidToString(kLogicalSectorSize), "8141bf1d-a96f-4709-ba47-f233a8faab5f");
  EXPECT_EQ(GuidToString(kPhysicalSectorSize), "cda348c7-445d-4471-9cc9-e9885251c556");
  EXPECT_EQ(GuidToString(kParentLocator), "a8d35f2d-b30b-454d-abf7-d3d84834ab0c");
  EXPECT_EQ(GuidToString(kParentLocatorType), "b04aefb7-d19e-4a81-b789-25b8e9445913");
  EXPECT_EQ(GuidToString(kIncompleteFile), "71cc85f0-1b69-4e28-9558-c3bf83ae75d3");
  EXPECT_EQ(GuidToString(kChsParameters), "da02d7bc-3d3a-423c-ac88-2a36ab21479b");
  EXPECT_EQ(GuidToString(kPmemLabelArea), "10e1ae8a-4b7e-4169-a40f-cd70de928393");
}

TEST(VhdxFormatTest, TextSurvivesUtf16AndBack) {
  for (const std::string text :
       {"C:\\vm\\disk.vhdx", "gr\xC3\xBC\xC3\x9F", "\xE2\x82\xAC", "\xF0\x9F\x98\x80 smile", ""}) {
    const std::optional<std::string> units = Utf8ToUtf16Le(text);
    ASSERT_TRUE(units.has_value());
    const std::vector<uint8_t> bytes(units->begin(), units->end());
    EXPECT_EQ(Utf16LeToUtf8(bytes), text);
  }
}

TEST(VhdxFormatTest, MalformedTextIsRefused) {
  const std::vector<uint8_t> odd = {'a', 0, 'b'};
  const std::vector<uint8_t> nul = {'a', 0, 0, 0};
  const std::vector<uint8_t> lone_high = {0x00, 0xD8};
  const std::vector<uint8_t> high_then_letter = {0x00, 0xD8, 'a', 0};
  const std::vector<uint8_t> lone_low = {0x00, 0xDC, 'a', 0};
  for (const auto& bytes : {odd, nul, lone_high, high_then_letter, lone_low}) {
    EXPECT_FALSE(Utf16LeToUtf8(bytes).has_value());
  }
  for (const char* text : {"\x80", "\xC3", "\xC0\xAF", "\xED\xA0\x80", "\xF5\x80\x80\x80"}) {
    EXPECT_FALSE(Utf8ToUtf16Le(text).has_value());
  }
}

}  // namespace
}  // namespace firn::vhdx
