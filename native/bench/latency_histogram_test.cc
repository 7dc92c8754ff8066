#include "bench/latency_histogram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/core_test_util.h"

namespace firn {
namespace {

TEST(LatencyHistogram, NothingRecordedIsAllZero) {
  const LatencyHistogram empty;
  EXPECT_EQ(empty.count(), 0u);
  EXPECT_EQ(empty.Percentile(0.5), 0u);
  EXPECT_EQ(empty.min(), 0u);
  EXPECT_TRUE(empty.Buckets().empty());
}

// Against the sorted values themselves, over nine decades.
TEST(LatencyHistogram, PercentilesAreWithinOneSixtyFourthOfTheTruth) {
  test::Random random(7);
  std::vector<uint64_t> values;
  LatencyHistogram histogram;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t value = random.Below(uint64_t{1} << (1 + random.Below(30)));
    values.push_back(value);
    histogram.Record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double share : {0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(share * 20000));
    const auto truth = static_cast<double>(values[rank - 1]);
    const auto got = static_cast<double>(histogram.Percentile(share));
    EXPECT_GE(got, truth) << share;
    EXPECT_LE(got, truth * (1 + 1.0 / 64) + 1) << share;
  }
  EXPECT_EQ(histogram.min(), values.front());
  EXPECT_EQ(histogram.max(), values.back());
}

TEST(LatencyHistogram, BucketsHoldEveryValueAndRise) {
  LatencyHistogram histogram;
  for (const uint64_t value : {0u, 63u, 64u, 65u, 1000u, 1000000u}) histogram.Record(value);
  histogram.Record(UINT64_MAX);
  uint64_t count = 0;
  uint64_t last = 0;
  for (const LatencyHistogram::Bucket& bucket : histogram.Buckets()) {
    EXPECT_TRUE(count == 0 || bucket.upper_ns > last);
    last = bucket.upper_ns;
    count += bucket.count;
  }
  EXPECT_EQ(count, histogram.count());
  EXPECT_EQ(histogram.max(), UINT64_MAX);
}

TEST(LatencyHistogram, JoinedOnesAreAsThoughRecordedTogether) {
  LatencyHistogram one, other, both;
  for (uint64_t i = 1; i < 1000; ++i) {
    (i % 3 == 0 ? one : other).Record(i * 977);
    both.Record(i * 977);
  }
  one.Add(other);
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.Percentile(0.95), both.Percentile(0.95));
  EXPECT_DOUBLE_EQ(one.mean(), both.mean());
}

}  // namespace
}  // namespace firn
