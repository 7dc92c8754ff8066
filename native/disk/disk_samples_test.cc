// Images that other people's programs wrote, read to the digests of what qemu-img reads in them.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/core_test_util.h"
#include "disk/disk.h"
#include "disk/image_test_util.h"

namespace firn {
namespace {

using namespace image_test;  // NOLINT: test support

struct Sample {
  const char* name;  // as packed
  uint64_t size;
  const char* digest;
};

std::string SampleFolder() {
  if (const char* folder = std::getenv("FIRN_SAMPLES")) return folder;
  // From native/disk/ up to the folder beside the repository.
  const std::filesystem::path here = std::filesystem::absolute(__FILE__).parent_path();
  return (here / "../../../shared/data/vhdx").lexically_normal().string();
}

// Unpacks a sample; "" if it is not there.
std::string Unpack(const TestFolder& folder, const std::string& name) {
#ifdef _WIN32
  // Nothing there unpacks them: they are to be had unpacked already.
  const char* const unpacked = std::getenv("FIRN_UNPACKED_SAMPLES");
  const std::filesystem::path path = std::filesystem::path(unpacked == nullptr ? "" : unpacked) /
                                     std::filesystem::path(name).stem();
  if (unpacked == nullptr || !std::filesystem::exists(path)) return "";
  std::string copy = folder / path.filename().string();
  std::filesystem::copy_file(path, copy);
  return copy;
#else
  const std::string packed = (std::filesystem::path(SampleFolder()) / name).string();
  if (!std::filesystem::exists(packed)) return "";
  std::string target = folder / std::filesystem::path(name).stem().string();
  const std::string program = name.ends_with(".bz2") ? "bzip2 -dc" : "gzip -dc";
  return RunCommand(program + " '" + packed + "' > '" + target + "'") ? target : "";
#endif
}

class SampleTest : public ::testing::TestWithParam<Sample> {};

TEST_P(SampleTest, ReadsAsItsDigestSays) {
  const Sample& sample = GetParam();
  if (test::RunningUnderSanitizer() && sample.size > 2 * kGiB) {
    GTEST_SKIP() << "hashing " << sample.size << " bytes takes minutes under a sanitizer";
  }
  TestFolder folder;
  const std::string path = Unpack(folder, sample.name);
  if (path.empty()) GTEST_SKIP() << sample.name << " is not in " << SampleFolder();
  const auto disk = MustOpen(path);
  ASSERT_NE(disk, nullptr);
  EXPECT_EQ(disk->size(), sample.size);
  EXPECT_EQ(ContentDigest(*disk), sample.digest);
  EXPECT_TRUE(disk->CheckUnchanged().ok());
}

INSTANTIATE_TEST_SUITE_P(
    Images, SampleTest,
    ::testing::Values(Sample{"iotest-dynamic-1G.vhdx.bz2", 1073741824,
                             "ba30dce86358d73c9cd77442393bbdff1141863205135d774f143995134479ed"},
                      Sample{"iotest-dirtylog-10G-4M.vhdx.bz2", 10737418240,
                             "00feef164adc97a351795cc593a3d45ce83ff207058761bdaff6585a77777fdc"},
                      Sample{"test-disk2vhd.vhdx.bz2", 268435456,
                             "8ff7938681b9c206a89aedf1e2f4d9e5a2c62cd390bad3230fa00c1ceed7e3bc"},
                      Sample{"vhdx-log-replay.vhdx.gz", 1073741824,
                             "de5d8b204406e2f9f98ced60dd26eed31c3aefef00d1803c3a133ff6fc2f7ec2"},
                      Sample{"btrfs.vhdx.gz", 1073741824,
                             "3576a664217f8202902b0699b50b57331fd673a294dea881c0dfb663164423c7"},
                      Sample{"swap.vhdx.gz", 10737418240,
                             "0789e036786a0043223ba2000a267225ad83b662b904933bbefd56001a234c7b"},
                      Sample{"d2v-zerofilled.vhd.bz2", 263454720,
                             "0b2a1e1b41b7664446690f5ba184df92d3e4d3f39f7762fbd15a0fb6aeb5b4ae"}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
      return name;
    });

TEST(SamplesTest, EmptyVhdsAreHolesOfTheirCurrentSize) {
  for (const char* name : {"hyperv2012r2-dynamic.vhd.bz2", "virtualpc-dynamic.vhd.bz2"}) {
    TestFolder folder;
    const std::string path = Unpack(folder, name);
    if (path.empty()) GTEST_SKIP() << name << " is not in " << SampleFolder();
    const auto disk = MustOpen(path);
    ASSERT_NE(disk, nullptr);
    EXPECT_EQ(disk->size(), 136365211648u) << name;
    EXPECT_EQ(disk->identity().kind, DiskKind::kDynamic);
    EXPECT_EQ(disk->NextPresent(0).value(), disk->size());
    const std::vector<Extent> extents = MapRange(*disk, 0, disk->size());
    ASSERT_EQ(extents.size(), 1u);
    EXPECT_EQ(extents[0].source, nullptr);
  }
}

TEST(SamplesTest, AChildWithoutItsParentIsRefusedAndSaysWhatItLookedFor) {
  TestFolder folder;
  const std::string path = Unpack(folder, "fat-differential.vhd.gz");
  if (path.empty()) GTEST_SKIP() << "fat-differential is not in " << SampleFolder();
  const Status status = OpenError(path);
  EXPECT_EQ(status.code(), Code::kParentNotFound) << status.ToString();
  EXPECT_NE(status.message().find("fat-parent.vhd"), std::string::npos) << status.ToString();
  EXPECT_NE(status.message().find(folder.path()), std::string::npos) << status.ToString();
  EXPECT_NE(status.message().find("--parent-folder"), std::string::npos) << status.ToString();

  const Inspection inspection = Inspect(path);
  EXPECT_EQ(inspection.error.code(), Code::kParentNotFound);
  ASSERT_EQ(inspection.layers.size(), 1u);
  EXPECT_EQ(inspection.layers[0].identity.kind, DiskKind::kDifferencing);
  EXPECT_EQ(inspection.layers[0].creator, "win 10.0 (Wi2k)");
}

TEST(SamplesTest, TheLogOfWindows10ReplaysExactlyItsLastTwoEntries) {
  TestFolder folder;
  const std::string path = Unpack(folder, "vhdx-log-replay.vhdx.gz");
  if (path.empty()) GTEST_SKIP() << "vhdx-log-replay is not in " << SampleFolder();
  const Inspection inspection = Inspect(path);
  EXPECT_TRUE(inspection.error.ok()) << inspection.error.ToString();
  ASSERT_EQ(inspection.layers.size(), 1u);
  const LayerInfo& layer = inspection.layers[0];
  EXPECT_EQ(layer.log.state, LogInfo::State::kReplayed);
  EXPECT_EQ(layer.log.entries, 2u);
  EXPECT_EQ(layer.data_write_guid, "8fbc9db8-2cfd-45b8-9688-1c6fedbc7230");
  EXPECT_EQ(layer.blocks, 32u);
  EXPECT_EQ(layer.blocks_full, 1u);
  EXPECT_EQ(layer.blocks_zero, 3u);
  EXPECT_EQ(layer.creator, "Microsoft Windows 10.0.15063.0");
}

TEST(SamplesTest, EqualHeadersAndAnOddFileLengthAreNoObstacle) {
  TestFolder folder;
  const std::string path = Unpack(folder, "test-disk2vhd.vhdx.bz2");
  if (path.empty()) GTEST_SKIP() << "test-disk2vhd is not in " << SampleFolder();
  const Inspection inspection = Inspect(path);
  EXPECT_TRUE(inspection.error.ok()) << inspection.error.ToString();
  ASSERT_EQ(inspection.layers.size(), 1u);
  EXPECT_TRUE(HasFinding(inspection.layers[0], "headers-equal"));
  EXPECT_EQ(inspection.layers[0].file_bytes % kMiB, 512u);
  EXPECT_EQ(inspection.layers[0].creator, "d2v");
}

}  // namespace
}  // namespace firn
