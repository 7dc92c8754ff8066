#include "disk/vhdx_metadata.h"

#include <gtest/gtest.h>

#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

class VhdxMetadataTest : public ::testing::Test {
 protected:
  void Refused(const VhdxImage& image, Code code, const std::string& finding) {
    image.WriteTo(path_);
    ExpectRefused(path_, code, finding);
  }
  void Opens(const VhdxImage& image) {
    image.WriteTo(path_);
    EXPECT_NE(MustOpen(path_), nullptr);
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
};

// The order in which VhdxImage writes items.
enum ItemIndex : uint64_t { kParameters, kSize, kId, kLogical, kPhysical, kLocator };

TEST_F(VhdxMetadataTest, ADamagedTableIsRefused) {
  VhdxImage image;
  image.Patch(image.metadata_offset(), {'M'});
  Refused(image, Code::kDiskInvalid, "metadata-table");
  VhdxImage counted;
  counted.Patch(counted.metadata_offset() + 10, {0xFF, 0xFF});
  Refused(counted, Code::kDiskInvalid, "metadata-table");
}

TEST_F(VhdxMetadataTest, AnUnfinishedFileIsRefused) {
  VhdxImage image;
  image.AddItem(vhdx::kIncompleteFile, 4, {});
  Refused(image, Code::kDiskInvalid, "incomplete-file");
}

TEST_F(VhdxMetadataTest, AnUnknownItemIsRefusedOnlyIfItIsRequired) {
  VhdxImage optional;
  optional.AddItem(MakeGuid(0x77), 2, Bytes(100, 1));
  Opens(optional);
  VhdxImage required;
  required.AddItem(MakeGuid(0x77), 4, Bytes(100, 1));
  Refused(required, Code::kUnsupported, "unknown-metadata");
  VhdxImage known;
  known.AddItem(vhdx::kChsParameters, 6, Bytes(8, 1));
  Opens(known);
}

TEST_F(VhdxMetadataTest, AUserItemMayHaveTheIdOfASystemItem) {
  VhdxImage image;
  image.AddItem(vhdx::kVirtualDiskSize, 1, Bytes(8, 1));
  image.AddItem(vhdx::kIncompleteFile, 1, {});
  Opens(image);
}

TEST_F(VhdxMetadataTest, ImpossibleFlagsAndIdsAreRefused) {
  for (const uint32_t flags : {5u, 8u, 0x80000000u}) {
    VhdxImage image;
    image.AddItem(MakeGuid(0x77), flags, Bytes(4));
    Refused(image, Code::kDiskInvalid, "metadata-flags");
  }
  VhdxImage zero;
  zero.AddItem(Guid{}, 0, Bytes(4));
  Refused(zero, Code::kDiskInvalid, "metadata-flags");
}

TEST_F(VhdxMetadataTest, ItemsOutsideTheRegionAreRefused) {
  // Offsets count from the region's start, and the table's 64 KiB are no place for items.
  for (const uint32_t offset : {0u, 65535u, uint32_t{kMiB} - 7, uint32_t{kMiB}, 0xFFFFFFFFu}) {
    VhdxImage image;
    image.Patch32(image.ItemEntryOffset(kSize) + 16, offset);
    Refused(image, Code::kDiskInvalid, "metadata-place");
  }
  VhdxImage longer;
  longer.Patch32(longer.ItemEntryOffset(kSize) + 20, kMiB + 1);
  Refused(longer, Code::kDiskInvalid, "metadata-place");
}

TEST_F(VhdxMetadataTest, OverlappingAndDoubleItemsAreRefused) {
  VhdxImage overlapping;
  overlapping.Patch32(overlapping.ItemEntryOffset(kId) + 16, 65536 + 4);
  Refused(overlapping, Code::kDiskInvalid, "metadata-overlap");
  VhdxImage twice;
  twice.AddItem(vhdx::kVirtualDiskSize, 6, Bytes(8));
  Refused(twice, Code::kDiskInvalid, "metadata-twice");
}

TEST_F(VhdxMetadataTest, ItemsMustHaveExactlyTheirLength) {
  for (const uint64_t item : {kParameters, kSize, kId, kLogical, kPhysical}) {
    VhdxImage image;
    const Bytes length = image.file().Read(image.ItemEntryOffset(item) + 20, 4);
    image.Patch32(image.ItemEntryOffset(item) + 20, LoadLe<uint32_t>(length.data()) - 1);
    Refused(image, Code::kDiskInvalid, "metadata-length");
  }
}

TEST_F(VhdxMetadataTest, AllItemsOfADiskMustBeThere) {
  for (const uint64_t item : {kParameters, kSize, kId, kLogical, kPhysical}) {
    VhdxImage image;
    const Guid other = MakeGuid(0x77);
    image.Patch(image.ItemEntryOffset(item), Bytes(other.begin(), other.end()));
    image.Patch32(image.ItemEntryOffset(item) + 24, 0);
    Refused(image, Code::kDiskInvalid, "metadata-missing");
  }
}

TEST_F(VhdxMetadataTest, ImpossibleValuesAreRefused) {
  const auto value_offset = [](const VhdxImage& image, uint64_t item) {
    const Bytes offset = image.file().Read(image.ItemEntryOffset(item) + 16, 4);
    return image.metadata_offset() + LoadLe<uint32_t>(offset.data());
  };
  for (const uint32_t block_size :
       {0u, 1u, 512 * uint32_t{kKiB}, 3 * uint32_t{kMiB}, 512 * uint32_t{kMiB}, 0x80000000u}) {
    VhdxImage image;
    image.Patch32(value_offset(image, kParameters), block_size);
    Refused(image, Code::kDiskInvalid, "block-size");
  }
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{513}, 64 * kTiB + 512,
                              ~uint64_t{0}, RoundDown(~uint64_t{0}, 512)}) {
    VhdxImage image;
    image.Patch64(value_offset(image, kSize), size);
    Refused(image, Code::kDiskInvalid, "virtual-size");
  }
  for (const uint64_t item : {kLogical, kPhysical}) {
    for (const uint32_t sector_size : {0u, 1u, 1024u, 8192u}) {
      VhdxImage image;
      image.Patch32(value_offset(image, item), sector_size);
      Refused(image, Code::kDiskInvalid, "sector-size");
    }
  }
}

TEST_F(VhdxMetadataTest, ADiskWithAParentNeedsALocator) {
  VhdxImage image;
  const Bytes offset = image.file().Read(image.ItemEntryOffset(kParameters) + 16, 4);
  image.Patch32(image.metadata_offset() + LoadLe<uint32_t>(offset.data()) + 4, 2);
  Refused(image, Code::kDiskInvalid, "metadata-missing");
}

TEST_F(VhdxMetadataTest, ALocatorWithoutAParentIsOnlyAWarning) {
  VhdxImage image;
  image.AddItem(vhdx::kParentLocator, 4, MakeLocator(LocatorFor("p.vhdx", MakeGuid(1))));
  image.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "parent-locator-unused"));
}

// --- Parent locators ---

Status ParseError(const Bytes& item) {
  LayerInfo info;
  return ParseParentLocator(item, 0, &info).status();
}

TEST(ParentLocatorTest, AllKeysAreKeptAsFound) {
  const KeyValues entries = {{"parent_linkage", "{x}"}, {"other", "\xC3\xBC"}};
  LayerInfo info;
  const auto parsed = ParseParentLocator(MakeLocator(entries), 0, &info);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(*parsed, entries);
}

TEST(ParentLocatorTest, DamagedLocatorsAreRefused) {
  const Bytes good = MakeLocator({{"a", "b"}, {"c", "d"}});
  ASSERT_TRUE(ParseError(good).ok());
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(
        ParseError(Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(length))).ok())
        << length;
  }
  const auto with = [&](size_t offset, const Bytes& change) {
    Bytes bytes = good;
    std::ranges::copy(change, bytes.begin() + static_cast<ptrdiff_t>(offset));
    return ParseError(bytes).code();
  };
  EXPECT_EQ(with(0, {0}), Code::kUnsupported);                        // another type of locator
  EXPECT_EQ(with(18, {0, 0}), Code::kDiskInvalid);                    // no entries
  EXPECT_EQ(with(18, {0xFF, 0xFF}), Code::kDiskInvalid);              // more than there is room for
  EXPECT_EQ(with(20, {0, 0, 0, 0}), Code::kDiskInvalid);              // a key at the very start
  EXPECT_EQ(with(20, {0xFF, 0xFF, 0xFF, 0xFF}), Code::kDiskInvalid);  // outside
  EXPECT_EQ(with(28, {0, 0}), Code::kDiskInvalid);                    // an empty key
  EXPECT_EQ(with(28, {1, 0}), Code::kDiskInvalid);                    // half a character
  EXPECT_EQ(with(30, {0xFE, 0xFF}), Code::kDiskInvalid);              // too long a value
  EXPECT_EQ(with(good.size() - 2, {0x00, 0xD8}), Code::kDiskInvalid);  // a lone surrogate
  EXPECT_EQ(with(good.size() - 4, {'a', 0}), Code::kDiskInvalid);      // the same key twice
}

TEST(ParentLocatorTest, TheSpecificationsOrderOfLookupHolds) {
  LayerInfo info;
  const auto reference = InterpretParentLocator(LocatorFor("p.vhdx", MakeGuid(3)), &info);
  ASSERT_TRUE(reference.ok());
  ASSERT_EQ(reference->locations.size(), 3u);
  EXPECT_EQ(reference->locations[0].key, "relative_path");
  EXPECT_TRUE(reference->locations[0].relative);
  EXPECT_EQ(reference->locations[1].key, "volume_path");
  EXPECT_EQ(reference->locations[2].key, "absolute_win32_path");
  EXPECT_EQ(reference->linkages, std::vector<Guid>{MakeGuid(3)}) << "a zero linkage2 is none";
}

TEST(ParentLocatorTest, ASecondLinkageCountsUnlessItIsZero) {
  KeyValues entries = LocatorFor("p.vhdx", MakeGuid(3));
  entries[4].second = Braced(MakeGuid(4));
  LayerInfo info;
  const auto reference = InterpretParentLocator(entries, &info);
  ASSERT_TRUE(reference.ok());
  EXPECT_EQ(reference->linkages, (std::vector<Guid>{MakeGuid(3), MakeGuid(4)}));
}

TEST(ParentLocatorTest, ALinkageIsReadInEitherCaseAndIsNeeded) {
  std::string upper = Braced(MakeGuid(0xAB));
  std::ranges::transform(upper, upper.begin(),
                         [](char c) { return static_cast<char>(toupper(c)); });
  LayerInfo info;
  const auto reference = InterpretParentLocator({{"parent_linkage", upper}}, &info);
  ASSERT_TRUE(reference.ok());
  EXPECT_EQ(reference->linkages[0], MakeGuid(0xAB));
  EXPECT_TRUE(HasFinding(info, "parent-path"));
  EXPECT_EQ(InterpretParentLocator({{"relative_path", "p"}}, &info).status().code(),
            Code::kDiskInvalid);
  EXPECT_EQ(InterpretParentLocator({{"parent_linkage", "{zz}"}}, &info).status().code(),
            Code::kDiskInvalid);
}

}  // namespace
}  // namespace firn
