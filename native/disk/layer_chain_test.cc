#include "disk/layer_chain.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;
namespace fs = std::filesystem;

const Guid kParentId = MakeGuid(0xAA);
const Guid kChildId = MakeGuid(0xBB);

class LayerChainTest : public ::testing::Test {
 protected:
  VhdxOptions ParentOptions() { return {.data_write_guid = kParentId}; }
  VhdxOptions ChildOptions(const std::string& parent = "parent.vhdx",
                           const Guid& linkage = kParentId) {
    return {.locator = LocatorFor(parent, linkage), .data_write_guid = kChildId};
  }

  // Writes a parent with one block and a child without any.
  void WriteHollowPair() {
    VhdxImage parent(ParentOptions());
    parent.AddBlock(1, 9);
    parent.WriteTo(folder_ / "parent.vhdx");
    VhdxImage(ChildOptions()).WriteTo(child_path_);
  }

  void ExpectReadsThrough(const Disk* disk) {
    ASSERT_NE(disk, nullptr);
    EXPECT_EQ(disk->layers().size(), 2u);
    ExpectSameBytes(ReadRange(*disk, kMiB, kMiB), Pattern(9, kMiB, kMiB));
  }

  TestFolder folder_;
  const std::string child_path_ = folder_ / "child.avhdx";
};

TEST_F(LayerChainTest, AParentThatWasChangedSinceIsAMismatch) {
  WriteHollowPair();
  VhdxOptions options = ParentOptions();
  options.data_write_guid = MakeGuid(0x66);
  VhdxImage(options).WriteTo(folder_ / "parent.vhdx");
  const Status status = OpenError(child_path_);
  EXPECT_EQ(status.code(), Code::kParentMismatch) << status.ToString();
  EXPECT_NE(status.message().find(GuidToString(MakeGuid(0x66))), std::string::npos);
  EXPECT_NE(status.message().find(GuidToString(kParentId)), std::string::npos);
  const Inspection inspection = Inspect(child_path_);
  EXPECT_EQ(inspection.error.code(), Code::kParentMismatch);
  ASSERT_EQ(inspection.layers.size(), 1u);
  EXPECT_EQ(inspection.layers[0].parent_locator.size(), 5u);
  EXPECT_EQ(inspection.layers[0].parent_linkage, GuidToString(kParentId));
  EXPECT_TRUE(HasFinding(inspection.layers[0], "not-opened"));
}

TEST_F(LayerChainTest, TheSecondLinkageIsAsGoodAsTheFirst) {
  WriteHollowPair();
  VhdxOptions options = ChildOptions("parent.vhdx", MakeGuid(0x01));
  options.locator[4].second = Braced(kParentId);
  VhdxImage(options).WriteTo(child_path_);
  ExpectReadsThrough(MustOpen(child_path_).get());
}

TEST_F(LayerChainTest, AZeroSecondLinkageMatchesNoParent) {
  WriteHollowPair();
  VhdxOptions options = ParentOptions();
  options.data_write_guid = Guid{};
  VhdxImage(options).WriteTo(folder_ / "parent.vhdx");
  EXPECT_EQ(OpenError(child_path_).code(), Code::kParentMismatch);
}

TEST_F(LayerChainTest, AParentWithOtherSectorsIsAMismatch) {
  WriteHollowPair();
  VhdxOptions options = ParentOptions();
  options.logical_sector_size = 4096;
  VhdxImage(options).WriteTo(folder_ / "parent.vhdx");
  EXPECT_EQ(OpenError(child_path_).code(), Code::kParentMismatch);
}

TEST_F(LayerChainTest, AFileOfAnotherFormatIsAMismatch) {
  WriteHollowPair();
  VhdxOptions options = ChildOptions("parent.img");
  VhdxImage(options).WriteTo(child_path_);
  std::ofstream(folder_ / "parent.img") << "not a disk image, but bytes all the same";
  EXPECT_EQ(OpenError(child_path_).code(), Code::kParentMismatch);
}

TEST_F(LayerChainTest, ADamagedParentIsNamedAndInspected) {
  WriteHollowPair();
  VhdxImage parent(ParentOptions());
  parent.SetState(0, PayloadState::kReserved4);
  parent.WriteTo(folder_ / "parent.vhdx");
  const Status status = OpenError(child_path_);
  EXPECT_EQ(status.code(), Code::kDiskInvalid);
  EXPECT_EQ(status.path(), folder_ / "parent.vhdx");
  const Inspection inspection = Inspect(child_path_);
  ASSERT_EQ(inspection.layers.size(), 2u);
  EXPECT_TRUE(HasFinding(inspection.layers[1], "bat-state"));
  EXPECT_FALSE(HasFinding(inspection.layers[0], "not-opened"));
}

TEST_F(LayerChainTest, ACycleIsRefused) {
  const auto write = [&](const std::string& name, const std::string& parent, uint8_t id,
                         uint8_t linkage) {
    VhdxOptions options = ChildOptions(parent, MakeGuid(linkage));
    options.data_write_guid = MakeGuid(id);
    VhdxImage(options).WriteTo(folder_ / name);
  };
  write("a.vhdx", "b.vhdx", 1, 2);
  write("b.vhdx", "c.vhdx", 2, 3);
  write("c.vhdx", "a.vhdx", 3, 1);
  write("self.vhdx", "self.vhdx", 4, 4);
  for (const char* name : {"a.vhdx", "self.vhdx"}) {
    const Status status = OpenError(folder_ / name);
    EXPECT_EQ(status.code(), Code::kDiskInvalid) << status.ToString();
    EXPECT_NE(status.message().find("comes back to itself"), std::string::npos);
  }
}

TEST_F(LayerChainTest, ALinkToTheChildUnderAnotherNameIsACycleToo) {
  VhdxOptions options = ChildOptions("other.vhdx", kChildId);
  VhdxImage(options).WriteTo(child_path_);
  fs::create_hard_link(child_path_, folder_ / "other.vhdx");
  EXPECT_EQ(OpenError(child_path_).code(), Code::kDiskInvalid);
}

TEST_F(LayerChainTest, AChildWithItsParentsNameIsNotACycle) {
  // The parent is missing, and the search by name comes upon the child.
  VhdxOptions options = ChildOptions("..\\base\\disk.vhdx");
  VhdxImage(options).WriteTo(folder_ / "disk.vhdx");
  EXPECT_EQ(OpenError(folder_ / "disk.vhdx").code(), Code::kParentNotFound);
}

TEST_F(LayerChainTest, ChainsAreOnlySoLong) {
  for (int i = 0; i < 5; ++i) {
    VhdxOptions options = ParentOptions();
    options.data_write_guid = MakeGuid(static_cast<uint8_t>(i + 1));
    if (i > 0) {
      options.locator =
          LocatorFor(std::to_string(i - 1) + ".vhdx", MakeGuid(static_cast<uint8_t>(i)));
    }
    VhdxImage(options).WriteTo(folder_ / (std::to_string(i) + ".vhdx"));
  }
  OpenDiskOptions options = Buffered();
  options.max_depth = 5;
  EXPECT_NE(MustOpen(folder_ / "4.vhdx", options), nullptr);
  options.max_depth = 4;
  EXPECT_EQ(OpenError(folder_ / "4.vhdx", options).code(), Code::kUnsupported);
}

TEST_F(LayerChainTest, ParentsCanBeNamedInsteadOfSearched) {
  WriteHollowPair();
  const std::string away = folder_.MakeFolder("away");
  fs::rename(folder_ / "parent.vhdx", away + "/renamed.bin");
  EXPECT_EQ(OpenError(child_path_).code(), Code::kParentNotFound);
  OpenDiskOptions options = Buffered();
  options.parents = {away + "/renamed.bin"};
  ExpectReadsThrough(MustOpen(child_path_, options).get());
  // Named or not, it must be the right one.
  VhdxOptions other = ParentOptions();
  other.data_write_guid = MakeGuid(0x66);
  VhdxImage(other).WriteTo(away + "/renamed.bin");
  EXPECT_EQ(OpenError(child_path_, options).code(), Code::kParentMismatch);
  options.parents = {away + "/missing.vhdx"};
  EXPECT_EQ(OpenError(child_path_, options).code(), Code::kParentNotFound);
}

TEST_F(LayerChainTest, ARawDiskWhoseGuestWroteADifferencingDisksStructuresIsStillRaw) {
  WriteHollowPair();
  const std::string raw_path = folder_ / "guest.raw";
  fs::copy_file(child_path_, raw_path);
  const std::unique_ptr<Disk> disk = MustOpen(raw_path);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().format, DiskFormat::kRaw);
  EXPECT_EQ(disk->layers().size(), 1u);
}

TEST_F(LayerChainTest, ADiskSetIsRefusedAndNotReadAsARawDisk) {
  const std::string path = folder_ / "shared.vhds";
  VhdxImage(ParentOptions()).WriteTo(path);
  EXPECT_EQ(OpenError(path).code(), Code::kUnsupported);
}

TEST_F(LayerChainTest, AChangeInAnyLayerIsNoticed) {
  WriteHollowPair();
  const auto disk = MustOpen(child_path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(disk->CheckUnchanged().ok());
  fs::resize_file(folder_ / "parent.vhdx", fs::file_size(folder_ / "parent.vhdx") + 1);
  const Status status = disk->CheckUnchanged();
  EXPECT_EQ(status.code(), Code::kSourceChanged);
  EXPECT_EQ(status.path(), folder_ / "parent.vhdx");
}

}  // namespace
}  // namespace firn
