#include "io/file.h"

#ifdef _WIN32
#include "io/system_win.h"
#else
#include <sys/stat.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include <cerrno>
#endif

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

#include "io/aligned_buffer.h"
#include "io/folder_test_util.h"
#include "io/system_test_util.h"

namespace firn {
namespace {

using test::Must;

// Bytes of the disk that a file takes, or nothing where that is not told.
std::optional<uint64_t> SpaceOf(const std::string& path) {
#ifdef _WIN32
  // Wine answers with the size of the file, sparse or not.
  (void)path;
  return {};
#else
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
#endif
}

// Whether the kernel's cache is all that the file system has: nothing is dropped from it then.
bool LivesInCache(const std::string& path) {
#ifdef __linux__
  struct statfs info {};
  EXPECT_EQ(statfs(path.c_str(), &info), 0);
  return info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC;
#else
  (void)path;
  return false;
#endif
}

#ifdef _WIN32
constexpr int kExistsError = ERROR_FILE_EXISTS;
constexpr Code kReadOnlyCode = Code::kAccessDenied;
#else
constexpr int kExistsError = EEXIST;
constexpr Code kReadOnlyCode = Code::kWrite;
#endif

class FileTest : public ::testing::TestWithParam<test::SystemKind> {
 protected:
  std::unique_ptr<File> Open(const std::string& name, const OpenOptions& options) {
    return Must(fs_.Open(folder_ / name, options));
  }
  std::unique_ptr<File> Create(const std::string& name) {
    return Open(name, {.access = Access::kCreateNew});
  }

  test::TestSystem system_{GetParam()};
  FileSystem& fs_ = system_.fs();
  test::TestFolder folder_;
  test::Random random_{11};
};

TEST_P(FileTest, ReadsBackWhatWasWrittenAnywhere) {
  auto file = Create("a");
  const std::vector<uint8_t> bytes = random_.Bytes(70'001);
  FIRN_ASSERT_OK(file->WriteAt(123, bytes));
  EXPECT_EQ(Must(file->Size()), 123 + bytes.size());
  std::vector<uint8_t> back(bytes.size());
  FIRN_ASSERT_OK(file->ReadAt(123, back));
  EXPECT_EQ(back, bytes);
  std::vector<uint8_t> head(123, 0xEE);
  FIRN_ASSERT_OK(file->ReadAt(0, head));
  EXPECT_EQ(head, std::vector<uint8_t>(123));
}

TEST_P(FileTest, ReadAtPastTheEndIsTruncationAndSaysWhere) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(100)));
  std::vector<uint8_t> out(64);
  const Status status = file->ReadAt(60, out);
  EXPECT_EQ(status.code(), Code::kDiskTruncated);
  EXPECT_TRUE(status.data_loss());
  EXPECT_EQ(status.path(), folder_ / "a");
  EXPECT_EQ(status.offset(), 100u);
  EXPECT_EQ(file->ReadAt(1000, out).code(), Code::kDiskTruncated);
}

TEST_P(FileTest, ReadSomeGivesFewerBytesAtTheEndAlone) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(100)));
  std::vector<uint8_t> out(64);
  EXPECT_EQ(Must(file->ReadSome(0, out)), 64u);
  EXPECT_EQ(Must(file->ReadSome(60, out)), 40u);
  EXPECT_EQ(Must(file->ReadSome(100, out)), 0u);
  EXPECT_EQ(Must(file->ReadSome(1 << 20, out)), 0u);
}

TEST_P(FileTest, AccessModesAreKept) {
  EXPECT_EQ(fs_.Open(folder_ / "a", {}).status().code(), Code::kNotFound);
  EXPECT_EQ(fs_.Open(folder_ / "a", {.access = Access::kReadWrite}).status().code(),
            Code::kNotFound);
  FIRN_ASSERT_OK(Create("a")->WriteAt(0, random_.Bytes(10)));
  const Status again = fs_.Open(folder_ / "a", {.access = Access::kCreateNew}).status();
  EXPECT_EQ(again.code(), Code::kExists);
  EXPECT_EQ(again.path(), folder_ / "a");
  EXPECT_EQ(again.os_code(), kExistsError);
  EXPECT_EQ(Must(Open("a", {.access = Access::kReadWrite})->Size()), 10u);
  auto reader = Open("a", {});
  const Status refused = reader->WriteAt(4, random_.Bytes(1));
  EXPECT_EQ(refused.code(), kReadOnlyCode);
  EXPECT_EQ(refused.offset(), 4u);
  EXPECT_EQ(Must(Open("a", {.access = Access::kCreateAlways})->Size()), 0u);
  EXPECT_EQ(fs_.Open(folder_ / "no/such/folder", {}).status().code(), Code::kNotFound);
}

TEST_P(FileTest, UnbufferedHandlesSayWhatTheyDemandAndSeeTheSameBytes) {
  auto file = Open("a", {.access = Access::kCreateNew, .direct = true});
  if (!file->direct()) {
    EXPECT_EQ(file->alignment().offset, 1u);
    GTEST_SKIP() << "no unbuffered I/O in " << folder_.path();
  }
  ASSERT_GT(file->alignment().offset, 1u);
  AlignedBuffer memory = Must(AlignedBuffer::Allocate(64 * kKiB));
  random_.Fill(memory.span());
  FIRN_ASSERT_OK(file->WriteAt(4096, {memory.data(), 64 * kKiB}));
  std::vector<uint8_t> back(64 * kKiB);
  FIRN_ASSERT_OK(Open("a", {})->ReadAt(4096, back));
  EXPECT_TRUE(std::ranges::equal(back, memory.span()));
  AlignedBuffer direct_back = Must(AlignedBuffer::Allocate(64 * kKiB));
  FIRN_ASSERT_OK(file->ReadAt(4096, direct_back.span()));
  EXPECT_TRUE(std::ranges::equal(direct_back.span(), memory.span()));
  // A read over the end, as a truncated pack makes one.
  FIRN_ASSERT_OK(file->Truncate(10'000));
  const Status truncated = file->ReadAt(4096, direct_back.span());
  EXPECT_EQ(truncated.code(), Code::kDiskTruncated) << truncated.ToString();
}

TEST_P(FileTest, AFileCanBeCreatedUnbufferedWhereverTheFolderIs) {
  for (const char* parent : {"/dev/shm", "/tmp"}) {
    if (!std::filesystem::is_directory(parent)) continue;
    test::TestFolder folder(parent);
    auto file = fs_.Open(folder / "new", {.access = Access::kCreateNew, .direct = true});
    FIRN_EXPECT_OK(file);
    FIRN_EXPECT_OK(fs_.Open(folder / "new", {.access = Access::kCreateAlways, .direct = true}));
  }
}

TEST_P(FileTest, TruncateGrowsWithZerosThatTakeNoSpace) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->MakeSparse());
  FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(10)));
  FIRN_ASSERT_OK(file->Truncate(64 * kMiB));
  EXPECT_EQ(Must(file->Size()), 64 * kMiB);
  const std::optional<uint64_t> space = SpaceOf(folder_ / "a");
  EXPECT_LT(space.value_or(0), 500 * kKiB);
  std::vector<uint8_t> out(4096, 0xEE);
  FIRN_ASSERT_OK(file->ReadAt(64 * kMiB - 4096, out));
  EXPECT_EQ(out, std::vector<uint8_t>(4096));
  FIRN_ASSERT_OK(file->Truncate(5));
  EXPECT_EQ(Must(file->Size()), 5u);
}

TEST_P(FileTest, PreallocateTakesSpaceAndLeavesTheSize) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->Truncate(100));
  const Status status = file->Preallocate(0, 2 * kMiB);
  if (status.code() == Code::kUnsupported) GTEST_SKIP() << status.ToString();
  FIRN_ASSERT_OK(status);
  EXPECT_EQ(Must(file->Size()), 100u);
  const std::optional<uint64_t> space = SpaceOf(folder_ / "a");
  EXPECT_GE(space.value_or(2 * kMiB), 2 * kMiB);
}

// Every byte that was written lies in some range; ranges come in order and end at the file's end at
// the latest.
TEST_P(FileTest, NextDataSkipsHolesAndMissesNothing) {
  auto file = Create("a");
  const uint64_t size = 8 * kMiB + 1000;
  FIRN_ASSERT_OK(file->Truncate(size));
  const std::vector<uint64_t> places = {64 * kKiB, 3 * kMiB, 3 * kMiB + 4096, size - 700};
  for (uint64_t place : places) FIRN_ASSERT_OK(file->WriteAt(place, random_.Bytes(700)));
  FIRN_ASSERT_OK(file->Sync());
  std::set<uint64_t> found;
  uint64_t bytes = 0;
  for (uint64_t offset = 0;;) {
    const std::optional<DataRange> range = Must(file->NextData(offset));
    if (!range) break;
    ASSERT_GE(range->begin, offset);
    ASSERT_GT(range->end, range->begin);
    ASSERT_LE(range->end, size);
    for (uint64_t place : places) {
      if (place >= range->begin && place + 700 <= range->end) found.insert(place);
    }
    bytes += range->end - range->begin;
    offset = range->end;
  }
  EXPECT_EQ(found.size(), places.size());
  EXPECT_LE(bytes, size);
  EXPECT_FALSE(Must(file->NextData(size)));
  EXPECT_FALSE(Must(file->NextData(size + kTiB)));
  // From the middle of data, the rest of it.
  const std::optional<DataRange> middle = Must(file->NextData(3 * kMiB + 10));
  ASSERT_TRUE(middle);
  EXPECT_EQ(middle->begin, 3 * kMiB + 10);
}

TEST_P(FileTest, NextDataOfAFileThatIsOneHoleFindsNothing) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->Truncate(16 * kMiB));
  const std::optional<DataRange> range = Must(file->NextData(0));
  if (range && range->end == 16 * kMiB) GTEST_SKIP() << "no holes in " << folder_.path();
  EXPECT_FALSE(range);
}

TEST_P(FileTest, IdentityIsTheSameUnderEveryNameAndOnlyThen) {
  auto a = Create("a"), b = Create("b");
  std::filesystem::create_hard_link(folder_ / "a", folder_ / "link");
  EXPECT_EQ(Must(a->Identity()), Must(Open("link", {})->Identity()));
  EXPECT_FALSE(Must(a->Identity()) == Must(b->Identity()));
}

TEST_P(FileTest, IsCachedTellsWhatTheKernelHolds) {
  auto file = Create("a");
  FIRN_ASSERT_OK(file->WriteAt(0, random_.Bytes(kMiB)));
  if (!file->IsCached(0, kMiB)) GTEST_SKIP() << "this kernel can't be asked";
  EXPECT_TRUE(file->IsCached(4095, 2));
  FIRN_ASSERT_OK(file->Truncate(2 * kMiB));
  EXPECT_FALSE(file->IsCached(0, 2 * kMiB)) << "the second half has never been read";
  FIRN_ASSERT_OK(file->Sync());
  file->DropCache();
  EXPECT_EQ(file->IsCached(0, kMiB), LivesInCache(folder_.path()));
}

TEST_P(FileTest, NoFollowRefusesLinksAndSpecialFilesWithoutBlocking) {
  Create("target");
  const OpenOptions no_follow{.no_follow = true};
  FIRN_EXPECT_OK(fs_.Open(folder_ / "target", no_follow));
  EXPECT_FALSE(fs_.Open(folder_.path(), no_follow).ok());
#ifdef _WIN32
  EXPECT_EQ(fs_.Open("NUL", no_follow).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(fs_.Open("\\\\?\\NUL", no_follow).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(fs_.Open(folder_.path(), {}).status().code(), Code::kInvalidArgument);
  auto truncated = Open("target", {.access = Access::kCreateAlways, .no_follow = true});
  FIRN_ASSERT_OK(truncated->WriteAt(0, random_.Bytes(10)));
  EXPECT_EQ(Must(Open("target", {.access = Access::kCreateAlways, .no_follow = true})->Size()), 0u);
#else
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(fs_.Open(folder_ / "fifo", no_follow).status().code(), Code::kInvalidArgument);
  EXPECT_FALSE(fs_.Open(folder_ / "fifo", {.direct = true, .no_follow = true}).ok());
  EXPECT_EQ(fs_.Open("/dev/null", no_follow).status().code(), Code::kInvalidArgument);
#endif
  if (!test::MakeLink(folder_ / "target", folder_ / "link")) {
    GTEST_SKIP() << "links can't be made here";
  }
  const Status link = fs_.Open(folder_ / "link", no_follow).status();
  EXPECT_EQ(link.code(), Code::kAccessDenied);
  EXPECT_EQ(link.path(), folder_ / "link");
  FIRN_EXPECT_OK(fs_.Open(folder_ / "link", {}));
  EXPECT_FALSE(fs_.Open(folder_ / "link", {.direct = true, .no_follow = true}).ok());
}

TEST_P(FileTest, MapShowsTheWholeFileAndTheEmptyOne) {
  const std::vector<uint8_t> bytes = random_.Bytes(10'000);
  FIRN_ASSERT_OK(Create("a")->WriteAt(0, bytes));
  auto mapped = Must(fs_.Map(folder_ / "a"));
  mapped->AdviseRandom();
  EXPECT_TRUE(std::ranges::equal(mapped->bytes(), bytes));
  Create("empty");
  auto empty = Must(fs_.Map(folder_ / "empty"));
  empty->AdviseRandom();
  EXPECT_TRUE(empty->bytes().empty());
  EXPECT_EQ(fs_.Map(folder_ / "none").status().code(), Code::kNotFound);
}

TEST_P(FileTest, RenameReplacesAndRenameNewDoesNot) {
  test::WriteWholeFile(folder_ / "a", std::vector<uint8_t>{1});
  test::WriteWholeFile(folder_ / "b", std::vector<uint8_t>{2});
  const Status taken = fs_.RenameNew(folder_ / "a", folder_ / "b");
  EXPECT_EQ(taken.code(), Code::kExists);
  EXPECT_EQ(taken.path(), folder_ / "b");
  EXPECT_EQ(test::ReadWholeFile(folder_ / "b"), std::vector<uint8_t>{2});
  EXPECT_EQ(test::ReadWholeFile(folder_ / "a"), std::vector<uint8_t>{1});
  FIRN_EXPECT_OK(fs_.RenameNew(folder_ / "a", folder_ / "c"));
  EXPECT_FALSE(fs_.Exists(folder_ / "a"));
  FIRN_EXPECT_OK(fs_.Rename(folder_ / "c", folder_ / "b"));
  EXPECT_EQ(test::ReadWholeFile(folder_ / "b"), std::vector<uint8_t>{1});
  EXPECT_EQ(fs_.Rename(folder_ / "none", folder_ / "d").code(), Code::kNotFound);
  EXPECT_EQ(fs_.RenameNew(folder_ / "none", folder_ / "d").code(), Code::kNotFound);
}

TEST_P(FileTest, RacedByManyExactlyOneRenameNewWins) {
  constexpr uint8_t kThreads = 8;
  for (int round = 0; round < 20; ++round) {
    const std::string target = folder_ / ("target" + std::to_string(round));
    for (uint8_t i = 0; i < kThreads; ++i) {
      test::WriteWholeFile(folder_ / ("from" + std::to_string(i)), std::vector<uint8_t>{i});
    }
    std::atomic<int> ready = 0, winner = -1, exists = 0;
    std::vector<std::thread> threads;
    for (uint8_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < kThreads) std::this_thread::yield();
        const Status status = fs_.RenameNew(folder_ / ("from" + std::to_string(i)), target);
        if (status.ok()) {
          EXPECT_EQ(winner.exchange(i), -1) << "two winners";
        } else if (status.code() == Code::kExists) {
          ++exists;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(exists, kThreads - 1);
    EXPECT_EQ(test::ReadWholeFile(target), std::vector<uint8_t>{static_cast<uint8_t>(winner)});
  }
}

TEST_P(FileTest, FoldersAreMadeListedAndSynced) {
  FIRN_EXPECT_OK(fs_.CreateDirectory(folder_ / "d"));
  EXPECT_EQ(fs_.CreateDirectory(folder_ / "d").code(), Code::kExists);
  EXPECT_EQ(fs_.CreateDirectory(folder_ / "x/y").code(), Code::kNotFound);
  Create("d/one");
  Create("d/.two");
  std::vector<std::string> names = Must(fs_.List(folder_ / "d"));
  std::ranges::sort(names);
  EXPECT_EQ(names, (std::vector<std::string>{".two", "one"}));
  FIRN_EXPECT_OK(fs_.SyncDirectory(folder_ / "d"));
  EXPECT_EQ(fs_.SyncDirectory(folder_ / "none").code(), Code::kNotFound);
  EXPECT_EQ(fs_.List(folder_ / "none").status().code(), Code::kNotFound);
  FIRN_EXPECT_OK(fs_.Remove(folder_ / "d/one"));
  EXPECT_EQ(fs_.Remove(folder_ / "d/one").code(), Code::kNotFound);
}

TEST_P(FileTest, RealPathResolvesLinksOfFilesThatAreThere) {
  Create("a");
  EXPECT_EQ(fs_.RealPath(folder_ / "none").status().code(), Code::kNotFound);
  EXPECT_GT(Must(fs_.FreeBytes(folder_.path())), 0u);
  EXPECT_FALSE(fs_.FreeBytes(folder_ / "none").ok());
  EXPECT_EQ(Must(fs_.RealPath(folder_ / "./a")), Must(fs_.RealPath(folder_ / "a")));
  if (!test::MakeLink(folder_ / "a", folder_ / "link")) {
    GTEST_SKIP() << "links can't be made here";
  }
  EXPECT_EQ(Must(fs_.RealPath(folder_ / "link")), Must(fs_.RealPath(folder_ / "a")));
}

INSTANTIATE_TEST_SUITE_P(All, FileTest, ::testing::ValuesIn(test::kSystems),
                         [](const auto& kind) { return test::NameOf(kind.param); });

}  // namespace
}  // namespace firn
