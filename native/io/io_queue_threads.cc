// IoQueue over a few threads that block in their transfers: for kernels and containers that refuse
// io_uring, and for comparing with what else there is.
//
// The requests wait in one list and the completions in another, under one lock; the threads hold it
// only to take and to give. Eight threads keep a disk as busy as a queue of eight, which is where
// most devices reach their rate for requests of a MiB.

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <thread>

#include "io/io_queue_transfer.h"

namespace firn {

namespace {

constexpr uint32_t kThreadsMax = 8;

class ThreadQueue final : public IoQueue {
 public:
  explicit ThreadQueue(uint32_t depth) : depth_(depth) {
    for (uint32_t i = 0; i < std::min(depth, kThreadsMax); ++i) {
      threads_.emplace_back([this] { Serve(); });
    }
  }

  ~ThreadQueue() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void RegisterBuffer(std::span<uint8_t>) override {}

  Status Submit(const IoRequest& request) override {
    {
      std::lock_guard lock(mutex_);
      assert(in_flight_ < depth_);
      waiting_.push_back(request);
      ++in_flight_;
    }
    work_.notify_one();
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
  uint32_t depth() const override { return depth_; }
  const char* name() const override { return "threads"; }

 private:
  static Status Transfer(const IoRequest& request) {
    TransferState state{request};
    Status status;
    while (!state.Advance(TransferOnce(state), &status)) {
    }
    return status;
  }

  // Requests that were submitted are carried out even while stopping: their owner's buffers are
  // still there.
  void Serve() {
    std::unique_lock lock(mutex_);
    while (true) {
      work_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      IoRequest request = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      Status status = Transfer(request);
      lock.lock();
      done_.push_back({request.tag, std::move(status)});
      done_signal_.notify_one();
    }
  }

  const uint32_t depth_;
  mutable std::mutex mutex_;
  std::condition_variable work_, done_signal_;
  std::deque<IoRequest> waiting_;
  std::vector<IoCompletion> done_;
  uint32_t in_flight_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace

Result<std::unique_ptr<IoQueue>> NewThreadQueue(uint32_t depth) {
  return std::unique_ptr<IoQueue>(new ThreadQueue(depth));
}

}  // namespace firn
