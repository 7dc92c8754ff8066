// Where the bytes lie that a measurement reads: of a file, or of a disk through its whole chain.
//
// Ranges point into files that their owner keeps open. They are whole pages of what is there: holes
// are left out, as reading them would measure nothing.
#ifndef FIRN_BENCH_DISK_RANGES_H_
#define FIRN_BENCH_DISK_RANGES_H_

#include <cstdint>
#include <vector>

#include "core/status.h"
#include "disk/disk.h"
#include "io/file.h"

namespace firn {

struct FileRange {
  File* file = nullptr;
  uint64_t offset = 0;
  uint64_t length = 0;
};

struct RangePlan {
  // So many ranges are kept; what lies behind them is not read, and `is_cut` says so.
  static constexpr size_t kRangesMax = 1 << 20;

  std::vector<FileRange> ranges;
  uint64_t bytes = 0;
  bool direct = true;  // all of them are read past the cache
  bool is_cut = false;

  // False when there is no room for it.
  bool Add(const FileRange& range);
};

// The allocated bytes of a disk, in the order of the virtual disk.
Result<RangePlan> PlanDisk(const Disk& disk, bool direct);
// The data of one file, in the file's order.
Result<RangePlan> PlanFile(File* file);

// Goes through a plan in requests of at most `block_bytes`, from byte `position` on, and round and
// round if it is told to.
class RangeCursor {
 public:
  RangeCursor(const RangePlan& plan, uint32_t block_bytes, uint64_t position, bool wraps);
  // False at the end.
  bool Next(FileRange* request);
  // Of the next request, as bytes of the plan.
  uint64_t position() const { return position_; }

 private:
  const RangePlan& plan_;
  const uint32_t block_bytes_;
  const bool wraps_;
  size_t range_ = 0;
  uint64_t inside_ = 0;
  uint64_t position_ = 0;
};

}  // namespace firn

#endif  // FIRN_BENCH_DISK_RANGES_H_
