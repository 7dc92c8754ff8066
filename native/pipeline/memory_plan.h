// How a job's memory is divided before it begins; nothing large is allocated later.
#ifndef FIRN_PIPELINE_MEMORY_PLAN_H_
#define FIRN_PIPELINE_MEMORY_PLAN_H_

#include <algorithm>
#include <cstdint>

#include "chunk/page.h"
#include "core/bytes.h"
#include "pack/pack_format.h"

namespace firn {

// A backup: index entries of the run, and for each worker segments to read ahead and stripes to
// write behind.
struct BackupMemory {
  static constexpr uint64_t kStripeBytesMin = 4 * kMiB;
  static constexpr uint64_t kMapStripeBytes = 2 * kMiB;
  // More hides no latency that these do not, and memory that is touched has its price.
  static constexpr uint32_t kSegmentsMax = 3;
  static constexpr uint32_t kStripesMax = 2;

  uint32_t workers = 1;
  uint32_t segments = 2;      // for each worker
  uint32_t data_stripes = 2;  // for each worker
  uint64_t stripe_bytes = kStripeBytesMin;
  uint64_t registry_bytes = 0;

  uint64_t worker_bytes() const {
    return segments * uint64_t{kSegmentBytes} + data_stripes * stripe_bytes + kMapStripeBytes;
  }

  // One worker always runs, with the least it can do with, even if `memory_bytes` is less. A data
  // stripe holds a record of `record_bytes_max` at least, as chunks may be as large as segments.
  static BackupMemory Plan(uint64_t memory_bytes, uint32_t workers_wanted,
                           uint64_t record_bytes_max) {
    BackupMemory plan;
    plan.stripe_bytes =
        std::max(kStripeBytesMin, RoundUp(kStripeHeaderBytes + record_bytes_max, kPackAlignment));
    plan.registry_bytes = std::clamp<uint64_t>(memory_bytes / 5, 4 * kMiB, 512 * kMiB);
    const uint64_t rest = memory_bytes - std::min(memory_bytes, plan.registry_bytes);
    plan.workers = static_cast<uint32_t>(
        std::clamp<uint64_t>(rest / plan.worker_bytes(), 1, std::max(1u, workers_wanted)));
    const uint64_t share = rest / plan.workers;
    // Reading ahead hides the source's latency, which is the longer one: it gets two thirds of what
    // is left.
    while (plan.worker_bytes() + kSegmentBytes <= share && plan.segments < kSegmentsMax) {
      ++plan.segments;
      if (plan.worker_bytes() + plan.stripe_bytes <= share && plan.data_stripes < kStripesMax) {
        ++plan.data_stripes;
      }
    }
    return plan;
  }
};

}  // namespace firn

#endif  // FIRN_PIPELINE_MEMORY_PLAN_H_
