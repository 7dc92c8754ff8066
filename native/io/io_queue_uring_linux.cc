// IoQueue over io_uring, by the raw system calls: three of them and two rings in shared memory are
// less than a library dependency in every prebuilt addon.
//
// No SQPOLL (on few cores its thread fights the workers: measured 5x slower), no IOPOLL (few
// devices have it). Submissions are handed over in Submit at once, so that the device works while
// the caller goes on computing.

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "core/bytes.h"
#include "io/io_queue_posix.h"

namespace firn {

namespace {

int Setup(uint32_t entries, io_uring_params* params) {
  return static_cast<int>(syscall(__NR_io_uring_setup, entries, params));
}

int Enter(int ring, uint32_t to_submit, uint32_t min_complete, uint32_t flags) {
  return static_cast<int>(
      syscall(__NR_io_uring_enter, ring, to_submit, min_complete, flags, nullptr, 0));
}

int Register(int ring, uint32_t opcode, const void* arg, uint32_t count) {
  return static_cast<int>(syscall(__NR_io_uring_register, ring, opcode, arg, count));
}

// One mapping of the ring's shared memory.
class RingMemory {
 public:
  ~RingMemory() {
    if (memory_ != nullptr) munmap(memory_, size_);
  }
  bool Map(int ring, size_t size, off_t offset) {
    void* memory =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (memory == MAP_FAILED) return false;
    memory_ = static_cast<uint8_t*>(memory);
    size_ = size;
    return true;
  }
  template <typename T>
  T* At(uint32_t offset) const {
    return reinterpret_cast<T*>(memory_ + offset);
  }

 private:
  uint8_t* memory_ = nullptr;
  size_t size_ = 0;
};

class UringQueue final : public IoQueue {
 public:
  explicit UringQueue(uint32_t depth) : depth_(depth), slots_(depth) {
    free_.reserve(depth);
    for (uint32_t i = depth; i > 0; --i) free_.push_back(i - 1);
  }

  ~UringQueue() override {
    std::vector<IoCompletion> ignored;
    while (in_flight() > 0 && Wait(in_flight(), &ignored).ok()) {
    }
    if (ring_ >= 0) close(ring_);
  }

  Status Open() {
    io_uring_params params{};
    params.flags = IORING_SETUP_CLAMP;
    ring_ = Setup(std::bit_ceil(depth_), &params);
    if (ring_ < 0) {
      return Status::Error(Code::kUnsupported,
                           std::string("the kernel refuses io_uring: ") + std::strerror(errno));
    }
    const bool mapped =
        submission_.Map(ring_, params.sq_off.array + params.sq_entries * sizeof(uint32_t),
                        IORING_OFF_SQ_RING) &&
        completion_.Map(ring_, params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe),
                        IORING_OFF_CQ_RING) &&
        entries_.Map(ring_, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
    if (!mapped) return Status::FromOs(Code::kUnsupported, "map io_uring", "", errno);
    sq_tail_ = submission_.At<uint32_t>(params.sq_off.tail);
    sq_mask_ = *submission_.At<uint32_t>(params.sq_off.ring_mask);
    sq_array_ = submission_.At<uint32_t>(params.sq_off.array);
    cq_head_ = completion_.At<uint32_t>(params.cq_off.head);
    cq_tail_ = completion_.At<uint32_t>(params.cq_off.tail);
    cq_mask_ = *completion_.At<uint32_t>(params.cq_off.ring_mask);
    cqes_ = completion_.At<io_uring_cqe>(params.cq_off.cqes);
    sqes_ = entries_.At<io_uring_sqe>(0);
    return Status::Ok();
  }

  void RegisterBuffer(std::span<uint8_t> memory) override {
    // The kernel takes at most 1 GiB in one registered buffer.
    if (memory.size() > kGiB) return;
    iovec vector{memory.data(), memory.size()};
    if (Register(ring_, IORING_REGISTER_BUFFERS, &vector, 1) == 0) registered_ = memory;
  }

  Status Submit(const IoRequest& request) override {
    assert(!free_.empty());
    const uint32_t slot = free_.back();
    free_.pop_back();
    slots_[slot] = TransferState{request};
    Status status = Push(slot);
    if (!status.ok()) free_.push_back(slot);
    return status;
  }

  Status Wait(uint32_t min_completions, std::vector<IoCompletion>* completions) override {
    assert(min_completions <= in_flight());
    const size_t wanted = completions->size() + min_completions;
    while (true) {
      FIRN_RETURN_IF_ERROR(Reap(completions));
      if (completions->size() >= wanted) return Status::Ok();
      int result = Enter(ring_, 0, 1, IORING_ENTER_GETEVENTS);
      if (result < 0 && errno != EINTR && errno != EAGAIN) {
        return Status::FromOs(Code::kInternal, "io_uring wait", "", errno);
      }
    }
  }

  uint32_t in_flight() const override { return depth_ - static_cast<uint32_t>(free_.size()); }
  uint32_t depth() const override { return depth_; }
  const char* name() const override { return "io_uring"; }

 private:
  // Hands what is left of the slot's request to the kernel.
  Status Push(uint32_t slot) {
    const TransferState& state = slots_[slot];
    const uint32_t tail = *sq_tail_;
    io_uring_sqe* entry = &sqes_[tail & sq_mask_];
    std::memset(entry, 0, sizeof *entry);
    const bool is_read = state.request.op == IoRequest::Op::kRead;
    uint8_t* data = state.request.data + state.done;
    const uint32_t length = state.request.length - state.done;
    const bool fixed = !registered_.empty() && data >= registered_.data() &&
                       data + length <= registered_.data() + registered_.size();
    entry->opcode =
        static_cast<uint8_t>(is_read ? (fixed ? IORING_OP_READ_FIXED : IORING_OP_READ)
                                     : (fixed ? IORING_OP_WRITE_FIXED : IORING_OP_WRITE));
    entry->fd = static_cast<int>(state.request.file->native_handle());
    entry->off = state.request.offset + state.done;
    entry->addr = reinterpret_cast<uint64_t>(data);
    entry->len = length;
    entry->user_data = slot;
    sq_array_[tail & sq_mask_] = tail & sq_mask_;
    std::atomic_ref<uint32_t>(*sq_tail_).store(tail + 1, std::memory_order_release);
    while (Enter(ring_, 1, 0, 0) < 1) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EBUSY) {
        // The kernel is short of memory for requests until some complete.
        if (Enter(ring_, 0, 1, IORING_ENTER_GETEVENTS) >= 0 || errno == EINTR) continue;
      }
      Status status = Status::FromOs(Code::kInternal, "io_uring submit", "", errno);
      // Taken back, or the next submission would hand it over.
      std::atomic_ref<uint32_t>(*sq_tail_).store(tail, std::memory_order_release);
      return status;
    }
    return Status::Ok();
  }

  Status Reap(std::vector<IoCompletion>* completions) {
    uint32_t head = *cq_head_;
    while (head != std::atomic_ref<uint32_t>(*cq_tail_).load(std::memory_order_acquire)) {
      const io_uring_cqe& entry = cqes_[head & cq_mask_];
      const auto slot = static_cast<uint32_t>(entry.user_data);
      const int64_t result = entry.res;
      std::atomic_ref<uint32_t>(*cq_head_).store(++head, std::memory_order_release);
      Status status;
      if (!slots_[slot].Advance(result, &status)) {
        status = Push(slot);
        if (status.ok()) continue;
      }
      completions->push_back({slots_[slot].request.tag, std::move(status)});
      free_.push_back(slot);
    }
    return Status::Ok();
  }

  const uint32_t depth_;
  std::vector<TransferState> slots_;
  std::vector<uint32_t> free_;
  std::span<uint8_t> registered_;
  int ring_ = -1;
  RingMemory submission_, completion_, entries_;
  uint32_t* sq_tail_ = nullptr;
  uint32_t* sq_array_ = nullptr;
  uint32_t* cq_head_ = nullptr;
  uint32_t* cq_tail_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  uint32_t sq_mask_ = 0;
  uint32_t cq_mask_ = 0;
};

}  // namespace

Result<std::unique_ptr<IoQueue>> NewUringQueue(uint32_t depth) {
  auto queue = std::make_unique<UringQueue>(depth);
  FIRN_RETURN_IF_ERROR(queue->Open());
  return std::unique_ptr<IoQueue>(std::move(queue));
}

}  // namespace firn
