#include "io/fault_file_system.h"

#include "io/folder_test_util.h"

namespace firn {
namespace {

using Kind = FaultPlan::Kind;
using test::Must;

class FaultFileSystemTest : public ::testing::Test {
 protected:
  // Two names, two writes, one sync, two reads.
  Status Work(FaultFileSystem* fs) {
    std::vector<uint8_t> bytes(100, 7);
    {
      FIRN_ASSIGN_OR_RETURN(auto file, fs->Open(folder_ / "a", {.access = Access::kCreateAlways}));
      FIRN_RETURN_IF_ERROR(file->WriteAt(0, bytes));
      FIRN_RETURN_IF_ERROR(file->WriteAt(100, bytes));
      FIRN_RETURN_IF_ERROR(file->Sync());
      FIRN_RETURN_IF_ERROR(file->ReadAt(0, bytes));
      FIRN_RETURN_IF_ERROR(file->Size().status());
    }
    return fs->Rename(folder_ / "a", folder_ / "b");
  }

  FileSystem& base_ = FileSystem::Default();
  test::TestFolder folder_;
};

TEST_F(FaultFileSystemTest, CountsTheCallsOfItsKind) {
  const std::vector<std::pair<Kind, uint64_t>> expected = {
      {Kind::kRead, 2}, {Kind::kWrite, 2}, {Kind::kSync, 1}, {Kind::kName, 2}, {Kind::kAny, 7}};
  for (const auto& [kind, calls] : expected) {
    FaultFileSystem fs(base_, {.kind = kind});
    FIRN_ASSERT_OK(Work(&fs));
    EXPECT_EQ(fs.calls(), calls);
    EXPECT_FALSE(fs.fired());
  }
}

TEST_F(FaultFileSystemTest, FailsTheCallItWasToldToAndNoOther) {
  for (uint64_t n = 1; n <= 7; ++n) {
    FaultFileSystem fs(base_, {.kind = Kind::kAny, .fail_at = n, .code = Code::kDiskFull});
    const Status status = Work(&fs);
    EXPECT_EQ(status.code(), Code::kDiskFull) << n;
    EXPECT_FALSE(status.path().empty());
    EXPECT_TRUE(fs.fired());
    FIRN_EXPECT_OK(Work(&fs));
  }
}

TEST_F(FaultFileSystemTest, APersistentFaultStays) {
  FaultFileSystem fs(
      base_, {.kind = Kind::kWrite, .fail_at = 2, .persistent = true, .code = Code::kDiskFull});
  auto file = Must(fs.Open(folder_ / "a", {.access = Access::kCreateNew}));
  const std::vector<uint8_t> bytes(10);
  FIRN_EXPECT_OK(file->WriteAt(0, bytes));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(file->WriteAt(0, bytes).code(), Code::kDiskFull);
  std::vector<uint8_t> out(10);
  FIRN_EXPECT_OK(file->ReadAt(0, out));
}

TEST_F(FaultFileSystemTest, AQueuesFaultComesBackAsACompletion) {
  FaultFileSystem fs(base_, {.kind = Kind::kRead, .fail_at = 3, .code = Code::kRead});
  auto file = Must(fs.Open(folder_ / "a", {.access = Access::kCreateNew}));
  FIRN_ASSERT_OK(file->WriteAt(0, std::vector<uint8_t>(4096, 5)));
  auto queue = Must(fs.NewQueue({.depth = 4}));
  std::vector<uint8_t> memory(4096);
  for (uint64_t tag = 1; tag <= 4; ++tag) {
    FIRN_ASSERT_OK(queue->Submit({.file = file.get(),
                                  .offset = 1024 * (tag - 1),
                                  .data = memory.data() + 1024 * (tag - 1),
                                  .length = 1024,
                                  .tag = tag}));
  }
  EXPECT_EQ(queue->in_flight(), 4u);
  std::vector<IoCompletion> completions;
  FIRN_ASSERT_OK(queue->Wait(4, &completions));
  ASSERT_EQ(completions.size(), 4u);
  EXPECT_EQ(queue->in_flight(), 0u);
  for (const IoCompletion& completion : completions) {
    EXPECT_EQ(completion.status.ok(), completion.tag != 3) << completion.tag;
    EXPECT_EQ(completion.status.offset().value_or(2048), 2048u);
  }
}

}  // namespace
}  // namespace firn
