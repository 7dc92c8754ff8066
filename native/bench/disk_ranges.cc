#include "bench/disk_ranges.h"

#include <algorithm>

#include "chunk/page.h"
#include "core/bytes.h"

namespace firn {

namespace {

bool IsDirect(const Extent& extent) {
  return extent.source->direct != nullptr && extent.source->direct->direct() &&
         IsAligned(extent.source_offset | extent.length, kPageBytes);
}

}  // namespace

bool RangePlan::Add(const FileRange& range) {
  if (ranges.size() >= kRangesMax) {
    is_cut = true;
    return false;
  }
  ranges.push_back(range);
  bytes += range.length;
  return true;
}

Result<RangePlan> PlanDisk(const Disk& disk, bool direct) {
  RangePlan plan;
  plan.direct = direct;
  std::vector<Extent> extents;
  uint64_t offset = 0;
  while (true) {
    FIRN_ASSIGN_OR_RETURN(offset, disk.NextPresent(offset));
    if (offset >= disk.size()) return plan;
    const uint64_t end =
        std::min<uint64_t>(RoundDown(offset, kSegmentBytes) + kSegmentBytes, disk.size());
    extents.clear();
    FIRN_RETURN_IF_ERROR(disk.Map(offset, end - offset, &extents));
    for (const Extent& extent : extents) {
      if (extent.source == nullptr) continue;
      const bool is_direct = direct && IsDirect(extent);
      if (!is_direct) plan.direct = false;
      File* file = is_direct ? extent.source->direct : extent.source->buffered;
      if (!plan.Add({file, extent.source_offset, extent.length})) return plan;
    }
    offset = end;
  }
}

Result<RangePlan> PlanFile(File* file) {
  RangePlan plan;
  plan.direct = file->direct();
  uint64_t offset = 0;
  while (true) {
    FIRN_ASSIGN_OR_RETURN(const std::optional<DataRange> data, file->NextData(offset));
    if (!data) return plan;
    // Unbuffered reads are of whole pages: what stands over at a range's ends is left out.
    const uint64_t begin = RoundUp(data->begin, kPageBytes);
    const uint64_t end = RoundDown(data->end, kPageBytes);
    if (begin < end && !plan.Add({file, begin, end - begin})) return plan;
    offset = data->end;
  }
}

RangeCursor::RangeCursor(const RangePlan& plan, uint32_t block_bytes, uint64_t position, bool wraps)
    : plan_(plan), block_bytes_(block_bytes), wraps_(wraps) {
  if (plan.bytes == 0) return;
  position_ = RoundDown(position % plan.bytes, kPageBytes);
  uint64_t rest = position_;
  while (rest >= plan.ranges[range_].length) rest -= plan.ranges[range_++].length;
  inside_ = rest;
}

bool RangeCursor::Next(FileRange* request) {
  if (range_ == plan_.ranges.size()) {
    if (!wraps_ || plan_.bytes == 0) return false;
    range_ = 0;
    position_ = 0;
  }
  const FileRange& range = plan_.ranges[range_];
  const uint64_t length = std::min<uint64_t>(block_bytes_, range.length - inside_);
  *request = {range.file, range.offset + inside_, length};
  inside_ += length;
  position_ += length;
  if (inside_ == range.length) {
    ++range_;
    inside_ = 0;
  }
  return true;
}

}  // namespace firn
