#include "pipeline/copy_job.h"

#include <thread>

#include "pipeline/repository_test_util.h"

namespace firn {
namespace {

using test::DiskContent;
using test::Identity;
using test::SmallTuning;

class CopyJobTest : public ::testing::Test {
 protected:
  static std::string NameOf(const std::string& stem, const DiskIdentity& identity) {
    return stem + (identity.format == DiskFormat::kRaw   ? ".raw"
                   : identity.format == DiskFormat::kVhd ? ".vhd"
                                                         : ".vhdx");
  }
  Status Copy(const std::string& from, const std::string& to, const DiskIdentity& identity,
              uint64_t bytes, const Tuning& tuning = SmallTuning()) {
    return CopyJob(FileSystem::Default(), tuning, test::CopyOptionsFor(from, to, identity, bytes))
        .Run();
  }

  test::TestFolder folder_;
  test::Random random_{191};
};

TEST_F(CopyJobTest, EveryFormatCopiesToEveryOther) {
  DiskContent content(27 * kMiB + 512);
  content.Scatter(&random_, 40);
  const std::vector<DiskIdentity> formats = {
      Identity(DiskFormat::kRaw), Identity(DiskFormat::kVhdx),
      Identity(DiskFormat::kVhdx, DiskKind::kFixed), Identity(DiskFormat::kVhd),
      Identity(DiskFormat::kVhd, DiskKind::kFixed)};
  uint32_t tried = 0;
  for (const DiskIdentity& from : formats) {
    const std::string source = folder_ / NameOf("source", from);
    content.WriteImage(source, from);
    for (const DiskIdentity& to : formats) {
      const std::string target = folder_ / NameOf("target", to);
      const Tuning tuning =
          SmallTuning(1 + tried % 3, tried % 2 == 0 ? IoBackend::kAuto : IoBackend::kThreads,
                      tried % 5 == 0 ? IoMode::kBuffered : IoMode::kAuto);
      ++tried;
      FIRN_ASSERT_OK(Copy(source, target, to, content.bytes(), tuning));
      EXPECT_EQ(test::ImageDifference(target, content), "")
          << FormatName(from.format) << " " << KindName(from.kind) << " -> "
          << FormatName(to.format) << " " << KindName(to.kind);
      std::filesystem::remove(target);
    }
    std::filesystem::remove(source);
  }
}

TEST_F(CopyJobTest, SizesThatFillNoPageCopyToRaw) {
  for (uint64_t bytes :
       {uint64_t{1}, uint64_t{4095}, uint64_t{4097}, 8 * kMiB + 1, 17 * kMiB + 777}) {
    DiskContent content(bytes);
    content.Scatter(&random_, 80);
    content.Set(content.page_count() - 1, random_.Bytes(kPageBytes));
    content.WriteRaw(folder_ / "source.raw");
    FIRN_ASSERT_OK(
        Copy(folder_ / "source.raw", folder_ / "target.raw", Identity(DiskFormat::kRaw), bytes));
    EXPECT_EQ(test::ImageDifference(folder_ / "target.raw", content), "") << bytes;
    std::filesystem::remove(folder_ / "target.raw");
  }
}

TEST_F(CopyJobTest, ZerosAreNotWritten) {
  DiskContent content(64 * kMiB);
  content.Set(3, random_.Bytes(kPageBytes));
  content.WriteRaw(folder_ / "source.raw", 1);
  FIRN_ASSERT_OK(Copy(folder_ / "source.raw", folder_ / "target.vhdx", Identity(DiskFormat::kVhdx),
                      content.bytes()));
  EXPECT_LT(std::filesystem::file_size(folder_ / "target.vhdx"), 40 * kMiB);
  EXPECT_EQ(test::ImageDifference(folder_ / "target.vhdx", content), "");
}

TEST_F(CopyJobTest, ATargetMayBeLargerButNotSmaller) {
  DiskContent content(5 * kMiB);
  content.Scatter(&random_, 50);
  content.WriteRaw(folder_ / "source.raw");
  EXPECT_EQ(Copy(folder_ / "source.raw", folder_ / "target.raw", Identity(DiskFormat::kRaw),
                 5 * kMiB - 512)
                .code(),
            Code::kInvalidArgument);
  FIRN_ASSERT_OK(
      Copy(folder_ / "source.raw", folder_ / "target.raw", Identity(DiskFormat::kRaw), 9 * kMiB));
  DiskContent larger(9 * kMiB);
  for (const auto& [page, bytes] : content.pages()) larger.Set(page, bytes);
  EXPECT_EQ(test::ImageDifference(folder_ / "target.raw", larger), "");
  EXPECT_EQ(test::FilesBelow(folder_.path()).size(), 2u);
}

TEST_F(CopyJobTest, TheLeastTuningWorks) {
  DiskContent content(40 * kMiB);
  content.Scatter(&random_, 60);
  content.WriteRaw(folder_ / "source.raw");
  FIRN_ASSERT_OK(Copy(folder_ / "source.raw", folder_ / "target.raw", Identity(DiskFormat::kRaw),
                      content.bytes(), {.workers = 0, .memory_bytes = 1}));
  EXPECT_EQ(test::ImageDifference(folder_ / "target.raw", content), "");
}

}  // namespace
}  // namespace firn
