#include "io/io_queue_win.h"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <vector>

#include "io/file_win.h"
#include "io/io_queue_transfer.h"

namespace firn {

namespace {

// NT_WARNING: neither a success nor an error of the kernel's (STATUS_VERIFY_REQUIRED of a device).
bool IsWarning(const OVERLAPPED& overlapped) {
  return static_cast<uint32_t>(overlapped.Internal) >> 30 == 2;
}

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
      stopping_ = true;
      for (Slot& slot : slots_) {
        if (slot.in_kernel && IsRead(slot)) server_->calls().cancel_io(slot.file, &slot);
      }
      done_signal_.wait(lock, [&] { return done_.size() == in_flight_ && !is_served_; });
    }
    server_->Leave();
  }

  void RegisterBuffer(std::span<uint8_t>) override {}

  Status Submit(const IoRequest& request) override {
    Slot* slot = nullptr;
    {
      std::lock_guard lock(mutex_);
      assert(in_flight_ < slots_.size());
      slot = free_.back();
      free_.pop_back();
      ++in_flight_;
    }
    slot->state = TransferState{request};
    slot->file = reinterpret_cast<HANDLE>(request.file->native_handle());
    Status status;
    if (Issue(slot, &status) == Issued::kOver) {
      Finish(slot, std::move(status));
      // For a moment this one was in the kernel, and others may have waited for its packet.
      IssueDeferred();
    }
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
    {
      std::lock_guard lock(mutex_);
      slot->in_kernel = false;
      --in_kernel_;
      is_served_ = true;
    }
    Status status;
    if (slot->state.Advance(ResultOf(slot), &status) || Issue(slot, &status) == Issued::kOver) {
      Finish(slot, std::move(status));
    }
    IssueDeferred();
    // Last: the queue may be gone as soon as this is said and the mutex is free.
    std::lock_guard lock(mutex_);
    is_served_ = false;
    done_signal_.notify_one();
  }

 private:
  enum class Issued : uint8_t {
    kTaken,     // a packet will come
    kDeferred,  // it waits in deferred_ for room, and something of this queue is in the kernel
    kOver
  };

  static bool IsRead(const Slot& slot) { return slot.state.request.op == IoRequest::Op::kRead; }

  // Bytes moved, or the error negated. The call only reads the OVERLAPPED, as a packet has come.
  int64_t ResultOf(Slot* slot) const {
    DWORD bytes = 0;
    if (server_->calls().get_overlapped_result(slot->file, slot, &bytes, FALSE)) return bytes;
    return -static_cast<int64_t>(GetLastError());
  }

  // Whether the slot, which is about to be handed to the system, should be. `alone` is whether
  // nothing else of this queue is there.
  bool EnterKernel(Slot* slot, bool* alone) {
    std::lock_guard lock(mutex_);
    if (stopping_ && IsRead(*slot)) return false;
    slot->in_kernel = true;
    *alone = ++in_kernel_ == 1;
    return true;
  }

  // The system has refused the slot. True if it waits for room now.
  bool LeaveKernel(Slot* slot, bool has_no_room) {
    std::lock_guard lock(mutex_);
    slot->in_kernel = false;
    --in_kernel_;
    if (!has_no_room || in_kernel_ == 0) return false;
    deferred_.push_back(slot);
    return true;
  }

  // A read that went to the system while the queue's end looked for reads to cancel.
  void CancelIfStopping(Slot* slot) {
    std::lock_guard lock(mutex_);
    if (stopping_ && slot->in_kernel && IsRead(*slot)) {
      server_->calls().cancel_io(slot->file, slot);
    }
  }

  // Hands what is left of the slot's request to the system; its fate is in `status` if it is over.
  Issued Issue(Slot* slot, Status* status) {
    while (true) {
      const IoRequest& request = slot->state.request;
      const uint64_t offset = request.offset + slot->state.done;
      static_cast<OVERLAPPED&>(*slot) = OVERLAPPED{};
      slot->Offset = static_cast<DWORD>(offset);
      slot->OffsetHigh = static_cast<DWORD>(offset >> 32);
      uint8_t* const data = request.data + slot->state.done;
      const DWORD length = request.length - slot->state.done;
      const bool is_read = IsRead(*slot);
      bool alone = true;
      if (!EnterKernel(slot, &alone)) {
        slot->state.Advance(-static_cast<int64_t>(ERROR_OPERATION_ABORTED), status);
        return Issued::kOver;
      }
      const WinCalls& calls = server_->calls();
      const BOOL taken = is_read ? calls.read_file(slot->file, data, length, nullptr, slot)
                                 : calls.write_file(slot->file, data, length, nullptr, slot);
      const DWORD error = taken ? ERROR_SUCCESS : GetLastError();
      // Once it is taken, another thread may have finished the slot already. Only the memory is
      // sure to be there, which is why nothing but the queue's own list is looked at below.
      if (taken || error == ERROR_IO_PENDING || IsWarning(*slot)) {
        CancelIfStopping(slot);
        return Issued::kTaken;
      }
      const bool has_no_room = IsShortage(error);
      if (LeaveKernel(slot, has_no_room)) return Issued::kDeferred;
      if (has_no_room && !alone) continue;  // what took the room is done meanwhile
      if (slot->state.Advance(-static_cast<int64_t>(error), status)) return Issued::kOver;
    }
  }

  // As many as the system has room for now. Where nothing is in the kernel any more it either takes
  // one or refuses it for good. Whoever takes the last one out of the kernel calls this, so none is
  // left waiting for a packet that never comes.
  void IssueDeferred() {
    while (Slot* const slot = TakeDeferred()) {
      Status status;
      const Issued issued = Issue(slot, &status);
      if (issued == Issued::kDeferred) return;
      if (issued == Issued::kOver) Finish(slot, std::move(status));
    }
  }

  // Null if none waits.
  Slot* TakeDeferred() {
    std::lock_guard lock(mutex_);
    if (deferred_.empty()) return nullptr;
    Slot* const slot = deferred_.front();
    deferred_.erase(deferred_.begin());
    return slot;
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
  std::vector<Slot*> deferred_;  // submitted, and waiting for the system to have room, oldest first
  std::vector<IoCompletion> done_;
  uint32_t in_flight_ = 0;  // submitted and not taken
  uint32_t in_kernel_ = 0;
  bool stopping_ = false;
  bool is_served_ = false;  // the server's thread is in Complete
};

}  // namespace

CompletionServer::CompletionServer(const WinCalls& calls)
    : calls_(calls), port_(CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1)) {}

// Without the port, the call in Join would make one of its own for each file.
Status CompletionServer::Check() const {
  if (port_.ok()) return Status::Ok();
  return Status::Error(Code::kInternal, "the system has no completion port for this process");
}

Status CompletionServer::Join(HANDLE file, const std::string& path) {
  FIRN_RETURN_IF_ERROR(Check());
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
  while (!PostQueuedCompletionStatus(port_.get(), 0, 0, nullptr)) Sleep(1);
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
  FIRN_RETURN_IF_ERROR(server->Check());
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
    *status = EndsBefore(path, request.offset + done);
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
