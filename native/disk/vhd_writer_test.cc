// Goal: the structures of the VHD files that Firn writes, and their limits. What they read as:
// disk_writer_round_trip_test.cc.

#include "disk/vhd_writer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "disk/disk_writer_testing.h"
#include "disk/vhd_format.h"

namespace firn::testing {

namespace {

CreateDiskOptions OptionsFor(DiskKind kind, uint64_t size, uint64_t block_size = 0) {
  CreateDiskOptions options;
  options.identity.format = DiskFormat::kVhd;
  options.identity.kind = kind;
  options.identity.size = size;
  options.identity.block_size = static_cast<uint32_t>(block_size);
  return options;
}

class VhdWriter : public ::testing::Test {
 protected:
  std::vector<uint8_t> FileBytes(uint64_t offset, size_t length) const {
    std::vector<uint8_t> bytes(length);
    auto file = FileSystem::Default().Open(path_, {});
    EXPECT_TRUE(file.ok());
    if (file.ok()) ExpectOk((*file)->ReadAt(offset, bytes));
    return bytes;
  }

  Status Create(const CreateDiskOptions& options) const {
    return DiskWriter::Create(FileSystem::Default(), path_, options).status();
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "disk.vhd";
};

TEST_F(VhdWriter, EndsAFixedDiskWithItsFooter) {
  CreateDiskOptions options = OptionsFor(DiskKind::kFixed, 10 * kMiB);
  ASSERT_TRUE(GuidFromString("00112233-4455-6677-8899-aabbccddeeff", &options.identity.disk_id));
  auto writer = MustCreate(path_, options);
  EXPECT_EQ(writer->identity().block_size, 0u);
  ExpectOk(writer->Finish());
  ASSERT_EQ(std::filesystem::file_size(path_), 10 * kMiB + 512);
  const std::vector<uint8_t> footer = FileBytes(10 * kMiB, 512);
  EXPECT_EQ(std::string(footer.begin(), footer.begin() + 8), "conectix");
  EXPECT_EQ(LoadBe<uint32_t>(&footer[8]), 2u);
  EXPECT_EQ(LoadBe<uint64_t>(&footer[16]), UINT64_MAX);
  EXPECT_EQ(std::string(footer.begin() + 28, footer.begin() + 32), "win ");
  EXPECT_EQ(LoadBe<uint64_t>(&footer[40]), 10 * kMiB);
  EXPECT_EQ(LoadBe<uint64_t>(&footer[48]), 10 * kMiB);
  EXPECT_EQ(LoadBe<uint32_t>(&footer[56]),
            301u << 16 | 4u << 8 | 17u);  // cylinders, heads, sectors
  EXPECT_EQ(LoadBe<uint32_t>(&footer[60]), 2u);
  EXPECT_TRUE(vhd::ChecksumMatches(footer, 64));
  EXPECT_EQ(ToHex(std::span(footer).subspan(68, 16)), ToHex(options.identity.disk_id));
}

TEST_F(VhdWriter, FramesADynamicDiskWithTwoFooters) {
  auto writer = MustCreate(path_, OptionsFor(DiskKind::kDynamic, 10 * kMiB + 512));
  EXPECT_EQ(writer->identity().block_size, 2 * kMiB);
  ExpectOk(writer->Write(4 * kMiB, std::vector<uint8_t>(512, 1)));
  ExpectOk(writer->Write(0, std::vector<uint8_t>(512, 2)));
  ExpectOk(writer->Finish());
  const std::vector<uint8_t> footer = FileBytes(0, 512);
  EXPECT_EQ(LoadBe<uint32_t>(&footer[60]), 3u);
  EXPECT_EQ(LoadBe<uint64_t>(&footer[16]), 512u);
  EXPECT_EQ(FileBytes(std::filesystem::file_size(path_) - 512, 512), footer);
  const std::vector<uint8_t> header = FileBytes(512, 1024);
  EXPECT_EQ(std::string(header.begin(), header.begin() + 8), "cxsparse");
  EXPECT_TRUE(vhd::ChecksumMatches(header, 36));
  const uint64_t table = LoadBe<uint64_t>(&header[16]);
  EXPECT_EQ(LoadBe<uint32_t>(&header[28]), 6u);
  EXPECT_EQ(LoadBe<uint32_t>(&header[32]), 2 * kMiB);

  // In the order of the calls, bitmap of ones in front, data on a 4 KiB boundary.
  const std::vector<uint8_t> entries = FileBytes(table, 6 * 4);
  uint64_t block = 4096 - 512;
  EXPECT_EQ(LoadBe<uint32_t>(&entries[8]) * 512, block);
  EXPECT_EQ(FileBytes(block, 512), std::vector<uint8_t>(512, 0xFF));
  EXPECT_EQ(FileBytes(block + 512, 512), std::vector<uint8_t>(512, 1));
  block += 4096 + 2 * kMiB;
  EXPECT_EQ(LoadBe<uint32_t>(&entries[0]) * 512, block);
  EXPECT_EQ(FileBytes(block + 512, 512), std::vector<uint8_t>(512, 2));
  for (size_t i : {1, 3, 4, 5}) EXPECT_EQ(LoadBe<uint32_t>(&entries[i * 4]), UINT32_MAX);
  EXPECT_EQ(std::filesystem::file_size(path_), block + 512 + 2 * kMiB + 512);
}

TEST_F(VhdWriter, MakesASmallFileOfTheLargestDisk) {
  constexpr uint64_t kSize = 2040 * kGiB;
  auto writer = MustCreate(path_, OptionsFor(DiskKind::kDynamic, kSize));
  DiskModel model(kSize);
  WriteBoth(writer.get(), &model, kSize - 4096, std::vector<uint8_t>(4096, 1));
  WriteBoth(writer.get(), &model, kTiB, std::vector<uint8_t>(4096, 2));
  ExpectOk(writer->Finish());
  EXPECT_LT(std::filesystem::file_size(path_), 16 * kMiB);
  EXPECT_EQ(FirnDifference(path_, model, model.Windows()), "");
  if (HaveQemu()) {
    EXPECT_EQ(QemuDifference(path_, "vpc", model, model.Windows()), "");
  }
  if (HaveLibvhdi()) {
    EXPECT_EQ(LibvhdiDifference({path_}, model, model.Windows()), "");
  }
}

TEST_F(VhdWriter, RefusesWhatAVhdCanNotHold) {
  Status status = Create(OptionsFor(DiskKind::kDynamic, 2040 * kGiB + 512));
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("vhdx"), std::string::npos);
  EXPECT_EQ(status.path(), path_);
  CreateDiskOptions options = OptionsFor(DiskKind::kFixed, kMiB);
  options.identity.logical_sector_size = 4096;
  status = Create(options);
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("vhdx"), std::string::npos);
  EXPECT_EQ(Create(OptionsFor(DiskKind::kDifferencing, kMiB)).code(), Code::kUnsupported);
  EXPECT_EQ(Create(OptionsFor(DiskKind::kDynamic, kGiB, 32 * kMiB)).code(), Code::kUnsupported);
  // The places of small blocks are numbers of sectors too, and these end at 2 TiB.
  EXPECT_EQ(Create(OptionsFor(DiskKind::kDynamic, 2040 * kGiB, 512 * kKiB)).code(),
            Code::kUnsupported);
  EXPECT_EQ(Create(OptionsFor(DiskKind::kDynamic, 0)).code(), Code::kInvalidArgument);
  EXPECT_EQ(Create(OptionsFor(DiskKind::kFixed, 1000)).code(), Code::kInvalidArgument);
  options = OptionsFor(DiskKind::kDynamic, kMiB);
  options.parent_path = path_;
  EXPECT_EQ(Create(options).code(), Code::kInvalidArgument);
  EXPECT_TRUE(folder_.Names().empty());
}

}  // namespace

}  // namespace firn::testing
