// What a completion port does on a bad day: shortage, cancelled requests, full disks. That its
// queue passes what every IoQueue must, also when completions come late and out of order, is in
// io_queue_test.cc.

#include "io/io_queue_win.h"

#include <atomic>
#include <thread>

#include "io/aligned_buffer.h"
#include "io/calls_win_test_util.h"
#include "io/file_win.h"
#include "io/folder_test_util.h"

namespace firn {
namespace {

using test::FailWith;
using test::Must;
using Op = IoRequest::Op;

constexpr uint32_t kBlock = 4096;

class CompletionQueueTest : public ::testing::Test {
 protected:
  // After the calls have been replaced.
  void Start(uint32_t depth = 8) {
    content_ = random_.Bytes(64 * kBlock);
    test::WriteWholeFile(folder_ / "a", content_);
    file_ = Must(fs_.Open(folder_ / "a", {.access = Access::kReadWrite}));
    queue_ = Must(fs_.NewQueue({.depth = depth}));
  }
  void Submit(Op op, uint32_t block, uint64_t tag) {
    FIRN_ASSERT_OK(queue_->Submit(
        {op, file_.get(), block * kBlock, memory_.data() + tag * kBlock, kBlock, tag}));
  }
  std::vector<IoCompletion> WaitAll() {
    std::vector<IoCompletion> completions;
    FIRN_EXPECT_OK(queue_->Wait(queue_->in_flight(), &completions));
    return completions;
  }
  void ExpectRead(uint32_t block, uint64_t tag) {
    EXPECT_EQ(std::memcmp(memory_.data() + tag * kBlock, &content_[block * kBlock], kBlock), 0);
  }

  test::TestCalls calls_;
  WinFileSystem fs_{calls_.table()};
  test::TestFolder folder_;
  test::Random random_{31};
  std::vector<uint8_t> content_;
  AlignedBuffer memory_ = Must(AlignedBuffer::Allocate(64 * kBlock));
  std::unique_ptr<File> file_;
  std::unique_ptr<IoQueue> queue_;
};

TEST_F(CompletionQueueTest, WhatTheSystemHasNoRoomForGoesWhenSomethingElseIsDone) {
  std::atomic<int> under_way = 0, refused = 0;
  calls_.read_file = [&](HANDLE file, LPVOID data, DWORD length, LPDWORD done,
                         LPOVERLAPPED overlapped) {
    if (under_way >= 2) {
      ++refused;
      return FailWith(ERROR_NO_SYSTEM_RESOURCES);
    }
    ++under_way;
    return ::ReadFile(file, data, length, done, overlapped);
  };
  calls_.get_overlapped_result = [&](HANDLE file, LPOVERLAPPED overlapped, LPDWORD bytes,
                                     BOOL wait) {
    --under_way;
    return ::GetOverlappedResult(file, overlapped, bytes, wait);
  };
  // Completions wait until everything has been submitted.
  std::atomic<bool> submitted = false;
  calls_.get_completions = [&](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count,
                               DWORD timeout, BOOL alertable) {
    while (!submitted) Sleep(1);
    return ::GetQueuedCompletionStatusEx(port, entries, room, count, timeout, alertable);
  };
  Start(8);
  for (uint32_t i = 0; i < 8; ++i) Submit(Op::kRead, i * 3, i);
  EXPECT_EQ(refused, 6);
  submitted = true;
  const std::vector<IoCompletion> completions = WaitAll();
  ASSERT_EQ(completions.size(), 8u);
  for (const IoCompletion& done : completions) {
    FIRN_EXPECT_OK(done.status);
    ExpectRead(static_cast<uint32_t>(done.tag) * 3, done.tag);
  }
  queue_.reset();  // the port's thread uses what is declared here
}

TEST_F(CompletionQueueTest, AShortageWithNothingElseUnderWayIsTold) {
  calls_.read_file = [&](HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED) {
    return FailWith(ERROR_WORKING_SET_QUOTA);
  };
  Start();
  Submit(Op::kRead, 0, 1);
  const std::vector<IoCompletion> done = WaitAll();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].status.code(), Code::kRead);
  EXPECT_TRUE(done[0].status.retryable());
  EXPECT_EQ(done[0].status.os_code(), ERROR_WORKING_SET_QUOTA);
}

TEST_F(CompletionQueueTest, AFullDiskIsToldWithItsPlaceBeItAtOnceOrLater) {
  calls_.write_file = [&](HANDLE file, LPCVOID data, DWORD length, LPDWORD done,
                          LPOVERLAPPED overlapped) {
    if (test::OffsetOf(*overlapped) == 0) return FailWith(ERROR_DISK_FULL);
    return ::WriteFile(file, data, length, done, overlapped);
  };
  calls_.get_overlapped_result = [&](HANDLE file, LPOVERLAPPED overlapped, LPDWORD bytes,
                                     BOOL wait) {
    const BOOL ok = ::GetOverlappedResult(file, overlapped, bytes, wait);
    return test::OffsetOf(*overlapped) == kBlock ? FailWith(ERROR_DISK_FULL) : ok;
  };
  Start();
  for (uint32_t i = 0; i < 3; ++i) Submit(Op::kWrite, i, i);
  for (const IoCompletion& done : WaitAll()) {
    if (done.tag == 2) {
      FIRN_EXPECT_OK(done.status);
      continue;
    }
    EXPECT_EQ(done.status.code(), Code::kDiskFull) << done.status.ToString();
    EXPECT_TRUE(done.status.retryable());
    EXPECT_EQ(done.status.offset(), done.tag * kBlock);
    EXPECT_EQ(done.status.path(), folder_ / "a");
  }
}

TEST_F(CompletionQueueTest, ARequestThatTheSystemCancelledMayBeTriedAgain) {
  calls_.get_overlapped_result = [&](HANDLE, LPOVERLAPPED, LPDWORD, BOOL) {
    return FailWith(ERROR_OPERATION_ABORTED);
  };
  Start();
  Submit(Op::kRead, 0, 1);
  const std::vector<IoCompletion> done = WaitAll();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].status.code(), Code::kRead);
  EXPECT_EQ(done[0].status.os_code(), ERROR_OPERATION_ABORTED);
  EXPECT_TRUE(done[0].status.retryable());
}

// A share whose server is gone: reads that come to an end when they are cancelled and not before.
TEST_F(CompletionQueueTest, DestroyingAQueueEndsReadsThatHang) {
  std::mutex mutex;
  std::vector<OVERLAPPED*> cancelled;
  std::atomic<int> hanging = 0;
  calls_.read_file = [&](HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED) {
    ++hanging;
    return FailWith(ERROR_IO_PENDING);
  };
  calls_.cancel_io = [&](HANDLE, LPOVERLAPPED overlapped) {
    std::lock_guard lock(mutex);
    cancelled.push_back(overlapped);
    return TRUE;
  };
  calls_.get_completions = [&](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count,
                               DWORD, BOOL alertable) -> BOOL {
    while (true) {
      {
        std::lock_guard lock(mutex);
        if (!cancelled.empty()) {
          entries[0] = {};
          entries[0].lpOverlapped = cancelled.back();
          cancelled.pop_back();
          *count = 1;
          return TRUE;
        }
      }
      if (::GetQueuedCompletionStatusEx(port, entries, room, count, 1, alertable)) return TRUE;
    }
  };
  calls_.get_overlapped_result = [&](HANDLE, LPOVERLAPPED, LPDWORD, BOOL) {
    --hanging;
    return FailWith(ERROR_OPERATION_ABORTED);
  };
  Start();
  for (uint32_t i = 0; i < 5; ++i) Submit(Op::kRead, i, i);
  EXPECT_EQ(hanging, 5);
  queue_.reset();
  EXPECT_EQ(hanging, 0);
}

// The system gives nothing any more while requests wait for room: each is told, none is forgotten.
TEST_F(CompletionQueueTest, NothingIsLeftWaitingWhenTheLastUnderWayIsDone) {
  std::atomic<bool> full = false, submitted = false;
  calls_.read_file = [&](HANDLE file, LPVOID data, DWORD length, LPDWORD done,
                         LPOVERLAPPED overlapped) {
    if (full.exchange(true)) return FailWith(ERROR_NO_SYSTEM_RESOURCES);
    return ::ReadFile(file, data, length, done, overlapped);
  };
  calls_.get_completions = [&](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count,
                               DWORD timeout, BOOL alertable) {
    while (!submitted) Sleep(1);
    return ::GetQueuedCompletionStatusEx(port, entries, room, count, timeout, alertable);
  };
  Start();
  for (uint32_t i = 0; i < 5; ++i) Submit(Op::kRead, i, i);
  submitted = true;
  const std::vector<IoCompletion> completions = WaitAll();
  ASSERT_EQ(completions.size(), 5u);
  for (const IoCompletion& done : completions) {
    if (done.tag == 0) {
      FIRN_EXPECT_OK(done.status);
      ExpectRead(0, 0);
    } else {
      EXPECT_EQ(done.status.os_code(), ERROR_NO_SYSTEM_RESOURCES);
      EXPECT_TRUE(done.status.retryable());
    }
  }
  queue_.reset();
}

// A device may answer with a warning, neither success nor error: the call says that it failed, and
// a packet comes all the same.
TEST_F(CompletionQueueTest, ARequestRefusedWithAWarningCompletesOnceByItsPacket) {
  std::mutex mutex;
  std::vector<OVERLAPPED*> packets;
  calls_.read_file = [&](HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED overlapped) {
    overlapped->Internal = 0x80000016;  // STATUS_VERIFY_REQUIRED
    std::lock_guard lock(mutex);
    packets.push_back(overlapped);
    return FailWith(ERROR_MEDIA_CHANGED);
  };
  calls_.get_overlapped_result = [](HANDLE, LPOVERLAPPED, LPDWORD, BOOL) {
    return FailWith(ERROR_MEDIA_CHANGED);
  };
  std::atomic<int> given = 0;
  calls_.get_completions = [&](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count,
                               DWORD, BOOL alertable) -> BOOL {
    while (true) {
      {
        std::lock_guard lock(mutex);
        if (!packets.empty()) {
          entries[0] = {};
          entries[0].lpOverlapped = packets.back();
          packets.pop_back();
          ++given;
          *count = 1;
          return TRUE;
        }
      }
      if (::GetQueuedCompletionStatusEx(port, entries, room, count, 1, alertable)) return TRUE;
    }
  };
  Start();
  for (uint32_t i = 0; i < 3; ++i) Submit(Op::kRead, i, i);
  const std::vector<IoCompletion> completions = WaitAll();
  ASSERT_EQ(completions.size(), 3u);
  EXPECT_EQ(given, 3);
  for (const IoCompletion& done : completions) {
    EXPECT_EQ(done.status.os_code(), ERROR_MEDIA_CHANGED);
  }
  queue_.reset();
}

// A read that goes on after a short transfer while its queue ends, and then hangs.
TEST_F(CompletionQueueTest, AReadThatIsResumedWhileItsQueueEndsIsCancelledToo) {
  std::mutex mutex;
  std::vector<OVERLAPPED*> packets;
  std::atomic<int> calls = 0, cancels = 0;
  std::atomic<bool> ending = false;
  const auto put = [&](OVERLAPPED* overlapped) {
    std::lock_guard lock(mutex);
    packets.push_back(overlapped);
  };
  calls_.read_file = [&](HANDLE, LPVOID, DWORD, LPDWORD, LPOVERLAPPED overlapped) {
    if (calls++ == 0) {
      put(overlapped);
    } else {
      // The queue looks for what it should cancel before this call has reached the system.
      while (cancels == 0) Sleep(1);
    }
    return FailWith(ERROR_IO_PENDING);
  };
  calls_.cancel_io = [&](HANDLE, LPOVERLAPPED overlapped) {
    if (cancels++ == 0) return FailWith(ERROR_NOT_FOUND);
    put(overlapped);
    return TRUE;
  };
  calls_.get_overlapped_result = [&](HANDLE, LPOVERLAPPED, LPDWORD bytes, BOOL) {
    if (cancels > 0) return FailWith(ERROR_OPERATION_ABORTED);
    *bytes = kBlock / 2;
    return TRUE;
  };
  calls_.get_completions = [&](HANDLE port, LPOVERLAPPED_ENTRY entries, ULONG room, PULONG count,
                               DWORD, BOOL alertable) -> BOOL {
    while (true) {
      {
        std::lock_guard lock(mutex);
        if (ending && !packets.empty()) {
          entries[0] = {};
          entries[0].lpOverlapped = packets.back();
          packets.pop_back();
          *count = 1;
          return TRUE;
        }
      }
      if (::GetQueuedCompletionStatusEx(port, entries, room, count, 1, alertable)) return TRUE;
    }
  };
  Start();
  Submit(Op::kRead, 0, 0);
  ending = true;
  while (calls < 2) Sleep(1);
  queue_.reset();
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(cancels, 2);
}

// One port and its thread serve all queues; a queue gets its own completions alone.
TEST_F(CompletionQueueTest, QueuesOfSeveralThreadsShareTheFilesAndThePort) {
  Start();
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto queue = Must(fs_.NewQueue({.depth = 4}));
      AlignedBuffer memory = Must(AlignedBuffer::Allocate(4 * kBlock));
      test::Random random(t);
      for (int round = 0; round < 50; ++round) {
        std::array<uint64_t, 4> blocks{};
        for (uint64_t i = 0; i < 4; ++i) {
          blocks[i] = random.Below(64);
          FIRN_ASSERT_OK(queue->Submit({Op::kRead, file_.get(), blocks[i] * kBlock,
                                        memory.data() + i * kBlock, kBlock, t << 8 | i}));
        }
        std::vector<IoCompletion> completions;
        FIRN_ASSERT_OK(queue->Wait(4, &completions));
        ASSERT_EQ(completions.size(), 4u);
        for (const IoCompletion& done : completions) {
          FIRN_ASSERT_OK(done.status);
          ASSERT_EQ(done.tag >> 8, t);
          const uint64_t i = done.tag & 0xFF;
          ASSERT_EQ(std::memcmp(memory.data() + i * kBlock, &content_[blocks[i] * kBlock], kBlock),
                    0);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(CompletionQueueTest, NoThreadIsLeftWhenTheLastQueueIsGone) {
  Start();
  for (int round = 0; round < 20; ++round) {
    queue_ = Must(fs_.NewQueue({.depth = 1}));
    Submit(Op::kRead, static_cast<uint32_t>(round), 0);
    FIRN_EXPECT_OK(WaitAll()[0].status);
    ExpectRead(static_cast<uint32_t>(round), 0);
    queue_.reset();
  }
}

}  // namespace
}  // namespace firn
