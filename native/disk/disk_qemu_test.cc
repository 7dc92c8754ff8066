// The same image, read by Firn and by qemu-img, which knows nothing of Firn.

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "disk/image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

class QemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!RunCommand("command -v qemu-img >/dev/null 2>&1")) {
      GTEST_SKIP() << "qemu-img is not installed";
    }
  }

  // A raw disk with runs of data and of zeros of all sizes.
  Bytes WriteRaw(uint64_t size, uint64_t seed) {
    std::mt19937_64 random(seed);
    SparseBytes file;
    file.Resize(size);
    for (uint64_t offset = random() % kMiB; offset < size;) {
      const uint64_t length = std::min(1 + random() % (512 * kKiB), size - offset);
      file.Write(offset, Pattern(random(), offset, length));
      offset += length + random() % (5 * kMiB);
    }
    file.Resize(size);
    file.WriteTo(folder_ / "disk.raw");
    return file.Read(0, size);
  }

  bool Convert(const std::string& options, const std::string& name) {
    return RunCommand("qemu-img convert -f raw " + options + " '" + (folder_ / "disk.raw") + "' '" +
                      (folder_ / name) + "'");
  }

  // EXPECTs that Firn reads in `name` what qemu-img reads in it, which is `content`.
  void ExpectReadsLikeQemu(const std::string& name, const Bytes& content,
                           const std::string& format) {
    const std::string back = folder_ / "back.raw";
    ASSERT_TRUE(RunCommand("qemu-img convert -f " + format + " -O raw '" + (folder_ / name) +
                           "' '" + back + "'"));
    const auto referee = MustOpen(back);
    ASSERT_NE(referee, nullptr);
    Bytes expected = ReadAll(*referee);
    ASSERT_GE(expected.size(), content.size());
    EXPECT_TRUE(std::equal(content.begin(), content.end(), expected.begin()));

    const auto disk = MustOpen(folder_ / name);
    ASSERT_NE(disk, nullptr);
    const Bytes actual = ReadAll(*disk);
    ExpectSameBytes(actual, expected);
    ExpectHolesAreZero(*disk, actual);
    EXPECT_TRUE(disk->CheckUnchanged().ok());
  }

  TestFolder folder_;
};

TEST_F(QemuTest, VhdxOfAllBlockSizesReadsAlike) {
  const uint64_t size = 24 * kMiB + 512 * 7;
  const Bytes content = WriteRaw(size, 1);
  for (const char* options :
       {"block_size=1M", "block_size=2M", "block_size=8M", "block_size=256M",
        "block_size=1M,block_state_zero=off", "subformat=fixed",
        "subformat=fixed,block_state_zero=off", "block_size=1M,log_size=4M"}) {
    SCOPED_TRACE(options);
    ASSERT_TRUE(Convert(std::string("-O vhdx -o ") + options, "disk.vhdx"));
    ExpectReadsLikeQemu("disk.vhdx", content, "vhdx");
  }
}

TEST_F(QemuTest, VhdOfBothKindsReadsAlike) {
  // force_size keeps the size from being rounded up to a geometry.
  const Bytes content = WriteRaw(20 * kMiB + 512 * 3, 2);
  for (const char* options : {"subformat=dynamic,force_size=on", "subformat=fixed,force_size=on",
                              "subformat=dynamic", "subformat=fixed"}) {
    SCOPED_TRACE(options);
    ASSERT_TRUE(Convert(std::string("-O vpc -o ") + options, "disk.vhd"));
    ExpectReadsLikeQemu("disk.vhd", content, "vpc");
  }
}

TEST_F(QemuTest, AnEmptyVhdxOfAnySizeIsOneHole) {
  for (const char* size : {"1M", "10G", "5T", "63T"}) {
    ASSERT_TRUE(
        RunCommand("qemu-img create -q -f vhdx '" + (folder_ / "empty.vhdx") + "' " + size));
    const auto disk = MustOpen(folder_ / "empty.vhdx");
    ASSERT_NE(disk, nullptr);
    EXPECT_EQ(disk->NextPresent(0).value(), disk->size());
    EXPECT_EQ(MapRange(*disk, 0, disk->size()).size(), 1u);
    EXPECT_EQ(disk->layers()[0].creator.substr(0, 4), "QEMU");
  }
}

TEST_F(QemuTest, BlocksPastTheFirstChunkAreWhereQemuPutThem) {
  // 5 GiB of 1 MiB blocks: the second chunk starts at 4 GiB.
  SparseBytes file;
  for (const uint64_t offset : {4095 * kMiB, 4096 * kMiB, 5 * kGiB - kMiB}) {
    file.Write(offset, Pattern(offset, offset, kMiB));
  }
  file.WriteTo(folder_ / "disk.raw");
  ASSERT_TRUE(Convert("-O vhdx -o block_size=1M", "disk.vhdx"));
  const auto disk = MustOpen(folder_ / "disk.vhdx");
  ASSERT_NE(disk, nullptr);
  for (const uint64_t offset : {4095 * kMiB, 4096 * kMiB, 5 * kGiB - kMiB}) {
    ExpectSameBytes(ReadRange(*disk, offset, kMiB), Pattern(offset, offset, kMiB));
  }
  EXPECT_EQ(disk->NextPresent(0).value(), 4095 * kMiB);
  EXPECT_EQ(disk->NextPresent(4097 * kMiB).value(), 5 * kGiB - kMiB);
}

}  // namespace
}  // namespace firn
