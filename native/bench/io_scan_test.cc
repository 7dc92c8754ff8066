#include "bench/io_scan.h"

#include <chrono>
#include <thread>

#include "bench/stage_scan.h"
#include "chunk/page.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using Kind = IoScanOptions::Kind;

constexpr uint64_t kFileBytes = 8 * kMiB;

class IoScan : public ::testing::Test {
 protected:
  std::string MakeFile(const char* name = "data.raw", double duplicates = 0) {
    MakeDataJob job(fs_, {},
                    {.path = folder_ / name,
                     .bytes = kFileBytes,
                     .data = {.seed = 5, .entropy = 0.5, .duplicates = duplicates}});
    test::Must(job.Run());
    return folder_ / name;
  }

  IoScanResult Scan(const IoScanOptions& options, const Tuning& tuning = {}) {
    IoScanJob job(fs_, tuning, options);
    FIRN_EXPECT_OK(job.Run());
    return job.result();
  }

  FileSystem& fs_ = FileSystem::Default();
  test::TestFolder folder_;
};

TEST_F(IoScan, AColdReadCountsEachByteOfTheFileOnceAndEachRequest) {
  const std::string path = MakeFile();
  for (const Kind kind : {Kind::kFile, Kind::kMap}) {
    for (const bool direct : {true, false}) {
      const IoScanResult result = Scan({.kind = kind,
                                        .path = path,
                                        .block_bytes = 256 * 1024,
                                        .depth = 4,
                                        .direct = direct,
                                        .cold = true,
                                        .run_ms = 60'000});
      EXPECT_EQ(result.bytes, kFileBytes);
      EXPECT_EQ(result.plan_bytes, kFileBytes);
      EXPECT_EQ(result.latency.count(), kFileBytes / (256 * 1024));
      EXPECT_GT(result.elapsed_ns, 0u);
      uint64_t sliced = 0;
      for (const uint64_t bytes : result.slices) sliced += bytes;
      EXPECT_EQ(sliced, result.bytes);
      EXPECT_FALSE(result.is_cut);
    }
  }
}

TEST_F(IoScan, HolesAreNotReadAndNotCounted) {
  const std::string path = MakeFile();
  {
    std::unique_ptr<File> file = test::Must(fs_.Open(path, {.access = Access::kReadWrite}));
    test::Must(file->Truncate(uint64_t{1} << 40));
  }
  const IoScanResult result =
      Scan({.path = path, .block_bytes = 1 << 20, .depth = 2, .cold = true, .run_ms = 60'000});
  EXPECT_EQ(result.bytes, kFileBytes);
}

TEST_F(IoScan, ARunThatIsLongerThanTheFileGoesAround) {
  IoScanJob job(fs_, {},
                {.path = MakeFile(), .block_bytes = 1 << 20, .depth = 4, .run_ms = 600'000});
  std::thread canceller([&] {
    while (job.stats().done_bytes <= kFileBytes && job.stats().phase != Phase::kDone) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    job.Cancel();
  });
  EXPECT_EQ(job.Run().code(), Code::kAborted);
  canceller.join();
  EXPECT_GT(job.stats().done_bytes, kFileBytes);
}

// How much it reads until then is the machine's affair.
TEST_F(IoScan, ARunEndsWhenItsTimeIsOverAndNotBefore) {
  IoScanJob job(
      fs_, {},
      {.path = MakeFile(), .block_bytes = 1 << 20, .depth = 4, .warm_up_ms = 20, .run_ms = 200});
  FIRN_ASSERT_OK(job.Run());
  EXPECT_GE(job.stats().elapsed_ns, 220'000'000u);
  EXPECT_LE(job.result().elapsed_ns, job.stats().elapsed_ns - 20'000'000u);
}

TEST_F(IoScan, AnotherPositionReadsFromThere) {
  const IoScanResult result = Scan({.path = MakeFile(),
                                    .block_bytes = 1 << 20,
                                    .depth = 1,
                                    .cold = true,
                                    .position = kFileBytes - 3 * kMiB,
                                    .run_ms = 60'000});
  EXPECT_EQ(result.bytes, 3 * kMiB);
}

TEST_F(IoScan, TheCapHolds) {
  const IoScanResult result = Scan(
      {.path = MakeFile(), .block_bytes = 64 * 1024, .depth = 8, .cold = true, .run_ms = 600'000},
      {.bytes_per_second = 16 * kMiB});
  EXPECT_EQ(result.bytes, kFileBytes);
  // All of it but the last block is waited for.
  EXPECT_GE(result.elapsed_ns, 490'000'000u);
}

TEST_F(IoScan, AWriteLeavesNothingBehind) {
  const IoScanResult result = Scan({.kind = Kind::kWrite,
                                    .path = folder_ / "new",
                                    .file_bytes = 4 * kMiB,
                                    .block_bytes = 1 << 20,
                                    .depth = 4,
                                    .run_ms = 600'000});
  EXPECT_EQ(result.bytes, 4 * kMiB);
  EXPECT_TRUE(test::FilesBelow(folder_.path()).empty());
}

TEST_F(IoScan, AWriteWritesNoPlaceTwice) {
  for (uint64_t warm_up_ms : {0, 10}) {
    const IoScanResult result = Scan({.kind = Kind::kWrite,
                                      .path = folder_ / "new",
                                      .file_bytes = 8 * kMiB,
                                      .block_bytes = 1 << 20,
                                      .depth = 4,
                                      .warm_up_ms = warm_up_ms,
                                      .run_ms = 600'000});
    EXPECT_EQ(result.bytes, (warm_up_ms == 0 ? 8 : 6) * kMiB);
  }
}

TEST_F(IoScan, AWriteNeverTouchesAFileThatIsThere) {
  test::WriteWholeFile(folder_ / "mine", std::vector<uint8_t>(100, 1));
  IoScanJob job(fs_, {}, {.kind = Kind::kWrite, .path = folder_ / "mine", .file_bytes = 4 * kMiB});
  EXPECT_EQ(job.Run().code(), Code::kExists);
  EXPECT_EQ(test::ReadWholeFile(folder_ / "mine").size(), 100u);
}

TEST_F(IoScan, CancellingEndsAScanAndAWriteLeavesNothingThenEither) {
  IoScanJob job(fs_, {.bytes_per_second = kMiB},
                {.kind = Kind::kWrite,
                 .path = folder_ / "new",
                 .file_bytes = 256 * kMiB,
                 .block_bytes = 1 << 20,
                 .depth = 2,
                 .run_ms = 600'000});
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    job.Cancel();
  });
  EXPECT_EQ(job.Run().code(), Code::kAborted);
  canceller.join();
  EXPECT_TRUE(test::FilesBelow(folder_.path()).empty());
}

TEST_F(IoScan, OptionsThatMakeNoSenseAreRefusedBeforeMemoryIsTaken) {
  const std::string path = MakeFile();
  for (const IoScanOptions& options :
       {IoScanOptions{.path = path, .block_bytes = 0}, IoScanOptions{.path = path, .depth = 0},
        IoScanOptions{.path = path, .block_bytes = 1000},
        IoScanOptions{.path = path, .depth = 1025},
        IoScanOptions{.path = path, .block_bytes = 64 << 20, .depth = 1024},
        IoScanOptions{.path = path, .run_ms = 0},
        IoScanOptions{.kind = Kind::kWrite, .path = folder_ / "new", .file_bytes = 4096}}) {
    IoScanJob job(fs_, {}, options);
    EXPECT_EQ(job.Run().code(), Code::kInvalidArgument);
  }
}

// The bytes are what they are said to be: half random, half of the units repeated, none zero.
TEST_F(IoScan, StagesCountTheReductionThatTheDataWasMadeWith) {
  const std::string path = MakeFile("stages.raw", 0.5);
  StageScanJob job(fs_, {}, {.path = path});
  FIRN_ASSERT_OK(job.Run());
  const StageScanResult& result = job.result();
  EXPECT_EQ(result.data_bytes, kFileBytes);
  EXPECT_LT(result.unique_bytes, kFileBytes * 9 / 10);
  EXPECT_GT(result.unique_bytes, kFileBytes / 5);
  EXPECT_NEAR(
      static_cast<double>(result.compressed_bytes) / static_cast<double>(result.unique_bytes), 0.64,
      0.06);
  EXPECT_GT(result.scan_ns, 0u);
  EXPECT_GT(result.hash_ns, 0u);
  EXPECT_GT(result.compress_ns, 0u);
}

TEST(BenchData, IsTheSameWhateverPieceIsAskedForAndNeverAZeroPage) {
  const BenchData data{.seed = 9, .entropy = 0.05, .duplicates = 0.4};
  std::vector<uint8_t> whole(4 * kMiB);
  data.Fill(0, whole);
  std::vector<uint8_t> piece(3 * kPageBytes);
  for (const uint64_t page : {0u, 255u, 256u, 700u}) {
    data.Fill(page * kPageBytes, piece);
    EXPECT_TRUE(std::equal(piece.begin(), piece.end(),
                           whole.begin() + static_cast<std::ptrdiff_t>(page * kPageBytes)));
  }
  for (size_t at = 0; at < whole.size(); at += kPageBytes) {
    EXPECT_TRUE(std::any_of(whole.begin() + static_cast<std::ptrdiff_t>(at),
                            whole.begin() + static_cast<std::ptrdiff_t>(at + kPageBytes),
                            [](uint8_t byte) { return byte != 0; }));
  }
}

TEST(BenchData, TheShareOfRepeatedUnitsIsAsAskedFor) {
  const BenchData data{.seed = 3, .entropy = 0.5, .duplicates = 0.3};
  int repeated = 0;
  for (uint64_t unit = 0; unit < 4000; ++unit) {
    const uint64_t source = data.SourceUnit(unit);
    EXPECT_LE(source, unit);
    EXPECT_EQ(data.SourceUnit(source), source);
    if (source != unit) ++repeated;
  }
  EXPECT_NEAR(repeated / 4000.0, 0.3, 0.03);
}

}  // namespace
}  // namespace firn
