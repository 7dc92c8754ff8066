// One conformance suite for every IoQueue, on buffered and unbuffered handles, with memory
// registered and not.
#include "io/io_queue.h"

#ifdef _WIN32
#include "io/system_win.h"
#else
#include <sys/resource.h>

#include <cerrno>
#include <csignal>
#endif

#include <map>
#include <numeric>
#include <set>
#include <tuple>

#include "io/aligned_buffer.h"
#include "io/folder_test_util.h"
#include "io/system_test_util.h"

namespace firn {
namespace {

using test::Must;
using Op = IoRequest::Op;

constexpr uint32_t kDepth = 16;
constexpr uint32_t kBlock = 4096;

#ifdef _WIN32
constexpr IoBackend kBackends[] = {IoBackend::kAuto, IoBackend::kThreads};
constexpr const char* kBestName = "iocp";
constexpr const char* kSomeFile = "C:\\windows\\system32\\kernel32.dll";
constexpr int kMisaligned = ERROR_INVALID_PARAMETER;
constexpr int kNotForWriting = ERROR_ACCESS_DENIED;
constexpr Code kNotForWritingCode = Code::kAccessDenied;
#else
constexpr IoBackend kBackends[] = {IoBackend::kUring, IoBackend::kThreads};
constexpr const char* kBestName = "io_uring";
constexpr const char* kSomeFile = "/proc/self/exe";
constexpr int kMisaligned = EINVAL;
constexpr int kNotForWriting = EBADF;
constexpr Code kNotForWritingCode = Code::kWrite;
#endif

// Backend, unbuffered handles, registered memory, the system's manners.
using Parameters = std::tuple<IoBackend, bool, bool, test::SystemKind>;

std::string NameOf(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [backend, direct, registered, system] = info.param;
  const char* const best = kBackends[0] == IoBackend::kUring ? "Uring" : "Port";
  return std::string(backend == kBackends[0] ? best : "Threads") +
         (direct ? "Direct" : "Buffered") + (registered ? "Registered" : "Plain") +
         (system == test::SystemKind::kReal ? "" : test::NameOf(system));
}

class IoQueueTest : public ::testing::TestWithParam<Parameters> {
 protected:
  void SetUp() override {
    auto queue = fs_.NewQueue({.depth = kDepth, .backend = std::get<0>(GetParam())});
    if (!queue.ok()) GTEST_SKIP() << queue.status().ToString();
    memory_ = Must(AlignedBuffer::Allocate(4 * kMiB));
    queue_ = std::move(*queue);
    if (std::get<2>(GetParam())) queue_->RegisterBuffer(memory_.span());
  }
  void TearDown() override { queue_.reset(); }

  bool direct() const { return std::get<1>(GetParam()); }
  std::unique_ptr<File> Open(const std::string& name, Access access) {
    return Must(fs_.Open(folder_ / name, {.access = access, .direct = direct()}));
  }
  // A file with random content, which is also returned.
  std::unique_ptr<File> Make(const std::string& name, size_t bytes) {
    content_ = random_.Bytes(bytes);
    test::WriteWholeFile(folder_ / name, content_);
    return Open(name, Access::kReadWrite);
  }
  Status Submit(Op op, File* file, uint64_t offset, uint8_t* data, uint32_t length, uint64_t tag) {
    return queue_->Submit({op, file, offset, data, length, tag});
  }
  std::vector<IoCompletion> WaitAll() {
    std::vector<IoCompletion> completions;
    FIRN_EXPECT_OK(queue_->Wait(queue_->in_flight(), &completions));
    EXPECT_EQ(queue_->in_flight(), 0u);
    return completions;
  }

  test::TestSystem system_{std::get<3>(GetParam())};
  FileSystem& fs_ = system_.fs();
  test::TestFolder folder_;
  test::Random random_{21};
  std::vector<uint8_t> content_;
  AlignedBuffer memory_;
  std::unique_ptr<IoQueue> queue_;
};

TEST_P(IoQueueTest, KnowsItsNameAndDepthAndBeginsIdle) {
  EXPECT_STREQ(queue_->name(), std::get<0>(GetParam()) == kBackends[0] ? kBestName : "threads");
  EXPECT_EQ(queue_->depth(), kDepth);
  EXPECT_EQ(queue_->in_flight(), 0u);
  std::vector<IoCompletion> completions;
  FIRN_EXPECT_OK(queue_->Wait(0, &completions));
  EXPECT_TRUE(completions.empty());
}

TEST_P(IoQueueTest, EveryReadCompletesOnceWithItsTagAndItsBytes) {
  auto file = Make("a", 256 * kBlock);
  std::map<uint64_t, uint64_t> offsets;  // by tag
  uint64_t next_tag = 100;
  std::vector<IoCompletion> completions;
  std::set<uint64_t> seen;
  const auto slot = [&](uint64_t tag) { return memory_.data() + tag % kDepth * kBlock; };
  const auto take = [&](uint32_t least) {
    completions.assign(1, {});  // Wait appends
    FIRN_ASSERT_OK(queue_->Wait(least, &completions));
    ASSERT_GE(completions.size(), least + 1u);
    for (size_t i = 1; i < completions.size(); ++i) {
      const IoCompletion& done = completions[i];
      FIRN_ASSERT_OK(done.status);
      ASSERT_TRUE(seen.insert(done.tag).second);
      ASSERT_TRUE(offsets.contains(done.tag));
      ASSERT_EQ(std::memcmp(slot(done.tag), &content_[offsets[done.tag]], kBlock), 0);
    }
  };
  for (int round = 0; round < 40; ++round) {
    while (queue_->in_flight() < kDepth) {
      offsets[next_tag] = random_.Below(256) * kBlock;
      FIRN_ASSERT_OK(
          Submit(Op::kRead, file.get(), offsets[next_tag], slot(next_tag), kBlock, next_tag));
      ++next_tag;
    }
    // All of them, so that slots are free again in order.
    take(kDepth);
  }
  EXPECT_EQ(seen.size(), offsets.size());
  EXPECT_EQ(queue_->in_flight(), 0u);
}

TEST_P(IoQueueTest, TakesAsManyAsItsDepthAndGivesThemBackInParts) {
  auto file = Make("a", kDepth * kBlock);
  for (uint32_t i = 0; i < kDepth; ++i) {
    FIRN_ASSERT_OK(
        Submit(Op::kRead, file.get(), i * kBlock, memory_.data() + i * kBlock, kBlock, i));
    EXPECT_EQ(queue_->in_flight(), i + 1);
  }
  std::vector<IoCompletion> completions;
  while (completions.size() < kDepth) {
    const size_t before = completions.size();
    FIRN_ASSERT_OK(queue_->Wait(1, &completions));
    EXPECT_GT(completions.size(), before);
    EXPECT_EQ(queue_->in_flight(), kDepth - completions.size());
  }
  EXPECT_EQ(std::memcmp(memory_.data(), content_.data(), content_.size()), 0);
}

TEST_P(IoQueueTest, ReadsOverTheEndAreTruncationAndSayWhere) {
  auto file = Make("a", 10'000);
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 4096, memory_.data(), 8192, 1));
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 12288, memory_.data() + 8192, 4096, 2));
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 0, memory_.data() + 12288, 4096, 3));
  for (const IoCompletion& done : WaitAll()) {
    if (done.tag == 3) {
      FIRN_EXPECT_OK(done.status);
      continue;
    }
    EXPECT_EQ(done.status.code(), Code::kDiskTruncated) << done.status.ToString();
    EXPECT_TRUE(done.status.data_loss());
    EXPECT_EQ(done.status.path(), folder_ / "a");
    EXPECT_EQ(done.status.offset(), done.tag == 1 ? 10'000u : 12'288u);
  }
  EXPECT_EQ(std::memcmp(memory_.data() + 12288, content_.data(), 4096), 0);
}

TEST_P(IoQueueTest, OddPlacesWorkOnBufferedHandlesAndFailCleanlyOnOthers) {
  auto file = Make("a", 64 * kBlock);
  struct Case {
    uint64_t offset, memory;
    uint32_t length;
  };
  const std::vector<Case> cases = {{1, 0, 4096}, {0, 1, 4096}, {0, 0, 4097}, {777, 333, 9999}};
  for (const Case& odd : cases) {
    FIRN_ASSERT_OK(
        Submit(Op::kRead, file.get(), odd.offset, memory_.data() + odd.memory, odd.length, 1));
    const std::vector<IoCompletion> done = WaitAll();
    ASSERT_EQ(done.size(), 1u);
    if (done[0].status.ok()) {
      EXPECT_EQ(std::memcmp(memory_.data() + odd.memory, &content_[odd.offset], odd.length), 0);
    } else {
      EXPECT_TRUE(file->direct());
      EXPECT_EQ(done[0].status.code(), Code::kRead);
      EXPECT_EQ(done[0].status.os_code(), kMisaligned);
      EXPECT_EQ(done[0].status.path(), folder_ / "a");
      EXPECT_EQ(done[0].status.offset(), odd.offset);
    }
  }
}

// Against a model; reads of a round see the writes of the rounds before.
TEST_P(IoQueueTest, WritesAndReadsMixOverSeveralFiles) {
  constexpr uint32_t kBlocks = 64;
  std::vector<std::unique_ptr<File>> files;
  std::vector<std::vector<uint8_t>> models;
  for (int i = 0; i < 3; ++i) {
    files.push_back(Make("f" + std::to_string(i), kBlocks * kBlock));
    models.push_back(content_);
  }
  for (int round = 0; round < 60; ++round) {
    std::set<std::pair<size_t, uint64_t>> busy;
    std::vector<std::tuple<bool, size_t, uint64_t>> requests;
    for (uint32_t i = 0; i < kDepth; ++i) {
      const size_t f = random_.Below(files.size());
      const uint64_t block = random_.Below(kBlocks);
      const bool writes = random_.OneIn(2);
      requests.emplace_back(writes, f, block);
      if (!busy.insert({f, block}).second) {
        requests.pop_back();
        continue;
      }
      uint8_t* data = memory_.data() + requests.size() * kBlock;
      if (writes) {
        random_.Fill({data, kBlock});
        std::memcpy(&models[f][block * kBlock], data, kBlock);
      }
      FIRN_ASSERT_OK(Submit(writes ? Op::kWrite : Op::kRead, files[f].get(), block * kBlock, data,
                            kBlock, requests.size()));
    }
    for (const IoCompletion& done : WaitAll()) {
      FIRN_ASSERT_OK(done.status);
      const auto [writes, f, block] = requests[done.tag - 1];
      if (writes) continue;
      ASSERT_EQ(std::memcmp(memory_.data() + done.tag * kBlock, &models[f][block * kBlock], kBlock),
                0);
    }
  }
  files.clear();
  for (size_t i = 0; i < models.size(); ++i) {
    EXPECT_EQ(test::ReadWholeFile(folder_ / ("f" + std::to_string(i))), models[i]);
  }
}

TEST_P(IoQueueTest, LargeRequestsAndMemoryThatWasNotRegisteredWork) {
  auto file = Make("a", 3 * kMiB);
  AlignedBuffer other = Must(AlignedBuffer::Allocate(3 * kMiB));
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 0, memory_.data(), 3 * kMiB, 1));
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 0, other.data(), 3 * kMiB, 2));
  for (const IoCompletion& done : WaitAll()) FIRN_EXPECT_OK(done.status);
  EXPECT_EQ(std::memcmp(memory_.data(), content_.data(), content_.size()), 0);
  EXPECT_EQ(std::memcmp(other.data(), content_.data(), content_.size()), 0);
}

TEST_P(IoQueueTest, WhatWasSubmittedIsDoneWhenTheQueueIsDestroyed) {
  auto file = Make("a", kDepth * 64 * kKiB);
  random_.Fill(memory_.span());
  for (uint32_t i = 0; i < kDepth; ++i) {
    FIRN_ASSERT_OK(Submit(Op::kWrite, file.get(), i * 64 * kKiB, memory_.data() + i * 64 * kKiB,
                          64 * kKiB, i));
  }
  queue_.reset();
  file.reset();
  const std::vector<uint8_t> written = test::ReadWholeFile(folder_ / "a");
  EXPECT_EQ(std::memcmp(written.data(), memory_.data(), kDepth * 64 * kKiB), 0);
}

TEST_P(IoQueueTest, AFailureCarriesItsReasonAndSparesTheOthers) {
  auto file = Make("a", kDepth * kBlock);
  auto reader = Open("a", Access::kRead);
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), 0, memory_.data(), kBlock, 1));
  FIRN_ASSERT_OK(Submit(Op::kWrite, reader.get(), 8192, memory_.data() + kBlock, kBlock, 2));
  FIRN_ASSERT_OK(Submit(Op::kRead, file.get(), kBlock, memory_.data() + 2 * kBlock, kBlock, 3));
  for (const IoCompletion& done : WaitAll()) {
    if (done.tag != 2) {
      FIRN_EXPECT_OK(done.status);
      continue;
    }
    EXPECT_EQ(done.status.code(), kNotForWritingCode);
    EXPECT_EQ(done.status.os_code(), kNotForWriting);
    EXPECT_EQ(done.status.op(), "write");
    EXPECT_EQ(done.status.path(), folder_ / "a");
    EXPECT_EQ(done.status.offset(), 8192u);
  }
}

#ifndef _WIN32
// A limit on the file's size makes the kernel write in part, and then refuse the rest.
TEST_P(IoQueueTest, AWriteThatStopsShortIsResumedAndItsRefusalReported) {
  auto file = Make("a", kBlock);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 3 * kBlock;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  FIRN_EXPECT_OK(Submit(Op::kWrite, file.get(), kBlock, memory_.data(), 4 * kBlock, 1));
  const std::vector<IoCompletion> done = WaitAll();
  setrlimit(RLIMIT_FSIZE, &old_limit);
  signal(SIGXFSZ, old_handler);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].status.code(), Code::kDiskFull) << done[0].status.ToString();
  EXPECT_EQ(done[0].status.os_code(), EFBIG);
  EXPECT_EQ(done[0].status.offset(), 3u * kBlock);
}
#endif

INSTANTIATE_TEST_SUITE_P(All, IoQueueTest,
                         ::testing::Combine(::testing::ValuesIn(kBackends), ::testing::Bool(),
                                            ::testing::Bool(), ::testing::ValuesIn(test::kSystems)),
                         NameOf);

// Without a folder of its own, which a process that dies would leave behind.
class IoQueueDepthTest : public ::testing::TestWithParam<IoBackend> {};

TEST_P(IoQueueDepthTest, OneMoreThanItsDepthIsAProgrammingError) {
#ifdef NDEBUG
  GTEST_SKIP() << "assertions are compiled out";
#else
  FileSystem& fs = FileSystem::Default();
  if (!fs.NewQueue({.depth = 4, .backend = GetParam()}).ok()) GTEST_SKIP() << "no such backend";
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  const auto overfill = [&fs] {
    auto queue = Must(fs.NewQueue({.depth = 4, .backend = GetParam()}));
    auto file = Must(fs.Open(kSomeFile, {}));
    std::vector<uint8_t> memory(16);
    for (uint32_t i = 0; i <= queue->depth(); ++i) {
      (void)queue->Submit({Op::kRead, file.get(), 0, memory.data(), 16, i});
    }
  };
  EXPECT_DEATH(overfill(), "");
#endif
}

INSTANTIATE_TEST_SUITE_P(All, IoQueueDepthTest, ::testing::ValuesIn(kBackends));

TEST(IoQueueChoiceTest, AutoAlwaysFindsABackend) {
  auto queue = Must(FileSystem::Default().NewQueue({}));
  EXPECT_GT(queue->depth(), 0u);
}

}  // namespace
}  // namespace firn
