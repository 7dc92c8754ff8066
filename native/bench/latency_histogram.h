// Latencies counted in buckets that keep a fixed relative error, as HdrHistogram does.
//
// A value falls into one of 64 buckets for each power of two, so that any percentile is known to
// within 1/64 (1.6 %), whatever its size, in a fixed 20 KiB. Not thread-safe: each measuring thread
// has its own, and Add joins them. All values are nanoseconds; what is longer than the last bucket
// is counted in it, and max() is exact all the same.
#ifndef FIRN_BENCH_LATENCY_HISTOGRAM_H_
#define FIRN_BENCH_LATENCY_HISTOGRAM_H_

#include <array>
#include <cstdint>
#include <vector>

namespace firn {

class LatencyHistogram {
 public:
  static constexpr uint32_t kSubBuckets = 64;  // for each power of two
  static constexpr uint32_t kPowers = 40;      // up to 2^45 ns, ten hours

  // A bucket that is not empty: values up to `upper_ns`, and how many.
  struct Bucket {
    uint64_t upper_ns = 0;
    uint64_t count = 0;
  };

  void Record(uint64_t ns);
  void Add(const LatencyHistogram& other);

  // The smallest value that at least `share` (0..1) of all values do not exceed, as its bucket's
  // upper bound; 0 if there is none.
  uint64_t Percentile(double share) const;
  std::vector<Bucket> Buckets() const;

  uint64_t count() const { return count_; }
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double mean() const;

 private:
  std::array<uint64_t, (kPowers + 1) * kSubBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace firn

#endif  // FIRN_BENCH_LATENCY_HISTOGRAM_H_
