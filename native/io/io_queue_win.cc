#include "io/io_queue_win.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <vector>

#include "io/file_win.h"
#include "io/io_queue_transfer.h"

namespace firn {

namespace {

// The system can't keep so much in flight: what fits when something else is done.
bool IsShortage(DWORD error) {
  return error == ERROR_NO_SYSTEM_RESOURCES || error == ERROR_WORKING_SET_QUOTA ||
         error == ERROR_NOT_ENOUGH_QUOTA || error == ERROR_INVALID_USER_BUFFER ||
         error == ERROR_NOT_ENOUGH_MEMORY;
}

class CompletionQueue;

// A request in the kernel's hands. The system knows it by the address of its OVERLAPPED.
struct Slot : OVERLAPPED {
  CompletionQueue* queue = nullptr;
  TransferState state;
  HANDLE file = nullptr;
  bool in_kernel = false;  // guarded by the queue's mutex
};

// Submissions come from the owner's thread, completions from the server's; mutex_ guards the lists
// that they share. A slot belongs to whoever has it out of free_ and out of the kernel.
class CompletionQueue final : public IoQueue {
 public:
  CompletionQueue(CompletionServer* server, uint32_t depth) : server_(server), slots_(depth) {
    for (Slot& slot : slots_) {
      slot.queue = this;
      free_.push_back(&slot);
    }
    server_->Enter();
  }

  // Nobody will look at what is still being read, but the kernel writes to the buffers until it is
  // told not to and has said that it stopped. Writes are carried out.
  ~CompletionQueue() override {
    {
      std::unique_lock lock(mutex_);
      for (Slot& slot : slots_) {
        if (slot.in_kernel && slot.state.request.op == IoRequest::Op::kRead) {
          server_->calls().cancel_io(slot.file, &slot);
        }
      }
      done_signal_.wait(lock, [&] { return done_.size() == in_flight_; });
    }
    server_->Leave();
  }

  void RegisterBuffer(std::span<uint8_t>) override {}

  Status Submit(const IoRequest& request) override {
    Slot* slot = nullptr;
    {
      std::lock_guard lock(mutex_);
      assert(!free_.empty());
      slot = free_.back();
      free_.pop_back();
      ++in_flight_;
    }
    slot->state = TransferState{request};
    slot->file = reinterpret_cast<HANDLE>(request.file->native_handle());
    Status status;
    if (!Issue(slot, &status)) Finish(slot, std::move(status));
    return Status::Ok();
  }

  Status Wait(uint32_t min_completions, std::vector<IoCompletion>* completions) override {
    std::unique_lock lock(mutex_);
    assert(min_completions <= in_flight_);
    done_signal_.wait(lock, [&] { return done_.size() >= min_completions; });
    in_flight_ -= static_cast<uint32_t>(done_.size());
    std::move(done_.begin(), done_.end(), std::back_inserter(*completions));
    done_.clear();
    return Status::Ok();
  }

  uint32_t in_flight() const override {
    std::lock_guard lock(mutex_);
    return in_flight_;
  }
  uint32_t depth() const override { return static_cast<uint32_t>(slots_.size()); }
  const char* name() const override { return "iocp"; }

  // A packet for the slot has come. On the server's thread.
  void Complete(Slot* slot) {
    Slot* deferred = nullptr;
    {
      std::lock_guard lock(mutex_);
      slot->in_kernel = false;
      --in_kernel_;
      if (!deferred_.empty()) {
        deferred = deferred_.back();
        deferred_.pop_back();
      }
    }
    Status status;
    const bool done = slot->state.Advance(ResultOf(slot), &status) || !Issue(slot, &status);
    if (deferred != nullptr) {
      Status deferred_status;
      if (!Issue(deferred, &deferred_status)) Finish(deferred, std::move(deferred_status));
    }
    // Last, for the queue may be gone when its last request is finished.
    if (done) Finish(slot, std::move(status));
  }

 private:
  // Bytes moved, or the error negated.
  int64_t ResultOf(Slot* slot) const {
    DWORD bytes = 0;
    if (server_->calls().get_overlapped_result(slot->file, slot, &bytes, FALSE)) return bytes;
    return -static_cast<int64_t>(GetLastError());
  }

  // Hands what is left of the slot's request to the system. True when a packet will come for it, or
  // it waits for room; false when it is over, with its fate in `status`.
  bool Issue(Slot* slot, Status* status) {
    while (true) {
      const IoRequest& request = slot->state.request;
      const uint64_t offset = request.offset + slot->state.done;
      static_cast<OVERLAPPED&>(*slot) = OVERLAPPED{};
      slot->Offset = static_cast<DWORD>(offset);
      slot->OffsetHigh = static_cast<DWORD>(offset >> 32);
      uint8_t* const data = request.data + slot->state.done;
      const DWORD length = request.length - slot->state.done;
      {
        std::lock_guard lock(mutex_);
        slot->in_kernel = true;
        ++in_kernel_;
      }
      const WinCalls& calls = server_->calls();
      const BOOL taken = request.op == IoRequest::Op::kRead
                             ? calls.read_file(slot->file, data, length, nullptr, slot)
                             : calls.write_file(slot->file, data, length, nullptr, slot);
      const DWORD error = taken ? ERROR_SUCCESS : GetLastError();
      if (taken || error == ERROR_IO_PENDING) return true;
      {
        std::lock_guard lock(mutex_);
        slot->in_kernel = false;
        --in_kernel_;
        if (IsShortage(error) && in_kernel_ > 0) {
          deferred_.push_back(slot);
          return true;
        }
      }
      if (slot->state.Advance(-static_cast<int64_t>(error), status)) return false;
    }
  }

  void Finish(Slot* slot, Status status) {
    std::lock_guard lock(mutex_);
    done_.push_back({slot->state.request.tag, std::move(status)});
    free_.push_back(slot);
    done_signal_.notify_one();
  }

  CompletionServer* const server_;
  std::vector<Slot> slots_;
  mutable std::mutex mutex_;
  std::condition_variable done_signal_;
  std::vector<Slot*> free_;
  std::vector<Slot*> deferred_;  // submitted, and waiting for the system to have room
  std::vector<IoCompletion> done_;
  uint32_t in_flight_ = 0;  // submitted and not taken
  uint32_t in_kernel_ = 0;
};

}  // namespace

CompletionServer::CompletionServer(const WinCalls& calls)
    : calls_(calls), port_(CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1)) {}

Status CompletionServer::Join(HANDLE file, const std::string& path) {
  if (CreateIoCompletionPort(file, port_.get(), 0, 0) != nullptr) return Status::Ok();
  return LastError(Code::kInternal, "join completion port", path);
}

void CompletionServer::Enter() {
  std::lock_guard lock(mutex_);
  if (users_++ == 0) thread_ = std::thread([this] { Serve(); });
}

void CompletionServer::Leave() {
  std::lock_guard lock(mutex_);
  if (--users_ > 0) return;
  // A packet without an OVERLAPPED is nobody's completion.
  PostQueuedCompletionStatus(port_.get(), 0, 0, nullptr);
  thread_.join();
}

void CompletionServer::Serve() {
  std::array<OVERLAPPED_ENTRY, 64> entries;
  while (true) {
    ULONG count = 0;
    if (!calls_.get_completions(port_.get(), entries.data(), static_cast<ULONG>(entries.size()),
                                &count, INFINITE, FALSE)) {
      Sleep(1);  // the system is short of memory; the packets stay
      continue;
    }
    bool stops = false;
    for (const OVERLAPPED_ENTRY& entry : std::span(entries).first(count)) {
      if (entry.lpOverlapped == nullptr) {
        stops = true;
      } else {
        Slot* const slot = static_cast<Slot*>(entry.lpOverlapped);
        slot->queue->Complete(slot);
      }
    }
    if (stops) return;
  }
}

Result<std::unique_ptr<IoQueue>> NewCompletionQueue(CompletionServer* server, uint32_t depth) {
  return std::unique_ptr<IoQueue>(new CompletionQueue(server, depth));
}

bool TransferState::Advance(int64_t result, Status* status) {
  const bool is_read = request.op == IoRequest::Op::kRead;
  const std::string& path = request.file->path();
  if (result == -ERROR_HANDLE_EOF && is_read) result = 0;
  if (result < 0) {
    *status = Status::FromOs(is_read ? Code::kRead : Code::kWrite, is_read ? "read" : "write", path,
                             static_cast<int>(-result))
                  .At(path, request.offset + done);
    return true;
  }
  done += static_cast<uint32_t>(result);
  if (done == request.length) {
    *status = Status::Ok();
    return true;
  }
  // Less than was asked for, and not up to a sector: an unbuffered read has met the end of the
  // file, and can't even be asked to go on from there.
  const bool at_end = result == 0 || done % request.file->alignment().offset != 0;
  if (is_read && at_end) {
    *status =
        Status::Error(Code::kDiskTruncated, "the file ends before the data that should be here")
            .During("read")
            .At(path, request.offset + done)
            .DataLoss();
    return true;
  }
  if (result == 0) {
    *status = Status::FromOs(Code::kWrite, "write", path, ERROR_DISK_FULL)
                  .At(path, request.offset + done);
    return true;
  }
  return false;
}

int64_t TransferOnce(const TransferState& state) {
  const IoRequest& request = state.request;
  return TransferBlocking(SystemCalls(), reinterpret_cast<HANDLE>(request.file->native_handle()),
                          request.op == IoRequest::Op::kRead, request.data + state.done,
                          request.length - state.done, request.offset + state.done);
}

}  // namespace firn
