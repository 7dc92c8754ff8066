#include "disk/raw_layer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "disk/image_test_util.h"
#include "disk/vhdx_image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

TEST(RawLayerTest, AFileWithoutSignatureIsADiskToTheByte) {
  TestFolder folder;
  SparseBytes file;
  file.Write(0, Pattern(1, 0, 100001));
  file.WriteTo(folder / "disk.img");
  const auto disk = MustOpen(folder / "disk.img");
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->identity().format, DiskFormat::kRaw);
  EXPECT_EQ(disk->identity().kind, DiskKind::kFixed);
  EXPECT_EQ(disk->size(), 100001u);
  ExpectSameBytes(ReadAll(*disk), Pattern(1, 0, 100001));
}

TEST(RawLayerTest, HolesOfTheFileAreHolesOfTheDisk) {
  TestFolder folder;
  SparseBytes file;
  file.Write(kMiB, Pattern(1, kMiB, 64 * kKiB));
  file.Write(5 * kMiB, Pattern(1, 5 * kMiB, 64 * kKiB));
  file.Resize(16 * kMiB + 100);
  file.WriteTo(folder / "disk.raw");
  const auto disk = MustOpen(folder / "disk.raw");
  ASSERT_NE(disk, nullptr);
  Expected expected(16 * kMiB + 100);
  expected.Fill(1, kMiB, 64 * kKiB);
  expected.Fill(1, 5 * kMiB, 64 * kKiB);
  const Bytes content = ReadAll(*disk);
  ExpectSameBytes(content, expected.bytes());
  ExpectHolesAreZero(*disk, content);
  const auto raw = FileSystem::Default().Open(folder / "disk.raw", {});
  ASSERT_TRUE(raw.ok());
  if ((*raw)->NextData(0).value()->begin == 0) {
    GTEST_SKIP() << "holes can't be asked for in " << folder.path();
  }
  EXPECT_EQ(disk->NextPresent(0).value(), kMiB);
  EXPECT_EQ(disk->NextPresent(5 * kMiB + 64 * kKiB).value(), disk->size());
  EXPECT_EQ(MapRange(*disk, 0, disk->size()).size(), 5u);
  // Backwards, so that nothing that was remembered helps.
  for (uint64_t offset = disk->size(); offset >= 70000; offset -= 70000) {
    const uint64_t from = offset - 70000;
    const auto begin = expected.bytes().begin() + static_cast<ptrdiff_t>(from);
    ExpectSameBytes(ReadRange(*disk, from, 70000), Bytes(begin, begin + 70000));
  }
}

TEST(RawLayerTest, ANameOfAVirtualDiskIsNeverTakenForRaw) {
  TestFolder folder;
  for (const char* name : {"a.vhd", "a.VHDX", "a.avhd", "a.AvhdX"}) {
    std::ofstream(folder / name) << std::string(2 * kMiB, 'x');
    ExpectRefused(folder / name, Code::kDiskInvalid, "no-signature");
  }
  OpenDiskOptions options = Buffered();
  options.format = DiskFormat::kRaw;
  EXPECT_NE(MustOpen(folder / "a.vhd", options), nullptr);
}

TEST(RawLayerTest, AFormatThatWasNamedIsNotGuessed) {
  TestFolder folder;
  VhdxImage image;
  image.WriteTo(folder / "disk.bin");
  const auto guessed = MustOpen(folder / "disk.bin");
  ASSERT_NE(guessed, nullptr);
  EXPECT_EQ(guessed->identity().format, DiskFormat::kVhdx);
  OpenDiskOptions options = Buffered();
  options.format = DiskFormat::kRaw;
  const auto raw = MustOpen(folder / "disk.bin", options);
  ASSERT_NE(raw, nullptr);
  EXPECT_EQ(raw->size(), std::filesystem::file_size(folder / "disk.bin"));
  options.format = DiskFormat::kVhd;
  EXPECT_EQ(OpenError(folder / "disk.bin", options).code(), Code::kDiskInvalid);
}

TEST(RawLayerTest, AnEmptyFileIsNoDisk) {
  TestFolder folder;
  std::ofstream(folder / "disk.img").flush();
  ExpectRefused(folder / "disk.img", Code::kDiskInvalid, "empty-file");
}

TEST(RawLayerTest, AFileThatIsNotThereIsNotFound) {
  TestFolder folder;
  EXPECT_EQ(OpenError(folder / "missing.vhdx").code(), Code::kNotFound);
  const auto inspection = InspectDisk(FileSystem::Default(), folder / "missing.vhdx", Buffered());
  EXPECT_EQ(inspection.status().code(), Code::kNotFound);
}

TEST(RawLayerTest, AFileThatShrinksIsAChangedSource) {
  TestFolder folder;
  std::ofstream(folder / "disk.img") << std::string(kMiB, 'x');
  const auto disk = MustOpen(folder / "disk.img");
  ASSERT_NE(disk, nullptr);
  EXPECT_TRUE(disk->CheckUnchanged().ok());
  std::filesystem::resize_file(folder / "disk.img", kMiB / 2);
  EXPECT_EQ(disk->CheckUnchanged().code(), Code::kSourceChanged);
  Bytes bytes(4096);
  const Status status = disk->Read(kMiB - 4096, bytes);
  EXPECT_EQ(status.code(), Code::kSourceChanged) << status.ToString();
}

}  // namespace
}  // namespace firn
