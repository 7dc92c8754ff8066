// Goal: a differencing VHDX is tied to its parent as Windows ties it, and its blocks take the
// states that MS-VHDX asks for.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "disk/disk_writer_testing.h"
#include "disk/vhdx_parent.h"
#include "disk/vhdx_writer.h"

namespace firn::testing {

namespace {

constexpr uint64_t kNotPresent = 0;
constexpr uint64_t kZero = 2;
constexpr uint64_t kPresent = 6;
constexpr uint64_t kPartial = 7;

class DifferencingVhdx : public ::testing::Test {
 protected:
  // A base of which every 64 KiB of the first MiB of each block is a byte of its own.
  DiskModel MakeBase(uint64_t size, uint64_t block_size, uint32_t sector_size = 512) {
    CreateDiskOptions options;
    options.identity.format = DiskFormat::kVhdx;
    options.identity.kind = DiskKind::kDynamic;
    options.identity.size = size;
    options.identity.block_size = static_cast<uint32_t>(block_size);
    options.identity.logical_sector_size = sector_size;
    options.identity.physical_sector_size = 4096;
    auto writer = MustCreate(base_, options);
    base_id_ = writer->identity().disk_id;
    DiskModel model(size);
    for (uint64_t offset = 0; offset < size && offset < 16 * kMiB; offset += 64 * kKiB) {
      const auto byte = static_cast<uint8_t>(1 + offset / (64 * kKiB) % 200);
      WriteBoth(writer.get(), &model, offset,
                std::vector<uint8_t>(std::min(64 * kKiB, size - offset), byte));
    }
    ExpectOk(writer->Finish());
    return model;
  }

  CreateDiskOptions ChildOptions(uint64_t block_size = 0) const {
    CreateDiskOptions options;
    options.identity.format = DiskFormat::kVhdx;
    options.identity.kind = DiskKind::kDifferencing;
    options.identity.block_size = static_cast<uint32_t>(block_size);
    options.parent_path = base_;
    return options;
  }

  Status CreateChild(const CreateDiskOptions& options) const {
    return DiskWriter::Create(FileSystem::Default(), child_, options).status();
  }

  uint64_t BatEntry(uint64_t index) const { return FileU64(child_, 3 * kMiB + index * 8); }
  uint64_t StateOfBlock(uint64_t index) const { return BatEntry(index) & 7; }

  // Not libvhdi where blocks are marked zero or a chunk has no sector bitmap, see
  // LibvhdiDifference.
  void ExpectReadersAgree(const DiskModel& model, bool with_libvhdi) {
    EXPECT_EQ(FirnDifference(child_, model, model.Windows()), "");
    if (HaveSevenZip() && model.size() < kGiB) {
      EXPECT_EQ(SevenZipDifference(child_, "vhdx", model), "");
    }
    if (HaveLibvhdi() && with_libvhdi) {
      EXPECT_EQ(LibvhdiDifference({child_, base_}, model, model.Windows()), "");
    }
  }

  TemporaryFolder folder_;
  const std::string base_ = folder_ / "base.vhdx";
  const std::string child_ = folder_ / "child.avhdx";
  Guid base_id_{};
};

TEST_F(DifferencingVhdx, InheritsWhatMakesItTheSameDisk) {
  MakeBase(40 * kMiB, 32 * kMiB, 4096);
  auto writer = MustCreate(child_, ChildOptions());
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->identity().size, 40 * kMiB);
  EXPECT_EQ(writer->identity().logical_sector_size, 4096u);
  EXPECT_EQ(writer->identity().physical_sector_size, 4096u);
  EXPECT_EQ(writer->identity().disk_id, base_id_);
  EXPECT_EQ(writer->identity().block_size, 2 * kMiB);
  ExpectOk(writer->Finish());
  auto inspection = InspectDisk(FileSystem::Default(), child_, {});
  ASSERT_TRUE(inspection.ok());
  ExpectOk(inspection->error);
  ASSERT_EQ(inspection->layers.size(), 2u);
  for (const LayerInfo& layer : inspection->layers) EXPECT_TRUE(layer.findings.empty());
  EXPECT_EQ(inspection->layers[0].identity.disk_id, base_id_);
}

TEST_F(DifferencingVhdx, NamesItsParentWithTheKeysThatWindowsWrites) {
  MakeBase(4 * kMiB, kMiB);
  auto link = LinkToVhdxParent(FileSystem::Default(), child_, base_);
  ASSERT_TRUE(link.ok()) << link.status().ToString();
  ASSERT_EQ(link->locator.size(), 4u);
  EXPECT_EQ(link->locator[0].first, "parent_linkage");
  Guid linkage{};
  EXPECT_TRUE(GuidFromString(link->locator[0].second, &linkage));
  EXPECT_EQ(link->locator[0].second, "{" + GuidToString(linkage) + "}");
  EXPECT_EQ(LoadLe<uint64_t>(&linkage[0]), FileU64(base_, 128 * kKiB + 32));
  EXPECT_EQ(LoadLe<uint64_t>(&linkage[8]), FileU64(base_, 128 * kKiB + 40));
  EXPECT_EQ(link->locator[1].first, "absolute_win32_path");
  std::string absolute = std::filesystem::canonical(base_).string();
  std::ranges::replace(absolute, '/', '\\');
  EXPECT_EQ(link->locator[1].second, absolute);
  EXPECT_EQ(link->locator[2].first, "relative_path");
  EXPECT_EQ(link->locator[2].second, ".\\base.vhdx");
  EXPECT_EQ(link->locator[3].first, "parent_linkage2");
  EXPECT_EQ(link->locator[3].second, "{00000000-0000-0000-0000-000000000000}");

  auto writer = MustCreate(child_, ChildOptions());
  ExpectOk(writer->Finish());
  auto inspection = InspectDisk(FileSystem::Default(), child_, {});
  ASSERT_TRUE(inspection.ok());
  EXPECT_EQ(inspection->layers[0].parent_locator, link->locator);
}

TEST_F(DifferencingVhdx, FindsAParentInAnotherFolder) {
  std::filesystem::create_directory(folder_ / "checkpoints");
  DiskModel model = MakeBase(4 * kMiB, kMiB);
  const std::string child = folder_ / "checkpoints/child.avhdx";
  auto writer = MustCreate(child, ChildOptions());
  WriteBoth(writer.get(), &model, 512, std::vector<uint8_t>(512, 0xEE));
  ExpectOk(writer->Finish());
  auto link = LinkToVhdxParent(FileSystem::Default(), child, base_);
  ASSERT_TRUE(link.ok());
  EXPECT_EQ(link->locator[2].second, "..\\base.vhdx");
  // Not 7-Zip, which looks for parents only in the folder of the child where '\\' separates no
  // names.
  if (HaveLibvhdi()) {
    EXPECT_EQ(LibvhdiDifference({child, base_}, model, model.Whole()), "");
  }
  OpenDiskOptions options;
  options.parent_folders = {folder_.path()};
  auto disk = Disk::Open(FileSystem::Default(), child, options);
  ASSERT_TRUE(disk.ok()) << disk.status().ToString();
  std::vector<uint8_t> bytes(model.size());
  ExpectOk((*disk)->Read(0, bytes));
  EXPECT_EQ(Difference(model, 0, bytes), "");
}

TEST_F(DifferencingVhdx, GivesABlockTheStateThatItsFirstWriteAsksFor) {
  DiskModel model = MakeBase(15 * kMiB + 512 * 6, kMiB);
  auto writer = MustCreate(child_, ChildOptions(kMiB));
  auto fill = [&](uint64_t offset, uint64_t length) {
    WriteBoth(writer.get(), &model, offset, std::vector<uint8_t>(length, 0xEE));
  };
  auto zero = [&](uint64_t offset, uint64_t length) {
    ExpectOk(writer->MarkZero(offset, length));
    model.Zero(offset, length);
  };
  fill(0, kMiB);                          // 0: all of it
  fill(kMiB + 512, 512);                  // 1: one sector
  zero(2 * kMiB, kMiB);                   // 2: all zero
  fill(3 * kMiB, 4096);                   // 3: all of it, in two steps
  fill(3 * kMiB + 4096, kMiB - 4096);     //
  zero(4 * kMiB, kMiB);                   // 4: zero, then one sector: the others stay zero
  fill(4 * kMiB + 8 * 512, 512);          //
  zero(5 * kMiB + 1024, 70 * kKiB);       // 5: zero in part
  fill(6 * kMiB, 64 * kKiB);              // 6: one part, then zero over a part of it
  zero(6 * kMiB + 32 * kKiB, 64 * kKiB);  //
  fill(7 * kMiB, 4096);                   // 7: in part, then all zero
  zero(7 * kMiB, kMiB);                   //
  fill(8 * kMiB, 4096);                   // 8: in part, then all of it at once
  fill(8 * kMiB, kMiB);                   //
  fill(15 * kMiB, 512 * 6);               // 15: the last one, which is six sectors
  ExpectOk(writer->Finish());

  EXPECT_EQ(StateOfBlock(0), kPresent);
  EXPECT_EQ(StateOfBlock(1), kPartial);
  EXPECT_EQ(BatEntry(2), kZero);  // a zero block keeps no place in the file
  EXPECT_EQ(StateOfBlock(3), kPresent);
  EXPECT_EQ(StateOfBlock(4), kPresent);
  EXPECT_EQ(StateOfBlock(5), kPartial);
  EXPECT_EQ(StateOfBlock(6), kPartial);
  EXPECT_EQ(StateOfBlock(7), kPresent);
  EXPECT_EQ(StateOfBlock(8), kPresent);
  EXPECT_EQ(BatEntry(9), kNotPresent);
  EXPECT_EQ(StateOfBlock(15), kPresent);
  EXPECT_EQ(StateOfBlock(4096), kPresent);  // the sector bitmap
  const uint64_t bitmap = BatEntry(4096) & ~0xFFFFFull;
  EXPECT_EQ(FileU64(child_, bitmap + kMiB / 512 / 8), 2u);  // block 1, sector 1
  ExpectReadersAgree(model, false);
}

TEST_F(DifferencingVhdx, NeedsNoSectorBitmapForWholeBlocks) {
  DiskModel model = MakeBase(8 * kMiB, kMiB);
  auto writer = MustCreate(child_, ChildOptions(kMiB));
  WriteBoth(writer.get(), &model, kMiB, std::vector<uint8_t>(2 * kMiB, 0xEE));
  ExpectOk(writer->Finish());
  EXPECT_EQ(BatEntry(4096), kNotPresent);
  EXPECT_EQ(std::filesystem::file_size(child_), 6 * kMiB);
  ExpectReadersAgree(model, false);
}

TEST_F(DifferencingVhdx, GivesEachChunkASectorBitmapOfItsOwn) {
  DiskModel model = MakeBase(9 * kGiB, 32 * kMiB);
  auto writer = MustCreate(child_, ChildOptions());
  for (uint64_t offset :
       {uint64_t{4096}, 4 * kGiB - 512, 4 * kGiB, 4 * kGiB + 2 * kMiB - 512, 9 * kGiB - 512}) {
    WriteBoth(writer.get(), &model, offset, std::vector<uint8_t>(512, 0xEE));
  }
  ExpectOk(writer->Finish());
  for (uint64_t chunk : {0, 1, 2}) EXPECT_EQ(StateOfBlock(chunk * 2049 + 2048), kPresent);
  EXPECT_EQ(StateOfBlock(2047), kPartial);
  EXPECT_EQ(StateOfBlock(2049), kPartial);
  ExpectReadersAgree(model, true);
}

TEST_F(DifferencingVhdx, OfA64TiBDiskIsAsSmallAsWhatWasWritten) {
  DiskModel model = MakeBase(64 * kTiB, 256 * kMiB);
  for (uint64_t block_size : {kMiB, 2 * kMiB}) {
    CreateDiskOptions options = ChildOptions(block_size);
    options.overwrite = true;
    auto writer = MustCreate(child_, options);
    WriteBoth(writer.get(), &model, 64 * kTiB - 512, std::vector<uint8_t>(512, 0xEE));
    ExpectOk(writer->Finish());
    const uint64_t bat = 64 * kTiB / block_size * 8;
    EXPECT_LT(std::filesystem::file_size(child_), bat + 10 * kMiB);
    ExpectReadersAgree(model, false);
  }
}

TEST_F(DifferencingVhdx, MayStandOnAParentWhoseOwnParentIsElsewhere) {
  std::filesystem::create_directory(folder_ / "moved");
  MakeBase(4 * kMiB, kMiB);
  auto writer = MustCreate(child_, ChildOptions());
  ExpectOk(writer->Finish());
  std::filesystem::rename(base_, folder_ / "moved/base.vhdx");
  CreateDiskOptions options = ChildOptions();
  options.parent_path = child_;
  writer = MustCreate(folder_ / "grandchild.avhdx", options);
  ASSERT_TRUE(writer);
  EXPECT_EQ(writer->identity().disk_id, base_id_);
}

TEST_F(DifferencingVhdx, RefusesWhatCanNotBeItsParent) {
  EXPECT_EQ(CreateChild(ChildOptions()).code(), Code::kParentNotFound);
  MakeBase(4 * kMiB, kMiB);
  CreateDiskOptions options = ChildOptions();
  options.identity.size = 8 * kMiB;
  EXPECT_EQ(CreateChild(options).code(), Code::kInvalidArgument);
  options = ChildOptions();
  options.parent_path = "";
  EXPECT_EQ(CreateChild(options).code(), Code::kInvalidArgument);

  options = ChildOptions();
  options.overwrite = true;
  auto over_parent = DiskWriter::Create(FileSystem::Default(), base_, options);
  EXPECT_EQ(over_parent.status().code(), Code::kInvalidArgument);

  CreateDiskOptions vhd;
  vhd.identity.format = DiskFormat::kVhd;
  vhd.identity.kind = DiskKind::kDynamic;
  vhd.identity.size = 4 * kMiB;
  ExpectOk(MustCreate(folder_ / "base.vhd", vhd)->Finish());
  options = ChildOptions();
  options.parent_path = folder_ / "base.vhd";
  EXPECT_EQ(CreateChild(options).code(), Code::kInvalidArgument);
  EXPECT_EQ(folder_.Names(), (std::vector<std::string>{"base.vhd", "base.vhdx"}));
}

TEST(RelativeWindowsPath, LeadsFromTheFolderOfTheChildToTheParent) {
  EXPECT_EQ(RelativeWindowsPath("/vm", "/vm/base.vhdx"), ".\\base.vhdx");
  EXPECT_EQ(RelativeWindowsPath("/vm", "/vm/a/b/base.vhdx"), ".\\a\\b\\base.vhdx");
  EXPECT_EQ(RelativeWindowsPath("/vm/checkpoints", "/vm/base.vhdx"), "..\\base.vhdx");
  EXPECT_EQ(RelativeWindowsPath("/vm/a/b", "/vm/c/base.vhdx"), "..\\..\\c\\base.vhdx");
  // A folder that has the name of the file is still a folder.
  EXPECT_EQ(RelativeWindowsPath("/vm/base.vhdx", "/vm/base.vhdx"), "..\\base.vhdx");
#ifdef _WIN32
  EXPECT_EQ(RelativeWindowsPath("C:\\vm", "\\\\?\\C:\\vm\\base.vhdx"), ".\\base.vhdx");
  EXPECT_EQ(RelativeWindowsPath("C:\\vm", "D:\\vm\\base.vhdx"), "");
#else
  EXPECT_EQ(RelativeWindowsPath("/", "/base.vhdx"), ".\\base.vhdx");
  EXPECT_EQ(RelativeWindowsPath("/vm", "/base.vhdx"), "..\\base.vhdx");
#endif
}

}  // namespace

}  // namespace firn::testing
