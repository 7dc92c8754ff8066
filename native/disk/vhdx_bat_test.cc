#include "disk/vhdx_bat.h"

#include <gtest/gtest.h>

#include <ctime>

#include "core/core_test_util.h"
#include "disk/vhdx_image_test_util.h"
#ifdef _WIN32
#include "io/system_win.h"
#endif

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support
using vhdx::PayloadState;

// How long this program has computed. What it waited for, and whom, says nothing of a search.
double CpuSeconds() {
#ifdef _WIN32
  FILETIME created, ended, kernel, user;
  if (!GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user)) return 0;
  const auto seconds = [](const FILETIME& time) {
    return (time.dwHighDateTime * 4294967296.0 + time.dwLowDateTime) / 1e7;
  };
  return seconds(kernel) + seconds(user);
#else
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
#endif
}

class VhdxBatTest : public ::testing::Test {
 protected:
  void Refused(const VhdxImage& image, Code code, const std::string& finding) {
    image.WriteTo(path_);
    ExpectRefused(path_, code, finding);
  }

  TestFolder folder_;
  const std::string path_ = folder_ / "disk.vhdx";
};

TEST_F(VhdxBatTest, ReservedStatesAreRefused) {
  for (const uint64_t state : {4, 5}) {
    VhdxImage image;
    const uint64_t offset = image.AddBlock(0, 1);
    image.SetEntry(0, offset | state);
    Refused(image, Code::kDiskInvalid, "bat-state");
  }
}

TEST_F(VhdxBatTest, APartlyPresentBlockNeedsAParent) {
  VhdxImage image;
  image.AddBlock(0, 1, PayloadState::kPartiallyPresent);
  Refused(image, Code::kDiskInvalid, "bat-state");
}

TEST_F(VhdxBatTest, ReservedBitsAreRefused) {
  for (const uint64_t bit : {3, 19}) {
    VhdxImage image;
    const uint64_t offset = image.AddBlock(0, 1);
    image.SetEntry(0, offset | uint64_t{1} << bit | 6);
    Refused(image, Code::kDiskInvalid, "bat-reserved-bits");
  }
}

TEST_F(VhdxBatTest, APresentBlockWithoutAnOffsetIsNotTheFilesHeader) {
  VhdxImage image;
  image.SetState(0, PayloadState::kFullyPresent);
  Refused(image, Code::kDiskInvalid, "bat-offset");
}

TEST_F(VhdxBatTest, OffsetsPastTheEndAreTruncation) {
  for (const uint64_t offset : {RoundUp(64 * kMiB, kMiB), vhdx::kFileOffsetEnd - kMiB}) {
    VhdxImage image;
    image.AddBlock(0, 1);
    image.SetEntry(0, offset | 6);
    Refused(image, Code::kDiskTruncated, "block-truncated");
  }
  // More than the format's 44 bits of MiB can sensibly mean.
  VhdxImage image;
  image.SetEntry(0, RoundDown(~uint64_t{0}, kMiB) | 6);
  Refused(image, Code::kDiskInvalid, "bat-offset");
}

TEST_F(VhdxBatTest, BlocksOverOtherStructuresAreRefused) {
  VhdxImage image;
  const uint64_t first = image.AddBlock(0, 1);
  for (const uint64_t offset :
       {VhdxImage::kLogOffset, image.metadata_offset(), image.bat_offset(), first}) {
    image.SetEntry(1, offset | 6);
    Refused(image, Code::kDiskInvalid, "bat-overlap");
  }
}

TEST_F(VhdxBatTest, BlocksThatOverlapInPartAreRefused) {
  VhdxImage image({.virtual_size = 16 * kMiB, .block_size = 4 * kMiB});
  const uint64_t first = image.AddBlock(0, 1);
  image.Reserve(4 * kMiB);
  for (const uint64_t offset : {first - kMiB, first + kMiB, first + 3 * kMiB}) {
    image.SetEntry(1, offset | 6);
    Refused(image, Code::kDiskInvalid, "bat-overlap");
  }
  image.SetEntry(1, (first + 4 * kMiB) | 6);
  image.WriteTo(path_);
  EXPECT_NE(MustOpen(path_), nullptr);
}

TEST_F(VhdxBatTest, ATableTooShortForTheDiskIsRefused) {
  // 131072 entries are 1 MiB; with 4096 blocks a chunk the slots make the difference.
  VhdxImage fits({.virtual_size = 131000 * kMiB, .bat_length = kMiB});
  fits.WriteTo(path_);
  EXPECT_NE(MustOpen(path_), nullptr);
  VhdxImage image({.virtual_size = 131072 * kMiB, .bat_length = kMiB});
  Refused(image, Code::kDiskInvalid, "bat-too-short");
}

TEST_F(VhdxBatTest, EntriesPastTheDiskAreIgnored) {
  VhdxImage image({.virtual_size = 2 * kMiB});
  image.AddBlock(0, 1);
  image.Patch64(image.bat_offset() + 2 * 8, ~uint64_t{0});
  image.WriteTo(path_);
  EXPECT_NE(MustOpen(path_), nullptr);
}

TEST_F(VhdxBatTest, AZeroBlockWithAnOffsetReadsAsZeroAndIsMentioned) {
  VhdxImage image;
  image.AddBlock(0, 1, PayloadState::kZero);
  image.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(ReadRange(*disk, 0, kMiB), Bytes(kMiB));
  EXPECT_TRUE(HasFinding(disk->layers()[0], "zero-block-with-offset"));
}

TEST_F(VhdxBatTest, ABitmapInADiskWithoutParentIsIgnored) {
  VhdxImage image({.virtual_size = 5 * kGiB});
  image.AddBitmap(0);
  image.AddBlock(4096, 1);
  image.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(HasFinding(disk->layers()[0], "bitmap-without-parent"));
  EXPECT_EQ(disk->NextPresent(0).value(), 4096 * kMiB);

  image.Patch64(image.BitmapEntryOffset(0), 7);
  Refused(image, Code::kDiskInvalid, "bat-state");
}

TEST_F(VhdxBatTest, InspectionNamesManyErrorsAndStopsSomewhere) {
  VhdxImage image({.virtual_size = 100 * kMiB});
  for (uint64_t block = 0; block < 100; ++block) {
    image.SetState(block, PayloadState::kReserved4);
  }
  image.WriteTo(path_);
  const Inspection inspection = Inspect(path_);
  ASSERT_EQ(inspection.layers.size(), 1u);
  EXPECT_GE(inspection.layers[0].findings.size(), 10u);
  EXPECT_LE(inspection.layers[0].findings.size(), 20u);
  EXPECT_TRUE(HasFinding(inspection.layers[0], "bat-more"));
  EXPECT_EQ(inspection.error.offset(), image.BatEntryOffset(0));
}

TEST_F(VhdxBatTest, ADiskOf64TiBWithOneBlockAnswersAtOnce) {
  VhdxImage image({.virtual_size = 64 * kTiB});
  ASSERT_EQ(image.layout().entries, 67125247u);
  const uint64_t block = 64 * kTiB / kMiB - 3;
  const uint64_t offset = image.AddHollowBlock(block);
  image.Patch(offset, Pattern(1, block * kMiB, 4096));
  image.WriteTo(path_);
  const double start = CpuSeconds();
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->NextPresent(0).value(), block * kMiB);
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(disk->NextPresent(i * 64 * kGiB).value(), block * kMiB);
  }
  EXPECT_EQ(disk->NextPresent((block + 1) * kMiB).value(), disk->size());
  // The file is a few MiB of data; half a gigabyte of table is a hole that nobody reads.
  EXPECT_LT(CpuSeconds() - start, 5);
  EXPECT_EQ(ReadRange(*disk, block * kMiB, 4096), Pattern(1, block * kMiB, 4096));
}

TEST_F(VhdxBatTest, ATableOfZeroBlocksIsSkippedPageByPage) {
  // As qemu writes it: no entry is empty, none has data but one.
  VhdxImage image({.virtual_size = kTiB});
  Bytes zeros(image.layout().entries * 8);
  for (size_t i = 0; i < zeros.size(); i += 8) zeros[i] = 2;
  for (uint64_t chunk = 0; chunk + 1 < image.layout().chunks; ++chunk) {
    zeros[image.layout().BitmapIndex(chunk) * 8] = 0;
  }
  image.Patch(image.bat_offset(), zeros);
  image.AddHollowBlock(900000);
  image.WriteTo(path_);
  const auto disk = MustOpen(path_);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->layers()[0].blocks_zero, image.layout().payload_blocks - 1);
  const double start = CpuSeconds();
  const uint64_t searches = test::RunningUnderSanitizer() ? 1000 : 10000;
  for (uint64_t i = 0; i < searches; ++i) {
    ASSERT_EQ(disk->NextPresent(i * 64 * kMiB).value(), 900000 * kMiB);
  }
  EXPECT_LT(CpuSeconds() - start, 5);
}

}  // namespace
}  // namespace firn
