// PlanPackRanges and the plans of memory: what holds for any window and any budget.
#include <algorithm>
#include <map>
#include <set>

#include "core/core_test_util.h"
#include "pipeline/memory_plan.h"
#include "pipeline/restore_job.h"

namespace firn {
namespace {

constexpr uint64_t kRangeMax = 4 * kMiB;

std::vector<ChunkReference> RandomWindow(test::Random* random, size_t count, uint64_t pack_bytes) {
  std::vector<ChunkReference> window;
  for (size_t i = 0; i < count; ++i) {
    ChunkReference reference;
    reference.id = random->Id();
    reference.place.pack = static_cast<uint32_t>(random->Below(4));
    reference.place.offset = static_cast<uint32_t>(64 + random->Below(pack_bytes));
    reference.place.stored_length = static_cast<uint32_t>(random->Below(300 * kKiB));
    reference.first_page = random->Below(1 << 20);
    window.push_back(reference);
    // The same chunk at several places of the disk.
    for (; random->OneIn(4); ++i) {
      reference.first_page = random->Below(1 << 20);
      window.push_back(reference);
    }
  }
  return window;
}

TEST(PlanPackRangesTest, CoversEveryReferenceOnceInBoundedAlignedRanges) {
  test::Random random(161);
  for (int round = 0; round < 200; ++round) {
    const uint64_t pack_bytes = random.OneIn(2) ? 100 * kMiB : 3 * kMiB;
    std::vector<ChunkReference> window = RandomWindow(&random, random.Below(400), pack_bytes);
    std::multiset<uint64_t> before, after;
    for (const auto& reference : window) before.insert(reference.first_page);
    const std::vector<PackRange> ranges = PlanPackRanges(&window, kRangeMax);
    for (const auto& reference : window) after.insert(reference.first_page);
    ASSERT_EQ(before, after) << "the window was not only sorted";
    size_t next = 0;
    for (const PackRange& range : ranges) {
      ASSERT_EQ(range.first, next);
      ASSERT_GT(range.last, range.first);
      next = range.last;
      ASSERT_TRUE(IsAligned(range.begin, 4096) && IsAligned(range.end, 4096));
      ASSERT_LE(range.end - range.begin, kRangeMax);
      for (size_t i = range.first; i < range.last; ++i) {
        const ChunkPlace& place = window[i].place;
        ASSERT_EQ(place.pack, range.pack);
        ASSERT_GE(place.offset, range.begin);
        ASSERT_LE(uint64_t{place.offset} + kRecordHeaderBytes + place.stored_length, range.end);
      }
    }
    ASSERT_EQ(next, window.size());
  }
}

TEST(PlanPackRangesTest, ReadsOverSmallGapsAndNotOverLargeOnes) {
  const auto reference = [](uint32_t pack, uint32_t offset) {
    ChunkReference result;
    result.place = {pack, offset, 1000, 4096, RecordClass::kChunk};
    return result;
  };
  std::vector<ChunkReference> near = {reference(0, 200 * 1024), reference(0, 64)};
  EXPECT_EQ(PlanPackRanges(&near, kRangeMax).size(), 1u);
  std::vector<ChunkReference> far = {reference(0, 2 * kMiB), reference(0, 64)};
  EXPECT_EQ(PlanPackRanges(&far, kRangeMax).size(), 2u);
  std::vector<ChunkReference> packs = {reference(1, 64), reference(0, 64)};
  EXPECT_EQ(PlanPackRanges(&packs, kRangeMax).size(), 2u);
  std::vector<ChunkReference> none;
  EXPECT_TRUE(PlanPackRanges(&none, kRangeMax).empty());
}

TEST(PlanPackRangesTest, SurvivesPlacesAtTheEndOfTheNumbers) {
  ChunkReference reference;
  reference.place = {0, ~uint32_t{0}, kRecordContentMax, kRecordContentMax, RecordClass::kChunk};
  std::vector<ChunkReference> window(3, reference);
  window[1].place.offset = ~uint32_t{0} - 5000;
  for (const PackRange& range : PlanPackRanges(&window, kRangeMax)) {
    EXPECT_GT(range.end, range.begin);
    EXPECT_LE(range.end - range.begin, 9 * kMiB);
  }
}

TEST(BackupMemoryTest, KeepsWithinItsBudgetAndAlwaysRunsOneWorker) {
  test::Random random(162);
  for (int round = 0; round < 2000; ++round) {
    const uint64_t memory = random.Below(4 * kGiB);
    const auto wanted = static_cast<uint32_t>(random.Below(70));
    const uint32_t record =
        RecordBytesMax(static_cast<uint32_t>(random.Between(1, kSegmentPages)) * kPageBytes);
    const BackupMemory plan = BackupMemory::Plan(memory, wanted, record);
    ASSERT_GE(plan.workers, 1u);
    ASSERT_LE(plan.workers, std::max(1u, wanted));
    ASSERT_GE(plan.segments, 2u);
    ASSERT_GE(plan.data_stripes, 2u);
    ASSERT_GE(plan.stripe_bytes, kStripeHeaderBytes + uint64_t{record}) << "a chunk fits a stripe";
    ASSERT_LE(plan.stripe_bytes, 16 * kMiB) << "the format's bound";
    ASSERT_TRUE(IsAligned(plan.stripe_bytes, kPackAlignment));
    if (plan.workers > 1) {
      ASSERT_LE(plan.registry_bytes + plan.workers * plan.worker_bytes(), memory);
    }
  }
}

}  // namespace
}  // namespace firn
