#include "pipeline/job.h"

#include <thread>

namespace firn {

Status Job::CheckStopped() const {
  if (!cancelled_ && !failed_) return Status::Ok();
  return Status::Error(Code::kAborted, "cancelled");
}

Status Job::RunWorkers(uint32_t count, const std::function<Status(uint32_t)>& worker) {
  std::mutex mutex;
  Status first_failure;
  const auto run = [&](uint32_t i) {
    Status status = worker(i);
    if (status.ok()) return;
    std::lock_guard lock(mutex);
    // The one who failed first tells why; the others only that they were stopped.
    if (first_failure.ok() || first_failure.code() == Code::kAborted) {
      first_failure = std::move(status);
    }
    failed_ = true;
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 1; i < count; ++i) threads.emplace_back(run, i);
  run(0);
  for (std::thread& thread : threads) thread.join();
  return first_failure;
}

}  // namespace firn
