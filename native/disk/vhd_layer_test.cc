#include "disk/vhd_layer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "disk/vhd_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

class VhdLayerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Disk> Open(VhdImage& image) {
    image.WriteTo(path_);
    return MustOpen(path_);
  }
  void Refused(VhdImage& image, Code code, const std::string& finding) {
    image.WriteTo(path_);
    ExpectRefused(path_, code, finding);
  }

  // A fixed VHD of the pattern 1.
  SparseBytes Fixed(uint64_t size) {
    SparseBytes file;
    file.Write(0, Pattern(1, 0, size));
    file.Write(size, VhdImage::MakeFooter({.type = vhd::Type::kFixed, .virtual_size = size}));
    return file;
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhd";
};

// --- Fixed ---

TEST_F(VhdLayerTest, AFixedDiskIsItsFileWithoutTheFooter) {
  Fixed(kMiB + 512).WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().format, DiskFormat::kVhd);
  EXPECT_EQ(disk->identity().kind, DiskKind::kFixed);
  EXPECT_EQ(disk->identity().block_size, 0u);
  EXPECT_EQ(disk->size(), kMiB + 512);
  ExpectSameBytes(ReadAll(*disk), Pattern(1, 0, kMiB + 512));
  EXPECT_TRUE(disk->layers()[0].findings.empty());
  EXPECT_EQ(disk->layers()[0].creator, "win 6.3 (Wi2k)");
  EXPECT_EQ(disk->layers()[0].data_write_guid, "11111111-1111-1111-1111-111111111111");
}

TEST_F(VhdLayerTest, AnOldFooterLacksItsLastByte) {
  SparseBytes file = Fixed(kMiB);
  file.Resize(kMiB + 511);
  file.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadAll(*disk), Pattern(1, 0, kMiB));
  EXPECT_TRUE(HasFinding(disk->layers()[0], "old-footer"));
}

TEST_F(VhdLayerTest, AFixedDiskLongerThanItsFileIsTruncated) {
  SparseBytes file;
  file.Write(0, Bytes(kMiB));
  file.Write(kMiB, VhdImage::MakeFooter({.type = vhd::Type::kFixed, .virtual_size = kMiB + 512}));
  file.WriteTo(path_);
  ExpectRefused(path_, Code::kDiskTruncated, "payload-truncated");
}

TEST_F(VhdLayerTest, AFixedDiskWithoutItsFooterIsRefused) {
  SparseBytes file = Fixed(kMiB);
  file.Resize(kMiB);
  file.WriteTo(path_);
  ExpectRefused(path_, Code::kDiskInvalid, "no-signature");
  // The guest's own first sector may look like the footer of another disk.
  file.Write(0, VhdImage::MakeFooter({.type = vhd::Type::kFixed, .virtual_size = kMiB}));
  file.WriteTo(path_);
  ExpectRefused(path_, Code::kDiskInvalid, "footers-bad");
}

TEST_F(VhdLayerTest, TheGuestsFirstSectorDoesNotReplaceTheFooter) {
  SparseBytes file = Fixed(kMiB);
  file.Write(0, VhdImage::MakeFooter({.type = vhd::Type::kDynamic, .virtual_size = 64 * kMiB}));
  file.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->size(), kMiB);
  EXPECT_EQ(ReadRange(*disk, 0, 8), (Bytes{'c', 'o', 'n', 'e', 'c', 't', 'i', 'x'}));
}

TEST_F(VhdLayerTest, HolesOfAFixedDisksFileAreHolesOfTheDisk) {
  SparseBytes file;
  file.Write(4 * kMiB, Pattern(1, 4 * kMiB, 64 * kKiB));
  file.Write(8 * kMiB, VhdImage::MakeFooter({.type = vhd::Type::kFixed, .virtual_size = 8 * kMiB}));
  file.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  Expected expected(8 * kMiB);
  expected.Fill(1, 4 * kMiB, 64 * kKiB);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
}

// --- Dynamic ---

TEST_F(VhdLayerTest, ADynamicDiskHasItsCurrentSizeAndIgnoresBitmaps) {
  VhdImage image({.virtual_size = 7 * kMiB + 512});
  image.AddBlock(2, 2);  // bitmaps are all zero, which Windows ignores in a dynamic disk
  image.AddBlock(0, 0);
  image.AddBlock(3, 3);
  Expected expected(7 * kMiB + 512);
  for (const uint64_t block : {0, 2, 3}) expected.Fill(block, block * 2 * kMiB, 2 * kMiB);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().kind, DiskKind::kDynamic);
  EXPECT_EQ(disk->identity().block_size, 2 * kMiB);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
  EXPECT_EQ(disk->layers()[0].blocks, 4u);
  EXPECT_EQ(disk->layers()[0].blocks_full, 3u);
  EXPECT_TRUE(disk->layers()[0].findings.empty());
  EXPECT_EQ(disk->NextPresent(2 * kMiB).value(), 4 * kMiB);
  EXPECT_TRUE(disk->CheckUnchanged().ok());
}

TEST_F(VhdLayerTest, TheFootersCopyServesWhenTheFooterIsLost) {
  VhdImage image;
  const uint64_t offset = image.AddBlock(0, 1);
  image.WriteTo(path_);
  for (const uint64_t cut : {uint64_t{1}, uint64_t{2}, uint64_t{512}}) {
    std::filesystem::resize_file(path_, image.end() + 512 - cut);
    const auto disk = MustOpen(path_);
    ASSERT_NE(disk, nullptr) << cut;
    ExpectSameBytes(ReadRange(*disk, 0, 2 * kMiB), Pattern(1, 0, 2 * kMiB));
    EXPECT_EQ(HasFinding(disk->layers()[0], "footer-bad"), cut != 1) << cut;
  }
  // Not a byte of the block may be missing.
  std::filesystem::resize_file(path_, offset + 512 + 2 * kMiB - 1);
  ExpectRefused(path_, Code::kDiskTruncated, "block-truncated");
}

TEST_F(VhdLayerTest, ADamagedCopyOfTheFooterIsAWarning) {
  VhdImage image;
  image.AddBlock(0, 1);
  image.Seal();
  image.file().Write(100, {{1}});
  image.file().WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "footer-copy-bad"));
  image.file().Write(image.end() + 100, {{1}});
  image.file().WriteTo(path_);
  ExpectRefused(path_, Code::kDiskInvalid, "footers-bad");
}

TEST_F(VhdLayerTest, FootersThatDifferReadByTheOneAtTheEnd) {
  VhdImage image;
  image.Seal();
  image.file().Write(0, VhdImage::MakeFooter({.virtual_size = 2 * kMiB}));
  image.file().WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->size(), 8 * kMiB);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "footers-differ"));
}

TEST_F(VhdLayerTest, AShortLastBlockIsWholeIfTheDiskEndsThere) {
  VhdImage image({.virtual_size = 2 * kMiB + 512});
  const uint64_t offset = image.AddBlock(1, 1);
  image.Seal();
  image.file().Resize(offset + 512 + 512);  // without a footer at the end
  image.file().WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  ExpectSameBytes(ReadRange(*disk, 2 * kMiB, 512), Pattern(1, 2 * kMiB, 512));
}

TEST_F(VhdLayerTest, ImpossibleHeadersAreRefused) {
  namespace field = vhd::dynamic_header;
  const auto refuse = [&](size_t offset, auto value, Code code, const std::string& finding) {
    VhdImage image;
    image.AddBlock(0, 1);
    image.ChangeHeader([&](Bytes& header) { StoreBe(header.data() + offset, value); });
    Refused(image, code, finding);
  };
  for (const uint32_t block_size :
       {0u, 512u, 256 * uint32_t{kKiB}, 3 * uint32_t{kMiB}, 512 * uint32_t{kMiB}, 0x80000000u}) {
    refuse(field::kBlockSize, block_size, Code::kDiskInvalid, "block-size");
  }
  refuse(field::kMaxTableEntries, uint32_t{3}, Code::kDiskInvalid, "bat-too-short");
  refuse(field::kTableOffset, uint64_t{0}, Code::kDiskInvalid, "bat-place");
  refuse(field::kTableOffset, uint64_t{1000}, Code::kDiskInvalid, "bat-place");
  refuse(field::kTableOffset, 900 * kMiB, Code::kDiskTruncated, "bat-place");
  refuse(field::kTableOffset, ~uint64_t{0}, Code::kDiskTruncated, "bat-place");
  refuse(field::kVersion, uint32_t{0x00020000}, Code::kUnsupported, "version");
  refuse(0, uint8_t{'x'}, Code::kDiskInvalid, "dynamic-header-bad");

  VhdImage damaged;
  damaged.file().Write(512 + 900, {{1}});
  Refused(damaged, Code::kDiskInvalid, "dynamic-header-bad");
}

TEST_F(VhdLayerTest, ImpossibleFootersAreRefused) {
  const auto refuse = [&](size_t offset, auto value, Code code, const std::string& finding) {
    VhdImage image;
    image.Seal();
    Bytes footer = image.file().Read(image.end(), 512);
    StoreBe(footer.data() + offset, value);
    vhd::SealChecksum(footer, 64);
    image.file().Write(image.end(), footer);
    image.file().WriteTo(path_);
    ExpectRefused(path_, code, finding);
  };
  refuse(12, uint32_t{0x00020000}, Code::kUnsupported, "version");
  refuse(60, uint32_t{5}, Code::kDiskInvalid, "disk-type");
  refuse(60, uint32_t{0}, Code::kDiskInvalid, "disk-type");
  refuse(48, uint64_t{0}, Code::kDiskInvalid, "virtual-size");
  refuse(48, uint64_t{1000}, Code::kDiskInvalid, "virtual-size");
  refuse(48, 9 * kMiB, Code::kDiskInvalid, "bat-too-short");
  refuse(48, 3000 * kGiB, Code::kDiskInvalid, "virtual-size");
  refuse(48, RoundDown(~uint64_t{0}, 512), Code::kDiskInvalid, "virtual-size");
  refuse(16, uint64_t{0}, Code::kDiskInvalid, "dynamic-header-place");
  refuse(16, 900 * kMiB, Code::kDiskTruncated, "dynamic-header-place");
  refuse(16, ~uint64_t{0}, Code::kDiskTruncated, "dynamic-header-place");
}

TEST_F(VhdLayerTest, BlocksAtImpossiblePlacesAreRefused) {
  const auto refuse = [&](uint32_t sector, Code code, const std::string& finding) {
    VhdImage image;
    image.AddBlock(0, 1);
    image.SetEntry(1, sector);
    Refused(image, code, finding);
  };
  VhdImage layout;
  const auto first = static_cast<uint32_t>(layout.AddBlock(0, 1) / 512);
  refuse(0, Code::kDiskInvalid, "bat-overlap");      // the footer's copy
  refuse(2, Code::kDiskInvalid, "bat-overlap");      // the header
  refuse(3, Code::kDiskInvalid, "bat-overlap");      // the table
  refuse(first, Code::kDiskInvalid, "bat-overlap");  // the same place twice
  refuse(first + 100, Code::kDiskTruncated, "block-truncated");
  refuse(0xFFFFFFFE, Code::kDiskTruncated, "block-truncated");

  // Half over its neighbour, but inside the file.
  VhdImage image;
  image.AddBlock(0, 1);
  image.AddBlock(1, 2);
  image.AddBlock(2, 3);
  image.SetEntry(1, first + 100);
  Refused(image, Code::kDiskInvalid, "bat-overlap");
}

TEST_F(VhdLayerTest, AFooterThatChangesIsAChangedSource) {
  VhdImage image;
  image.AddBlock(0, 1);
  const auto disk = Open(image);
  ASSERT_NE(disk, nullptr);
  const auto file = FileSystem::Default().Open(path_, {.access = Access::kReadWrite});
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->WriteAt(image.end(), VhdImage::MakeFooter({.uuid = 0x22})).ok());
  EXPECT_EQ(disk->CheckUnchanged().code(), Code::kSourceChanged);
}

// --- Differencing ---

TEST_F(VhdLayerTest, AChildShowsItsParentWhereItsBitsAreZero) {
  VhdImage parent({.virtual_size = 8 * kMiB, .uuid = 0x77});
  for (uint64_t block = 0; block < 4; ++block) parent.AddBlock(block, 50 + block);
  parent.WriteTo(folder_ / "Parent.vhd");
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .virtual_size = 8 * kMiB,
                  .block_size = 512 * kKiB,  // unlike its parent's
                  .parent_uuid = 0x77,
                  .relative_path = ".\\parent.vhd",
                  .absolute_path = "C:\\vm\\parent.vhd"});
  child.AddBlock(3, 3);
  child.AddBlock(9, 9);
  child.AddBlock(0, 0);
  child.SetPresent(3 * 1024, 1);
  child.SetPresent(3 * 1024 + 7, 2);  // the last bit of a byte and the first of the next
  child.SetPresent(3 * 1024 + 1023, 1);
  child.SetPresent(9 * 1024, 1024);
  Expected expected(8 * kMiB);
  for (uint64_t block = 0; block < 4; ++block)
    expected.Fill(50 + block, block * 2 * kMiB, 2 * kMiB);
  const uint64_t third = 3 * 512 * kKiB;
  expected.Fill(3, third, 512);
  expected.Fill(3, third + 7 * 512, 1024);
  expected.Fill(3, third + 1023 * 512, 512);
  expected.Fill(9, 9 * 512 * kKiB, 512 * kKiB);
  const auto disk = Open(child);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().kind, DiskKind::kDifferencing);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
  EXPECT_EQ(disk->layers()[0].blocks_partial, 3u);
  EXPECT_EQ(disk->layers()[0].parent_linkage, "77777777-7777-7777-7777-777777777777");
  ASSERT_EQ(disk->layers()[0].parent_locator.size(), 2u);
  EXPECT_EQ(disk->layers()[0].parent_locator[1].second, "C:\\vm\\parent.vhd");
}

TEST_F(VhdLayerTest, AChildOverAnEmptyParentHasItsOwnBlocksOnly) {
  VhdImage parent({.uuid = 0x77});
  parent.WriteTo(folder_ / "parent.vhd");
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .parent_uuid = 0x77,
                  .parent_name = "C:\\vm\\parent.vhd"});  // nothing but the old name field
  child.AddBlock(2, 2);
  child.SetPresent(2 * 4096 + 1, 1);
  const auto disk = Open(child);
  ASSERT_NE(disk, nullptr);
  Expected expected(8 * kMiB);
  expected.Fill(2, 4 * kMiB + 512, 512);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
}

TEST_F(VhdLayerTest, AParentWithAnotherUuidIsAMismatch) {
  VhdImage parent({.uuid = 0x78});
  parent.WriteTo(folder_ / "parent.vhd");
  VhdImage child(
      {.type = vhd::Type::kDifferencing, .parent_uuid = 0x77, .relative_path = ".\\parent.vhd"});
  child.WriteTo(path_);
  const Status status = OpenError(path_);
  EXPECT_EQ(status.code(), Code::kParentMismatch) << status.ToString();
  EXPECT_NE(status.message().find("77777777-"), std::string::npos) << status.ToString();
}

TEST_F(VhdLayerTest, DamagedLocatorsAreLeftOut) {
  VhdImage parent({.uuid = 0x77});
  parent.WriteTo(folder_ / "parent.vhd");
  VhdImage child({.type = vhd::Type::kDifferencing,
                  .parent_uuid = 0x77,
                  .relative_path = ".\\wrong.vhd",
                  .absolute_path = "C:\\vm\\parent.vhd"});
  child.ChangeHeader([](Bytes& header) {
    StoreBe<uint64_t>(header.data() + 576 + 16, ~uint64_t{0});  // its text lies nowhere
  });
  const auto disk = Open(child);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "parent-locator"));
  EXPECT_EQ(disk->layers()[0].parent_locator.size(), 1u);
}

}  // namespace
}  // namespace firn
