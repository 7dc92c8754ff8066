#include "pipeline/pace.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace firn {

uint64_t Pace::TakeTurn(uint64_t bytes) {
  if (bytes_per_second_ == 0) return 0;
  const uint64_t now = now_();
  std::lock_guard lock(mutex_);
  if (!has_begun_) {
    has_begun_ = true;
    due_ns_ = now;
  }
  if (now < due_ns_) return due_ns_ - now;
  const uint64_t earliest = now > kCreditNs ? now - kCreditNs : 0;
  // A year is as long as anybody waits, and keeps the sum in range.
  constexpr double kYearNs = 3600e9 * 24 * 365;
  const double cost = static_cast<double>(bytes) / static_cast<double>(bytes_per_second_) * 1e9;
  due_ns_ = std::max(due_ns_, earliest) + static_cast<uint64_t>(std::min(cost, kYearNs));
  return 0;
}

Status Pace::AwaitTurn(uint64_t bytes, const Stop& idle) {
  FIRN_RETURN_IF_ERROR(stop_());
  for (uint64_t wait = TakeTurn(bytes); wait > 0; wait = TakeTurn(bytes)) {
    if (idle) FIRN_RETURN_IF_ERROR(idle());
    Nap(wait);
    FIRN_RETURN_IF_ERROR(stop_());
  }
  return Status::Ok();
}

void Pace::Nap(uint64_t ns) {
  std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(ns, kNapNsMax)));
}

}  // namespace firn
