// Goal: the structures of the VHDX files that Firn writes, and their limits. Method: look at the
// bytes, with arithmetic of the test's own where that is what is tested; what the disk reads as is
// the matter of disk_writer_round_trip_test.cc.

#include "disk/vhdx_writer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "disk/disk_writer_testing.h"
#include "disk/vhdx_encode.h"
#include "disk/vhdx_format.h"

namespace firn::testing {

namespace {

constexpr uint64_t kPresent = 6;
constexpr uint64_t kBat = 3 * kMiB;

CreateDiskOptions OptionsFor(DiskKind kind, uint64_t size, uint64_t block_size,
                             uint32_t sector_size = 512) {
  CreateDiskOptions options;
  options.identity.format = DiskFormat::kVhdx;
  options.identity.kind = kind;
  options.identity.size = size;
  options.identity.block_size = static_cast<uint32_t>(block_size);
  options.identity.logical_sector_size = sector_size;
  options.identity.physical_sector_size = 4096;
  return options;
}

std::vector<uint8_t> FileBytes(const std::string& path, uint64_t offset, size_t length) {
  std::vector<uint8_t> bytes(length);
  auto file = FileSystem::Default().Open(path, {});
  EXPECT_TRUE(file.ok());
  if (file.ok()) ExpectOk((*file)->ReadAt(offset, bytes));
  return bytes;
}

// Bytes that the file takes on the disk, which is less than its length if it has holes.
uint64_t AllocatedBytes(const std::string& path) {
  auto file = FileSystem::Default().Open(path, {});
  EXPECT_TRUE(file.ok());
  uint64_t bytes = 0;
  for (uint64_t offset = 0;;) {
    auto range = (*file)->NextData(offset);
    EXPECT_TRUE(range.ok());
    if (!range.ok() || !*range) return bytes;
    bytes += (*range)->end - (*range)->begin;
    offset = (*range)->end;
  }
}

class VhdxWriter : public ::testing::Test {
 protected:
  // Writes 4 KiB of a byte of its own at each offset and finishes.
  DiskModel Make(const CreateDiskOptions& options, const std::vector<uint64_t>& offsets) {
    DiskModel model(options.identity.size);
    auto writer = MustCreate(path_, options);
    for (size_t i = 0; i < offsets.size(); ++i) {
      WriteBoth(writer.get(), &model, offsets[i],
                std::vector<uint8_t>(4096, static_cast<uint8_t>(i + 1)));
    }
    ExpectOk(writer->Finish());
    return model;
  }

  uint64_t BatEntry(uint64_t index) const { return FileU64(path_, kBat + index * 8); }

  void ExpectAllReadersAgree(const DiskModel& model) {
    EXPECT_EQ(FirnDifference(path_, model, model.Windows()), "");
    if (HaveQemu()) {
      EXPECT_EQ(QemuDifference(path_, "vhdx", model, model.Windows()), "");
      EXPECT_TRUE(Succeeds("qemu-img check -f vhdx " + Quoted(path_)));
    }
    if (HaveLibvhdi()) {
      EXPECT_EQ(LibvhdiDifference({path_}, model, model.Windows()), "");
    }
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
};

TEST_F(VhdxWriter, LaysTheFileOutAsWindowsDoes) {
  Make(OptionsFor(DiskKind::kDynamic, 10 * kGiB, 0), {0});
  const std::vector<uint8_t> id = FileBytes(path_, 0, vhdx::kFileIdBytes);
  EXPECT_TRUE(vhdx::HasSignature(id, "vhdxfile"));
  EXPECT_EQ(id[8], 'F');  // "Firn", UTF-16
  EXPECT_EQ(id[9], 0);
  EXPECT_EQ(id[10], 'i');

  uint64_t sequence = 0;
  for (uint64_t offset : vhdx::kHeaderOffsets) {
    const std::vector<uint8_t> header = FileBytes(path_, offset, vhdx::header::kBytes);
    EXPECT_TRUE(vhdx::HasSignature(header, "head"));
    EXPECT_TRUE(vhdx::ChecksumMatches(header, vhdx::header::kChecksum));
    EXPECT_EQ(LoadLe<uint64_t>(&header[8]), ++sequence);
    EXPECT_FALSE(vhdx::IsZeroGuid(vhdx::LoadGuid(&header[16])));
    EXPECT_FALSE(vhdx::IsZeroGuid(vhdx::LoadGuid(&header[32])));
    EXPECT_TRUE(vhdx::IsZeroGuid(vhdx::LoadGuid(&header[48])));  // no log to replay
    EXPECT_EQ(LoadLe<uint16_t>(&header[66]), 1u);
    EXPECT_EQ(LoadLe<uint32_t>(&header[68]), kMiB);
    EXPECT_EQ(LoadLe<uint64_t>(&header[72]), kMiB);
  }
  const std::vector<uint8_t> table = FileBytes(path_, 192 * kKiB, 64 * kKiB);
  EXPECT_EQ(table, FileBytes(path_, 256 * kKiB, 64 * kKiB));
  EXPECT_TRUE(vhdx::ChecksumMatches(table, vhdx::region::kChecksum));
  ASSERT_EQ(LoadLe<uint32_t>(&table[8]), 2u);
  EXPECT_EQ(vhdx::LoadGuid(&table[16]), vhdx::kBatRegion);
  EXPECT_EQ(LoadLe<uint64_t>(&table[32]), kBat);
  EXPECT_EQ(LoadLe<uint32_t>(&table[44]), 1u);  // required
  EXPECT_EQ(vhdx::LoadGuid(&table[48]), vhdx::kMetadataRegion);
  EXPECT_EQ(LoadLe<uint64_t>(&table[64]), 2 * kMiB);
  EXPECT_EQ(LoadLe<uint32_t>(&table[76]), 1u);
  EXPECT_EQ(std::filesystem::file_size(path_), 4 * kMiB + 32 * kMiB);
}

TEST_F(VhdxWriter, GivesBlocksTheirPlacesInTheOrderOfTheCalls) {
  Make(OptionsFor(DiskKind::kDynamic, 64 * kMiB, 2 * kMiB), {20 * kMiB, 0, 62 * kMiB});
  EXPECT_EQ(BatEntry(10), 4 * kMiB + kPresent);
  EXPECT_EQ(BatEntry(0), 6 * kMiB + kPresent);
  EXPECT_EQ(BatEntry(31), 8 * kMiB + kPresent);
  EXPECT_EQ(BatEntry(1), 0u);
}

TEST_F(VhdxWriter, GivesTheLastBlockItsFullLengthInTheFile) {
  for (DiskKind kind : {DiskKind::kDynamic, DiskKind::kFixed}) {
    CreateDiskOptions options = OptionsFor(kind, 4 * kMiB + 4096, 4 * kMiB);
    options.overwrite = true;
    DiskModel model = Make(options, {0, 4 * kMiB});
    EXPECT_EQ(std::filesystem::file_size(path_), 4 * kMiB + 8 * kMiB);
    ExpectAllReadersAgree(model);
  }
}

TEST_F(VhdxWriter, MakesEveryBlockOfAFixedDiskPresentAndContiguous) {
  Make(OptionsFor(DiskKind::kFixed, 33 * kMiB, kMiB), {});
  for (uint64_t block = 0; block < 33; ++block) {
    EXPECT_EQ(BatEntry(block), (4 + block) * kMiB + kPresent);
  }
  EXPECT_EQ(BatEntry(33), 0u);
  EXPECT_EQ(FileU64(path_, 2 * kMiB + 64 * kKiB), kMiB + (uint64_t{1} << 32));  // stays allocated
  EXPECT_EQ(std::filesystem::file_size(path_), 37 * kMiB);
}

TEST_F(VhdxWriter, ChoosesWindowsBlockSizes) {
  auto writer = MustCreate(path_, OptionsFor(DiskKind::kDynamic, kGiB, 0));
  EXPECT_EQ(writer->identity().block_size, 32 * kMiB);
}

TEST_F(VhdxWriter, LeavesTheSlotsOfSectorBitmapsFreeBeyondTheFirstChunk) {
  // At 512 bytes a sector, a chunk is 4 GiB: 128 blocks of 32 MiB, then a slot that stays empty.
  DiskModel model =
      Make(OptionsFor(DiskKind::kDynamic, 9 * kGiB, 32 * kMiB),
           {4 * kGiB - 4096, 4 * kGiB, 4 * kGiB + 32 * kMiB, 8 * kGiB + 512 * 77, 9 * kGiB - 4096});
  EXPECT_EQ(BatEntry(127) & 7, kPresent);
  EXPECT_EQ(BatEntry(128), 0u);
  EXPECT_EQ(BatEntry(129) & 7, kPresent);
  EXPECT_EQ(BatEntry(130) & 7, kPresent);
  EXPECT_EQ(BatEntry(257), 0u);
  EXPECT_EQ(BatEntry(258) & 7, kPresent);
  ExpectAllReadersAgree(model);
}

TEST_F(VhdxWriter, MakesChunksThatSevenZipReadsAcross) {
  if (!HaveSevenZip()) GTEST_SKIP() << "7zz is not installed";
  DiskModel model = Make(OptionsFor(DiskKind::kDynamic, 4 * kGiB + 40 * kMiB, 8 * kMiB),
                         {4 * kGiB - 4096, 4 * kGiB, 4 * kGiB + 8 * kMiB});
  EXPECT_EQ(SevenZipDifference(path_, "vhdx", model), "");
}

TEST_F(VhdxWriter, LeavesTheSlotsOfSectorBitmapsFreeInFixedDisksToo) {
  constexpr uint64_t kSize = 4 * kGiB + 3 * kMiB;
  auto space = FileSystem::Default().FreeBytes(folder_.path());
  if (!space.ok() || *space < 12 * kGiB) GTEST_SKIP() << "a fixed disk of 4 GiB needs its space";
  DiskModel model =
      Make(OptionsFor(DiskKind::kFixed, kSize, kMiB), {0, 4 * kGiB - 4096, 4 * kGiB, kSize - 4096});
  EXPECT_EQ(BatEntry(4095), (4 + 4095) * kMiB + kPresent);
  EXPECT_EQ(BatEntry(4096), 0u);
  EXPECT_EQ(BatEntry(4097), (4 + 4096) * kMiB + kPresent);
  EXPECT_EQ(FirnDifference(path_, model, model.Windows()), "");
  // Not libvhdi, which knows no such slots in fixed disks.
  if (HaveQemu()) {
    EXPECT_EQ(QemuDifference(path_, "vhdx", model, model.Windows()), "");
    EXPECT_TRUE(Succeeds("qemu-img check -f vhdx " + Quoted(path_)));
  }
}

TEST_F(VhdxWriter, CountsChunksInSectorsOf4KiB) {
  // 32 GiB a chunk: 8192 blocks of 4 MiB.
  DiskModel model = Make(OptionsFor(DiskKind::kDynamic, 65 * kGiB, 4 * kMiB, 4096),
                         {0, 32 * kGiB - 4096, 32 * kGiB, 65 * kGiB - 4096});
  EXPECT_EQ(BatEntry(8191) & 7, kPresent);
  EXPECT_EQ(BatEntry(8192), 0u);
  EXPECT_EQ(BatEntry(8193) & 7, kPresent);
  EXPECT_EQ(FirnDifference(path_, model, model.Windows()), "");
  if (HaveLibvhdi()) {
    EXPECT_EQ(LibvhdiDifference({path_}, model, model.Windows()), "");
  }
}

TEST_F(VhdxWriter, MakesASmallFileOfAnEmpty64TiBDisk) {
  for (uint64_t block_size : {kMiB, 32 * kMiB, 256 * kMiB}) {
    CreateDiskOptions options = OptionsFor(DiskKind::kDynamic, 64 * kTiB, block_size);
    options.overwrite = true;
    DiskModel model = Make(options, {40 * kTiB + 123 * 4096});
    EXPECT_LT(AllocatedBytes(path_), 2 * kMiB);
    const uint64_t ratio = (uint64_t{1} << 32) / block_size;
    const uint64_t block = 40 * kTiB / block_size;
    EXPECT_EQ(BatEntry(block + block / ratio) & 7, kPresent);
    ExpectAllReadersAgree(model);
  }
}

TEST_F(VhdxWriter, RefusesWhatAVhdxCanNotHold) {
  auto code = [&](const CreateDiskOptions& options) {
    auto writer = DiskWriter::Create(FileSystem::Default(), path_, options);
    return writer.status().code();
  };
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, 0, 0)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, 64 * kTiB + 512, 0)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, 1000, 0)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, 512, 0, 4096)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, kGiB, 512 * kKiB)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, kGiB, 3 * kMiB)), Code::kInvalidArgument);
  EXPECT_EQ(code(OptionsFor(DiskKind::kDynamic, kGiB, 512 * kMiB)), Code::kInvalidArgument);
  CreateDiskOptions with_parent = OptionsFor(DiskKind::kDynamic, kGiB, 0);
  with_parent.parent_path = path_;
  EXPECT_EQ(code(with_parent), Code::kInvalidArgument);
  EXPECT_TRUE(folder_.Names().empty());
}

TEST_F(VhdxWriter, NeedsNoZerosWrittenWhereNothingWas) {
  auto writer = MustCreate(path_, OptionsFor(DiskKind::kDynamic, 64 * kMiB, kMiB));
  ExpectOk(writer->MarkZero(0, 64 * kMiB));
  ExpectOk(writer->Finish());
  EXPECT_EQ(std::filesystem::file_size(path_), 4 * kMiB);
  for (uint64_t block = 0; block < 64; ++block) EXPECT_EQ(BatEntry(block), 0u);
}

TEST(EncodeParentLocator, RefusesStringsThatItCanNotHold) {
  EXPECT_TRUE(EncodeParentLocator({{"relative_path", ".\\base.vhdx"}}).ok());
  EXPECT_FALSE(EncodeParentLocator({{"relative_path", ""}}).ok());
  EXPECT_FALSE(EncodeParentLocator({{"relative_path", "\xFF"}}).ok());
  EXPECT_TRUE(EncodeParentLocator({{"relative_path", std::string(32767, 'a')}}).ok());
  EXPECT_FALSE(EncodeParentLocator({{"relative_path", std::string(32768, 'a')}}).ok());
}

}  // namespace

}  // namespace firn::testing
