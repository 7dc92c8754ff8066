#include "bench/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace firn {

namespace {

constexpr uint32_t kSub = LatencyHistogram::kSubBuckets;
constexpr uint32_t kSubBits = std::countr_zero(kSub);

// Values below kSub have a bucket each; above, the highest bits of a value are its bucket.
size_t BucketOf(uint64_t ns) {
  if (ns < kSub) return static_cast<size_t>(ns);
  const auto power = static_cast<uint32_t>(std::bit_width(ns)) - 1 - kSubBits;
  if (power >= LatencyHistogram::kPowers) return size_t{LatencyHistogram::kPowers + 1} * kSub - 1;
  return size_t{power + 1} * kSub + static_cast<size_t>((ns >> power) - kSub);
}

// The largest value of a bucket.
uint64_t UpperBound(size_t bucket) {
  if (bucket < kSub) return bucket;
  const size_t power = bucket / kSub - 1;
  return ((uint64_t{bucket % kSub} + kSub + 1) << power) - 1;
}

}  // namespace

void LatencyHistogram::Record(uint64_t ns) {
  ++buckets_[BucketOf(ns)];
  ++count_;
  min_ = std::min(min_, ns);
  max_ = std::max(max_, ns);
  sum_ += static_cast<double>(ns);
}

void LatencyHistogram::Add(const LatencyHistogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

uint64_t LatencyHistogram::Percentile(double share) const {
  if (count_ == 0) return 0;
  const auto rank =
      static_cast<uint64_t>(std::ceil(std::clamp(share, 0.0, 1.0) * static_cast<double>(count_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    // The last bucket is open above, and the largest value is known exactly.
    if (seen >= std::max<uint64_t>(rank, 1)) return std::min(UpperBound(i), max_);
  }
  return max_;
}

std::vector<LatencyHistogram::Bucket> LatencyHistogram::Buckets() const {
  std::vector<Bucket> found;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i] > 0) found.push_back({std::min(UpperBound(i), max_), buckets_[i]});
  }
  return found;
}

double LatencyHistogram::mean() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

}  // namespace firn
